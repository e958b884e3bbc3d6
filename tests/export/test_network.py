"""Exported networks: whole, equal to the run, without pose_jax too, or one line."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from jaxtyping import config as jaxtyping_config
from PIL import Image

from pose_jax import cli, export, methods
from pose_jax.errors import InputError
from pose_jax.export import network
from pose_jax.keypoints import COCO
from pose_jax.runs import model as model_lib

METHOD = {
    "name": "dark",
    "model": {"name": "pocket", "options": {"width": 8, "blocks": [1, 1, 1]}},
    "input_size": [32, 32],
    "decoder": "dark",
    "flip_test": "none",
}
DETECTOR = {
    "name": "detector",
    "model": {
        "name": "faster_rcnn_pocket",
        "options": {
            **{"width": 8, "blocks": [1, 1, 1], "features": 8, "head_features": 8}
        },
    },
    "size": [48, 64],
    "buckets": [[64, 48]],
    "anchor_scales": [[16.0, 32.0]],
    "test_pre_nms": 20,
    "test_post_nms": 10,
    "score_threshold": 0.0,
}


@pytest.fixture(scope="module", autouse=True)
def open_sizes():
    """Symbolic sizes are no numbers, which the checks of types in all tests require."""
    before = jaxtyping_config.jaxtyping_disable
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", before)


def make_run(run, section, keypoints):
    method = methods.build(section, keypoints)
    (phase,) = method.phases
    variables = {phase.name: jax.jit(phase.init)(jax.random.key(0))}
    manifest = {
        "method": section,
        "keypoints": keypoints.to_json() if keypoints else None,
        "input": {"batch_size": 8},
        "data": {},
        "evaluation": {},
        "scores": {"AP": 0.5},
        "train_data": {"name": "made up", "fingerprint": "0"},
        "versions": model_lib.VERSIONS,
    }
    model_lib.save_model(run / "model", jax.device_get(variables), manifest)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "pose", METHOD, COCO)


@pytest.fixture(scope="module")
def exported(run):
    export.export_run(run.parent / "out", run)
    return run.parent / "out"


def refused(folder):
    with pytest.raises(InputError) as error:
        export.load_network(folder)
    (line,) = str(error.value).splitlines()
    return line


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_an_export_equals_the_run_for_any_batch_and_says_what_it_is(run, exported):
    loaded = export.load_network(exported)
    assert loaded.difference <= 1e-3
    method, variables = model_lib.load(run).method(), model_lib.load(run).variables
    images = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    found = loaded(images)
    _, points_xy, scores = jax.jit(method.of_crops)(variables, images / np.float32(255))
    np.testing.assert_allclose(found["points_xy"], points_xy, atol=1e-3)
    np.testing.assert_allclose(found["scores"], scores, atol=1e-5)
    assert loaded.exported.platforms == ("cpu", "cuda", "tpu")
    about = manifest_of(exported)
    assert about["form"] == "crops" and about["decoder"] == "dark"
    assert about["inputs"] == {"images": "uint8 [b, 32, 32, 3]"}
    assert about["outputs"]["points_xy"] == "float32 [b, 17, 2]"
    assert about["keypoints"]["names"] == list(COCO.names)
    assert about["run"]["scores"] == {"AP": 0.5}
    assert about["written"] < about["readable_until"]


def test_the_script_runs_where_pose_jax_is_not(exported, tmp_path):
    Image.new("RGB", (60, 40), (90, 120, 30)).save(tmp_path / "picture.png")
    code = (
        "import runpy, sys; sys.modules['pose_jax'] = None; "
        f"sys.argv = ['run.py', {str(tmp_path / 'picture.png')!r}]; "
        f"runpy.run_path({str(exported / 'run.py')!r})"
    )
    answer = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.splitlines()) == 17
    assert answer.stdout.startswith("nose: ")


def test_a_refreshed_export_has_a_new_date(exported, tmp_path, monkeypatch):
    folder = shutil.copytree(exported, tmp_path / "old")
    about = manifest_of(folder) | {
        "written": "2020-01-01",
        "readable_until": "2020-07-01",
    }
    (folder / "manifest.json").write_text(json.dumps(about))
    text = export.refresh(folder / "network.jax_export")
    assert "before: 2020-07-01" in text
    assert manifest_of(folder)["readable_until"] > "2026"
    assert export.load_network(folder).difference <= 1e-3


@pytest.mark.parametrize(
    "how, meant",
    [
        ("cut", "its checksum differs"),
        ("missing", "No such file"),
        ("unreadable", "promised this until 2020-07-01 and ended"),
        ("version", "its format is 'pose_jax network 9'"),
        ("decoder", "its format is 'pose_jax decoder 1'"),
        ("none", "no export found"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(exported, tmp_path, how, meant):
    folder = shutil.copytree(exported, tmp_path / "copied")
    file, about = folder / "network.jax_export", manifest_of(folder)
    if how == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    elif how == "missing":
        file.unlink()
    elif how == "unreadable":  # As a later version of JAX may find it.
        file.write_bytes(b"of another time" * 100)
        about["sha256"][file.name] = export.decoder.sha256(file.read_bytes())
        about["readable_until"] = "2020-07-01"
    elif how in ("version", "decoder"):
        about["format"] = "pose_jax " + {"version": "network 9"}.get(how, "decoder 1")
    else:
        shutil.rmtree(folder)
    if folder.exists():
        (folder / "manifest.json").write_text(json.dumps(about))
    assert meant in refused(folder)


@pytest.mark.parametrize(
    "line, meant",
    [
        ("--run RUN --sigma 2", "set by --run"),
        ("--run RUN --format tflite --bfloat16", "float32 weights"),
        ("--run RUN --slots 3", "need --detector"),
        ("--run RUN --detector RUN", "is a pose run, not a detector"),
        ("--run RUN --decoder drak", "Did you mean 'dark'"),
        ("--flip none", "--flip: without --run a decoder is exported"),
    ],
)
def test_an_option_that_does_not_fit_is_one_line(run, tmp_path, capsys, line, meant):
    words = [str(run) if word == "RUN" else word for word in line.split()]
    assert cli.main(["export", *words, "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and meant in err
    assert not (tmp_path / "out").exists()


def test_stored_points_that_differ_are_refused(tmp_path):
    near = np.array([0.0] * 19 + [50.0])
    assert network._accepted(near, tmp_path) == 50
    with pytest.raises(InputError, match="of the stored points 90%"):
        network._accepted(np.array([0.0] * 18 + [50.0, np.nan]), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["jax", "saved_model"])
def test_photographs_in_people_out(run, tmp_path, format):
    detector = make_run(tmp_path / "detector", DETECTOR, None)
    text = export.export_run(
        tmp_path / "out", run, detector=detector, format=format, slots=4
    )
    assert "photographs of 64x48" in text and "difference" in text
    about = manifest_of(tmp_path / "out")
    assert about["outputs"]["points_xy"] == "float32 [b, 4, 17, 2]"


@pytest.mark.slow
@pytest.mark.parametrize("format", ["saved_model", "tflite"])
def test_tensorflow_gives_the_same_points(run, tmp_path, format):
    pytest.importorskip("tensorflow")
    text = export.export_run(tmp_path / "out", run, format=format)
    difference = float(text.split("maximum difference ")[1].split(" px")[0])
    assert difference < 0.01
    if format == "tflite":
        content = (tmp_path / "out" / "network.tflite").read_bytes()
        assert b"pose_jax network 1" in content and b"left_shoulder" in content


@pytest.mark.slow
def test_bfloat16_halves_the_file(run, exported, tmp_path):
    export.export_run(tmp_path / "out", run, bfloat16=True)
    sizes = [
        (folder / "network.jax_export").stat().st_size
        for folder in (tmp_path / "out", exported)
    ]
    assert sizes[0] < 0.75 * sizes[1]
