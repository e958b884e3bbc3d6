"""The registry of methods: which one a config means, and what is known of each."""

import dataclasses

import pytest

from pose_jax import methods, models
from pose_jax.errors import ConfigError
from pose_jax.keypoints import COCO
from pose_jax.methods import cells, dark, deeppose, detector, multipose, simcc
from pose_jax.types import Phase

SECTIONS = {
    "cells": {"model": {"name": "movenet_lightning"}, "input_size": (64, 96)},
    "dark": {"model": {"name": "pocket"}, "input_size": (64, 96)},
    "deeppose": {"model": {"name": "deeppose"}},
    "detector": {"model": {"name": "faster_rcnn_pocket"}},
    "multipose": {"model": {"name": "multipose_pocket"}},
    "simcc": {"model": {"name": "simcc_pocket"}, "input_size": (64, 96)},
}
CLASSES = {
    "cells": cells.Cells,
    "dark": dark.Dark,
    "deeppose": deeppose.DeepPose,
    "detector": detector.Detector,
    "multipose": multipose.MultiPose,
    "simcc": simcc.SimCC,
}


def section(name, **changes):
    return {"name": name, **SECTIONS[name], **changes}


def test_every_method_is_here():
    assert set(SECTIONS) == set(methods.METHODS)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_config_names_a_class_and_has_its_section(name):
    cls, config = methods.parse(section(name))
    assert cls is methods.find(name) is CLASSES[name]
    assert type(config) is cls.Config and config.name == name == cls.name
    method = methods.build(section(name), COCO)
    assert type(method) is cls and method.config == config
    assert method.keypoints == (None if name == "detector" else COCO)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_method_is_what_the_protocol_says(name):
    method = methods.build(section(name), COCO)
    assert models.entry(method.config.model.name).outputs == method.outputs
    assert method.phases and all(isinstance(phase, Phase) for phase in method.phases)
    files = [panel.file for panel in method.panels]
    assert len(set(files)) == len(files)
    if method.decoders:
        assert method.decoders[method.decoder_name] is method.decoder
        assert method.input_words
    for decoder in method.decoders.values():
        fields = {field.name for field in dataclasses.fields(method.Config)}
        assert set(decoder.uses) <= fields and decoder.inputs
    # It is nobody's key by its value, and cannot be changed.
    assert method != methods.build(section(name), COCO)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.config = None


def test_another_decoder_of_the_same_network():
    for name, other in (("dark", "shift"), ("multipose", "argmax")):
        own, read = (
            methods.build(section(name), COCO, decoder=d) for d in (None, other)
        )
        assert own.decoder_name != read.decoder_name == other
        assert dataclasses.replace(own.config, decoder=other) == read.config
    assert methods.build(section("deeppose"), COCO).decoder_name == "stage_3"
    method = methods.build(section("deeppose"), COCO, decoder="stage_1")
    assert method.decoder_name == "stage_1" and list(method.decoders) == [
        "stage_1", "stage_2", "stage_3"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (
            {"name": "darkk"},
            "config.method.name: no method 'darkk'; there are cells, dark, deeppose, "
            "detector, multipose, simcc",
        ),
        ({"name": "darkk"}, "Did you mean 'dark'? For a method of your own, give"),
        ({}, "config.method.name: no method None"),
        ({"name": "nobodys_module:Method"}, "No module named 'nobodys_module'"),
        (section("dark", decoderr="dark"), "decoder"),
        (
            section("dark", model={"name": "poket"}),
            "config.method.model.name: no model 'poket'",
        ),
        (
            section("deeppose", model={"name": "hrnet_w32"}),
            "config.method.model.name: 'hrnet_w32' gives heatmaps, method 'deeppose' "
            "needs coordinates; take another network, or method 'dark'.",
        ),
        (
            section("detector", model={"name": "multipose_50"}),
            "'multipose_50' gives heatmaps and offsets, method 'detector' needs boxes; "
            "take another network, or method 'multipose'.",
        ),
        (
            section("dark", model={"name": "pocket", "options": {"widht": 8}}),
            "Did you mean 'width'?",
        ),
        (
            section("deeppose", model={"name": "deeppose", "options": {"widht": 8}}),
            "has no option 'widht'",
        ),
    ],
)
def test_what_cannot_be_is_one_line(given, meant):
    with pytest.raises(ConfigError) as error:
        methods.build(given, COCO)
    assert meant in str(error.value) and "\n" not in str(error.value)


def test_a_detector_has_no_decoders():
    with pytest.raises(ConfigError, match=r"'detector' has no decoders; got 'dark'\."):
        methods.build(section("detector"), None, decoder="dark")


def test_what_needs_no_training_is_what_the_way_back_depends_on():
    """Decoders and their settings, flip tests, rescoring and the box's padding; and what
    suppresses a detector's boxes."""
    expected = {
        "dark": {
            *("decoder", "sigma", "kernel_size", "flip_test", "padding"),
            "rescore_threshold",
        },
        "cells": {
            *(
                "decoder",
                "weighting",
                "window",
                "kernel_size",
                "vote_sigma",
                "rescoring",
            ),
            *("flip_test", "padding"),
        },
        "deeppose": {"decoder", "flip_test"},
        "multipose": {"decoder", "radius", "rescoring", "flip_test", "padding"},
        "detector": {
            *("test_pre_nms", "test_post_nms", "score_threshold", "box_nms", "slots"),
        },
        "simcc": {"decoder", "flip_test", "padding"},
    }
    found = {name: methods.without_retraining(cls) for name, cls in CLASSES.items()}
    assert {name: set(fields) for name, fields in found.items()} == expected
    for name, fields in found.items():
        names = [field.name for field in dataclasses.fields(CLASSES[name].Config)]
        assert fields == [field for field in names if field in fields]  # In this order.


def test_decoders_of_heatmaps_alone_are_those_of_dark():
    """MultiPose's own of that kind has the name and is the function of one of DARK's."""
    assert methods.heatmap_decoders() == dict(dark.DECODERS)
    assert multipose.DECODERS["argmax"].fn is dark.DECODERS["argmax"].fn
    for name in ("hough", "hough_subpixel", "argmax_offset"):
        assert list(multipose.DECODERS[name].inputs) == ["heatmaps", "offsets"]


@pytest.mark.parametrize("name", models.MODELS)
def test_every_network_has_a_method_that_reads_it(name):
    method = methods.for_network(name)
    assert methods.METHODS[method].outputs == models.entry(name).outputs
    if name in ("deeppose", "multipose_50", "faster_rcnn_50", "hrnet_w32"):
        expected = dict(
            deeppose="deeppose", multipose_50="multipose",
            faster_rcnn_50="detector", hrnet_w32="dark",
        )  # fmt: skip
        assert method == expected[name]
