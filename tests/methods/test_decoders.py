"""What every decoder of every method promises, over one table of all of them.

A new decoder is one entry of DECODERS: how far it may be from the point that its arrays
encode. A new kind of arrays is one entry of ENCODE.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import methods
from pose_jax.codecs import gaussian, offsets, simcc
from pose_jax.methods.cells import Cells
from pose_jax.methods.dark import Dark
from pose_jax.methods.multipose import MultiPose
from pose_jax.methods.simcc import SimCC

SIZE = W, H = 14, 18  # Not square, so that swapped axes fail.
K = 3
PIXEL = 0.5 + 1e-3  # Per axis: what is lost by a decoder of whole pixels.

# Largest error on each axis, pixels of the map.
DECODERS = {
    (Dark, "argmax"): PIXEL,
    (Dark, "shift"): 0.25 + 1e-3,
    (Dark, "shift_second"): PIXEL,  # The second largest may lie on the other axis.
    (Dark, "dark"): 0.01,
    (Dark, "dark_paper"): 0.02,
    (Dark, "dark_unmodulated"): 0.02,
    (MultiPose, "hough"): PIXEL,
    (MultiPose, "hough_subpixel"): 0.01,
    (MultiPose, "argmax"): 3.0,  # Anywhere in the disc: its heatmap is binary.
    (MultiPose, "argmax_offset"): 0.01,
    (Cells, "argmax_offset"): 0.01,
    (Cells, "argmax"): PIXEL,
    (Cells, "shift"): 0.25 + 1e-3,
    (Cells, "dark"): 0.02,
    (Cells, "dark_paper"): 0.02,
    (Cells, "hough"): 0.01,
    (Cells, "density"): 0.01,
    (SimCC, "argmax"): 0.25 + 1e-3,  # Two bins a pixel.
    (SimCC, "expectation"): 0.01,
}
UNBOUNDED = ("dark_paper", "dark_unmodulated")  # The published code's steps.

# The arrays that encode points [b, k, 2], by the names of a decoder's inputs, and by the
# method where it reads arrays of these names in its own way.
ENCODE = {
    ("heatmaps",): lambda xy: (gaussian.encode(xy, size=SIZE, sigma=1.5),),
    ("heatmaps", "offsets"): lambda xy: offsets.encode(xy, size=SIZE, radius=3),
    (Cells, "heatmaps", "offsets"): lambda xy: (
        gaussian.encode(xy, size=SIZE, sigma=1.5),
        offsets.encode(xy, size=SIZE, radius=3)[1],
    ),
    ("x", "y"): lambda xy: simcc.encode(xy, size=SIZE, split=2, sigma=1.5),
}
SETTINGS = {
    "sigma": 1.5, "kernel_size": 5, "radius": 3, "split": 2, "vote_sigma": 0.5,
}  # fmt: skip

each = pytest.mark.parametrize(
    ("cls", "name"), [pytest.param(*key, id=f"{key[0].name}-{key[1]}") for key in DECODERS]
)  # fmt: skip


@functools.cache
def parts(cls, name):
    """A decoder as a jitted function of its arrays, and arrays that encode `points()`."""
    decoder = cls.decoders[name]
    settings = {field: SETTINGS[field] for field in decoder.uses}
    fn = functools.partial(decoder.fn, **settings)
    names = tuple(decoder.inputs)
    return jax.jit(fn), encoded((cls, *names) if (cls, *names) in ENCODE else names)


@functools.cache
def encoded(key):
    return jax.jit(ENCODE[key])(points())


def points():
    """Far enough from the rim that every kernel fits; [2, k, 2]."""
    rng = np.random.default_rng(0)
    low, high = np.array([5.2, 5.2]), np.array([W - 6.2, H - 6.2])
    return jnp.asarray(rng.uniform(low, high, (2, K, 2)), jnp.float32)


def test_every_decoder_is_here():
    listed = {
        (cls, name)
        for cls in methods.METHODS.values()
        if isinstance(cls.decoders, dict)  # DeepPose's are the stages of its cascade.
        for name in cls.decoders
    }
    assert listed == set(DECODERS)


@each
def test_it_finds_what_was_encoded(cls, name):
    decode, arrays = parts(cls, name)
    points_xy, scores = decode(*arrays)
    assert points_xy.shape == (2, K, 2) and scores.shape == (2, K)
    assert np.abs(points_xy - points()).max() <= DECODERS[cls, name]
    assert (np.asarray(scores) > 0).all()


@each
def test_rows_do_not_meet(cls, name):
    decode, arrays = parts(cls, name)
    together = decode(*arrays)
    for row in range(2):  # With itself instead of the other.
        alone = decode(*(a[np.array([row, row])] for a in arrays))
        for one, all_rows in zip(alone, together, strict=True):
            np.testing.assert_allclose(one[0], all_rows[row], rtol=1e-5, atol=1e-5)


@each
def test_maps_without_a_peak_give_finite_points_on_the_map(cls, name):
    decode, arrays = parts(cls, name)
    for value in (0.0, 0.3, -2.0, np.nan):
        points_xy = np.asarray(decode(*(np.full_like(a, value) for a in arrays))[0])
        assert np.isfinite(points_xy).all(), value
        if name not in UNBOUNDED and not (name == "argmax_offset" and value):
            # Offsets alone can point off the map.
            on_map = (points_xy >= 0) & (points_xy <= np.array([W, H]) - 1)
            assert on_map.all(), value


@each
def test_its_gradient_is_finite(cls, name):
    decode, arrays = parts(cls, name)

    @jax.jit
    def gradient(arrays):
        return jax.grad(lambda a: sum(jnp.sum(part) for part in decode(*a)))(arrays)

    assert all(np.isfinite(g).all() for g in gradient(arrays))
