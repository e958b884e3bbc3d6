"""Published person detectors, converted to variables: torchvision's Faster R-CNN.

Also the box branch of its Keypoint R-CNN and Mask R-CNN, whose other branches are left out.

    backbone.body.layer1.0.bn1.weight    params/backbone/layer1/0/bn1/scale
    backbone.fpn.inner_blocks.0.weight   params/pyramid/lateral2/kernel
    backbone.fpn.layer_blocks.0.weight   params/pyramid/output2/kernel
    rpn.head.cls_logits.weight           params/rpn/objectness/kernel
    rpn.head.bbox_pred.weight            params/rpn/deltas/kernel
    roi_heads.box_head.fc6.weight        params/box_head/fc6/kernel
    roi_heads.box_predictor.cls_score    params/box_head/classes, or person
    roi_heads.box_predictor.bbox_pred    params/box_head/deltas, its rows of people

The pyramid and the first layer of the proposals have another level in the names of files
that newer releases of torchvision save: `inner_blocks.0.0.weight`.

A softmax of two classes becomes the one logit that is equivalent. The epsilon of
torchvision's frozen norms is not in the file: 0 in the networks of `COCO_V1`, otherwise
1e-5. The norms here have 1e-5, so the scales are multiplied by
sqrt((var + 1e-5) / (var + epsilon)).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from pose_jax import models
from pose_jax.errors import InputError
from pose_jax.models import faster_rcnn
from pose_jax.trees import TreePath, flatten

NETWORKS = ("faster_rcnn_fpn_50", "faster_rcnn_fpn_18", "faster_rcnn_fpn_101")
"""Networks that a detector of torchvision can be converted to; 50 is the published one."""

OPTIONS: Mapping[str, Any] = {"norm": "frozen", "offset": -0.5, "min_features": 1.0}
"""Options of the network, beside the number of classes."""

SETTINGS: Mapping[str, Any] = {
    "conventions": "torchvision",
    "size": (800, 1333),
    "anchor_scales": ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,)),
    "test_post_nms": 1000,
    "box_nms": 0.5,
}
"""Settings of the method that differ from its defaults."""

_OUR_EPSILON = 1e-5
_COUNTER = "num_batches_tracked"
_CLASSES = "roi_heads.box_predictor.cls_score.weight"
_MODULES = {
    **{f"pyramid.lateral{i + 2}": f"backbone.fpn.inner_blocks.{i}" for i in range(4)},
    **{f"pyramid.output{i + 2}": f"backbone.fpn.layer_blocks.{i}" for i in range(4)},
    "rpn.conv": "rpn.head.conv",
    "rpn.objectness": "rpn.head.cls_logits",
    "rpn.deltas": "rpn.head.bbox_pred",
    "box_head.fc6": "roi_heads.box_head.fc6",
    "box_head.fc7": "roi_heads.box_head.fc7",
    "box_head.person": "roi_heads.box_predictor.cls_score",
    "box_head.classes": "roi_heads.box_predictor.cls_score",
    "box_head.deltas": "roi_heads.box_predictor.bbox_pred",
}
_LEAVES = {
    "kernel": "weight", "scale": "weight", "bias": "bias",
    "mean": "running_mean", "var": "running_var",
}  # fmt: skip
_NEWER = (
    (re.compile(r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.0\."), r"\1."),
    (re.compile(r"rpn\.head\.conv\.0\.0\."), "rpn.head.conv."),
)
_OTHER_BRANCHES = re.compile(r"roi_heads\.(keypoint|mask)_(head|predictor)\..+")

_FAMILIES = {
    "backbone.bottom_up.": "a detector of detectron2",
    "neck.": "a detector of mmdetection",
    "backbone.fpn.inner_blocks.0.1.": "torchvision's fasterrcnn_resnet50_fpn_v2",
    "backbone.body.0.": "torchvision's fasterrcnn_mobilenet_v3",
    "backbone.0.body.": "a detector of another kind",
    "head.classification_head.": "torchvision's RetinaNet or FCOS",
}
"""What a file is that has names which begin so; none of them can be converted."""


def from_torch(
    state_dict: Mapping[str, Any],
    name: str,
    *,
    epsilon: float | None = None,
    **options: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Converts the state dict of a detector of torchvision.

    Args:
      state_dict: arrays by their published names, of any release.
      name: a network of `NETWORKS`.
      epsilon: of the frozen norms; None: 1e-5 if the file counts batches, as that of a
        network whose norms were trained, otherwise 0.
      **options: options of the network that differ from `OPTIONS`.

    Returns:
      {"params", "batch_stats"}, float32 NumPy arrays; and the options of the network.

    Raises:
      InputError: a tensor is missing, unknown, of another shape, or not finite, a variance
        is not positive, or it is another kind of detector.
    """
    arrays, counted = {}, False
    for key, value in state_dict.items():
        for newer, older in _NEWER:
            key = newer.sub(older, key)
        counted |= key.endswith(_COUNTER)
        if not key.endswith(_COUNTER) and not _OTHER_BRANCHES.fullmatch(key):
            arrays[key] = np.asarray(value)
    _check_family(arrays, name)
    shape = np.shape(arrays.get(_CLASSES, np.zeros((91, 0))))
    classes = shape[0] if len(shape) == 2 else 91
    options = {**OPTIONS, "classes": 1 if classes == 2 else classes, **options}
    model: Any = models.build(name, **options)
    shapes = jax.eval_shape(
        lambda key: model.init(key, jnp.zeros((1, 64, 64, 3)), train=True),
        jax.random.key(0),
    )
    paths = {path: leaf.shape for path, leaf in flatten(shapes).items()}
    _check(arrays, _expected(paths, classes), name)
    epsilon = (_OUR_EPSILON if counted else 0.0) if epsilon is None else epsilon
    leaves = {
        path: _to_ours(arrays[_published(path)], path, leaf, classes)
        for path, leaf in paths.items()
    }
    return unflatten_dict(_with_epsilon(leaves, epsilon)), options


def _published(path: TreePath) -> str:
    """Returns the published name of a variable."""
    _, *modules, leaf = path
    if modules[0] == "backbone":
        module = ".".join(["backbone.body", *modules[1:]])
    else:
        module = _MODULES[".".join(modules)]
    return f"{module}.{_LEAVES[leaf]}"


def _expected(
    paths: Mapping[TreePath, tuple[int, ...]], classes: int
) -> dict[str, tuple[int, ...]]:
    """Returns the published shapes of all variables, by their published names."""
    expected = {}
    for path, shape in paths.items():
        if len(shape) == 4:
            shape = (shape[3], shape[2], *shape[:2])
        outputs = {"deltas": 4 * classes, "person": classes}.get(path[-2])
        if path[1] == "box_head" and outputs is not None:
            shape = (*shape[:-1], outputs)
        expected[_published(path)] = shape[::-1] if len(shape) == 2 else shape
    return expected


def _to_ours(
    array: np.ndarray, path: TreePath, shape: tuple[int, ...], classes: int
) -> np.ndarray:
    array = array.astype(np.float32)
    module, layer = path[1:3]
    if module == "box_head" and layer == "deltas":
        array = array.reshape(classes, 4, *array.shape[1:])[1]
    elif module == "box_head" and layer == "person":
        array = array[1:] - array[:1]
    if layer == "fc6" and array.ndim == 2:  # Channels, rows, columns -> channels last.
        w, h = faster_rcnn.FasterRCNNPyramid.crop_size
        array = array.reshape(len(array), -1, h, w).transpose(0, 2, 3, 1)
        array = array.reshape(len(array), -1)
    if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
    elif array.ndim == 2:
        array = array.T
    return np.ascontiguousarray(array.reshape(shape))


def _with_epsilon(
    leaves: Mapping[TreePath, np.ndarray], epsilon: float
) -> dict[TreePath, np.ndarray]:
    """Returns variables for norms with our epsilon instead of this one."""
    changed = dict(leaves)
    for (kind, *modules, leaf), array in leaves.items():
        if kind != "batch_stats" or leaf != "var":
            continue
        var = array.astype(np.float64) + epsilon
        if not (var > 0).all():
            key = _published((kind, *modules, leaf))
            raise InputError(
                f"{key} has values that are not positive, and the norms have no epsilon: "
                f"give --norm-epsilon {_OUR_EPSILON:g} if they have."
            )
        scale = ("params", *modules, "scale")
        factor = np.sqrt((array.astype(np.float64) + _OUR_EPSILON) / var)
        changed[scale] = (leaves[scale] * factor).astype(np.float32)
    return changed


# ----------------------------------------------------------------------------- mistakes


def _check_family(arrays: Mapping[str, np.ndarray], name: str) -> None:
    """Raises an InputError for a file of another kind of network."""
    for start, family in _FAMILIES.items():
        if any(key.startswith(start) for key in arrays):
            raise InputError(
                f"it is {family}, which cannot be converted: give torchvision's "
                "fasterrcnn_resnet50_fpn or keypointrcnn_resnet50_fpn."
            )
    if any(key.startswith("backbone.body.") for key in arrays):
        return
    advice = "give torchvision's fasterrcnn_resnet50_fpn or keypointrcnn_resnet50_fpn."
    if "layer1.0.conv1.weight" in arrays and "fc.weight" in arrays:
        advice = f"it is an ImageNet ResNet; to start training from it: --model {name} "
        advice += "--backbone."
    raise InputError(f"not a detector, no tensor is named backbone.body.*: {advice}")


def _check(
    arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], name: str
) -> None:
    """Raises an InputError that lists all problems."""
    problems = {
        "missing": [f"{k} {list(v)}" for k, v in expected.items() if k not in arrays],
        "unknown": [
            f"{k} {list(v.shape)}" for k, v in arrays.items() if k not in expected
        ],
        "of another shape": [
            f"{key} {list(arrays[key].shape)}, expected {list(shape)}"
            for key, shape in expected.items()
            if key in arrays and arrays[key].shape != shape
        ],
    }
    parts = [f"{len(v)} {word} ({_some(v)})" for word, v in problems.items() if v]
    if parts:
        raise InputError(
            f"tensors do not match {name}: {', '.join(parts)}. Give a complete checkpoint "
            f"of torchvision's detector with a ResNet-{name.rpartition('_')[2]}."
        )
    wrong = [
        key
        for key, array in arrays.items()
        if not jnp.issubdtype(array.dtype, jnp.floating) or not np.isfinite(array).all()
    ]
    if wrong:
        raise InputError(
            f"{len(wrong)} tensors are not floating point or not finite ({_some(wrong)}): "
            "use another checkpoint."
        )


def _some(lines: Sequence[str], count: int = 3) -> str:
    more = f", and {len(lines) - count} more" if len(lines) > count else ""
    return ", ".join(ascii(line)[1:-1][:100] for line in lines[:count]) + more
