"""Names and layouts of published PyTorch weights, converted to variables and back.

The networks name their parameters like the published checkpoints, with one level of the
tree per dot, so that the mapping is a rule (`_published_name`), not a table:

    SimpleBaseline   layer1.0.bn1.weight      params/backbone/layer1/0/bn1/scale
                     deconv_layers.0.weight   params/deconv_layers/0/kernel
    HRNet            final_layer.bias         params/head/bias
    Hourglass        score.3.weight           params/stack_3/head/score/kernel
    ViTPose          embeddings.X             params/backbone/embeddings/X
    all              bn1.running_var          batch_stats/.../bn1/var

Names of mmpose, transformers and others are first turned into these, see `names`.
ResNetRegression and MultiPose have no published weights, but can be initialized from
torchvision's ResNet, which is stored below backbone as in SimpleBaseline.

Convolutions are [out, in, h, w] in PyTorch and [h, w, in, out] here; transposed ones are
[in, out, h, w] in PyTorch and [h, w, in, out] here, flipped in both spatial axes. Kernels
of linear layers are [out, in] in PyTorch and [in, out] here. DarkPose uses the networks of
HRNet, SimpleBaseline and Hourglass. Caffe-style SimpleBaselines (with
the stride in the first convolution of a bottleneck) are not supported; they have the same
names and shapes and cannot be detected.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from pose_jax import models
from pose_jax.errors import ConfigError, InputError
from pose_jax.models import ops, resnet
from pose_jax.trees import TreePath, flatten
from pose_jax.weights import names as names_lib
from pose_jax.weights.catalogue import CATALOGUE, Published

_LEAVES = {
    "kernel": "weight", "scale": "weight", "bias": "bias",
    "mean": "running_mean", "var": "running_var",
}  # fmt: skip
COUNTER = "num_batches_tracked"  # In BatchNorm; unused, as momentum is constant.
_CLASSIFIER = re.compile(
    # torchvision's ResNet; HRNet's heads and the layers of its last module that feed them;
    # the last convolution of EfficientNet, whose norm is called bn1.
    r"fc\.(weight|bias)|(incre_modules|downsamp_modules|final_layer|classifier)\..+"
    r"|stage4\.\d+\.fuse_layers\.[1-3]\..+|head\..+|conv_head\.weight|bn1\..+"
)
"""Tensors of ImageNet classifiers that are not part of the backbone of a pose network."""


def from_torch(
    state_dict: Mapping[str, Any], name: str, *, backbone: bool = False, **options: Any
) -> dict[str, Any]:
    """Converts a published state dict to variables.

    All tensors must be used and all variables present, with the right shapes, except for
    `num_batches_tracked` of BatchNorm and, with `backbone`, the classifier.

    Args:
      state_dict: arrays by their published PyTorch names, also those of `names`.
      name: name of the network, for `models.build`; the number of keypoints is inferred
        from the state dict.
      backbone: the state dict is an ImageNet classifier, e.g. torchvision's ResNet; the
        result has neither the classifier nor the layers that only the pose network has
        (head, deconvolutions).
      **options: options for `models.build` that differ from the published network.

    Returns:
      {"params", "batch_stats"}, float32 NumPy arrays, for `models.build(...).apply`.

    Raises:
      InputError: a tensor is missing, unknown, of another shape, or not finite.
      ConfigError: the network has no published weights of this kind (complete or backbone).
    """
    arrays = {key: np.asarray(value) for key, value in state_dict.items()}
    whose = names_lib.origin(arrays)
    arrays = names_lib.renamed(arrays)
    expected = _expected(name, num_keypoints(arrays, name), backbone, options)
    arrays = _needed(arrays, expected, backbone)
    _check(arrays, expected, name + " --backbone" * backbone, whose)
    variables = unflatten_dict(
        {path.names: _to_ours(arrays[key], path) for key, path in expected.items()}
    )
    return {"batch_stats": {}, **variables}


def to_torch(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Inverse of `from_torch`, for `load_state_dict` in PyTorch; omits counters."""
    state_dict = {}
    for names, leaf in flatten(variables).items():
        path = _Path(names, np.shape(leaf))
        array = np.asarray(leaf)
        if path.flipped:
            array = array[::-1, ::-1]
        array = np.ascontiguousarray(array.transpose(path.axes))
        state_dict[_published_name(names)] = array
    return state_dict


# -------------------------------------------------------------------- names and layouts


@dataclasses.dataclass(frozen=True)
class _Path:
    """Path and shape of a variable, and the layout of its array in PyTorch."""

    names: TreePath
    shape: tuple[int, ...]

    @property
    def flipped(self) -> bool:
        """True for the kernel of a transposed convolution."""
        return len(self.shape) == 4 and "deconv_layers" in self.names

    @property
    def axes(self) -> tuple[int, ...]:
        """Permutation of the axes for PyTorch: array.transpose(axes)."""
        if len(self.shape) == 2:
            return (1, 0)
        if len(self.shape) != 4:
            return tuple(range(len(self.shape)))
        return (2, 3, 0, 1) if self.flipped else (3, 2, 0, 1)

    @property
    def published_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in self.axes)


def _to_ours(array: np.ndarray, path: _Path) -> np.ndarray:
    back = tuple(map(path.axes.index, range(array.ndim)))
    array = array.astype(np.float32).transpose(back)
    return np.ascontiguousarray(array[::-1, ::-1] if path.flipped else array)


def _published_name(path: TreePath) -> str:
    """Returns the PyTorch name: ("params", "head", "bias") is final_layer.bias."""
    _, *modules, leaf = path
    if modules[0] == "backbone":
        modules = modules[1:]
    elif modules[0] == "head":
        modules = ["final_layer"]
    elif modules[0].startswith("stack_"):
        # In PyTorch, one list per kind of layer has the layers of all stacks.
        stack, kind, *rest = [module for module in modules if module != "head"]
        inner = ["hg"] if kind == "hg" else []
        modules = [kind, stack.removeprefix("stack_"), *inner, *rest]
    return ".".join([*modules, _LEAVES.get(leaf, leaf)])


def facts_of(name: str) -> Published:
    """Returns the catalogue entry of a network; raises ConfigError if there is none."""
    if name not in CATALOGUE:
        models.entry(name)  # Raises with a suggestion for unknown names.
        known = [known for known, published in CATALOGUE.items() if published.whole]
        raise ConfigError(
            f"no weights of model {name!r} are published; use one of {', '.join(known)}."
        )
    return CATALOGUE[name]


def _expected(
    name: str, num_keypoints: int, backbone: bool, options: Mapping[str, Any]
) -> dict[str, _Path]:
    """Returns the variables of a network by their published names."""
    published = facts_of(name)
    if not published.whole and not backbone:
        raise ConfigError(
            f"no complete checkpoint of model {name!r} is published; use --backbone to "
            "start from an ImageNet classifier."
        )
    model = models.build(name, num_keypoints, **options)
    if backbone and not published.backbone:
        raise ConfigError(
            f"no ImageNet backbone of model {name!r} is published; use simple_baseline_*, "
            "hrnet_*, or omit --backbone."
        )
    # The shapes do not depend on the input size, but not all networks support all sizes.
    side, _, _ = published.sides
    with ops.use_forms("stock"):  # Fewer operations to trace, the same shapes.
        shapes = jax.eval_shape(
            lambda key: model.init(key, jnp.zeros((1, side, side, 3)), train=True),
            jax.random.key(0),
        )
    paths = [_Path(path, leaf.shape) for path, leaf in flatten(shapes).items()]
    if backbone:
        roots = {path.names[1] for path in paths}
        kept = {"backbone"} if "backbone" in roots else roots - {"head"}
        paths = [path for path in paths if path.names[1] in kept]
    return {_published_name(path.names): path for path in paths}


def num_keypoints(arrays: Mapping[str, Any], name: str) -> int:
    """Returns the channels of the last layer; 17 if it is missing (`_check` reports it)."""
    arrays, last = names_lib.renamed(arrays), facts_of(name).last
    shape = np.shape(arrays[last]) if last in arrays else ()
    return shape[0] if len(shape) == 4 and shape[0] else 17


def _needed(
    arrays: Mapping[str, np.ndarray], expected: Mapping[str, _Path], backbone: bool
) -> dict[str, np.ndarray]:
    """Returns all tensors except counters of known norms and the classifier."""

    def ignored(key: str) -> bool:
        if key.endswith(COUNTER) and key.replace(COUNTER, "running_mean") in expected:
            return True
        return backbone and key not in expected and bool(_CLASSIFIER.fullmatch(key))

    return {key: array for key, array in arrays.items() if not ignored(key)}


# ----------------------------------------------------------------------------- mistakes


def _check(
    arrays: Mapping[str, np.ndarray],
    expected: Mapping[str, _Path],
    asked: str,
    whose: str | None,
) -> None:
    """Raises an InputError that lists all problems; `asked` is the value of --model,
    `whose` the result of `names.origin`."""
    shapes = {key: path.published_shape for key, path in expected.items()}
    actual = {key: array.shape for key, array in arrays.items()}
    mistakes = {
        "missing": [f"{k} {list(shapes[k])}" for k in shapes if k not in actual],
        "unknown": [f"{k} {list(actual[k])}" for k in actual if k not in shapes],
        "of another shape": [
            f"{key} {list(actual[key])}, expected {list(shape)}"
            for key, shape in shapes.items()
            if actual.get(key, shape) != shape
        ],
    }
    parts = [f"{len(v)} {word} ({_some(v)})" for word, v in mistakes.items() if v]
    if parts:
        advice = f"They are of {whose}." if whose else _advice(arrays, asked)
        raise InputError(f"tensors do not match {asked}: {', '.join(parts)}. {advice}")
    wrong = [
        f"{key} ({array.dtype})"
        for key, array in arrays.items()
        if not jnp.issubdtype(array.dtype, jnp.floating)
    ]
    if wrong:
        raise InputError(
            f"{len(wrong)} tensors are not floating point ({_some(wrong)}): save the "
            "network in float32."
        )
    with np.errstate(over="ignore"):  # Values that overflow float32 become infinite.
        wrong = [
            key
            for key, array in arrays.items()
            if not np.isfinite(array.astype(np.float32)).all()
        ]
    if wrong:
        raise InputError(
            f"{len(wrong)} tensors have values that are not finite ({_some(wrong)}): use "
            "another checkpoint."
        )


def _some(lines: Sequence[str], count: int = 3) -> str:
    more = f", and {len(lines) - count} more" if len(lines) > count else ""
    return ", ".join(ascii(line)[1:-1][:100] for line in lines[:count]) + more


def _advice(arrays: Mapping[str, np.ndarray], asked: str) -> str:
    """Guesses from the tensor names which options the checkpoint needs."""
    stacks = sum(key.startswith("score.") and key.endswith(".weight") for key in arrays)
    blocks = {key.split(".")[1] for key in arrays if key.startswith("layer3.")}
    deep = "layer1.0.conv3.weight" in arrays
    likely = None
    if "layernorm.weight" in arrays:
        likely = _vitpose(arrays)
    elif "conv_stem.weight" in arrays:
        likely = "efficientnet_lite0 --backbone"
    elif "transition1.0.0.weight" in arrays:
        likely = f"hrnet_w{arrays['transition1.0.0.weight'].shape[0]}"
        likely += " --backbone" * ("final_layer.weight" not in arrays)
    elif stacks:
        likely = f"hourglass_{stacks}"
    else:
        for depth, (block, counts) in resnet.DEPTHS.items():
            if counts[2] == len(blocks) and deep == (block is resnet.Bottleneck):
                likely = f"simple_baseline_{depth}"
                if "deconv_layers.0.weight" not in arrays:
                    same = asked.split()[0].rpartition("_")[0] + f"_{depth}"
                    if same in CATALOGUE and not CATALOGUE[same].whole:
                        likely = same
                    likely += " --backbone"
    if likely is None or likely.split()[0] not in CATALOGUE or likely == asked:
        return "Give a complete checkpoint of this network."
    return f"They match --model {likely}."


def _vitpose(arrays: Mapping[str, Any]) -> str | None:
    """Returns the ViTPose of this size and head, if there is one."""
    features = arrays["layernorm.weight"].shape[0]
    last = arrays.get("final_layer.weight")
    simple = "_simple" * (last is not None and np.shape(last)[-1] == 3)
    names = (name for name in CATALOGUE if name.startswith("vitpose_"))
    return next(
        (
            name
            for name in names
            if name.endswith("_simple") == bool(simple)
            and models.build(name).features == features
        ),
        None,
    )


_MEAN, _STD = np.array(models.IMAGENET.mean), np.array(models.IMAGENET.std)


def to_rgb(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Converts a network for BGR images to an equivalent network for RGB images.

    SimpleBaseline and Hourglass were trained on images as read by OpenCV: blue first,
    normalized by the mean and deviation of red. Order and deviation are folded into the
    first convolution, the means into the mean of the following BatchNorm. Outputs differ
    only at the image border: the padding of the first convolution is the mean color, now
    that of the correct channel (a step of 0.35 standard deviations, 3 pixels wide).

    Args:
      variables: variables of a network whose first layers are conv1 and bn1.
    """
    leaves: dict[Any, Any] = flatten_dict(variables)
    root = ["backbone"] if "backbone" in variables["params"] else []
    kernel_at = ("params", *root, "conv1", "kernel")
    mean_at = ("batch_stats", *root, "bn1", "mean")
    kernel = np.asarray(leaves[kernel_at], np.float64)
    # Channel c of the old input is (new[2-c] std[2-c] + mean[2-c] - mean[c]) / std[c].
    constant = (kernel.sum((0, 1)) * ((_MEAN[::-1] - _MEAN) / _STD)[:, None]).sum(0)
    kernel = (kernel * (_STD[::-1] / _STD)[:, None])[:, :, ::-1]
    mean = np.asarray(leaves[mean_at], np.float64) - constant
    leaves[kernel_at] = kernel.astype(np.float32)
    leaves[mean_at] = mean.astype(np.float32)
    return unflatten_dict(leaves)
