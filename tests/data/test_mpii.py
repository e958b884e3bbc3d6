"""MPII beyond what all data sets have (test_formats.py): MATLAB's empty fields, what the
official file leaves unsaid, head sizes, and the numbers of the real files."""

import gzip
import json

import numpy as np
import pytest
import scipy.io

from pose_jax import keypoints
from pose_jax.data import DATASETS, mpii
from pose_jax.data.check import run as check
from pose_jax.errors import InputError
from pose_jax.evaluation import poses as measure
from tests import made_up
from tests.data import writers
from tests.data.writers import EMPTY, MPII_OFFICIAL, structs

PEOPLE = writers.people(keypoints.MPII, flags=(0, 2))
SIX = writers.people(keypoints.MPII, image=range(6), pattern="00{}.jpg")  # Images.


# --------------------------------------------------------------------- the official file


def point(joint, x, y, **fields):
    return {"x": x, "y": y, "id": joint} | fields


def place(x, y, scale):
    return {"objpos": structs({"x": x, "y": y}), "scale": scale}


def joints(*points):
    return {"annopoints": structs({"point": structs(*points)})}


def cell(value):
    array = np.empty((1, 1), object)
    array[0, 0] = value
    return array


HEAD = {"x1": 10, "y1": 20, "x2": 13, "y2": 24}  # A diagonal of 5.


def release():
    """Six entries: what is known of every oddity, each in a place of its own."""
    odd_flags = joints(
        point(0, 1, 1, is_visible="1"),
        point(15, 30.5, 40.25, is_visible="0"),
        point(6, 5, 6, is_visible=1),
        point(7, 7, 8, is_visible=0),
        point(8, 9, 10, is_visible=EMPTY),
        point(9, 11, 12, is_visible=True),
        point(10, 13, 14, is_visible=cell(1)),
        point(3, EMPTY, 4, is_visible=1),
    )
    entries = [
        ("001.jpg", 1, structs(
            HEAD | odd_flags | place(50, 60, 0.5),
            place(70, 80, 0.25),  # No joints.
            dict(HEAD),  # Nothing but a head: left out.
            joints(point(4, 3, 5)) | {"scale": 1},  # No position.
        )),
        ("002.jpg", 1, structs(place(10, 20, 1))),  # A struct array without annopoints.
        ("003.jpg", 1, structs(
            joints(point(2, 20, 30), point(5, 21, 31)) | place(1, 2, 3),  # No is_visible.
        )),
        ("004.jpg", 1, EMPTY),
        ("005.jpg", 0, structs(place(5, 6, 0.5), {"scale": 2})),
        # An image may be listed twice.
        ("001.jpg", 1, structs(joints(point(1, 2, 2)) | place(9, 9, 1))),
    ]  # fmt: skip
    return {
        "annolist": structs(
            *({"image": structs({"name": n}), "annorect": r} for n, _, r in entries)
        ),
        "img_train": np.array([[train for _, train, _ in entries]]),
        "version": "12",
    }


@pytest.fixture
def official(tmp_path):
    path = writers.mpii(tmp_path, SIX, file=MPII_OFFICIAL)
    scipy.io.savemat(path, {"RELEASE": release()})
    (tmp_path / "annot" / "valid_images.txt").write_text("003.jpg\n003.jpg\n")
    return tmp_path


def test_official_people_are_read_whatever_is_empty(official):
    read = mpii.load(official, "all")
    assert read.keypoints is keypoints.MPII and read.labelled
    assert [i.name for i in read.images] == ["001.jpg", "002.jpg", "003.jpg"]
    assert read.image.tolist() == [0, 0, 0, 1, 2, 0]
    # Numbers among all people of the file, those left out and of the test included.
    assert read.ids.tolist() == [1, 2, 4, 5, 6, 9]
    assert read.image_ids.tolist() == [1, 5, 6]
    assert read.image_sizes.tolist() == SIX.sizes[:3].tolist()
    labelled = [sorted(np.flatnonzero(v).tolist()) for v in read.visibility]
    assert labelled == [[0, 6, 7, 8, 9, 10, 15], [], [4], [], [2, 5], [1]]

    # Visibility may be text, a number, empty or absent.
    assert read.visibility[0, [0, 15, 6, 7, 8, 9, 10]].tolist() == [2, 1, 2, 1, 1, 2, 2]
    assert read.visibility[4, [2, 5]].tolist() == [1, 1]
    assert read.points_xy[0, [0, 15, 3]].tolist() == [[0, 0], [29.5, 39.25], [0, 0]]
    # Centre (50, 60 + 15 * 0.5) less one, half a side 100 * 0.5.
    assert read.boxes_xyxy[0].tolist() == [-1, 16.5, 99, 116.5]
    assert read.areas[0] == 100 * 100 and read.box_source == "gt_boxes"
    # Without a place people are rows that are not learned from.
    assert not read.boxes_xyxy[2].any()
    assert read.labelled_rows().tolist() == [0, 4, 5]
    assert read.head_sizes == pytest.approx([0.6 * 5, 0, 0, 0, 0, 0])


def test_official_splits_need_a_list_of_names_but_for_the_test(official):
    train, valid = mpii.load(official, "train"), mpii.load(official, "valid")
    assert valid.ids.tolist() == [6] and train.ids.tolist() == [1, 2, 4, 5, 9]
    names = official / "annot" / "valid_images.txt"
    names.write_text("\ufeff" + names.read_text())
    assert mpii.load(official, "valid").ids.tolist() == [6]
    names.write_text(names.read_text() + "images/other.jpg")
    said = r"valid_images\.txt: 1 of \d names are not in .*first: images/other\.jpg"
    with pytest.raises(InputError, match=said):
        mpii.load(official, "valid")
    names.unlink()
    for split in ("train", "valid"):
        with pytest.raises(InputError, match=r"valid_images\.txt does not exist"):
            mpii.load(official, split)
    test = mpii.load(official, "test")  # Boxes without labels.
    assert not test.labelled and test.head_sizes is None and test.ids.tolist() == [7]
    assert test.boxes_xyxy.tolist() == [[5 - 51, 13.5 - 51, 5 + 49, 13.5 + 49]]


@pytest.mark.parametrize("place", ["", "mpii_human_pose_v1_u12_2"])
@pytest.mark.parametrize("file", [MPII_OFFICIAL, "mpii_annotations.json"])
def test_the_annotations_may_lie_elsewhere(tmp_path, place, file):
    path = writers.mpii(tmp_path, PEOPLE, file=file)
    (tmp_path / place).mkdir(exist_ok=True)
    path.rename(tmp_path / place / file)
    path.parent.rmdir()
    assert len(mpii.load(tmp_path, "all")) == 4
    known = DATASETS["mpii"]
    assert known.recognize(tmp_path)
    splits = ["all"] if file == MPII_OFFICIAL else ["train", "valid"]
    assert known.splits(tmp_path) == splits


# ------------------------------------------------------------------------------ the jsons


def save(root, rows, split="valid"):
    (root / "annot" / f"{split}.json").write_text(json.dumps(rows))


def rows(count=4):
    return writers.mpii_rows(PEOPLE)[:count]


def gt_valid(people):
    return writers.gt_valid(people, 5 * np.arange(len(people)))


@pytest.fixture
def common(tmp_path):
    writers.mpii(tmp_path, PEOPLE)
    return tmp_path


def test_joints_that_are_not_labelled_may_be_anything(common):
    people = rows()
    usual = mpii.load(common, "valid")
    people[1]["joints_vis"][3:5] = [0, 0]
    people[1]["joints"][3:5] = [[None, float("nan")], [7, float("inf")]]
    save(common, people)
    path = common / "annot" / "valid.json"
    read = mpii.load(common, "valid")
    assert read.visibility[1].tolist() == [
        0 if i in (3, 4) else v for i, v in enumerate(usual.visibility[1])
    ]
    assert np.isfinite(read.points_xy).all()
    path.with_name("valid.json.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert mpii.load(common, "valid").fingerprint() == read.fingerprint()
    assert [it.split for it in check.sources(common)] == ["valid"]


def test_joints_at_nothing_are_not_labelled_whatever_their_flag(common):
    people = rows()
    people[0]["joints"][3:7] = [[-1, -1], [7, 8], [0, 0], [0.5, 12]]
    people[0]["joints_vis"][4] = 0
    save(common, people)
    read = mpii.load(common, "valid")
    assert np.flatnonzero(read.visibility[0] == 0).tolist() == [3, 4, 5]
    assert read.points_xy[0, 6].tolist() == [-0.5, 11]
    assert read.box_source == "gt_boxes" and read.head_sizes is None


def test_people_of_unknown_position_are_rows_without_a_box(common):
    people = rows()
    people[0] |= {"center": [-1.0, -1.0], "scale": -1.0}
    save(common, people)
    read = mpii.load(common, "valid")
    assert not read.boxes_xyxy[0].any() and read.labelled_rows().tolist() == [1, 2, 3]
    bare = [{k: person[k] for k in ("image", "center", "scale")} for person in people]
    save(common, bare, "test")
    with pytest.raises(InputError, match="row 0: center and scale are unknown"):
        mpii.load(common, "test")
    save(common, bare[1:], "test")
    read = mpii.load(common, "test")
    assert len(read) == 3 and not read.labelled and (read.areas > 0).all()


def test_head_sizes_come_from_the_rows_of_gt_valid(common):
    people = rows()
    scipy.io.savemat(common / "annot" / "gt_valid.mat", gt_valid(people))
    read = mpii.load(common, "valid")
    np.testing.assert_allclose(read.head_sizes, [0, 0.6 * 5, 0.6 * 10, 0.6 * 15])
    read.images[1].unlink()
    read = mpii.load(common, "valid", missing="skip")
    np.testing.assert_allclose(read.head_sizes, [0, 0.6 * 10, 0.6 * 15])
    assert read.ids.tolist() == [1, 3, 4]
    save(common, people[:1], "train")
    train = mpii.load(common, "train", missing="skip")
    assert train.head_sizes is None and "train.json has no head" in train.notes[0]
    assert not read.notes


def test_the_few_people_in_whom_gt_valid_differs_have_its_joints(common):
    people = rows() * 50
    save(common, people)
    other = gt_valid(people)
    other["pos_gt_src"][..., 8] += 30
    other["pos_gt_src"][..., 9] += 1  # Rounding.
    scipy.io.savemat(common / "annot" / "gt_valid.mat", other)
    read = mpii.load(common, "valid")
    labelled = read.visibility > 0
    moved = read.points_xy - (np.array([p["joints"] for p in people]) - 1)
    np.testing.assert_allclose(moved[8][labelled[8]], 30)
    others = (np.arange(200) != 8)[:, None] & labelled
    np.testing.assert_array_equal(moved[others], 0)
    assert labelled[8].sum() == 16


def test_one_person_alone_has_head_sizes_though_matlab_drops_the_axis(common):
    people = rows(1)
    save(common, people)
    value = {k: v[..., 0] for k, v in gt_valid(people).items()}
    value["headboxes_src"] = np.array([[4, 5], [1, 1]], np.uint8)  # Kept as bytes.
    scipy.io.savemat(common / "annot" / "gt_valid.mat", value)
    np.testing.assert_allclose(mpii.load(common, "valid").head_sizes, [3])


@pytest.mark.parametrize("change", ["fewer", "other order", "no numbers", "absent"])
def test_head_sizes_of_other_people_are_not_taken_and_it_is_said(common, change):
    truth = gt_valid(rows(2) if change == "fewer" else rows()[::-1])
    if change == "no numbers":
        truth["headboxes_src"] = np.full((2, 2, 4), "x")
    if change != "absent":
        scipy.io.savemat(common / "annot" / "gt_valid.mat", truth)
    read = mpii.load(common, "valid")
    assert read.head_sizes is None
    (note,) = read.notes
    assert note.startswith("PCKh is not computed") and "gt_valid.mat" in note
    assert note in measure.notes(read, made_up.make_poses(read), {})
    (source,) = check.sources(common, split="valid")
    assert note in check.check(source).notes


def test_one_json_of_both_splits_is_parted_and_may_be_packed(tmp_path):
    path = writers.mpii(tmp_path, PEOPLE, file="mpii_annotations.json")
    writers.edit(path, lambda people: people[1].update(isValidation=1.0))
    packed = path.rename(path.with_suffix(".json.gz"))
    packed.write_bytes(gzip.compress(packed.read_bytes()))
    train, valid, every = (mpii.load(tmp_path, s) for s in ("train", "valid", "all"))
    assert [i.name for i in train.images] == ["1.jpg"]
    assert [i.name for i in valid.images] == ["2.jpg", "3.jpg"]
    assert train.image.tolist() == [0, 0] and every.image.tolist() == [0, 1, 0, 2]
    assert train.ids.tolist() == valid.ids.tolist() == [1, 2]
    with pytest.raises(InputError, match="none of test"):
        mpii.load(tmp_path, "test", annotations=packed)
    packed.write_bytes(b"\x1f\x8b{")
    with pytest.raises(InputError, match=r"is not JSON .*Fetch it again"):
        mpii.load(tmp_path, "all")


# ---------------------------------------------------------------------------- real files


@pytest.fixture(scope="module")
def complete(tmp_path_factory, real_data):
    """MPII's real annotations; all images exist, though as empty files."""
    tmp_path = tmp_path_factory.mktemp("mpii")
    source = real_data / "mpii" / "annot"
    (tmp_path / "annot").mkdir()
    (tmp_path / "images").mkdir()
    for name, target in (
        ("mpii_annotations.json.gz", "mpii_annotations.json.gz"),
        ("gt_valid_full.mat", "gt_valid.mat"),
    ):
        (tmp_path / "annot" / target).symlink_to(source / name)
    for name in ("train_images.txt", "valid_images.txt"):
        for image in set((source / name).read_text().split()):
            (tmp_path / "images" / image).touch()
    return tmp_path


@pytest.fixture(scope="module")
def real_valid(complete):
    return mpii.load(complete, "valid")


def test_real_mpii_has_its_known_numbers(complete, real_valid, real_data):
    valid, train = real_valid, mpii.load(complete, "train")
    assert (len(valid), len(train)) == (2958, 22246)
    source = real_data / "mpii" / "annot"
    for table, name in ((valid, "valid_images.txt"), (train, "train_images.txt")):
        names = (source / name).read_text().split()
        assert [table.images[i].name for i in table.image] == names
    assert not {i.name for i in train.images} & {i.name for i in valid.images}
    assert (valid.visibility > 0).sum() == 44240
    assert (valid.visibility == 1).sum() == 10243
    assert len(valid.labelled_rows()) == 2958


def test_real_head_sizes_and_joints_are_those_of_gt_valid(complete, real_valid):
    read = real_valid
    truth = scipy.io.loadmat(complete / "annot" / "gt_valid.mat")
    boxes = truth["headboxes_src"].astype(np.float64)
    expected = 0.6 * np.linalg.norm(boxes[1] - boxes[0], axis=0)
    np.testing.assert_allclose(read.head_sizes, expected)
    assert (read.head_sizes > 1).all()
    # One less, also in the ten people in whom the published files differ.
    away = np.abs(read.points_xy + 1 - truth["pos_gt_src"].transpose(2, 0, 1)).max(-1)
    away = np.where(read.visibility > 0, away, 0).max(-1)
    assert away.max() <= 1.5 and np.median(away) < 1e-3


def test_real_photographs_are_read_with_their_people(real_data):
    read = mpii.load(real_data / "mpii", "valid")
    assert len(read) == 5 and len(read.images) == 5
    assert (read.head_sizes > 1).all()
    whole = mpii.load(
        real_data / "mpii",
        "valid",
        annotations=real_data / "mpii" / "annot" / "mpii_annotations.json.gz",
        missing="skip",
    )
    # The same people of another form; its sizes are the images' own.
    assert whole.head_sizes is None
    assert whole.images == read.images
    np.testing.assert_array_equal(whole.image_sizes, read.image_sizes)
    assert whole.ids[:5].tolist() == read.ids.tolist()
    np.testing.assert_array_equal(whole.visibility[:5] > 0, read.visibility > 0)
    np.testing.assert_allclose(whole.points_xy[:5], read.points_xy, atol=0.01)
    # Its scales are rounded.
    np.testing.assert_allclose(whole.boxes_xyxy[:5], read.boxes_xyxy, atol=0.1)
