"""Published weights: every tensor to its place, nothing assumed; then run directories."""

import json

import jax
import numpy as np
import pytest

import pose_jax
from pose_jax import cli, info, keypoints, methods, models
from pose_jax.data.synthetic import scenes
from pose_jax.errors import ConfigError, InputError
from pose_jax.evaluation import evaluate
from pose_jax.models import ops
from pose_jax.runs import model as model_lib
from pose_jax.trees import flatten
from pose_jax.weights import convert, mapping
from tests.models.networks import with_larger_slow
from tests.weights import published, torch_writer

PUBLISHED = {  # Generated shapes, and how many tensors the published files have.
    "simple_baseline_50": (published.simple_baseline(50), 338),
    "simple_baseline_101": (published.simple_baseline(101), 644),
    "simple_baseline_152": (published.simple_baseline(152), 950),
    "hrnet_w32": (published.hrnet(32), 1754),
    "hrnet_w48": (published.hrnet(48), 1754),
    "hourglass_4": (published.hourglass(4), None),
    "hourglass_8": (published.hourglass(8), None),
}
SMALL = {  # Shapes and options of networks small enough to run.
    "simple_baseline_18": (
        published.simple_baseline(18, 17, width=8, deconv_features=8),
        {"width": 8, "deconv_features": 8},
    ),
    "simple_baseline_50": (
        published.simple_baseline(50, 3, width=8, deconv_features=8),
        {"width": 8, "deconv_features": 8},
    ),
    "hrnet_w32": (
        published.hrnet(32, 3, stem_width=8, modules=(1, 1, 2), blocks=1),
        {"stem_width": 8, "modules": (1, 1, 2), "blocks": 1},
    ),
    "hourglass_4": (
        published.hourglass(4, 3, width=8, depth=2),
        {"width": 8, "depth": 2},
    ),
}


def _without_counters(shapes):
    return {k: v for k, v in shapes.items() if not k.endswith("num_batches_tracked")}


def _zeros(shapes):
    return {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}


def _small(name):
    shapes, options = SMALL[name]
    return published.values(shapes), options


# ------------------------------------------------------------------------------ the names


@pytest.mark.parametrize("name", with_larger_slow(PUBLISHED))
def test_every_published_name_and_shape_is_expected_and_no_other(name):
    shapes, count = PUBLISHED[name]
    assert count in (None, len(shapes))
    found = mapping._expected(name, 17, False, {})
    assert {key: path.published_shape for key, path in found.items()} == (
        _without_counters(shapes)
    )


STARTED = [  # Never published, but can start from torchvision's ResNet.
    *(f"resnet_regression_{depth}" for depth in (18, 50, 101, 152)),
    *(f"multipose_{depth}" for depth in (18, 50, 101)),
]


@pytest.mark.parametrize(
    "depth, count",
    [
        (18, 122),
        (50, 320),
        pytest.param(101, 626, marks=pytest.mark.slow),
        pytest.param(152, 932, marks=pytest.mark.slow),
    ],
)
def test_a_backbone_expects_torchvision_s_names_without_the_classifier(depth, count):
    shapes = published.resnet(depth)
    assert len(shapes) == count
    expected = {k: v for k, v in _without_counters(shapes).items() if k[:3] != "fc."}
    started = [name for name in STARTED if name.endswith(f"_{depth}")]
    for name in (f"simple_baseline_{depth}", *started):
        found = mapping._expected(name, 17, True, {})
        assert {key: path.published_shape for key, path in found.items()} == expected
        assert all(path.names[1] == "backbone" for path in found.values())


@pytest.mark.parametrize(
    "name",
    ["resnet_regression_18", "multipose_18", "faster_rcnn_18", "faster_rcnn_fpn_18"],
)
def test_a_backbone_has_the_same_values_whatever_it_is_for(name):
    state_dict = published.values(published.resnet(18, width=8))
    found, expected = (
        mapping.from_torch(state_dict, model, backbone=True, width=8)
        for model in (name, "simple_baseline_18")
    )
    assert found.keys() == {"params", "batch_stats"}
    assert set(found["params"]) == {"backbone"}
    assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))
    back = mapping.to_torch(found)
    assert back.keys() == {
        key for key in _without_counters(state_dict) if key[:3] != "fc."
    }
    for key, array in back.items():
        np.testing.assert_array_equal(array, state_dict[key], err_msg=key)


@pytest.mark.parametrize("name", SMALL)
def test_values_go_to_their_places_and_back(name):
    state_dict, options = _small(name)
    variables = mapping.from_torch(state_dict, name, **options)
    k = 17 if name == "simple_baseline_18" else 3
    model = models.build(name, k, **options)
    shapes = jax.eval_shape(
        lambda key: model.init(key, published.images((1, 64, 64, 3)), train=True),
        jax.random.key(0),
    )
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables) == (
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), dict(shapes))
    )
    back = mapping.to_torch(variables)
    counted = _without_counters(state_dict)
    assert back.keys() == counted.keys()
    for key, array in counted.items():
        np.testing.assert_array_equal(back[key], array, err_msg=key)


def test_layouts_are_pytorch_s():
    state_dict, options = _small("simple_baseline_18")
    variables = mapping.from_torch(state_dict, "simple_baseline_18", **options)
    params, stats = variables["params"], variables["batch_stats"]
    block = params["backbone"]["layer2"]["0"]
    kernel = state_dict["layer2.0.conv1.weight"]
    assert block["conv1"]["kernel"][0, 2, 3, 5] == kernel[5, 3, 0, 2]
    kernel = state_dict["deconv_layers.3.weight"]
    assert params["deconv_layers"]["3"]["kernel"][0, 3, 5, 2] == kernel[5, 2, 3, 0]
    assert params["head"]["bias"][4] == state_dict["final_layer.bias"][4]
    for ours, leaf in (("mean", "running_mean"), ("var", "running_var")):
        norm = stats["backbone"]["layer2"]["0"]["downsample"]["1"]
        np.testing.assert_array_equal(
            norm[ours], state_dict[f"layer2.0.downsample.1.{leaf}"]
        )
    np.testing.assert_array_equal(
        block["bn2"]["scale"], state_dict["layer2.0.bn2.weight"]
    )


# ------------------------------------------------------------------------- the same values

IMAGES = published.images((1, 64, 96, 3))
ACTIVATIONS = {  # Of PyTorch 2.13 on a CPU: deviation, some heatmap values at (y, x).
    "simple_baseline_50": (
        0.07878617,
        {
            (0, 0): (-0.05233229, -0.01131713, 0.11043212),
            (7, 11): (0.05561499, -0.00158972, 0.17330411),
            (15, 23): (-0.04236644, -0.02045600, 0.10728370),
        },
    ),
    "hrnet_w32": (
        0.7027043,
        {
            (0, 0): (-1.1929623, 0.2904930, -1.0221083),
            (7, 11): (-1.4227399, 0.5675191, -0.5727985),
            (15, 23): (-0.3618389, 0.2925246, 0.1558741),
        },
    ),
    "hourglass_4": (
        6.4999547,
        {
            (0, 0): (-10.532010, -2.3015523, -2.0954370),
            (7, 11): (-22.774240, -24.112146, -12.392998),
            (15, 23): (-13.915915, -15.114968, -7.6502953),
        },
    ),
}


def _heatmaps(name, state_dict, images, options):
    variables = mapping.from_torch(state_dict, name, **options)
    k = flatten(variables["params"])
    k = next(v.shape[-1] for path, v in k.items() if path[-2] in ("head", "score"))
    return jax.jit(models.build(name, k, **options).apply)(variables, images)


def _assert_agree(found, expected, deviation):
    assert deviation > 0.05  # Not about dead networks.
    np.testing.assert_allclose(found, expected, atol=1e-4 * deviation, rtol=0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_heatmaps_are_those_that_pytorch_gave(name):
    state_dict, options = _small(name)
    maps = np.asarray(_heatmaps(name, state_dict, IMAGES, options))
    deviation, points = ACTIVATIONS[name]
    assert maps.std() == pytest.approx(deviation, rel=1e-4)
    for (y, x), expected in points.items():
        _assert_agree(maps[0, y, x], expected, deviation)


@pytest.mark.parametrize("name", SMALL)
def test_heatmaps_agree_with_pytorch_in_small(name):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from tests.weights import torch_networks

    state_dict, options = _small(name)
    expected = torch_networks.heatmaps(name, state_dict, IMAGES)
    maps = _heatmaps(name, state_dict, IMAGES, options)
    _assert_agree(maps, expected, expected.std())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simple_baseline_50", "hrnet_w32", "hourglass_4"])
def test_heatmaps_agree_with_pytorch_in_the_published_size(name):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from tests.weights import torch_networks

    state_dict = published.values(PUBLISHED[name][0])
    images = published.images((1, 128, 96, 3), seed=1)
    expected = torch_networks.heatmaps(name, state_dict, images)
    maps = _heatmaps(name, state_dict, images, {})
    _assert_agree(maps, expected, expected.std())


@pytest.mark.parametrize("name", ["simple_baseline_18", "hrnet_w32", "hourglass_4"])
def test_a_network_of_bgr_images_is_turned_to_rgb(name):
    state_dict, options = _small(name)
    variables = mapping.from_torch(state_dict, name, **options)
    turned = mapping.to_rgb(variables)
    pixels = published.noise((1, 32, 32, 3), 3).astype(np.float32)

    def stem(variables, images):
        params, stats = variables["params"], variables["batch_stats"]
        params, stats = params.get("backbone", params), stats.get("backbone", stats)
        kernel = params["conv1"]["kernel"]
        y = ops.conv(images, kernel, stride=2, padding=len(kernel) // 2)
        y = (np.asarray(y) - stats["bn1"]["mean"]) / np.sqrt(stats["bn1"]["var"] + 1e-5)
        return y * params["bn1"]["scale"]

    normalize = models.IMAGENET.normalize
    # As OpenCV reads them, blue first, but normalized by the statistics of red.
    before = stem(variables, normalize(pixels[..., ::-1]))
    after = stem(turned, normalize(pixels))
    np.testing.assert_allclose(after[:, 2:-2, 2:-2], before[:, 2:-2, 2:-2], atol=1e-4)
    assert np.abs(after - before).max() < 0.5 * before.std()  # The border alone.
    plain = stem(variables, normalize(pixels))
    assert np.abs(plain - before)[:, 2:-2, 2:-2].max() > 0.5 * before.std()
    same = [
        np.array_equal(ours, theirs)
        for ours, theirs in zip(
            flatten(turned).values(), flatten(variables).values(), strict=True
        )
    ]
    assert same.count(False) == 2


# ------------------------------------------------------------------------------- mistakes


def _error(state_dict, name="simple_baseline_18", **options):
    options = options or SMALL["simple_baseline_18"][1]
    with pytest.raises(InputError) as caught:
        mapping.from_torch(state_dict, name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_an_unknown_and_a_misshapen_tensor_are_named_with_their_shapes():
    state_dict, _ = _small("simple_baseline_18")
    changed = dict(state_dict)
    del changed["layer3.1.bn2.running_var"]
    changed["layer3.1.conv9.weight"] = np.zeros((2, 3), np.float32)
    changed["conv1.weight"] = np.zeros((8, 3, 3, 3), np.float32)
    message = _error(changed)
    for words in (
        "tensors do not match simple_baseline_18",
        "1 missing (layer3.1.bn2.running_var [32])",
        "1 unknown (layer3.1.conv9.weight [2, 3])",
        "(conv1.weight [8, 3, 3, 3], expected [8, 3, 7, 7])",
    ):
        assert words in message


@pytest.mark.parametrize("key", ["final_layer.weight", "final_layer.bias", "bn1.bias"])
def test_any_one_missing_tensor_is_enough(key):
    state_dict, _ = _small("simple_baseline_18")
    del state_dict[key]
    assert f"1 missing ({key}" in _error(state_dict)


def test_counters_of_norms_alone_are_ignored_present_or_absent():
    state_dict, options = _small("simple_baseline_18")
    name = "simple_baseline_18"
    with_them = mapping.from_torch(state_dict, name, **options)
    without = mapping.from_torch(_without_counters(state_dict), name, **options)
    assert jax.tree.all(jax.tree.map(np.array_equal, with_them, without))
    state_dict["conv1.num_batches_tracked"] = np.array(1)
    assert "1 unknown (conv1.num_batches_tracked [])" in _error(state_dict)


def test_numbers_that_are_none_are_refused():
    state_dict, _ = _small("simple_baseline_18")
    for value, words in (
        (np.nan, "not finite (bn1.weight)"),
        (np.inf, "not finite"),
        (1e300, "not finite"),
    ):
        changed = {**state_dict, "bn1.weight": np.full(8, value)}
        assert words in _error(changed)
    changed = {**state_dict, "bn1.weight": np.ones(8, np.int8)}
    assert "not floating point (bn1.weight (int8))" in _error(changed)


@pytest.mark.parametrize(
    "shapes, likely",
    [
        (published.hrnet(48), "--model hrnet_w48."),
        (
            {k: v for k, v in published.hrnet(32).items() if "final_layer" not in k},
            "--model hrnet_w32 --backbone.",
        ),
        (published.hourglass(8), "--model hourglass_8."),
        (published.simple_baseline(101), "--model simple_baseline_101."),
        (published.resnet(18), "--model simple_baseline_18 --backbone."),
        (published.resnet(50), "--model simple_baseline_50 --backbone."),
    ],
)
def test_another_architecture_is_refused_and_recognized(shapes, likely):
    message = _error(_zeros(shapes), "hrnet_w32", **SMALL["hrnet_w32"][1])
    assert message.endswith(f"They match {likely}")
    assert "more)" in message and len(message) < 1000


@pytest.mark.parametrize(
    "name, depth, likely",
    [
        ("resnet_regression_50", 101, "resnet_regression_101 --backbone."),
        ("multipose_50", 18, "multipose_18 --backbone."),
        ("multipose_50", 152, "simple_baseline_152 --backbone."),  # There is no other.
    ],
)
def test_another_resnet_is_recognized_as_of_the_same_family(name, depth, likely):
    state_dict = _zeros(published.resnet(depth))
    with pytest.raises(InputError) as error:
        mapping.from_torch(state_dict, name, backbone=True)
    assert str(error.value).startswith(f"tensors do not match {name} --backbone: ")
    assert str(error.value).endswith(f"They match --model {likely}")


def test_a_whole_network_is_no_backbone():
    state_dict, _ = _small("simple_baseline_18")
    with pytest.raises(InputError, match=r"unknown \(deconv_layers"):
        mapping.from_torch(state_dict, "multipose_18", backbone=True, width=8)


def test_an_unknown_state_dict_is_not_guessed_at():
    message = _error({"a.weight": np.zeros(3, np.float32)})
    assert message.endswith("Give a complete checkpoint of this network.")


def test_models_without_published_weights_say_so():
    for name, options, words in (
        ("pocket", {}, "are published; use one of hourglass_4"),
        ("hrnet_w23", {}, "Did you mean 'hrnet_w32'"),
        (
            "hourglass_4",
            {"backbone": True, **SMALL["hourglass_4"][1]},
            "no ImageNet backbone",
        ),
        ("multipose_pocket", {"backbone": True}, "no weights of model"),
        *((name, {}, "no complete checkpoint.*use --backbone") for name in STARTED),
    ):
        with pytest.raises(ConfigError, match=words):
            mapping.from_torch({}, name, **options)


# ------------------------------------------------------------------------ run directories


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    root = tmp_path_factory.mktemp("people") / "data"
    scenes.write_dataset(root, n=1, val=3, seed=1)
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    state_dict, options = _small("simple_baseline_18")
    torch_writer.write(folder / "pose.pth", state_dict, "legacy")
    convert.convert(
        folder / "pose.pth",
        "simple_baseline_18",
        folder / "run",
        input_size=(64, 64),
        options=options,
    )
    return folder / "run"


@pytest.mark.slow
def test_eval_takes_a_converted_run_and_wants_data(run, people, capsys):
    assert cli.main(["eval", "--run", str(run)]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "give the folder of coco by --data" in err
    found = evaluate.evaluate_run(run, data=str(people))
    saved = json.loads((run / "eval/gt_boxes/shift/metrics.json").read_text())
    assert (
        found["shift"].metrics == saved
        and list(found) == ["shift"]
        and 0 <= saved["AP@gt_boxes"] <= 1
    )


def test_predict_takes_a_converted_run(run, people):
    image = next((people / "val2017").iterdir())
    ((person,),) = pose_jax.load(run)([image])
    assert person.points_xy.shape == (17, 2) and np.isfinite(person.points_xy).all()


def test_info_describes_a_converted_run(run):
    found = info.info(run)
    assert found["model"] == "simple_baseline_18"
    assert "published weights, pose.pth" in found["data"]["train"]


@pytest.mark.parametrize("kind", ["safetensors", "zip"])
def test_a_converted_run_has_the_weights_for_rgb_images(kind, run, tmp_path):
    state_dict, options = _small("simple_baseline_18")
    wrapped = {f"module.{key}": array for key, array in state_dict.items()}
    torch_writer.write(
        tmp_path / "x", wrapped, kind, lambda saved: {"state_dict": saved, "epoch": 1}
    )
    expected = mapping.from_torch(state_dict, "simple_baseline_18", **options)
    for channels, want in (("rgb", expected), ("bgr", mapping.to_rgb(expected))):
        convert.convert(
            tmp_path / "x",
            "simple_baseline_18",
            tmp_path / channels,
            channels=channels,
            options=options,
        )
        found, _ = model_lib.load_model(tmp_path / channels / "model")
        assert jax.tree.all(jax.tree.map(np.array_equal, found["pose"], want))
    published_way, _ = model_lib.load_model(run / "model")
    assert jax.tree.all(jax.tree.map(np.array_equal, published_way["pose"], want))


@pytest.mark.parametrize(
    ("name", "k", "given", "expected"),
    [
        ("simple_baseline_18", 17, {}, ("coco", [192, 256], 2, "stride", "bgr")),
        ("simple_baseline_18", 16, {}, ("mpii", [256, 256], 2, "stride", "bgr")),
        (
            "simple_baseline_18",
            17,
            {"alignment": "aligned", "input_size": (288, 384)},
            ("coco", [288, 384], 3, "aligned", "bgr"),
        ),
        ("hrnet_w32", 17, {}, ("coco", [192, 256], 2, "stride", "rgb")),
        ("hourglass_4", 17, {}, ("coco", [96, 128], 1, "aligned", "bgr")),
        # Released with another sigma than the other networks of this size.
        ("hourglass_8", 17, {}, ("coco", [96, 128], 2, "aligned", "bgr")),
        (
            "hourglass_4",
            16,
            {"sigma": 1.5, "channels": "rgb", "keypoint_set": "mpii"},
            ("mpii", [96, 128], 1.5, "aligned", "rgb"),
        ),
    ],
)
def test_what_the_file_does_not_say_is_as_published(name, k, given, expected, tmp_path):
    options = SMALL.get(name, SMALL["hourglass_4"])[1]
    build = getattr(published, name.rsplit("_", 1)[0])
    first = int(name.rsplit("_", 1)[1].removeprefix("w"))
    torch_writer.write(
        tmp_path / "x", published.values(build(first, k, **options)), "safetensors"
    )
    convert.convert(tmp_path / "x", name, tmp_path / "run", options=options, **given)
    loaded = model_lib.load(tmp_path / "run")
    method, converted = loaded.manifest["method"], loaded.manifest["converted"]
    assert expected == (
        loaded.keypoints.name,
        method["input_size"],
        method["sigma"],
        method["alignment"],
        converted["channels"],
    )
    flips = {"stride": "shift", "aligned": "plain"}
    assert method["flip_test"] == flips[method["alignment"]]
    decoders = {"stride": "shift", "aligned": "dark"}
    assert method["decoder"] == decoders[method["alignment"]]
    assert loaded.method().view.size == tuple(method["input_size"])


def test_a_backbone_starts_a_network_and_is_none_itself(tmp_path, capsys):
    shapes = published.resnet(18, width=8, classes=10)
    options = SMALL["simple_baseline_18"][1]
    torch_writer.write(tmp_path / "resnet18.pth", published.values(shapes), "zip")
    said = convert.convert(
        tmp_path / "resnet18.pth",
        "simple_baseline_18",
        tmp_path / "run",
        backbone=True,
        options=options,
    )
    assert "20 counters (num_batches_tracked), 2 tensors of the classifier" in said
    loaded, manifest = model_lib.load_model(tmp_path / "run" / "model")
    assert manifest["converted"]["channels"] == "rgb"
    model = models.build("simple_baseline_18", 5, **options)
    shapes = jax.eval_shape(
        lambda key: model.init(key, IMAGES, train=True), jax.random.key(0)
    )
    own = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), dict(shapes))
    merged, report = model_lib.merge_params(own, loaded["pose"])
    assert not report.unused
    assert all("backbone" in name.split("/") for name in report.loaded)
    assert {name.split("/")[1] for name in report.new} == {"deconv_layers"}
    assert {name.split("/")[1] for name in report.skipped} == {"head"}
    np.testing.assert_array_equal(
        merged["batch_stats"]["backbone"]["bn1"]["mean"],
        loaded["pose"]["batch_stats"]["backbone"]["bn1"]["mean"],
    )
    for words in (["eval", "--data", "x"], ["predict", str(tmp_path / "x.png")]):
        assert cli.main([*words, "--run", str(tmp_path / "run")]) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "backbone without a head" in err
    assert "published weights" in info.info(tmp_path / "run")["data"]["train"]


@pytest.mark.parametrize("name", ["faster_rcnn_18", "faster_rcnn_fpn_18"])
def test_a_backbone_starts_detectors(name, tmp_path):
    shapes, options = published.resnet(18, width=8, classes=10), {"width": 8}
    torch_writer.write(tmp_path / "resnet18.pth", published.values(shapes), "zip")
    file, out = tmp_path / "resnet18.pth", tmp_path / "run"
    with pytest.raises(ConfigError, match=r"--input-size .* is a detector"):
        convert.convert(
            file, name, out, backbone=True, options=options, input_size=(64, 64)
        )
    convert.convert(file, name, out, backbone=True, options=options)
    loaded, manifest = model_lib.load_model(out / "model")
    assert manifest["keypoints"] is None and set(loaded) == {"detector"}
    section = manifest["method"]
    method = methods.build(section, None)
    own = jax.eval_shape(method.phases[0].init, jax.random.key(0))
    for part in ("params", "batch_stats"):
        found, wanted = (v[part]["backbone"] for v in (loaded["detector"], own))
        assert jax.tree.structure(found) == jax.tree.structure(wanted)
        assert jax.tree.all(
            jax.tree.map(lambda a, b: a.shape == b.shape, found, wanted)
        )


@pytest.mark.parametrize(
    "name, size, method",
    [
        ("resnet_regression_18", [192, 256], {"name": "deeppose", "stages": 1}),
        ("multipose_18", [257, 353], {"name": "multipose"}),
    ],
)
def test_a_backbone_starts_networks_that_were_never_published(
    name, size, method, tmp_path
):
    shapes, options = published.resnet(18, width=8, classes=10), {"width": 8}
    torch_writer.write(tmp_path / "resnet18.pth", published.values(shapes), "zip")
    said = convert.convert(
        tmp_path / "resnet18.pth",
        name,
        tmp_path / "run",
        backbone=True,
        options=options,
    )
    assert "2 tensors of the classifier" in said and "backbone only" in said
    loaded, manifest = model_lib.load_model(tmp_path / "run" / "model")
    assert manifest["method"] == {
        **method,
        "model": {"name": name, "options": options},
        "input_size": size,
    }
    assert manifest["converted"]["channels"] == "rgb"
    assert manifest["converted"]["part"] == "backbone"
    model = models.build(name, 5, **options)
    images = published.images(
        (1, 65, 97, 3) if name == "multipose_18" else IMAGES.shape
    )
    shapes = jax.eval_shape(
        lambda key: model.init(key, images, train=True), jax.random.key(0)
    )
    own = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), dict(shapes))
    merged, report = model_lib.merge_params(own, loaded["pose"])
    assert not report.unused and not report.new
    assert all("head" in name.split("/") for name in report.skipped)
    outputs = jax.jit(model.apply)(merged, images)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(outputs))
    width, height = size
    assert info.info(tmp_path / "run")["input"] == f"{height}x{width}"


def test_an_hrnet_that_has_learned_imagenet_starts_one_for_poses(tmp_path):
    """Beside the branches it has heads, and the sums for them in its last module."""
    state_dict, options = _small("hrnet_w32")
    state_dict = {k: v for k, v in state_dict.items() if k[:12] != "final_layer."}
    last = max(key.split(".")[1] for key in state_dict if key.startswith("stage4."))
    beside = {
        f"stage4.{last}.fuse_layers.1.0.0.0.weight": (64, 32, 3, 3),
        f"stage4.{last}.fuse_layers.3.0.2.1.num_batches_tracked": (),
        "incre_modules.0.0.conv1.weight": (32, 32, 1, 1),
        "downsamp_modules.0.0.bias": (256,),
        "final_layer.0.weight": (2048, 1024, 1, 1),
        "classifier.weight": (10, 2048),
        "head.0.0.conv1.weight": (
            32,
            32,
            1,
            1,
        ),  # Of the files of the pose repositories.
        "head.0.0.bn1.running_var": (32,),
    }
    file = tmp_path / "hrnet.pth"
    torch_writer.write(file, {**state_dict, **_zeros(beside)}, "zip")
    said = convert.convert(
        file, "hrnet_w32", tmp_path / "run", backbone=True, options=options
    )
    assert ", 7 tensors of the classifier" in said and "backbone only" in said
    loaded, _ = model_lib.load_model(tmp_path / "run" / "model")
    model = models.build("hrnet_w32", 5, **options)
    shapes = jax.eval_shape(
        lambda key: model.init(key, IMAGES, train=True), jax.random.key(0)
    )
    own = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), dict(shapes))
    merged, report = model_lib.merge_params(own, loaded["pose"])
    assert not report.unused and not report.new
    assert {name.split("/")[1] for name in report.skipped} == {"head"}
    np.testing.assert_array_equal(
        merged["params"]["conv2"]["kernel"],
        state_dict["conv2.weight"].transpose(2, 3, 1, 0),
    )
    with pytest.raises(InputError, match=r"1 missing \(layer1\.0\.conv2\.weight"):
        del state_dict["layer1.0.conv2.weight"]
        mapping.from_torch(state_dict, "hrnet_w32", backbone=True, **options)


def _convert(capsys, *words):
    code = cli.main(["weights", "convert", *map(str, words)])
    out, err = capsys.readouterr()
    if code == 0:
        return out
    assert err.startswith("pose-jax: error: ") and err.count("\n") == 1 and not out
    return code, err


def test_the_command_line_converts_with_its_options(tmp_path, capsys):
    shapes = published.simple_baseline(18, 16)
    torch_writer.write(tmp_path / "x.pth", _zeros(shapes), "zip")
    said = _convert(
        capsys, tmp_path / "x.pth", "--model", "simple_baseline_18", "--out",
        tmp_path / "run", "--keypoints", "mpii", "--input-size", "128x160", "--sigma",
        "1.25", "--alignment", "aligned", "--channels", "rgb",
    )  # fmt: skip
    assert "keypoints mpii, input 160x128, sigma 1.25, color order rgb" in said
    assert "alignment aligned, decoder dark, flip test plain" in said
    loaded = model_lib.load(tmp_path / "run")
    assert loaded.keypoints == keypoints.MPII
    assert loaded.method().view.size == (128, 160)
    assert len(loaded.manifest["converted"]["sha256"]) == 64


def test_a_head_of_other_keypoints_is_left_out(tmp_path, capsys):
    options = SMALL["simple_baseline_18"][1]
    state_dict = published.values(published.simple_baseline(18, 21, **options))
    torch_writer.write(tmp_path / "x.pth", state_dict, "zip")
    said = convert.convert(
        tmp_path / "x.pth", "simple_baseline_18", tmp_path / "run", options=options
    )
    assert "loaded 115 tensors" in said
    assert "head left out: its 21 keypoints are of no known set, coco (17)" in said
    assert "starts with a random head" in said
    loaded, manifest = model_lib.load_model(tmp_path / "run" / "model")
    assert set(loaded["pose"]["params"]) == {"backbone", "deconv_layers"}
    assert manifest["converted"]["part"] == "without head"
    assert cli.main(["predict", "x.png", "--run", str(tmp_path / "run")]) == 1
    assert "without a head" in capsys.readouterr().err


CONFIG = """
codec = dict(type='MSRAHeatmap', input_size=(288, 384), sigma=3, unbiased=True)
"""


def _write_mmpose(path, config=""):
    options = SMALL["simple_baseline_18"][1]
    state_dict = {
        ("head." if key.startswith(("deconv", "final")) else "backbone.") + key: array
        for key, array in _zeros(published.simple_baseline(18, 17, **options)).items()
    }
    wrap = lambda saved: {"meta": {"cfg": config}, "state_dict": saved}
    torch_writer.write(path, state_dict, "zip", wrap)
    return options


@pytest.mark.parametrize(
    "config, given, expected, source",
    [
        (CONFIG, {}, ([288, 384], 3, "unbiased", "dark_paper", "stride", "shift"),
         "settings: the config in the file"),
        ("", {}, ([192, 256], 2, "biased", "shift", "stride", "shift"),
         "settings: the defaults of simple_baseline_18"),
        (CONFIG, {"alignment": "aligned", "sigma": 2.5},
         ([288, 384], 2.5, "unbiased", "dark", "aligned", "plain"),
         "settings: options (sigma, alignment), otherwise the config in the file"),
        (CONFIG, {"decoder": "shift"},
         ([288, 384], 3, "biased", "shift", "stride", "shift"), "options (decoder)"),
    ],
)  # fmt: skip
def test_settings_come_from_the_options_or_the_file(
    config, given, expected, source, tmp_path
):
    options = _write_mmpose(tmp_path / "x.pth", config)
    said = convert.convert(
        tmp_path / "x.pth", "simple_baseline_18", tmp_path / "run", options=options,
        **given,
    )  # fmt: skip
    assert source in said and "; names of mmpose" in said
    manifest = model_lib.load_manifest(tmp_path / "run" / "model")
    method = manifest["method"]
    names = "input_size sigma encoding decoder alignment flip_test".split()
    assert tuple(method[name] for name in names) == expected
    assert manifest["converted"]["channels"] == "rgb"


def test_settings_come_from_the_catalogue_by_the_name_of_the_file(tmp_path):
    shapes = published.hrnet(32, 17, stem_width=8, modules=(1, 1, 2), blocks=1)
    file = tmp_path / "hrnet_w32_coco_384x288_udp-e97c1a0f_20210223.pth"
    torch_writer.write(file, _zeros(shapes), "zip")
    options = SMALL["hrnet_w32"][1]
    said = convert.convert(file, "hrnet_w32", tmp_path / "run", options=options)
    assert "settings: the catalogue (mmpose_hrnet_w32_coco_384x288_udp)" in said
    assert "input 384x288, sigma 3, color order rgb" in said
    assert "alignment aligned, decoder dark, flip test plain" in said


@pytest.mark.slow
def test_vitpose_is_converted_and_predicts(tmp_path, people):
    shapes = published.vitpose(384, 1, tokens=12, deconv_features=8)
    arrays = published.values(shapes)
    torch_writer.write(tmp_path / "x.safetensors", arrays, "safetensors")
    options = {"layers": 1, "grid": (4, 3), "deconv_features": 8}
    said = convert.convert(
        tmp_path / "x.safetensors", "vitpose_small", tmp_path / "run",
        input_size=(48, 64), options=options,
    )  # fmt: skip
    assert "; names of transformers" in said
    assert "alignment aligned, decoder dark, flip test plain" in said
    image = next((people / "val2017").iterdir())
    ((person,),) = pose_jax.load(tmp_path / "run")([image])
    assert person.points_xy.shape == (17, 2) and np.isfinite(person.points_xy).all()


def test_another_keypoint_set_leaves_the_head_out_and_says_so(tmp_path, capsys):
    shapes = published.simple_baseline(18, 16)
    torch_writer.write(tmp_path / "x.pth", _zeros(shapes), "zip")
    own = tmp_path / "mouse.json"
    own.write_text('{"names": ["snout", "left_ear", "right_ear"]}')
    said = _convert(
        capsys, tmp_path / "x.pth", "--model", "simple_baseline_18", "--out",
        tmp_path / "run", "--keypoints", own,
    )  # fmt: skip
    assert "head left out: it is that of mpii, not mouse" in said
    loaded = model_lib.load(tmp_path / "run")
    assert loaded.keypoints.flip_pairs == ((1, 2),)
    params = loaded.variables["pose"]["params"]
    assert "backbone" in params and "head" not in params
    with pytest.raises(InputError, match="without a head"):
        loaded.method()


def test_the_command_line_refuses_what_is_not_of_a_backbone(tmp_path, capsys):
    torch_writer.write(tmp_path / "x.pth", _zeros(published.resnet(18)), "zip")
    words = [tmp_path / "x.pth", "--out", tmp_path / "run", "--model"]
    for model, more, meant in [
        ("multipose_18", [], "no complete checkpoint of model 'multipose_18'"),
        ("resnet_regression_18", [], "use --backbone"),
        ("multipose_18", ["--backbone", "--sigma", "2"], "multipose_18 is not"),
        (
            "resnet_regression_18",
            ["--backbone", "--alignment", "aligned"],
            "resnet_regression_18 is not",
        ),
        (
            "multipose_18",
            ["--backbone", "--input-size", "192x256"],
            "multiples of 8 plus 1, at least 65, for multipose_18; got 192x256",
        ),
        (
            "resnet_regression_18",
            ["--backbone", "--input-size", "257x353"],
            "multiples of 32",
        ),
    ]:
        code, err = _convert(capsys, *words, model, *more)
        assert code == 2 and meant in err, err
        assert not (tmp_path / "run").exists()
    said = _convert(
        capsys, *words, "multipose_18", "--backbone", "--input-size", "97x129"
    )
    assert "20 counters (num_batches_tracked), 2 tensors of the classifier" in said
    assert f"--config.train.init_from={tmp_path / 'run'}" in said


def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, capsys):
    out = tmp_path / "run"
    model = ["--model", "simple_baseline_18"]
    good = _zeros(published.simple_baseline(18, 5))
    torch_writer.write(tmp_path / "five", good, "safetensors")
    whole = (tmp_path / "five").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-1])
    torch_writer.write(tmp_path / "no_bias", dict(list(good.items())[:-1]), "legacy")
    torch_writer.write(tmp_path / "more", {**good, "x": good["bn1.bias"]}, "zip")
    code = torch_writer.Call(torch_writer.Global("os", "system"), ("true",))
    torch_writer.write_zip(tmp_path / "code", {"state_dict": code}, {})
    for file, words, exit_code, meant in [
        ("none", model, 1, "No such file"),
        ("", model, 1, "Is a directory"),
        ("cut", model, 1, "truncated"),
        ("no_bias", model, 1, "missing (final_layer.bias [5])"),
        ("more", model, 1, "unknown (x [64])"),
        ("code", model, 1, "entry state_dict is not a tensor"),
        ("five", ["--model", "simple_baseline_50"], 1, "--model simple_baseline_18"),
        ("five", ["--model", "hrnet"], 2, "Did you mean"),
        (
            "five",
            [*model, "--keypoints", "dog"],
            2,
            "no keypoint set 'dog'",
        ),
        ("five", [*model, "--backbone"], 1, "unknown (deconv_layers.0.weight"),
        ("five", [*model, "--alignment", "udp"], 2, "--alignment"),
        ("five", [*model, "--input-size", "192"], 2, "--input-size"),
    ]:
        found, err = _convert(capsys, tmp_path / file, *words, "--out", out)
        assert found == exit_code and meant in err, err
        assert exit_code == 2 or str(tmp_path / file) in err
        assert not out.exists()
    good = _zeros(published.simple_baseline(18, 17))
    torch_writer.write(tmp_path / "good", good, "safetensors")
    for words, meant in [
        (["--input-size", "192x250"], "multiples of 32"),
        (["--sigma", "0"], "positive"),
        (["--sigma", "nan"], "positive"),
    ]:
        found = _convert(capsys, tmp_path / "good", *model, *words, "--out", out)
        assert found[0] == 2 and meant in found[1]
        assert not out.exists()
    found = _convert(capsys, tmp_path / "good", *model, "--out", tmp_path / "cut/run")
    assert found[0] == 1 and f"{tmp_path / 'cut'}: Not a directory" in found[1]
    out.mkdir()
    (out / "config.json").write_text("{}")
    found = _convert(capsys, tmp_path / "good", *model, "--out", out)
    assert found[0] == 2 and "already exists" in found[1]
    assert [path.name for path in out.iterdir()] == ["config.json"]
