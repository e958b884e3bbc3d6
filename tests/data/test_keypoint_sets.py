"""Keypoint sets of categories and of option `keypoints`, and the layouts of COCO files."""

import json

import numpy as np
import pytest
from PIL import Image

from pose_jax import data
from pose_jax.data import coco, keypoint_sets
from pose_jax.data.check import run as check
from pose_jax.errors import ConfigError, InputError
from pose_jax.keypoints import COCO, KeypointSet, mirrored, pairs_by_name, side_of

NAMES = ("snout", "left_ear", "right_ear", "tail")
MOUSE = keypoint_sets.of_category("mouse", NAMES, [[1, 2], [1, 3], [1, 4]])


def test_left_and_right_are_found_in_names():
    for name, other in {
        "left_ear": "right_ear", "r_leg3": "l_leg3", "L_wing": "R_wing", "ear_L": "ear_R",
        "LeftEar": "RightEar", "wing-l": "wing-r", "snout": None, "tail_tip": None,
    }.items():  # fmt: skip
        assert mirrored(name) == other, name
        assert other is None or mirrored(other) == name
    assert [side_of(n) for n in ("r_leg", "EarLeft", "pearl")] == ["right", "left", ""]
    assert pairs_by_name(("r_a", "l_a", "left_b", "nose")) == ((1, 0),)
    groups = KeypointSet("s", ("l_a", "tail", "r_a", "ear_L", "ear_R"), (), ()).groups
    assert groups == {"a": (0, 2), "tail": (1,), "ear": (3, 4)}


def test_the_set_of_a_category():
    assert MOUSE.skeleton == ((0, 1), (0, 2), (0, 3)) and MOUSE.flip_pairs == ((1, 2),)
    from_zero = keypoint_sets.of_category("mouse", NAMES, [[0, 3], [1, 2]])
    assert from_zero.skeleton == ((0, 3), (1, 2))
    said = keypoint_sets.described(from_zero, [[0, 3], [1, 2]])
    assert "counted from 0" in said and "left_ear and right_ear" in said
    assert keypoint_sets.of_category("person", COCO.names, None) is COCO
    assert keypoint_sets.of_category("x", ["tip"], []).names == ("tip",)
    hundreds = [f"{side}_{i}" for i in range(150) for side in "lr"]
    assert len(keypoint_sets.of_category("x", hundreds, None).flip_pairs) == 150


@pytest.mark.parametrize(
    ("names", "skeleton", "said"),
    [
        (NAMES, [[1, 5]], r"\[1, 5\] is no pair of keypoints 1 to 4"),
        (NAMES, [[0, 4]], r"\[0, 4\] is no pair of keypoints 0 to 3"),
        (NAMES, [[1]], "pairs of integers"),
        (NAMES, [[2, 2]], "no pair"),
        (("a", "a"), None, "two keypoints have the name 'a'"),
    ],
)
def test_a_bad_category_is_one_line(names, skeleton, said):
    with pytest.raises(InputError, match=said) as caught:
        keypoint_sets.of_category("mouse", names, skeleton)
    assert "\n" not in str(caught.value)


def test_an_option_says_what_the_file_does_not(tmp_path):
    option = {"sigmas": 0.05, "torso": ["snout", "tail"], "flip_pairs": []}
    found = keypoint_sets.resolve(option, MOUSE)
    assert found.sigmas == (0.05,) * 4 and found.torso == (0, 3)
    assert found.flip_pairs == () and found.skeleton == MOUSE.skeleton
    assert found.name == "mouse" and found.one_sigma == 0.05
    option = {
        "sigmas": dict(zip(NAMES, (0.1, 0.2, 0.3, 0.4), strict=True)),
        "sticks": [["spine", ["left_ear", "right_ear"], "tail"]],
        "skeleton": [[0, "tail"]],
    }
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(option))
    for each in (option, path, str(path)):
        found = keypoint_sets.resolve(each, MOUSE)
        assert found.sigmas == (0.1, 0.2, 0.3, 0.4) and found.one_sigma is None
        assert found.sticks == (("spine", (1, 2), 3),) and found.skeleton == ((0, 3),)
    named = keypoint_sets.resolve({"names": NAMES}, None)
    assert named.flip_pairs == ((1, 2),) and named.skeleton == ()
    assert keypoint_sets.resolve(MOUSE.to_json(), None) == MOUSE
    assert keypoint_sets.resolve("coco", MOUSE) is COCO


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"flip_pairs": [["left_ear", "right_eer"]]}, "mean 'right_ear'"),
        ({"flip_pairs": [["left_ear"]]}, "must be pairs"),
        ({"flip_pairs": "ears"}, "must be a list"),
        ({"sigmas": [0.1, 0.2]}, "needs 4 positive numbers.*got 2"),
        ({"sigmas": 0}, "positive"),
        ({"sigmas": "x"}, "must be numbers"),
        ({"sigmas": {"snout": 0.1}}, "no number for left_ear, right_ear, tail"),
        ({"sigmas": {"nose": 0.1}}, "no keypoint 'nose'"),
        ({"skeleton": [[0, 4]]}, "skeleton names keypoint 4; there are 4, 0 to 3"),
        ({"torso": ["snout"]}, "must be two"),
        ({"torso": [0.5, 1]}, "neither a name nor an index"),
        ({"sticks": [["snout", "tail"]]}, r"is not \(name, end, end\)"),
        ({"sigma": 0.1}, "Did you mean 'sigmas'"),
        ({"names": "snout"}, "list of texts"),
        (7, "must be a mapping"),
        ("mouse", "no keypoint set 'mouse'"),
        ("gone.json", "does not exist"),
    ],
)
def test_a_bad_option_is_one_line(option, said):
    with pytest.raises(InputError, match=said) as caught:
        keypoint_sets.resolve(option, MOUSE)
    assert "\n" not in str(caught.value)


def test_names_are_needed_where_the_file_has_none():
    with pytest.raises(ConfigError, match="names are missing"):
        keypoint_sets.resolve({"sigmas": 0.1}, None)


def write(
    json_path, folder, split_names=("a.png", "b.png"), *, names=NAMES, **category
):
    """Two images of one mouse each, ids from 0, and a parent category without keypoints."""
    folder.mkdir(parents=True, exist_ok=True)
    json_path.parent.mkdir(parents=True, exist_ok=True)
    for name in split_names:
        Image.fromarray(np.full((40, 60, 3), 99, np.uint8)).save(folder / name)
    k = len(NAMES)
    points = np.stack([np.arange(k) * 5 + 9, np.arange(k) * 4 + 8, np.full(k, 2)], -1)
    mouse = {"id": 1, "name": "mouse", "skeleton": [[1, 2]], **category}
    if names:
        mouse["keypoints"] = list(names)
    content = {
        "categories": [{"id": 0, "name": "mice", "supercategory": "none"}, mouse],
        "images": [
            {"id": i, "file_name": name, "width": 60, "height": 40}
            for i, name in enumerate(split_names)
        ],
        "annotations": [
            {
                "id": i, "image_id": i, "category_id": 1, "bbox": [5, 5, 30, 30],
                "area": 900, "iscrowd": 0, "keypoints": points.reshape(-1).tolist(),
            }
            for i, _ in enumerate(split_names)
        ],
    }  # fmt: skip
    json_path.write_text(json.dumps(content))
    return json_path


LAYOUTS = {
    "coco": ("annotations/person_keypoints_val.json", "val", "val"),
    "cvat": ("annotations/person_keypoints_default.json", "images/default", "default"),
    "cvat, flat": ("annotations/person_keypoints_default.json", "images", "default"),
    "roboflow": ("valid/_annotations.coco.json", "valid", "valid"),
    "one json, one folder": ("labels.json", "images", "labels"),
    "beside the images": ("labels.json", ".", "labels"),
    "in annotations": ("annotations/train.json", "train", "train"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_read_in_place(layout, tmp_path):
    file, folder, split = LAYOUTS[layout]
    write(tmp_path / file, tmp_path / folder)
    (source,) = check.sources(tmp_path)
    assert (source.name, source.split) == ("coco", split)
    report = check.check(source)
    assert not report.exit_code, report.text()
    assert "keypoint set 'mouse', 4 keypoints" in report.text()
    table = data.load(source)
    assert table.keypoints.names == NAMES and table.category_id == 1
    assert [p.name for p in table.images] == ["a.png", "b.png"]
    assert all(path.is_file() for path in table.images)
    assert len(table) == 2 and "flip pairs by their names: left_ear" in table.notes[0]


def test_boxes_only_are_refused_in_one_line(tmp_path):
    path = write(tmp_path / "annotations/instances_default.json", tmp_path / "images")
    content = json.loads(path.read_text())
    del content["categories"][1]["keypoints"]
    for person in content["annotations"]:
        del person["keypoints"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"instances_default\.json has no keypoints"):
        check.sources(tmp_path)


def test_a_file_without_names_needs_a_set_of_its_number(tmp_path):
    write(tmp_path / "labels.json", tmp_path / "images", names=None)
    with pytest.raises(InputError, match=r"names no keypoints, .*'names': \["):
        coco.load(tmp_path, "labels")
    table = coco.load(tmp_path, "labels", keypoints={"names": NAMES})
    assert table.keypoints.flip_pairs == ((1, 2),)
    assert coco.load(tmp_path, "labels", assumed=MOUSE).keypoints == MOUSE


def test_a_run_keeps_its_set(tmp_path):
    write(tmp_path / "labels.json", tmp_path / "images")
    source = data.SourceConfig("coco", str(tmp_path), "labels")
    own = keypoint_sets.resolve({"sigmas": 0.07, "flip_pairs": []}, MOUSE)
    table = data.load(source, own)
    assert table.keypoints == own and table.notes == ()
    train = data.SourceConfig("coco", "", "", {"keypoints": {"sigmas": 0.1}})
    inherited = data.inheriting(source, train)
    assert data.load(inherited).keypoints.one_sigma == 0.1
    assert data.inheriting(inherited, data.SourceConfig("coco", "", "")) is inherited


def test_the_option_is_for_every_data_set(tmp_path):
    write(tmp_path / "labels.json", tmp_path / "images")
    options = {"sources": {"a": {"name": "coco", "split": "labels"}}}
    joined = data.SourceConfig("joined", str(tmp_path), "", options)
    assert data.load(joined).keypoints.sigmas is None
    options["keypoints"] = {"sigmas": 0.1}
    assert data.load(joined).keypoints.sigmas == (0.1,) * 4
    options["keypoints"] = "lsp"
    with pytest.raises(InputError, match="4 keypoints of set 'mouse', not the 14"):
        data.load(joined)
