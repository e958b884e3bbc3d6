"""COCO files as a Table: both layouts, nothing lost, and what is refused."""

import copy
import json

import numpy as np
import pytest
from PIL import Image

from pose_jax import keypoints
from pose_jax.data import coco, table
from pose_jax.errors import InputError

SIZES = {"a.jpg": (31, 20), "b.png": (16, 40), "grey.jpg": (12, 13)}
BIG_ID = 900100002299  # As COCO's crowd ids: does not fit into int32.


def annotation(i, image_id, **fields):
    triples = [float(v) for j in range(17) for v in (j + 0.25, 2 * j, j % 3)]
    row = {
        "id": i, "image_id": image_id, "category_id": 1, "iscrowd": 0,
        "bbox": [1.5, 2.25, 7.1, 9.3], "area": 41.5, "keypoints": triples,
        "num_keypoints": 11,
    }  # fmt: skip
    return row | fields


def tiny(split="train2017"):
    """Three images; four people, of whom one is a crowd and one has no keypoints."""
    crowd = annotation(BIG_ID, 11, iscrowd=1, keypoints=[0] * 51)
    bare = annotation(4, 13)
    del bare["keypoints"]
    return {
        "images": [
            {"id": i, "file_name": name, "width": w, "height": h}
            for i, (name, (w, h)) in zip((11, 12, 13), SIZES.items(), strict=True)
        ],
        "categories": [
            {"id": 2, "name": "dog"},
            {"id": 1, "name": "person", "keypoints": list(keypoints.COCO.names)},
        ],
        "annotations": [
            annotation(1, 13),
            crowd,
            annotation(3, 11),
            bare,
            {"id": 5, "image_id": 11, "category_id": 2, "bbox": [0, 0, 1, 1]},
        ],
    }


def write(root, data, *, layout="", split="train2017"):
    folder = root / layout / split
    folder.mkdir(parents=True)
    for name, (w, h) in SIZES.items():
        mode = "L" if name == "grey.jpg" else "RGB"
        Image.new(mode, (w, h), 77).save(folder / name)
    (root / "annotations").mkdir()
    path = root / "annotations" / f"person_keypoints_{split}.json"
    path.write_text(json.dumps(data))
    return path


@pytest.fixture
def root(tmp_path):
    write(tmp_path, tiny())
    return tmp_path


@pytest.mark.parametrize("layout", ["", "images"])
def test_every_person_of_every_image_is_kept(tmp_path, layout):
    data = tiny()
    write(tmp_path, data, layout=layout)
    read = coco.load(tmp_path)
    assert [i.name for i in read.images] == list(SIZES)
    assert all(i.is_file() and layout in i.parts for i in read.images if layout)
    assert read.image_ids.tolist() == [11, 12, 13]
    assert read.image_sizes.tolist() == [list(size) for size in SIZES.values()]
    assert read.ids.tolist() == [1, BIG_ID, 3, 4]
    assert read.ids.dtype == np.int64
    assert read.image.tolist() == [2, 0, 0, 2]
    assert read.crowd.tolist() == [False, True, False, False]
    assert (read.box_scores == 1).all() and read.box_source == "gt_boxes"
    for row, source in enumerate(data["annotations"][:4]):
        x, y, w, h = source["bbox"]
        assert read.boxes_xyxy[row].tolist() == [x, y, x + w, y + h]  # float64: exact
        assert read.areas[row] == source["area"]
        triples = np.reshape(source.get("keypoints", [0.0] * 51), (17, 3))
        np.testing.assert_array_equal(read.points_xy[row], triples[:, :2])
        np.testing.assert_array_equal(read.visibility[row], triples[:, 2])
    assert read.labelled_rows().tolist() == [0, 2]
    assert [read.people_of_image(i).tolist() for i in range(3)] == [[1, 2], [], [0, 3]]


def test_detections_replace_people_and_keep_scores(root):
    rows = [
        {"image_id": 13, "category_id": 1, "bbox": [1, 2, 3.5, 4], "score": 0.25},
        {"image_id": 11, "category_id": 1, "bbox": [0, 0, 5, 6], "score": 1e-20},
        {"image_id": 11, "category_id": 2, "bbox": [0, 0, 5, 6], "score": 0.9},
        {"image_id": 99, "category_id": 1, "bbox": [0, 0, 5, 6], "score": 0.9},
        {"image_id": 11, "category_id": 1, "bbox": [0, 0, 0, 6], "score": 0.9},
    ]
    path = root / "boxes.json"
    path.write_text(json.dumps(rows))
    read = coco.load(root, detections=path)
    assert read.box_source == "detections"
    assert read.image.tolist() == [2, 0]
    assert read.boxes_xyxy.tolist() == [[1, 2, 4.5, 6], [0, 0, 5, 6]]
    assert read.box_scores.tolist() == [0.25, 1e-20]
    assert read.areas.tolist() == [14, 30]
    assert not read.ids.any() and not read.visibility.any() and not read.crowd.any()
    assert read.points_xy.shape == (2, 17, 2)
    path.write_text("[]")
    assert coco.load(root, detections=path).points_xy.shape == (0, 17, 2)


def test_missing_images_are_counted_or_skipped(root):
    for name in ("a.jpg", "grey.jpg"):
        (root / "train2017" / name).unlink()
    with pytest.raises(InputError, match=r"2 of 3 images .*a\.jpg, grey\.jpg"):
        coco.load(root)
    read = coco.load(root, missing="skip")
    assert read.image_ids.tolist() == [12] and len(read) == 0
    with pytest.raises(ValueError, match="missing"):
        coco.load(root, missing="ignore")


def test_absent_folders_and_files_say_where_was_looked(tmp_path):
    path = write(tmp_path, tiny())
    with pytest.raises(InputError, match=r"val2017.*images.val2017"):
        coco.load(tmp_path, "val2017", annotations=path)
    with pytest.raises(InputError, match=r"person_keypoints_val2017\.json does not"):
        coco.load(tmp_path, "val2017")
    with pytest.raises(InputError, match=r"nowhere\.json does not exist"):
        coco.load(tmp_path, detections=tmp_path / "nowhere.json")


def change(*path, to=None):
    def apply(data):
        *inner, last = path
        for key in inner:
            data = data[key]
        if to is None:
            del data[last]
        else:
            data[last] = to

    return apply


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (change("images"), "images is missing"),
        (change("annotations"), "annotations is missing"),
        (change("categories"), "categories is missing"),
        (change("categories", 1, "keypoints"), "0 categories have keypoints"),
        (change("categories", 1, "keypoints", to=["nose"]), "has 1 keypoints"),
        (change("images", 1, "width"), "image id 12: width is missing"),
        (change("images", 1, "height", to=0), "image id 12: height must be positive"),
        (change("images", 1, "file_name", to=3), "image id 12: file_name cannot be 3"),
        (change("images", 1, "id", to=11), "id 11: two images"),
        (change("images", 1, "id"), "image number 1: id is missing"),
        (change("annotations", 2, "bbox"), "annotation id 3: bbox is missing"),
        (change("annotations", 2, "bbox", to=[1, 2, 3]), "id 3: bbox must be 4"),
        (change("annotations", 2, "bbox", to=[1, 2, 3, float("nan")]), "id 3: bbox"),
        (change("annotations", 2, "area"), "id 3: area is missing"),
        (change("annotations", 2, "area", to=float("inf")), "id 3: area must be fin"),
        (change("annotations", 2, "image_id", to=77), "id 3: image_id 77 is not"),
        (change("annotations", 2, "image_id", to="11"), "id 3: image_id cannot be"),
        (change("annotations", 2, "keypoints", to=[0] * 50), "id 3: keypoints must be"),
        (change("annotations", 2, "keypoints", to=[3] * 51), "visibility must be"),
        (change("annotations", 2, to=5), "annotation number 2: category_id is missing"),
    ],
)
def test_damage_is_named_in_one_line(tmp_path, damage, said):
    data = copy.deepcopy(tiny())
    damage(data)
    path = write(tmp_path, data)
    with pytest.raises(InputError, match=said) as caught:
        coco.load(tmp_path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"images": [', "\xff\xfe"])
def test_what_is_not_the_file_is_refused(root, text):
    path = root / "annotations" / "person_keypoints_train2017.json"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(InputError, match="person_keypoints_train2017"):
        coco.load(root)
    path.write_text(json.dumps(tiny()))
    (root / "boxes.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match="not a list"):
        coco.load(root, detections=root / "boxes.json")


def test_another_keypoint_set_is_read_by_its_names(tmp_path):
    hand = keypoints.KeypointSet("hand", ("wrist", "thumb"), (), ((0, 1),))
    data = tiny()
    data["categories"] = [{"id": 7, "name": "hand", "keypoints": ["wrist", "thumb"]}]
    data["annotations"] = [
        annotation(1, 11, category_id=7, keypoints=[1, 2, 2, 3, 4, 1]),
    ]
    write(tmp_path, data)
    read = coco.load(tmp_path, keypoints=hand)
    assert read.points_xy.tolist() == [[[1, 2], [3, 4]]]
    with pytest.raises(InputError, match="keypoint set coco has 17"):
        coco.load(tmp_path)


def test_boxes_that_were_given_become_rows(root):
    folder = root / "train2017"
    pixels = np.zeros((5, 9, 3), np.uint8)
    images = [folder / "a.jpg", pixels, str(folder / "grey.jpg")]
    boxes = [[[0, 1, 2, 3], [4, 5, 6, 9]], np.zeros((0, 4)), [[1, 1, 2, 2]]]
    scores = [[0.5, 0.25], [], [1]]
    made = table.from_boxes(images, boxes, scores, keypoints=keypoints.COCO)
    assert made.image_sizes.tolist() == [[31, 20], [9, 5], [12, 13]]
    assert made.image.tolist() == [0, 0, 2]
    assert made.box_scores.tolist() == [0.5, 0.25, 1]
    assert made.areas.tolist() == [4, 8, 1]
    assert not made.visibility.any() and made.box_source == "given_boxes"
    whole = table.from_boxes(images, None, keypoints=keypoints.COCO)
    assert whole.boxes_xyxy.tolist() == [[0, 0, 31, 20], [0, 0, 9, 5], [0, 0, 12, 13]]
    assert whole.box_source == "image"
    assert len(table.from_boxes([], [], keypoints=keypoints.COCO)) == 0


@pytest.mark.parametrize(
    ("images", "boxes", "scores"),
    [
        ([np.zeros((5, 9), np.uint8)], None, None),
        ([np.zeros((5, 9, 3), np.float32)], None, None),
        (["nowhere.jpg"], None, None),
        ([__file__], None, None),
        ([np.zeros((5, 9, 3), np.uint8)], [[[0, 0, 2, 0]]], None),
        ([np.zeros((5, 9, 3), np.uint8)], [[[0, 0, np.inf, 2]]], None),
        ([np.zeros((5, 9, 3), np.uint8)], [], None),
        ([np.zeros((5, 9, 3), np.uint8)], [[[0, 0, 2, 2]]], [[]]),
    ],
)
def test_boxes_and_images_that_do_not_fit_are_refused(images, boxes, scores):
    with pytest.raises(InputError):
        table.from_boxes(images, boxes, scores, keypoints=keypoints.COCO)


def test_real_coco_is_read_whole(real_data):
    root = real_data / "coco"
    for split in ("train2017", "val2017"):
        path = root / "annotations" / f"person_keypoints_{split}.json"
        data = json.loads(path.read_text())
        read = coco.load(root, split)
        ours, theirs = read.coco_ground_truth(), data["annotations"]
        assert len(ours["images"]) == len(data["images"])
        for a, b in zip(ours["annotations"], theirs, strict=True):
            assert all(a[f] == b[f] for f in ("id", "image_id", "iscrowd", "area"))
            assert a["keypoints"] == b["keypoints"]
            assert a["num_keypoints"] == b["num_keypoints"]
            np.testing.assert_allclose(a["bbox"], b["bbox"], atol=1e-9)
