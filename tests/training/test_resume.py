"""Nothing is lost: killed, stopped, out of disk, two at once. Runs are real processes.

The parameters of an interrupted run equal those of one that was not, bit for bit.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pose_jax import cli, trees
from pose_jax.data.synthetic import scenes
from pose_jax.runs import model as model_lib
from pose_jax.runs import states

CONFIG = """
from ml_collections import ConfigDict

def get_config(variant=""):
    source = {{"name": "coco", "root": {root!r}}}
    return ConfigDict({{
        "seed": 3,
        "method": {{
            "name": "dark",
            "model": {{"name": "pocket", "options": {{"width": 8, "blocks": (0, 0, 0)}}}},
            "input_size": (64, 64),
            "sigma": 1.5,
            "augment": {{"flip": 0.5, "rotation": 20.0}},
        }},
        "data": {{
            "train": {{**source, "split": "train2017"}},
            "eval": {{**source, "split": "val2017"}},
        }},
        "input": {{"batch_size": 4, "canvas_size": (320, 256), "reader": "numpy"}},
        "optimizer": {{"name": "adam", "lr": 1e-3, "ema_decay": 0.9}},
        "train": {{
            "steps": 40,
            "checkpoint_every_steps": 4,
            "eval_every_steps": 10,
            "best_metric": "AP@gt_boxes",
            "log_every_steps": 1,
        }},
    }})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    scenes.write_dataset(folder / "data", n=8, val=3, seed=0)
    (folder / "config.py").write_text(CONFIG.format(root=str(folder / "data")))
    return folder


# Pictures take longer than the steps; what is written after them is not looked at here.
UNDRAWN = """
from pose_jax.training import train
train.pictures.draw_run = train.Trainer._draw_inputs = lambda *_: None
"""


def start(folder: Path, run: Path, *more: str, before: str = "") -> subprocess.Popen:
    """Trains in a process of its own; `before` is Python that it runs first."""
    code = (
        f"import sys\n{UNDRAWN}\n{before}\nfrom pose_jax import cli\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    argv = ["train", "--config", str(folder / "config.py"), "--run", str(run), *more]
    return subprocess.Popen(
        [sys.executable, "-c", code, *argv],
        cwd=Path(__file__).parents[1],
        env={
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def weights(run: Path):
    return trees.flatten(model_lib.load_model(run / "model")[0])


def last_step(run: Path) -> int:
    """Of the log: how far the run has come."""
    try:
        lines = (run / "metrics.jsonl").read_text().splitlines()
        return max(json.loads(line)["step"] for line in lines)
    except (OSError, ValueError):
        return 0


def wait_for_step(process: subprocess.Popen, run: Path, step: int) -> None:
    until = time.monotonic() + 300
    while last_step(run) < step and process.poll() is None:
        assert time.monotonic() < until, "the run came to no step in five minutes"
        time.sleep(0.02)


def assert_same(run: Path, straight: Path) -> None:
    ours, theirs = weights(run), weights(straight)
    assert ours.keys() == theirs.keys()
    for path, value in theirs.items():
        np.testing.assert_array_equal(ours[path], value, err_msg="/".join(path))

    def log(run):
        lines = (run / "metrics.jsonl").read_text().splitlines()
        timed = ("time", "images_per_second", "input_bound_percent")
        entries = [json.loads(line) for line in lines]
        return [{k: v for k, v in e.items() if k not in timed} for e in entries]

    # Sums of a log window that was cut by a stop are its rest's.
    assert log(run) == log(straight)


@pytest.fixture(scope="module")
def straight(folder):
    run = folder / "straight"
    code, _, err = finish(start(folder, run))
    assert code == 0, err
    return run


@pytest.fixture(scope="module")
def stopped(folder):
    """A run of three processes: one killed, one refused while that was alive, and one
    stopped by SIGTERM. The run, the first process's number, what the second ended with,
    what the third said, and the step it had come to."""
    run = folder / "stopped"
    first = start(folder, run)
    try:
        wait_for_step(first, run, 1)
        first.send_signal(signal.SIGSTOP)  # Alive for as long as that takes.
        refused = finish(start(folder, run))
    finally:
        first.kill()
        first.communicate()
    # What a killed process held is free again.
    done = last_step(run)
    process = start(folder, run)
    wait_for_step(process, run, max(9, done + 1))
    process.send_signal(signal.SIGTERM)
    code, out, err = finish(process)
    assert code == 0, err
    step = max(states.whole_steps(run / "checkpoints" / "pose"))
    return run, first.pid, refused, out, step


def copy_of(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to))


@pytest.mark.slow
def test_sigterm_saves_and_exits_with_a_note(stopped):
    run, _, _, out, step = stopped
    assert f"stopped by SIGTERM at step {step} of 40" in out
    assert "resumes from it" in out
    assert 9 <= step < 40 and not (run / "model").exists()


def test_two_runs_in_one_directory_refuse_each_other(stopped):
    run, pid, (code, _, err), _, _ = stopped
    assert code == 1 and "Traceback" not in err
    (line,) = (line for line in err.splitlines() if "error" in line)
    assert f"{run} is in use by process {pid} on " in line


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_good_checkpoint(
    folder, straight, stopped, tmp_path
):
    """A limit on the size of files stands for the disk: writing fails the same way. Then
    the run ends as one that was never killed, stopped or without room."""
    run, step = copy_of(stopped[0], tmp_path / "run"), stopped[-1]
    limit = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))"
    )
    code, _, err = finish(start(folder, run, before=limit))
    assert code == 1, err
    # Threads of libraries have their say too.
    (line,) = re.findall(r"pose-jax: error: .*", err)
    assert "File too large" in line and "Free some space" in line
    assert f"The last complete checkpoint is step {step}" in line
    code, out, err = finish(start(folder, run))
    assert code == 0 and f"resumed at step {step} of 40" in out, err
    assert_same(run, straight)


@pytest.mark.slow
def test_going_on_from_another_run_keeps_optimiser_and_step(
    folder, straight, stopped, tmp_path, capsys
):
    run, step = stopped[0], stopped[-1]
    other = tmp_path / "other"
    code, out, err = finish(start(folder, other, f"--config.train.resume_from={run}"))
    assert code == 0, err
    assert f"resumed at step {step} of 40, from {run}" in out
    assert_weights_equal(other, straight)
    words = ["train", "--config", str(folder / "config.py")]
    words += ["--run", str(tmp_path / "third"), "--config.train.resume_from=/nowhere"]
    assert cli.main(words) == 1
    said = capsys.readouterr().err
    assert "/nowhere has no checkpoint of phase 'pose'" in said


def assert_weights_equal(run, straight):
    for path, value in weights(straight).items():
        np.testing.assert_array_equal(weights(run)[path], value)


CASCADE = """
from ml_collections import ConfigDict

def get_config(variant=""):
    source = {{"name": "coco", "root": {root!r}}}
    return ConfigDict({{
        "method": {{
            "name": "deeppose",
            "model": {{"name": "deeppose", "options": {{"width": 6, "features": 16}}}},
            "input_size": (64, 64),
            "stages": 3,
            "sigma": 1.0,
            "start": "before",
            "augment": {{"flip": 0.5, "translation": 0.1}},
        }},
        "data": {{
            "train": {{**source, "split": "train2017"}},
            "eval": {{**source, "split": "val2017"}},
        }},
        "input": {{"batch_size": 4, "canvas_size": (320, 256), "reader": "numpy"}},
        "optimizer": {{"name": "adam", "lr": 1e-3, "ema_decay": 0.9}},
        "train": {{"steps": 4, "checkpoint_every_steps": 2, "log_every_steps": 1}},
    }})
"""

# Says when a phase's statistics are measured, and dies, once, at a place in the run.
DYING = """
import os
from pathlib import Path
from pose_jax.data import readers
from pose_jax.training import train

places, deaths = [], {deaths!r}
done = Path({done!r})

def dies(place):
    if place in deaths and place not in done.read_text().split():
        with done.open("a") as f:
            f.write(place + "\\n")
        os._exit(9)

class Dying(train.Trainer):
    def statistics(self, phase, *, shapes_only=False):
        if phase.statistics is not None and not shapes_only:
            print("measured for", phase.name, flush=True)
        return super().statistics(phase, shapes_only=shapes_only)

    def loop(self, phase, state, step_fn, schedule, store, key):
        def step(state, *args):
            place = phase.name + ":" + str(int(state.step))
            store.wait()
            dies(place)
            return step_fn(state, *args)

        store.wait()
        return super().loop(phase, state, step, schedule, store, key)

train.Trainer = Dying
"""


@pytest.mark.slow
def test_a_cascade_killed_in_every_stage_is_the_one_that_was_not(folder, tmp_path):
    """And the errors of a stage are measured once, not again after each death."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.py").write_text(CASCADE.format(root=str(folder / "data")))
    (home / "compiled").symlink_to(folder / "compiled")
    done = tmp_path / "done"
    done.touch()
    # stage_2:0 is after its statistics and before its first step.
    deaths = ["stage_1:3", "stage_2:0", "stage_2:2", "stage_3:1"]
    straight, run = tmp_path / "straight", tmp_path / "run"
    quiet = DYING.format(deaths=[], done=str(done))
    code, out, err = finish(start(home, straight, before=quiet))
    assert code == 0, err
    assert out.count("measured for") == 2
    dying = DYING.format(deaths=deaths, done=str(done))
    said = ""
    for _ in deaths:
        code, out, err = finish(start(home, run, before=dying))
        assert code == 9, err
        said += out
    code, out, err = finish(start(home, run, before=dying))
    assert code == 0, err
    said += out
    assert done.read_text().split() == deaths
    for stage in ("stage_2", "stage_3"):
        assert said.count(f"measured for {stage}") == 1
    assert_same(run, straight)


DETECTOR = """
from ml_collections import ConfigDict

def get_config(variant=""):
    source = {{"name": "coco", "root": {root!r}}}
    return ConfigDict({{
        "method": {{
            "name": "detector",
            "model": {{
                "name": "faster_rcnn_pocket", "options": {{"width": 8, "blocks": (1, 1, 1)}}
            }},
            "size": (64, 80),
            "buckets": ((320, 256),),
            "max_people": 4,
            "anchor_scales": ((20.0, 32.0),),
            "pre_nms": 50, "test_pre_nms": 50, "post_nms": 20, "test_post_nms": 20,
            "rpn_samples": 32, "box_samples": 16, "slots": 10,
        }},
        "data": {{
            "train": {{**source, "split": "train2017"}},
            "eval": {{**source, "split": "val2017"}},
        }},
        "input": {{"batch_size": 4, "reader": "numpy"}},
        "optimizer": {{"name": "adam", "lr": 1e-3}},
        "train": {{
            "steps": 30,
            "checkpoint_every_steps": 4,
            "eval_every_steps": 10,
            "log_every_steps": 1,
        }},
    }})
"""

KILLED = {
    "pose": CONFIG,
    "tf reader": CONFIG.replace('"reader": "numpy"', '"reader": "tf"'),
    "cascade": CASCADE.replace('"steps": 4', '"steps": 12'),
    "detector": DETECTOR,
}


def logged(run: Path) -> int:
    """The number of lines of the log: how far the run has come, over all phases."""
    log = run / "metrics.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KILLED)
def test_twenty_kills_change_nothing(folder, tmp_path, kind):
    """kill -9 at random moments: in steps, while a checkpoint is written, in evaluation."""
    home, straight, run = (tmp_path / name for name in ("home", "straight", "run"))
    home.mkdir()
    (home / "config.py").write_text(KILLED[kind].format(root=str(folder / "data")))
    (home / "compiled").symlink_to(folder / "compiled")
    code, _, err = finish(start(home, straight))
    assert code == 0, err
    rng = random.Random(0)
    moments = {"step": 0, "checkpoint": 0}
    kills = 0
    while kills < 20:
        process = start(home, run)
        begun, until = logged(run), time.monotonic() + 300
        while logged(run) <= begun and process.poll() is None:
            assert time.monotonic() < until, "the run came to no step in five minutes"
            time.sleep(0.02)
        time.sleep(rng.choice([0.0, 0.02, 0.1, 0.5, 1.5]) * rng.random())
        if process.poll() is not None:  # It was through: start over.
            code, _, err = finish(process)
            assert code == 0, err
            assert_same(run, straight)
            run = tmp_path / f"run{kills}"
            continue
        temporary = list((run / "checkpoints").glob("*/*tmp*"))
        moments["checkpoint" if temporary else "step"] += 1
        process.kill()
        process.communicate()
        kills += 1
    code, _, err = finish(start(home, run))
    assert code == 0, err
    assert_same(run, straight)
    print(moments)
