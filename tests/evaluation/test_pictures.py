"""What a method shows of itself: the rows that are asked for, by its own panels."""

import dataclasses
from typing import ClassVar

import jax
import numpy as np
import pytest

from pose_jax import methods
from pose_jax.data import readers
from pose_jax.data.plan import InputConfig, Plan
from pose_jax.evaluation import evaluate, pictures, poses
from pose_jax.keypoints import LSP
from pose_jax.types import Panel, PersonView
from tests.made_up import MadeUp, make_poses, make_table

INPUT = InputConfig(batch_size=2, canvas_size=(64, 64), reader="numpy")


def shades(inspected, keypoint_set, alignment):
    """Two pictures a row: as gray as the number of the row, and a white one."""
    assert keypoint_set == LSP and alignment == "aligned"
    return (
        (
            (f"row {row}", np.full((4, 5, 3), row, np.uint8)),
            ("white", np.full((4, 5, 3), 255, np.uint8)),
        )
        for row in inspected["row"]
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Shades(MadeUp):
    panels: tuple[Panel, ...] = (Panel("shades", "Shades", "Numbers.", shades),)

    view: ClassVar = PersonView(size=(8, 8), alignment="aligned")

    def inspect(self, variables, inputs):
        return {"input": inputs.images / 255.0, "row": inputs.row + variables["add"]}


def test_the_rows_that_are_asked_for_are_inspected_in_their_order():
    table = make_table(6, keypoint_set=LSP)
    rows = np.array([4, 1, 5], np.int32)
    found = pictures.inspect(Shades(keypoints=LSP), {"add": 10}, table, INPUT, rows)
    assert all(type(leaf) is np.ndarray for leaf in found.values())
    assert found["row"].tolist() == [14, 11, 15]
    assert found["input"].shape == (3, 64, 64, 3)


def test_a_panel_is_drawn_with_the_keypoints_and_the_alignment_of_its_method():
    method = Shades(keypoints=LSP)
    ((panel, rows),) = pictures.drawn(method, {"row": np.array([7, 9])})
    assert panel is method.panels[0]
    assert [[title for title, _ in row] for row in rows] == [
        ["row 7", "white"],
        ["row 9", "white"],
    ]
    assert list(pictures.drawn(Shades(keypoints=LSP, panels=()), {})) == []


@pytest.mark.parametrize(
    ("across", "people", "chosen", "columns"),
    [(2, 3, [0, 1, 2], 4), (6, 12, [0, 2, 4, 6, 8, 11], 6), (40, 2, [0], 40)],
)
def test_a_sheet_has_36_pictures_at_the_most_of_evenly_chosen_rows(
    across, people, chosen, columns
):
    """At least one row; rows of few pictures stand beside each other."""
    rows = [
        [("", np.full((7, 9, 3), 10 * i, np.uint8)) for _ in range(across)]
        for i in range(people)
    ]
    picture = pictures.sheet(rows)
    lines = -(-len(chosen) * across // columns)
    assert picture.shape == (lines * (7 + 16 + 6) + 6, columns * (9 + 6) + 6, 3)
    cells = [
        picture[6 + 29 * line, 6 + 15 * column].tolist()
        for line in range(lines)
        for column in range(columns)
    ]
    assert cells[: len(chosen) * across] == [
        [10 * i] * 3 for i in chosen for _ in range(across)
    ]


SECTIONS = {
    "dark": {"model": {"name": "pocket"}, "input_size": (64, 96)},
    "multipose": {
        "model": {"name": "multipose_pocket"},
        "input_size": (33, 41),
        "radius": 4.0,
    },
    "deeppose": {
        "model": {"name": "resnet_regression_18", "options": {"width": 8}},
        "input_size": (32, 32),
        "stages": 3,
    },
    "detector": {"model": {"name": "faster_rcnn_pocket"}},
}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("dark", ["heatmaps"]),
        ("multipose", ["heatmaps", "hough"]),
        ("deeppose", ["refinement"]),
        ("detector", []),
    ],
)
def test_what_a_method_shows_is_what_its_panels_draw(name, files):
    """Of every method, by names and shapes alone."""
    method = methods.build({"name": name, **SECTIONS[name]}, LSP)
    assert [panel.file for panel in method.panels] == files
    assert len({panel.title for panel in method.panels}) == len(files)
    assert all(panel.caption.endswith(".") for panel in method.panels)
    if not files:
        return
    table = make_table(4, keypoint_set=LSP)
    plan = Plan(table=table, view=method.view, config=INPUT, training=False)
    inputs = next(iter(readers.batches(plan))).inputs
    key = jax.random.key(0)
    variables = {phase.name: jax.eval_shape(phase.init, key) for phase in method.phases}
    shapes = jax.eval_shape(method.inspect, variables, inputs)
    inspected = {name: np.ones(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
    found = list(pictures.drawn(method, inspected))
    assert [panel.file for panel, _ in found] == files
    for _, rows in found:
        assert len(rows) == 2 and len({len(row) for row in rows}) == 1
        sheet = pictures.sheet(rows)
        assert sheet.dtype == np.uint8 and sheet.ndim == 3


def test_a_run_has_a_picture_of_each_panel(tmp_path):
    """Of twelve people at the most, evenly chosen of all that were predicted."""
    table = make_table(30, keypoint_set=LSP)
    asked = []

    @dataclasses.dataclass(frozen=True, eq=False)
    class Noted(Shades):
        def inspect(self, variables, inputs):
            asked.append(inputs.row.shape)
            return super().inspect(variables, inputs)

    method = Noted(keypoints=LSP)
    (tmp_path / "metrics.jsonl").touch()
    evaluation = evaluate.Evaluation(poses, table, make_poses(table))
    pictures.draw_run(tmp_path, method, evaluation, {"add": 0}, INPUT)
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert "shades.png" in names and "heatmaps.png" not in names
    assert asked == [(12,)]
