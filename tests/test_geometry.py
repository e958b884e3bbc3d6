"""Boxes, transforms and warps against float64 definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pose_jax import geometry

# Compiled once per shape: eager, every small operation is compiled by itself.
person_box = jax.jit(geometry.person_box, static_argnames="aspect")
crop_transform = jax.jit(
    geometry.crop_transform, static_argnames=("output_size", "alignment")
)
compose = jax.jit(geometry.compose)
invert = jax.jit(geometry.invert)
transform_points = jax.jit(geometry.transform_points)
heatmap_to_input, input_to_heatmap = (
    jax.jit(grids, static_argnames=("heatmap_size", "input_size", "alignment"))
    for grids in (geometry.heatmap_to_input, geometry.input_to_heatmap)
)
warp = jax.jit(geometry.warp, static_argnames="size")

seeds = st.integers(0, 2**32 - 1)
ALIGNMENTS = geometry.ALIGNMENTS


def random_boxes(rng, n):
    corner = rng.uniform(-300, 1900, (n, 2))
    return np.concatenate([corner, corner + rng.uniform(3, 900, (n, 2))], 1)


def crop_reference(center, size, rotation, output, alignment, flip):
    """A point at a time, in words: turn about the centre, scale, place, mirror."""

    def move(point):
        (x, y), (w, h), (width, height) = point - center, output, size
        angle = np.deg2rad(rotation)  # y points down: this turns counter-clockwise
        x, y = (
            np.cos(angle) * x + np.sin(angle) * y,
            np.cos(angle) * y - np.sin(angle) * x,
        )
        if alignment == "stride":
            x, y = x * w / width + w / 2, y * h / height + h / 2
        elif alignment == "half_pixel":
            x, y = x * w / width + (w - 1) / 2, y * h / height + (h - 1) / 2
        else:
            x = x * (w - 1) / (width - 1) + (w - 1) / 2
            y = y * (h - 1) / (height - 1) + (h - 1) / 2
        return (w - 1 - x if flip else x), y

    return move


def warp_reference(image, transform, size):
    """Bilinear by definition: every pixel of the output, its four taps, float64."""
    inverse = np.linalg.inv(np.vstack([np.asarray(transform, float), [0, 0, 1]]))
    height, width, channels = image.shape
    out_x, out_y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    x = inverse[0, 0] * out_x + inverse[0, 1] * out_y + inverse[0, 2]
    y = inverse[1, 0] * out_x + inverse[1, 1] * out_y + inverse[1, 2]
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    output = np.zeros((size[1], size[0], channels))
    for column in (left, left + 1):
        for row in (top, top + 1):
            inside = (0 <= column) & (column < width) & (0 <= row) & (row < height)
            weight = inside * (1 - abs(x - column)) * (1 - abs(y - row))
            tap = image[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
            output += weight[..., None] * tap.astype(float)
    return output


def float32(*arrays):
    return tuple(jnp.asarray(a, jnp.float32) for a in arrays)


# --- boxes


@settings(deadline=None, max_examples=60)
@given(seeds, st.sampled_from((None, 0.75, 1.0, 257 / 353)))
def test_person_box_is_the_smallest_of_its_aspect(seed, aspect):
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, 5)
    padding = rng.uniform(1, 1.5, 5)
    center, size = person_box(
        *float32(boxes), aspect=aspect, padding=jnp.float32(padding)
    )
    for box, pad, c, s in zip(boxes, padding, center, size, strict=True):
        width, height = box[2] - box[0], box[3] - box[1]
        np.testing.assert_allclose(c, (box[:2] + box[2:]) / 2, atol=2e-4)
        if aspect is None:
            expected = width, height
        elif width > aspect * height:
            expected = width, width / aspect
        else:
            expected = height * aspect, height
        np.testing.assert_allclose(s, np.multiply(expected, pad), rtol=1e-4)


def test_person_box_of_no_extent_is_a_pixel():
    boxes = jnp.array([[5.0, 7, 5, 7], [9, 9, 1, 4], [2, 2, 2.5, 12]])
    center, size = person_box(boxes, aspect=None, padding=1.25)
    np.testing.assert_array_equal(center, [[5, 7], [5, 6.5], [2.25, 7]])
    np.testing.assert_array_equal(size, [[1.25, 1.25], [1.25, 1.25], [1.25, 12.5]])
    for alignment in ALIGNMENTS:
        transform = crop_transform(
            center, size, output_size=(24, 32), alignment=alignment
        )
        assert np.isfinite(invert(transform)).all()


# --- crops


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_box_and_grid_meet_as_the_alignment_says(alignment):
    center, size = jnp.array([[101.5, 60.0]]), jnp.array([[80.0, 120.0]])
    transform = crop_transform(center, size, output_size=(48, 64), alignment=alignment)
    moved = lambda p: transform_points(p, transform)
    if alignment == "stride":
        first, last, middle, factor = (0, 0), (48, 64), (24, 32), (48 / 80, 64 / 120)
        half = size / 2
    elif alignment == "half_pixel":
        first, last, middle, factor = (
            (-0.5, -0.5),
            (47.5, 63.5),
            (23.5, 31.5),
            (48 / 80, 64 / 120),
        )
        half = size / 2
    else:
        first, last, middle, factor = (
            (0, 0),
            (47, 63),
            (23.5, 31.5),
            (47 / 79, 63 / 119),
        )
        half = (size - 1) / 2
    np.testing.assert_allclose(moved(center)[0], middle, atol=1e-4)
    np.testing.assert_allclose(moved(center - half)[0], first, atol=1e-4)
    np.testing.assert_allclose(moved(center + half)[0], last, atol=1e-4)
    np.testing.assert_allclose(jnp.diagonal(transform[0]), factor, rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(seeds, st.sampled_from(ALIGNMENTS))
def test_crop_transform_by_definition(seed, alignment):
    rng = np.random.default_rng(seed)
    center, size = rng.uniform(0, 1000, (4, 2)), rng.uniform(10, 900, (4, 2))
    rotation, flip = rng.uniform(-180, 180, 4), rng.random(4) < 0.5
    points = rng.uniform(-50, 1100, (4, 6, 2))
    transform = crop_transform(
        *float32(center, size, rotation),
        output_size=(36, 48),
        alignment=alignment,
        flip=jnp.asarray(flip),
    )
    moved = transform_points(*float32(points), transform)
    for i in range(4):
        move = crop_reference(
            center[i], size[i], rotation[i], (36, 48), alignment, flip[i]
        )
        expected = [move(p) for p in points[i]]
        np.testing.assert_allclose(moved[i], expected, rtol=1e-4, atol=5e-3)


def test_positive_rotation_turns_the_picture_counter_clockwise():
    """As in HRNet: what was to the upper right of the centre comes to the top."""
    transform = crop_transform(
        jnp.zeros(2), jnp.array([20.0, 20]), 45.0, output_size=(20, 20)
    )
    moved = transform_points(jnp.array([3.0, -3.0]), transform)
    np.testing.assert_allclose(moved, [10, 10 - 3 * 2**0.5], atol=1e-5)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_flip_mirrors_the_finished_crop(alignment):
    rng = np.random.default_rng(3)
    image = jnp.asarray(rng.integers(0, 256, (40, 50, 3)), jnp.uint8)
    plain, flipped = (
        crop_transform(
            jnp.array([22.0, 19]),
            jnp.array([30.0, 44]),
            20.0,
            output_size=(18, 24),
            alignment=alignment,
            flip=flip,
        )
        for flip in (False, True)
    )
    out = warp(image, plain, size=(18, 24))
    mirrored = warp(image, flipped, size=(18, 24))
    np.testing.assert_allclose(mirrored, out[:, ::-1], atol=0.02)
    assert np.abs(out - out[:, ::-1]).max() > 10


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_through_the_input_to_the_heatmap_is_the_crop_of_the_heatmap(alignment):
    rng = np.random.default_rng(4)
    center, size, points = float32(
        rng.uniform(0, 99, (3, 2)),
        rng.uniform(20, 99, (3, 2)),
        rng.random((3, 5, 2)) * 99,
    )
    sizes = dict(input_size=(49, 65), heatmap_size=(13, 17))
    to_input, to_heatmap = (
        crop_transform(center, size, 30.0, output_size=output, alignment=alignment)
        for output in sizes.values()
    )
    at_input = transform_points(points, to_input)
    at_heatmap = input_to_heatmap(at_input, alignment=alignment, **sizes)
    direct = transform_points(points, to_heatmap)
    np.testing.assert_allclose(at_heatmap, direct, atol=1e-3)
    back = heatmap_to_input(at_heatmap, alignment=alignment, **sizes)
    np.testing.assert_allclose(back, at_input, atol=1e-4)


def test_resolution_recovery_by_hand():
    point = jnp.array([[10.0, 20.0]])
    for sizes, alignment, expected in (
        (((48, 64), (192, 256)), "stride", (40, 80)),
        (((33, 45), (257, 353)), "aligned", (80, 160)),
        (((48, 64), (192, 256)), "aligned", (10 * 191 / 47, 20 * 255 / 63)),
        (((48, 64), (192, 256)), "half_pixel", (41.5, 81.5)),
    ):
        recovered = heatmap_to_input(
            point, heatmap_size=sizes[0], input_size=sizes[1], alignment=alignment
        )
        np.testing.assert_allclose(recovered[0], expected, rtol=1e-6)


# --- affine algebra


@settings(deadline=None, max_examples=60)
@given(seeds)
def test_transforms_are_a_group(seed):
    rng = np.random.default_rng(seed)
    f, g, h = float32(*rng.normal(0, 1, (3, 4, 2, 3)))
    points = jnp.asarray(rng.normal(0, 10, (4, 5, 2)), jnp.float32)
    one_by_one = transform_points(transform_points(points, g), f)
    composed = transform_points(points, compose(f, g))
    np.testing.assert_allclose(composed, one_by_one, rtol=1e-4, atol=1e-4)
    left = compose(compose(f, g), h)
    right = compose(f, compose(g, h))
    np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4)
    linear = np.asarray(f, float)[..., :2]
    usable = np.linalg.cond(linear) < 100
    unit = compose(invert(f), f)[usable]
    identity = np.broadcast_to(np.eye(2, 3), unit.shape)
    np.testing.assert_allclose(unit, identity, atol=5e-3)


def test_a_singular_transform_has_no_inverse_and_no_nan():
    flat = jnp.array(
        [[[1.0, 2, 3], [2, 4, 5]], [[0, 0, 0], [0, 0, 0]], [[2, 0, 4], [0, 2, 6]]]
    )
    inverse, gradient = (
        invert(flat),
        jax.jit(jax.grad(lambda t: invert(t).sum()))(flat),
    )
    np.testing.assert_array_equal(inverse[:2], 0)
    np.testing.assert_allclose(inverse[2], [[0.5, 0, -2], [0, 0.5, -3]])
    assert np.isfinite(gradient).all()


def test_points_may_have_any_axes_between():
    rng = np.random.default_rng(5)
    points, transforms = float32(
        rng.normal(size=(2, 3, 4, 2)), rng.normal(size=(2, 2, 3))
    )
    moved = transform_points(points, transforms)
    for i in np.ndindex(2, 3, 4):
        expected = np.asarray(transforms[i[0]], float) @ np.append(points[i], 1)
        np.testing.assert_allclose(moved[i], expected, atol=1e-5)
    alone = transform_points(points[0, 0, 0], transforms[0])
    np.testing.assert_allclose(alone, moved[0, 0, 0], atol=1e-6)


# --- warps


def warp_small(image, transform):
    return warp(image, transform, size=(17, 13))


@jax.jit
def warp_gradients(image, transform, cotangent):
    loss = lambda i, t: jnp.vdot(geometry.warp(i, t, size=(17, 13)), cotangent)
    return jax.grad(loss, argnums=(0, 1))(image, transform)


@pytest.fixture(scope="module")
def noise_hd():
    return np.random.default_rng(0).integers(0, 256, (1080, 1920, 3)).astype(np.uint8)


@settings(deadline=None, max_examples=80)
@given(seeds)
def test_warp_of_noise_is_right_to_a_twentieth_of_a_grey_level(noise_hd, seed):
    """Down- and upscaled, turned and flipped, at the far end of a wide image."""
    rng = np.random.default_rng(seed)
    center = (
        rng.uniform((0, 0), (1920, 1080)) if seed % 2 else rng.uniform(900, 1900, 2)
    )
    size = np.exp(rng.uniform(np.log(20), np.log(2500))) * rng.uniform(0.8, 1.2, 2)
    transform = crop_transform(
        *float32(center, size),
        float(rng.uniform(-180, 180)) if seed % 3 else 0.0,
        output_size=(96, 128),
        flip=bool(rng.random() < 0.5),
    )
    expected = warp_reference(noise_hd, transform, (96, 128))
    np.testing.assert_allclose(
        warp(noise_hd, transform, size=(96, 128)), expected, atol=0.01
    )


@settings(deadline=None, max_examples=80)
@given(seeds)
def test_warp_by_any_affine_map(seed):
    """Shears too, and images of which only a part, a border or nothing is seen."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (11, 15, 3)).astype(np.uint8)
    transform = rng.normal(0, 1, (2, 3)).astype(np.float32)
    transform[:, 2] = rng.normal(0, 10, 2)
    if abs(np.linalg.det(transform[:, :2])) < 0.05:
        transform[:, :2] = np.eye(2)
    expected = warp_reference(image, transform, (17, 13))
    np.testing.assert_allclose(warp_small(image, transform), expected, atol=0.01)


@pytest.mark.parametrize("shift", [(0, 0), (5, -3), (-4, 2), (30, 0), (-3, -12)])
def test_whole_pixel_shifts_are_exact(shift):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (11, 15, 3)).astype(np.uint8)
    dx, dy = shift
    expected = np.zeros((13, 17, 3))
    for y, x in np.ndindex(13, 17):
        if 0 <= y - dy < 11 and 0 <= x - dx < 15:
            expected[y, x] = image[y - dy, x - dx]
    transform = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    np.testing.assert_array_equal(warp_small(image, transform), expected)


def test_warp_far_from_the_origin_of_a_frame():
    """A canvas cut from a wide picture: large shifts cancel, the fraction must stay."""
    image = np.random.default_rng(2).integers(0, 256, (11, 15, 3)).astype(np.uint8)
    transform = np.array([[1.37, 0.21, 9000.3], [-0.2, 1.41, -8000.7]], np.float32)
    shift = transform[:, :2].astype(float) @ [7, 5] + transform[:, 2] - [8, 6]
    there = np.array([[1, 0, -np.round(shift[0])], [0, 1, -np.round(shift[1])]])
    whole = np.concatenate([transform[:, :2], transform[:, 2:] + there[:, 2:]], 1)
    np.testing.assert_allclose(
        warp_small(image, whole.astype(np.float32)),
        warp_reference(image, whole.astype(np.float32), (17, 13)),
        atol=0.01,
    )


def test_warp_of_a_ramp_gives_the_source_points():
    """Pixel (x, y) of the image holds (x, y): the warp has to be the inverse map."""
    width, height = 60, 40
    ramp = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    transform = crop_transform(
        jnp.array([30.0, 20]), jnp.array([20.0, 16]), 25.0, output_size=(24, 18)
    )
    out = warp(jnp.asarray(ramp, jnp.float32), transform, size=(24, 18))
    grid = np.stack(np.meshgrid(np.arange(24.0), np.arange(18.0)), -1)
    expected = transform_points(
        jnp.asarray(grid[None], jnp.float32), invert(transform)[None]
    )[0]
    np.testing.assert_allclose(out, expected, atol=1e-4)


def test_warping_twice_by_whole_pixels_is_warping_once():
    image = jnp.asarray(np.random.default_rng(3).random((13, 17, 3)), jnp.float32)
    first = jnp.array([[0.0, -1, 11], [1, 0, 2]])  # a quarter turn
    second = jnp.array([[1.0, 0, -2], [0, 1, 1]])
    twice = warp_small(warp_small(image, first), second)
    once = warp_small(image, compose(second, first))
    seen = warp_small(warp_small(jnp.ones_like(image), first), second)
    np.testing.assert_allclose(twice, once * seen, atol=1e-6)


def test_outside_is_zero_and_the_border_fades_to_it():
    image = jnp.full((1, 1, 2), 8.0)
    transform = jnp.array([[4.0, 0, 8], [0, 4, 8]])
    out = warp(image, transform, size=(17, 17))
    tent = np.maximum(1 - abs(np.arange(17) - 8) / 4, 0)
    expected = 8 * tent[:, None] * tent[None]
    np.testing.assert_allclose(out, np.stack([expected] * 2, -1), atol=1e-6)


@pytest.mark.parametrize(
    "transform",
    [
        np.zeros((2, 3)),
        [[1, 2, 3], [2, 4, 6]],
        np.full((2, 3), np.nan),
        [[1, 0, np.inf], [0, 1, 0]],
        np.full((2, 3), 1e30),
        [[1e-30, 0, 3], [0, 1e30, 1e30]],
        [[1e20, 0, 0], [0, 1e20, 0]],
    ],
)
def test_maps_without_an_inverse_show_nothing(transform):
    image = jnp.ones((11, 15, 3))
    transform = jnp.asarray(transform, jnp.float32)
    out = warp_small(image, transform)
    # Enlarged 1e20 times, the pixel at the origin alone is seen.
    np.testing.assert_array_equal(out.at[0, 0].set(0), 0)
    by_image, by_map = warp_gradients(image, transform, jnp.ones_like(out))
    assert np.isfinite(by_image).all()
    if np.isfinite(transform).all():
        assert np.isfinite(by_map).all()


def test_warp_is_linear_in_the_image_and_its_gradient_is_the_transpose():
    rng = np.random.default_rng(7)
    image, other = float32(*rng.random((2, 11, 15, 3)))
    cotangent = jnp.asarray(rng.random((13, 17, 3)), jnp.float32)
    transform = jnp.array([[0.9, 0.2, -1.3], [-0.3, 0.8, 2.1]])
    seen = warp_small(other, transform)
    np.testing.assert_allclose(
        warp_small(2 * image - other, transform),
        2 * warp_small(image, transform) - seen,
        atol=1e-5,
    )
    back, _ = warp_gradients(image, transform, cotangent)
    np.testing.assert_allclose(
        jnp.vdot(back, other), jnp.vdot(cotangent, seen), rtol=1e-5
    )


def test_gradient_with_respect_to_the_transform():
    rng = np.random.default_rng(8)
    image = rng.random((11, 15, 3))
    cotangent = rng.random((13, 17, 3))
    transform = np.array([[0.9, 0.2, 1.37], [-0.3, 0.8, 4.6173]])
    _, gradient = warp_gradients(*float32(image, transform, cotangent))
    for i in np.ndindex(2, 3):
        step = np.zeros((2, 3))
        step[i] = 1e-7
        above, below = (
            (warp_reference(image, t, (17, 13)) * cotangent).sum()
            for t in (transform + step, transform - step)
        )
        np.testing.assert_allclose(
            gradient[i], (above - below) / 2e-7, rtol=2e-3, atol=2e-3
        )


def test_a_sharded_batch_is_warped_without_collectives():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    by_row = NamedSharding(mesh, PartitionSpec("data"))
    images = jax.device_put(jnp.ones((8, 20, 16, 3), jnp.uint8), by_row)
    center = jax.device_put(jnp.full((8, 2), 8.0), by_row)

    @jax.jit
    def crop(images, center):
        transform = crop_transform(
            center, jnp.full_like(center, 9.0), output_size=(6, 8)
        )
        return warp(images, transform, size=(6, 8))

    compiled = crop.lower(images, center).compile().as_text()
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in compiled
    assert crop(images, center).sharding.is_equivalent_to(by_row, 4)


# --- RoIAlign

roi_align = jax.jit(
    geometry.roi_align, static_argnames=("size", "stride", "samples", "offset")
)


def roi_align_reference(features, boxes, size, stride, samples, offset):
    """One sample after another, float64: a place in the plane, its four features."""
    h, w, channels = features.shape
    output = np.zeros((len(boxes), size[1], size[0], channels))

    def feature(x, y):
        x = min(max((x - offset) / stride, 0), w - 1)
        y = min(max((y - offset) / stride, 0), h - 1)
        total = np.zeros(channels)
        for row in range(h):
            for column in range(w):
                weight = max(1 - abs(x - column), 0) * max(1 - abs(y - row), 0)
                total += weight * features[row, column]
        return total

    for n, (x0, y0, x1, y1) in enumerate(boxes):
        cell_w, cell_h = max(x1 - x0, 0) / size[0], max(y1 - y0, 0) / size[1]
        for j, i in np.ndindex(size[1], size[0]):
            for t, s in np.ndindex(samples, samples):
                x = x0 + (i + (s + 0.5) / samples) * cell_w
                y = y0 + (j + (t + 0.5) / samples) * cell_h
                output[n, j, i] += feature(x, y) / samples**2
    return output


def roi_case(seed, n=6):
    """Inside of a map of 5x7 at stride 4, across its border, outside, and empty."""
    rng = np.random.default_rng(seed)
    corner, side = rng.uniform(-8, 26, (n, 2)), rng.uniform(0.1, 30, (n, 2))
    corner[1:3] = [[-60.0, 3.0], [9.0, 90.0]]
    side[3:5] = [[0.0, 0.0], [-5.0, 8.0]]
    features = rng.normal(size=(5, 7, 2))
    return float32(features, np.concatenate([corner, corner + side], 1))


@pytest.mark.parametrize(
    ("size", "samples", "offset"),
    [((3, 2), 2, 0.0), ((1, 1), 3, 1.5), ((2, 4), 1, -2.0)],
)
def test_roi_align_by_definition(size, samples, offset):
    for seed in range(3):
        features, boxes = roi_case(seed)
        settings = dict(size=size, stride=4, samples=samples, offset=offset)
        expected = roi_align_reference(
            np.asarray(features, float), np.asarray(boxes, float), **settings
        )
        found = roi_align(features, boxes, **settings)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_roi_align_of_a_ramp_gives_the_centres_of_the_cells():
    """Feature (x, y) holds the input pixel it lies at."""
    ramp = np.stack(np.meshgrid(8.0 * np.arange(20) + 3, 8.0 * np.arange(12) + 3), -1)
    boxes = jnp.array([[10.0, 20, 40, 80], [24, 24, 24, 24]])
    found = roi_align(
        jnp.asarray(ramp, jnp.float32), boxes, size=(3, 2), stride=8, offset=3
    )
    expected = np.stack(np.meshgrid([15.0, 25, 35], [35.0, 65]), -1)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
    np.testing.assert_allclose(found[1], np.full((2, 3, 2), 24), rtol=1e-6)


def test_roi_align_shows_the_border_beyond_the_border():
    features, _ = roi_case(0)
    corners = jnp.array(
        [[-90.0, -90, -50, -40], [900, -90, 990, -40], [-9, 90, -8, 91]]
    )
    found = roi_align(features, corners, size=(2, 3), stride=4)
    for shown, expected in zip(
        found, (features[0, 0], features[0, -1], features[-1, 0]), strict=True
    ):
        np.testing.assert_allclose(
            shown, np.broadcast_to(expected, shown.shape), rtol=1e-6
        )


def test_roi_align_is_linear_and_its_gradient_is_the_transpose():
    features, boxes = roi_case(1)
    other, _ = roi_case(2)
    settings = dict(size=(3, 2), stride=4)
    cotangent = jnp.asarray(
        np.random.default_rng(3).normal(size=(6, 2, 3, 2)), jnp.float32
    )

    @jax.jit
    def gradients(features, boxes):
        loss = lambda f, b: jnp.vdot(geometry.roi_align(f, b, **settings), cotangent)
        return jax.grad(loss, argnums=(0, 1))(features, boxes)

    back, by_boxes = gradients(features, boxes)
    np.testing.assert_allclose(
        jnp.vdot(back, other),
        jnp.vdot(cotangent, roi_align(other, boxes, **settings)),
        rtol=1e-4,
    )
    assert np.isfinite(back).all() and np.any(back != 0)
    np.testing.assert_array_equal(by_boxes, 0)
    assert roi_align(features, boxes[:0], **settings).shape == (0, 2, 3, 2)


def test_roi_align_of_many_boxes_in_parts(monkeypatch):
    """Four boxes at a time: two rounds and a rest; over images and backwards too."""
    features, boxes = roi_case(5, n=11)
    both = jnp.stack([features, features[::-1]]), jnp.stack([boxes, boxes + 2])

    def evaluate():
        cut = lambda f, b: geometry.roi_align(f, b, size=(3, 2), stride=4)
        loss = lambda f, b: jnp.sum(jnp.square(jax.vmap(cut)(f, b)))
        return jax.jit(cut)(features, boxes), jax.jit(jax.grad(loss))(*both)

    expected = evaluate()
    monkeypatch.setattr(geometry, "_ROI_VALUES", 4 * 5 * 3 * 2)
    in_parts = jax.jit(lambda f, b: geometry.roi_align(f, b, size=(3, 2), stride=4))
    assert "while" in in_parts.lower(features, boxes).as_text()
    for found, value in zip(evaluate(), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5)
