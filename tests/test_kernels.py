"""What every pure function of arrays promises, over one table of all of them.

A new function is one entry of KERNELS. What it computes is tested in a file of its own,
against its definition.
"""

import dataclasses
import functools
import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import geometry, losses, nms
from pose_jax.codecs import boxes, centers, gaussian, offsets, regression, simcc
from pose_jax.metrics import keypoint

MODULES = (
    *(gaussian, offsets, centers, regression, boxes, simcc),
    *(geometry, losses, keypoint, nms),
)
H, W, K = 5, 7, 3  # Not square, so that swapped axes fail.
SIZE = (W, H)
SIGMAS = (0.1, 0.2, 0.15)

# Of floating results, what bfloat16 and what float64 gives.
AT_LEAST_FLOAT32 = ("float32", "float64")
KEPT = ("bfloat16", "float64")
FLOAT32 = ("float32", "float32")


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A function and a call of it.

    arrays: how to draw each of one example, which has no leading axes.
    options: all the other arguments.
    leading: what leading axes give: the "rows" of each, their "sum", or they are refused.
    gradient: for which arrays the sum of the results has one: finite, not 0 everywhere.
      None: for all that are floating point.
    dtype: of floating results: one for all, or one for each. None: not documented.
    wrong: what has to be refused: the text of the error, and what is changed for it.
    """

    function: Callable[..., Any]
    arrays: Mapping[str, Callable[[np.random.Generator], np.ndarray]]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    leading: str | None = "rows"
    gradient: Sequence[str] | None = None
    dtype: Sequence[Any] | None = AT_LEAST_FLOAT32
    wrong: Sequence[tuple[str, Mapping[str, Any]]] = ()

    @property
    def module(self):
        return sys.modules[self.function.__module__]

    def __str__(self):
        return f"{self.module.__name__.split('.')[-1]}.{self.function.__name__}"


def uniform(*shape, low=0.0, high=1.0):
    return lambda rng: rng.uniform(low, high, shape).astype(np.float32)


def whole(*shape, low=0, high=3, dtype=np.int32):
    return lambda rng: rng.integers(low, high, shape).astype(dtype)


def some_boxes(*shape):
    """Of several, the last but one has no extent, and the last is turned over."""

    def draw(rng):
        low, side = rng.uniform(0, 5, (*shape, 2)), rng.uniform(1.5, 6, (*shape, 2))
        if shape:
            side[-2], side[-1] = 0, -side[-1]
        return np.concatenate([low, low + side], axis=-1).astype(np.float32)

    return draw


def blobs(rng):
    """[h, w, k], each with one clear peak that is not on the rim."""
    x, y = rng.uniform(1.6, W - 2.6, K), rng.uniform(1.6, H - 2.6, K)
    rows, columns = np.mgrid[:H, :W][..., None]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2).astype(np.float32)


def transforms(rng):
    return (np.eye(2, 3) + rng.normal(0, 0.2, (2, 3))).astype(np.float32)


def bad(text, **changes):
    return text, changes


def ones(*shape):
    return np.ones(shape, np.float32)


POINTS = uniform(K, 2, low=-1, high=7)
MAPS, LOGITS = uniform(H, W, K), uniform(H, W, K, low=-3, high=3)
VECTORS = uniform(H, W, K, 2, low=-3, high=3)
WEIGHT, VISIBLE, MASK = uniform(K), whole(K), whole(H, W, K, high=2, dtype=bool)
FOUR, THREE, IMAGE = some_boxes(4), some_boxes(3), uniform(H, W, 2)

# fmt: off
NO_POINTS = [
    bad("points_xy must be", points_xy=ones(3, 3)),
    bad("points_xy must be", points_xy=ones(2)),
]
NO_MAPS = [bad("heatmaps must be", heatmaps=ones(5, 0, 2)),
           bad("heatmaps must be", heatmaps=ones(5, 5))]
PEAKS = dict(arrays={"heatmaps": blobs}, dtype=(AT_LEAST_FLOAT32, KEPT))
GAUSSIAN = [
    Case(gaussian.encode, {"points_xy": POINTS}, {"size": SIZE, "sigma": 1.5},
         dtype=KEPT, wrong=[
             *NO_POINTS, bad("sigma must be positive", sigma=0),
             bad("cutoff must be positive", cutoff=-1), bad("size must be", size=(0, 5))]),
    Case(gaussian.encode, {"points_xy": POINTS},
         {"size": SIZE, "sigma": 1, "quantize": True, "cutoff": 3}, gradient=()),
    Case(gaussian.reaches, {"points_xy": POINTS},
         {"size": SIZE, "sigma": 0.5, "cutoff": 1}, gradient=(), wrong=[
             *NO_POINTS, bad("sigma must be positive", sigma=-1),
             bad("cutoff must be positive", cutoff=0)]),
    Case(gaussian.decode_argmax, **PEAKS, wrong=NO_MAPS),
    Case(gaussian.decode_shift, **PEAKS, options={"rule": "sign"},
         wrong=[*NO_MAPS, bad('rule must be "sign"', rule="third")]),
    Case(gaussian.decode_shift, **PEAKS, options={"rule": "second"}),
    Case(gaussian.decode_dark, **PEAKS, options={"kernel_size": 3}, wrong=[
        *NO_MAPS, bad('variant must be "robust"', variant="other"),
        bad("kernel_size must be odd", kernel_size=4),
        bad("sigma must be positive", sigma=0)]),
    Case(gaussian.decode_dark, **PEAKS, options={"kernel_size": 3, "variant": "paper"}),
    Case(gaussian.kernel_sigma, {}, {"kernel_size": 5}, gradient=(), wrong=[
        bad("kernel_size must be odd", kernel_size=4)]),
    # One number for all maps, whatever their leading axes.
    Case(gaussian.estimate_sigma, PEAKS["arrays"], leading=None, gradient=(), dtype=None,
         wrong=NO_MAPS),
    Case(gaussian.decode_expected, PEAKS["arrays"] | {"scale": uniform(low=1, high=3)},
         {"kernel": (0.5, 1.0, 0.7), "sigma": 1.0}, dtype=PEAKS["dtype"], gradient=(),
         wrong=[
             *NO_MAPS, bad("kernel is one of", kernel="cubic"),
             bad("needs a scale", scale=None), bad("3 maps need 3 sigmas", kernel=(1, 2)),
             bad("scale must be", scale=ones(4))]),
    Case(gaussian.decode_expected, PEAKS["arrays"] | {"scale": uniform(low=1, high=3)},
         {"kernel": "disc"}, dtype=PEAKS["dtype"], gradient=()),
    Case(gaussian.decode_expected, **PEAKS, options={"kernel": "quadratic"}),
    Case(gaussian.decode_integral, {"logits": blobs}, dtype=PEAKS["dtype"], wrong=[
        bad("must be", logits=ones(5, 0, 2))]),
    Case(gaussian.modulate, {"heatmaps": blobs}, {"kernel_size": 3}, dtype=None,
         wrong=[*NO_MAPS, bad("kernel_size must be odd", kernel_size=0)]),
]

VOTES = {"heatmaps": MAPS, "offsets": VECTORS}
NO_VOTES = [
    bad("radius must be positive", radius=-1), bad("radius must be", radius=math.nan),
    bad("offsets must be", offsets=ones(H, W, K, 3)),
    bad("heatmaps must be", heatmaps=ones(5, 5), offsets=ones(5, 5, 2)),
    bad("heatmaps must be", heatmaps=ones(5, 0, 2), offsets=ones(5, 0, 2, 2)),
]
OFFSETS = [
    Case(offsets.encode, {"points_xy": POINTS}, {"size": SIZE, "radius": 2.5}, wrong=[
        *NO_POINTS, bad("radius must be positive", radius=0),
        bad("size must be", size=(0, 5))]),
    Case(offsets.fuse, VOTES, {"radius": 2.5}, wrong=NO_VOTES),
    Case(offsets.decode, VOTES, {"radius": 2.5}, wrong=NO_VOTES),
    Case(offsets.decode, VOTES, {"radius": 2.5, "subpixel": True}),
    Case(offsets.decode, VOTES, {"radius": 2.5, "blur": 0.3}, wrong=[
        bad("blur at least 0", blur=-1.0), bad("stride must be at least 1", stride=0)]),
    Case(offsets.decode, VOTES, {"radius": 2.5, "stride": 2}),
    Case(offsets.decode_peak, VOTES, wrong=NO_VOTES[2:]),
    Case(offsets.decode_density, VOTES, {"sigma": 0.8, "steps": 3}, wrong=[
        *NO_VOTES[2:], bad("sigma must be positive", sigma=0)]),
]

CENTERS = [
    Case(centers.weights, {"centers": uniform(H, W, 1, low=-3), "regression": VECTORS},
         gradient=(), wrong=[
             bad("centers must be", centers=ones(H, W, 2)),
             bad("regression must be", regression=ones(H, W + 1, K, 2)),
             bad("regression must end in", regression=ones(H, W, K, 3))]),
    Case(centers.around, {"heatmaps": MAPS, "weights": MAPS}, {"radius": 1},
         gradient=("heatmaps",), dtype=None, wrong=[
             bad("are both", weights=ones(H, W, 1)), bad("at least 0", radius=-1)]),
]

REGRESSION = [
    *(Case(function, {"points_xy": POINTS, "box_xyxy": some_boxes()},
           wrong=[*NO_POINTS, bad("with the same", box_xyxy=ones(K, 4))])
      for function in (regression.normalize, regression.denormalize)),
    Case(regression.diameter, {"points_xy": POINTS, "visibility": VISIBLE},
         {"torso": (0, 2)}, wrong=[
             *NO_POINTS, bad("torso names keypoint 3; there are 3", torso=(1, 3)),
             bad("torso names keypoint -1; there are 3", torso=(-1, 2)),
             bad("visibility must be", visibility=ones(4))]),
    Case(regression.refine, {"points_xy": uniform(2, high=9), "output_xy": uniform(2),
                             "side": uniform(low=2, high=9)}, wrong=[
        bad("must be", points_xy=ones(3), output_xy=ones(3)),
        bad("side needs", side=ones(2))]),
]

SCALE = "four positive numbers"
BOXES = [
    Case(boxes.anchors, {},
         {"size": (4, 3), "stride": 8, "scales": [8.0], "aspects": [1.0]}, wrong=[
             bad("size is", size=(0, 3)), bad("all positive", stride=0),
             bad("scales are", scales=[]), bad("scales are", scales=[8.0, -1.0]),
             bad("aspects are", aspects=[0.0])]),
    *(Case(function, {"boxes_xyxy": FOUR, others: THREE}, wrong=[
        bad("boxes_xyxy must be", boxes_xyxy=ones(4)),
        bad(f"{others} must be", **{others: ones(3, 3)})])
      for function, others in ((boxes.iou, "others_xyxy"),
                               (boxes.coverage, "regions_xyxy"))),
    *(Case(function, {name: draw, "anchors_xyxy": FOUR}, wrong=[
        bad("row by row", anchors_xyxy=ones(1, 4)), bad(SCALE, scale=(1.0, 1.0)),
        bad(SCALE, scale=(1.0, 1.0, 0.0, 1.0))])
      for function, name, draw in ((boxes.encode, "boxes_xyxy", FOUR),
                                   (boxes.decode, "deltas", uniform(4, 4, low=-1)))),
    *(Case(boxes.match,
           {"candidates_xyxy": FOUR, "people_xyxy": THREE, "people_kind": whole(3)},
           {"positive": 0.4, "negative": 0.2, "force": force}, None, (), wrong=[
               bad("with a kind each", people_kind=np.ones(2, np.int32)),
               bad("thresholds", negative=0.6), bad("thresholds", negative=0.0),
               bad("thresholds", positive=1.5), bad("thresholds", crowd=2.0)])
      for force in (True, False)),
    Case(boxes.sample, {"kind": whole(8, low=-1, high=2), "key": whole(high=99)},
         {"count": 3, "share": 0.5}, None,
         wrong=[bad("count is at least 1", count=0), bad("share in", share=1.5)]),
    Case(boxes.take, {"picked": whole(8, high=2, dtype=bool)}, {"count": 5}, None, wrong=[
        bad("one image", picked=ones(1, 8) > 0), bad("count at least 1", count=0)]),
    Case(boxes.area, {"boxes_xyxy": FOUR}, dtype=None),
]

SIMCC = [
    Case(simcc.encode, {"points_xy": POINTS}, {"size": SIZE, "sigma": 2.0}, wrong=[
        *NO_POINTS, bad("sigma must be positive", sigma=0.0),
        bad("split at least 1", split=0)]),
    *(Case(function, {"x": uniform(K, 2 * W), "y": uniform(K, 2 * H)},
           wrong=[bad("x must be", x=ones(2, 8)), bad("x must be", y=ones(8))])
      for function in (simcc.decode, simcc.decode_expectation)),
]

CROP = {"center_xy": uniform(2, high=9), "size": uniform(2, low=3, high=9),
        "rotation_deg": uniform(low=-90, high=90), "flip": whole(high=2, dtype=bool)}
GRIDS = {"heatmap_size": (4, 3), "input_size": (13, 9), "alignment": "aligned"}
NO_TRANSFORM = [bad("a transform is", transform=ones(3, 3))]
GEOMETRY = [
    Case(geometry.person_box, {"box_xyxy": some_boxes(), "padding": uniform(low=1)},
         {"aspect": 0.75}, dtype=None, wrong=[
             bad("aspect", aspect=0), bad("is a positive factor", padding=-1.0),
             bad("is one value", padding=ones(2)), bad("box_xyxy is", box_xyxy=ones(2))]),
    Case(geometry.crop_transform, CROP, {"output_size": SIZE}, dtype=None, wrong=[
        bad("are both", center_xy=ones(3), size=ones(3)),
        bad("rotation_deg is one value", rotation_deg=ones(2)),
        bad("flip is one value", flip=ones(2) > 0), bad("1x1 px", output_size=(0, 4)),
        bad("2x2 px", output_size=(1, 4), alignment="aligned"),
        bad("alignment must be", alignment="udp")]),
    *(Case(geometry.crop_transform, CROP, {"output_size": SIZE, "alignment": alignment})
      for alignment in ("aligned", "half_pixel")),
    Case(geometry.compose, {"outer": transforms, "inner": transforms}, dtype=None,
         wrong=[bad("a transform is", inner=ones(3, 3))]),
    Case(geometry.invert, {"transform": transforms}, dtype=None, wrong=NO_TRANSFORM),
    Case(geometry.transform_points, {"points_xy": POINTS, "transform": transforms},
         dtype=None, wrong=[*NO_TRANSFORM,
                            bad("axes", points_xy=ones(3), transform=ones(3, 2, 3))]),
    *(Case(function, {"points_xy": POINTS}, GRIDS, dtype=None, wrong=[
        bad("2x2 px", heatmap_size=(4, 1)), bad("alignment must be", alignment="udp"),
        bad("1x1 px", input_size=(0, 4), alignment="stride")])
      for function in (geometry.heatmap_to_input, geometry.input_to_heatmap)),
    Case(geometry.warp, {"image": IMAGE, "transform": transforms}, {"size": (4, 3)},
         gradient=["image"],  # That for the transform takes long: in test_geometry.
         dtype=FLOAT32, wrong=[*NO_TRANSFORM, bad("1x1 px", size=(4, 0))]),
    Case(geometry.warp, {"image": whole(H, W, 2, high=256, dtype=np.uint8),
                         "transform": transforms}, {"size": (4, 3)}, gradient=()),
    Case(geometry.roi_align, {"features": IMAGE, "boxes_xyxy": FOUR},
         {"size": (3, 2), "stride": 2}, None, ["features"], KEPT, wrong=[
             bad("roi_align takes", boxes_xyxy=ones(3, 3)), bad("1x1 px", size=(0, 2)),
             bad("both positive", stride=0), bad("both positive", samples=0)]),
]

NO_WEIGHT = [bad("weight", weight=ones(1)), bad("weight", weight=np.float32(1))]
NO_PAIR = [bad("one shape", target=ones(H, W, 1)), *NO_WEIGHT]
LOSSES = [
    Case(losses.heatmap_mse, {"pred": MAPS, "target": MAPS, "weight": WEIGHT},
         wrong=[*NO_PAIR, bad("pred is", pred=ones(K), target=ones(K))]),
    *(Case(losses.heatmap_sigmoid_cross_entropy,
           {"logits": LOGITS, "target": MAPS, "weight": weight},
           wrong=[*NO_PAIR, bad("weight", weight=ones(H, W, 1))])
      for weight in (WEIGHT, MAPS)),
    Case(losses.offset_huber, {"pred": VECTORS, "target": VECTORS, "mask": MASK},
         {"delta": 1.5}, wrong=[
             bad("one shape", target=ones(H, W, K, 1)), bad("mask", mask=ones(H, W, 1)),
             bad("pred is", pred=ones(H, W, K), target=ones(H, W, K)),
             bad("delta must be positive", delta=0.0)]),
    *(Case(function, {"pred_xy": POINTS, "true_xy": POINTS, "weight": WEIGHT}, wrong=[
        *NO_WEIGHT, bad("one shape", true_xy=ones(1, 2)), *more,
        bad("pred_xy is", pred_xy=ones(K), true_xy=ones(K))])
      for function, more in (
          (losses.keypoint_squared_error, []),
          (losses.keypoint_smooth_l1, [bad("beta must be positive", beta=-1.0)]))),
    Case(losses.bins_divergence,
         {"logits": uniform(K, W), "target": uniform(K, W), "weight": WEIGHT},
         wrong=[*NO_WEIGHT, bad("one shape", target=ones(K, W - 1))]),
    *(Case(losses.masked_mean, {"values": MAPS, "mask": MASK}, {"normalize_by": by}, None,
           wrong=[bad("mask must have shape", mask=ones(H, W, 1)),
                  bad("normalize_by is", normalize_by="batch")])
      for by in ("mask", "all")),
]

PEOPLE = {"pred_xy": POINTS, "true_xy": POINTS, "visibility": VISIBLE}
THRESHOLDS = {"thresholds": (0.25, 0.5, 1.0)}
NO_PEOPLE = [bad("must end in", true_xy=ones(1, 2)), bad("must end in", visibility=ones(1))]
NO_LIST = bad("thresholds must be a list", thresholds=np.float32(0.5))
METRICS = [
    Case(keypoint.oks, {**PEOPLE, "area": uniform(low=50, high=99)}, {"sigmas": SIGMAS},
         dtype=None, wrong=[
             *NO_PEOPLE, bad("one per keypoint", sigmas=SIGMAS[:-1]),
             bad("one per keypoint", sigmas=(0.1,)),
             bad("equal or 1", pred_xy=ones(2, K, 2), true_xy=ones(3, K, 2),
                 visibility=ones(3, K), area=ones(3))]),
    *(Case(keypoint.pcp, PEOPLE,
           {"sticks": (("arm", 0, 1), ("torso", (0, 2), 1)), **options}, "sum", (), wrong=[
               *NO_PEOPLE, bad("arm names keypoint 3", sticks=(("arm", 0, K),)),
               bad("PCP needs sticks", sticks=())])
      for options in ({}, {"threshold": 0.7, "strict": False})),
    *(Case(function, {**PEOPLE, scale: uniform(low=1, high=9)}, THRESHOLDS, "sum", (),
           wrong=[*NO_PEOPLE, NO_LIST])
      for function, scale in ((keypoint.pck, "scale"), (keypoint.pckh, "head_size"))),
    Case(keypoint.pdj, PEOPLE, {"torso": (0, 2), **THRESHOLDS}, "sum", (), wrong=[
        *NO_PEOPLE, bad("torso names keypoint 3", torso=(0, K)), NO_LIST,
        bad("torso names keypoint -1", torso=(-1, 0)), bad("needs a torso", torso=None)]),
    Case(keypoint.flipped, PEOPLE, {"flip_pairs": ((0, 2),), "at_least": 2}, gradient=(),
         wrong=[*NO_PEOPLE, bad("Flips need pairs", flip_pairs=()),
                bad("flip_pairs names keypoint 3", flip_pairs=((0, K),))]),
]

FOUND = {"scores": uniform(4), "valid": whole(4, high=2, dtype=bool)}
POSES = {"points_xy": uniform(4, K, 2, high=9), "areas": uniform(4, low=50, high=900)}
NOT_FOUND = [
    bad("must have shape", scores=ones(3), valid=ones(3) > 0),
    bad("valid must have shape", valid=ones(3) > 0),
    bad("threshold is an overlap", threshold=1.5),
    bad("threshold is an overlap", threshold=-0.5),
]
NMS = [
    Case(nms.box_nms, {"boxes_xyxy": FOUR, **FOUND}, {"threshold": 0.2}, None, (),
         wrong=NOT_FOUND),
    *(Case(function, {**POSES, **FOUND}, {"threshold": 0.3, "sigmas": SIGMAS}, None,
           gradient, None, wrong=[
               *NOT_FOUND, bad("areas must have shape", areas=ones(3)), *more,
               bad("points_xy must have shape", points_xy=ones(4, 2, 2))])
      for function, gradient, more in (
          (nms.oks_nms, (), []),
          (nms.soft_oks_nms, None, [bad("threshold must be positive", threshold=0.0)]))),
]
# fmt: on

KERNELS = [*GAUSSIAN, *OFFSETS, *CENTERS, *REGRESSION, *BOXES, *SIMCC, *GEOMETRY]
KERNELS += [*LOSSES, *METRICS, *NMS]
FIRST = list({case.function: case for case in reversed(KERNELS)}.values())[::-1]
"""One case of each function: what does not depend on its options."""

KEYPOINT_SET = {"torso", "sticks", "flip_pairs", "sigmas"}
"""Facts of a keypoint set, which may be positional."""
MORE_AXES = {
    "box_xyxy of person_box",
    "points_xy of transform_points",
    "key of sample",
    "heatmaps of decode_expected",
}
"""Arrays that may have axes in front that the others lack."""
ONE_FOR_ALL = {"side of refine", *(f"{name} of oks" for name in (*PEOPLE, "area"))}
"""Arrays of which one row may stand for all."""
SHORT = {geometry.compose, geometry.invert, simcc.decode_expectation, boxes.area}
"""Whose docstrings have no sections: a sentence says all, or names another function."""
REFUSE_INTEGERS = {
    case.function
    for case in KERNELS
    if case.module in (gaussian, offsets, centers, regression, boxes)
} - {boxes.area} | {simcc.encode}


def of(cases, chosen=lambda case: True):
    return pytest.mark.parametrize("case", [*filter(chosen, cases)], ids=str)


def call(case, arrays, function=None):
    arguments = {**case.options, **arrays}
    if "key" in arguments:
        arguments["key"] = jax.random.key(arguments["key"])
    return (function or case.function)(**arguments)


ROWS = 6


@functools.cache
def batch(case):
    """Five examples and one of zeros only, which is what padding is."""
    rng = np.random.default_rng(0)
    rows = {}
    for name, draw in case.arrays.items():
        values = np.stack([draw(rng) for _ in range(ROWS)])
        values[-1] = 0
        rows[name] = values
    return rows


def example(case, i=0):
    return {name: jnp.asarray(rows[i]) for name, rows in batch(case).items()}


@functools.cache
def compiled(case):
    """The rows under vmap, the same as leading axes [2, 3], gradients of the sum."""

    @jax.jit
    def run(arrays):
        def total(some):
            rows = jax.vmap(functools.partial(call, case))({**arrays, **some})
            return sum(map(jnp.sum, floating(rows)), jnp.zeros(())), rows

        some = {name: arrays[name] for name in differentiable(case)}
        (_, rows), gradients = jax.value_and_grad(total, has_aux=True)(some)
        folded = {n: a.reshape(2, 3, *a.shape[1:]) for n, a in arrays.items()}
        return rows, call(case, folded) if case.leading else None, gradients

    return jax.device_get(run(batch(case)))


def differentiable(case):
    if case.gradient is not None:
        return case.gradient
    return [name for name, rows in batch(case).items() if floating(rows)]


def floating(tree):
    leaves = jax.tree.leaves(tree)
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]


def same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def unchecked(case, monkeypatch):
    """The function without the annotations' checks, which would refuse before it does."""
    for name, value in list(vars(case.module).items()):
        if inspect.isfunction(value):
            monkeypatch.setattr(case.module, name, inspect.unwrap(value))
    return inspect.unwrap(case.function)


def test_every_public_function_is_in_the_table():
    public = {
        f"{module.__name__}.{name}"
        for module in MODULES
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", "") == module.__name__
        if not name.startswith("_")
    }
    assert public == {f"{c.function.__module__}.{c.function.__name__}" for c in FIRST}


@of(KERNELS, lambda case: case.arrays)
def test_under_jit_and_vmap_it_is_what_it_is_row_by_row(case):
    rows, _, _ = compiled(case)
    for i in (0, ROWS - 1):
        same(call(case, example(case, i)), jax.tree.map(lambda a, i=i: a[i], rows))


@of(KERNELS, lambda case: case.arrays and case.leading)
def test_leading_axes_are_rows(case):
    rows, whole, _ = compiled(case)
    if case.leading == "sum":
        expected = jax.tree.map(lambda a: a.sum(0, dtype=a.dtype), rows)
    else:
        expected = jax.tree.map(lambda a: a.reshape(2, 3, *a.shape[1:]), rows)
    same(whole, expected)
    nobody = {name: a[:0] for name, a in batch(case).items()}
    nothing = jax.eval_shape(functools.partial(call, case), nobody)
    first = (0,) if case.leading == "rows" else ()
    for found, row in zip(*map(jax.tree.leaves, (nothing, rows)), strict=True):
        assert found.shape == (*first, *row.shape[1:])


@of(KERNELS, differentiable)
def test_gradients_are_finite(case):
    _, _, gradients = compiled(case)
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all(), name
        assert np.any(gradient != 0), name


@of(FIRST, lambda case: case.arrays)
def test_float32_stays_and_other_types_give_what_is_documented(case):
    results = floating(compiled(case)[0])
    assert all(leaf.dtype == jnp.float32 for leaf in results)
    if not results or case.dtype is None:
        return

    def cast(arrays, dtype):
        return {
            n: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a
            for n, a in arrays.items()
        }

    half = cast(example(case), jnp.bfloat16)
    found = floating(call(case, half))
    exact = floating(call(case, cast(half, jnp.float32)))
    with jax.enable_x64(True):
        one = {name: rows[0] for name, rows in batch(case).items()}
        one = cast(one, np.float64)
        wide = floating(jax.eval_shape(functools.partial(call, case), one))
    each = case.dtype if isinstance(case.dtype[0], tuple) else [case.dtype] * len(found)
    for values, expected, wider, dtypes in zip(found, exact, wide, each, strict=True):
        assert (values.dtype, wider.dtype) == dtypes
        if values.dtype == jnp.float32:  # It is computed in it.
            np.testing.assert_array_equal(values, expected)


@of(FIRST, lambda case: case.function in REFUSE_INTEGERS and floating(batch(case)))
def test_integers_are_refused(case, monkeypatch):
    function, arrays = unchecked(case, monkeypatch), example(case)
    for name, array in arrays.items():
        if floating(array):
            wrong = {**arrays, name: array.astype(jnp.int32)}
            with pytest.raises(ValueError, match=f"{name} must be floating .* int32"):
                call(case, wrong, function)


@of(FIRST, lambda case: case.wrong)
def test_what_is_wrong_is_refused_in_one_line(case, monkeypatch):
    function, right = unchecked(case, monkeypatch), example(case)
    for text, changes in case.wrong:
        with pytest.raises(ValueError, match=text) as error:
            call(case, {**right, **changes}, function)
        assert "\n" not in str(error.value)
    assert case.function in SHORT or "ValueError: " in case.function.__doc__


@of(FIRST, lambda case: len(case.arrays) > 1)
def test_nothing_is_broadcast(case, monkeypatch):
    """Neither an axis more in front, nor one row where the others have two."""
    function, right = unchecked(case, monkeypatch), example(case)
    two = {name: a[:2] for name, a in batch(case).items()}
    for name in right:
        wrong = []
        if f"{name} of {case.function.__name__}" not in MORE_AXES:
            wrong.append({**right, name: right[name][None]})
        if f"{name} of {case.function.__name__}" not in ONE_FOR_ALL and case.leading:
            wrong.append({**two, name: two[name][:1]})
        for arrays in wrong:
            with pytest.raises(ValueError, match="got"):
                call(case, arrays, function)


@of(FIRST)
def test_options_are_keywords(case):
    parameters = inspect.signature(case.function).parameters
    for name, parameter in parameters.items():
        is_option = name in case.options or parameter.default is not parameter.empty
        if is_option and name not in {*case.arrays, *KEYPOINT_SET}:
            assert parameter.kind is parameter.KEYWORD_ONLY, name


@of(FIRST)
def test_it_says_what_it_takes_and_gives(case):
    text = inspect.getdoc(case.function) or ""
    assert text
    if case.function not in SHORT:
        sections = re.split(r"^(Args|Returns):$", text, flags=re.M)
        assert sections[1::2] == ["Args", "Returns"]
        for name in inspect.signature(case.function).parameters:
            assert re.search(rf"^  .*\b{name}\b.*:", sections[2], re.M), name


def test_the_modules_load_no_framework(run_python):
    names = ", ".join(module.__name__ for module in MODULES)
    done = run_python(
        f"import sys, {names}; "
        "bad = {'flax', 'tensorflow', 'optax', 'orbax'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    assert done.returncode == 0, done.stderr
