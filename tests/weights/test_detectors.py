"""torchvision's detectors, converted: the boxes that torchvision finds, or one line."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import cli, methods
from pose_jax.errors import InputError
from pose_jax.methods import detector as detector_lib
from pose_jax.methods import image_input
from pose_jax.runs import model as model_lib
from pose_jax.types import Inputs
from pose_jax.weights import convert, detectors
from tests.weights import published, torch_writer
from tests.weights import torchvision_detectors as small

NAME = "faster_rcnn_fpn_18"


@pytest.fixture(scope="module")
def state_dict():
    return small.state_dict()


def error(state_dict, name=NAME, **options):
    with pytest.raises(InputError) as caught:
        detectors.from_torch(state_dict, name, **{**small.SMALL, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def found(section, variables, image):
    """Boxes and scores of a picture."""
    (h, w, _), method = image.shape, methods.build(section, None)
    inputs = Inputs(
        images=image[None],
        canvas_to_image=np.eye(3, dtype=np.float32)[None, :2],
        box_xyxy=np.array([[0, 0, w, h]], np.float32),
        box_score=np.ones(1, np.float32),
        valid=np.ones(1, bool),
        row=np.zeros(1, np.int32),
    )
    boxes = jax.jit(method.predict)({"detector": variables}, inputs)
    used = np.asarray(boxes.valid[0])
    return np.asarray(boxes.boxes_xyxy[0])[used], np.asarray(boxes.scores[0])[used]


def section_of(options):
    return {
        "name": "detector",
        "model": {"name": NAME, "options": options},
        **detectors.SETTINGS,
        "size": small.SIDES,
        "slots": 120,
    }


def check_people(found, expected):
    """99 of 100 boxes are within 0.01 px, and their scores within 1e-4."""
    (boxes_xyxy, scores), (true_xyxy, true_scores) = found, expected
    true_xyxy, true_scores = true_xyxy[:100], true_scores[:100]
    distance = np.abs(true_xyxy[:, None] - boxes_xyxy).max(-1)
    nearest = distance.argmin(1)
    near = distance.min(1) <= 0.01
    near &= np.abs(scores[nearest] - true_scores) <= 1e-4
    assert near.mean() >= 0.99, f"{near.sum()} of {len(near)}"


def test_people_are_those_that_torchvision_gave(state_dict):
    """Of torchvision 0.29: see `torchvision_detectors`."""
    variables, options = detectors.from_torch(state_dict, NAME, **small.SMALL)
    assert options["classes"] == small.CLASSES and options["norm"] == "frozen"
    with np.load(small.STORED) as stored:
        expected = stored["boxes_xyxy"], stored["scores"]
    assert len(expected[1]) == 100
    check_people(found(section_of(options), variables, small.picture()), expected)


def test_torchvision_gives_what_is_stored(state_dict):
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    boxes_xyxy, scores = small.people(small.small(state_dict), small.picture())
    with np.load(small.STORED) as stored:
        np.testing.assert_allclose(boxes_xyxy[:100], stored["boxes_xyxy"], atol=1e-3)
        np.testing.assert_allclose(scores[:100], stored["scores"], atol=1e-5)


def test_values_go_to_their_places(state_dict):
    variables, _ = detectors.from_torch(state_dict, NAME, **small.SMALL)
    params = variables["params"]
    fc6 = state_dict["roi_heads.box_head.fc6.weight"].reshape(16, 8, 7, 7)
    ours = params["box_head"]["fc6"]["kernel"].reshape(7, 7, 8, 16)
    assert ours[3, 5, 2, 11] == fc6[11, 2, 3, 5]
    deltas = state_dict["roi_heads.box_predictor.bbox_pred.weight"]
    np.testing.assert_array_equal(params["box_head"]["deltas"]["kernel"], deltas[4:8].T)
    kernel = state_dict["backbone.fpn.layer_blocks.2.weight"]
    assert params["pyramid"]["output4"]["kernel"][0, 2, 3, 5] == kernel[5, 3, 0, 2]


def test_a_softmax_of_two_classes_is_one_logit():
    values = small.state_dict(classes=2)
    variables, options = detectors.from_torch(values, NAME, **small.SMALL)
    weight = values["roi_heads.box_predictor.cls_score.weight"]
    assert options["classes"] == 1
    np.testing.assert_array_equal(
        variables["params"]["box_head"]["person"]["kernel"][:, 0], weight[1] - weight[0]
    )


def test_the_epsilon_is_in_the_scales(state_dict):
    """0, or as given, or 1e-5 if the file counts batches."""
    at = lambda variables, kind, leaf: variables[kind]["backbone"]["bn1"][leaf][0]
    scale = state_dict["backbone.body.bn1.weight"][0]
    var = state_dict["backbone.body.bn1.running_var"][0]
    counted = {**state_dict, "backbone.body.bn1.num_batches_tracked": np.array(3)}
    for values, epsilon, expected in (
        (state_dict, None, scale * np.sqrt((var + 1e-5) / var)),
        (state_dict, 1e-5, scale),
        (counted, None, scale),
        (counted, 0.0, scale * np.sqrt((var + 1e-5) / var)),
    ):
        variables, _ = detectors.from_torch(
            values, NAME, epsilon=epsilon, **small.SMALL
        )
        assert at(variables, "params", "scale") == pytest.approx(expected, rel=1e-6)
        assert at(variables, "batch_stats", "var") == var


def test_names_of_newer_releases_and_other_branches(state_dict):
    newer = {
        re.sub(r"(_blocks\.\d)\.", r"\1.0.", name).replace(
            "rpn.head.conv.", "rpn.head.conv.0.0."
        ): value
        for name, value in state_dict.items()
    }
    newer["roi_heads.keypoint_head.0.weight"] = np.zeros((2, 2, 3, 3), np.float32)
    assert newer.keys() != state_dict.keys()
    ours, _ = detectors.from_torch(newer, NAME, **small.SMALL)
    expected, _ = detectors.from_torch(state_dict, NAME, **small.SMALL)
    assert jax.tree.all(jax.tree.map(np.array_equal, ours, expected))


def test_another_file_or_half_of_one_is_one_line(state_dict):
    half = dict(list(state_dict.items())[: len(state_dict) // 2])
    assert "missing (" in error(half) and "ResNet-18" in error(half)
    assert "it is an ImageNet ResNet" in error(published.values(published.resnet(18)))
    name = "backbone.bottom_up.stem.conv1.weight"
    assert "detectron2" in error({**state_dict, name: np.zeros(1)})
    assert "fpn_v2" in error(
        {**state_dict, "backbone.fpn.inner_blocks.0.1.weight": np.zeros(1)}
    )
    assert "no tensor is named" in error({"a": np.zeros(1)})
    assert "of another shape (backbone.body." in error(state_dict, width=8)
    broken = {**state_dict, "rpn.head.conv.bias": np.full(8, np.nan, np.float32)}
    assert "not finite (rpn.head.conv.bias)" in error(broken)
    flat = {**state_dict, "backbone.body.bn1.running_var": np.zeros(4, np.float32)}
    assert "--norm-epsilon" in error(flat)


def test_convert_writes_a_detector_that_can_be_trained(state_dict, tmp_path, capsys):
    file, out = tmp_path / "detector.pth", tmp_path / "run"
    torch_writer.write(file, state_dict, "zip")
    text = convert.convert(file, NAME, out, options=small.SMALL)
    assert "5 classes, of which people are used" in text and "--detector" in text
    loaded = model_lib.load(out)
    method = loaded.method()
    assert loaded.keypoints is None and isinstance(method, detector_lib.Detector)
    assert method.config.conventions == "torchvision" and method.config.box_nms == 0.5
    own = jax.eval_shape(method.phases[0].init, jax.random.key(0))
    shapes = lambda tree: jax.tree.map(lambda leaf: leaf.shape, dict(tree))
    for part in ("params", "batch_stats"):
        assert shapes(own[part]) == shapes(loaded.variables["detector"][part])
    words = ["weights", "convert", str(file), "--model", NAME, "--out"]
    for more, meant in (
        (["--sigma", "2"], "--sigma is not for detectors"),
        (["--norm-epsilon", "-1"], "--norm-epsilon must be in [0, 1)"),
        ([], "tensors do not match"),  # Of the published width.
    ):
        assert cli.main([*words, str(tmp_path / "other"), *more]) > 0
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and meant in err
    assert not (tmp_path / "other").exists()


# --------------------------------------------------------------- conventions of the input


def _inputs(size, conventions):
    config = detector_lib.Config(
        name="detector",
        model=methods.topdown.ModelConfig("faster_rcnn_pocket"),
        size=(48, 80),
        conventions=conventions,
    )
    w, h = size
    image = small.picture(size)
    inputs = Inputs(
        images=image[None],
        canvas_to_image=np.eye(3, dtype=np.float32)[None, :2],
        box_xyxy=np.array([[0, 0, w, h]], np.float32),
        box_score=np.ones(1, np.float32),
        valid=np.ones(1, bool),
        row=np.zeros(1, np.int32),
    )
    inputs = jax.tree.map(jnp.asarray, inputs)
    images, to_input, region = image_input.network_inputs(config, 16, inputs, None)
    return image, images[0], to_input[0], region[0]


@pytest.mark.slow
def test_an_image_is_resized_and_padded_as_by_torchvision():
    """31x20 -> 48 / 20 = 2.4 -> 74.4x48, rounded down to 74x48, in an input of 80x48."""
    image, shown, to_input, region = _inputs((31, 20), "torchvision")
    assert shown.shape == (48, 80, 3)
    np.testing.assert_allclose(region, [0, 0, 74, 48], atol=1e-4)
    np.testing.assert_allclose(to_input[0, 0], 74 / 31, rtol=1e-6)
    np.testing.assert_allclose(
        shown[:, 74:], np.broadcast_to([0.485, 0.456, 0.406], (48, 6, 3))
    )
    x = np.clip((np.arange(74) + 0.5) * 31 / 74 - 0.5, 0, 30)
    y = np.clip((np.arange(48) + 0.5) * 20 / 48 - 0.5, 0, 19)
    i, j = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = (y - i)[:, None, None], (x - j)[None, :, None]
    i2, j2 = np.minimum(i + 1, 19), np.minimum(j + 1, 30)
    pixels = image / 255
    top = pixels[i][:, j] * (1 - fx) + pixels[i][:, j2] * fx
    bottom = pixels[i2][:, j] * (1 - fx) + pixels[i2][:, j2] * fx
    expected = top * (1 - fy) + bottom * fy
    np.testing.assert_allclose(shown[:, :74], expected, atol=2e-5)


@pytest.mark.parametrize(
    "canvas, expected",
    [((640, 480), (1344, 800)), ((480, 640), (800, 1344)), ((640, 640), (1344, 1344))],
)
def test_an_input_has_room_for_all_images_of_its_orientation(canvas, expected):
    assert image_input.input_size((800, 1333), canvas, 32, whole=True) == expected
