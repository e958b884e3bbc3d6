"""YOLO-pose: splits of three forms, two or three numbers per keypoint, wrong rows."""

import json

import pytest

from pose_jax.errors import InputError
from tests.data.convert import exports

ABOUT = """
path: .
train: train.txt
val: [images/val]
test:
kpt_shape: [3, {dimensions}]
flip_idx: [0, 2, 1]
names:
  0: mouse
kpt_names:
  0: [snout, ear_a, ear_b]
"""
BOX = "0 0.5 0.5 0.25 0.5"


def write(folder, rows, dimensions=3, about=ABOUT, image="val/deep/1"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.yaml").write_text(about.format(dimensions=dimensions))
    (folder / "train.txt").touch()
    exports.picture(folder / f"images/{image}.png")
    labels = folder / f"labels/{image}.txt"
    labels.parent.mkdir(parents=True, exist_ok=True)
    labels.write_text(rows)
    return folder


ROWS = {
    2: (f"{BOX} 0.25 0.25 0 0 0.5 0\n", {"snout": (16, 12, 2), "ear_b": (32, 0, 2)}),
    3: (f"{BOX} 0.25 0.25 1 0.5 0.5 0 0 0 2.000000\n",
        {"snout": (16, 12, 1), "ear_b": (0, 0, 2)}),
}  # fmt: skip


@pytest.mark.parametrize("dimensions", ROWS)
def test_two_or_three_numbers_per_keypoint(tmp_path, dimensions):
    row, expected = ROWS[dimensions]
    write(tmp_path / "in", row, dimensions)
    said, found = exports.convert_from("yolo-pose", tmp_path / "in", tmp_path / "out")
    (person,) = found["val/deep/1.png"]
    assert exports.points(person) == expected
    assert person["box"] == (24, 12, 16, 24) and person["category"] == "mouse"
    # Their names do not say which are left and right.
    keypoints = json.loads((tmp_path / "out/keypoints.json").read_text())
    assert keypoints["flip_pairs"] == [[1, 2]]
    assert f"options.keypoints={tmp_path / 'out/keypoints.json'}" in said


def test_lists_are_relative_to_themselves_or_the_data_set(tmp_path):
    row = ROWS[3][0]
    for name in ("train/a/1", "train/b/1", "train/c/1"):
        write(tmp_path, row, image=name)
    write(tmp_path, row)
    lines = ["images/train/a/1.png", "./images/train/b/1.png", "images/train/x/1.png"]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    (tmp_path / "labels/train/b/1.txt").unlink()
    said, found = exports.convert_from("yolo-pose", tmp_path, tmp_path / "out")
    people = {name: len(own) for name, own in found.items()}
    assert people == {"train/a/1.png": 1, "train/b/1.png": 0, "val/deep/1.png": 1}
    assert "1 file of labels that do not exist" in said
    assert "1 image not found" in said and "train/x/1.png" in said


WRONG = {
    "boxes": (BOX, r"1\.txt: line 1 has 5 numbers; kpt_shape \[3, 3\] needs 14"),
    "score": (f"{BOX} 0.2 0.2 0.87 0 0 0 0 0 0", "visibility 0.87 is none of 0, 1, 2"),
    "pixels": (f"{BOX} 16 12 2 0 0 0 0 0 0", "keypoint snout .16, 12. is no fraction"),
    "class": ("3 0 0 1 1 0 0 0 0 0 0 0 0 0", "class 3 is not among names"),
    "text": ("mouse 1 2 3", "is no row of numbers"),
    "nothing": ("", "no keypoints in the labels"),
}


@pytest.mark.parametrize("name", WRONG)
def test_rows_that_are_refused(tmp_path, name):
    rows, reason = WRONG[name]
    write(tmp_path, rows)
    with pytest.raises(InputError, match=reason):
        exports.convert_from("yolo-pose", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_boxes_and_unnamed_keypoints_are_refused(tmp_path):
    about = ABOUT.split("kpt_names")[0]
    write(tmp_path, ROWS[3][0], about=about)
    with pytest.raises(InputError, match=r"names no keypoints.*--names A,B"):
        exports.convert_from("yolo-pose", tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="3 keypoints, --names has 2"):
        exports.convert_from("yolo-pose", tmp_path, tmp_path / "out", names=("a", "b"))
    _, found = exports.convert_from(
        "yolo-pose", tmp_path, tmp_path / "out", names=("a", "b", "c")
    )
    assert list(found["val/deep/1.png"][0]["points"]) == ["a", "b", "c"]
    (tmp_path / "data.yaml").write_text("train: images\nnames: [mouse]\n")
    with pytest.raises(InputError, match="no kpt_shape: it is a data set of boxes"):
        exports.convert_from("yolo-pose", tmp_path, tmp_path / "out2")
