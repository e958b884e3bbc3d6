"""Synthetic people: statistics, exact labels, visibility, bodies, files."""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pose_jax.data.synthetic import bodies, raster
from pose_jax.data.synthetic import scenes as synthetic
from pose_jax.errors import InputError
from pose_jax.keypoints import COCO

AT = {name: i for i, name in enumerate(COCO.names)}
SIZE = (320, 256)


@pytest.fixture(scope="module")
def scenes():
    return [
        synthetic.render(np.random.default_rng([5, i]), size=SIZE) for i in range(120)
    ]


@pytest.fixture(scope="module")
def people(scenes):
    return [person for _, group in scenes for person in group]


def test_how_often_people_are_seen_from_behind_hidden_and_cut(scenes, people):
    counts = np.bincount([len(group) for _, group in scenes], minlength=5)
    assert len(counts) == 5 and counts[0] == 0 and (counts[1:] > 0).all()
    visibility = np.stack([p.visibility for p in people])
    assert np.mean([p.facing_deg > 120 for p in people]) >= 0.25
    assert (visibility == 1).sum() / (visibility > 0).sum() >= 0.15
    assert np.mean([p.cut for p in people]) >= 0.10
    assert set(np.unique(visibility)) == {0, 1, 2}


def test_labels_are_inside_the_frame_and_zero_where_there_are_none(people):
    for p in people:
        labelled = p.visibility > 0
        assert (p.points_xy[labelled] >= 0).all()
        assert (p.points_xy[labelled] <= np.array(SIZE) - 1).all()
        assert (p.points_xy[~labelled] == 0).all()
        x, y, w, h = p.box_xywh
        assert x >= 0 and y >= 0 and x + w <= SIZE[0] and y + h <= SIZE[1]
        assert 0 < p.area <= w * h


def test_polygons_stay_in_the_box_and_enclose_the_area(people):
    ratios = []
    for p in people:
        x, y, w, h = p.box_xywh
        corners = np.concatenate(p.polygons)
        assert (corners >= (x, y)).all() and (corners <= (x + w, y + h)).all()
        assert all(len(polygon) >= 3 for polygon in p.polygons)
        assert np.ptp(corners, axis=0) == pytest.approx((w, h), abs=6)
        ratios.append(sum(_area(polygon) for polygon in p.polygons) / p.area)
    large = np.array(ratios)[[p.area > 200 for p in people]]
    assert len(large) > 100 and np.abs(large - 1).max() < 0.15


def test_left_and_right_follow_from_the_way_people_face(people):
    for low, high, sign in ((0, 50, 1), (130, 180, -1)):
        across = np.array([
            p.points_xy[AT["left_shoulder"], 0] - p.points_xy[AT["right_shoulder"], 0]
            for p in people
            if low <= p.facing_deg <= high and (p.visibility[[5, 6, 11, 12]] > 0).all()
            # Upright: the hips are below the shoulders.
            and np.ptp(p.points_xy[[5, 6], 1]) < p.points_xy[[11, 12], 1].mean()
            - p.points_xy[[5, 6], 1].mean()
        ])  # fmt: skip
        assert len(across) > 15
        assert np.mean(sign * across > 0) > 0.95


def test_faces_show_from_the_front_and_are_not_labelled_from_behind(people):
    nose = {True: [], False: []}
    for p in people:
        if (p.visibility[[5, 6]] > 0).all() and not 50 < p.facing_deg < 150:
            nose[p.facing_deg < 90].append(p.visibility[AT["nose"]])
    assert np.mean(np.array(nose[True]) > 0) > 0.9
    assert np.mean(np.array(nose[False]) > 0) < 0.35


def test_joint_limits_and_equal_sides():
    rng = np.random.default_rng(0)
    for _ in range(100):
        body = bodies.sample_skeleton(rng)
        lengths = {}
        for side in ("left_", "right_"):
            bones = {}
            for first, second, sign, names in (
                ("upper_arm", "forearm", 1, ("shoulder", "elbow", "wrist")),
                ("thigh", "shank", -1, ("hip", "knee", "ankle")),
            ):
                a, b, c = (body.joints[side + name] for name in names)
                bones[first], bones[second] = b - a, c - b
                # In the frame of the upper bone the lower one swings to one side only.
                local = body.frames[side + first].T @ (c - b)
                assert local[0] == pytest.approx(0, abs=1e-9)
                assert sign * local[2] >= -1e-9
                bend = np.arccos(np.clip(-local[1] / np.linalg.norm(local), -1, 1))
                assert np.rad2deg(bend) <= 145.001
            lengths[side] = {name: np.linalg.norm(bone) for name, bone in bones.items()}
        assert lengths["left_"] == pytest.approx(lengths["right_"])
        for frame in body.frames.values():
            np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-9)
            assert np.linalg.det(frame) > 0
        assert 0.8 < body.height < 2.1


# A body at attention, seen from the front and from behind, with a plank before it.


def _straight() -> bodies.Skeleton:
    """At attention, built from the code's own skeleton with every angle 0."""
    still = SimpleNamespace(
        root=[0, 0, 0], spine=[0, 0, 0], head=[0, 0, 0], arms=[[0, 12, 0, 0]] * 2,
        legs=[[0, 4, 0, 0]] * 2,
    )  # fmt: skip
    original = bodies._sample_angles
    bodies._sample_angles = lambda rng, shares: still
    try:
        return bodies.sample_skeleton(np.random.default_rng(1))
    finally:
        bodies._sample_angles = original


def _seen(yaw: float, clutter=(), shift=0.0):
    body = _straight()
    look = bodies.sample_look(np.random.default_rng(2))
    look.style, look.backpack = "short", False
    rotation = synthetic._TO_CAMERA @ bodies.turn(y=yaw)
    middle = np.mean(list(body.joints.values()), 0)
    position = np.array([shift, 0, 3.0]) - rotation @ middle
    actor = bodies.Actor(body, look, rotation, position)
    image, people = synthetic.draw(
        np.zeros((256, 320, 3), np.uint8), [actor], list(clutter), focal=256.0,
        light=np.array([0, 0, -1.0]),
    )  # fmt: skip
    return image, people[0], actor


def test_points_are_projections_of_the_joints():
    _, person, actor = _seen(0)
    for name, point in zip(COCO.names, person.points_xy, strict=True):
        x, y, z = actor.rotation @ actor.skeleton.joints[name] + actor.position
        expected = (256 * x / z + 159.5, 256 * y / z + 127.5)
        np.testing.assert_allclose(point, expected, atol=0.006)
    assert (
        person.points_xy[AT["left_wrist"], 0] > person.points_xy[AT["right_wrist"], 0]
    )


@pytest.mark.parametrize("yaw", [0, 180, 90])
def test_visibility_of_a_straight_body(yaw):
    _, person, _ = _seen(yaw)
    seen = dict(zip(COCO.names, person.visibility, strict=True))
    if yaw == 0:
        assert all(v == 2 for v in seen.values())
    elif yaw == 180:
        assert [seen[n] for n in ("nose", "left_eye", "right_eye")] == [0, 0, 0]
        assert all(seen[n] == 2 for n in COCO.names[3:])
    else:  # Turned to its left (image right): its right side shows.
        assert person.points_xy[AT["nose"], 0] > person.points_xy[AT["right_ear"], 0]
        assert seen["left_ear"] == 0 and seen["right_ear"] == 2
        for joint in ("shoulder", "elbow", "knee"):
            assert (seen["right_" + joint], seen["left_" + joint]) == (2, 1)


def test_a_plank_in_front_hides_what_it_covers_and_one_behind_hides_nothing():
    free_image, free, actor = _seen(0)
    hips = actor.position + actor.rotation @ actor.skeleton.joints["pelvis"]
    for depth, hidden in ((2.0, True), (4.0, False)):
        y = hips[1] / hips[2] * depth
        plank = (np.array([-3.0, y, depth]), np.array([3.0, y, depth]), 0.08, 0.08,
                 np.array([255.0, 0, 0]))  # fmt: skip
        _, person, _ = _seen(0, [plank])
        np.testing.assert_array_equal(person.points_xy, free.points_xy)
        half = 0.08 * 256 / depth
        away = np.abs(person.points_xy[:, 1] - (256 * y / depth + 127.5))
        covered = (away < half - 1) & hidden
        sure = covered | (away > half + 1) | (not hidden)
        expected = np.where(covered, 1, 2)
        np.testing.assert_array_equal(person.visibility[sure], expected[sure])
        assert (covered.sum() >= 2) == hidden
        if hidden:
            assert person.area < free.area and len(person.polygons) >= 2
        else:
            assert person.area == free.area
    assert (free_image > 0).any(-1).sum() >= free.area


def test_outside_the_frame_nothing_is_labelled():
    _, person, _ = _seen(0, shift=1.85)
    outside = person.visibility == 0
    assert outside.any() and not outside.all() and person.cut
    x, _, w, _ = person.box_xywh
    assert x + w == 320


def test_the_box_is_tight_round_the_pixels_seen():
    image, person, _ = _seen(0)
    rows, columns = np.nonzero((image > 0).any(-1))
    x, y, w, h = person.box_xywh
    # Soft edges reach at most one pixel beyond the mask.
    assert abs(columns.min() - x) <= 1 and abs(columns.max() + 1 - x - w) <= 1
    assert abs(rows.min() - y) <= 1 and abs(rows.max() + 1 - y - h) <= 1


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2


def test_outline_of_blocks_holes_and_specks():
    mask = np.zeros((40, 50), bool)
    mask[5:25, 10:40] = True
    assert sum(map(_area, raster.outline(mask))) == pytest.approx(600, rel=0.03)
    mask[10:20, 15:35] = False  # A hole, opened by a slit.
    assert sum(map(_area, raster.outline(mask))) == pytest.approx(400, rel=0.06)
    mask[30:36, 2:9] = mask[36:39, 9:12] = True  # Two blocks that touch in a corner.
    assert sum(map(_area, raster.outline(mask))) == pytest.approx(449, rel=0.07)
    speck = np.zeros((3, 3), bool)
    speck[1, 1] = True
    (polygon,) = raster.outline(speck)
    assert len(polygon) == 4 and (polygon.mean(0) == 1.5).all()


def _hashes(folder) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("synth") / "set"
    assert synthetic.write_dataset(out, n=12, seed=3, val=3).startswith("Wrote 12 + 3")
    return out


def test_same_seed_same_bytes_and_another_seed_others(folder, tmp_path):
    synthetic.write_dataset(tmp_path / "again", n=12, seed=3, val=3, workers=2)
    assert _hashes(tmp_path / "again") == _hashes(folder)
    synthetic.write_coco(tmp_path / "more", split="train", count=2, seed=3)
    synthetic.write_coco(tmp_path / "other", split="train", count=2, seed=4)
    first = "train2017/000000000001.jpg"
    assert _hashes(tmp_path / "more")[first] == _hashes(folder)[first]
    assert _hashes(tmp_path / "other")[first] != _hashes(folder)[first]
    # The splits are different people too.
    assert len(set(_hashes(folder).values())) == len(_hashes(folder))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_files_are_what_pycocotools_reads(folder, capsys):
    coco = pytest.importorskip("pycocotools.coco")
    image_ids, annotation_ids = [], []
    for split, count in (("train", 12), ("val", 3)):
        path = folder / "annotations" / f"person_keypoints_{split}2017.json"
        data = coco.COCO(str(path))
        assert len(data.imgs) == count
        category = data.loadCats(data.getCatIds(catNms=["person"]))[0]
        assert category["keypoints"] == list(COCO.names)
        assert [tuple(np.subtract(s, 1)) for s in category["skeleton"]] == list(
            COCO.skeleton
        )
        for image_id, info in data.imgs.items():
            with Image.open(folder / f"{split}2017" / info["file_name"]) as image:
                assert image.size == (info["width"], info["height"]) == SIZE
            annotations = data.loadAnns(data.getAnnIds(imgIds=image_id))
            assert 1 <= len(annotations) <= 4
            for annotation in annotations:
                visibility = annotation["keypoints"][2::3]
                assert len(visibility) == 17
                assert annotation["num_keypoints"] == sum(v > 0 for v in visibility)
                assert annotation["category_id"] == 1 and annotation["iscrowd"] == 0
                mask = data.annToMask(annotation)
                if annotation["area"] > 300:
                    assert mask.sum() == pytest.approx(annotation["area"], rel=0.15)
        image_ids += list(data.imgs)
        annotation_ids += list(data.anns)
    capsys.readouterr()
    for ids in (image_ids, annotation_ids):
        assert len(ids) == len(set(ids))


def test_a_folder_is_reused_finished_or_refused(folder, tmp_path):
    before = _hashes(folder)
    stamps = {p: p.stat().st_mtime_ns for p in folder.rglob("*.jpg")}
    assert "already" in synthetic.write_dataset(folder, n=12, seed=3, val=3)
    assert stamps == {p: p.stat().st_mtime_ns for p in folder.rglob("*.jpg")}
    (folder / "val2017" / "000000000014.jpg").unlink()  # An interrupted run.
    assert "Wrote" in synthetic.write_dataset(folder, n=12, seed=3, val=3)
    assert _hashes(folder) == before
    for options in ({"n": 13, "seed": 3}, {"n": 12, "seed": 4}):
        with pytest.raises(InputError, match="another"):
            synthetic.write_dataset(folder, **options, val=3)
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="empty"):
        synthetic.write_dataset(tmp_path, n=2, seed=0)
    assert json.loads((folder / "synthetic.json").read_text())["train"] == 12
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
