"""FLIC beyond what all data sets have (test_formats.py): its splits, boxes of the torso,
people without a label, and the numbers of the real files."""

import numpy as np
import pytest
import scipy.io

from pose_jax import keypoints
from pose_jax.data import flic
from pose_jax.errors import InputError
from tests.data import writers

PEOPLE = writers.people(keypoints.FLIC, flags=(2,))
"""The last one is of the test split."""


@pytest.fixture
def root(tmp_path):
    writers.flic(tmp_path, PEOPLE)
    return tmp_path


def test_each_split_keeps_the_numbers_of_the_file(root):
    train, test = flic.load(root, "train"), flic.load(root, "test")
    assert train.ids.tolist() == [1, 2, 3] and train.image.tolist() == [0, 1, 0]
    assert test.ids.tolist() == test.image_ids.tolist() == [4]
    assert [image.name for image in test.images] == [PEOPLE.files[2]]


def test_people_without_a_label_have_no_box(root):
    def change(held):
        held["examples"]["coords"][0, 3][:] = np.nan

    writers.edit(root / "examples.mat", change)
    read = flic.load(root, "all")
    assert np.isfinite(read.boxes_xyxy).all() and not read.boxes_xyxy[3].any()
    assert read.labelled_rows().tolist() == [0, 1, 2]


def test_boxes_of_the_torso_are_the_files(root):
    torso = flic.load(root, "all", boxes="torso_boxes")
    assert torso.boxes_xyxy.tolist() == PEOPLE.boxes_xyxy.tolist()
    assert torso.areas.tolist() == [50 * 50] * 4 and torso.box_source == "torso_boxes"
    test = flic.load(root, "test", boxes="torso_boxes")
    assert test.boxes_xyxy.tolist() == torso.boxes_xyxy[3:].tolist()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("istrain", writers.EMPTY, 'istrain is missing ."all" needs none'),
        ("torsobox", writers.EMPTY, "torsobox must be"),
        ("torsobox", np.array([[5, 5, 5, 9]]), "torsobox must be"),
        ("torsobox", "5 5 9 9", "torsobox must be"),
    ],
)
def test_what_only_some_options_need_is_refused_with_them(root, field, value, said):
    def change(held):
        held["examples"][field][0, 2] = value

    writers.edit(root / "examples.mat", change)
    with pytest.raises(
        InputError, match=rf"examples\.mat: example 3: {said}"
    ) as caught:
        flic.load(root, "train", boxes="torso_boxes")
    assert "\n" not in str(caught.value)
    assert len(flic.load(root, "all")) == 4


# ---------------------------------------------------------------------------- real files


@pytest.fixture
def complete(tmp_path, real_data):
    """FLIC's real annotations, with tiny images in place of all frames."""
    for name in ("examples.mat", "flic-joints-oc.mat"):
        (tmp_path / name).symlink_to(real_data / "FLIC" / name)
    examples = scipy.io.loadmat(tmp_path / "examples.mat")["examples"]
    names = {str(path.item()) for path in examples["filepath"].ravel()}
    writers.stand_ins(tmp_path / "images", names)
    return tmp_path


def test_real_flic_has_its_known_numbers(complete):
    every = flic.load(complete, "all")
    train, test = (
        flic.load(complete, split, boxes="torso_boxes") for split in ("train", "test")
    )
    assert (len(train), len(test), len(every)) == (3987, 1016, 5003)
    assert len(every.images) == 4552
    assert (every.visibility == 2).all()
    assert len(every.labelled_rows()) == 5003
    observer = flic.load(complete, "all", centric="OC")
    np.testing.assert_array_equal(observer.ids, every.ids)
    assert observer.images == every.images
    differs = (observer.points_xy != every.points_xy).any((1, 2))
    assert differs.sum() == 247 and differs[test.ids - 1].sum() == 48
    names = keypoints.FLIC.names
    left, right = names.index("left_shoulder"), names.index("right_shoulder")
    assert (observer.points_xy[:, left, 0] > observer.points_xy[:, right, 0]).all()
    for torso in (train, test):
        extent = torso.boxes_xyxy[:, 2:] - torso.boxes_xyxy[:, :2]
        assert (extent > 10).all() and len(torso.labelled_rows()) == len(torso)
