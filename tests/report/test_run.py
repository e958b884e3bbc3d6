"""The report: one whole HTML file, whatever state the run is in."""

import dataclasses
import html
import json
import os
import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np
import pytest
from PIL import Image

from pose_jax import cli, methods
from pose_jax import sharding as sharding_lib
from pose_jax.data import coco
from pose_jax.data.synthetic import scenes
from pose_jax.evaluation import evaluate, pictures, text
from pose_jax.evaluation import poses as of_poses
from pose_jax.evaluation.predictor import Predictor
from pose_jax.keypoints import COCO
from pose_jax.methods.deeppose import CASCADE
from pose_jax.methods.multipose import MultiPose
from pose_jax.report import curves, images, look, network, people, scores
from pose_jax.report import files as files_lib
from pose_jax.report import run as report
from pose_jax.runs import log as log_lib
from pose_jax.runs import model as model_lib
from pose_jax.training import config as training_config
from pose_jax.training import train
from pose_jax.types import Panel, PersonView, Poses
from tests.made_up import MadeUp, MadeUpDetector, edit_manifest, right_answers

EVIL = "<script>alert('x')</script>&"
VOID = {"meta", "img", "br", "hr", "link", "input", "wbr"}
ALWAYS = {"scores", "curves", "metrics", "config", "data", "environment", "repeat"}
OF_PEOPLE = {"keypoints", "people", "network"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; refuses what is not balanced."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.tags, self.ids, self.links = [], [], [], []
        self.parts: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []
        assert len(set(self.ids)) == len(self.ids)
        self.text = " ".join("".join(self.parts).split())

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        if tag != "wbr":
            self.parts.append(" ")
        self.tags.append((tag, dict(attrs)))
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            elif name in ("src", "href", "srcset", "action", "poster", "data"):
                self.links.append(value)

    def handle_endtag(self, tag):
        assert self.stack and self.stack.pop() == tag, self.getpos()
        self.parts.append(" ")

    def handle_data(self, data):
        if "style" not in self.stack:
            self.parts.append(data)

    def names(self):
        return [tag for tag, _ in self.tags]

    def sections(self):
        return {attrs["id"] for tag, attrs in self.tags if tag == "section"}


def page_of(run):
    return Page((run / "report.html").read_text(encoding="utf-8"))


def make_config(root):
    source = {"name": "coco", "root": str(root)}
    return {
        "seed": 3,
        "method": {
            "name": "dark",
            "model": {"name": "pocket", "options": {"width": 8, "blocks": (0, 0, 0)}},
            "input_size": (64, 64),
            "sigma": 1.5,
            "alignment": "stride",
        },
        "data": {
            "train": {**source, "split": "train2017"},
            "eval": {**source, "split": "val2017"},
        },
        "input": {"batch_size": 4, "canvas_size": (320, 256), "reader": "numpy"},
        "optimizer": {"name": "adam", "lr": 2e-3},
        "train": {"steps": 3, "log_every_steps": 1, "eval_every_steps": 1},
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("people") / "data"
    scenes.write_dataset(root, n=4, val=7, seed=1)
    return root


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """What three steps of training leave, but the weights are the first ones."""
    run, config = tmp_path_factory.mktemp("runs") / "tiny", make_config(root)
    setup = training_config.setup(config)
    method = setup.method
    quick = {"xla_backend_optimization_level": 0}
    init = jax.jit(method.phases[0].init, compiler_options=quick)
    variables = {"pose": init(jax.random.key(0))}
    run.mkdir()
    (run / "config.json").write_text(json.dumps(config))
    predictor = Predictor(method, sharding_lib.make_mesh())
    scores = evaluate.evaluate(
        predictor, variables, setup.eval_table, setup.config.input
    ).metrics
    with log_lib.MetricWriter(run, tensorboard=False) as writer:
        for step in (1, 2, 3):
            logged = {"loss": 0.01 / step, "images_per_second": 50 * step}
            logged |= {"input_bound_percent": 3, "lr": 1e-3 * step}
            writer.write(step, "pose", logged)
            writer.write(step, "pose", scores | {"AP@gt_boxes": 0.1 * step})
    model_lib.write_model(
        run, config=config, method=method, train_table=setup.train_table,
        variables=variables, scores=scores,
    )  # fmt: skip
    for decoder in ("argmax", "dark"):
        out = run / "eval" / "gt_boxes" / decoder
        out.mkdir(parents=True)
        (out / "metrics.json").write_text(json.dumps(scores | {f"{decoder}@own": 1}))
    return run


@pytest.fixture(scope="module")
def seen(trained):
    return look.look(model_lib.load(trained), 500, None)


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "tiny"))


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """The report of a whole run, by the command line."""
    run = tmp_path_factory.mktemp("whole") / "tiny"
    shutil.copytree(trained, run)
    assert cli.main(["report", str(run)]) == 0
    return run


def test_a_finished_run_has_every_section(whole):
    page = page_of(whole)
    assert page.sections() == ALWAYS | OF_PEOPLE
    anchors = {link[1:] for link in page.links if link.startswith("#")}
    assert page.sections() <= anchors
    assert {"html", "head", "title", "body", "main"} <= set(page.names())


def test_nothing_leads_out_and_nothing_is_a_script(whole):
    text, page = (whole / "report.html").read_text(encoding="utf-8"), page_of(whole)
    assert page.links
    assert all(link.startswith(("#", "data:image/")) for link in page.links)
    assert not re.search(r"https?:|url\((?!#)|@import", text)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.names())
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_every_anchor_of_a_chart_is_on_the_page(whole):
    text, page = (whole / "report.html").read_text(encoding="utf-8"), page_of(whole)
    used = {link[1:] for link in page.links if link.startswith("#")}
    assert used | set(re.findall(r"url\(#([^)]+)\)", text)) <= set(page.ids)


def test_the_key_table_has_a_column_for_each_decoder(trained):
    files = files_lib.read(trained)
    (own, table) = sorted(scores.scores(files), key=lambda found: len(found.rows))
    assert list(own.rows) == ["argmax@own", "dark@own"]
    assert table.columns == ["end of training", "argmax", "dark"]
    manifest = json.loads((trained / "model" / "manifest.json").read_text())
    assert manifest["scores"] == {n: row[0] for n, row in table.rows.items()}
    for i, decoder in ((1, "argmax"), (2, "dark")):
        file = trained / "eval" / "gt_boxes" / decoder / "metrics.json"
        found = json.loads(file.read_text())
        assert {n: row[i] for n, row in table.rows.items()} == {
            name: found[name] for name in found if "@own" not in name
        }
    page = Page(scores.key_table(files))
    shown = [name for name in table.rows if f" {name} " in page.text]
    keys = ("AP", "AP50", "AP75", "pixel_error", "PCK@0.2", "PCP@0.5")
    assert set(shown) == {f"{key}@gt_boxes" for key in keys}
    assert scores.KEY_METRICS["PCK@0.2"] in page.text
    page = Page(scores.all_metrics(files))
    assert all(f" {name} " in page.text for name in {**own.rows, **table.rows})


def test_metrics_of_its_own_are_shown_where_no_key_metric_is(trained):
    made = {f"mine_{i}@boxes": i for i in range(9)}
    files = dataclasses.replace(
        files_lib.read(trained), manifest={"scores": made}, evaluations={}
    )
    page = Page(scores.key_table(files))
    assert [name for name in made if name in page.text] == list(made)[:5]


def test_people_are_named_and_shown_beside_the_truth(whole, root):
    page, table = page_of(whole), coco.load(root, "val2017")
    rows = table.labelled_rows()
    shown = {
        (int(image), int(person))
        for image, person in re.findall(r"image (\d+), annotation (\d+)", page.text)
    }
    there = {(int(table.image_ids[table.image[r]]), int(table.ids[r])) for r in rows}
    assert shown <= there and len(shown) >= min(6, len(there))
    alts = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    for kind in ("ground truth", "prediction", r"heatmaps, max \S+", "input"):
        found = [alt for alt in alts if re.search(f": {kind}$", alt)]
        assert len(found) >= min(6, len(rows))
    for _, attrs in page.tags:
        assert not attrs.get("src", "data:image/jpeg;base64,").endswith(",,")


def test_learning_curves_show_what_the_log_has(whole):
    page = page_of(whole)
    labels = {attrs.get("aria-label") for tag, attrs in page.tags if tag == "svg"}
    assert {"loss", "learning rate", "images per second"} <= labels
    assert any("waiting for input" in label for label in labels)


def test_curves_are_of_losses_and_key_metrics_with_three_points_that_change():
    log = []
    for phase in ("stage_1", "stage_2"):
        for step in (1, 2, 3):
            values = {"loss": step, "lr": 0.1, "not_a_number": None}
            values |= {"AP@gt_boxes": step, "AP50@gt_boxes": 2 * step}
            values |= {"PCK@0.1@gt_boxes@PC": step, "PCK@0.2@gt_boxes@PC": step}
            values |= {"pixel_error@gt_boxes": 7}  # Does not change.
            log.append({"step": step, "phase": phase, "time": 0.0, **values})
    log.append({"step": 1, "phase": "stage_3", "loss": 1, "AP@gt_boxes": 1})
    steps = [(1, 1), (2, 2), (3, 3)]
    twice = [(1, 2), (2, 4), (3, 6)]
    assert curves.panels(log) == {
        "loss": {"stage_1": steps, "stage_2": steps},
        "learning rate": {f"stage_{i}": [(s, 0.1) for s in (1, 2, 3)] for i in (1, 2)},
        "AP@gt_boxes": {
            "AP stage_1": steps,
            "AP50 stage_1": twice,
            "AP stage_2": steps,
            "AP50 stage_2": twice,
        },
        "PCK@0.2@gt_boxes@PC": {"stage_1": steps, "stage_2": steps},
    }


def test_too_few_points_for_a_curve_are_said(trained):
    files = files_lib.read(trained)
    page = Page(curves.curves(dataclasses.replace(files, log=files.log[:4])))
    assert "at least 3 points; evaluations so far: 2." in page.text
    assert "svg" not in page.names()


def test_the_keypoint_table_has_the_numbers_of_evaluation(seen):
    np.testing.assert_array_equal(seen.poses.row, seen.table.labelled_rows())
    cells = {}
    section = people.keypoints(seen)
    for row in section.split("<tr")[2:]:
        texts = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
        name, *values = (re.sub("<[^>]*>", "", text) for text in texts)
        cells[name] = values
    rows = of_poses.per_keypoint(seen.table, seen.poses)
    assert [[name, *its] for name, its in cells.items()] == [
        [row.pop("name"), *(f"{value:.4g}" for value in row.values())] for row in rows
    ]


def test_the_best_come_first_and_the_worst_are_the_worst(seen):
    kinds = look.kinds(seen.order, count=2)
    assert seen.relative[kinds["Best"][0]] == seen.relative.min()
    assert seen.relative[kinds["Worst"][0]] == seen.relative.max()
    assert (np.diff(seen.relative[kinds["Worst"]]) <= 0).all()
    few = look.kinds(np.arange(7))
    assert [its.tolist() for its in few.values()] == [[0, 1], [2, 3], [6, 5]]


@pytest.mark.slow
def test_a_run_without_evaluations_is_reported_on_as_many_people_as_asked(run):
    shutil.rmtree(run / "eval")
    assert cli.main(["report", str(run), "--people", "3"]) == 0
    page = page_of(run)
    assert page.sections() == ALWAYS | OF_PEOPLE
    assert "end of training" in page.text and "pose-jax eval" in page.text
    assert re.search(r"\b3 of \d+ people, evenly spaced", page.text)


def test_no_people_is_a_mistake(trained, capsys):
    assert cli.main(["report", str(trained), "--people", "0"]) == 2
    assert "--people" in capsys.readouterr().err


@pytest.mark.slow
def test_tensorflow_is_not_needed(run, run_python):
    """Also where the run was trained with its reader."""
    edit_manifest(run, input={"reader": "tf"})
    done = run_python(
        "import sys; sys.modules['tensorflow'] = None\n"
        "from pose_jax import cli\n"
        f"sys.exit(cli.main(['report', {str(run)!r}, '--people', '2']))"
    )
    assert done.returncode == 0, done.stderr
    assert page_of(run).sections() == ALWAYS | OF_PEOPLE


@pytest.fixture
def killed(run):
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "eval")
    return run


def test_a_killed_run_is_reported_without_a_model(killed, capsys):
    log = killed / "metrics.jsonl"
    log.write_text(log.read_text() + '{"step": 2, "phase": "po')  # Cut off.
    assert cli.main(["report", str(killed)]) == 0
    page, err = page_of(killed), capsys.readouterr().err
    assert page.sections() == ALWAYS
    says = "There is no model yet: training has not finished."
    assert says in page.text and says in err and len(err.splitlines()) == 1
    assert "step 3 of 3 of phase 'pose'" in page.text
    assert "To resume this run" in page.text
    assert "step 3 of phase 'pose'" in page.text and "AP@gt_boxes 0.3 " in page.text
    assert any("loss" == attrs.get("aria-label") for _, attrs in page.tags)


def test_a_run_that_has_logged_nothing_yet_is_reported(killed):
    (killed / "metrics.jsonl").unlink()
    report.report(killed)
    assert "No metrics logged yet." in page_of(killed).text


@pytest.mark.slow
def test_data_that_are_gone_cost_one_line_and_another_folder_can_be_given(
    run, root, tmp_path, capsys
):
    config, gone = make_config(root), str(tmp_path / "gone")
    config["data"]["eval"]["root"] = gone
    (run / "config.json").write_text(json.dumps(config))
    edit_manifest(run, data={"root": gone})
    assert cli.main(["report", str(run)]) == 0
    page, err = page_of(run), capsys.readouterr().err
    assert page.sections() == ALWAYS
    assert gone in err and len(err.splitlines()) == 1
    notes = [1 for tag, attrs in page.tags if attrs.get("class") == "note"]
    assert len(notes) == 1 and gone in page.text
    assert cli.main(["report", str(run), "--data", str(root), "--people", "2"]) == 0
    assert page_of(run).sections() == ALWAYS | OF_PEOPLE


def test_images_that_are_gone_cost_one_line(run, root, tmp_path, capsys):
    """The annotations are there, the pictures are not."""
    half = Path(shutil.copytree(root, tmp_path / "half"))
    for image in (half / "val2017").glob("*"):
        image.unlink()
    assert cli.main(["report", str(run), "--data", str(half)]) == 0
    assert page_of(run).sections() == ALWAYS
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_damaged_model_and_damaged_metrics_are_said(run, capsys):
    (run / "model" / "manifest.json").write_text("{")
    (run / "eval" / "gt_boxes" / "dark" / "metrics.json").write_text("[1]")
    assert cli.main(["report", str(run)]) == 0
    err = capsys.readouterr().err
    assert "manifest.json" in err and "metrics.json" in err
    page = page_of(run)
    assert page.sections() == ALWAYS
    assert "argmax" in page.text


def test_what_is_no_run_is_one_line(tmp_path, capsys):
    for path in (tmp_path, tmp_path / "nowhere"):
        assert cli.main(["report", str(path)]) == 1
        err = capsys.readouterr().err
        assert str(path) in err and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_model_alone_is_reported(run):
    for name in ("config.json", "metrics.jsonl"):
        (run / name).unlink()
    report.report(run, people=2)
    page = page_of(run)
    assert page.sections() == ALWAYS | OF_PEOPLE
    assert "method.sigma" in page.text and "optimizer.lr" not in page.text


def test_every_text_is_escaped(killed):
    """Config, names of metrics, decoders, phases and the run's own name."""
    run = killed.rename(killed.with_name("a<b>&'\""))
    config = json.loads((run / "config.json").read_text())
    config["method"]["model"]["options"][EVIL] = EVIL
    config["data"]["eval"]["root"] = EVIL
    (run / "config.json").write_text(json.dumps(config))
    found = run / "eval" / "gt_boxes" / "<b>"
    found.mkdir(parents=True)
    (found / "metrics.json").write_text(json.dumps({f"AP@{EVIL}": 1, EVIL: EVIL}))
    lines = [{"step": i, "phase": EVIL, f"loss{EVIL}": 1 / i} for i in (1, 2)]
    lines += [{"step": i, "phase": "other", "AP@$x$": i} for i in (1, 2)]
    log = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "metrics.jsonl").write_text(log)
    report.report(run)
    page = page_of(run)
    assert not {"script", "b<", "a<b"} & set(page.names())
    assert page.text.count(EVIL) >= 6
    assert "a<b>&'\"" in page.text and "AP@$x$" in page.text


def test_the_config_table_shows_what_is_not_the_default(whole):
    text = (whole / "report.html").read_text()
    section = text[text.index('id="config"') : text.index('id="data"')]
    found = re.findall(
        r'<tr(?: class="([^"]*)")?><th[^>]*>method\.<wbr>(sigma|padding|alignment)</th>',
        section,
    )
    assert found == [
        ("changed", "sigma"), ("changed", "sigma"), ("", "alignment"), ("", "padding"),
    ]  # fmt: skip


def test_the_command_to_repeat_trains_the_same_config(whole, root, monkeypatch):
    called = []
    monkeypatch.setattr(
        train, "train", lambda config, run: called.append((config, run))
    )
    command = re.search(
        r"<pre>cd [^\n]*\n(.*?)</pre>", (whole / "report.html").read_text()
    )
    words = shlex.split(html.unescape(command[1]))
    assert words[:2] == ["python", "-c"]
    exec(words[2], {})
    config, again = called[0]
    assert json.loads(json.dumps(config.to_dict())) == json.loads(
        json.dumps(make_config(root))
    )
    assert again == str(whole) + "-again"


def test_environment_and_fingerprints_are_there(whole, root):
    page = page_of(whole)
    manifest = json.loads((whole / "model" / "manifest.json").read_text())
    assert manifest["train_data"]["fingerprint"] in page.text
    assert coco.load(root, "val2017").fingerprint() in page.text
    for what in ("Python", "platform", "devices", "CPU cores", "git commit"):
        assert what in page.text
    assert jax.__version__ in page.text and "wall time" in page.text


@dataclasses.dataclass(frozen=True, eq=False)
class Drawn(MadeUp):
    panels: tuple[Panel, ...] = ()

    view: ClassVar = PersonView(size=(24, 32))


def seen_with(table, panels=(), **inspected):
    """A report's view of perfect predictions, as of a method that shows `inspected`."""
    rows = table.labelled_rows() if table.labelled else np.arange(len(table))
    n, k = len(rows), len(table.keypoints)
    poses = Poses(
        points_xy=table.points_xy[rows].astype(np.float32),
        keypoint_scores=np.ones((n, k), np.float32),
        score=np.ones(n, np.float32),
        valid=np.ones(n, bool),
        row=rows,
    )
    method = Drawn(keypoints=table.keypoints, panels=panels)
    return look.People(
        table=table, poses=poses, total=n, decoder="none", shown=[0, 1],
        panels=list(pictures.drawn(method, inspected)),
        **look.measured_poses(table, poses),
    )  # fmt: skip


def test_perfect_predictions_have_no_error(root):
    seen = seen_with(coco.load(root, "val2017"))
    assert np.nanmax(seen.error) < 1e-3
    assert seen.oks == pytest.approx(1)
    assert all(row["PCK@0.05"] == 1 for row in seen.keypoints if row["labelled"])
    Page(people.keypoints(seen))
    assert network.network(seen) is None  # Without panels.


def test_the_network_is_shown_by_the_panels_that_the_method_declares(root):
    """Each under its title and caption, in their order; three pictures a line."""
    table = coco.load(root, "val2017")

    def draw(inspected, keypoint_set, alignment):
        assert keypoint_set == table.keypoints and alignment == "stride"
        return [
            [(f"map {i}", np.full((8, 6, 3), 9 * i, np.uint8)) for i in row]
            for row in inspected["numbers"]
        ]

    panels = (
        Panel("one", "The <first>", "Four maps & more.", draw),
        Panel("two", "The second", "The same.", draw),
    )
    seen = seen_with(table, panels, numbers=np.arange(8).reshape(2, 4))
    section = network.network(seen)
    page = Page(section)
    assert page.sections() == {"network"}
    order = ["Inside the network", "The <first>", "Four maps & more.", "The second"]
    places = [page.text.index(words) for words in order]
    assert places == sorted(places)
    alts = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    kinds = [alt.split(" px: ")[1] for alt in alts]
    assert kinds == 2 * [f"map {i}" for i in range(8)]
    lines = [attrs for tag, attrs in page.tags if attrs.get("class") == "pictures"]
    assert len(lines) == 2 * 2 * 2


def test_a_cascade_is_shown_stage_by_stage(root):
    seen = seen_with(
        coco.load(root, "val2017"),
        (CASCADE,),
        input=np.full((2, 32, 24, 3), 0.5, np.float32),
        stages_xy=np.ones((2, 3, 17, 2), np.float32),
        squares=np.full((2, 2, 2), 9.0, np.float32),
    )
    alts = [
        attrs["alt"] for tag, attrs in Page(network.network(seen)).tags if tag == "img"
    ]
    kinds = [alt.split(" px: ")[1] for alt in alts]
    assert kinds[:5:2] == kinds[5::2] == ["stage 1", "stage 2", "stage 3"]


def test_votes_are_shown_enlarged(root):
    """Two keypoints a person, three pictures each, instead of the fused maps."""
    h, w, k = 33, 25, 17
    seen = seen_with(
        coco.load(root, "val2017"),
        MultiPose.panels,
        input=np.full((2, h, w, 3), 0.5, np.float32),
        heatmaps=np.full((2, h, w, k), 0.9, np.float32),
        offsets=np.ones((2, h, w, k, 2), np.float32),
        fused=np.full((2, h, w, k), 0.1, np.float32),
        points_xy=np.full((2, k, 2), 9.0, np.float32),
        keypoint_scores=np.ones((2, k), np.float32),
    )
    section = network.network(seen)
    page = Page(section)
    alts = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    kinds = [alt.split(" px: ")[1] for alt in alts]
    assert kinds[:6] == 2 * ["input", "heatmaps, max 0.9", "prediction"]
    assert kinds[6:9] == ["nose: heatmap, max 0.9", "offsets", "votes, max 0.1"]
    assert len(kinds) == 6 + 2 * 6
    assert "Votes" in page.text and "fused" not in page.text


def test_boxes_without_labels_show_predictions_and_no_error(root):
    table = dataclasses.replace(
        coco.load(root, "val2017"), labelled=False, box_source="detections"
    )
    seen = seen_with(table, input=np.zeros((2, 8, 8, 3), np.float32))
    assert seen.length is None and np.isnan(seen.error).all()
    page = Page(people.gallery(seen))
    assert people.keypoints(seen) is None
    assert "no labels" in page.text and "error" not in page.text
    alts = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert not any("truth" in alt for alt in alts)


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({}, "PCK@0.2", "torso"),
        ({"head_sizes": 20.0}, "PCKh@0.5", "head box"),
        ({"keypoints": "no torso"}, "PCK@box", "diagonal of the box"),
    ],
)
def test_errors_are_in_the_lengths_of_the_data_set(change, name, words, root):
    table = coco.load(root, "val2017")
    if "head_sizes" in change:
        sizes = np.full(len(table), change["head_sizes"])
        sizes[table.labelled_rows()[0]] = 0  # Without a head box.
        change = {"head_sizes": sizes}
    if "keypoints" in change:
        change = {"keypoints": dataclasses.replace(COCO, torso=None, sigmas=None)}
    seen = seen_with(dataclasses.replace(table, **change))
    assert (seen.oks is None) == ("keypoints" in change)
    page = Page(people.keypoints(seen))
    assert name in page.text and words in page.text
    if "head_sizes" in change:
        assert "1 of " in page.text


# ------------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    asked = os.environ.get("CHROMIUM")
    found = asked or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(names)}, and CHROMIUM is not set")

    def run(page, *options, home):
        words = [found, "--headless", "--no-sandbox", "--disable-gpu"]
        words += ["--disable-dev-shm-usage", *options]
        words += [f"--user-data-dir={home}", "--hide-scrollbars", page.as_uri()]
        done = subprocess.run(words, capture_output=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        return done.stdout.decode()

    return run


@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_it(width, whole, browser, tmp_path):
    shot = tmp_path / "shot.png"
    browser(
        whole / "report.html", f"--screenshot={shot}", f"--window-size={width},3000",
        home=tmp_path / "home",
    )  # fmt: skip
    with Image.open(shot) as image:
        assert image.size[0] == width
        gray = np.asarray(image.convert("L"), float)
    assert gray.std() > 5
    assert len(np.unique(gray[2000:])) > 20  # And not blank further down.


def test_a_browser_finds_every_section(whole, browser, tmp_path):
    dom = browser(whole / "report.html", "--dump-dom", home=tmp_path / "home")
    assert {attrs["id"] for tag, attrs in Page(dom).tags if tag == "section"} == (
        ALWAYS | OF_PEOPLE
    )


# A detector: images and boxes, no keypoints.


@pytest.fixture
def detector_run(root, tmp_path, monkeypatch):
    """What training of a detector leaves that finds everybody but in one image."""
    monkeypatch.setitem(methods.METHODS, "made_up_detector", MadeUpDetector)
    config, run = make_config(root), tmp_path / "detector"
    config["method"] = {"name": "made_up_detector", "images": 7}
    setup = training_config.setup(config)
    answers = right_answers(setup.eval_table)
    answers["params"]["boxes"][5] += 1000
    variables = {"detector": answers}
    run.mkdir()
    (run / "config.json").write_text(json.dumps(config))
    scores = {"box_AP": 0.75, "box_AP50": 0.8125, "box_APs": -1.0, "box_AR": 0.5}
    with log_lib.MetricWriter(run, tensorboard=False) as writer:
        for step in (1, 2):
            writer.write(step, "detector", {"box": 0.5 / step, "lr": 1e-3})
            writer.write(step, "detector", scores | {"box_AP": 0.25 * step})
    model_lib.write_model(
        run, config=config, method=setup.method, train_table=setup.train_table,
        variables=variables, scores=scores,
    )  # fmt: skip
    return run


def test_a_detector_is_reported_by_images_without_what_is_of_keypoints(
    detector_run, root, capsys
):
    assert cli.main(["eval", "--run", str(detector_run)]) == 0
    capsys.readouterr()
    assert cli.main(["report", str(detector_run)]) == 0
    assert "note" not in capsys.readouterr().err
    page, table = page_of(detector_run), coco.load(root, "val2017")
    assert page.sections() == ALWAYS | {"images"}
    assert "method made_up_detector" in page.text
    assert "0.812" in page.text and "box_AP50" in page.text
    assert "pose-jax eval" in page.text and text.formula("box_AP") in page.text
    total = len(table.labelled_rows())
    missed = len(table.people_of_image(5))
    assert f"{total - missed} of {total} people are detected" in page.text
    worst = page.text.split(" Worst ")[1]
    of_image = f"image {table.image_ids[5]} {missed} people · {missed} false negatives"
    assert worst.startswith(of_image), worst[:80]
    alts = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert len(alts) == 3 * 2 and all(alt.endswith(": boxes") for alt in alts)


def test_fewer_images_and_none_without_labels_are_shown_too(detector_run, root):
    seen = look.look(model_lib.load(detector_run), 3, None)
    assert seen.boxes.row.tolist() == [0, 3, 6] and seen.total == 7
    bare = dataclasses.replace(
        seen, table=dataclasses.replace(seen.table, labelled=False)
    )
    page = Page(images.gallery(bare))
    assert "no labels" in page.text and "false" not in page.text


def test_data_of_a_detector_that_are_gone_cost_one_line(detector_run, capsys):
    report.report(detector_run, data="nowhere")
    err = capsys.readouterr().err
    assert "No images are shown: " in err and "nowhere" in err
    assert page_of(detector_run).sections() == ALWAYS


def test_kinds_of_box_ap_share_a_panel():
    log = [
        {"step": s, "phase": "detector", "box_AP": s, "box_AP50": 2 * s, "box_APs": s}
        for s in (1, 2, 3)
    ]
    assert curves.panels(log) == {
        "box_AP": {
            "box_AP": [(1, 1), (2, 2), (3, 3)],
            "box_AP50": [(1, 2), (2, 4), (3, 6)],
        }
    }
