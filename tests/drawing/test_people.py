"""Pictures: marks are where the points are, and no input is too odd to draw."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from pose_jax.drawing import cascade, curves, sheet
from pose_jax.drawing import maps as maps_lib
from pose_jax.drawing import people as drawing
from pose_jax.drawing import votes as votes_lib
from pose_jax.keypoints import COCO, LSP, SETS, KeypointSet

GREY = np.full((60, 90, 3), 128, np.uint8)  # Height 60, width 90.
PERSON = np.stack([np.linspace(20, 70, 17), np.linspace(5, 55, 17)], -1)
LONELY = KeypointSet("lonely", ("a",), flip_pairs=(), skeleton=())


def _changed(picture, image=GREY):
    """[h, w]: which pixels are not the image's any more."""
    return (picture.astype(int) != image).any(-1)


def _centre_of_mass(mask):
    y, x = np.nonzero(mask)
    return np.array([x.mean(), y.mean()])


@pytest.mark.parametrize("xy", [(45.0, 30.0), (10.25, 50.75), (80.0, 7.5)])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_a_point_is_drawn_where_it_is(xy, scale):
    picture = drawing.draw_pose(GREY, [xy], LONELY, scale=scale)
    assert picture.shape == (60 * scale, 90 * scale, 3) and picture.dtype == np.uint8
    enlarged = np.full_like(picture, 128)
    expected = (np.array(xy) + 0.5) * scale - 0.5
    found = _centre_of_mass(_changed(picture, enlarged))
    np.testing.assert_allclose(found, expected, atol=0.5)


def test_a_skeleton_stays_near_its_points_and_the_image_is_not_changed():
    image = GREY.copy()
    picture = drawing.draw_pose(image, PERSON, COCO)
    np.testing.assert_array_equal(image, GREY)
    y, x = np.nonzero(_changed(picture))
    assert len(x) > 100
    assert x.min() >= 10 and x.max() <= 80 and y.min() >= 0


def test_unlabelled_keypoints_and_their_limbs_are_not_drawn():
    nothing = drawing.draw_pose(GREY, PERSON, COCO, visibility=np.zeros(17))
    np.testing.assert_array_equal(nothing, GREY)
    visibility = np.full(17, 2)
    visibility[9] = 0  # A wrist: far from everything else.
    far = PERSON.copy()
    far[9] = (85, 5)
    picture = drawing.draw_pose(GREY, far, COCO, visibility=visibility)
    assert not _changed(picture)[:15, 75:].any()


def _ink(**marks):
    picture = drawing.draw_pose(GREY, PERSON, COCO, **marks)
    return np.abs(picture.astype(int) - GREY).sum()


def test_hidden_and_unsure_keypoints_take_less_ink():
    hidden, seen = _ink(visibility=np.full(17, 1)), _ink(visibility=np.full(17, 2))
    assert 0 < hidden < seen
    assert _ink(scores=np.full(17, 0.1)) == hidden
    assert _ink(scores=np.full(17, 0.9)) == seen == _ink()


@pytest.mark.parametrize("keypoint_set", SETS.values(), ids=SETS)
def test_left_is_orange_and_right_blue_in_every_set(keypoint_set):
    """Each joint alone: the sets disagree about which of a pair comes first."""
    for i, name in enumerate(keypoint_set.names):
        visibility = np.zeros(len(keypoint_set), int)
        visibility[i] = 2
        points_xy = np.full((len(keypoint_set), 2), 30.0)
        picture = drawing.draw_pose(
            GREY, points_xy, keypoint_set, visibility=visibility, scale=3
        )
        side = name.split("_")[0]
        expected = {"left": drawing.LEFT, "right": drawing.RIGHT}
        at = tuple(picture[91, 91])  # The middle of pixel (30, 30).
        assert at == expected.get(side, drawing.CENTRE), name


@settings(max_examples=60, deadline=None)
@given(
    points_xy=hnp.arrays(
        np.float64,
        (2, 14, 2),
        elements=st.one_of(
            st.floats(-1e9, 1e9), st.sampled_from([np.nan, np.inf, -np.inf, 0.0])
        ),
    ),
    visibility=hnp.arrays(np.int32, (2, 14), elements=st.integers(0, 2)),
)
def test_any_points_can_be_drawn(points_xy, visibility):
    boxes_xyxy = points_xy[:, :2].reshape(2, 4)
    picture = drawing.draw_people(
        GREY, points_xy, LSP, visibility=visibility, boxes_xyxy=boxes_xyxy
    )
    assert picture.shape == GREY.shape and picture.dtype == np.uint8


def test_no_people_are_drawn_as_the_image():
    for marks in ({}, {"scores": np.zeros((0, 17))}, {"boxes_xyxy": np.zeros((0, 4))}):
        picture = drawing.draw_people(GREY, np.zeros((0, 17, 2)), COCO, **marks)
        np.testing.assert_array_equal(picture, GREY)


@pytest.mark.parametrize(
    ("image", "points_xy", "marks"),
    [
        (GREY, np.zeros((2, 16, 2)), {}),
        (GREY, np.zeros((17, 2)), {}),
        (GREY, np.zeros((2, 17, 2)), {"scores": np.zeros((1, 17))}),
        (GREY, np.zeros((1, 17, 2)), dict.fromkeys(("visibility", "scores"), PERSON)),
        (GREY[..., 0], np.zeros((2, 17, 2)), {}),
        (GREY.astype(np.int32), np.zeros((2, 17, 2)), {}),
    ],
)
def test_shapes_that_do_not_fit_are_refused(image, points_xy, marks):
    with pytest.raises(ValueError, match=r"got|not both"):
        drawing.draw_people(image, points_xy, COCO, **marks)


@pytest.mark.parametrize("alignment", ["stride", "aligned", "half_pixel"])
def test_an_overlay_peaks_where_the_heatmap_does(alignment):
    heatmaps = np.zeros((15, 18, 2), np.float32)  # For an input of 60 x 90.
    heatmaps[4, 11, 1] = 1.0
    picture = maps_lib.heatmap_overlay(GREY, heatmaps, alignment=alignment)
    change = np.abs(picture.astype(int) - GREY).sum(-1)
    y, x = np.unravel_index(change.argmax(), change.shape)
    factor = (89 / 17, 59 / 14) if alignment == "aligned" else (5, 4)
    shift = (2, 1.5) if alignment == "half_pixel" else (0, 0)
    expected = (11 * factor[0] + shift[0], 4 * factor[1] + shift[1])
    np.testing.assert_allclose((x, y), expected, atol=0.51)
    # Linear interpolation: nothing one map pixel further on.
    assert _changed(picture).sum() < (2 * factor[0] + 1) * (2 * factor[1] + 1)


@pytest.mark.parametrize("alignment", ["stride", "aligned", "half_pixel"])
def test_a_heatmap_as_large_as_the_image_colours_its_own_pixels(alignment):
    heatmaps = np.zeros((60, 90, 1), np.float32)
    heatmaps[50, 70] = 1.0
    picture = maps_lib.heatmap_overlay(
        GREY, heatmaps, alignment=alignment, strength=0.5
    )
    assert picture[50, 70].tolist() == [192, 64, 64]
    assert _changed(picture).sum() == 1


def test_an_overlay_of_nothing_is_the_image():
    for heatmaps in (np.zeros((15, 18, 3)), np.full((15, 18, 3), -2.0)):
        np.testing.assert_array_equal(maps_lib.heatmap_overlay(GREY, heatmaps), GREY)
    odd = np.full((15, 18, 3), np.nan)
    odd[0, 0, 0] = np.inf
    assert maps_lib.heatmap_overlay(GREY, odd).shape == GREY.shape


def test_a_float_image_is_the_same_picture():
    heatmaps = np.random.default_rng(0).random((15, 18, 3))
    np.testing.assert_array_equal(
        maps_lib.heatmap_overlay((GREY / 255).astype(np.float32), heatmaps),
        maps_lib.heatmap_overlay(GREY, heatmaps),
    )


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("titled", [False, True])
def test_a_sheet_holds_every_picture_whole(count, titled):
    images = [np.full((20 + i, 40 - i, 3), 40 + 30 * i, np.uint8) for i in range(count)]
    titles = ["a title far too long for its cell"] * count if titled else None
    picture = sheet.sheet(images, 3, titles)
    for image in images:
        shown = (picture == image[0, 0]).all(-1).sum()
        assert shown >= image.shape[0] * image.shape[1]


def test_a_sheet_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="columns"):
        sheet.sheet([GREY], 0)
    with pytest.raises(ValueError, match="2 titles"):
        sheet.sheet([GREY], 1, ["a", "b"])


def test_a_preview_shows_each_input_beside_its_targets():
    b, k = 5, 17
    preview = {
        "input": np.full((b, 60, 90, 3), 0.5, np.float32),
        "points_xy": np.broadcast_to(PERSON, (b, k, 2)),
        "visibility": np.full((b, k), 2),
    }
    alone = sheet.preview_sheet(preview, COCO, columns=2)
    both = sheet.preview_sheet(
        {**preview, "targets": np.zeros((b, 15, 18, k))}, COCO, columns=2
    )
    assert alone.shape[0] == both.shape[0] >= 3 * 60
    assert both.shape[1] - alone.shape[1] == 2 * 90


def test_curves_draw_every_phase_and_skip_what_is_no_number(tmp_path):
    lines = [
        {"step": s, "phase": p, "time": 1.0, "loss": 1 / (s + 1), "odd": None}
        for p in ("stage_1", "stage_2")
        for s in range(40)
    ]
    lines.append({"step": 39, "phase": "stage_2", "AP@gt_boxes": 0.5})
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    curves.curves(path, tmp_path / "new" / "curves.png")
    picture = np.asarray(Image.open(tmp_path / "new" / "curves.png").convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    path.write_text("")
    curves.curves(path, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists()


def test_a_saved_picture_is_read_back(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
    sheet.save_png(tmp_path / "a" / "b.png", picture)
    np.testing.assert_array_equal(Image.open(tmp_path / "a" / "b.png"), picture)


def test_refinement_shows_every_stage_and_what_moved_the_furthest():
    image = np.zeros((64, 64, 3), np.uint8)
    image[30:34, 40:44] = 255  # Where the wrist is.
    stages = np.full((3, 14, 2), 32.0)
    stages[1:, 6] = (41.5, 31.5)
    stages[2, 0] = (36, 32)
    squares = np.array([[32.0, 32.0], [16.0, 16.0]])
    pictures, titles = cascade.refinement(image, stages, squares, LSP, side=160)
    assert titles == [
        "stage 1", "right_wrist: 9.5 px", "stage 2", "right_ankle: 4.0 px", "stage 3"
    ]  # fmt: skip
    assert {picture.shape[0] for picture in pictures} == {160}
    square = pictures[1]
    # The square is 32 px wide about (32, 32): the wrist is at (41.5 - 16) * 5.
    assert square[79, 128].tolist() == [0, 255, 0]  # The dot on it.
    assert square[77, 135].min() > 200  # Its white beside the dot, up to 137.
    assert square[77, 140].max() < 50
    nowhere = np.full((1, 14, 2), np.nan)
    assert len(cascade.refinement(image, nowhere, squares[:0], LSP)[0]) == 1


def _votes(centers_xy, radius=12, shape=(60, 90)):
    """Perfect maps of 17 keypoints: discs, offsets, votes; and the points."""
    h, w = shape
    points_xy = np.array(centers_xy, float) + np.zeros((17, 2))
    pixels = np.stack(np.meshgrid(np.arange(w), np.arange(h)), axis=-1)
    offsets = points_xy - pixels[:, :, None]
    heatmaps = (np.linalg.norm(offsets, axis=-1) <= radius).astype(np.float32)
    fused = np.zeros((h, w, 17))
    for k, (x, y) in enumerate(points_xy.round().astype(int)):
        fused[y, x, k] = 1.0
    return heatmaps, offsets, fused, points_xy


def _frame(picture):
    """The window that the white frame on a picture of GREY shows, pixels of GREY."""
    y, x = np.nonzero(picture.min(-1) > 200)
    scale = picture.shape[0] / GREY.shape[0]
    low = np.array([x.min(), y.min()]) / scale - 0.5
    return low, np.array([x.max() + 1, y.max() + 1]) / scale - 0.5 - low


def _coloured(picture):
    return np.ptp(picture.astype(int), axis=-1) > 40


def test_hough_shows_arrows_and_votes_where_they_are():
    maps = _votes((30, 25))
    pictures, titles = votes_lib.hough(GREY, *maps, COCO, joints=[9], side=240)
    assert titles == ["left_wrist: heatmap, max 1", "offsets", "votes, max 1"]
    assert {picture.shape for picture in pictures} == {(240, 360, 3)}
    heat, arrows, votes = pictures
    # The heatmap: a disc of 12 pixels, enlarged four times.
    y, x = np.nonzero(_coloured(heat))
    np.testing.assert_allclose((x.mean(), y.mean()), (122, 102), atol=2)
    np.testing.assert_allclose(np.ptp(x), 25 * 4, atol=5)
    # The window holds the disc, and has the image's shape.
    low, size = _frame(heat)
    assert (low < (18, 13)).all() and (low + size > (42, 37)).all()
    assert size[0] / size[1] == pytest.approx(90 / 60, rel=0.05)
    scale = 240 / size[1]
    x0, y0 = (np.array([30, 25]) - low) * scale
    # Votes in the middle of the ring.
    y, x = np.nonzero(_coloured(votes))
    np.testing.assert_allclose((x.mean(), y.mean()), (x0, y0), atol=4)
    ring = (np.abs(votes.astype(int) - 255) < 40).all(-1)
    np.testing.assert_allclose(_centre_of_mass(ring), (x0, y0), atol=4)
    # Arrows cover the disc alone; those at the left point right, and are red.
    y, x = np.nonzero(_coloured(arrows))
    reach = np.hypot(x - x0, y - y0)
    assert 10 * scale < reach.max() < 14 * scale
    colour = arrows[y, x].astype(float)
    for dx, dy, hue in ((-1, 0, (1, 0, 0)), (1, 0, (0, 1, 1))):
        there = (x - x0) * dx + (y - y0) * dy > 0.9 * reach
        there &= reach > 4 * scale
        others = 1 - np.array(hue)
        assert there.any()
        strongest = (colour[there] * hue).sum(-1) / sum(hue)
        assert (strongest > (colour[there] * others).sum(-1) / others.sum()).all()


def test_hough_ends_arrows_where_they_vote():
    """All the pixels of a disc vote for a place outside of it."""
    heatmaps, *_ = _votes((30, 25), radius=6)
    far = _votes((60, 25))
    pictures, _ = votes_lib.hough(GREY, heatmaps, *far[1:], COCO, joints=[0], side=240)
    low, size = _frame(pictures[0])
    scale = 240 / size[1]
    y, x = np.nonzero(_coloured(pictures[1]))
    left, right = (np.array([24, 60]) - low[0]) * scale
    assert left - 4 < x.min() < left + 2 * scale
    assert right - 2 * scale < x.max() < right + 4
    at_the_end = y[x > right - scale]
    np.testing.assert_allclose(at_the_end, (25 - low[1]) * scale, atol=scale)


@pytest.mark.parametrize("way", [6.0, 1e30])
def test_an_arrow_is_broad_where_it_begins(way):
    """And it keeps its direction, however far it points."""
    heatmaps, offsets, fused, points_xy = _votes((30, 25), radius=0.5)
    offsets[:] = (way, 0)
    heat, arrow, _ = votes_lib.hough(
        GREY, heatmaps, offsets, fused, points_xy, COCO, joints=[0]
    )[0]
    low, size = _frame(heat)
    thick = _coloured(arrow).sum(0)
    start = (30 - low[0]) * 300 / size[1]
    assert np.flatnonzero(thick)[0] == pytest.approx(start, abs=8)
    end = min(len(thick) - 1, start + way * 300 / size[1] - 12)
    assert thick[round(start) + 8] > 1 and thick[round(end)] > 0
    assert way > 100 or thick[round(start) + 8] > thick[round(end)]


def test_hough_frames_the_disc_of_the_keypoint():
    """Another disc, of somebody else, is not what is looked at."""
    maps = _votes((20, 30), radius=6)
    maps[0][..., :] = np.maximum(maps[0], _votes((75, 30), radius=6)[0])
    low, size = _frame(votes_lib.hough(GREY, *maps, COCO, joints=[0])[0][0])
    assert low[0] < 14 and 26 < (low + size)[0] < 69


def test_hough_takes_the_keypoint_of_the_most_votes_and_the_middle_one():
    maps = _votes((30, 25))
    maps[2][:] *= np.linspace(0.1, 0.5, 17)
    pictures, titles = votes_lib.hough(GREY, *maps, COCO)
    assert len(pictures) == 6
    assert titles[::3] == ["right_ankle: heatmap, max 1", "right_elbow: heatmap, max 1"]
    assert titles[2::3] == ["votes, max 0.5", "votes, max 0.3"]
    alone = maps[0][..., :1], maps[1][..., :1, :], maps[2][..., :1], maps[3][:1]
    assert len(votes_lib.hough(GREY, *alone, LONELY)[0]) == 3


@pytest.mark.parametrize("heat", [0.0, 1.0, np.nan, np.inf])
@pytest.mark.parametrize("way", [0.0, 1e30, np.nan])
@pytest.mark.parametrize("point", [5.0, -1e6, np.nan])
def test_any_votes_can_be_drawn(heat, way, point):
    picture, *others = votes_lib.hough(
        GREY,
        np.full((60, 90, 17), heat),
        np.full((60, 90, 17, 2), way),
        np.full((60, 90, 17), heat),
        np.full((17, 2), point),
        COCO,
        joints=[3],
        side=60,
    )[0]
    assert picture.dtype == np.uint8
    assert {other.shape for other in (picture, *others)} == {(60, 90, 3)}


@pytest.mark.parametrize("wrong", range(4))
def test_votes_that_do_not_fit_the_image_are_refused(wrong):
    maps = list(_votes((30, 25)))
    maps[wrong] = maps[wrong][1:]
    name = ("heatmaps", "offsets", "fused", "points_xy")[wrong]
    with pytest.raises(ValueError, match=f"{name} must be .* got"):
        votes_lib.hough(GREY, *maps, COCO)


# Panels: what a method shows of itself.


def test_a_heatmap_panel_is_as_bright_as_the_brightest_of_its_rows():
    """Input, maps and prediction of each row; one scale of colors for all of them."""
    inspected = {
        "input": np.full((2, 60, 90, 3), 0.5, np.float32),
        "heatmaps": np.zeros((2, 15, 22, 17), np.float32),
        "points_xy": np.tile(PERSON, (2, 1, 1)),
        "keypoint_scores": np.ones((2, 17)),
    }
    inspected["heatmaps"][:, 3, 18, 9] = 0.25, 0.5
    rows = maps_lib.heatmap_panel(inspected, COCO, "stride")
    for row in rows:
        titles, pictures = zip(*row, strict=True)
        assert titles == ("input", "heatmaps, max 0.5", "prediction")
        assert {p.shape for p in pictures} == {(160, 240, 3)}  # The longer side is 240.
        assert not _coloured(pictures[0]).any() and _coloured(pictures[2]).any()
    weak, strong = (np.ptp(row[1][1].astype(int), axis=-1).max() for row in rows)
    assert 0 < weak < 0.75 * strong
    aligned = maps_lib.heatmap_panel(inspected, COCO, "aligned")
    for way, row in (("stride", rows[1]), ("aligned", aligned[1])):
        maps = 2 * inspected["heatmaps"][1]
        over = maps_lib.heatmap_overlay(inspected["input"][1], maps, alignment=way)
        middle = (_centre_of_mass(_coloured(over)) + 0.5) * 240 / 90 - 0.5
        found = _centre_of_mass(_coloured(row[1][1]))
        np.testing.assert_allclose(found, middle, atol=0.8)
    assert (rows[1][1][1] != aligned[1][1][1]).any()


def test_panels_of_votes_and_of_a_cascade_are_those_pictures_with_their_titles():
    maps = dict(
        zip(
            ("heatmaps", "offsets", "fused", "points_xy"),
            (np.stack([value, value]) for value in _votes((30, 25))),
            strict=True,
        )
    )
    rows = votes_lib.votes_panel(
        {"input": np.stack([GREY, GREY]), **maps}, COCO, "stride"
    )
    expected = votes_lib.hough(GREY, *_votes((30, 25)), COCO)
    assert len(rows) == 2
    for row in rows:
        for (title, picture), one, words in zip(row, *expected, strict=True):
            assert title == words
            np.testing.assert_array_equal(picture, one)
    stages, squares = np.full((3, 14, 2), 32.0), np.full((2, 2), 9.0)
    stages[1, 6] += 4
    rows = cascade.cascade_panel(
        {"input": GREY[None], "stages_xy": stages[None], "squares": squares[None]},
        LSP,
        "stride",
    )
    expected = cascade.refinement(GREY, stages, squares, LSP)
    assert [title for title, _ in rows[0]] == expected[1]
    for (_, picture), one in zip(rows[0], expected[0], strict=True):
        np.testing.assert_array_equal(picture, one)


# Boxes.


@pytest.mark.parametrize("scale", [1, 3])
def test_boxes_are_drawn_where_they_are(scale):
    """The middle of each edge has the box's colour; what is far inside has the image's."""
    image = np.zeros((60, 80, 3), np.uint8)
    drawn = drawing.draw_boxes(
        image,
        np.array([[10.0, 20, 30, 50]]),
        truth_xyxy=np.array([[40.0, 5, 70, 40], [5.0, 5, 35, 15]]),
        crowd=np.array([False, True]),
        scale=scale,
    )
    assert drawn.shape == (60 * scale, 80 * scale, 3) and not image.any()

    def at(x, y):
        place = (np.array([x, y]) + 0.5) * scale - 0.5
        x, y = np.round(place).astype(int)
        return drawn[y, x]

    for x, y in ((10, 35), (30, 35), (20, 20), (20, 50)):
        np.testing.assert_array_equal(at(x, y), drawing.LEFT)
    for x, y in ((40, 20), (70, 20), (55, 5), (55, 40)):
        np.testing.assert_array_equal(at(x, y), drawing.CENTRE)
    for x, y in ((20, 35), (55, 20), (75, 55)):
        np.testing.assert_array_equal(at(x, y), 0)
    assert len(set(at(5, 10).tolist())) == 1 and at(5, 10)[0] > 100  # Grey.


def test_an_unsure_box_is_thin_and_the_best_is_on_top():
    image = np.zeros((60, 80, 3), np.uint8)
    box = np.array([[20.0, 15, 70, 50]])
    orange = {}
    for score in (0.2, 0.6):
        drawn = drawing.draw_boxes(image, box, scores=np.array([score]))
        orange[score] = (drawn == drawing.LEFT).all(-1).sum()
    assert orange[0.6] > 1.5 * orange[0.2] > 0
    # Its score is written where it begins, over that of a worse one of the same place.
    both = drawing.draw_boxes(image, np.tile(box, (2, 1)), scores=np.array([0.6, 0.2]))
    assert (both[40:] == drawn[40:]).all() and (both[16:26, 21:60] > 0).any()


@pytest.mark.parametrize(
    "box",
    [
        [-1e9, -1e9, 1e9, 1e9], [np.nan, 0, 1, 1], [5, 5, 1, 1], [np.inf] * 4,
        [3, 3, 3, 3], [500, 500, 600, 600],
    ],
)  # fmt: skip
def test_any_box_can_be_drawn(box):
    image = np.full((20, 30, 3), 77, np.uint8)
    boxes = np.array([box], float)
    drawn = drawing.draw_boxes(image, boxes, scores=np.ones(1), truth_xyxy=boxes)
    assert drawn.shape == image.shape


@pytest.mark.parametrize(
    "marks",
    [
        {"boxes_xyxy": np.zeros(4)},
        {"boxes_xyxy": np.zeros((2, 4)), "scores": np.zeros(1)},
        {"boxes_xyxy": np.zeros((2, 4)), "truth_xyxy": np.zeros((1, 5))},
        {
            "boxes_xyxy": np.zeros((2, 4)),
            "truth_xyxy": np.zeros((1, 4)),
            "crowd": np.zeros(2, bool),
        },
    ],
)
def test_boxes_that_do_not_fit_are_refused(marks):
    with pytest.raises(ValueError, match=r"^got |must be"):
        drawing.draw_boxes(np.zeros((9, 9, 3), np.uint8), **marks)


def test_a_preview_of_a_detector_shows_its_boxes_and_fits_on_a_screen():
    preview = {
        "input": np.zeros((2, 800, 960, 3), np.float32),
        "boxes_xyxy": np.array(
            [[[100, 200, 500, 700], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]], float
        ),
        "kind": np.array([[1, 0], [0, 0]]),
    }
    picture = sheet.preview_sheet(preview, None)
    assert picture.shape == (400 + 12, 2 * 480 + 18, 3)
    green = (picture == drawing.CENTRE).all(-1)
    assert green[:, : 480 + 6].any() and not green[:, 480 + 6 :].any()
