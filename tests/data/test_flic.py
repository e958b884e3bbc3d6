"""FLIC: several people in one frame, NaN as "not labelled", three kinds of boxes."""

import numpy as np
import pytest
import scipy.io
from PIL import Image

from pose_jax import data, keypoints
from pose_jax.data import flic
from pose_jax.errors import ConfigError, InputError

SIZES = {"film-0001.jpg": (90, 60), "film-0002.jpg": (45, 70)}
FILLED = {
    "left_shoulder": 0, "left_elbow": 1, "left_wrist": 2,
    "right_shoulder": 3, "right_elbow": 4, "right_wrist": 5,
    "left_hip": 6, "right_hip": 9, "left_eye": 12, "right_eye": 13, "nose": 16,
}  # fmt: skip


def example(seed, filepath, train):
    rng = np.random.default_rng(seed)
    coords = np.full((2, 29), np.nan)
    coords[:, list(FILLED.values())] = rng.uniform(0, 44, (2, 11)).round(2)
    coords[:, 0], coords[:, 5] = 1.5, 43.25
    return {
        "poselet_hit_idx": seed,
        "moviename": "film",
        "coords": coords,
        "filepath": filepath,
        "imgdims": np.array([[60, 90, 3]]),
        "currframe": 1,
        "torsobox": np.array([[3, 4, 30.5, 40.25]]) + seed,
        "istrain": train,
        "istest": not train,
    }


def tiny():
    """Two people in the first frame, one of them a test example; one in the second."""
    return [
        example(1, "film-0001.jpg", True),
        example(2, "film-0002.jpg", True),
        example(3, "film-0001.jpg", True),
        example(4, "film-0001.jpg", False),
    ]


def save(path, examples, name="examples"):
    fields = list(dict.fromkeys(key for row in examples for key in row))
    array = np.empty((1, len(examples)), [(key, object) for key in fields])
    for i, row in enumerate(examples):
        for key in fields:
            array[key][0, i] = row.get(key, np.zeros((0, 0)))
    scipy.io.savemat(path, {name: array})


def write(root, examples):
    (root / "images").mkdir()
    for name, size in SIZES.items():
        Image.new("RGB", size, 77).save(root / "images" / name)
    save(root / "examples.mat", examples)


@pytest.fixture
def root(tmp_path):
    write(tmp_path, tiny())
    return tmp_path


def test_people_of_one_frame_share_its_image(root):
    read = flic.load(root, "all")
    assert [i.name for i in read.images] == list(SIZES)
    assert read.image.tolist() == [0, 1, 0, 0]
    assert read.image_sizes.tolist() == [list(size) for size in SIZES.values()]
    assert read.ids.tolist() == [1, 2, 3, 4] and read.image_ids.tolist() == [1, 2]
    assert read.keypoints is keypoints.FLIC and read.centric == "PC"


def test_each_split_keeps_the_numbers_of_the_file(root):
    train, test = flic.load(root, "train"), flic.load(root, "test")
    assert train.ids.tolist() == [1, 2, 3] and train.image.tolist() == [0, 1, 0]
    assert test.ids.tolist() == [4] and test.image_ids.tolist() == [4]
    assert test.images[0].name == "film-0001.jpg" and len(test.images) == 1


def test_the_filled_columns_have_their_names(root):
    read = flic.load(root, "all")
    for row, source in enumerate(tiny()):
        for joint, name in enumerate(keypoints.FLIC.names):
            expected = source["coords"][:, FILLED[name]]
            assert read.points_xy[row, joint].tolist() == expected.tolist()
    assert (read.visibility == 2).all()


def test_nan_is_not_labelled(tmp_path):
    rows = tiny()
    rows[1]["coords"][:, FILLED["nose"]] = np.nan
    rows[2]["coords"][0, FILLED["left_hip"]] = np.nan
    rows[3]["coords"][:] = np.nan
    write(tmp_path, rows)
    read = flic.load(tmp_path, "all")
    nose, hip = (keypoints.FLIC.names.index(name) for name in ("nose", "left_hip"))
    assert np.argwhere(read.visibility[:3] == 0).tolist() == [[1, nose], [2, hip]]
    assert read.points_xy[1, nose].tolist() == [0, 0] == read.points_xy[2, hip].tolist()
    assert np.isfinite(read.boxes_xyxy).all() and not read.boxes_xyxy[3].any()
    assert read.labelled_rows().tolist() == [0, 1, 2]


def test_boxes_are_of_joints_of_the_torso_or_the_image(root):
    joints, torso, whole = (
        flic.load(root, "all", boxes=b) for b in ("joint_boxes", "torso_boxes", "image")
    )
    for row in range(4):
        low, high = joints.points_xy[row].min(0), joints.points_xy[row].max(0)
        assert joints.boxes_xyxy[row].tolist() == [*low, *high]
    assert torso.boxes_xyxy.tolist() == [
        [3 + s, 4 + s, 30.5 + s, 40.25 + s] for s in (1, 2, 3, 4)
    ]
    assert torso.areas.tolist() == [27.5 * 36.25] * 4
    w, h = SIZES["film-0002.jpg"]
    assert whole.boxes_xyxy[1].tolist() == [0, 0, w, h]
    sources = [t.box_source for t in (joints, torso, whole)]
    assert sources == ["joint_boxes", "torso_boxes", "image"]
    skipped = flic.load(root, "test", boxes="torso_boxes")
    assert skipped.boxes_xyxy.tolist() == torso.boxes_xyxy[3:].tolist()


def test_observer_centric_labels_are_another_file_and_variable(root):
    with pytest.raises(InputError, match=r"flic-joints-oc\.mat does not exist"):
        flic.load(root, "all", centric="OC")
    rows = tiny()
    rows[0]["coords"][:, [0, 3]] = rows[0]["coords"][:, [3, 0]]
    save(root / "flic-joints-oc.mat", rows, "flic_anno")
    read = flic.load(root, "all", centric="OC")
    assert read.centric == "OC"
    person = flic.load(root, "all")
    np.testing.assert_array_equal(
        read.points_xy[0, [3, 0]], person.points_xy[0, [0, 3]]
    )
    np.testing.assert_array_equal(read.points_xy[1:], person.points_xy[1:])
    with pytest.raises(InputError, match="no variable 'examples'"):
        flic.load(root, "all", annotations=root / "flic-joints-oc.mat")


def test_missing_frames_take_all_their_people_along(root):
    (root / "images" / "film-0001.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 2 images .*film-0001\.jpg"):
        flic.load(root, "all")
    read = flic.load(root, "all", missing="skip")
    assert read.ids.tolist() == [2] and read.image.tolist() == [0]
    assert read.image_ids.tolist() == [2]
    assert len(flic.load(root, "test", missing="skip")) == 0


@pytest.mark.parametrize(
    ("split", "options"),
    [
        ("valid", {}),
        ("all", {"boxes": "torso"}),
        ("all", {"centric": "pc"}),
        ("all", {"missing": "ignore"}),
    ],
)
def test_options_that_do_not_exist_are_refused(root, split, options):
    with pytest.raises(ConfigError, match=next(iter(options), "split")):
        flic.load(root, split, **options)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("coords", np.zeros((2, 28)), "example 3: coords must be 2 x 29; got 2 x 28"),
        ("coords", np.zeros((0, 0)), "example 3: coords must be 2 x 29"),
        ("filepath", "", "example 3: filepath is missing"),
        ("istrain", np.zeros((0, 0)), "example 3: istrain is missing"),
        ("torsobox", np.zeros((0, 0)), "example 3: torsobox must be"),
        ("torsobox", np.array([[5, 5, 5, 9]]), "example 3: torsobox must be"),
    ],
)
def test_damage_is_named_in_one_line(tmp_path, field, value, said):
    rows = tiny()
    rows[2][field] = value
    write(tmp_path, rows)
    with pytest.raises(InputError, match=said) as caught:
        flic.load(tmp_path, "train", boxes="torso_boxes")
    assert "examples.mat" in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_struct_is_refused(root):
    scipy.io.savemat(root / "examples.mat", {"examples": np.ones(5)})
    with pytest.raises(InputError, match="no struct array"):
        flic.load(root)


def test_configs_find_the_reader(root):
    source = data.SourceConfig("flic", str(root), "train")
    assert len(data.load(source)) == 3


# ---------------------------------------------------------------------------- real files


@pytest.fixture
def complete(tmp_path, real_data):
    """FLIC's real annotations, with tiny images in place of all frames."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 9)).save(tmp_path / "tiny.jpg")
    for name in ("examples.mat", "flic-joints-oc.mat"):
        (tmp_path / name).symlink_to(real_data / "FLIC" / name)
    examples = scipy.io.loadmat(tmp_path / "examples.mat")["examples"]
    for name in {str(path.item()) for path in examples["filepath"].ravel()}:
        (tmp_path / "images" / name).symlink_to(tmp_path / "tiny.jpg")
    return tmp_path


def test_real_flic_has_its_known_numbers(complete):
    train, test, every = (flic.load(complete, s) for s in ("train", "test", "all"))
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
    torso = flic.load(complete, "all", boxes="torso_boxes")
    extent = torso.boxes_xyxy[:, 2:] - torso.boxes_xyxy[:, :2]
    assert (extent > 10).all() and len(torso.labelled_rows()) == 5003


def test_real_flic_points_lie_in_the_frames(real_data):
    for centric in ("PC", "OC"):
        read = flic.load(real_data / "FLIC", "all", centric=centric, missing="skip")
        assert len(read.images) == 2 and len(read) >= 2
        sizes = read.image_sizes[read.image][:, None]
        assert ((read.points_xy > 0) & (read.points_xy < sizes)).mean() > 0.95
    with pytest.raises(InputError, match="of 4552 images of flic all"):
        flic.load(real_data / "FLIC", "all")
