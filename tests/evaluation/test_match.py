"""`eval --match-keypoints`: a model and data of two keypoint sets, matched by name."""

import json

import jax
import numpy as np
import pytest

from pose_jax import cli, keypoints, methods, sharding
from pose_jax.data import lsp
from pose_jax.errors import InputError
from pose_jax.evaluation import boxes, compare, evaluate, poses, text
from pose_jax.evaluation.predictor import Predictor
from pose_jax.keypoints import COCO, FLIC, LSP, MPII, KeypointSet
from pose_jax.report import scores
from pose_jax.runs import model as model_lib
from pose_jax.types import Poses
from tests.data import writers
from tests.made_up import detections, make_table

LIMBS = tuple(name for name in LSP.names if name not in ("neck", "head_top"))


def of_network(table, network=COCO, *, wrong=()):
    """Poses of a network that are the labels; those named `wrong` are far away."""
    points = np.full((len(table), len(network), 2), -999.0, np.float32)
    for i, name in enumerate(table.keypoints.names):
        if name in network.names:
            points[:, network.names.index(name)] = table.points_xy[:, i]
    for row, name in wrong:
        points[row, network.names.index(name)] += 500
    n = len(table)
    return Poses(
        points_xy=points,
        keypoint_scores=np.tile(np.arange(len(network), dtype=np.float32), (n, 1)),
        score=np.linspace(1, 0.5, n, dtype=np.float32),
        valid=np.ones(n, bool),
        row=np.arange(n, dtype=np.int32),
    )


# ------------------------------------------------------------------------ keypoint sets


@pytest.mark.parametrize(
    ("first", "second", "count"),
    [
        (LSP, COCO, 12), (COCO, LSP, 12), (MPII, COCO, 12), (MPII, LSP, 14),
        (FLIC, COCO, 11), (FLIC, LSP, 8), (COCO, COCO, 17),
    ],
)  # fmt: skip
def test_what_two_sets_share_keeps_its_relations(first, second, count):
    """Pairs of names, in the order of the first set."""
    both = keypoints.matched(first, second)
    assert len(both) == count
    assert both.names == tuple(name for name in first.names if name in second.names)
    for field in ("flip_pairs", "skeleton"):
        of = lambda each, field=field: {
            frozenset(each.names[i] for i in pair) for pair in getattr(each, field)
        }
        assert of(both) == {pair for pair in of(first) if pair <= set(both.names)}
    assert [both.names[i] for i in both.torso] == [first.names[i] for i in first.torso]
    sigmas = dict(zip(COCO.names, COCO.sigmas, strict=True))
    if COCO in (first, second):
        assert both.sigmas == tuple(sigmas[name] for name in both.names)
    else:
        assert both.sigmas is None


def test_sticks_with_an_end_that_is_not_shared_are_left_out():
    both = keypoints.matched(LSP, COCO)
    kinds = [kind for kind, *_ in both.sticks]
    assert kinds == [kind for kind, *_ in LSP.sticks if kind != "head"]
    torso = both.sticks[kinds.index("torso")]
    ends = [tuple(both.names[i] for i in end) for end in torso[1:]]
    assert ends == [("right_shoulder", "left_shoulder"), ("right_hip", "left_hip")]


# -------------------------------------------------------------------------------- metrics


def test_metrics_are_of_the_shared_keypoints_and_say_their_number():
    table = make_table(4, LSP, box_source="joint_boxes", centric="PC")
    matched = table.matched_to(COCO)
    assert matched.keypoints.names == LIMBS
    wrong = [(0, "left_wrist"), (0, "right_ankle"), (3, "left_knee")]
    predicted = poses.matched(matched, of_network(table, wrong=wrong), COCO)
    found = poses.measure(matched, predicted)
    assert found["PCK@0.2[12 keypoints]@joint_boxes@PC"] == pytest.approx(45 / 48)
    # 9 sticks each; the wrist, the ankle and the knee are ends of 1, 1 and 2 of them.
    assert found["PCP@0.5[12 keypoints]@joint_boxes@PC"] == pytest.approx(32 / 36)
    assert "AP[12 keypoints]@joint_boxes@PC" in found  # The sigmas of COCO.
    assert list(found) == poses.names(matched)
    rows = {row["name"]: row for row in poses.per_keypoint(matched, predicted)}
    assert tuple(rows) == LIMBS
    assert rows["left_wrist"]["PCK@0.2"] == 0.75
    assert rows["left_wrist"]["score"] == COCO.names.index("left_wrist")
    assert poses.notes(matched, predicted, found)[0] == (
        "compared: 12 keypoints of the same name; only in lsp: neck, head_top; only in "
        "coco: nose, left_eye, right_eye, left_ear, right_ear"
    )


def test_perfect_shared_keypoints_have_an_ap_of_1_for_a_detector_too():
    table = make_table(4, COCO)
    other = detections(table, np.arange(4), np.full(4, 0.9))
    for each in (table, other):
        matched = each.matched_to(MPII)
        predicted = poses.matched(matched, of_network(table, MPII), MPII)
        found = poses.measure(matched, predicted)
        assert found[f"AP[12 keypoints]@{each.box_source}"] == 1


def test_a_person_without_a_shared_keypoint_is_left_out():
    visibility = np.full((3, len(LSP)), 2, np.int32)
    visibility[1, :12] = 0
    table = make_table(3, LSP, visibility=visibility)
    assert table.labelled_rows().tolist() == [0, 1, 2]
    assert table.matched_to(COCO).labelled_rows().tolist() == [0, 2]


def test_equal_sets_are_not_changed():
    table = make_table(2, COCO)
    assert table.matched_to(COCO) is table
    predicted = of_network(table)
    assert poses.matched(table, predicted, COCO) is predicted
    assert boxes.matched(table, predicted, None) is predicted


def test_sets_that_share_no_name_are_refused():
    other = KeypointSet("ours", ("tail",), (), ())
    with pytest.raises(InputError, match="'coco', of which 'ours' has none"):
        make_table(2, COCO).matched_to(other)


def test_the_number_is_no_part_of_the_name_of_a_metric():
    full = "PCK@0.2[12 keypoints]@joint_boxes@PC"
    assert text.base(full) == text.base("PCK_AUC[12 keypoints]@image")[:3] == "PCK"
    assert text.formula("AP[12 keypoints]@gt_boxes") == poses.FORMULAS["AP"]
    assert text.shown({full: 1.0, "PCK_AUC[12 keypoints]@image": 1.0}) == [full]
    assert "PCK: fraction of keypoints" in text.table_of({"dark": {full: 1.0}})
    assert scores.key_metric(full) == "PCK@0.2"


# ----------------------------------------------------------------------------------- eval

METHOD = {
    "name": "dark",
    "model": {"name": "pocket", "options": {"width": 8, "blocks": (0, 0, 0)}},
    "input_size": (64, 64),
    "sigma": 1.5,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """LSP-extended: four people."""
    root = tmp_path_factory.mktemp("people") / "lspet"
    writers.lsp(root, writers.lsp_people(extended=True), extended=True)
    return root


@pytest.fixture(scope="module")
def runs(tmp_path_factory, root):
    """Runs of random weights, of COCO's and LSP's keypoints."""
    folder = tmp_path_factory.mktemp("runs")
    for of in (COCO, LSP):
        phase = methods.build(METHOD, of).phases[0]
        rng = np.random.default_rng(0)
        variables = jax.tree.map(
            lambda leaf, rng=rng: rng.normal(0.5, 0.1, leaf.shape).astype(leaf.dtype),
            jax.eval_shape(phase.init, jax.random.key(0)),
        )
        names = {COCO: "coco", LSP: "lsp_extended"}
        manifest = {
            "method": METHOD,
            "keypoints": of.to_json(),
            "input": {"batch_size": 4, "canvas_size": (64, 64), "reader": "numpy"},
            "data": {"name": names[of], "root": str(root), "split": "all"},
            "scores": {},
        }
        model_lib.save_model(folder / of.name / "model", {"pose": variables}, manifest)
    return folder


def _eval(run, root, *words):
    options = ["--data", root, "--format", "lsp_extended", *words]
    return cli.main(["eval", *map(str, ["--run", run, *options])])


def test_eval_matches_only_if_told(root, runs, tmp_path, capsys):
    assert _eval(runs / "coco", root, "--out", tmp_path) == 1
    error = capsys.readouterr().err.strip()
    assert error.endswith(
        "the model has keypoint set 'coco', but lsp_extended all has 'lsp': evaluate on "
        "data with the set of the model, or on the 12 keypoints of the same name by "
        "`pose-jax eval --match-keypoints`."
    )
    words = "--match-keypoints", "--decoder", "argmax", "--out", tmp_path
    assert _eval(runs / "coco", root, *words) == 0
    out = capsys.readouterr().out
    assert "PCK@0.2[12 keypoints]@joint_boxes@PC" in out
    assert "note: compared: 12 keypoints of the same name; only in lsp: neck" in out
    folder = tmp_path / "joint_boxes" / "argmax"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"12 keypoints" in name for name in metrics} == {True}
    results = json.loads((folder / "predictions.json").read_text())
    assert {len(result["keypoints"]) for result in results} == {36}


def test_the_poses_are_those_of_the_network(root, runs, tmp_path):
    """By name: the same picture, the same network, without matching."""
    loaded = model_lib.load(runs / "coco")
    options = {"data": str(root), "format": "lsp_extended", "match_keypoints": True}
    options |= {"decoders": ["argmax"], "out": tmp_path}
    (found,) = evaluate.evaluate_run(runs / "coco", **options).values()
    table = lsp.load_extended(root, "all")
    predictor = Predictor(loaded.method("argmax"), sharding.make_mesh())
    whole = predictor(loaded.variables, table, loaded.input)
    for i, name in enumerate(found.table.keypoints.names):
        np.testing.assert_allclose(
            found.predictions.points_xy[:, i],
            whole.points_xy[:, COCO.names.index(name)],
            atol=1e-3,
        )


def test_runs_of_two_sets_are_compared_by_the_shared_keypoints(root, runs):
    pair = f"{runs / 'lsp'}:argmax", f"{runs / 'coco'}:argmax"
    with pytest.raises(InputError, match="the same name by --match-keypoints"):
        compare.compare(*pair, samples=2)
    told = compare.compare(*pair, match_keypoints=True, samples=2)
    assert "lsp_extended all, 12 keypoints of the same name; only in" in told
    assert "PCK@0.2[12 keypoints]@joint_boxes@PC" in told


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("--format", "mpii"),
            "--format mpii requires --data and --split, as the run's",
        ),
        (("--format", "lspp"), "Did you mean"),
    ],
)
def test_another_format_needs_its_folder(runs, words, expected, capsys):
    assert cli.main(["eval", "--run", str(runs / "coco"), *words]) == 2
    assert expected in capsys.readouterr().err
