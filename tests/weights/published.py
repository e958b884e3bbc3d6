"""The published networks' state dicts, for tests: names and shapes from the structure of
the networks, values by a formula that is the same everywhere and always."""

import numpy as np

# Bottlenecks or basic blocks in each stage.
RESNETS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _conv(name, out, channels, side, bias=False, transposed=False):
    shape = (channels, out) if transposed else (out, channels)
    shapes = {f"{name}.weight": (*shape, side, side)}
    return {**shapes, f"{name}.bias": (out,)} if bias else shapes


def _norm(name, channels):
    leaves = ("weight", "bias", "running_mean", "running_var")
    shapes = {f"{name}.{leaf}": (channels,) for leaf in leaves}
    return {**shapes, f"{name}.num_batches_tracked": ()}


def _conv_norm(name, out, channels, side):
    return {**_conv(f"{name}.0", out, channels, side), **_norm(f"{name}.1", out)}


def _blocks(name, count, width, channels, deep, stride=1):
    """Residual blocks of a stage or a branch, and their output's channels."""
    shapes, out = {}, 4 * width if deep else width
    for i in range(count):
        block = f"{name}.{i}"
        sides = (1, 3, 1) if deep else (3, 3)
        ins = (channels, width, width)
        outs = (width, width, out) if deep else (width, out)
        for j, side in enumerate(sides):
            shapes |= _conv(f"{block}.conv{j + 1}", outs[j], ins[j], side)
            shapes |= _norm(f"{block}.bn{j + 1}", outs[j])
        if i == 0 and (stride != 1 or channels != out):
            shapes |= _conv_norm(f"{block}.downsample", out, channels, 1)
        channels = out
    return shapes, channels


def resnet(depth, width=64, classes=1000):
    """torchvision's; without the classifier if classes is 0."""
    shapes, channels = {**_conv("conv1", width, 3, 7), **_norm("bn1", width)}, width
    for i, count in enumerate(RESNETS[depth]):
        blocks, channels = _blocks(
            f"layer{i + 1}",
            count,
            width * 2**i,
            channels,
            depth > 18,
            1 if i == 0 else 2,
        )
        shapes |= blocks
    if classes:
        shapes |= {"fc.weight": (classes, channels), "fc.bias": (classes,)}
    return shapes


def simple_baseline(depth, k=17, width=64, deconv_features=256):
    shapes = resnet(depth, width, classes=0)
    channels = shapes[list(shapes)[-2]][0]
    for i in (0, 3, 6):
        name = f"deconv_layers.{i}"
        shapes |= _conv(name, deconv_features, channels, 4, transposed=True)
        shapes |= _norm(f"deconv_layers.{i + 1}", deconv_features)
        channels = deconv_features
    return shapes | _conv("final_layer", k, channels, 1, bias=True)


def hrnet(width, k=17, stem_width=64, modules=(1, 4, 3), blocks=4):
    shapes, channels = {}, 3
    for i in (1, 2):
        shapes |= _conv(f"conv{i}", stem_width, channels, 3)
        shapes |= _norm(f"bn{i}", stem_width)
        channels = stem_width
    layer, channels = _blocks("layer1", blocks, stem_width, channels, deep=True)
    shapes, before = shapes | layer, [channels]
    for stage, count in zip((2, 3, 4), modules, strict=True):
        widths = [width * 2**i for i in range(stage)]
        for i, out in enumerate(widths):
            name = f"transition{stage - 1}.{i}"
            if i >= len(before):
                shapes |= _conv_norm(f"{name}.0", out, before[-1], 3)
            elif out != before[i]:
                shapes |= _conv_norm(name, out, before[i], 3)
        for module in range(count):
            last = stage == 4 and module == count - 1
            name = f"stage{stage}.{module}"
            for i, channels in enumerate(widths):
                branch = f"{name}.branches.{i}"
                shapes |= _blocks(branch, blocks, channels, channels, deep=False)[0]
            for to in range(1 if last else stage):
                for i in range(stage):
                    layer = f"{name}.fuse_layers.{to}.{i}"
                    if i > to:
                        shapes |= _conv_norm(layer, widths[to], widths[i], 1)
                    for step in range(to - i):
                        out = widths[to if step == to - i - 1 else i]
                        shapes |= _conv_norm(f"{layer}.{step}", out, widths[i], 3)
        before = widths
    return shapes | _conv("final_layer", k, width, 1, bias=True)


def _pre_block(name, out, channels):
    width, shapes = out // 2, {}
    ins, outs = (channels, width, width), (width, width, out)
    for j, side in enumerate((1, 3, 1)):
        shapes |= _norm(f"{name}.bn{j + 1}", ins[j])
        shapes |= _conv(f"{name}.conv{j + 1}", outs[j], ins[j], side, bias=True)
    if channels != out:
        shapes |= _conv(f"{name}.downsample.0", out, channels, 1, bias=True)
    return shapes


def hourglass(stacks, k=17, width=256, depth=4):
    first = width // 4
    shapes = {**_conv("conv1", first, 3, 7, bias=True), **_norm("bn1", first)}
    for i, (out, channels) in enumerate(
        [(width // 2, first), (width, width // 2), (width, width)]
    ):
        shapes |= _pre_block(f"layer{i + 1}.0", out, channels)
    for i in range(stacks):
        for level in range(depth):
            for j in range(4 if level == 0 else 3):
                shapes |= _pre_block(f"hg.{i}.hg.{level}.{j}.0", width, width)
        shapes |= _pre_block(f"res.{i}.0", width, width)
        shapes |= _conv(f"fc.{i}.0", width, width, 1, bias=True)
        shapes |= _norm(f"fc.{i}.1", width)
        shapes |= _conv(f"score.{i}", k, width, 1, bias=True)
        if i < stacks - 1:
            shapes |= _conv(f"fc_.{i}", width, width, 1, bias=True)
            shapes |= _conv(f"score_.{i}", width, k, 1, bias=True)
    return shapes


def vitpose(features, layers, k=17, simple=False, tokens=192, deconv_features=256):
    """In the names of transformers."""

    def linear(name, out, channels):
        return {f"{name}.weight": (out, channels), f"{name}.bias": (out,)}

    def norm(name):
        return {f"{name}.weight": (features,), f"{name}.bias": (features,)}

    shapes = {
        "backbone.embeddings.position_embeddings": (1, 1 + tokens, features),
        **_conv(
            "backbone.embeddings.patch_embeddings.projection",
            features,
            3,
            16,
            bias=True,
        ),
    }
    for i in range(layers):
        layer = f"backbone.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            shapes |= linear(f"{layer}.attention.attention.{part}", features, features)
        shapes |= linear(f"{layer}.attention.output.dense", features, features)
        shapes |= linear(f"{layer}.mlp.fc1", 4 * features, features)
        shapes |= linear(f"{layer}.mlp.fc2", features, 4 * features)
        shapes |= norm(f"{layer}.layernorm_before") | norm(f"{layer}.layernorm_after")
    shapes |= norm("backbone.layernorm")
    if simple:
        return shapes | _conv("head.conv", k, features, 3, bias=True)
    channels = features
    for i in (1, 2):
        shapes |= _conv(
            f"head.deconv{i}", deconv_features, channels, 4, transposed=True
        )
        shapes |= _norm(f"head.batchnorm{i}", deconv_features)
        channels = deconv_features
    return shapes | _conv("head.conv", k, channels, 1, bias=True)


LITE0 = (  # Kernel, expansion and channels of every block.
    (3, 1, 16), *[(3, 6, 24)] * 2, *[(5, 6, 40)] * 2, *[(3, 6, 80)] * 3,
    *[(5, 6, 112)] * 3, *[(5, 6, 192)] * 4, (3, 6, 320),
)  # fmt: skip


def efficientnet_lite0():
    shapes, channels = {**_conv("_conv_stem", 32, 3, 3), **_norm("_bn0", 32)}, 32
    for i, (kernel, expansion, out) in enumerate(LITE0):
        block, wide = f"_blocks.{i}", expansion * channels
        if expansion > 1:
            shapes |= _conv(f"{block}._expand_conv", wide, channels, 1)
            shapes |= _norm(f"{block}._bn0", wide)
        shapes |= _conv(f"{block}._depthwise_conv", wide, 1, kernel)
        shapes |= _norm(f"{block}._bn1", wide)
        shapes |= _conv(f"{block}._project_conv", out, wide, 1)
        shapes |= _norm(f"{block}._bn2", out)
        channels = out
    shapes |= {**_conv("_conv_head", 1280, channels, 1), **_norm("_bn1", 1280)}
    return shapes | {"_fc.weight": (1000, 1280), "_fc.bias": (1000,)}


def noise(shape, seed):
    """Numbers in [0, 1) that look random: a hash of their position, exact in integers."""
    x = np.arange(np.prod(shape, dtype=np.int64), dtype=np.uint64)
    x = x + np.uint64(seed * 1_000_003 + 1)
    for factor in (0x45D9F3B, 0x119DE1F3):
        x = ((x ^ (x >> np.uint64(16))) * np.uint64(factor)) & np.uint64(0xFFFFFFFF)
    x = x ^ (x >> np.uint64(16))
    return (x.astype(np.float64) / 2**32).reshape(shape)


def values(shapes):
    """A state dict of these shapes whose network neither explodes nor fades."""
    state_dict = {}
    for seed, (name, shape) in enumerate(shapes.items()):
        uniform = noise(shape, seed)
        if name.endswith("num_batches_tracked"):
            state_dict[name] = np.array(1000 + seed)
            continue
        if len(shape) == 2 or "position" in name:
            uniform = (uniform - 0.5) * np.sqrt(24 / shape[-1])
        elif len(shape) == 4:
            fan = np.prod(shape[1:])
            if shape[-1] == 4:  # Transposed: four of its taps meet in a pixel.
                fan = 4 * shape[0]
            uniform = (uniform - 0.5) * np.sqrt(24 / fan)
        elif name.endswith(("running_mean", "bias")):
            uniform = 0.4 * (uniform - 0.5)
        else:
            uniform = 0.5 + uniform
            if name.endswith("weight"):
                uniform = uniform / 2
        state_dict[name] = uniform.astype(np.float32)
    return state_dict


def images(size, seed=0):
    """Normalised images [b, h, w, 3]."""
    return (4 * noise(size, 10_000 + seed) - 2).astype(np.float32)
