"""Pictures: marks are where the points are, and no input is too odd to draw."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from pose_jax import visualize
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
    picture = visualize.draw_pose(GREY, [xy], LONELY, scale=scale)
    assert picture.shape == (60 * scale, 90 * scale, 3) and picture.dtype == np.uint8
    enlarged = np.full_like(picture, 128)
    expected = (np.array(xy) + 0.5) * scale - 0.5
    found = _centre_of_mass(_changed(picture, enlarged))
    np.testing.assert_allclose(found, expected, atol=0.5)


def test_a_skeleton_stays_near_its_points_and_the_image_is_not_changed():
    image = GREY.copy()
    picture = visualize.draw_pose(image, PERSON, COCO)
    np.testing.assert_array_equal(image, GREY)
    y, x = np.nonzero(_changed(picture))
    assert len(x) > 100
    assert x.min() >= 10 and x.max() <= 80 and y.min() >= 0


def test_unlabelled_keypoints_and_their_limbs_are_not_drawn():
    nothing = visualize.draw_pose(GREY, PERSON, COCO, visibility=np.zeros(17))
    np.testing.assert_array_equal(nothing, GREY)
    visibility = np.full(17, 2)
    visibility[9] = 0  # A wrist: far from everything else.
    far = PERSON.copy()
    far[9] = (85, 5)
    picture = visualize.draw_pose(GREY, far, COCO, visibility=visibility)
    assert not _changed(picture)[:15, 75:].any()


def _ink(**marks):
    picture = visualize.draw_pose(GREY, PERSON, COCO, **marks)
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
        picture = visualize.draw_pose(
            GREY, points_xy, keypoint_set, visibility=visibility, scale=3
        )
        side = name.split("_")[0]
        expected = {"left": visualize.LEFT, "right": visualize.RIGHT}
        at = tuple(picture[91, 91])  # The middle of pixel (30, 30).
        assert at == expected.get(side, visualize.CENTRE), name


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
    picture = visualize.draw_people(
        GREY, points_xy, LSP, visibility=visibility, boxes_xyxy=boxes_xyxy
    )
    assert picture.shape == GREY.shape and picture.dtype == np.uint8


def test_nobody_is_drawn_as_the_image():
    for marks in ({}, {"scores": np.zeros((0, 17))}, {"boxes_xyxy": np.zeros((0, 4))}):
        picture = visualize.draw_people(GREY, np.zeros((0, 17, 2)), COCO, **marks)
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
    with pytest.raises(ValueError, match=r"got|came"):
        visualize.draw_people(image, points_xy, COCO, **marks)


@pytest.mark.parametrize("alignment", ["stride", "aligned"])
def test_an_overlay_peaks_where_the_heatmap_does(alignment):
    heatmaps = np.zeros((15, 18, 2), np.float32)  # For an input of 60 x 90.
    heatmaps[4, 11, 1] = 1.0
    picture = visualize.heatmap_overlay(GREY, heatmaps, alignment=alignment)
    change = np.abs(picture.astype(int) - GREY).sum(-1)
    y, x = np.unravel_index(change.argmax(), change.shape)
    factor = (5, 4) if alignment == "stride" else (89 / 17, 59 / 14)
    np.testing.assert_allclose((x, y), (11 * factor[0], 4 * factor[1]), atol=0.51)
    # Linear interpolation: nothing one map pixel further on.
    assert _changed(picture).sum() < (2 * factor[0] + 1) * (2 * factor[1] + 1)


def test_an_overlay_of_nothing_is_the_image():
    for heatmaps in (np.zeros((15, 18, 3)), np.full((15, 18, 3), -2.0)):
        np.testing.assert_array_equal(visualize.heatmap_overlay(GREY, heatmaps), GREY)
    odd = np.full((15, 18, 3), np.nan)
    odd[0, 0, 0] = np.inf
    assert visualize.heatmap_overlay(GREY, odd).shape == GREY.shape


def test_a_float_image_is_the_same_picture():
    heatmaps = np.random.default_rng(0).random((15, 18, 3))
    np.testing.assert_array_equal(
        visualize.heatmap_overlay((GREY / 255).astype(np.float32), heatmaps),
        visualize.heatmap_overlay(GREY, heatmaps),
    )


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("titled", [False, True])
def test_a_sheet_holds_every_picture_whole(count, titled):
    images = [np.full((20 + i, 40 - i, 3), 40 + 30 * i, np.uint8) for i in range(count)]
    titles = ["a title far too long for its cell"] * count if titled else None
    picture = visualize.sheet(images, 3, titles)
    for image in images:
        shown = (picture == image[0, 0]).all(-1).sum()
        assert shown >= image.shape[0] * image.shape[1]


def test_a_sheet_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="columns"):
        visualize.sheet([GREY], 0)
    with pytest.raises(ValueError, match="2 titles"):
        visualize.sheet([GREY], 1, ["a", "b"])


def test_a_preview_shows_each_input_beside_its_targets():
    b, k = 5, 17
    preview = {
        "input": np.full((b, 60, 90, 3), 0.5, np.float32),
        "points_xy": np.broadcast_to(PERSON, (b, k, 2)),
        "visibility": np.full((b, k), 2),
    }
    alone = visualize.preview_sheet(preview, COCO, columns=2)
    both = visualize.preview_sheet(
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
    visualize.curves(path, tmp_path / "new" / "curves.png")
    picture = np.asarray(Image.open(tmp_path / "new" / "curves.png").convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    path.write_text("")
    visualize.curves(path, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists()


def test_a_saved_picture_is_read_back(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
    visualize.save_png(tmp_path / "a" / "b.png", picture)
    np.testing.assert_array_equal(Image.open(tmp_path / "a" / "b.png"), picture)


def test_refinement_shows_every_stage_and_what_moved_the_furthest():
    image = np.zeros((64, 64, 3), np.uint8)
    image[30:34, 40:44] = 255  # Where the wrist is.
    stages = np.full((3, 14, 2), 32.0)
    stages[1:, 6] = (41.5, 31.5)
    stages[2, 0] = (36, 32)
    squares = np.array([[32.0, 32.0], [16.0, 16.0]])
    pictures, titles = visualize.refinement(image, stages, squares, LSP, side=160)
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
    assert len(visualize.refinement(image, nowhere, squares[:0], LSP)[0]) == 1
