"""LSP and its extension beyond what all data sets have (test_formats.py): what is not
labelled, ranges of images, boxes of flat people, and the numbers of the real files."""

import numpy as np
import pytest

from pose_jax.data import _matlab, lsp
from tests.data import writers

LOAD = {False: lsp.load, True: lsp.load_extended}


@pytest.fixture(params=LOAD)
def extended(request):
    return request.param


@pytest.fixture
def root(tmp_path, extended):
    writers.lsp(tmp_path, writers.lsp_people(extended), extended=extended)
    return tmp_path


def read_extended(root, flags, *points):
    """Four people of these flags; `points` are (person, joints, points), over them."""
    these = writers.lsp_people(True)
    joints = np.concatenate([these.points_xy, flags[..., None]], -1)
    for person, which, xy in points:
        joints[person, which, :2] = xy
    writers.lsp(root, these, extended=True, joints=joints)
    return lsp.load_extended(root)


def test_what_is_not_labelled_may_be_anything_and_becomes_zero(tmp_path):
    flags = np.ones((4, 14))
    flags[2, 3] = 0
    read = read_extended(tmp_path, flags, (2, 3, (np.nan, -1e9)))
    assert read.points_xy[2, 3].tolist() == [0, 0] and read.visibility[2, 3] == 0
    assert read.boxes_xyxy[2].min() >= 0


def test_a_single_image_keeps_its_axes(root, extended):
    drop = lambda held: held.update(joints=held["joints"][..., 0])
    writers.edit(root / "joints.mat", drop)  # As MATLAB does.
    assert LOAD[extended](root, "all").visibility.shape == (1, 14)


def test_ranges_count_from_one_and_include_both_ends(root, extended):
    read = LOAD[extended](root, "2-3")
    assert read.ids.tolist() == read.image_ids.tolist() == [2, 3]
    assert read.image.tolist() == [0, 1]
    whole = LOAD[extended](root, "all")
    np.testing.assert_array_equal(read.points_xy, whole.points_xy[1:3])
    np.testing.assert_array_equal(read.image_sizes, whole.image_sizes[1:3])
    assert len(LOAD[extended](root, "4-4")) == 1
    if extended:  # It is all training.
        assert len(lsp.load_extended(root, "train")) == 4


def test_flat_people_get_a_side_and_unlabelled_ones_stay_unusable_rows(tmp_path):
    flags = np.zeros((4, 14))
    flags[0, :3] = flags[1, 5:7] = flags[2, 4] = 1
    line, point = [(10, 0), (10, 30), (10, 20)], (7, 9)
    points = (0, slice(3), line), (1, slice(5, 7), point)
    read = read_extended(tmp_path, flags, *points)
    half = _matlab.MIN_SIDE / 2
    assert read.boxes_xyxy[0].tolist() == [10 - half, 0, 10 + half, 30]
    assert read.boxes_xyxy[1].tolist() == [7 - half, 9 - half, 7 + half, 9 + half]
    assert not read.boxes_xyxy[2:].any() and not read.areas[2:].any()
    assert len(read) == 4 and read.labelled_rows().tolist() == [0, 1]


# ---------------------------------------------------------------------------- real files


@pytest.fixture
def complete(tmp_path, real_data):
    """LSP's real annotations, with tiny images in place of those that are not there."""
    writers.stand_ins(tmp_path / "images", [f"im{i:04d}.jpg" for i in range(1, 2001)])
    for name in ("joints.mat", "joints-OC.mat"):
        (tmp_path / name).symlink_to(real_data / "lsp_dataset" / name)
    return tmp_path


def test_real_lsp_has_its_known_numbers(complete):
    person = lsp.load(complete, "all")
    assert len(person) == 2000
    assert (person.visibility == 1).sum() == 2044
    assert (person.visibility == 2).sum() == 28000 - 2044
    assert len(person.labelled_rows()) == 2000
    assert person.points_xy.min((0, 1)) == pytest.approx([1.008, 0.247], abs=0.001)
    observer = lsp.load(complete, "all", centric="OC")
    differs = (person.points_xy != observer.points_xy).any((1, 2))
    assert differs.sum() == 756 and differs[1000:].sum() == 380
    # They differ by exchanged names, never by a place.
    for one, other in zip(person.points_xy, observer.points_xy, strict=True):
        assert sorted(one.tolist()) == sorted(other.tolist())
    train, test = lsp.load(complete, "train"), lsp.load(complete, "test")
    assert (train.ids[0], train.ids[-1]) == (1, 1000)
    assert (test.ids[0], test.ids[-1]) == (1001, 2000)


def test_real_extension_has_its_known_numbers(real_data):
    read = lsp.load_extended(real_data / "lspet_dataset")
    assert len(read) == 6000
    assert set(np.unique(read.visibility)) == {0, 2}
    labelled = read.visibility > 0
    assert labelled.mean() == pytest.approx(0.88, abs=0.005)
    assert labelled.all(1).sum() == 2373 and labelled.sum(1).min() == 5
    assert not read.points_xy[~labelled].any()
    sizes = read.image_sizes[read.image][:, None]
    inside = ((read.points_xy >= 0) & (read.points_xy < sizes)).all(-1)
    assert inside[labelled].mean() > 0.999
    assert len(read.labelled_rows()) == 6000
    held_out = lsp.load_extended(real_data / "lspet_dataset", "5501-6000")
    np.testing.assert_array_equal(held_out.points_xy, read.points_xy[5500:])
    assert held_out.images[0].name == "im05501.jpg"
