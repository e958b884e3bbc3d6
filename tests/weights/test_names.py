"""Names of other projects: the same values at the same places, whosever names they have."""

import re

import jax
import numpy as np
import pytest

from pose_jax import models
from pose_jax.errors import InputError
from pose_jax.trees import flatten
from pose_jax.weights import mapping, names
from tests.weights import published

SIZES = {"small": (384, 12), "base": (768, 12), "large": (1024, 24)}
TINY = {"layers": 1, "grid": (4, 3)}  # Of vitpose_small.
IMAGES = published.images((1, 64, 48, 3))


def _tiny(simple):
    shapes = published.vitpose(384, 1, k=3, simple=simple, tokens=12)
    return published.values(shapes)


@pytest.mark.parametrize(
    "size, simple", [("small", False), ("base", True), ("large", False)]
)
def test_every_name_and_shape_of_transformers_is_expected_and_no_other(size, simple):
    shapes = published.vitpose(*SIZES[size], simple=simple)
    name = f"vitpose_{size}{'_simple' * simple}"
    expected = mapping._expected(name, 17, False, {})
    arrays = {
        key: np.broadcast_to(np.float32(0), shape)
        for key, shape in shapes.items()
        if not key.endswith("num_batches_tracked")
    }
    found = {key: array.shape for key, array in names.renamed(arrays).items()}
    assert found == {key: path.published_shape for key, path in expected.items()}


# Of transformers 5.24 and PyTorch 2.13 on a CPU: deviation, some heatmap values at (y, x).
ACTIVATIONS = {
    False: (
        0.17577,
        {
            (0, 0): (-0.1718214, -0.09819476, -0.02081633),
            (7, 5): (-0.1155723, -0.3012479, 0.1011276),
            (15, 11): (-0.1650775, -0.2042473, -0.01328242),
        },
    ),
    True: (
        0.2970212,
        {
            (0, 0): (-0.5968203, 0.1369119, -0.008410718),
            (7, 5): (0.1002784, -0.1450363, -0.4006784),
            (15, 11): (-0.1734131, 0.09115769, 0.4380244),
        },
    ),
}


@pytest.mark.parametrize("simple", [False, True])
def test_heatmaps_are_those_that_transformers_gave(simple):
    name = "vitpose_small" + "_simple" * simple
    variables = mapping.from_torch(_tiny(simple), name, **TINY)
    model = models.build(name, 3, **TINY)
    maps = np.asarray(jax.jit(model.apply)(variables, IMAGES))
    deviation, points = ACTIVATIONS[simple]
    assert maps.std() == pytest.approx(deviation, rel=1e-4)
    for (y, x), expected in points.items():
        np.testing.assert_allclose(
            maps[0, y, x], expected, rtol=0, atol=1e-4 * deviation
        )


@pytest.mark.slow
@pytest.mark.parametrize("simple", [False, True])
def test_heatmaps_agree_with_transformers_in_the_published_size(simple):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed"
    )
    backbone = transformers.VitPoseBackboneConfig(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=12, out_indices=[12]
    )
    network = transformers.VitPoseForPoseEstimation(
        transformers.VitPoseConfig(
            backbone_config=backbone, use_simple_decoder=simple, num_labels=17
        )
    ).eval()
    state_dict = published.values(published.vitpose(384, 12, simple=simple))
    network.load_state_dict({k: torch.from_numpy(v) for k, v in state_dict.items()})
    images = published.images((1, 256, 192, 3), seed=1)
    with torch.no_grad():
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2))
        expected = network(pixels).heatmaps.numpy().transpose(0, 2, 3, 1)
    name = "vitpose_small" + "_simple" * simple
    variables = mapping.from_torch(state_dict, name)
    maps = np.asarray(jax.jit(models.build(name, 17).apply)(variables, images))
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-4 * expected.std())


# (transformers' name, mmpose 1.x's, the authors' of 0.x)
_OTHERS = [
    ("embeddings.position_embeddings", "pos_embed", "pos_embed"),
    ("embeddings.patch_embeddings.projection", "patch_embed.projection",
     "patch_embed.proj"),
    (r"encoder.layer.(\d+).layernorm_before", r"layers.\1.ln1", r"blocks.\1.norm1"),
    (r"encoder.layer.(\d+).layernorm_after", r"layers.\1.ln2", r"blocks.\1.norm2"),
    (r"encoder.layer.(\d+).attention.output.dense", r"layers.\1.attn.proj",
     r"blocks.\1.attn.proj"),
    (r"encoder.layer.(\d+).mlp.fc1", r"layers.\1.ffn.layers.0.0", r"blocks.\1.mlp.fc1"),
    (r"encoder.layer.(\d+).mlp.fc2", r"layers.\1.ffn.layers.1", r"blocks.\1.mlp.fc2"),
    (r"backbone.layernorm", "backbone.ln1", "backbone.last_norm"),
    ("head.deconv1", "head.deconv_layers.0", "keypoint_head.deconv_layers.0"),
    ("head.batchnorm1", "head.deconv_layers.1", "keypoint_head.deconv_layers.1"),
    ("head.deconv2", "head.deconv_layers.3", "keypoint_head.deconv_layers.3"),
    ("head.batchnorm2", "head.deconv_layers.4", "keypoint_head.deconv_layers.4"),
    ("head.conv", "head.final_layer", "keypoint_head.final_layer"),
]  # fmt: skip


def _as_mmpose(state_dict, version):
    """In mmpose's names, with queries, keys and values in one tensor."""
    found = {}
    for name, array in state_dict.items():
        for ours, *theirs in _OTHERS:
            name = re.sub(rf"(?:^|(?<=\.)){ours}(?=\.|$)", theirs[version], name)
        part = re.fullmatch(
            r"backbone\.encoder\.(layer\.\d+)\.attention\.attention\.(\w+)\.(\w+)", name
        )
        if part:
            layer = part[1].replace("layer", ("layers", "blocks")[version])
            name = f"backbone.{layer}.attn.qkv.{part[3]}"
            array = np.concatenate([found[name], array]) if name in found else array
        found[name] = array
    return found


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("simple", [False, True])
def test_mmpose_s_names_of_vitpose_mean_the_same(simple, version):
    state_dict = _tiny(simple)
    theirs = _as_mmpose(state_dict, version)
    assert not any("encoder" in name for name in theirs)
    name = "vitpose_small" + "_simple" * simple
    expected = mapping.from_torch(state_dict, name, **TINY)
    found = mapping.from_torch(theirs, name, **TINY)
    assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))
    # Without a class token, there are positions of the patches alone.
    positions = theirs["backbone.pos_embed"]
    theirs["backbone.pos_embed"] = positions[:, 1:] + positions[:, :1]
    moved = mapping.from_torch(theirs, name, **TINY)
    moved = moved["params"]["backbone"]["embeddings"]["position_embeddings"]
    assert moved.shape == positions.shape and not moved[0, 0].any()
    np.testing.assert_array_equal(moved[:, 1:], positions[:, 1:] + positions[:, :1])


@pytest.mark.parametrize("head", ["head.", "keypoint_head."])
def test_mmpose_s_prefixes_are_removed(head):
    shapes = published.simple_baseline(18, 3, width=8, deconv_features=8)
    own = published.values(shapes)
    theirs = {
        (head if key.startswith(("deconv", "final")) else "backbone.") + key: array
        for key, array in own.items()
    }
    theirs[f"{head}loss_module.target"] = np.zeros(1, np.float32)
    options = {"width": 8, "deconv_features": 8}
    found, expected = (
        mapping.from_torch(arrays, "simple_baseline_18", **options)
        for arrays in (theirs, own)
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))
    assert mapping.num_keypoints(theirs, "simple_baseline_18") == 3
    assert names.project(theirs) == "mmpose" and names.project(own) is None


# Of efficientnet-lite-pytorch 0.1 and PyTorch 2.13 on a CPU.
LITE0_ACTIVATIONS = (0.1494449, (-0.05514256, 0.1878329, 0.2595573, 0.2024801))


def test_features_of_efficientnet_lite0_are_those_of_its_package():
    state_dict = published.values(published.efficientnet_lite0())
    variables = mapping.from_torch(state_dict, "efficientnet_lite0", backbone=True)
    model = models.build("efficientnet_lite0", 3)

    def features(variables, images):
        kept = lambda module, _: module.name == "backbone"
        init = model.init(jax.random.key(0), images)
        merged = {part: {**init[part], **tree} for part, tree in variables.items()}
        _, state = model.apply(merged, images, capture_intermediates=kept)
        return state["intermediates"]["backbone"]["__call__"][0]

    found = np.asarray(jax.jit(features)(variables, published.images((1, 64, 32, 3))))
    assert found.shape == (1, 2, 1, 320)
    deviation, values = LITE0_ACTIVATIONS
    assert found.std() == pytest.approx(deviation, rel=1e-4)
    np.testing.assert_allclose(
        found[0, 1, 0, :4], values, rtol=0, atol=1e-4 * deviation
    )


def test_the_whole_of_efficientnet_lite0_s_backbone_is_used():
    shapes = published.efficientnet_lite0()
    expected = mapping._expected("efficientnet_lite0", 17, True, {})
    used = {key.replace("_", "", 1).replace("._", ".") for key in shapes}
    unused = {key for key in used - expected.keys() if "num_batches" not in key}
    assert expected.keys() <= used
    assert {key.split(".")[0] for key in unused} == {"conv_head", "bn1", "fc"}
    assert len(shapes) == 296


@pytest.mark.parametrize(
    "key, words",
    [
        ("backbone.body.conv1.weight", "torchvision's Faster R-CNN"),
        ("backbone.bottom_up.stem.conv1.weight", "detectron2's R-CNN"),
        ("roi_heads.keypoint_head.0.weight", "torchvision's Keypoint R-CNN"),
        ("rpn_head.rpn_conv.weight", "mmdetection's Faster R-CNN"),
        ("backbone.hourglass_modules.0.up1.0.weight", "mmpose's Hourglass-52"),
        ("head.fc.weight", "mmpose's DeepPose or RLE"),
        ("backbone.encoder.layer.0.mlp.experts.0.weight", "ViTPose+ checkpoint"),
        ("model.0.conv.weight", "a YOLO network"),
    ],
)
def test_files_of_networks_that_are_not_here_are_recognized(key, words):
    with pytest.raises(InputError, match="tensors do not match simple_base") as error:
        arrays = {key: np.zeros(3, np.float32)}
        if key.startswith("head."):
            arrays["backbone.conv1.weight"] = arrays[key]
        mapping.from_torch(arrays, "simple_baseline_18", width=8, deconv_features=8)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "shapes, likely",
    [
        (published.vitpose(768, 1, simple=True), "vitpose_base_simple"),
        (published.vitpose(1024, 1), "vitpose_large"),
        (published.efficientnet_lite0(), "efficientnet_lite0 --backbone"),
    ],
)
def test_another_network_is_recognized_by_its_names(shapes, likely):
    arrays = {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
    with pytest.raises(InputError) as error:
        mapping.from_torch(arrays, "simple_baseline_18", width=8, deconv_features=8)
    assert str(error.value).endswith(f"They match --model {likely}.")


def test_vitpose_takes_other_sizes_by_interpolated_positions():
    model = models.build("vitpose_small_simple", 3, **TINY)
    variables = mapping.from_torch(_tiny(True), "vitpose_small_simple", **TINY)
    larger = published.images((1, 96, 64, 3))
    shape = jax.eval_shape(model.apply, variables, larger).shape
    assert shape == (1, 24, 16, 3)
    assert not flatten(variables["batch_stats"])
