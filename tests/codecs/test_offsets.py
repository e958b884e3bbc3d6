"""Discs with offsets and Hough voting, against definitions written in loops."""

import math

import hypothesis.strategies as st
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pose_jax import losses
from pose_jax.codecs import offsets

SIZE = (7, 10)  # Width, height: not square, so that swapped axes fail.
MAPS = (10, 7, 2)
RADIUS = 2.5

# Whole and half pixels, the edges of a map and of the kernel, far away, and bad numbers.
STEPS = [0.0, 0.5, -0.25, 1.0, -1.0, 3.0, -6.5, -7.0, 10.0, 1e30, -3e38, np.inf, np.nan]
any_offsets = hnp.arrays(np.float32, (*MAPS, 2), elements=st.sampled_from(STEPS))
any_heatmaps = hnp.arrays(
    np.float32, MAPS, elements=st.sampled_from([0.0, 0.25, 0.5, 1.0])
)

fuse = jax.jit(lambda *maps: offsets.fuse(*maps, radius=RADIUS))
DECODERS = {
    subpixel: jax.jit(
        lambda *maps, subpixel=subpixel: offsets.decode(
            *maps, radius=RADIUS, subpixel=subpixel
        )
    )
    for subpixel in (False, True)
}


def random_maps(*leading, seed=0, dtype=jnp.float32):
    """Votes all over the map and beyond it."""
    random = np.random.default_rng(seed)
    heatmaps = random.uniform(0, 1, (*leading, *MAPS))
    votes = random.uniform(-3, 12, (*leading, *MAPS, 2))
    pixels = np.stack(np.meshgrid(*map(np.arange, SIZE)), axis=-1)
    return (
        jnp.asarray(heatmaps, dtype),
        jnp.asarray(votes - pixels[:, :, None], dtype),
    )


def votes_for(points_xy, *, noise=0.0, size=(40, 50), radius=8, seed=0):
    """Discs whose pixels know the way, up to noise; the others say 0."""
    heatmaps, field = offsets.encode(
        jnp.asarray(points_xy, jnp.float32), size=size, radius=radius
    )
    error = noise * np.random.default_rng(seed).standard_normal(field.shape)
    return heatmaps, field + jnp.asarray(error, jnp.float32)


def hat(u):
    return np.maximum(0, 1 - np.abs(u))


def hat_slope(u):
    return np.where(np.abs(u) < 1, -np.sign(u), 0)


def fuse_loops(heatmaps, field, *, radius):
    """Eq. (4) as printed: all pixels j for each pixel i."""
    heatmaps, field = np.float64(heatmaps), np.float64(field)
    h, w, keypoints = heatmaps.shape
    pixel_y, pixel_x = np.mgrid[:h, :w]
    fused = np.zeros_like(heatmaps)
    for k in range(keypoints):
        for y, x in np.ndindex(h, w):
            u = pixel_x + field[:, :, k, 0] - x
            v = pixel_y + field[:, :, k, 1] - y
            votes = hat(u) * hat(v) * heatmaps[:, :, k]
            fused[y, x, k] = np.sum(votes) / (math.pi * radius**2)
    return fused


def fuse_slopes(heatmaps, field, cotangent, *, radius):
    """The gradient of sum(cotangent * fused), by the rules of differentiation."""
    heatmaps, field = np.float64(heatmaps), np.float64(field)
    h, w, keypoints = heatmaps.shape
    pixel_y, pixel_x = np.mgrid[:h, :w]
    of_heatmaps, of_field = np.zeros_like(heatmaps), np.zeros_like(field)
    for k in range(keypoints):
        for y, x in np.ndindex(h, w):
            u = x + field[y, x, k, 0] - pixel_x
            v = y + field[y, x, k, 1] - pixel_y
            scale = cotangent[:, :, k] / (math.pi * radius**2)
            vote = heatmaps[y, x, k]
            of_heatmaps[y, x, k] = np.sum(scale * hat(u) * hat(v))
            of_field[y, x, k, 0] = np.sum(scale * vote * hat_slope(u) * hat(v))
            of_field[y, x, k, 1] = np.sum(scale * vote * hat(u) * hat_slope(v))
    return of_heatmaps, of_field


# -------------------------------------------------------------------------------- encode


@pytest.mark.parametrize("radius", [1, 2.5, 20])
def test_encode_is_its_definition(radius):
    points = np.random.default_rng(0).integers(-20, 50, (6, 2)) / 4
    points[0] = 3, 4  # With radius 1 its neighbours lie exactly on the rim.
    heatmaps, field = offsets.encode(
        jnp.asarray(points, jnp.float32), size=SIZE, radius=radius
    )
    heatmaps, field = np.asarray(heatmaps), np.asarray(field)
    assert heatmaps.shape == (10, 7, 6) and field.shape == (10, 7, 6, 2)
    for y, x, k in np.ndindex(10, 7, 6):
        way = points[k] - [x, y]
        assert heatmaps[y, x, k] == (math.hypot(*way) <= radius)
        np.testing.assert_array_equal(field[y, x, k], way)


def test_the_gradient_of_encode_is_one_a_pixel():
    total = lambda p: sum(map(jnp.sum, offsets.encode(p, size=SIZE, radius=2)))
    slope = jax.jit(jax.grad(total))(jnp.array([[3.0, 4.0], [1e30, 0.5]]))
    np.testing.assert_array_equal(slope, 70)


def test_a_point_that_is_not_a_number_has_an_empty_disc():
    heatmaps, field = offsets.encode(
        jnp.array([[jnp.nan, 4.0], [1e30, 4.0]]), size=SIZE, radius=2
    )
    np.testing.assert_array_equal(heatmaps, 0)
    assert jnp.isnan(field[..., 0, 0]).all() and jnp.isfinite(field[..., 1, :]).all()


def test_the_loss_masked_by_the_heatmaps_reads_the_disc_alone():
    points = jnp.array([[3.0, 4.0], [5.5, 8.0]])
    heatmaps, field = offsets.encode(points, size=SIZE, radius=2)
    pred = jnp.where(heatmaps[..., None] > 0, field + 0.5, jnp.nan)
    loss = losses.offset_huber(pred, field, mask=heatmaps, delta=1.0)
    np.testing.assert_allclose(loss, 0.25 * heatmaps.sum(axis=(0, 1)), rtol=1e-6)


# ---------------------------------------------------------------------------------- fuse


@pytest.mark.parametrize("leading", [(), (3,), (2, 2), (0,)])
def test_fuse_is_its_definition_in_float64(leading):
    with jax.enable_x64(True):
        heatmaps, field = random_maps(*leading, dtype=jnp.float64)
        fused = offsets.fuse(heatmaps, field, radius=RADIUS)
        assert fused.dtype == jnp.float64 and fused.shape == (*leading, *MAPS)
        for i in np.ndindex(leading):
            expected = fuse_loops(heatmaps[i], field[i], radius=RADIUS)
            np.testing.assert_allclose(fused[i], expected, rtol=1e-12, atol=1e-14)


@given(any_heatmaps, any_offsets)
@settings(max_examples=60, deadline=None)
def test_fuse_is_its_definition_and_drops_what_is_not_finite(heatmaps, field):
    finite = np.isfinite(field).all(axis=-1)
    expected = fuse_loops(
        np.where(finite, heatmaps, 0),
        np.where(finite[..., None], field, 0),
        radius=RADIUS,
    )
    np.testing.assert_allclose(fuse(heatmaps, field), expected, atol=1e-6)
    # Whatever the heatmap says there.
    spoilt = np.where(finite, heatmaps, np.nan)
    np.testing.assert_array_equal(fuse(spoilt, field), fuse(heatmaps, field))


def test_a_vote_on_the_edge_gives_what_is_inside():
    heatmaps = jnp.zeros((10, 7, 4)).at[5, 3].set(math.pi * RADIUS**2)
    places = [(-0.25, 4), (6.25, 9.5), (-1, 4), (3, -0.75)]
    field = (
        jnp.zeros((10, 7, 4, 2)).at[5, 3].set(jnp.array(places) - jnp.array([[3, 5]]))
    )
    fused = np.array(fuse(heatmaps, field))
    for k, cells in enumerate([{(4, 0): 0.75}, {(9, 6): 0.375}, {}, {(0, 3): 0.25}]):
        for (y, x), share in cells.items():
            np.testing.assert_allclose(fused[y, x, k], share, rtol=1e-6)
            fused[y, x, k] = 0
    np.testing.assert_array_equal(fused, 0)


@pytest.mark.parametrize(("half", "pixels"), [(0, 1), (0.5, 2)])
def test_a_disc_that_agrees_gives_all_its_votes_to_the_pixels_about_its_point(
    half, pixels
):
    maps = offsets.encode(jnp.array([[30.0, 40.0]]) + half, size=(61, 81), radius=25)
    assert half or maps[0].sum() == 1961  # The paper's disc.
    fused = np.array(offsets.fuse(*maps, radius=25)[..., 0])
    share = maps[0].sum() / (math.pi * 25**2) / pixels**2
    there = fused[40 : 40 + pixels, 30 : 30 + pixels]
    np.testing.assert_allclose(there, share, rtol=1e-5)
    there[:] = 0
    np.testing.assert_array_equal(fused, 0)


def test_votes_are_neither_made_nor_lost_unless_they_leave():
    heatmaps, field = random_maps(3)
    total = jnp.sum(heatmaps, axis=(1, 2)) / (math.pi * RADIUS**2)
    assert (jnp.sum(fuse(heatmaps, field), axis=(1, 2)) < 0.9 * total).all()
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    pixels = np.stack([x, y], axis=-1)[:, :, None].astype(np.float32)
    inside = np.clip(np.asarray(field) + pixels, 0, np.float32(SIZE) - 1)
    fused = fuse(heatmaps, jnp.asarray(inside - pixels))
    np.testing.assert_allclose(jnp.sum(fused, axis=(1, 2)), total, rtol=1e-5)


def test_the_gradient_is_that_of_the_definition_and_the_finite_difference():
    with jax.enable_x64(True):
        heatmaps, field = random_maps(dtype=jnp.float64)
        # Away from whole pixels, where the kernel has its kinks.
        field = field.at[jnp.abs(field - jnp.round(field)) < 1e-3].add(0.01)
        cotangent = np.random.default_rng(5).standard_normal(MAPS)

        def value(heatmaps, field):
            return jnp.sum(
                jnp.asarray(cotangent) * offsets.fuse(heatmaps, field, radius=RADIUS)
            )

        slopes = jax.jit(jax.grad(value, argnums=(0, 1)))(heatmaps, field)
        expected = fuse_slopes(heatmaps, field, cotangent, radius=RADIUS)
        for got, want in zip(slopes, expected, strict=True):
            assert np.abs(want).max() > 0.01
            np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-13)

        step = 1e-6
        change = random_maps(seed=6, dtype=jnp.float64)
        above = value(heatmaps + step * change[0], field + step * change[1])
        below = value(heatmaps - step * change[0], field - step * change[1])
        along = sum(jnp.vdot(a, b) for a, b in zip(slopes, change, strict=True))
        np.testing.assert_allclose((above - below) / (2 * step), along, rtol=1e-7)
        _, forward = jax.jvp(value, (heatmaps, field), change)
        np.testing.assert_allclose(forward, along, rtol=1e-10)


def test_at_whole_pixels_the_gradient_is_that_from_the_right():
    heatmaps, field = jnp.zeros((1, 5, 1)).at[0, 2].set(1), jnp.zeros((1, 5, 1, 2))
    cotangent = jnp.array([1.0, 2, 4, 8, 16]).reshape(1, 5, 1)
    slope = jax.jit(jax.grad(lambda f: jnp.sum(cotangent * fuse(heatmaps, f))))(field)
    expected = (8 - 4) / (math.pi * RADIUS**2)
    np.testing.assert_allclose(slope[0, 2, 0], [expected, -expected], rtol=1e-6)


slopes = jax.jit(jax.grad(lambda *maps: jnp.sum(jnp.sin(fuse(*maps))), argnums=(0, 1)))


@given(any_heatmaps, any_offsets)
@settings(max_examples=30, deadline=None)
def test_votes_that_do_not_count_have_no_gradient(heatmaps, field):
    of_heatmaps, of_field = map(np.asarray, slopes(heatmaps, field))
    assert np.isfinite(of_heatmaps).all() and np.isfinite(of_field).all()
    counted = (np.abs(field) < 1e3).all(axis=-1)  # NaN: False.
    np.testing.assert_array_equal(of_heatmaps[~counted], 0)
    np.testing.assert_array_equal(of_field[~counted], 0)


def test_both_forms_of_fuse_are_one():
    maps = random_maps(3)
    for form in (offsets._fuse_in_turn, offsets._fuse_at_once):
        fused = jax.jit(form)(*maps, 1 / (math.pi * RADIUS**2))
        np.testing.assert_allclose(fused, fuse(*maps), atol=1e-6)


def test_the_papers_maps_of_32_people_need_the_memory_of_one():
    maps = jax.ShapeDtypeStruct((32, 353, 257, 17), jnp.float32)
    field = jax.ShapeDtypeStruct((32, 353, 257, 17, 2), jnp.float32)
    compiled = (
        jax.jit(lambda *m: offsets.fuse(*m, radius=25)).lower(maps, field).compile()
    )
    one_map = 353 * 257 * 17 * 4  # Bytes.
    assert compiled.memory_analysis().temp_size_in_bytes < 16 * one_map


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_people_go_in_turn_on_a_cpu_only(platform):
    lowered = jax.export.export(fuse, platforms=[platform])(*random_maps(3))
    assert ("stablehlo.while" in lowered.mlir_module()) == (platform == "cpu")


def test_at_once_people_stay_on_their_devices():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    maps = [jax.device_put(array, rows) for array in random_maps(8)]
    step = jax.jit(lambda *m: offsets._fuse_at_once(*m, 0.1)).lower(*maps).compile()
    assert step(*maps).sharding.is_equivalent_to(rows, 4)
    text = step.as_text()
    assert "scatter" in text
    for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert word not in text


# -------------------------------------------------------------------------------- decode


@pytest.mark.parametrize("subpixel", [False, True])
def test_decode_inverts_encode_at_pixel_centres(subpixel):
    points = jnp.array([[3.0, 8.0], [0.0, 0.0], [6.0, 9.0], [6.0, 2.0]])
    maps = offsets.encode(points, size=SIZE, radius=RADIUS)
    decoded, scores = DECODERS[subpixel](*maps)
    np.testing.assert_allclose(decoded, points, atol=1e-6)
    discs = jnp.sum(maps[0], axis=(0, 1))
    np.testing.assert_allclose(scores, discs / (math.pi * RADIUS**2), rtol=1e-5)


def test_where_all_votes_agree_subpixel_is_exact_and_the_pixel_is_not():
    points = np.random.default_rng(7).uniform(0, 1, (3, 17, 2)) * [39, 49]
    points = np.concatenate([points, [[[0.0, 0.3], [38.7, 49.0]] + [[20, 7.5]] * 15]])
    maps = votes_for(points)
    pixel, pixel_scores = DECODERS[False](*maps)
    exact, scores = DECODERS[True](*maps)
    np.testing.assert_array_equal(pixel, np.round(pixel))
    assert np.linalg.norm(pixel - points, axis=-1).mean() > 0.3
    np.testing.assert_allclose(exact, points, atol=2e-5)
    np.testing.assert_array_equal(scores, pixel_scores)


def test_where_votes_are_noisy_subpixel_is_nearer_than_the_pixel():
    points = np.random.default_rng(8).uniform(12, 28, (4, 17, 2))
    maps = votes_for(points, noise=1.0)
    errors = [
        np.linalg.norm(DECODERS[subpixel](*maps)[0] - points, axis=-1).mean()
        for subpixel in (False, True)
    ]
    assert errors[0] > 0.3 and errors[1] < 0.2


def test_subpixel_points_follow_the_offsets():
    points = np.array([[20.3, 30.6]])
    heatmaps, field = votes_for(points)

    def x(moved):
        return offsets.decode(heatmaps, field + moved, radius=8, subpixel=True)[0][0, 0]

    np.testing.assert_allclose(jax.jit(jax.grad(x))(jnp.zeros(())), 1, rtol=1e-4)


def test_ties_go_to_the_first_in_raster_order_and_nothing_is_the_corner():
    votes = jnp.zeros((10, 7, 3)).at[6, 1, 0].set(1).at[6, 3, 0].set(1)
    votes = votes.at[2, 5, 1].set(1).at[4, 0, 1].set(1)
    still = jnp.zeros((10, 7, 3, 2))
    points, scores = DECODERS[False](votes, still)
    np.testing.assert_array_equal(points, [[1, 6], [5, 2], [0, 0]])
    expected = np.array([1, 1, 0]) / (math.pi * RADIUS**2)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    points, _ = DECODERS[True](0 * votes, still)
    np.testing.assert_array_equal(points, 0)
    # The 4x4 pixels of the window that are on the map; their sum overflows.
    points, _ = DECODERS[True](jnp.full(votes.shape, 3e38), still)
    np.testing.assert_allclose(points, 1.5, rtol=1e-6)


@pytest.mark.parametrize("subpixel", [False, True])
@given(
    heatmaps=hnp.arrays(
        np.float32,
        MAPS,
        elements=st.sampled_from(
            [0.0, 0.5, 1.0, -1.0, -3e38, 1e-30, 3e38, np.inf, np.nan]
        ),
    ),
    field=any_offsets,
)
@settings(max_examples=40, deadline=None)
def test_points_are_finite_and_inside_on_any_maps(subpixel, heatmaps, field):
    points, scores = map(np.asarray, DECODERS[subpixel](heatmaps, field))
    fused = np.asarray(fuse(heatmaps, field))
    assert np.isfinite(points).all()
    assert (points >= 0).all() and (points <= np.array(SIZE) - 1).all()
    least = np.where(np.isnan(fused), -np.inf, fused)
    np.testing.assert_allclose(scores, least.max(axis=(0, 1)), rtol=1e-6)
    if not subpixel:
        for k in range(MAPS[2]):
            y, x = divmod(int(least[:, :, k].argmax()), SIZE[0])
            assert tuple(points[k]) == (x, y)
