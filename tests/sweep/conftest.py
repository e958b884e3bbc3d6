"""People, trainings that are none, and a study of them.

A training here is a script that logs like one: steps with pauses, killed and resumed in
seconds. The storage, the locks and the processes are real.
"""

import sys

import pytest

from pose_jax.data.synthetic import scenes
from pose_jax.evaluation import poses
from pose_jax.sweep import runner, worker
from tests.sweep.studies import DEMO, QUICK, STEPS, write

# A training that can be watched: a line of the log a step, which is its checkpoint too.
FAKE = """
import fcntl, json, os, pathlib, sys, time
words = sys.argv[1:]
run = pathlib.Path(words[words.index("--run") + 1])
given = dict(w.removeprefix("--config.").split("=", 1) for w in words if "=" in w)
lr, seed = float(given["optimizer.lr"]), int(given.get("seed", 0))
lock = open(run / "lock", "a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit("pose-jax: error: two trainings in one directory")
with open(run / "starts", "a") as starts:
    starts.write(f"{os.getpid()}\\n")
if lr > 1:
    print("compiling", flush=True)
    sys.exit("pose-jax: error: the loss of step 3 is nan")
if lr > 0.9:
    os.kill(os.getpid(), 9)
log = run / "metrics.jsonl"
done = len(log.read_text().splitlines()) if log.exists() else 0
for step in range(done + 1, STEPS + 1):
    while step > 3 and lr < WAITS and not (run.parent / "gate").exists():
        time.sleep(0.05)
    value = lr * step / STEPS + seed / 100
    line = {"phase": "pose", "step": step, "AP@gt_boxes": value}
    with open(log, "a") as file:
        file.write(json.dumps(line) + "\\n")
(run / "new").mkdir(exist_ok=True)
scores = {"AP@gt_boxes": lr + seed / 100}
(run / "new" / "manifest.json").write_text(json.dumps({"scores": scores}))
(run / "new").rename(run / "model")
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """People, and trainings that are none: of no time; and of which all, or those of a low
    rate, wait after their third step until there is a file "gate" beside them."""
    folder = tmp_path_factory.mktemp("sweep")
    scenes.write_dataset(folder / "data", n=2, val=1, seed=0)
    for name, waits in (("quick", 0), ("gated", 10), ("gated_low", 0.05)):
        text = FAKE.replace("STEPS", str(STEPS)).replace("WAITS", str(waits))
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture(scope="module", autouse=True)
def names():
    """The metrics that are asked for, alone."""
    found = ("AP@gt_boxes", "PCK@0.2@gt_boxes", "pixel_error@gt_boxes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(poses, "names", lambda table: found)
        yield


@pytest.fixture(scope="session")
def overrides(folder):
    roots = [f"--config.data.{use}.root={folder / 'data'}" for use in ("train", "eval")]
    return [*roots, "--config.train.steps=6", "--config.train.eval_every_steps=1"]


@pytest.fixture
def start(folder, overrides, tmp_path, monkeypatch):
    """start(sweep) runs a study of it in tmp_path/study, with a fake training; with
    `here`, its one worker is in this process, which spares the start of another."""
    processes = runner._workers

    def run(made, *, pace="quick", study=None, here=False, **options):
        file = write(tmp_path, made)
        options.setdefault("times", QUICK)
        one = lambda tasks, stop, watch: worker.work(*tasks, stop)
        monkeypatch.setattr(runner, "_workers", one if here else processes)
        return runner.run(
            str(file),
            str(study or tmp_path / "study"),
            config=DEMO,
            overrides=overrides,
            command=[sys.executable, str(folder / f"{pace}.py")],
            **options,
        )

    return run
