"""COCO beyond what all data sets have (test_formats.py): both layouts, crowds and people
without keypoints, a detector's boxes, other keypoint sets, and the real files."""

import gzip
import json
import re

import numpy as np
import pytest

from pose_jax import keypoints
from pose_jax.data import coco, table
from pose_jax.errors import InputError
from pose_jax.metrics import coco_keypoint_ap
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
        coco.load(tmp_path, keypoints="coco")


def each(section, change):
    return lambda data: [change(row) for row in data[section]]


def without_names(data):
    data["categories"] = [{"id": 1, "name": "person"}]


def holes(data):
    for person in data["annotations"]:
        triples = person["keypoints"]
        for i in range(0, 51, 3):
            if triples[i + 2] == 0:
                triples[i : i + 2] = [None, float("nan")]


def text_ids(spell):
    def change(data):
        for row in data["images"]:
            row["id"] = spell(row["id"])
        for row in data["annotations"]:
            row["image_id"] = spell(row["image_id"])

    return change


def two_categories(data):
    data["categories"][0] |= {"name": "cat", "keypoints": ["tail"]}
    data["categories"][1] |= {"name": "dog"}


READ = {
    # what is changed, options, what is said, ids of images that are not the file's
    "no names": (without_names, {}, r"'person' \(id 1\) names no .* set coco", None),
    "holes": (holes, {}, None, None),
    "by id": (two_categories, {"category": 1}, None, None),
    "by the id's digits": (two_categories, {"category": "1"}, None, None),
    "by name": (two_categories, {"category": "dog"}, None, None),
    "digits": (text_ids(str), {}, "ids of images are text", None),
    "text": (text_ids("im{}".format), {}, "ids of images are text", [1, 2, 3]),
    "colliding": (text_ids({11: "1", 12: "01", 13: "2"}.get), {}, "text", [1, 2, 3]),
}


@pytest.mark.parametrize("name", READ)
def test_what_tools_write_otherwise_is_read_as_it_is_meant(name, root):
    change, options, said, image_ids = READ[name]
    usual, path = coco.load(root), coco.annotation_file(root, "train2017")
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    read = coco.load(root, **options)
    labelled = usual.visibility > 0
    np.testing.assert_array_equal(read.visibility, usual.visibility)
    np.testing.assert_array_equal(read.points_xy[labelled], usual.points_xy[labelled])
    assert np.isfinite(read.points_xy).all()
    assert read.image.tolist() == usual.image.tolist()
    assert read.image_ids.tolist() == (image_ids or usual.image_ids.tolist())
    if said is None:
        assert not read.notes
    else:
        (note,) = read.notes
        assert re.search(said, note)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_may_have_a_byte_order_mark_and_be_compressed(root, encoding, suffix):
    usual, path = coco.load(root), coco.annotation_file(root, "train2017")
    boxes = root / "boxes.json"
    boxes.write_text(
        '[{"image_id": 11, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]'
    )
    for file in (path, boxes):
        content = file.read_text().encode(encoding)
        file.with_name(file.name + suffix).write_bytes(
            gzip.compress(content) if suffix else content
        )
    if suffix:
        path.unlink()
    assert coco.splits(root) == ["train2017"]
    assert coco.load(root).fingerprint() == usual.fingerprint()
    read = coco.load(root, detections=boxes.with_name(boxes.name + suffix))
    assert read.boxes_xyxy.tolist() == [[1, 2, 4, 6]]
    path = coco.annotation_file(root, "train2017")
    assert coco_keypoint_ap(path, [])["AP"] == 0


def test_an_absent_area_is_that_of_the_box_and_an_empty_list_no_keypoints(root):
    path = coco.annotation_file(root, "train2017")
    data = json.loads(path.read_text())
    del data["annotations"][0]["area"]
    data["annotations"][1]["area"] = None
    data["annotations"][2]["keypoints"] = []
    path.write_text(json.dumps(data))
    read = coco.load(root)
    assert read.areas[:2].tolist() == [2500, 2500]
    assert read.notes[0].startswith("2 people have no area in person_keypoints_train")
    assert not read.visibility[2].any()


def test_a_choice_of_categories_is_asked_for_in_one_line(root):
    path = coco.annotation_file(root, "train2017")
    data = json.loads(path.read_text())
    two_categories(data)
    path.write_text(json.dumps(data))
    listed = r"'cat' \(id 2\), 'dog' \(id 1\)"
    with pytest.raises(InputError, match=rf"several .*: {listed}\. Choose .* category"):
        coco.load(root)
    with pytest.raises(InputError, match=rf"no category 'cow'; there are: {listed}"):
        coco.load(root, category="cow")
    read = coco.load(root, category="cat")  # Its own set, and no annotations.
    assert len(read) == 0 and read.keypoints.names == ("tail",)


def test_detections_name_images_by_id_or_by_the_stem_of_a_file(root):
    rows = [
        {"image_id": own, "category_id": 1, "bbox": [0, 0, 5, 6], "score": 1}
        for own in (12, "12", "2", "two", 1.5)
    ]
    path = root / "boxes.json"
    path.write_text(json.dumps(rows[:4]))
    read = coco.load(root, detections=path)
    assert read.image.tolist() == [1, 1, 1]
    # A table of its own, as of a store, has the same images.
    again = coco.with_detections(read.truth, path)
    assert again.image.tolist() == [1, 1, 1]
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match=r"detection 4: image_id cannot be 1\.5"):
        coco.load(root, detections=path)


@pytest.mark.parametrize("folder", ["test-dev2017", "images/test2017"])
def test_a_test_set_has_images_and_a_detector_s_boxes(root, folder):
    path = coco.annotation_file(root, "train2017")
    data = json.loads(path.read_text())
    categories = [{"id": 7, "name": "person"}, {"id": 2, "name": "dog"}]
    data = {"images": data["images"], "categories": categories}
    path = path.with_name("image_info_test-dev2017.json")
    path.write_text(json.dumps(data))
    (root / folder).parent.mkdir(exist_ok=True)
    (root / "train2017").rename(root / folder)
    read = coco.load(root, "test-dev2017")
    assert len(read.images) == 3 and len(read) == 0 and not read.labelled
    assert read.ground_truth is None and read.category_id == 7 and not read.notes
    boxes = root / "boxes.json"
    boxes.write_text(
        '[{"image_id": 12, "category_id": 7, "bbox": [1, 2, 3, 4], "score": 1}]'
    )
    read = coco.load(root, "test-dev2017", detections=boxes)
    assert read.image.tolist() == [1] and read.box_source == "detections"
    assert read.ground_truth is None and not read.labelled


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
