"""The leaderboard says what happened."""

import numpy as np
import pytest

from pose_jax.sweep import Sweep, grid, linear_range, log_range, summary
from pose_jax.sweep import study as study_lib
from tests.sweep.page import Page
from tests.sweep.studies import QUICK, TWO_BY_TWO, drawn, spec_of, study_of

SECTIONS = {
    "winner", "leaderboard", "curves", "importances", "coordinates", "trials", "study",
}  # fmt: skip
EVIL = "<script>alert('x')</script>"


@pytest.fixture
def finished(overrides, tmp_path):
    """A study of six points and two seeds: one pruned, one failed, one unfinished."""
    space = {
        "optimizer.lr": grid(0.1, 0.2, 0.4),
        "method.encoding": grid("unbiased", "biased"),
        "seed": grid(0, 1),
    }
    made = Sweep(space=space, metric="AP", sampler="grid")
    where = study_lib.place(str(tmp_path / "study"))
    study, spec = study_lib.open_study(where, spec_of(made, overrides))
    claims = study_lib.Claims(study, spec, where, 12, QUICK)
    for number in range(12):
        claim = claims.next()
        lr, seed = (float(claim.trial.params[k]) for k in ("optimizer.lr", "seed"))
        value = (
            lr + seed / 100 + (claim.trial.params["method.encoding"] == "biased") / 20
        )
        for step in (2, 4):
            claim.trial.report(value * step / 6, step)
        if number == 8:
            claims.tell(claim.trial, "pruned")
        elif number == 5:
            claims.tell(claim.trial, "fail", reason=EVIL)
        elif number != 11:
            claims.tell(claim.trial, "complete", value)
        if number != 11:
            claim.file.close()
    yield where.out
    claim.file.close()


def test_rows_are_means_over_seeds_with_their_interval(finished):
    study = study_of(finished)
    spec = study.user_attrs["sweep"]
    rows = summary.leaderboard(study.get_trials(), spec)
    # Whole rows first: 0.4's have lost a seed each, to pruning and to what is not done.
    found = [(r.point["optimizer.lr"], r.point["method.encoding"]) for r in rows]
    assert found[:3] == [("0.2", "biased"), ("0.1", "biased"), ("0.1", "unbiased")]
    assert set(found[3:]) == {
        ("0.4", "biased"),
        ("0.4", "unbiased"),
        ("0.2", "unbiased"),
    }
    assert rows[0].mean == pytest.approx(0.255)
    # Student's t of one degree of freedom at 97.5% is 12.706.
    half = 12.706 * (0.01 / np.sqrt(2)) / np.sqrt(2)
    assert rows[0].half_width == pytest.approx(half, rel=1e-3)
    assert all(np.isnan(row.half_width) for row in rows[3:])
    down = summary.leaderboard(study.get_trials(), {**spec, "direction": "minimize"})
    assert down[0].point["optimizer.lr"] == "0.1"


def test_the_page_has_all_of_it_and_needs_nothing_else(finished, capsys):
    path = summary.report(str(finished))
    page = Page(path)
    assert path == finished / "report.html"
    assert {attrs["id"] for tag, attrs in page.tags if tag == "section"} == SECTIONS
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.tags}
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset"):
            assert attrs.get(name, "#").startswith("#")
    assert [tag for tag, _ in page.tags].count("svg") == 3
    assert EVIL in page.sections["trials"]
    assert "1 pruned" in page.sections["leaderboard"]
    assert "1 failed" in page.sections["leaderboard"]
    assert "1 unfinished" in page.sections["leaderboard"]
    command = page.sections["winner"]
    assert "pose-jax train --config" in command
    assert "--config.optimizer.lr=0.2 --config.method.encoding=biased" in command
    assert "--config.seed" not in command
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["rank", "AP@gt_boxes", "95%", "seeds", "lr", "encoding"]
    assert out[1].split() == ["1", "0.255", "±0.064", "2", "0.2", "biased"]


def test_importances_find_what_matters(finished, overrides, tmp_path):
    space = {
        "optimizer.lr": log_range(1e-3, 0.1),
        "method.sigma": linear_range(1.0, 3.0),
    }
    made = Sweep(space=space, metric="AP", sampler="random")
    drawn(made, overrides, tmp_path / "other", 40)  # Its value is the rate.
    study = study_of(tmp_path / "other")
    found = summary.importances(study, study.get_trials(), study.user_attrs["sweep"])
    assert sum(found.values()) == pytest.approx(1)
    assert found["optimizer.lr"] > 0.7


def test_a_page_of_a_study_that_has_just_begun_says_so(overrides, tmp_path, capsys):
    where = study_lib.place(str(tmp_path))
    study_lib.open_study(where, spec_of(TWO_BY_TWO, overrides))
    page = Page(summary.report(str(tmp_path)))
    assert "No trial is complete yet" in page.text
    assert "no trial is complete yet" in capsys.readouterr().out
    drawn(TWO_BY_TWO, overrides, tmp_path, 1, lambda p: 0.5)
    page = Page(summary.report(str(tmp_path)))
    assert "--config.optimizer.lr=0.1" in page.sections["winner"]


@pytest.mark.parametrize(
    ("values", "at", "places"),
    [
        (["0.1", "0.4", "0.2"], {"texts": ["0.1", "0.2", "0.4"]}, [0, 1, 1 / 3]),
        (["b", "a"], {"texts": ["a", "b", "c"]}, [0.5, 0]),
        (["7", "None"], {"texts": ["None", "7"]}, [1, 0]),
        ([1e-3, 0.01, 0.1], {"low": 1e-3, "high": 0.1, "log": True}, [0, 0.5, 1]),
        ([2, 3], {"low": 1, "high": 5, "log": False}, [0.25, 0.5]),
        (["1", "10"], {"texts": ["1", "10", "100"]}, [0, 0.5]),
    ],
)
def test_values_stand_on_their_axes_in_proportion(values, at, places):
    found, marks = summary.heights(values, at)
    assert found == pytest.approx(places)
    assert min(marks) == 0 and max(marks) == pytest.approx(1)
