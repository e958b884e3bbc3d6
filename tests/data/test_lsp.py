"""LSP and LSP-extended: two files that look alike, their opposite flags, their boxes."""

import shutil

import numpy as np
import pytest
import scipy.io
from PIL import Image

from pose_jax import data, keypoints
from pose_jax.data import _matlab, lsp
from pose_jax.errors import ConfigError, InputError

SIZES = [(31, 47), (50, 23), (64, 64), (19, 80)]
PATTERNS = {"lsp": "im{:04d}.jpg", "lsp_extended": "im{:05d}.jpg"}
LOAD = {"lsp": lsp.load, "lsp_extended": lsp.load_extended}


def people(flags, seed=0):
    """[n, 14, 3]; any two joints are further apart than the minimal side, each way."""
    rng = np.random.default_rng(seed)
    n = len(flags)
    places = rng.permuted(np.tile(np.arange(14.0), (n, 2, 1)), axis=-1)
    points = 10 * places.transpose(0, 2, 1) + rng.uniform(0, 1, (n, 14, 2))
    return np.concatenate([points, np.reshape(flags, (n, 14, 1))], -1)


def save(path, joints, axes):
    """Writes [n, 14, 3] with the axes of one of the two."""
    order = {"lsp": (2, 1, 0), "lsp_extended": (1, 2, 0)}[axes]
    scipy.io.savemat(path, {"joints": joints.transpose(order)})


def write(root, joints, kind):
    (root / "images").mkdir()
    for i, size in enumerate(SIZES, 1):
        Image.new("RGB", size, 77).save(root / "images" / PATTERNS[kind].format(i))
    save(root / "joints.mat", joints, kind)


FLAGS = np.arange(4 * 14).reshape(4, 14) % 5 % 2  # Both values, not symmetric.


@pytest.fixture(params=list(LOAD))
def kind(request):
    return request.param


@pytest.fixture
def root(tmp_path, kind):
    write(tmp_path, people(FLAGS), kind)
    return tmp_path


def test_flag_one_is_hidden_in_lsp_and_labelled_in_its_extension(root, kind):
    read = LOAD[kind](root, "all")
    assert read.keypoints is keypoints.LSP and read.labelled
    if kind == "lsp":
        expected = np.where(FLAGS == 1, 1, 2)
    else:
        expected = np.where(FLAGS == 1, 2, 0)
    np.testing.assert_array_equal(read.visibility, expected)


def test_points_ids_and_sizes_are_the_files(root, kind):
    read = LOAD[kind](root, "all")
    labelled = (read.visibility > 0)[..., None]
    np.testing.assert_array_equal(
        read.points_xy, np.where(labelled, people(FLAGS)[..., :2], 0)
    )
    assert read.ids.tolist() == read.image_ids.tolist() == [1, 2, 3, 4]
    assert read.image.tolist() == [0, 1, 2, 3]
    assert [i.name for i in read.images] == [
        PATTERNS[kind].format(i) for i in (1, 2, 3, 4)
    ]
    assert read.image_sizes.tolist() == [list(size) for size in SIZES]
    assert read.centric == "PC" and read.name == f"{kind} all"


def test_what_is_not_labelled_may_be_anything_and_becomes_zero(tmp_path):
    joints = people(np.ones((4, 14)))
    joints[2, 3] = (np.nan, -1e9, 0)
    write(tmp_path, joints, "lsp_extended")
    read = lsp.load_extended(tmp_path)
    assert read.points_xy[2, 3].tolist() == [0, 0] and read.visibility[2, 3] == 0
    assert read.boxes_xyxy[2].min() >= 0


def test_a_file_of_the_other_set_is_refused_and_says_so(tmp_path):
    other = {"lsp": "lsp_extended", "lsp_extended": "lsp"}
    for kind, load in LOAD.items():
        folder = tmp_path / kind
        folder.mkdir()
        write(folder, people(FLAGS), kind)
        save(folder / "joints.mat", people(FLAGS), other[kind])
        with pytest.raises(InputError, match=f'data set "{other[kind]}"') as caught:
            load(folder, "all")
        assert "\n" not in str(caught.value) and "joints.mat" in str(caught.value)


def test_a_single_image_keeps_its_axes(tmp_path, kind):
    write(tmp_path, people(FLAGS), kind)
    one = people(FLAGS)[0]
    joints = one.T if kind == "lsp" else one
    scipy.io.savemat(tmp_path / "joints.mat", {"joints": joints})
    assert LOAD[kind](tmp_path, "all").visibility.shape == (1, 14)


def test_ranges_count_from_one_and_include_both_ends(root, kind):
    read = LOAD[kind](root, "2-3")
    assert read.ids.tolist() == read.image_ids.tolist() == [2, 3]
    assert read.image.tolist() == [0, 1]
    whole = LOAD[kind](root, "all")
    np.testing.assert_array_equal(read.points_xy, whole.points_xy[1:3])
    np.testing.assert_array_equal(read.image_sizes, whole.image_sizes[1:3])
    assert len(LOAD[kind](root, "4-4")) == 1


@pytest.mark.parametrize("split", ["0-3", "3-2", "2-5", "val", "", "1", "-", "1-2-3"])
def test_splits_that_are_not_there_are_refused(root, kind, split):
    with pytest.raises(ConfigError, match="split"):
        LOAD[kind](root, split)


def test_the_halves_of_lsp_need_the_whole_file(tmp_path):
    write(tmp_path, people(FLAGS), "lsp")
    for half in ("train", "test"):
        with pytest.raises(ConfigError, match=r"joints\.mat has 1 to 4"):
            lsp.load(tmp_path, half)


def test_the_extension_is_all_training(tmp_path):
    write(tmp_path, people(FLAGS), "lsp_extended")
    assert len(lsp.load_extended(tmp_path, "train")) == 4
    with pytest.raises(ConfigError, match="split"):
        lsp.load_extended(tmp_path, "test")


def test_boxes_are_the_extent_of_the_labelled_joints_or_the_image(root, kind):
    read = LOAD[kind](root, "all")
    for row in range(4):
        seen = read.points_xy[row][read.visibility[row] > 0]
        low, high = seen.min(0), seen.max(0)
        assert (high - low > _matlab.MIN_SIDE).all()
        assert read.boxes_xyxy[row].tolist() == [*low, *high]
        assert read.areas[row] == (high - low).prod()
    assert read.box_source == "joint_boxes"
    whole = LOAD[kind](root, "all", boxes="image")
    assert whole.boxes_xyxy.tolist() == [[0, 0, w, h] for w, h in SIZES]
    assert whole.areas.tolist() == [w * h for w, h in SIZES]
    assert whole.box_source == "image"
    assert whole.fingerprint() != read.fingerprint()


def test_flat_people_get_a_side_and_unlabelled_ones_stay_unusable_rows(tmp_path):
    flags = np.zeros((4, 14))
    flags[0, :3] = flags[1, 5:7] = flags[2, 4] = 1
    joints = people(flags)
    joints[0, :3, :2] = [(10, 0), (10, 30), (10, 20)]  # A vertical line.
    joints[1, 5:7, :2] = (7, 9)  # Both on one point.
    write(tmp_path, joints, "lsp_extended")
    read = lsp.load_extended(tmp_path)
    half = _matlab.MIN_SIDE / 2
    assert read.boxes_xyxy[0].tolist() == [10 - half, 0, 10 + half, 30]
    assert read.boxes_xyxy[1].tolist() == [7 - half, 9 - half, 7 + half, 9 + half]
    assert not read.boxes_xyxy[2:].any() and not read.areas[2:].any()
    assert len(read) == 4 and read.labelled_rows().tolist() == [0, 1]


def test_observer_centric_labels_are_another_file(tmp_path):
    joints = people(FLAGS)
    write(tmp_path, joints, "lsp")
    with pytest.raises(InputError, match=r"joints-OC\.mat does not exist"):
        lsp.load(tmp_path, "all", centric="OC")
    swapped = joints[:, keypoints.LSP.permutation, :]
    save(tmp_path / "joints-OC.mat", swapped, "lsp")
    person, observer = (lsp.load(tmp_path, "all", centric=c) for c in ("PC", "OC"))
    assert (person.centric, observer.centric) == ("PC", "OC")
    np.testing.assert_array_equal(observer.points_xy, swapped[..., :2])
    assert person.fingerprint() != observer.fingerprint()
    named = lsp.load(tmp_path, "all", annotations=tmp_path / "joints-OC.mat")
    np.testing.assert_array_equal(named.points_xy, observer.points_xy)


def test_missing_images_are_counted_or_skipped(root, kind):
    names = [PATTERNS[kind].format(i) for i in (1, 3)]
    for name in names:
        (root / "images" / name).unlink()
    with pytest.raises(InputError, match=f"2 of 4 images .*{names[0]}, {names[1]}"):
        LOAD[kind](root, "all")
    read = LOAD[kind](root, "all", missing="skip")
    assert read.ids.tolist() == read.image_ids.tolist() == [2, 4]
    assert read.image.tolist() == [0, 1]
    assert read.image_sizes.tolist() == [list(SIZES[1]), list(SIZES[3])]
    shutil.rmtree(root / "images")
    with pytest.raises(InputError, match="images is not a folder"):
        LOAD[kind](root, "all", missing="skip")


@pytest.mark.parametrize(
    "options", [{"boxes": "torso"}, {"centric": "XC"}, {"missing": "ignore"}]
)
def test_options_that_do_not_exist_are_refused(tmp_path, options):
    write(tmp_path, people(FLAGS), "lsp")
    with pytest.raises(ConfigError, match=next(iter(options))):
        lsp.load(tmp_path, "all", **options)


def bad_flag(path):
    save(path, people(FLAGS + 1), "lsp")


def not_finite(path):
    joints = people(FLAGS)
    joints[1, 6, 0] = np.nan
    save(path, joints, "lsp")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: path.write_bytes(b""), "cannot be read as a MATLAB file"),
        (lambda path: path.write_text("joints" * 99), "cannot be read as a MATLAB"),
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "cannot be read"),
        (
            lambda path: path.write_bytes(b" " * 124 + b"\x00\x02IM" + b" " * 99),
            "version 7.3",
        ),
        (lambda path: scipy.io.savemat(path, {"joint": 1}), "no variable 'joints'"),
        (
            lambda path: scipy.io.savemat(path, {"joints": np.ones((4, 14, 3))}),
            "4 x 14",
        ),
        (lambda path: scipy.io.savemat(path, {"joints": np.ones(7)}), "1 x 7"),
        (bad_flag, "flags of `joints` must be 0 or 1"),
        (not_finite, "image 2: right_wrist is labelled but not finite"),
    ],
)
def test_damage_is_named_in_one_line(tmp_path, damage, said):
    write(tmp_path, people(FLAGS), "lsp")
    path = tmp_path / "joints.mat"
    damage(path)
    with pytest.raises(InputError, match=said) as caught:
        lsp.load(tmp_path, "all")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_image_is_named(tmp_path):
    write(tmp_path, people(FLAGS), "lsp")
    (tmp_path / "images" / "im0002.jpg").write_text("<html>")
    with pytest.raises(InputError, match=r"im0002\.jpg cannot be read as an image"):
        lsp.load(tmp_path, "all")


def test_configs_find_the_readers_and_importing_them_is_cheap(run_python, tmp_path):
    assert data.DATASETS["lsp"].load is lsp.load
    assert data.DATASETS["lsp_extended"].load is lsp.load_extended
    write(tmp_path, people(FLAGS), "lsp")
    source = data.SourceConfig("lsp", str(tmp_path), "2-4", {"boxes": "image"})
    assert data.load(source).box_source == "image"
    done = run_python(
        "import sys, pose_jax.data; print('scipy.io' in sys.modules, "
        "'PIL' in sys.modules)"
    )
    assert done.stdout.split() == ["False", "False"], done.stderr


# ---------------------------------------------------------------------------- real files


@pytest.fixture
def complete(tmp_path, real_data):
    """LSP's real annotations, with tiny images in place of those that are not there."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 9)).save(tmp_path / "tiny.jpg")
    for i in range(1, 2001):
        (tmp_path / "images" / f"im{i:04d}.jpg").symlink_to(tmp_path / "tiny.jpg")
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


def test_real_lsp_points_lie_in_the_photographs(real_data):
    read = lsp.load(real_data / "lsp_dataset", "test", missing="skip")
    assert read.image_ids.tolist() == [1010, 1630, 1640, 1658, 1954, 1963]
    sizes = read.image_sizes[read.image][:, None]
    assert ((read.points_xy >= 0) & (read.points_xy < sizes)).mean() > 0.95
    person = (read.boxes_xyxy[:, 2:] - read.boxes_xyxy[:, :2]).max(-1)
    assert (person > 0.5 * sizes[:, 0].max(-1)).all()
    with pytest.raises(InputError, match="994 of 1000 images of lsp test"):
        lsp.load(real_data / "lsp_dataset", "test")


def test_real_lsp_is_not_read_as_its_extension(real_data):
    with pytest.raises(InputError, match='data set "lsp"'):
        lsp.load_extended(real_data / "lsp_dataset")
    with pytest.raises(InputError, match='data set "lsp_extended"'):
        lsp.load(real_data / "lspet_dataset")


def test_real_extension_has_its_known_numbers(real_data):
    read = lsp.load_extended(real_data / "lspet_dataset")
    assert len(read) == 6000
    assert set(np.unique(read.visibility)) == {0, 2}
    labelled = read.visibility > 0
    assert labelled.mean() == pytest.approx(0.88, abs=0.005)
    assert labelled.all(1).sum() == 2373 and labelled.sum(1).min() == 5
    assert not read.points_xy[~labelled].any()
    sizes = read.image_sizes[read.image]
    inside = ((read.points_xy >= 0) & (read.points_xy < sizes[:, None])).all(-1)
    assert inside[labelled].mean() > 0.999
    assert len(read.labelled_rows()) == 6000
    held_out = lsp.load_extended(real_data / "lspet_dataset", "5501-6000")
    np.testing.assert_array_equal(held_out.points_xy, read.points_xy[5500:])
    assert held_out.images[0].name == "im05501.jpg"
