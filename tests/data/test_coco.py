"""COCO beyond what all data sets have (test_formats.py): both layouts, crowds and people
without keypoints, a detector's boxes, other keypoint sets, and the real files."""

import json

import numpy as np
import pytest

from pose_jax import keypoints
from pose_jax.data import coco, table
from pose_jax.errors import InputError
from tests.data import writers

PEOPLE = writers.people(keypoints.COCO)
BIG_ID = 900100002299  # As COCO's crowd ids: does not fit into int32.


@pytest.fixture
def root(tmp_path):
    writers.coco(tmp_path, PEOPLE)
    return tmp_path


@pytest.mark.parametrize("layout", ["", "images/"])
def test_every_person_of_every_image_is_kept(tmp_path, layout):
    """A crowd and one without keypoints too; dogs are not."""
    path = writers.coco(tmp_path, PEOPLE, folder=f"{layout}train2017")
    data = json.loads(path.read_text())
    people = data["annotations"]
    people[1] |= {"id": BIG_ID, "iscrowd": 1, "keypoints": [0] * 51}
    del people[3]["keypoints"]
    people[0] |= {"bbox": [1.5, 2.25, 7.1, 9.3], "area": 41.7}
    people.insert(2, {"id": 9, "image_id": 11, "category_id": 2, "bbox": [0, 0, 1, 1]})
    data["images"].append({"id": 7, "file_name": "1.jpg", "width": 190, "height": 180})
    path.write_text(json.dumps(data))
    read = coco.load(tmp_path)
    assert len(read) == 4 and len(read.images) == 4
    assert all(i.parent == tmp_path / layout / "train2017" for i in read.images)
    assert read.image_ids.tolist() == [11, 12, 13, 7]
    assert read.ids.tolist() == [1, BIG_ID, 3, 4] and read.ids.dtype == np.int64
    assert read.crowd.tolist() == [False, True, False, False]
    assert (read.box_scores == 1).all() and read.box_source == "gt_boxes"
    assert read.boxes_xyxy[0].tolist() == [1.5, 2.25, 1.5 + 7.1, 2.25 + 9.3]  # Exact.
    assert read.areas[0] == 41.7 and not read.visibility[[1, 3]].any()
    assert read.labelled_rows().tolist() == [0, 2]
    rows = [read.people_of_image(i).tolist() for i in range(4)]
    assert rows == [[0, 2], [1], [3], []]


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


def test_absent_folders_and_files_say_where_was_looked(root):
    path = coco.annotation_file(root, "train2017")
    with pytest.raises(InputError, match=r"val2017.*images.val2017"):
        coco.load(root, "val2017", annotations=path)
    with pytest.raises(InputError, match=r"nowhere\.json does not exist"):
        coco.load(root, detections=root / "nowhere.json")
    (root / "boxes.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"boxes\.json holds a JSON dict, not a list"):
        coco.load(root, detections=root / "boxes.json")


def test_another_keypoint_set_is_read_by_its_names(tmp_path):
    hand = keypoints.KeypointSet("hand", ("wrist", "thumb"), (), ((0, 1),))
    people = writers.people(hand)
    path = writers.coco(tmp_path, people)
    text = path.read_text().replace('"person"', '"hand"')
    path.write_text(
        text.replace('"id": 1, "name"', '"id": 7, "name"').replace(
            '"category_id": 1', '"category_id": 7'
        )
    )
    read = coco.load(tmp_path, keypoints=hand)
    assert read.points_xy.tolist() == people.points_xy.tolist()
    with pytest.raises(InputError, match="keypoint set coco has 17"):
        coco.load(tmp_path)


def test_boxes_that_were_given_become_rows(root):
    folder = root / "train2017"
    pixels = np.zeros((5, 9, 3), np.uint8)
    images = [folder / "1.jpg", pixels, str(folder / "3.jpg")]
    boxes = [[[0, 1, 2, 3], [4, 5, 6, 9]], np.zeros((0, 4)), [[1, 1, 2, 2]]]
    scores = [[0.5, 0.25], [], [1]]
    made = table.from_boxes(images, boxes, scores, keypoints=keypoints.COCO)
    sizes = [PEOPLE.sizes[0].tolist(), [9, 5], PEOPLE.sizes[2].tolist()]
    assert made.image_sizes.tolist() == sizes
    assert made.image.tolist() == [0, 0, 2]
    assert made.box_scores.tolist() == [0.5, 0.25, 1]
    assert made.areas.tolist() == [4, 8, 1]
    assert not made.visibility.any() and made.box_source == "given_boxes"
    whole = table.from_boxes(images, None, keypoints=keypoints.COCO)
    assert whole.boxes_xyxy.tolist() == [[0, 0, *size] for size in sizes]
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
