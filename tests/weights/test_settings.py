"""Settings of published files: of the catalogue, and of mmpose's configs as text."""

import pytest

from pose_jax.weights import settings
from pose_jax.weights.catalogue import RELEASES

NEW = """
codec = dict(
    type='{type}', input_size=(288, 384), heatmap_size=(72, 96), sigma=3{more})
model = dict(
    type='TopdownPoseEstimator',
    data_preprocessor=dict(
        type='PoseDataPreprocessor', mean=[123.675, 116.28, 103.53], bgr_to_rgb=True),
    head=dict(type='HeatmapHead', decoder=dict(type='{type}')))
optimizer = build(codec)
"""
OLD = """
data_cfg = dict(image_size=[192, 256], heatmap_size=[48, 64], num_joints=17)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TopDownGenerateTarget', sigma=2{target}),
]
model = dict(type='TopDown', test_cfg=dict(flip_test=True{test}))
"""
MSRA = {"alignment": "stride", "decoder": "shift"}
DARK = {"alignment": "stride", "decoder": "dark_paper"}
UDP = {"alignment": "aligned", "decoder": "dark"}


@pytest.mark.parametrize(
    "kind, more, expected",
    [
        ("MSRAHeatmap", "", MSRA),
        ("MSRAHeatmap", ", unbiased=True", DARK),
        ("UDPHeatmap", "", UDP),
        ("UDPHeatmap", ", heatmap_type='gaussian'", UDP),
    ],
)
def test_the_codec_of_mmpose_1_is_read(kind, more, expected):
    found = settings.of_config(NEW.format(type=kind, more=more))
    assert found == {
        **expected, "input_size": (288, 384), "sigma": 3.0, "channels": "rgb"
    }  # fmt: skip


@pytest.mark.parametrize(
    "target, test, expected",
    [
        ("", ", post_process='default'", MSRA),
        (", unbiased_encoding=True", ", post_process='unbiased'", DARK),
        (", encoding='UDP'", ", use_udp=True", UDP),
    ],
)
def test_the_pipelines_of_mmpose_0_are_read(target, test, expected):
    found = settings.of_config(OLD.format(target=target, test=test))
    assert found == {**expected, "input_size": (192, 256), "sigma": 2.0}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not python",
        "codec = dict(type='SimCCLabel', input_size=(192, 256))",
        NEW.format(type="UDPHeatmap", more=", heatmap_type='combined'"),
        "codec = dict(**base)",
        "codec = MSRAHeatmap",
        "data_cfg = 3" + " " * 2_000_000,
        "codec = " + "(" * 5000,
    ],
)
def test_other_texts_say_nothing(text):
    assert settings.of_config(text) == {}


def test_a_text_is_not_executed(tmp_path):
    sign = tmp_path / "executed"
    text = (
        f"open({str(sign)!r}, 'w')\n"
        f"codec = dict(type='MSRAHeatmap', sigma=open({str(sign)!r}, 'w'))\n"
        f"codec = [open({str(sign)!r}, 'w') for _ in range(1)]\n"
    )
    assert settings.of_config(text) == {}
    assert not sign.exists()


def test_wrong_values_are_left_out():
    text = "codec = dict(type='MSRAHeatmap', input_size=(192,), sigma=-1)"
    assert settings.of_config(text) == MSRA


def test_a_file_is_known_by_its_name_or_its_sha256():
    name = "mmpose_hrnet_w32_coco_384x288_udp"
    (file,) = RELEASES[name].files
    options = {"alignment": "aligned", "input_size": (288, 384)}
    for of in ((file.name, "0" * 64), ("other.pth", file.sha256 + "0" * 56)):
        assert settings.of_file(*of, "hrnet_w32") == (name, options)
        assert settings.of_file(*of, "hrnet_w48") == ("", {})
    assert settings.of_file("model.safetensors", "0" * 64, "vitpose_base") == ("", {})
    original = settings.of_file(
        "pose_resnet_50_384x288.pth.tar", "", "simple_baseline_50"
    )
    assert original == ("simple_baseline_50_coco_288x384", {"input_size": (288, 384)})
    # Whether a file is a backbone is for the caller to say.
    assert settings.of_file("resnet18-f37072fd.pth", "", "multipose_18") == (
        "resnet18_imagenet", {}
    )  # fmt: skip


def test_every_row_of_mmpose_has_its_settings():
    rows = {name: it for name, it in RELEASES.items() if name.startswith("mmpose_")}
    assert len(rows) == 68
    for name, release in rows.items():
        (network,), (file,) = release.networks, release.files
        assert file.sha256 in file.name and len(file.sha256) == 8
        assert ("384x288" in name) == (release.options.get("input_size") == (288, 384))
        assert ("dark" in name) == (release.options.get("decoder") == "dark_paper")
        aligned = release.options.get("alignment") == "aligned"
        assert ("udp" in name) == aligned or network.startswith("vitpose")
        assert ("res" in network or "simple_baseline" in network) == (
            release.options.get("channels") == "rgb"
        )
