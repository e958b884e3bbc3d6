"""The published networks in PyTorch, as functions of their state dicts: to compare with.

Written from the papers and the published names alone; nothing of pose_jax is in it. Images
[b, 3, h, w] -> heatmaps [b, k, h/4, w/4].
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def _conv(weights: dict[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    kernel = weights[f"{name}.weight"]
    bias = weights.get(f"{name}.bias")
    return F.conv2d(x, kernel, bias, stride, padding=kernel.shape[-1] // 2)


def _norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, var, scale, bias = (
        weights[f"{name}.{leaf}"]
        for leaf in ("running_mean", "running_var", "weight", "bias")
    )
    return F.batch_norm(x, mean, var, scale, bias, training=False, eps=1e-5)


def _conv_norm(weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """A Sequential of convolution and norm."""
    return _norm(weights, f"{name}.1", _conv(weights, f"{name}.0", x, stride))


def _residual(weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """ResNet's block: basic, or a bottleneck if it has three convolutions."""
    deep = f"{name}.conv3.weight" in weights
    strides = (1, stride, 1) if deep else (stride, 1)
    y = x
    for i, step in enumerate(strides, 1):
        y = _conv(weights, f"{name}.conv{i}", y, step)
        y = _norm(weights, f"{name}.bn{i}", y)
        if i < len(strides):
            y = F.relu(y)
    if f"{name}.downsample.0.weight" in weights:
        x = _conv_norm(weights, f"{name}.downsample", x, stride)
    return F.relu(x + y)


def _residuals(weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    i = 0
    while f"{name}.{i}.conv1.weight" in weights:
        x = _residual(weights, f"{name}.{i}", x, stride if i == 0 else 1)
        i += 1
    return x


def simple_baseline(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    x = F.relu(_norm(weights, "bn1", _conv(weights, "conv1", x, 2)))
    x = F.max_pool2d(x, 3, 2, padding=1)
    for i in range(1, 5):
        x = _residuals(weights, f"layer{i}", x, 1 if i == 1 else 2)
    for i in (0, 3, 6):
        kernel = weights[f"deconv_layers.{i}.weight"]
        x = F.conv_transpose2d(x, kernel, stride=2, padding=1)
        x = F.relu(_norm(weights, f"deconv_layers.{i + 1}", x))
    return _conv(weights, "final_layer", x)


def hrnet(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    for i in (1, 2):
        x = F.relu(_norm(weights, f"bn{i}", _conv(weights, f"conv{i}", x, 2)))
    branches = [_residuals(weights, "layer1", x)]
    for stage in (2, 3, 4):
        branches = _transition(weights, f"transition{stage - 1}", branches, stage)
        module = 0
        while f"stage{stage}.{module}.branches.0.0.conv1.weight" in weights:
            branches = _exchange(weights, f"stage{stage}.{module}", branches)
            module += 1
    return _conv(weights, "final_layer", branches[0])


def _transition(weights, name: str, branches: list[Tensor], count: int):
    new = []
    for i in range(count):
        if f"{name}.{i}.0.weight" in weights:  # Another width.
            x = F.relu(_conv_norm(weights, f"{name}.{i}", branches[i]))
        elif f"{name}.{i}.0.0.weight" in weights:  # A new branch, from the last.
            x = F.relu(_conv_norm(weights, f"{name}.{i}.0", branches[-1], 2))
        else:
            x = branches[i]
        new.append(x)
    return new


def _exchange(weights, name: str, branches: list[Tensor]) -> list[Tensor]:
    """One module: blocks in each branch, then sums of all at each resolution it keeps."""
    branches = [
        _residuals(weights, f"{name}.branches.{i}", x) for i, x in enumerate(branches)
    ]
    fused = []
    for to in range(len(branches)):
        other = 1 if to == 0 else 0
        if not any(
            key.startswith(f"{name}.fuse_layers.{to}.{other}.") for key in weights
        ):
            break
        total = branches[to]
        for i, x in enumerate(branches):
            layer = f"{name}.fuse_layers.{to}.{i}"
            if i > to:
                x = _conv_norm(weights, layer, x)
                total = total + F.interpolate(x, scale_factor=2 ** (i - to))
            elif i < to:
                for step in range(to - i):
                    x = x if step == 0 else F.relu(x)
                    x = _conv_norm(weights, f"{layer}.{step}", x, 2)
                total = total + x
        fused.append(F.relu(total))
    return fused


def hourglass(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    x = F.relu(_norm(weights, "bn1", _conv(weights, "conv1", x, 2)))
    x = F.max_pool2d(_pre_residual(weights, "layer1.0", x), 2)
    x = _pre_residual(weights, "layer2.0", x)
    x = _pre_residual(weights, "layer3.0", x)
    stack = 0
    while f"score.{stack}.weight" in weights:
        levels = {
            int(key.split(".")[3])
            for key in weights
            if key.startswith(f"hg.{stack}.hg.")
        }
        y = _level(weights, f"hg.{stack}.hg", max(levels), x)
        y = _pre_residual(weights, f"res.{stack}.0", y)
        y = F.relu(_conv_norm(weights, f"fc.{stack}", y))
        heatmaps = _conv(weights, f"score.{stack}", y)
        if f"fc_.{stack}.weight" in weights:
            x = x + _conv(weights, f"fc_.{stack}", y)
            x = x + _conv(weights, f"score_.{stack}", heatmaps)
        stack += 1
    return heatmaps


def _pre_residual(weights, name: str, x: Tensor) -> Tensor:
    """A bottleneck with norm and ReLU before each convolution."""
    y = x
    for i in (1, 2, 3):
        y = F.relu(_norm(weights, f"{name}.bn{i}", y))
        y = _conv(weights, f"{name}.conv{i}", y)
    if f"{name}.downsample.0.weight" in weights:
        x = _conv(weights, f"{name}.downsample.0", x)
    return x + y


def _level(weights, name: str, level: int, x: Tensor) -> Tensor:
    stays = _pre_residual(weights, f"{name}.{level}.0.0", x)
    x = _pre_residual(weights, f"{name}.{level}.1.0", F.max_pool2d(x, 2))
    if level > 0:
        x = _level(weights, name, level - 1, x)
    else:
        x = _pre_residual(weights, f"{name}.{level}.3.0", x)
    x = _pre_residual(weights, f"{name}.{level}.2.0", x)
    return stays + F.interpolate(x, size=stays.shape[2:])


NETWORKS = {
    "simple_baseline": simple_baseline,
    "hrnet": hrnet,
    "hourglass": hourglass,
}


def heatmaps(name: str, arrays, images):
    """The network's heatmaps as a NumPy array [b, h, w, k], of images [b, h, w, 3]."""
    weights = {key: torch.tensor(array) for key, array in arrays.items()}
    network = NETWORKS[name.rsplit("_", 1)[0]]
    with torch.no_grad():
        return (
            network(weights, torch.tensor(images).permute(0, 3, 1, 2))
            .permute(0, 2, 3, 1)
            .numpy()
        )
