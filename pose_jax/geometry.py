"""Boxes, affine transforms, bilinear warps and RoIAlign.

Points are (x, y), in pixels with integer centers; every `size` is (width, height). A
transform is a [2, 3] matrix that maps a point (x, y, 1) of one frame to (x, y) of
another. Frames: *image*, *input* (of the network), *heatmap*.

Three alignments of a box with a pixel grid exist in the literature, and a network has to
be decoded with the one it was trained with:

  stride:     the box [c - W/2, c + W/2] goes to [0, w]: its center to w/2, factor w/W
              (HRNet, SimpleBaseline).
  aligned:    the box's first and last pixel center go to those of the grid: its center to
              (w-1)/2, factor (w-1)/(W-1) (DARK's code, UDP, MultiPose, PoseNet).
  half_pixel: the box goes to the outer edges of the grid's pixels, [-1/2, w - 1/2]: its
              center to (w-1)/2, factor w/W (MoveNet).

b rows, n points, h w rows and columns of pixels, c channels.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, UInt8

Alignment: TypeAlias = Literal["stride", "aligned", "half_pixel"]
ALIGNMENTS: tuple[Alignment, ...] = get_args(Alignment)

_ROI_VALUES = 2**23
"""Maximum number of values of the intermediate of `roi_align`, 32 MB: a larger one takes
more memory and is slower on a CPU."""


def person_box(
    box_xyxy: Float[Array, "*b 4"],
    *,
    aspect: float | None,
    padding: int | float | Float[Array, ""] | Float[Array, "*b"],
) -> tuple[Float[Array, "*b 2"], Float[Array, "*b 2"]]:
    """Returns the crop region of a person: the box, widened and padded about its center.

    First the width or the height grows until the aspect fits (nothing is ever cut off),
    then both are multiplied by the padding: the crop rule of MultiPose
    (arXiv:1701.01779) and HRNet (arXiv:1902.09212).

    Args:
      box_xyxy: (x, y, x + w, y + h), image pixels. An extent below 1 px, or negative,
        counts as 1 px.
      aspect: width over height of the result; None keeps the box's own.
      padding: factor of width and height, one for all or one per row.

    Returns:
      center_xy and size (w, h), image pixels; size is at least `padding` px.

    Raises:
      ValueError: box_xyxy is not [*b, 4], aspect or padding is not positive, or padding
        is neither one factor nor one per row.
    """
    box_xyxy = jnp.asarray(box_xyxy)
    batch = box_xyxy.shape[:-1]
    if box_xyxy.shape[-1:] != (4,):
        raise ValueError(f"box_xyxy is [*b, 4], in pixels; got {box_xyxy.shape}.")
    if aspect is not None and aspect <= 0:
        raise ValueError(f"aspect (width / height) must be positive; got {aspect}.")
    if isinstance(padding, (int, float)) and padding <= 0:
        raise ValueError(f"padding is a positive factor; got {padding}.")
    _check_one_or_rows("padding", padding, batch)
    center_xy = 0.5 * (box_xyxy[..., :2] + box_xyxy[..., 2:])
    size = jnp.maximum(box_xyxy[..., 2:] - box_xyxy[..., :2], 1)
    if aspect is not None:
        width, height = size[..., 0], size[..., 1]
        size = jnp.stack(
            [jnp.maximum(width, height * aspect), jnp.maximum(height, width / aspect)],
            axis=-1,
        )
    padding = jnp.broadcast_to(jnp.asarray(padding, size.dtype), batch)
    return center_xy, size * padding[..., None]


def crop_transform(
    center_xy: Float[Array, "*b 2"],
    size: Float[Array, "*b 2"],
    rotation_deg: int | float | Float[Array, ""] | Float[Array, "*b"] = 0,
    *,
    output_size: tuple[int, int],
    alignment: Alignment = "stride",
    flip: bool | Bool[Array, ""] | Bool[Array, "*b"] = False,
) -> Float[Array, "*b 2 3"]:
    """Returns the transform that crops a region of an image: image -> input.

    The region is first rotated about its center and then scaled, each axis by its own
    factor. `flip` comes last and mirrors the pixels of the output, x -> w - 1 - x, like
    reversing the rows of the finished crop, as a flip test does. (In
    "stride" alignment the center of a flipped crop is therefore at w/2 - 1.)

    Args:
      center_xy: center of the region, image pixels.
      size: (width, height) of the region, image pixels. Less than 1 px counts as 1 px,
        in "aligned" less than 2 px as 2 px, so that nothing is divided by zero.
      rotation_deg: rotation of the image, degrees, counter-clockwise as seen on the
        screen (HRNet's sign).
      output_size: (width, height) of the network input, pixels.
      alignment: "stride", "aligned" or "half_pixel", see the module.
      flip: mirror left and right.

    Returns:
      The transform from image pixels to input pixels.

    Raises:
      ValueError: the shapes differ, the output is not at least 1x1 px (2x2 in
        "aligned"), or the alignment is unknown.
    """
    center_xy, size = jnp.asarray(center_xy), jnp.asarray(size)
    batch = center_xy.shape[:-1]
    if center_xy.shape != size.shape or size.shape[-1:] != (2,):
        raise ValueError(
            "center_xy and size are both [*b, 2], in pixels; got "
            f"{center_xy.shape} and {size.shape}."
        )
    _check_one_or_rows("rotation_deg", rotation_deg, batch)
    _check_one_or_rows("flip", flip, batch)
    _check_aligned_sizes(alignment, output_size)
    less = _less(alignment)
    output = _rows(output_size, size)
    factor = (output - less) / jnp.maximum(size - less, 1)
    middle = (output if alignment == "stride" else output - 1) / 2

    flip_x = jnp.broadcast_to(jnp.asarray(flip, bool), batch)
    flip_x = jnp.stack([flip_x, jnp.zeros_like(flip_x)], axis=-1)
    factor = jnp.where(flip_x, -factor, factor)
    middle = jnp.where(flip_x, output - 1 - middle, middle)

    angle = jnp.deg2rad(jnp.asarray(rotation_deg, size.dtype))
    angle = jnp.broadcast_to(angle, batch)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turn = jnp.stack([jnp.stack([cos, sin], -1), jnp.stack([-sin, cos], -1)], -2)
    linear = factor[..., None] * turn  # [*b, 2, 2]
    shift = middle - jnp.sum(linear * center_xy[..., None, :], axis=-1)
    return jnp.concatenate([linear, shift[..., None]], axis=-1)


def compose(
    outer: Float[Array, "*b 2 3"], inner: Float[Array, "*b 2 3"]
) -> Float[Array, "*b 2 3"]:
    """Composes two transforms: first `inner`, then `outer`.

    Raises:
      ValueError: the shapes differ.
    """
    outer, inner = _transform(outer), _transform(inner)
    if outer.shape != inner.shape:
        raise ValueError(
            "transforms are composed row by row and need one shape; got "
            f"{outer.shape} and {inner.shape}."
        )
    # Sums of products, not a matmul: those round to bfloat16 or TF32 on accelerators.
    product = jnp.sum(outer[..., :2, None] * inner[..., None, :, :], axis=-2)
    return product.at[..., 2].add(outer[..., 2])


def invert(transform: Float[Array, "*b 2 3"]) -> Float[Array, "*b 2 3"]:
    """Inverts transforms; all zeros where the determinant is 0."""
    transform = _transform(transform)
    (a, b, c), (d, e, f) = ([transform[..., i, j] for j in range(3)] for i in range(2))
    det = a * e - b * d
    inverse = jnp.stack(
        [
            jnp.stack([e, -b, b * f - c * e], -1),
            jnp.stack([-d, a, c * d - a * f], -1),
        ],
        axis=-2,
    )
    singular = (det == 0)[..., None, None]
    det = jnp.where(singular, 1, det[..., None, None])
    return jnp.where(singular, 0, inverse / det)


def transform_points(
    points_xy: Float[Array, "... 2"], transform: Float[Array, "*b 2 3"]
) -> Float[Array, "... 2"]:
    """Transforms points.

    Args:
      points_xy: [*b, ..., 2], in the source frame of the transform; there may be any
        axes between the rows of the transform and the coordinates.
      transform: one for each row.

    Returns:
      Points in the target frame of the transform, with the shape of points_xy.

    Raises:
      ValueError: the leading axes of the points are not the transform's.
    """
    points_xy, transform = jnp.asarray(points_xy), _transform(transform)
    batch = transform.shape[:-2]
    if points_xy.shape[: len(batch)] != batch or points_xy.ndim <= len(batch):
        raise ValueError(
            f"points_xy needs the leading axes of the transform, {batch}; got "
            f"{points_xy.shape}."
        )
    between = points_xy.ndim - 1 - len(batch)
    transform = transform.reshape(*batch, *(1,) * between, 2, 3)
    moved = jnp.sum(transform[..., :2] * points_xy[..., None, :], axis=-1)
    return moved + transform[..., 2]


def heatmap_to_input(
    points_xy: Float[Array, "... 2"],
    *,
    heatmap_size: tuple[int, int],
    input_size: tuple[int, int],
    alignment: Alignment,
) -> Float[Array, "... 2"]:
    """Converts heatmap pixels to input pixels: eq. (9) of DARK (arXiv:1910.06278).

    Args:
      points_xy: heatmap pixels.
      heatmap_size: (w, h), pixels.
      input_size: (W, H) of the network input, pixels.
      alignment: "stride": lambda = W/w; "aligned": lambda = (W-1)/(w-1); "half_pixel":
        x_input = lambda (x + 1/2) - 1/2 with lambda = W/w.

    Returns:
      Input pixels.

    Raises:
      ValueError: a size is not at least 1x1 (2x2 in "aligned"), or the alignment is
        unknown.
    """
    points_xy = jnp.asarray(points_xy)
    factor = _rows(_lambda(heatmap_size, input_size, alignment), points_xy)
    if alignment == "half_pixel":
        return factor * points_xy + (factor - 1) / 2
    return points_xy * factor


def input_to_heatmap(
    points_xy: Float[Array, "... 2"],
    *,
    heatmap_size: tuple[int, int],
    input_size: tuple[int, int],
    alignment: Alignment,
) -> Float[Array, "... 2"]:
    """Converts input pixels to heatmap pixels: the inverse of `heatmap_to_input`, eq. (9).

    Not rounded: the unbiased encoding needs the exact position.

    Args:
      points_xy: pixels of the network input.
      heatmap_size: (w, h), pixels.
      input_size: (W, H) of the network input, pixels.
      alignment: as of `heatmap_to_input`.

    Returns:
      Heatmap pixels.

    Raises:
      ValueError: a size is not at least 1x1 (2x2 in "aligned"), or the alignment is
        unknown.
    """
    points_xy = jnp.asarray(points_xy)
    factor = _rows(_lambda(heatmap_size, input_size, alignment), points_xy)
    if alignment == "half_pixel":
        points_xy = points_xy - (factor - 1) / 2
    return points_xy / factor


def warp(
    image: Float[Array, "*b h w c"] | UInt8[Array, "*b h w c"],
    transform: Float[Array, "*b 2 3"],
    *,
    size: tuple[int, int],
) -> Float[Array, "*b h2 w2 c"]:
    """Resamples images bilinearly, with zeros outside the image.

    Each output pixel is the bilinear interpolation of the four pixels around its source
    point; pixels outside the image count as zero. There is no low-pass filter. Source
    points are exact to about 1e-6 px at any distance from the origin (plain float32 is
    off by 1e-4 px at x = 1920, which is measurable on noise images).

    Args:
      image: any range; uint8 is not scaled.
      transform: maps image pixels to output pixels.
      size: (width, height) of the output, pixels.

    Returns:
      float32 in the image's range. Zero everywhere if the transform is not finite or
      singular (determinant within 1e-12 of zero).

    Raises:
      ValueError: the leading axes differ or the size is not at least 1x1 px.
    """
    image, transform = jnp.asarray(image), _transform(transform)
    if image.ndim < 3 or image.shape[:-3] != transform.shape[:-2]:
        raise ValueError(
            "image [*b, h, w, c] and transform [*b, 2, 3] need the same leading axes; "
            f"got {image.shape} and {transform.shape}."
        )
    _check_size(size, 1)

    def one(image, transform):
        return _warp_one(image, transform, size)

    for _ in transform.shape[:-2]:
        one = jax.vmap(one)
    return one(image, transform)


def roi_align(
    features: Float[Array, "h w c"],
    boxes_xyxy: Float[Array, "n 4"],
    *,
    size: tuple[int, int],
    stride: int | float,
    samples: int = 2,
    offset: int | float = 0,
) -> Float[Array, "n h2 w2 c"]:
    """Extracts features of fixed size for each box: RoIAlign (arXiv:1703.06870).

    A box is divided into as many cells as the output has; a cell is the mean of samples x
    samples bilinear interpolations at regular positions inside it: in x at
    x0 + (j + (s + 1/2) / samples) * (x1 - x0) / w2 for column j and sample s.

    Coordinates are those of the plane in which pixels have integer centers, and nothing
    is rounded or moved by half a pixel: the box (10, 10, 14, 14) is sampled about the
    pixel (12, 12). This matches torchvision's `aligned=False` (offset 0) with two
    exceptions: torchvision enlarges a side to at least one feature, and returns zeros
    from one feature outside the map on, where this function returns the nearest feature
    of the border.

    Differentiable in the features; boxes get no gradient. One image: `jax.vmap` over
    more.

    Args:
      features: feature i lies at input pixel stride * i + offset.
      boxes_xyxy: (x, y, x + w, y + h), pixels of the network's input. A zero or negative
        extent samples one position.
      size: (width, height) of the output.
      stride: input pixels from one feature to the next.
      samples: number of samples per cell and axis.
      offset: position of the first feature, input pixels.

    Returns:
      In the features' dtype and range.

    Raises:
      ValueError: the shapes are not [h, w, c] and [n, 4], the size is not at least 1x1,
        or the stride or the samples are not positive.
    """
    features, boxes_xyxy = jnp.asarray(features), jnp.asarray(boxes_xyxy)
    if features.ndim != 3 or boxes_xyxy.ndim != 2 or boxes_xyxy.shape[-1] != 4:
        raise ValueError(
            "roi_align takes the features of one image, [h, w, c], and its boxes, [n, 4]; "
            f"got {features.shape} and {boxes_xyxy.shape}. vmap over images."
        )
    _check_size(size, 1)
    if stride <= 0 or samples < 1:
        raise ValueError(
            "stride is a distance in pixels and samples a number, both positive; got "
            f"{stride} and {samples}."
        )
    h, w, c = features.shape
    places = (lax.stop_gradient(boxes_xyxy) - offset) / stride
    columns = _roi_weights(places[:, 0], places[:, 2], size[0], samples, w)
    rows = _roi_weights(places[:, 1], places[:, 3], size[1], samples, h)
    columns, rows = columns.astype(features.dtype), rows.astype(features.dtype)

    def cut(weights):
        columns, rows = weights
        narrow = jnp.einsum("iw,hwc->hic", columns, features)
        return jnp.einsum("jh,hic->jic", rows, narrow)

    # Few boxes at a time: the intermediate of the two products is as high as the map.
    at_once = max(1, _ROI_VALUES // (h * size[0] * c))
    if len(boxes_xyxy) <= at_once:
        return jax.vmap(cut)((columns, rows))
    return lax.map(cut, (columns, rows), batch_size=at_once)


def _warp_one(
    image: Float[Array, "h w c"] | UInt8[Array, "h w c"],
    transform: Float[Array, "2 3"],
    size: tuple[int, int],
) -> Float[Array, "h2 w2 c"]:
    x, fx, y, fy = _source_grid(transform.astype(jnp.float32), size)
    height, width, _ = image.shape

    def tap(dx, dy):
        weight = (fx if dx else 1 - fx) * (fy if dy else 1 - fy)
        column, row = x + dx, y + dy
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        pixel = image.at[row, column].get(mode="clip").astype(jnp.float32)
        return jnp.where(inside, weight, 0)[..., None] * pixel

    return tap(0, 0) + tap(1, 0) + tap(0, 1) + tap(1, 1)


def _source_grid(transform, size):
    """Returns the sources of output pixels: x, its fraction, y, its fraction; all [h, w].

    The inverse map is a sum of a function of the column and one of the row, so the
    exact arithmetic is only done for w + h numbers. Whole pixels and fractions are
    summed separately, which is exact at any distance from the origin.
    """
    (a, b, c), (d, e, f) = transform
    products = _product(jnp.stack([a, b, c, -b, -c, -a]), jnp.stack([e, f, d, d, e, f]))
    high, low = _add([p[:3] for p in products], [p[3:] for p in products])
    regular = jnp.isfinite(high[0] + low[0]) & (jnp.abs(high[0]) > 1e-12)
    determinant = jnp.where(regular, high[0], 1), jnp.where(regular, low[0], 0)
    zero = jnp.zeros_like(a)
    adjugate = (
        jnp.stack([jnp.stack([e, -b, high[1]]), jnp.stack([-d, a, high[2]])]),
        jnp.stack([jnp.stack([zero, zero, low[1]]), jnp.stack([zero, zero, low[2]])]),
    )
    high, low = _divide(adjugate, determinant)

    columns, rows = (np.arange(n, dtype=np.float32) for n in size)
    steps = columns[None, :], rows[:, None], np.ones((1, 1), np.float32)
    grid = []
    for axis in (0, 1):  # separately: one [2, h, w] array makes the warp slower
        (x, fx), (y, fy), (z, fz) = (
            _whole_and_fraction(high[axis, i], low[axis, i], steps[i]) for i in range(3)
        )
        fraction = fx + (fy + fz)
        carry = jnp.floor(fraction)
        usable = regular & jnp.isfinite(fraction)
        whole = x + (y + z) + carry.astype(jnp.int32)
        # -2^20 is far outside, where all taps are zero
        grid.append(jnp.where(usable, whole, -(2**20)))
        grid.append(jnp.where(usable, fraction - carry, 0))
    return grid


def _whole_and_fraction(high, low, steps):
    """slope * steps as int32 + float32 in about [0, 3); exact for steps up to 4096."""
    products = jnp.stack([part * steps for part in (*_split(high), low)])
    floors = lax.stop_gradient(jnp.floor(products))
    # beyond 2^27 px is outside of every image; the sum must not overflow
    whole = jnp.clip(floors, -(2.0**27), 2.0**27).astype(jnp.int32)
    return jnp.sum(whole, axis=0), jnp.sum(products - floors, axis=0)


# Numbers as unevaluated sums (high, low) of two float32: 48 bits. Products are formed
# of halves of 12 bits, hence exact, also if the compiler fuses them with an addition.


def _split(x):
    bits = lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0xFFFFF000)
    high = lax.stop_gradient(lax.bitcast_convert_type(bits, jnp.float32))
    return high, x - high


def _two_sum(x, y):
    total = x + y
    y_seen = total - x
    return total, (x - (total - y_seen)) + (y - y_seen)


def _product(x, y):
    (x1, x2), (y1, y2) = _split(x), _split(y)
    high, low = _two_sum(x1 * y1, x1 * y2)
    high, low2 = _two_sum(high, x2 * y1)
    return _two_sum(high, low + low2 + x2 * y2)


def _add(x, y):
    high, low = _two_sum(x[0], y[0])
    return _two_sum(high, low + (x[1] + y[1]))


def _divide(x, y):
    first = x[0] / y[0]
    high, low = _product(-first, y[0])
    rest = _add(x, (high, low - first * y[1]))
    return _two_sum(first, rest[0] / y[0])


def _roi_weights(low, high, cells, samples, features):
    """Returns the weight of each feature of an axis in each cell: [n, cells, features]."""
    part = (np.arange(cells * samples) + 0.5) / (cells * samples)
    extent = jnp.maximum(high - low, 0)
    places = low[:, None] + extent[:, None] * jnp.asarray(part, low.dtype)[None]
    places = jnp.clip(places, 0, features - 1)[..., None]
    feature = jnp.arange(features, dtype=low.dtype)[None, None]
    taps = jnp.maximum(1 - jnp.abs(places - feature), 0)
    return jnp.mean(taps.reshape(-1, cells, samples, features), axis=2)


def _transform(transform):
    if jnp.shape(transform)[-2:] != (2, 3):
        raise ValueError(f"a transform is [*b, 2, 3]; got {jnp.shape(transform)}.")
    return jnp.asarray(transform)


def _lambda(heatmap_size, input_size, alignment):
    _check_aligned_sizes(alignment, heatmap_size, input_size)
    less = _less(alignment)
    return (np.array(input_size) - less) / (np.array(heatmap_size) - less)


def _less(alignment):
    """Returns 1 where extents are between the centers of the outermost pixels."""
    return 1 if alignment == "aligned" else 0


def _rows(values, like):
    """Broadcasts a pair of constants to the type and shape of `like`."""
    return jnp.broadcast_to(jnp.asarray(values, like.dtype), like.shape)


def _check_one_or_rows(what, value, batch):
    if jnp.shape(value) not in ((), batch):
        raise ValueError(
            f"{what} is one value or one per row, {batch}; got {jnp.shape(value)}."
        )


def _check_aligned_sizes(alignment, *sizes):
    if alignment not in ALIGNMENTS:
        known = ", ".join(map(repr, ALIGNMENTS))
        raise ValueError(f"alignment must be one of {known}; got {alignment!r}.")
    for size in sizes:
        _check_size(size, 2 if alignment == "aligned" else 1)


def _check_size(size, least):
    if len(size) != 2 or min(size) < least:
        raise ValueError(
            f"a size is (width, height), at least {least}x{least} px; got {size}."
        )
