"""Division of a COCO file: what stays together, fractions, seeds, files."""

import json

import numpy as np
import pytest
from PIL import Image

from pose_jax import cli
from pose_jax.data import coco, split
from pose_jax.errors import InputError
from pose_jax.keypoints import COCO


@pytest.mark.parametrize(
    ("name", "video"),
    [
        ("cat_0001.jpg", "cat"),
        ("cat_frame0012.png", "cat"),
        ("day 2/cat-img-7.jpg", "day 2/cat"),
        ("clip1/0001.jpg", "clip1"),
        ("mouse3_12.jpg", "mouse3"),
        ("mouse_12_jpg.rf.0123abcd.jpg", "mouse"),
        ("clips\\a\\frame_000001.png", "clips/a"),
        ("portrait.jpg", "portrait"),
        ("0001.jpg", "."),
    ],
)
def test_the_name_of_a_frame_says_its_video(name, video):
    assert split.video_of(name) == video


def test_images_are_grouped_by_what_is_asked():
    names = ["a/x_1.jpg", "a/x_2.jpg", "a/y_1.jpg", "b/x_1.jpg"]
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    assert split.groups(images, "folder") == {"a": [0, 1, 2], "b": [3]}
    assert split.groups(images, "video") == {"a/x": [0, 1], "a/y": [2], "b/x": [3]}
    assert list(split.groups(images, "image")) == names
    with_ids = [image | {"video_id": image["id"] % 2} for image in images]
    assert split.groups(with_ids, "video") == {"0": [0, 2], "1": [1, 3]}


@pytest.mark.parametrize("seed", range(5))
def test_parts_have_about_their_fraction_and_no_group_is_divided(seed):
    sizes = {f"v{i}": 10 + i for i in range(20)}
    parts = split.divide(sizes, {"val": 0.2, "test": 0.1}, seed)
    assert sorted(g for of in parts.values() for g in of) == sorted(sizes)
    images = {part: sum(sizes[g] for g in of) for part, of in parts.items()}
    total = sum(sizes.values())
    assert abs(images["val"] - 0.2 * total) <= 15
    assert abs(images["test"] - 0.1 * total) <= 15
    assert parts == split.divide(
        dict(reversed(sizes.items())), {"val": 0.2, "test": 0.1}, seed
    )
    assert parts != split.divide(sizes, {"val": 0.2, "test": 0.1}, seed + 1)


def test_each_part_has_a_group_even_of_few_large_ones():
    assert split.divide({"a": 90, "b": 80}, {"val": 0.1}, 0) == {
        "val": ["b"],
        "train": ["a"],
    }
    assert all(split.divide(dict.fromkeys("abc", 1), {"val": 0.9}, 0).values())
    with pytest.raises(InputError, match=r"1 groups of images \(a\) cannot be divided"):
        split.divide({"a": 9}, {"val": 0.2}, 0)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "annotations").mkdir()
    folder = tmp_path / "frames"
    folder.mkdir()
    names = [f"{video}_{i:03}.png" for video in "abcde" for i in range(2)]
    for name in names:
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / name)
    data = {
        "info": {"description": "frames"},
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.names)}],
        "images": [
            {"id": i, "file_name": name, "width": 8, "height": 8}
            for i, name in enumerate(names)
        ],
        "annotations": [
            {
                "id": i + 1, "image_id": i // 2, "category_id": 1, "bbox": [1, 1, 5, 5],
                "area": 25, "keypoints": [3, 3, 2] * 17, "iscrowd": 0,
            }
            for i in range(2 * len(names))
        ],
    }  # fmt: skip
    file = tmp_path / "annotations" / "person_keypoints_frames.json"
    file.write_text(json.dumps(data))
    return tmp_path


def test_the_loader_reads_what_is_written_and_nothing_is_in_both(
    root, tmp_path, capsys
):
    out = tmp_path / "parts"
    assert cli.main(["data", "split", str(root), "--out", str(out), "--seed", "3"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{out / 'train.json'}: 8 images, 4 videos (")
    tables = {}
    for use in ("train", "eval"):
        (line,) = (line for line in said if line.startswith(f"  data.{use}: "))
        section = json.loads(line.split(": ", 1)[1])
        options = section["options"]
        tables[use] = coco.load(section["root"], section["split"], **options)
    assert [len(t.images) for t in tables.values()] == [8, 2]
    assert [len(t) for t in tables.values()] == [16, 4]
    videos = [{path.stem[0] for path in t.images} for t in tables.values()]
    assert not videos[0] & videos[1]
    assert json.loads((out / "val.json").read_text())["info"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--val", "1"], "val must be positive, test not negative"),
        (["--by", "folder"], "1 groups of images (.) cannot be divided into 2 parts"),
        (["--split", "nothing"], "person_keypoints_nothing.json does not exist"),
        (["--annotations", "x.json"], "--annotations x.json: also give --split"),
    ],
)
def test_what_cannot_be_divided_is_one_line(root, tmp_path, capsys, options, message):
    words = ["data", "split", str(root), "--out", str(tmp_path / "parts"), *options]
    assert cli.main(words) != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "parts").exists()


def test_files_are_not_replaced(root, tmp_path, capsys):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "val.json").write_text("mine")
    assert cli.main(["data", "split", str(root), "--out", str(tmp_path / "parts")]) == 2
    assert "val.json exists: give another --out" in capsys.readouterr().err
    assert not (tmp_path / "parts" / "train.json").exists()
