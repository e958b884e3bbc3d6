"""labelme and X-AnyLabeling: groups of points and rectangles."""

import base64
import json

import pytest

from pose_jax.errors import InputError
from tests.data.convert import exports

NAMES = ("head", "tail")


def shape(kind, label, *points, group=None, **more):
    return {
        "label": label, "points": points, "group_id": group, "shape_type": kind,
        "flags": {}, **more,
    }  # fmt: skip


def write(path, *shapes, image="a.png", data=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image,
        "imageData": data, "imageHeight": 48, "imageWidth": 64,
    }  # fmt: skip
    path.write_text(json.dumps(content))
    return path


def test_groups_are_animals(tmp_path):
    write(
        tmp_path / "labels/a.json",
        shape("point", "tail", [30, 20], group=0, difficult=True),
        shape("rectangle", "fly", [40, 30], [8, 6], group=0),  # Drawn backwards.
        shape("point", "head", [10, 10], group=0),
        shape("rectangle", "fly", [1, 2], [5, 2], [5, 9], [1, 9], group=2),
        shape("point", "head", [3, 4], group=2),
        shape("point", "head", [50, 40]),
        shape("polygon", "food", [2, 40], [8, 40], [5, 46], group=0),
        image="..\\frames\\a.png",
    )
    write(
        tmp_path / "labels/deep/b.json",
        shape("point", "head", [10, 12], group=5),
        shape("point", "tail", [20, 32], group=5),
        image="../../frames/b.png",
    )
    for letter in "ab":
        exports.picture(tmp_path / f"frames/{letter}.png")
    said, found = exports.convert_from(
        "labelme", tmp_path / "labels", tmp_path / "o", names=NAMES
    )
    first, second = found["train/a.png"]
    assert first["points"] == {"head": (10, 10, 2), "tail": (30, 20, 1)}
    assert first["box"] == (8, 6, 32, 24) and second["box"] == (1, 2, 4, 7)
    assert found["train/b.png"][0]["box"] == (10, 12, 10, 20)
    assert "1 box made from keypoints" in said
    assert "1 point without a group_id" in said
    assert "1 shape of type polygon 'food', without keypoints" in said


def test_without_groups_an_image_shows_one_animal(tmp_path):
    data = base64.b64encode(exports.png_bytes()).decode()
    points = shape("point", "head", [10, 12]), shape("point", "tail", [20, 32])
    path = write(tmp_path / "a.json", *points, data=data)
    said, found = exports.convert_from("labelme", path, tmp_path / "o", names=NAMES)
    assert exports.points(found["train/a.png"][0])["tail"] == (20, 32, 2)
    assert (tmp_path / "o/train/a.png").read_bytes() == exports.png_bytes()
    assert "no group_id" in said


def test_files_that_are_refused(tmp_path):
    path = write(tmp_path / "a.json", shape("rectangle", "fly", [1, 1], [2, 2]))
    with pytest.raises(InputError, match=r"no points.*shapes: rectangle"):
        exports.convert_from("labelme", path, tmp_path / "o", names=NAMES)
    write(path, shape("point", "head", [1, 1], group=1))
    with pytest.raises(InputError, match=r"order of its keypoints .*\(head\).*--names"):
        exports.convert_from("labelme", path, tmp_path / "o")
    with pytest.raises(InputError, match=r"none of its 1 images is in .*a\.png"):
        exports.convert_from("labelme", path, tmp_path / "o", names=NAMES)
    write(path, shape("point", "head", [1], group=1))
    with pytest.raises(InputError, match=r"a\.json is not as labelme writes it"):
        exports.convert_from("labelme", path, tmp_path / "o", names=NAMES)
