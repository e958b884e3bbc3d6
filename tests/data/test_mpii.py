"""MPII: three forms of one thing, MATLAB's empty fields, and one pixel of difference."""

import gzip
import json

import numpy as np
import pytest
import scipy.io
from PIL import Image

from pose_jax import data as data_lib
from pose_jax import keypoints
from pose_jax.data import mpii
from pose_jax.errors import ConfigError, InputError

OFFICIAL = "mpii_human_pose_v1_u12_1.mat"
EMPTY = np.zeros((0, 0))
SIZES = {f"00{i}.jpg": (40 + i, 90 - i) for i in range(1, 7)}


def images(root):
    (root / "images").mkdir(parents=True)
    for name, size in SIZES.items():
        Image.new("RGB", size, 77).save(root / "images" / name)
    (root / "annot").mkdir()


# --------------------------------------------------------------------- the official file


def structs(*rows):
    """A MATLAB struct array: every element has every field, if only an empty one."""
    fields = list(dict.fromkeys(name for row in rows for name in row))
    array = np.empty((1, len(rows)), [(name, object) for name in fields])
    for i, row in enumerate(rows):
        for name in fields:
            array[name][0, i] = row.get(name, EMPTY)
    return array


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
    images(tmp_path)
    scipy.io.savemat(tmp_path / "annot" / OFFICIAL, {"RELEASE": release()})
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
    sizes = [list(SIZES[name]) for name in ("001.jpg", "002.jpg", "003.jpg")]
    assert read.image_sizes.tolist() == sizes
    labelled = [sorted(np.flatnonzero(v).tolist()) for v in read.visibility]
    assert labelled == [[0, 6, 7, 8, 9, 10, 15], [], [4], [], [2, 5], [1]]


def test_official_visibility_may_be_text_number_empty_or_absent(official):
    read = mpii.load(official, "all")
    expected = {0: 2, 15: 1, 6: 2, 7: 1, 8: 1, 9: 2, 10: 2}
    assert [read.visibility[0, j] for j in expected] == list(expected.values())
    assert read.visibility[4, [2, 5]].tolist() == [1, 1]


def test_official_coordinates_become_zero_based(official):
    read = mpii.load(official, "all")
    assert read.points_xy[0, 0].tolist() == [0, 0]
    assert read.points_xy[0, 15].tolist() == [29.5, 39.25]
    assert not read.points_xy[0, 3].any()
    # Centre (50, 60 + 15 * 0.5) less one, half a side 100 * 0.5.
    assert read.boxes_xyxy[0].tolist() == [-1, 16.5, 99, 116.5]
    assert read.areas[0] == 100 * 100 and read.box_source == "gt_boxes"


def test_people_without_a_place_are_rows_that_are_not_learned_from(official):
    read = mpii.load(official, "all")
    assert not read.boxes_xyxy[2].any()
    assert read.labelled_rows().tolist() == [0, 4, 5]


def test_official_head_sizes_are_of_the_diagonal(official):
    read = mpii.load(official, "all")
    assert read.head_sizes == pytest.approx([0.6 * 5, 0, 0, 0, 0, 0])


def test_official_validation_needs_a_list_of_names(official):
    train, valid = mpii.load(official, "train"), mpii.load(official, "valid")
    assert valid.ids.tolist() == [6] and train.ids.tolist() == [1, 2, 4, 5, 9]
    (official / "annot" / "valid_images.txt").unlink()
    for split in ("train", "valid"):
        with pytest.raises(InputError, match=r"valid_images\.txt does not exist"):
            mpii.load(official, split)
    assert len(mpii.load(official, "all")) == 6


def test_official_test_people_are_boxes_without_labels(official):
    read = mpii.load(official, "test")
    assert not read.labelled and read.head_sizes is None
    assert read.ids.tolist() == [7]
    assert read.boxes_xyxy.tolist() == [[5 - 51, 13.5 - 51, 5 + 49, 13.5 + 49]]


@pytest.mark.parametrize("place", ["", "annot", "mpii_human_pose_v1_u12_2"])
def test_the_official_file_is_found(tmp_path, place):
    images(tmp_path)
    (tmp_path / place).mkdir(exist_ok=True)
    scipy.io.savemat(tmp_path / place / OFFICIAL, {"RELEASE": release()})
    assert len(mpii.load(tmp_path, "all")) == 6


def damage_id(value):
    value["annolist"]["annorect"][0, 2] = structs(joints(point(16, 1, 1)))


def damage_name(value):
    value["annolist"]["image"][0, 1] = EMPTY


def damage_train(value):
    value["img_train"] = np.ones((1, 3))


def damage_annolist(value):
    del value["annolist"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_id, r"annolist\(3\)\.annorect\(1\): a point has the id 16"),
        (damage_name, r"annolist\(2\)\.image\.name is missing"),
        (damage_train, "annolist has 6 images and img_train 3"),
        (damage_annolist, "annolist has 0 images"),
    ],
)
def test_a_damaged_official_file_is_named_in_one_line(official, damage, said):
    value = release()
    damage(value)
    scipy.io.savemat(official / "annot" / OFFICIAL, {"RELEASE": value})
    with pytest.raises(InputError, match=said) as caught:
        mpii.load(official, "all")
    assert OFFICIAL in str(caught.value) and "\n" not in str(caught.value)


# ------------------------------------------------------------------------------ the jsons


def row(seed, image, **fields):
    """Row of the common json; two joints are not labelled, in either way."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(2, 40, (16, 2)).round(3)
    points[3] = -1
    flags = [0 if joint in (3, 11) else 1 for joint in range(16)]
    return {
        "image": image,
        "center": [20.5 + seed, 30.0],
        "scale": 0.25,
        "joints": points.tolist(),
        "joints_vis": flags,
    } | fields


def rows():
    return [row(1, "002.jpg"), row(2, "001.jpg"), row(3, "002.jpg")]


def gt_valid(people):
    points = np.array([person["joints"] for person in people])
    missing = 1 - np.array([person["joints_vis"] for person in people])
    boxes = np.array([[[10, 20], [10 + 3 * i, 20 + 4 * i]] for i in range(len(people))])
    return {
        "pos_gt_src": points.transpose(1, 2, 0),
        "headboxes_src": boxes.transpose(1, 2, 0).astype(float),
        "jnt_missing": missing.T,
    }


@pytest.fixture
def common(tmp_path):
    images(tmp_path)
    (tmp_path / "annot" / "valid.json").write_text(json.dumps(rows()))
    return tmp_path


def test_common_json_keeps_its_order_and_becomes_zero_based(common):
    read = mpii.load(common, "valid")
    assert read.ids.tolist() == [1, 2, 3]
    assert [i.name for i in read.images] == ["002.jpg", "001.jpg"]
    assert read.image.tolist() == [0, 1, 0] and read.image_ids.tolist() == [1, 2]
    assert read.image_sizes.tolist() == [list(SIZES[i.name]) for i in read.images]
    for i, source in enumerate(rows()):
        labelled = np.array(source["joints_vis"]) == 1
        np.testing.assert_array_equal(read.visibility[i], 2 * labelled)
        expected = np.where(labelled[:, None], np.array(source["joints"]) - 1, 0)
        np.testing.assert_array_equal(read.points_xy[i], expected)
    # Centre (21.5, 30 + 15 * 0.25) less one, half a side 100 * 0.25.
    assert read.boxes_xyxy[0].tolist() == [-4.5, 7.75, 45.5, 57.75]
    assert read.box_source == "gt_boxes" and read.head_sizes is None


def test_joints_at_nothing_are_not_labelled_whatever_their_flag(common):
    people = rows()
    people[1]["joints_vis"] = [1] * 16
    people[1]["joints"][5] = [0, 0]
    people[1]["joints"][6] = [0.5, 12]
    (common / "annot" / "valid.json").write_text(json.dumps(people))
    read = mpii.load(common, "valid")
    assert np.flatnonzero(read.visibility[1] == 0).tolist() == [3, 5]
    assert read.points_xy[1, 6].tolist() == [-0.5, 11]


def test_people_of_unknown_position_are_rows_without_a_box(common):
    people = [row(1, "001.jpg", center=[-1.0, -1.0], scale=-1.0), row(2, "002.jpg")]
    (common / "annot" / "valid.json").write_text(json.dumps(people))
    read = mpii.load(common, "valid")
    assert not read.boxes_xyxy[0].any() and read.labelled_rows().tolist() == [1]
    bare = [
        {key: person[key] for key in ("image", "center", "scale")} for person in people
    ]
    (common / "annot" / "test.json").write_text(json.dumps(bare))
    with pytest.raises(InputError, match="row 0: center and scale are unknown"):
        mpii.load(common, "test")
    (common / "annot" / "test.json").write_text(json.dumps(bare[1:]))
    read = mpii.load(common, "test")
    assert len(read) == 1 and not read.labelled and (read.areas > 0).all()


def test_head_sizes_come_from_the_rows_of_gt_valid(common):
    people = rows()
    scipy.io.savemat(common / "annot" / "gt_valid.mat", gt_valid(people))
    read = mpii.load(common, "valid")
    np.testing.assert_allclose(read.head_sizes, [0, 0.6 * 5, 0.6 * 10])
    (common / "images" / "001.jpg").unlink()
    read = mpii.load(common, "valid", missing="skip")
    np.testing.assert_allclose(read.head_sizes, [0, 0.6 * 10])
    assert read.ids.tolist() == [1, 3]
    (common / "annot" / "train.json").write_text(json.dumps(people[:1]))
    assert mpii.load(common, "train", missing="skip").head_sizes is None


def test_the_few_people_in_whom_gt_valid_differs_have_its_joints(common):
    people = [row(i, "001.jpg") for i in range(1, 201)]
    (common / "annot" / "valid.json").write_text(json.dumps(people))
    other = gt_valid(people)
    other["pos_gt_src"] = other["pos_gt_src"].astype(float)
    other["pos_gt_src"][..., 7] += 30
    other["pos_gt_src"][..., 8] += 1  # Rounding.
    scipy.io.savemat(common / "annot" / "gt_valid.mat", other)
    read = mpii.load(common, "valid")
    labelled = read.visibility[7] > 0
    moved = read.points_xy - (np.array([p["joints"] for p in people]) - 1)
    np.testing.assert_allclose(moved[7][labelled], 30)
    others = (np.arange(200) != 7)[:, None] & (read.visibility > 0)
    np.testing.assert_array_equal(moved[others], 0)
    assert labelled.sum() == 14


def test_one_person_alone_has_head_sizes_though_matlab_drops_the_axis(common):
    people = rows()[1:2]
    (common / "annot" / "valid.json").write_text(json.dumps(people))
    value = {k: v[..., 0] for k, v in gt_valid(rows()[:2]).items()}
    value["pos_gt_src"] = np.array(people[0]["joints"])
    value["headboxes_src"] = np.array([[4, 5], [1, 1]], np.uint8)  # Kept as bytes.
    scipy.io.savemat(common / "annot" / "gt_valid.mat", value)
    np.testing.assert_allclose(mpii.load(common, "valid").head_sizes, [3])


@pytest.mark.parametrize("change", ["fewer", "other order"])
def test_head_sizes_of_other_people_are_not_taken(common, change):
    people = rows()[:2] if change == "fewer" else rows()[::-1]
    scipy.io.savemat(common / "annot" / "gt_valid.mat", gt_valid(people))
    assert mpii.load(common, "valid").head_sizes is None


def both(seed, image, valid, **fields):
    """A row of mpii_annotations.json."""
    rng = np.random.default_rng(seed)
    triples = np.concatenate(
        [rng.uniform(2, 40, (16, 2)).round(3), np.ones((16, 1))], 1
    )
    triples[4, 2] = 0  # Hidden.
    triples[9] = 0  # Not labelled.
    width, height = SIZES[image]
    return {
        "dataset": "MPI",
        "isValidation": float(valid),
        "img_paths": image,
        "img_width": float(width),
        "img_height": float(height),
        "objpos": [20.5, 30.0 + seed],
        "scale_provided": 0.25,
        "joint_self": triples.tolist(),
    } | fields


def both_rows():
    return [
        both(1, "003.jpg", 0),
        both(2, "001.jpg", 1),
        both(3, "003.jpg", 0),
        both(4, "002.jpg", 1),
    ]


@pytest.mark.parametrize("name", ["mpii_annotations.json", "mpii_annotations.json.gz"])
def test_one_json_of_both_splits_is_parted(tmp_path, name):
    images(tmp_path)
    data = json.dumps(both_rows()).encode()
    path = tmp_path / "annot" / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    train, valid, every = (mpii.load(tmp_path, s) for s in ("train", "valid", "all"))
    assert [i.name for i in train.images] == ["003.jpg"]
    assert [i.name for i in valid.images] == ["001.jpg", "002.jpg"]
    assert train.image.tolist() == [0, 0] and every.image.tolist() == [0, 1, 0, 2]
    assert train.ids.tolist() == valid.ids.tolist() == [1, 2]
    assert every.ids.tolist() == [1, 2, 3, 4] and every.image_ids.tolist() == [1, 2, 4]
    expected = np.full(16, 2)
    expected[[4, 9]] = 1, 0
    assert every.visibility.tolist() == [expected.tolist()] * 4
    for i, source in enumerate(both_rows()):
        points = np.array(source["joint_self"])[:, :2] - 1
        points[9] = 0
        np.testing.assert_array_equal(every.points_xy[i], points)
    assert every.boxes_xyxy[1].tolist() == [-5.5, 9.75, 44.5, 59.75]
    assert every.image_sizes.tolist() == [
        list(SIZES[name]) for name in ("003.jpg", "001.jpg", "002.jpg")
    ]
    with pytest.raises(InputError, match="none of test"):
        mpii.load(tmp_path, "test", annotations=path)


def test_a_named_file_goes_before_what_is_found(common):
    path = common / "mine.json"
    path.write_text(json.dumps(rows()[:1]))
    assert len(mpii.load(common, "valid", annotations=path)) == 1
    assert len(mpii.load(common, "train", annotations=path)) == 1
    assert len(mpii.load(common, "valid")) == 3


def test_absent_annotations_say_where_was_looked(common):
    with pytest.raises(InputError, match=r"mpii train in .*annot: none of train\.json"):
        mpii.load(common, "train")
    with pytest.raises(InputError, match=r"nowhere\.json does not exist"):
        mpii.load(common, annotations=common / "nowhere.json")
    with pytest.raises(InputError, match=r"nowhere\.mat does not exist"):
        mpii.load(common, "all", annotations=common / "nowhere.mat")
    for options in ({"split": "val"}, {"split": "valid", "missing": "ignore"}):
        with pytest.raises(ConfigError, match=list(options)[-1]):
            mpii.load(common, **options)


def test_missing_images_are_counted_or_skipped(common):
    (common / "images" / "002.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 2 images of mpii valid .*002\.jpg"):
        mpii.load(common, "valid")
    read = mpii.load(common, "valid", missing="skip")
    assert read.ids.tolist() == [2] and read.image_ids.tolist() == [2]


def without(name):
    return lambda person: person.pop(name)


def having(name, value):
    return lambda person: person.update({name: value})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without("image"), "row 1: image must be a file name"),
        (having("image", 7), "row 1: image must be a file name"),
        (without("joints"), "row 1: joints is missing"),
        (without("joints_vis"), "row 1: joints_vis is missing"),
        (having("joints", [[1, 2]] * 15), "row 1: joints must be 16 x 2 finite"),
        (having("joints", [[1, float("nan")]] * 16), "row 1: joints must be 16 x 2"),
        (having("joints", [[1], [2, 3]]), "row 1: joints must be 16 x 2 finite"),
        (having("joints_vis", None), "row 1: joints_vis must be 16 finite"),
        (without("center"), "row 1: center is missing"),
        (having("center", [1, 2, 3]), "row 1: center must be 2 finite"),
        (without("scale"), "row 1: scale is missing"),
        (having("scale", "big"), "row 1: scale must be a number"),
    ],
)
def test_damage_is_named_in_one_line(common, damage, said):
    people = rows()
    damage(people[1])
    path = common / "annot" / "valid.json"
    path.write_text(json.dumps(people))
    with pytest.raises(InputError, match=said) as caught:
        mpii.load(common, "valid")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"{}", b"[1]", b"\xff\xfe", b"\x1f\x8b"])
@pytest.mark.parametrize("suffix", ["json", "json.gz"])
def test_what_is_not_the_file_is_refused(common, data, suffix):
    path = common / f"mine.{suffix}"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"mine\.json") as caught:
        mpii.load(common, "valid", annotations=path)
    assert "\n" not in str(caught.value)


def test_configs_find_the_reader(common):
    source = data_lib.SourceConfig("mpii", str(common), "valid")
    assert len(data_lib.load(source)) == 3


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
    sizes = read.image_sizes[read.image][:, None]
    inside = ((read.points_xy >= 0) & (read.points_xy < sizes)).all(-1)
    labelled = read.visibility > 0
    assert inside[labelled].mean() > 0.98
    # The box of a person holds nearly all of the person.
    low, high = read.boxes_xyxy[:, None, :2], read.boxes_xyxy[:, None, 2:]
    held = ((read.points_xy >= low) & (read.points_xy <= high)).all(-1)
    assert held[labelled].mean() > 0.9
