"""The table of experiments/deeppose: stages side by side, what each adds, flips."""

import dataclasses

import numpy as np
import pytest

from experiments.deeppose import table as deeppose_table
from pose_jax import keypoints
from pose_jax.errors import InputError
from tests.made_up import make_poses, make_table


@pytest.fixture(scope="module")
def people():
    return make_table(60, keypoints.LSP)


@pytest.fixture(scope="module")
def stages(people):
    """Each stage is better than the one before; the first has everybody flipped."""
    rng = np.random.default_rng(0)
    found = {}
    for stage, by in (("stage_1", 30), ("stage_2", 12), ("stage_3", 4)):
        poses = make_poses(people)
        points_xy = poses.points_xy
        if stage == "stage_1":
            points_xy = points_xy[:, people.keypoints.permutation]
        off = rng.normal(0, by, points_xy.shape).astype(np.float32)
        found[stage] = dataclasses.replace(poses, points_xy=points_xy + off)
    return found


def cells(text):
    return [row.strip("| ").split(" | ") for row in text.splitlines()[2:]]


def test_the_paper_s_numbers_stand_behind_ours_by_stage(people, stages):
    rows = cells(deeppose_table.scores(people, stages))
    assert [row[0] for row in rows] == ["stage_1", "stage_2", "stage_3"]
    for row in rows:
        assert tuple(row[-5:]) == deeppose_table.PAPER[row[0]]
        strict, loose = np.float64(row[1:6]), np.float64(row[6:11])
        assert strict[4] == pytest.approx(strict[:4].mean(), abs=1e-3)
        assert (loose >= strict).all()
    assert [float(row[5]) for row in rows] == sorted(float(row[5]) for row in rows)


def test_what_stages_add_has_intervals_and_the_whole_comes_last(people, stages):
    text = deeppose_table.differences(people, stages)
    assert "PCP_lower_arm@0.5@gt_boxes" in text.splitlines()[0]
    rows = cells(text)
    assert [row[0] for row in rows][3:] == [
        "stage_2 - stage_1", "stage_3 - stage_2", "stage_3 - stage_1",
    ]  # fmt: skip
    assert rows[5][1].startswith("**+") and rows[5][-1].startswith("**-")
    own = [float(row[2]) for row in rows[:3]]
    assert rows[5][2].startswith(f"**{own[2] - own[0]:+.3f} ")


def test_flips_are_those_of_the_first_stage(people, stages):
    rows = cells(deeppose_table.flips(people, stages))
    assert float(rows[0][1]) > 0.5 and float(rows[2][1]) == 0
    assert float(rows[0][3]) > float(rows[0][2]) and rows[2][2] == rows[2][3]


def test_a_run_of_another_method_is_set_against_the_last_stage(people, stages):
    both = {**stages, "dark, pocket": make_poses(people)}
    rows = cells(deeppose_table.differences(people, both))
    names = [row[0] for row in rows]
    assert names[:4] == list(both) and names[-1] == "dark, pocket - stage_3"
    assert names[-2] == "stage_3 - stage_1" and len(rows) == 8
    assert rows[-1][-1].startswith("**-")
    # Nothing of the paper's beside it: stage, and ours strict and loose.
    assert len(cells(deeppose_table.scores(people, both))[3]) == 11


def test_a_run_on_other_people_is_not_set_beside(people, monkeypatch):
    class Loaded:
        def eval_table(self, **_):
            return make_table(59, keypoints.LSP)

    monkeypatch.setattr(deeppose_table.model_lib, "load", lambda run: Loaded())
    with pytest.raises(InputError, match=r"^runs/x: evaluated on .* not on the same"):
        deeppose_table.predict_beside("runs/x", people)


def test_what_is_no_run_is_refused_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: .*no model found.*"):
        deeppose_table.main(["--run", str(tmp_path)])
