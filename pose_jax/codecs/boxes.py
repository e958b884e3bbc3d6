"""Boxes of the person detector: anchors, box deltas, matching and sampling.

Faster R-CNN predicts a box relative to a reference box: one of the `anchors` of the
feature map, or a proposal. `match` assigns people to reference boxes, `sample` and `take`
select some of these for the loss, `encode` computes the regression targets, and `decode`
turns predicted deltas into boxes.

Boxes are (x0, y0, x1, y1) = (x, y, x + w, y + h), pixels of the network's input, with
integer pixel centers; overlaps are ratios of areas in the plane. A box with a zero or
negative side has no area and overlaps nothing; results are never NaN. Sizes are (width,
height). Inputs must be floating point (integers raise an error); results have at least
float32.

*b leading axes, n and m boxes. `match`, `sample` and `take` are for one image: `jax.vmap`
them.

Source: Faster R-CNN, Ren et al., NeurIPS 2015, arXiv:1506.01497.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, Key

_LARGEST = math.log(1000 / 16)
"""Upper bound of a decoded log size, a factor of 62.5 as in every public implementation:
an untrained network would overflow the exponential."""

_TIE = 1e-5
"""Relative tolerance for ties of overlaps: those of anchors in mirrored positions differ
by rounding."""


def anchors(
    *,
    size: tuple[int, int],
    stride: int | tuple[int, int],
    scales: Sequence[int | float],
    aspects: Sequence[int | float],
    offset: int | float = 0,
    rounded: bool = False,
) -> Float[Array, "n 4"]:
    """Returns the anchors of a region proposal network, a of them at each feature.

    Feature i lies at input pixel stride * i + offset, and its anchors are centered there.
    Anchors are not clipped at the border.

    Args:
      size: (w, h) of the feature map.
      stride: input pixels from one feature to the next; a pair: (in x, in y).
      scales: square roots of the areas, input pixels.
      aspects: height over width; about 2.5 for a standing person.
      offset: position of the first feature, input pixels; 0 for aligned grids.
      rounded: round half the sides to whole pixels, as torchvision does.

    Returns:
      float32, n = h * w * a with a = len(scales) * len(aspects), in the order of rows,
      columns, scales, aspects (the last varies fastest).

    Raises:
      ValueError: an empty map, no scale or aspect, or one that is not positive.
    """
    if min(size) < 1 or np.min(stride) <= 0:
        raise ValueError(
            "size is (width, height) and stride a distance in pixels, all positive; got "
            f"{size} and {stride}."
        )
    for name, values in (("scales", scales), ("aspects", aspects)):
        if len(values) == 0 or min(values) <= 0:
            raise ValueError(f"{name} are one or more positive numbers; got {values}.")
    w, h = size
    side, root = np.meshgrid(scales, np.sqrt(aspects), indexing="ij")
    half = np.stack([side / root, side * root], axis=-1).reshape(-1, 2) / 2
    half = np.round(half) if rounded else half
    y, x = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
    center = (np.stack([x, y], axis=-1) * stride + offset)[..., None, :]
    boxes = np.concatenate([center - half, center + half], axis=-1)
    return jnp.asarray(boxes.reshape(-1, 4), jnp.float32)


def iou(
    boxes_xyxy: Float[Array, "*b n 4"], others_xyxy: Float[Array, "*b m 4"]
) -> Float[Array, "*b n m"]:
    """Returns the intersection over union of all pairs of boxes.

    Args:
      boxes_xyxy: pixels.
      others_xyxy: pixels.

    Returns:
      In [0, 1]; 0 where one has no area.

    Raises:
      ValueError: not boxes, the leading axes differ, or integers.
    """
    boxes_xyxy, others_xyxy = _pairs(boxes_xyxy=boxes_xyxy, others_xyxy=others_xyxy)
    shared = _intersection(boxes_xyxy, others_xyxy)
    union = area(boxes_xyxy)[..., :, None] + area(others_xyxy)[..., None, :] - shared
    return _ratio(shared, union)


def coverage(
    boxes_xyxy: Float[Array, "*b n 4"], regions_xyxy: Float[Array, "*b m 4"]
) -> Float[Array, "*b n m"]:
    """Returns the fraction of each box in each region: intersection over the box's area.

    COCO's overlap with crowd regions: a box inside a region has overlap 1, however large
    the region is.

    Args:
      boxes_xyxy: pixels.
      regions_xyxy: pixels.

    Returns:
      In [0, 1]; 0 where one has no area.

    Raises:
      ValueError: not boxes, the leading axes differ, or integers.
    """
    boxes_xyxy, regions_xyxy = _pairs(boxes_xyxy=boxes_xyxy, regions_xyxy=regions_xyxy)
    shared = _intersection(boxes_xyxy, regions_xyxy)
    return _ratio(shared, area(boxes_xyxy)[..., :, None])


def encode(
    boxes_xyxy: Float[Array, "*b n 4"],
    anchors_xyxy: Float[Array, "*b n 4"],
    *,
    scale: Sequence[int | float] = (10, 10, 5, 5),
) -> Float[Array, "*b n 4"]:
    """Boxes relative to anchors, eq. (2) of Faster R-CNN, each number times its scale.

    t_x = (x - x_a) / w_a, t_y = (y - y_a) / h_a, t_w = log(w / w_a), t_h = log(h / h_a)
    with x, y the center of a box. The scales bring the four numbers, about 0.1 (shifts)
    and 0.2 (sizes) for a good proposal, to about 1.

    Args:
      boxes_xyxy: pixels. A side below 1 px, or negative, counts as 1 px here and in
        `decode`, as in `geometry`: padding gives finite numbers and gradients.
      anchors_xyxy: one for each box, pixels; anchors or proposals.
      scale: factors of (t_x, t_y, t_w, t_h); positive.

    Returns:
      (t_x, t_y, t_w, t_h) times the scale; all 0 for a box equal to its anchor.

    Raises:
      ValueError: not boxes, the shapes differ, integers, or a scale that is not positive.
    """
    _check_scale(scale)
    boxes_xyxy, anchors_xyxy = _matched(
        boxes_xyxy=boxes_xyxy, anchors_xyxy=anchors_xyxy
    )
    center, side = _center_and_side(boxes_xyxy)
    anchor_center, anchor_side = _center_and_side(anchors_xyxy)
    shift = (center - anchor_center) / anchor_side
    growth = jnp.log(side / anchor_side)
    deltas = jnp.concatenate([shift, growth], axis=-1)
    return deltas * _row(scale, deltas)


def decode(
    deltas: Float[Array, "*b n 4"],
    anchors_xyxy: Float[Array, "*b n 4"],
    *,
    scale: Sequence[int | float] = (10, 10, 5, 5),
) -> Float[Array, "*b n 4"]:
    """Decodes predicted deltas to boxes: the inverse of `encode`.

    Args:
      deltas: (t_x, t_y, t_w, t_h) times the scale. Width and height are limited to
        1000/16 times those of the anchor.
      anchors_xyxy: one for each row of deltas, pixels; a side below 1 px counts as 1.
      scale: as for `encode`.

    Returns:
      Pixels; a box may extend beyond the image.

    Raises:
      ValueError: not boxes, the shapes differ, integers, or a scale that is not positive.
    """
    _check_scale(scale)
    deltas, anchors_xyxy = _matched(deltas=deltas, anchors_xyxy=anchors_xyxy)
    anchor_center, anchor_side = _center_and_side(anchors_xyxy)
    deltas = deltas / _row(scale, deltas)
    center = anchor_center + deltas[..., :2] * anchor_side
    side = anchor_side * jnp.exp(jnp.minimum(deltas[..., 2:], _LARGEST))
    return jnp.concatenate([center - side / 2, center + side / 2], axis=-1)


def match(
    candidates_xyxy: Float[Array, "n 4"],
    people_xyxy: Float[Array, "m 4"],
    people_kind: Int32[Array, " m"],
    *,
    positive: int | float,
    negative: int | float,
    force: bool,
    crowd: int | float = 0.5,
) -> tuple[Int32[Array, " n"], Int32[Array, " n"]]:
    """Assigns each candidate to a person or to the background, or ignores it.

    A candidate is positive if its best IoU with a person is at least `positive`,
    background if it is below `negative`, and ignored in between. With `force`, the
    candidates with the highest nonzero IoU with a person are positive too and assigned
    to that person (including ties; a candidate claimed by several people goes to the one
    it overlaps most). Finally, candidates that are not positive and lie in a crowd region
    are ignored: they may show a person.

    Faster R-CNN: 0.7, 0.3 and force for anchors; 0.5, 0.5 and no force for proposals.

    Args:
      candidates_xyxy: anchors or proposals of one image, pixels. A box without extent is
        background; padding has to be removed afterwards.
      people_xyxy: m may be 0, pixels.
      people_kind: 0 padding, 1 person, 2 crowd region.
      positive: IoU, in (0, 1].
      negative: IoU, in (0, positive].
      force: leave no person without a candidate.
      crowd: a candidate is ignored if more than this fraction of it lies in one crowd
        region; in [0, 1].

    Returns:
      person: index of the assigned person, the first of ties; 0 if there is none or none
        overlaps. Only meaningful for positives.
      kind: 1 positive, 0 background, -1 ignored.

    Raises:
      ValueError: shapes that do not match, integers, or thresholds out of order.
    """
    if not 0 < negative <= positive <= 1 or not 0 <= crowd <= 1:
        raise ValueError(
            "thresholds are 0 < negative <= positive <= 1 and 0 <= crowd <= 1; got "
            f"negative {negative}, positive {positive} and crowd {crowd}."
        )
    candidates_xyxy, people_xyxy = _pairs(
        candidates_xyxy=candidates_xyxy, people_xyxy=people_xyxy
    )
    people_kind = jnp.asarray(people_kind)
    if people_xyxy.ndim != 2 or people_kind.shape != people_xyxy.shape[:1]:
        raise ValueError(
            "match takes one image, people_xyxy [m, 4] with a kind each; got "
            f"{people_xyxy.shape} and {people_kind.shape}. vmap over images."
        )
    if len(people_kind) == 0:  # Pad: an empty axis has no maximum.
        people_xyxy = jnp.zeros((1, 4), people_xyxy.dtype)
        people_kind = jnp.zeros(1, jnp.int32)

    overlap = iou(candidates_xyxy, people_xyxy)
    overlap = jnp.where((people_kind == 1)[None], overlap, 0)
    person, best = jnp.argmax(overlap, axis=1), jnp.max(overlap, axis=1)
    is_positive = best >= positive
    if force:
        highest = jnp.max(overlap, axis=0, keepdims=True)
        claimed = (overlap > 0) & (overlap >= highest * (1 - _TIE))
        is_claimed = jnp.any(claimed, axis=1)
        claimant = jnp.argmax(jnp.where(claimed, overlap, 0), axis=1)
        person = jnp.where(is_claimed, claimant, person)
        is_positive |= is_claimed

    inside = coverage(candidates_xyxy, people_xyxy)
    inside = jnp.max(jnp.where((people_kind == 2)[None], inside, 0), axis=1)
    is_background = (best < negative) & (inside <= crowd)
    kind = jnp.where(is_positive, 1, jnp.where(is_background, 0, -1))
    return person.astype(jnp.int32), kind.astype(jnp.int32)


def sample(
    kind: Int32[Array, " n"],
    key: Key[Array, ""],
    *,
    count: int,
    share: int | float,
) -> Bool[Array, " n"]:
    """Samples the candidates for the loss, without replacement.

    Draws at most round(count * share) positives and fills up with background, uniformly
    within each kind. Fewer than `count` are drawn if there is too little background; it
    is not replaced by more positives.

    Faster R-CNN: 256 anchors, half of them positive.

    Args:
      kind: from `match`, for one image.
      key: random key of one image.
      count: total number, at least 1.
      share: maximum fraction of positives, in [0, 1].

    Returns:
      True for the sampled candidates.

    Raises:
      ValueError: kind is not [n], or a count or share out of range.
    """
    if kind.ndim != 1:
        raise ValueError(
            f"kind is that of one image, [n]; got {kind.shape}. vmap over images."
        )
    if count < 1 or not 0 <= share <= 1:
        raise ValueError(
            f"count is at least 1 and share in [0, 1]; got {count} and {share}."
        )
    lot = jax.random.uniform(key, kind.shape)  # in [0, 1): -1 is below all
    most = round(count * share)
    positive = _draw(kind == 1, lot, most, most)
    background = _draw(kind == 0, lot, count, count - jnp.sum(positive))
    return positive | background


def take(
    picked: Bool[Array, " n"], *, count: int
) -> tuple[Int32[Array, " count"], Bool[Array, " count"]]:
    """Converts a mask to a list of indices of fixed length.

    Args:
      picked: mask from `sample`, for one image.
      count: length of the list, at least 1; further picks are dropped.

    Returns:
      index: the picked indices in order, then 0 as padding.
      valid: False for padding.

    Raises:
      ValueError: picked is not [n], or the count is below 1.
    """
    if picked.ndim != 1 or count < 1:
        raise ValueError(
            "picked is that of one image, [n], and count at least 1; got "
            f"{picked.shape} and {count}. vmap over images."
        )
    (index,) = jnp.nonzero(picked, size=count, fill_value=0)
    return index.astype(jnp.int32), jnp.arange(count) < jnp.sum(picked)


def _draw(allowed, lot, most, wanted):
    """Returns [n] bool: the `wanted` (<= `most`) allowed ones with the highest lots."""
    most = min(most, lot.size)
    if most == 0:
        return jnp.zeros(allowed.shape, bool)
    # top_k, not a threshold on the lots: lots may tie, and the count must be exact.
    highest, index = lax.top_k(jnp.where(allowed, lot, -1), most)
    drawn = (highest >= 0) & (jnp.arange(most) < wanted)
    return jnp.zeros(allowed.shape, bool).at[index].set(drawn)


def area(boxes_xyxy):
    """[*b, 4] -> [*b], square pixels; 0 for a box with a negative side."""
    side = jnp.maximum(boxes_xyxy[..., 2:] - boxes_xyxy[..., :2], 0)
    return side[..., 0] * side[..., 1]


def _intersection(boxes_xyxy, others_xyxy):
    """[*b, n, 4], [*b, m, 4] -> [*b, n, m], square pixels."""
    boxes, others = boxes_xyxy[..., :, None, :], others_xyxy[..., None, :, :]
    low = jnp.maximum(boxes[..., :2], others[..., :2])
    side = jnp.maximum(jnp.minimum(boxes[..., 2:], others[..., 2:]) - low, 0)
    return side[..., 0] * side[..., 1]


def _ratio(part, whole):
    """part / whole in [0, 1]; 0, with a finite gradient, where the whole is 0."""
    some = jnp.broadcast_to(whole > 0, part.shape)
    return jnp.where(some, part / jnp.where(some, whole, 1), 0)


def _center_and_side(boxes_xyxy):
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return (low + high) / 2, jnp.maximum(high - low, 1)


def _row(values, like):
    """Constants in the type and rank of `like`, along its last axis."""
    return jnp.asarray(values, like.dtype).reshape((1,) * (like.ndim - 1) + (-1,))


def _pairs(**arrays):
    """Checks boxes that are compared pairwise: their leading axes must be equal."""
    (a, x), (b, y) = arrays.items()
    boxes, others = _boxes(**arrays)
    if boxes.shape[:-2] != others.shape[:-2]:
        raise ValueError(
            f"{a} [*b, n, 4] and {b} [*b, m, 4] need the same leading axes; got "
            f"{jnp.shape(x)} and {jnp.shape(y)}."
        )
    return boxes, others


def _matched(**arrays):
    """Checks boxes that are compared row by row: their shapes must be equal."""
    first, second = _boxes(**arrays)
    if first.shape != second.shape:
        raise ValueError(
            f"{' and '.join(arrays)} are both [*b, n, 4], row by row; got "
            f"{first.shape} and {second.shape}."
        )
    return first, second


def _boxes(**arrays):
    """Checks boxes and converts them to one dtype, float32 or better."""
    for name, array in arrays.items():
        if array.ndim < 2 or array.shape[-1] != 4:
            raise ValueError(f"{name} must be [*b, n, 4]; got {array.shape}.")
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} must be floating point; got {array.dtype}.")
    dtype = jnp.result_type(jnp.float32, *arrays.values())
    return [jnp.asarray(array, dtype) for array in arrays.values()]


def _check_scale(scale):
    if len(scale) != 4 or min(scale) <= 0:
        raise ValueError(f"scale is four positive numbers; got {scale}.")
