"""Published PyTorch weights: their names and layouts to variables here, and back.

The networks here name their parameters as the published checkpoints do, a level of the
tree for every dot, so that the mapping is a rule (`_published_name`) and no table:

    SimpleBaseline   layer1.0.bn1.weight      params/backbone/layer1/0/bn1/scale
                     deconv_layers.0.weight   params/deconv_layers/0/kernel
    HRNet            final_layer.bias         params/head/bias
    Hourglass        score.3.weight           params/stack_3/head/score/kernel
    all              bn1.running_var          batch_stats/.../bn1/var

ResNetRegression and MultiPose have no published weights, but a published start:
torchvision's ResNet, which is below backbone as SimpleBaseline's is.

Convolutions are [out, in, h, w] there and [h, w, in, out] here; transposed ones are
[in, out, h, w] there and [h, w, in, out] here, flipped in both spatial axes. DarkPose has
the networks of HRNet, SimpleBaseline and Hourglass. Caffe-style SimpleBaselines (the stride
on a bottleneck's first convolution) have the same names and shapes: nothing in a file tells
them apart, and they are not what is built here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from pose_jax import keypoints, methods, models
from pose_jax.errors import ConfigError, InputError
from pose_jax.models import resnet
from pose_jax.runs import states
from pose_jax.trees import TreePath, flatten
from pose_jax.weights import torch_file
from pose_jax.weights.catalogue import CATALOGUE, Published

_LEAVES = {
    "kernel": "weight", "scale": "weight", "bias": "bias",
    "mean": "running_mean", "var": "running_var",
}  # fmt: skip
_COUNTER = "num_batches_tracked"  # Of a BatchNorm; unused, as momentum is constant.
_CLASSIFIER = re.compile(
    # torchvision's ResNet; HRNet's heads, and what its last module adds for them.
    r"fc\.(weight|bias)|(incre_modules|downsamp_modules|final_layer|classifier)\..+"
    r"|stage4\.\d+\.fuse_layers\.[1-3]\..+"
)
"""What a network for ImageNet has beside the backbone of one for poses."""


def from_torch(
    state_dict: Mapping[str, Any], name: str, *, backbone: bool = False, **options: Any
) -> dict[str, Any]:
    """Turns a published state dict into variables.

    Every tensor must be used and every variable found, with the right shape. Ignored are
    the `num_batches_tracked` of BatchNorms, and with `backbone` the classifier.

    Args:
      state_dict: arrays under the published PyTorch names.
      name: of the network, for `models.build`; the number of keypoints is that of the
        state dict.
      backbone: the state dict is torchvision's ResNet or HRNet's network for ImageNet;
        what classifies stays behind, and what is only of the network for poses (head,
        deconvolutions) does not come back.
      **options: for `models.build`, where they differ from the published network.

    Returns:
      {"params", "batch_stats"}, float32 NumPy arrays, for `models.build(...).apply`.

    Raises:
      InputError: a tensor is missing, unknown, of another shape, or not finite numbers.
      ConfigError: `name` has no published weights, with `backbone` no backbone, or
        without it nothing else.
    """
    arrays = {key: np.asarray(value) for key, value in state_dict.items()}
    expected = _expected(name, _num_keypoints(arrays, name), backbone, options)
    arrays = _needed(arrays, expected, backbone)
    _check(arrays, expected, name + " --backbone" * backbone)
    return unflatten_dict(
        {path.names: _to_ours(arrays[key], path) for key, path in expected.items()}
    )


def to_torch(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of `from_torch`, without counters: for `load_state_dict` in PyTorch."""
    found = {}
    for names, leaf in flatten(variables).items():
        path = _Path(names, np.shape(leaf))
        array = np.asarray(leaf)
        if path.flipped:
            array = array[::-1, ::-1]
        found[_published_name(names)] = np.ascontiguousarray(array.transpose(path.axes))
    return found


# -------------------------------------------------------------------- names and layouts


@dataclasses.dataclass(frozen=True)
class _Path:
    """A variable here, and how its array lies in PyTorch."""

    names: TreePath
    shape: tuple[int, ...]

    @property
    def flipped(self) -> bool:
        """Whether it is the kernel of a transposed convolution."""
        return len(self.shape) == 4 and "deconv_layers" in self.names

    @property
    def axes(self) -> tuple[int, ...]:
        """PyTorch's axes as numbers of ours: transpose(axes) goes there."""
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
    """The name in PyTorch of a variable: ("params", "head", "bias") is final_layer.bias."""
    _, *modules, leaf = path
    if modules[0] == "backbone":
        modules = modules[1:]
    elif modules[0] == "head":
        modules = ["final_layer"]
    elif modules[0].startswith("stack_"):
        # There, one list for each kind of layer has those of all stacks.
        stack, kind, *rest = [module for module in modules if module != "head"]
        inner = ["hg"] if kind == "hg" else []
        modules = [kind, stack.removeprefix("stack_"), *inner, *rest]
    return ".".join([*modules, _LEAVES[leaf]])


def _published(name: str) -> Published:
    """What is published of a network; refuses one of which nothing is."""
    if name not in CATALOGUE:
        models.entry(name)  # Says what is like an unknown name.
        known = [known for known, published in CATALOGUE.items() if published.whole]
        raise ConfigError(
            f"model {name!r} has no published weights; there are some of "
            f"{', '.join(known)}."
        )
    return CATALOGUE[name]


def _expected(
    name: str, num_keypoints: int, backbone: bool, options: Mapping[str, Any]
) -> dict[str, _Path]:
    """The variables of a network by their published names."""
    published = _published(name)
    if not published.whole and not backbone:
        raise ConfigError(
            f"model {name!r} was never published whole; for a start from torchvision's "
            "ResNet say --backbone."
        )
    model = models.build(name, num_keypoints, **options)
    if backbone and not published.backbone:
        raise ConfigError(
            f"model {name!r} has no backbone that learns ImageNet; simple_baseline_50, "
            "hrnet_w32 and their like have."
        )
    # No variable's shape depends on the size, but not all networks take all sizes.
    side, _, _ = published.sides
    shapes = jax.eval_shape(
        lambda key: model.init(key, jnp.zeros((1, side, side, 3)), train=True),
        jax.random.key(0),
    )
    paths = [_Path(path, leaf.shape) for path, leaf in flatten(shapes).items()]
    if backbone:
        roots = {path.names[1] for path in paths}
        wanted = {"backbone"} if "backbone" in roots else roots - {"head"}
        paths = [path for path in paths if path.names[1] in wanted]
    return {_published_name(path.names): path for path in paths}


def _num_keypoints(arrays: Mapping[str, Any], name: str) -> int:
    """Channels of the last layer; 17 where there is none, which `_check` finds out."""
    last = _published(name).last
    shape = np.shape(arrays[last]) if last in arrays else ()
    return shape[0] if len(shape) == 4 and shape[0] else 17


def _needed(
    arrays: Mapping[str, np.ndarray], expected: Mapping[str, _Path], backbone: bool
) -> dict[str, np.ndarray]:
    """All tensors but counters of known norms, and the classifier."""

    def ignored(key: str) -> bool:
        if key.endswith(_COUNTER) and key.replace(_COUNTER, "running_mean") in expected:
            return True
        return backbone and key not in expected and bool(_CLASSIFIER.fullmatch(key))

    return {key: array for key, array in arrays.items() if not ignored(key)}


# ----------------------------------------------------------------------------- mistakes


def _check(
    arrays: Mapping[str, np.ndarray], expected: Mapping[str, _Path], asked: str
) -> None:
    """Raises an InputError that says all that is wrong; `asked` is as after --model."""
    shapes = {key: path.published_shape for key, path in expected.items()}
    there = {key: array.shape for key, array in arrays.items()}
    mistakes = {
        "missing": [f"{k} {list(shapes[k])}" for k in shapes if k not in there],
        "unknown": [f"{k} {list(there[k])}" for k in there if k not in shapes],
        "of another shape": [
            f"{key} {list(there[key])} where {list(shape)} is needed"
            for key, shape in shapes.items()
            if there.get(key, shape) != shape
        ],
    }
    parts = [f"{len(v)} {word} ({_some(v)})" for word, v in mistakes.items() if v]
    if parts:
        raise InputError(
            f"not the tensors of {asked}: {', '.join(parts)}. {_advice(arrays, asked)}"
        )
    wrong = [
        f"{key} ({array.dtype})"
        for key, array in arrays.items()
        if not jnp.issubdtype(array.dtype, jnp.floating)
    ]
    if wrong:
        raise InputError(
            f"{len(wrong)} tensors are no floats ({_some(wrong)}): save the network in "
            "float32."
        )
    with np.errstate(over="ignore"):  # What float32 cannot hold is infinite then.
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
    """Which options the checkpoint most likely needs, by its marks."""
    stacks = sum(key.startswith("score.") and key.endswith(".weight") for key in arrays)
    blocks = {key.split(".")[1] for key in arrays if key.startswith("layer3.")}
    deep = "layer1.0.conv3.weight" in arrays
    likely = None
    if "transition1.0.0.weight" in arrays:
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
        return "Give the checkpoint of this network, whole."
    return f"They look like those of --model {likely}."


# --------------------------------------------------------------------- a run from a file

_SPLITS = {"coco": "val2017", "mpii": "valid"}
"""The keypoint sets of published weights, and what they were measured on."""

# ImageNet's, as the methods normalise.
_MEAN = np.array([0.485, 0.456, 0.406])
_STD = np.array([0.229, 0.224, 0.225])


def to_rgb(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Makes of a network for BGR images the same one for RGB images.

    SimpleBaseline and Hourglass were trained on images as OpenCV reads them: blue first,
    normalised by the mean and deviation of red. The first convolution takes up order and
    deviation, the mean of the BatchNorm after it the means. The same everywhere but at the
    border of the image: the padding of the first convolution is the mean colour, which is
    now blue's for blue (a step of 0.35 standard deviations, 3 pixels wide).

    Args:
      variables: of a network whose first layers are conv1 and bn1.
    """
    leaves = flatten_dict(variables)
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


def convert(
    file: Path | str,
    model: str,
    out: Path | str,
    *,
    backbone: bool = False,
    keypoint_set: str | None = None,
    input_size: tuple[int, int] | None = None,
    sigma: float | None = None,
    alignment: Literal["stride", "aligned"] | None = None,
    channels: Literal["rgb", "bgr"] | None = None,
    options: Mapping[str, Any] | None = None,
) -> str:
    """Writes OUT/model from a published checkpoint; nothing is written if anything fails.

    What a checkpoint does not say of itself has the published defaults.

    Args:
      file: .safetensors or torch.save's; see `torch_file`.
      model: the network's name.
      out: a run directory that does not exist yet, or is empty.
      backbone: `file` is torchvision's ResNet or HRNet's network for ImageNet; OUT is
        only good for `train.init_from`.
      keypoint_set: "coco" or "mpii"; None: the one of as many keypoints.
      input_size: (width, height); None: 192x256 for COCO, 256x256 for MPII, 96x128 for
        Hourglass, 257x353 for MultiPose.
      sigma: of the targets, heatmap pixels; None: 1 at 96x128 (but 2 for hourglass_8),
        3 at 288x384, else 2. As `alignment`, of networks that give heatmaps alone.
      alignment: "stride": HRNet's and SimpleBaseline's own weights, decoded by the
        quarter shift, flipped with "shift". "aligned": DarkPose's, decoded by "dark",
        flipped "plain". None: "stride", for Hourglass "aligned".
      channels: order the network was trained with, see `to_rgb`; None: "bgr", for HRNet
        and a backbone "rgb".
      options: of the network, where it is not the published one.

    Returns:
      What was done, in lines.

    Raises:
      InputError: `file` cannot be used.
      ConfigError: an option is wrong, or `out` is taken or cannot be made.
    """
    file, out = Path(file), Path(out)
    options = dict(options or {})
    _check_free(out)
    state_dict = torch_file.read(file)
    try:
        variables = from_torch(state_dict, model, backbone=backbone, **options)
    except ConfigError:
        raise
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    k = None if backbone else _num_keypoints(state_dict, model)
    chosen = _keypoint_set(keypoint_set, k)
    size = _input_size(model, input_size, chosen.name)
    method = _method(model, options, size, sigma, alignment)
    channels = channels or ("rgb" if backbone else _published(model).channels)
    is_detector = models.entry(model).outputs == "boxes"
    if channels == "bgr":
        variables = to_rgb(variables)
    source = f"published weights, {file.name}"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest = {
        "method": method,
        "keypoints": None if is_detector else chosen.to_json(),
        "input": {"batch_size": 32},
        # Where the user keeps the data is not known: root is for `eval --data` to say.
        "data": {"name": chosen.name, "root": "", "split": _SPLITS[chosen.name]},
        "evaluation": {},
        "scores": {},
        "train_data": {"name": source, "fingerprint": digest[:16]},
        "converted": {
            "file": file.name,
            "sha256": digest,
            "channels": channels,
            "part": "backbone" if backbone else "whole",
        },
        "versions": states.VERSIONS,
    }
    phase = "detector" if is_detector else "pose"
    states.save_model(out / "model", {phase: variables}, manifest)
    return _said(file, out, state_dict, manifest, len(flatten(variables)))


def _check_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists already: give another --out, or delete it.")
    above = next(path for path in out.absolute().parents if path.exists())
    if not above.is_dir():
        raise ConfigError(
            f"{out} cannot be made: {above} is a file; give another --out."
        )


def _input_size(
    model: str, asked: tuple[int, int] | None, keypoint_set: str
) -> tuple[int, int]:
    """The size asked for, or the published one, if the network takes it."""
    published = _published(model)
    if models.entry(model).outputs == "boxes" and asked is not None:
        raise ConfigError(
            f"--input-size: {model} is a detector, whose input has the size of an image; "
            "leave it out."
        )
    usual = (256, 256) if keypoint_set == "mpii" else (192, 256)
    size = asked or published.input_size or usual
    if not published.fits(size):
        smallest, divisor, remainder = published.sides
        plus = f" plus {remainder}" if remainder else ""
        raise ConfigError(
            f"--input-size must be multiples of {divisor}{plus}, at least {smallest}, "
            f"for {model}; got {size[0]}x{size[1]}."
        )
    return size


def _method(
    model: str,
    options: Mapping[str, Any],
    input_size: tuple[int, int],
    sigma: float | None,
    alignment: Literal["stride", "aligned"] | None,
) -> dict[str, Any]:
    """The config section of the method that reads the network's outputs."""
    published, outputs = _published(model), models.entry(model).outputs
    section = {
        "name": methods.for_network(model),
        "model": {"name": model, "options": options},
        **published.settings,
    }
    if outputs != "boxes":
        section["input_size"] = list(input_size)
    if outputs != "heatmaps":
        if sigma is not None or alignment is not None:
            raise ConfigError(
                "--sigma and --alignment say how Gaussian heatmaps were made, which "
                f"{model} has not: leave them out."
            )
        return section
    if sigma is None:
        sigma = published.sigmas.get(input_size, 2.0)
    elif not 0 < sigma < float("inf"):
        raise ConfigError(f"--sigma must be positive; got {sigma}.")
    aligned = (alignment or published.alignment) == "aligned"
    return {
        **section,
        "sigma": float(sigma),
        "encoding": "unbiased" if aligned else "biased",
        "decoder": "dark" if aligned else "shift",
        "alignment": "aligned" if aligned else "stride",
        "flip_test": "plain" if aligned else "shift",
    }


def _keypoint_set(name: str | None, k: int | None) -> keypoints.KeypointSet:
    """The set asked for, or the one of k keypoints; k is None for a backbone."""
    sizes = {known: len(keypoints.SETS[known]) for known in _SPLITS}
    if name is None:
        by_size = {size: known for known, size in sizes.items()}
        name = "coco" if k is None else by_size.get(k)
    if name not in sizes or k not in (None, sizes[name]):
        known = ", ".join(f"{known} with {size}" for known, size in sizes.items())
        raise ConfigError(
            f"--keypoints {name or 'without a name'}: the checkpoint has {k} keypoints; "
            f"there are {known}."
        )
    return keypoints.SETS[name]


def _said(file: Path, out: Path, state_dict, manifest, used: int) -> str:
    method, converted = manifest["method"], manifest["converted"]
    counters = sum(key.endswith(_COUNTER) for key in state_dict)
    lines = [
        f"{file}: {used} tensors of {method['model']['name']}; ignored: "
        f"{counters} counters ({_COUNTER})"
    ]
    if converted["part"] == "backbone":
        tensors = len(state_dict) - counters - used
        lines[0] += f", {tensors} tensors of the classifier" if tensors else ""
        lines += [
            "a backbone alone: what is above it starts new",
            f"to start from it: --config.train.init_from={out}",
        ]
    else:
        width, height = method["input_size"]
        lines += [
            f"keypoints {manifest['keypoints']['name']}, input {height}x{width}, sigma "
            f"{method['sigma']:g}, trained on {converted['channels']}",
            f"alignment {method['alignment']}, decoder {method['decoder']}, flip test "
            f"{method['flip_test']}",
            f"to measure it: pose-jax eval --run {out} --data FOLDER",
        ]
    return "\n".join([*lines, f"model: {out / 'model'}"])
