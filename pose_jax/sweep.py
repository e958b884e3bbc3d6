"""Hyperparameter sweeps: many trainings of one config, each with overrides of its own.

A sweep is a python file with `get_sweep() -> Sweep`. Optuna draws and keeps the trials; a
worker takes one at a time and trains it in a process and a run directory of its own,
OUT/trials/0007. Any number of workers, on one machine or on many, do one study.

Nothing is lost and nothing runs twice, however a worker ends. A trial is unfinished as long
as Optuna says "running", and belongs to who holds it:

* On one machine, a lock on OUT/trials/0007/claim, which worker and training hold together
  and which ends with both of them.
* Between machines, a beat that the owner writes into Optuna's storage: an owner whose beat
  has stood still for `Times.lost` is lost. Nobody's clock is compared with another's. One
  that comes back reads in its next beat that it was succeeded, and stops.

Whoever finds a trial unfinished and not held goes on with it from its own checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import itertools
import json
import math
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import traceback
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TextIO

from pose_jax import config as config_lib
from pose_jax.errors import ConfigError, InputError, Stopped
from pose_jax.interrupts import StopRequest

# ------------------------------------------------------------------ what a sweep file says


@dataclasses.dataclass(frozen=True)
class Choice:
    """Some values. With `every`, each trial is run with all of them."""

    values: tuple[Any, ...]
    every: bool = False


@dataclasses.dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`; ints if both are."""

    low: float
    high: float
    log: bool = False
    step: float | None = None


Space = Mapping[str, Choice | Range]
"""By the dotted key of a config: {"optimizer.lr": log_range(1e-4, 1e-2)}."""


def choice(*values: Any) -> Choice:
    """One of these, as the sampler likes."""
    return Choice(values)


def grid(*values: Any) -> Choice:
    """Every one of these, with all else that is drawn: seeds, for example."""
    return Choice(values, every=True)


def linear_range(low: float, high: float, step: float | None = None) -> Range:
    """From `low` to `high`, both included; of ints if both are."""
    return Range(low, high, step=step)


def log_range(low: float, high: float) -> Range:
    """From `low` to `high`, each factor as likely as another."""
    return Range(low, high, log=True)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What is tried and what is wanted.

    Attributes:
      space: values by the key of the config.
      metric: of the evaluation: a full name, or as much of its beginning as leaves one:
        "AP" for "AP@gt_boxes".
      direction: "maximize" or "minimize" it.
      sampler: "tpe" learns from the trials before; "random"; "grid" tries all combinations
        of choices in the order of the file, the last key changing first.
      pruner: "none"; "median" ends a trial that is worse than the median of the others had
        been at the same batch; "hyperband" gives most trials little, and few all.
      startup_trials: so many are drawn at random, and end before any is pruned by the
        median.
      warmup_steps: the median prunes none before this batch.
      seed: of the sampler: a study of one worker is a function of it, stopped or not.
      seeds: the key over which the leaderboard takes means and intervals.
    """

    space: Space
    metric: str
    direction: Literal["maximize", "minimize"] = "maximize"
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    pruner: Literal["none", "median", "hyperband"] = "none"
    startup_trials: int = 5
    warmup_steps: int = 0
    seed: int = 0
    seeds: str = "seed"

    def __post_init__(self) -> None:
        hints = {
            "direction": ("maximize", "minimize"),
            "sampler": ("tpe", "random", "grid"),
            "pruner": ("none", "median", "hyperband"),
        }
        for name, known in hints.items():
            if (value := getattr(self, name)) not in known:
                raise ConfigError(
                    f"{name} must be one of {', '.join(known)}; got {value!r}."
                    f"{_did_you_mean(value, known)}"
                )
        if not self.space:
            raise ConfigError("the space is empty: nothing would be tried.")
        for key, values in self.space.items():
            _check_values(key, values, self.sampler)

    def grids(self) -> dict[str, Choice]:
        """The keys of which every value is run."""
        return {
            key: values
            for key, values in self.space.items()
            if isinstance(values, Choice) and (values.every or self.sampler == "grid")
        }

    def combinations(self) -> int:
        """How many trials a drawn point has: one for each combination of the grids."""
        return math.prod(len(values.values) for values in self.grids().values())

    def size(self) -> int | None:
        """How many trials there are; None where ranges or choices are drawn."""
        whole = len(self.grids()) == len(self.space)
        return self.combinations() if whole else None


def _check_values(key: str, values: Choice | Range, sampler: str) -> None:
    if isinstance(values, Choice):
        if not values.values:
            raise ConfigError(f"space {key!r} is empty: give it a value.")
        texts = [_text(value) for value in values.values]
        if twice := [text for text in texts if texts.count(text) > 1]:
            raise ConfigError(f"space {key!r} has {twice[0]} twice.")
        return
    if not isinstance(values, Range):
        raise ConfigError(
            f"space {key!r} must be a choice, a grid or a range; got {values!r}."
        )
    ends = values.low, values.high
    for end in ends:
        if not isinstance(end, int | float) or isinstance(end, bool):
            raise ConfigError(f"space {key!r}: a range is of numbers; got {end!r}.")
    if not -math.inf < values.low < values.high < math.inf:
        raise ConfigError(
            f"space {key!r} is empty: a range goes up from its first number; got "
            f"{values.low} to {values.high}."
        )
    if values.log and values.low <= 0:
        raise ConfigError(
            f"space {key!r}: a log range is of positive numbers; got {values.low}."
        )
    if values.step is not None and not 0 < values.step <= values.high - values.low:
        raise ConfigError(
            f"space {key!r}: a step is positive and within the range; got {values.step}."
        )
    if sampler == "grid":
        raise ConfigError(
            f"space {key!r} is a range, which sampler 'grid' cannot go through: give it "
            "a grid of values, or take sampler 'tpe' or 'random'."
        )


def load(file: str | Path) -> Sweep:
    """Reads a sweep file.

    Raises:
      ConfigError: always one line, whatever goes wrong.
    """
    path = Path(file)
    if path.suffix != ".py" or not path.is_file():
        near = _did_you_mean(path.stem, [p.stem for p in path.parent.glob("*.py")])
        raise ConfigError(
            f"{path}: no such sweep file; a sweep is a python file.{near}"
        )
    try:
        get_sweep = runpy.run_path(str(path)).get("get_sweep")
        if not callable(get_sweep):
            raise ConfigError("it defines no function get_sweep.")
        sweep = get_sweep()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if Path(f.filename) == path]
        if isinstance(error, SyntaxError):
            lines.append(error.lineno)
        where = f", line {lines[-1]}" if lines else ""
        message = " ".join(str(error).split())
        raise ConfigError(
            f"{path}{where}: {type(error).__name__}: {message}"
        ) from error
    if not isinstance(sweep, Sweep):
        raise ConfigError(f"{path}: get_sweep must return a sweep.Sweep.")
    return sweep


def _did_you_mean(name: Any, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.4)
    return f" Did you mean {near[0]!r}?" if near else ""


def _text(value: Any) -> str:
    """A value as an override has it."""
    return value if isinstance(value, str) else repr(_tuples(value))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _ends(values: Choice | Range) -> list[Any]:
    """The values that have to be possible for all to be."""
    if isinstance(values, Choice):
        return list(values.values)
    return [values.low, values.high]


def corners(space: Space) -> Iterator[dict[str, Any]]:
    """Points of a space in which each end and each choice is once, one key changing."""
    first = {key: _ends(values)[0] for key, values in space.items()}
    yield first
    for key, values in space.items():
        for value in _ends(values)[1:]:
            yield {**first, key: value}


def words(point: Mapping[str, Any]) -> list[str]:
    """A point as overrides of the command line."""
    return [f"--config.{key}={_text(value)}" for key, value in point.items()]


# ----------------------------------------------------------------- checked before it starts


EVALUATED: Mapping[str, tuple[str, ...]] = {
    "dark": (
        "decoder", "sigma", "kernel_size", "flip_test", "padding", "rescore_threshold",
    ),
    "deeppose": ("decoder", "flip_test"),
    "multipose": ("decoder", "radius", "rescoring", "flip_test", "padding"),
}  # fmt: skip
"""Keys of a method's section that a trained network can be read out with, by method."""

_EVALUATION = ("evaluation.nms", "evaluation.nms_threshold")


def check(file: str, sweep: Sweep, config: str, overrides: Sequence[str]) -> dict:
    """Tries each end and each choice on the config: keys, types, what the method says.

    Args:
      file: the sweep's, for messages.
      sweep: the sweep.
      config: the config file.
      overrides: that all trials have.

    Returns:
      What a study keeps of it: plain values.

    Raises:
      ConfigError: one line that names the key, with the nearest that there is.
      InputError: the evaluation data cannot be read.
    """
    base = config_lib.load(config, overrides)
    from pose_jax import datasets, experiment, measures, methods

    built = config_lib.build(experiment.Config, base)
    methods.parse(built.method)
    table = None
    for point in corners(sweep.space):
        try:
            loaded = config_lib.load(config, [*overrides, *words(point)])
            for key, value in point.items():
                got = _at(loaded, key)
                if _tuples(got) != _tuples(value):
                    raise ConfigError(
                        f"config.{key}: {value!r} would be read as {got!r}."
                    )
            trial = config_lib.build(experiment.Config, loaded)
            methods.parse(trial.method)
            if table is None:  # Once the keys are right: reading may take a while.
                table = datasets.load(built.data.eval)
            method = methods.build(trial.method, table.keypoints)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from error
    steps = sum(_steps(trial, phase.name) for phase in method.phases)
    if sweep.pruner != "none" and not 0 < built.train.eval_every_steps < steps:
        raise ConfigError(
            f"{file}: pruner {sweep.pruner!r} needs evaluations on the way; "
            f"config.train.eval_every_steps is {built.train.eval_every_steps}, and there "
            f"are {steps} steps."
        )
    return {
        **_described(sweep),
        "metric": full_metric(
            file, sweep.metric, measures.names(table, boxes=method.keypoints is None)
        ),
        "config": config,
        "overrides": list(overrides),
        "base": json.loads(config_lib.to_json(base)),
        "resource": [max(built.train.eval_every_steps, 1), steps],
        "eval_only": "",
    }


def check_evaluated(file: str, sweep: Sweep, run: str, boxes: str) -> tuple[dict, Any]:
    """As `check`, of a trained run whose network is only read out.

    Returns:
      What a study keeps, and `_Readouts` of the run.
    """
    from pose_jax import measures

    readouts = _Readouts(run, boxes)
    if readouts.loaded.keypoints is None:
        raise ConfigError(f"{run} is a detector: it can be read out in one way only.")
    name = readouts.loaded.manifest["method"]["name"]
    known = [f"method.{key}" for key in EVALUATED.get(name, ())] + [*_EVALUATION]
    for key in sweep.space:
        if key not in known:
            raise ConfigError(
                f"{file}: {key!r} is not of the evaluation alone, a network of method "
                f"{name!r} has to be trained for it.{_did_you_mean(key, known)} There "
                f"are {', '.join(known)}."
            )
    for point in corners(sweep.space):
        try:
            readouts.method(point)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from error
    if sweep.pruner != "none":
        raise ConfigError(f"{file}: an evaluation cannot be pruned.")
    spec = {
        **_described(sweep),
        "metric": full_metric(file, sweep.metric, measures.names(readouts.table)),
        "config": "",
        "overrides": [],
        "base": readouts.loaded.manifest["method"],
        "resource": [1, 1],
        "eval_only": str(run),
    }
    return spec, readouts


def full_metric(file: str, given: str, names: Sequence[str]) -> str:
    """The metric that a sweep means."""
    found = [name for name in names if name == given or name.startswith(f"{given}@")]
    if len(found) == 1 or given in names:
        return given if given in names else found[0]
    if found:
        raise ConfigError(
            f"{file}: metric {given!r} may be any of {', '.join(found)}: name one."
        )
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.0)
    raise ConfigError(
        f"{file}: the evaluation gives no {given!r}. Did you mean {near[0]!r}?"
    )


def _at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def _steps(config: Any, phase: str) -> int:
    own = config.phases.get(phase, {}).get("train", {})
    return own.get("steps", config.train.steps)


def _described(sweep: Sweep) -> dict[str, Any]:
    """A sweep as plain values, for the storage."""
    grids = sweep.grids()
    space = {
        key: {
            "texts": [_text(value) for value in values.values],
            "every": key in grids,
        }
        if isinstance(values, Choice)
        else dataclasses.asdict(values)
        for key, values in sweep.space.items()
    }
    return {**dataclasses.asdict(sweep), "space": space}


# ------------------------------------------------------------------------ study and claims


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds.

    Attributes:
      poll: between looks at a training and its log.
      beat: between signs of life for other machines.
      lost: without one, an owner on another machine has gone.
      settle: after taking a trial from another machine, until it is known that nobody else
        did so at the same moment.
    """

    poll: float = 1.0
    beat: float = 60.0
    lost: float = 300.0
    settle: float = 5.0


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a study is kept.

    Attributes:
      storage: "" for a journal in `out`, or an Optuna URL.
      name: of the study in the storage.
      out: folder of the trials' run directories.
    """

    storage: str
    name: str
    out: Path


def place(study: str, name: str | None = None, out: Path | str | None = None) -> Place:
    """Reads --study: a folder, or the URL of a storage.

    Raises:
      ConfigError: a URL without a name or a folder.
    """
    if "://" not in study:
        if name is not None or out is not None:
            raise ConfigError(
                "--name and --out go with a storage's URL; a study in a folder has the "
                "folder to itself."
            )
        return Place("", "sweep", Path(study))
    if name is None:
        raise ConfigError("a storage may hold several studies: say by --name which.")
    return Place(study, name, Path(out) if out is not None else Path("runs") / name)


def _optuna():
    try:
        import optuna
    except ImportError:
        raise InputError(
            "sweeps need optuna, which is not installed: pip install 'pose_jax[sweep]'."
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _storage(where: Place):
    optuna = _optuna()
    url = where.storage
    try:
        if not url:
            return _journal(where.out)
        if url.startswith("grpc://"):
            host, _, port = url.removeprefix("grpc://").rstrip("/").partition(":")
            with warnings.catch_warnings():
                # It calls itself experimental.
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return optuna.storages.GrpcStorageProxy(
                    host=host, port=int(port or 13000)
                )
        if url.startswith("redis://"):
            backend = optuna.storages.journal.JournalRedisBackend(url)
            return optuna.storages.JournalStorage(backend)
        # Several processes wait for one another's writes to a file of SQLite.
        options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
        return optuna.storages.RDBStorage(url, engine_kwargs=options)
    except (ImportError, OSError, ValueError) as error:
        raise InputError(
            f"{url or where.out}: {' '.join(str(error).split())}"
        ) from error


def _journal(out: Path):
    """A journal whose lock dies with its process, and that a torn line does not end."""
    optuna = _optuna()
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class Lock:  # As Optuna wants one; it has no name for the base in public.
        def acquire(self) -> bool:
            self._held = _locked(out / "journal.lock")
            self._held.__enter__()
            _drop_torn_line(out / "journal.log")
            return True

        def release(self) -> None:
            self._held.__exit__(None, None, None)

    out.mkdir(parents=True, exist_ok=True)
    path = str(out / "journal.log")
    lock = Lock() if locks_work(out) else JournalFileOpenLock(path)
    return optuna.storages.JournalStorage(JournalFileBackend(path, lock_obj=lock))


def _drop_torn_line(path: Path) -> None:
    """Cuts off what a process that was killed while it wrote has left unfinished."""
    with open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        if not end:
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            start = max(0, end - 2**20)
            file.seek(start)
            file.truncate(start + file.read().rfind(b"\n") + 1)


def _lock(path: Path, *, wait: bool = False) -> TextIO | None:
    """The open file whose lock is held until it is closed here and in all children; None:
    somebody else has it. Where there are no locks, everybody has it."""
    file = open(path, "a", encoding="utf-8")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.close()
        return None
    except (ImportError, OSError):
        pass
    return file


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    file = _lock(path, wait=True)
    assert file is not None
    with file:
        yield


def locks_work(folder: Path) -> bool:
    """Whether a file in the folder can be locked: not on Windows, not on all networks."""
    try:
        import fcntl

        with open(folder / "journal.lock", "a") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return True


def _machine() -> str:
    """The same in all processes that see one another's locks."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = str(uuid.getnode())
    return f"{socket.gethostname()} {boot}"


def _sampler(optuna, spec: Mapping[str, Any], study_of: Callable[[], Any]):
    """Draws a trial from its number: the grids' values, and the rest once for all of
    them. What is drawn depends on seed, number, key and the trials before, not on who
    draws it."""
    space = spec["space"]
    grids = {key: at["texts"] for key, at in space.items() if at.get("every")}
    combinations = list(itertools.product(*grids.values()))

    class Points(optuna.samplers.BaseSampler):
        def infer_relative_search_space(self, study, trial):
            return {}

        def sample_relative(self, study, trial, search_space):
            return {}

        def sample_independent(self, study, trial, param_name, param_distribution):
            point, combination = divmod(trial.number, len(combinations))
            if param_name in grids:
                return dict(zip(grids, combinations[combination], strict=True))[
                    param_name
                ]
            if combination:
                # Not by `study`: Hyperband shows a part of it.
                first = study_of().get_trials(deepcopy=False)[
                    trial.number - combination
                ]
                return first.params[param_name]
            name = zlib.crc32(param_name.encode())
            seed = zlib.crc32(repr((spec["seed"], point, name)).encode())
            base = optuna.samplers.RandomSampler(seed=seed)
            if spec["sampler"] == "tpe":
                startup = spec["startup_trials"] * len(combinations)
                base = optuna.samplers.TPESampler(
                    seed=seed, n_startup_trials=startup, constant_liar=True,
                    multivariate=False,
                )  # fmt: skip
            return base.sample_independent(study, trial, param_name, param_distribution)

    return Points()


def _pruner(optuna, spec: Mapping[str, Any]):
    if spec["pruner"] == "median":
        return optuna.pruners.MedianPruner(
            n_startup_trials=spec["startup_trials"],
            n_warmup_steps=spec["warmup_steps"],
        )
    if spec["pruner"] == "hyperband":
        low, high = spec["resource"]
        return optuna.pruners.HyperbandPruner(min_resource=low, max_resource=high)
    return optuna.pruners.NopPruner()


def open_study(where: Place, spec: Mapping[str, Any] | None = None):
    """The study with its sampler and pruner, and what it keeps of its sweep.

    Args:
      where: it is kept.
      spec: of `check`: the study is made if there is none. None: it has to be there.

    Raises:
      ConfigError: it is a study of another sweep.
      InputError: there is none, or the storage cannot be reached.
    """
    optuna = _optuna()
    at = where.storage or where.out
    if spec is None and not where.storage and not (where.out / "journal.log").exists():
        raise InputError(f"{at}: no study here.")
    storage = _storage(where)
    if spec is None:
        try:
            kept = optuna.load_study(study_name=where.name, storage=storage).user_attrs
        except KeyError:
            raise InputError(f"{at}: no study {where.name!r} here.") from None
        if "sweep" not in kept:
            raise InputError(f"{at}: study {where.name!r} is not of a sweep.")
        spec = kept["sweep"]
    study = optuna.create_study(
        study_name=where.name, storage=storage, direction=spec["direction"],
        load_if_exists=True, sampler=_sampler(optuna, spec, lambda: study),
        pruner=_pruner(optuna, spec),
    )  # fmt: skip
    # As the storage has it: JSON has no tuples.
    spec = json.loads(json.dumps(spec))
    kept = study.user_attrs.get("sweep")
    if kept is None:
        study.set_user_attr("sweep", spec)
    changed = [
        key for key in spec if key != "config" and (kept or spec).get(key) != spec[key]
    ]
    if changed:
        if changed == ["base"]:
            differences = config_lib.differences(spec["base"], kept["base"])
            changed = [f"config.{key}" for key in differences]
        raise ConfigError(
            f"{at} holds a study of another sweep (it differs in "
            f"{', '.join(changed[:3])}): give another --study"
            + (" or --name." if where.storage else ".")
        )
    return study, spec


@dataclasses.dataclass(frozen=True)
class Claim:
    """A trial that is ours to work on, and the file whose lock says so."""

    trial: Any
    file: TextIO


class Claims:
    """What one worker does about who has which trial; see the module's docstring."""

    def __init__(self, study: Any, spec, where: Place, trials: int, times: Times):
        self.study = study
        self.spec = spec
        self.out = where.out
        self.trials = trials
        self.times = times
        self._token = uuid.uuid4().hex[:12]
        self.out.mkdir(parents=True, exist_ok=True)
        # Without locks, a worker knows of all others by their beats alone.
        near = _machine() if locks_work(self.out) else self._token
        self._place = f"{near} {self.out.resolve()}"
        self._seen: dict[int, tuple[Any, float]] = {}
        self._alive: set[int] = set()
        self._beats = itertools.count()

    def run(self, number: int) -> Path:
        return self.out / "trials" / f"{number:04d}"

    def next(self) -> Claim | Literal["wait", "done"]:
        """A trial to work on: an unfinished one that nobody has, or a new one. "wait": the
        others may leave theirs. Close its file in the end."""
        with _locked(self.out / "asking.lock"):
            found = self._next()
        if isinstance(found, Claim):
            self._draw(found.trial)
        return found

    def _next(self) -> Claim | Literal["wait", "done"]:
        there = self.study.get_trials(deepcopy=False)
        pending = [t for t in there[: self.trials] if not t.state.is_finished()]
        for frozen in pending:
            if file := self._take(frozen):
                return Claim(self._trial(frozen), file)
        if len(there) < self.trials:
            new = self.study.ask()
            # Another machine may have asked at the same moment: a number that is too high
            # waits, nobody's, until more trials are wanted.
            if new.number < self.trials:
                self._sign(new)
                file = self._hold(new.number)
                assert file is not None, f"trial {new.number} is new, and held"
                return Claim(new, file)
            return "wait"
        return "wait" if {t.number for t in pending} - self._alive else "done"

    def _trial(self, frozen: Any):
        return _optuna().trial.Trial(self.study, frozen._trial_id)

    def _hold(self, number: int) -> TextIO | None:
        self.run(number).mkdir(parents=True, exist_ok=True)
        return _lock(self.run(number) / "claim")

    def _sign(self, trial: Any) -> None:
        owner = {"token": self._token, "place": self._place, "pid": os.getpid()}
        trial.set_user_attr("worker", {**owner, "host": socket.gethostname()})

    def _take(self, frozen: Any) -> TextIO | None:
        """Takes an unfinished trial if its owner has gone."""
        owner = frozen.user_attrs.get("worker", {})
        sign = owner.get("token"), frozen.user_attrs.get("beat")
        before, since = self._seen.setdefault(frozen.number, (sign, time.monotonic()))
        near = owner.get("place") == self._place
        if sign != before:
            self._seen[frozen.number] = sign, time.monotonic()
            if not near:  # Whoever has it will see to it.
                self._alive.add(frozen.number)
            return None
        if not near and time.monotonic() - since < self.times.lost:
            return None
        held = self._hold(frozen.number)
        if held is None:
            return None
        trial = self._trial(frozen)
        now = self.state(trial)
        if now.state.is_finished() or now.user_attrs.get("worker", {}) != owner:
            held.close()
            return None
        self._sign(trial)
        if not near:
            time.sleep(self.times.settle)
            if not self.mine(trial):
                held.close()
                return None
        self._alive.discard(frozen.number)
        return held

    def _draw(self, trial: Any) -> None:
        """Gives a trial its values, those that it has not yet."""
        count = math.prod(
            len(at["texts"]) for at in self.spec["space"].values() if at.get("every")
        )
        first = trial.number - trial.number % count
        if first != trial.number:
            # Drawn by the worker of the first of the point; if that has died, by this one.
            frozen = self.study.get_trials(deepcopy=False)[first]
            since = time.monotonic()
            while len(frozen.params) < len(self.spec["space"]):
                if time.monotonic() - since > self.times.settle:
                    _suggest(self._trial(frozen), self.spec["space"])
                time.sleep(min(self.times.poll, 0.2))
                frozen = self.study.get_trials(deepcopy=False)[first]
        _suggest(trial, self.spec["space"])

    def beat(self, trial: Any) -> bool:
        """Tells other machines that the trial is being worked on; whether it still is ours
        to work on."""
        trial.set_user_attr("beat", f"{self._token} {next(self._beats)}")
        return self.mine(trial)

    def mine(self, trial: Any) -> bool:
        now = self.state(trial)
        owner = now.user_attrs.get("worker", {})
        return owner.get("token") == self._token and not now.state.is_finished()

    def tell(
        self, trial: Any, how: str, value: float | None = None, reason: str = ""
    ) -> None:
        """Finishes a trial: "complete" with a value, "pruned", or "fail" with a reason.

        Raises:
          _Left: it is another worker's by now.
        """
        if not self.mine(trial):
            raise _Left
        trial.set_user_attr("run", str(self.run(trial.number)))
        if reason:
            trial.set_user_attr("reason", reason)
        state = _optuna().trial.TrialState[how.upper()]
        self.study.tell(trial, value, state, skip_if_finished=True)

    def state(self, trial: Any):
        return self.study.get_trials(deepcopy=False)[trial.number]


def _suggest(trial: Any, space: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A trial's values; what it has already, it keeps."""
    values = {}
    for key, at in space.items():
        if "texts" in at:
            values[key] = trial.suggest_categorical(key, at["texts"])
        elif all(isinstance(end, int) for end in (at["low"], at["high"])):
            step = {"log": True} if at["log"] else {"step": int(at["step"] or 1)}
            values[key] = trial.suggest_int(key, at["low"], at["high"], **step)
        else:
            step = {"log": True} if at["log"] else {"step": at["step"]}
            values[key] = trial.suggest_float(key, at["low"], at["high"], **step)
    return values


# --------------------------------------------------------------------------------- worker


@dataclasses.dataclass(frozen=True)
class Task:
    """What a worker is started with."""

    place: Place
    trials: int
    config: str
    cores: tuple[int, ...] = ()
    device: str = ""
    command: tuple[str, ...] = (sys.executable, "-m", "pose_jax", "train")
    times: Times = dataclasses.field(default_factory=Times)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Task:
        given = json.loads(text)
        kept = given["place"] | {"out": Path(given["place"]["out"])}
        return cls(
            place=Place(**kept),
            trials=given["trials"],
            config=given["config"],
            cores=tuple(given["cores"]),
            device=given["device"],
            command=tuple(given["command"]),
            times=Times(**given["times"]),
        )


RESTARTS = 2
"""So often a training that was killed, or stopped by somebody else, is started again."""

_TO_STOP = 600.0
"""Seconds that a training has to save its state."""


class _Left(Exception):
    """The trial is not this worker's to finish: it stays as it is."""


def work(
    task: Task,
    stop: StopRequest,
    finish: Callable[[Claims, Claim], None] | None = None,
) -> None:
    """Takes trials until all are done, or it is asked to stop.

    Args:
      task: the worker's.
      stop: asked between trials, and while one is trained.
      finish: brings a trial to its end, or raises _Left; None trains it.
    """
    study, spec = open_study(task.place)
    if task.cores:
        # JAX makes as many threads as there are cores that it may use.
        with contextlib.suppress(AttributeError, OSError):
            os.sched_setaffinity(0, task.cores)
    claims = Claims(study, spec, task.place, task.trials, task.times)
    while not stop.requested:
        claim = claims.next()
        if claim == "done":
            return
        if claim == "wait":
            time.sleep(task.times.poll)
            continue
        with claim.file, contextlib.suppress(_Left):
            if finish is not None:
                finish(claims, claim)
            else:
                _Training(claims, claim, task, stop).finish()


class _Training:
    """One trial, from wherever it is to its end."""

    def __init__(self, claims: Claims, claim: Claim, task: Task, stop: StopRequest):
        self.claims = claims
        self.claim = claim
        self.task = task
        self.trial = trial = claim.trial
        self.stop = stop
        self.spec = claims.spec
        self.run = claims.run(trial.number)
        self.reported = set(claims.state(trial).intermediate_values)
        self.log_size = -1
        self.last_beat = time.monotonic()

    def finish(self) -> None:
        """Trains, and says how it ended.

        Raises:
          _Left: it did not end here.
        """
        restarts = 0
        while True:
            if self.trial.user_attrs.get("pruned"):
                return self._tell("pruned")
            scores = _model_scores(self.run)
            if scores is not None:
                self._report()
                value = scores.get(self.spec["metric"])
                if not isinstance(value, int | float):
                    reason = f"the model has no score {self.spec['metric']!r}"
                    return self._tell("fail", reason=reason)
                return self._tell("complete", value)
            self._wait_for_others()
            code = self._train()
            if code is None or _model_scores(self.run) is not None:
                continue
            if code > 0:
                return self._tell("fail", reason=self._reason(code))
            restarts += 1
            if restarts > RESTARTS:
                how = (
                    f"killed by {signal.Signals(-code).name}"
                    if code
                    else "stopped without a model"
                )
                return self._tell("fail", reason=f"{how} {restarts} times")

    def _wait_for_others(self) -> None:
        """A training that was left by another worker ends before this one begins."""
        while (held := _lock(self.run / "lock")) is None:
            self._go_on()
            time.sleep(self.task.times.poll)
        held.close()

    def _go_on(self) -> None:
        """Raises _Left where it is not ours to go on."""
        if self.stop.requested:
            raise _Left
        if time.monotonic() - self.last_beat >= self.task.times.beat:
            self.last_beat = time.monotonic()
            if not self.claims.beat(self.trial):
                raise _Left

    def _train(self) -> int | None:
        """Starts or resumes the training and watches it; its exit code, None if it was
        pruned."""
        overrides = words(_suggest(self.trial, self.spec["space"]))
        command = [
            *self.task.command, "--config", self.task.config,
            "--run", str(self.run), *self.spec["overrides"], *overrides,
        ]  # fmt: skip
        env = dict(os.environ)
        if self.task.device:
            env["CUDA_VISIBLE_DEVICES"] = self.task.device
        with open(self.run / "output.txt", "ab") as output:
            # The lock is the training's too: whoever finds the trial waits for both to end.
            # A group of its own: Ctrl-C is for the parent. Not a session, which Linux would
            # give a share of the processor that has nothing to do with ours.
            process = subprocess.Popen(
                _bound(command), stdout=output, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, env=env, process_group=0,
                pass_fds=[self.claim.file.fileno()],
            )  # fmt: skip
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(self.task.times.poll)
                done = process.poll() is not None
                news = self._report()
                if done:
                    return process.returncode
                self._go_on()
                if news and self.spec["pruner"] != "none" and self.trial.should_prune():
                    self.trial.set_user_attr("pruned", True)
                    return None
        finally:
            _end(process)

    def _report(self) -> bool:
        """Tells Optuna of the evaluations that are new in the log; whether any are."""
        log = self.run / "metrics.jsonl"
        size = log.stat().st_size if log.exists() else -1
        if size == self.log_size:
            return False
        self.log_size, before = size, len(self.reported)
        for step, value in curve(self.run, self.spec["metric"]):
            if step not in self.reported:
                self.reported.add(step)
                self.trial.report(value, step)
        return len(self.reported) > before

    def _reason(self, code: int) -> str:
        """What the training said last, in a line."""
        text = (self.run / "output.txt").read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        said = [line for line in lines if line.startswith("pose-jax: error: ")]
        last = (said or lines or ["it said nothing"])[-1]
        return f"exit code {code}: {last.removeprefix('pose-jax: error: ')}"

    def _tell(self, how: str, value: float | None = None, reason: str = "") -> None:
        self.claims.tell(self.trial, how, value, reason)


def curve(run: Path, metric: str) -> list[tuple[int, float]]:
    """A metric of a run's evaluations over its batches, counted through all phases."""
    from pose_jax import writers

    found: dict[int, float] = {}
    before, phase, last = 0, None, 0
    for entry in writers.read_metrics(run):
        if entry["phase"] != phase:
            before, phase, last = before + last, entry["phase"], 0
        last = max(last, entry["step"])
        value = entry.get(metric)
        if isinstance(value, int | float):
            found[before + entry["step"]] = float(value)
    return sorted(found.items())


def _model_scores(run: Path) -> dict[str, Any] | None:
    """The scores of a finished training."""
    try:
        text = (run / "model" / "manifest.json").read_text(encoding="utf-8")
        return json.loads(text).get("scores") or {}
    except (OSError, ValueError):
        return None


def _end(process: subprocess.Popen) -> int:
    """Lets a training save its state and end."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


_LAUNCH = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit(143)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def _bound(command: Sequence[str]) -> list[str]:
    """A command that gets SIGTERM when this process dies, however that dies, on Linux."""
    if not sys.platform.startswith("linux"):
        return list(command)
    # Not by preexec_fn: JAX's threads do not outlive the fork that it needs.
    return [sys.executable, "-c", _LAUNCH, str(os.getpid()), *command]


# ------------------------------------------------------------------- the network read out


class _Readouts:
    """A trained network, measured in other ways; nothing is trained."""

    def __init__(self, run: str, boxes: str):
        from pose_jax import runs
        from pose_jax import sharding as sharding_lib

        self.loaded = runs.load(run)
        self.table = self.loaded.eval_table(boxes=boxes)
        self.mesh = sharding_lib.make_mesh()
        # Poses of a method: what comes after them is cheap.
        self.known: dict[str, Any] = {}

    def method(self, point: Mapping[str, Any]):
        """The method and the evaluation that a point of the space asks for.

        Raises:
          ConfigError: it cannot be.
        """
        from pose_jax import evaluate, methods

        section = dict(self.loaded.manifest["method"])
        evaluation = dict(self.loaded.manifest.get("evaluation") or {})
        for key, value in point.items():
            part, _, name = key.partition(".")
            {"method": section, "evaluation": evaluation}[part][name] = value
        return (
            methods.build(section, self.loaded.keypoints),
            config_lib.build(evaluate.EvaluationConfig, evaluation, "evaluation"),
            json.dumps(section, sort_keys=True, default=str),
        )

    def measure(self, point: Mapping[str, Any]) -> dict[str, float]:
        """Metrics by full name."""
        from pose_jax import evaluate, measures

        method, evaluation, name = self.method(point)
        if name not in self.known:
            predictor = evaluate.Predictor(method, self.mesh)
            self.known[name] = predictor(
                self.loaded.variables, self.table, self.loaded.input
            )
        poses = evaluate.suppress(self.table, self.known[name], evaluation)
        return measures.measure(self.table, poses)


def _measured(sweep: Sweep, readouts: _Readouts) -> Callable[[Claims, Claim], None]:
    """Finishes trials by reading out the network."""

    def finish(claims: Claims, claim: Claim) -> None:
        drawn = _suggest(claim.trial, claims.spec["space"])
        point = {key: _value(sweep.space[key], value) for key, value in drawn.items()}
        try:
            metrics = readouts.measure(point)
        except InputError as error:
            return claims.tell(claim.trial, "fail", reason=str(error))
        value = metrics[claims.spec["metric"]]
        if value != value:
            return claims.tell(claim.trial, "fail", reason="the metric is not a number")
        claim.trial.report(value, 1)
        claim.trial.set_user_attr("metrics", metrics)
        claims.tell(claim.trial, "complete", value)

    return finish


def _value(values: Choice | Range, drawn: Any) -> Any:
    """A drawn value as the sweep file has it."""
    if isinstance(values, Range):
        return drawn
    return next(value for value in values.values if _text(value) == drawn)


# -------------------------------------------------------------------------------- the study


def run(
    sweep_file: str,
    study: str,
    *,
    config: str | None = None,
    overrides: Sequence[str] = (),
    eval_only: str | None = None,
    boxes: str = "gt",
    trials: int | None = None,
    workers: int = 1,
    name: str | None = None,
    out: Path | str | None = None,
    command: Sequence[str] | None = None,
    times: Times | None = None,
    stream: TextIO | None = None,
) -> dict[str, int]:
    """Runs a study to its end, or goes on with it.

    Args:
      sweep_file: the python file of the sweep.
      study: a folder, or the URL of an Optuna storage.
      config: the config file of the trainings.
      overrides: of the config, in all trials.
      eval_only: instead of a config: a trained run that is read out in other ways.
      boxes: of `eval_only`: "gt", or a COCO detections json.
      trials: of the whole study; None for all points of a grid.
      workers: so many trainings at once.
      name, out: of a study in a storage; see `place`.
      command: in the place of `pose-jax train`.
      times: see Times.
      stream: where progress is told; None: standard output.

    Returns:
      How many trials are "complete", "pruned", "fail" and "running".

    Raises:
      ConfigError: the sweep, the config or the options are wrong; nothing has started.
      InputError: data or storage cannot be used, or workers died and left trials.
      Stopped: by a signal; trainings have saved their state.
    """
    sweep = load(sweep_file)
    where = place(study, name, out)
    if (config is None) == (eval_only is None):
        raise ConfigError("give either --config or --eval-only RUN.")
    if workers < 1:
        raise ConfigError(f"--workers must be at least 1; got {workers}.")
    size = sweep.size()
    if trials is None and size is None:
        raise ConfigError("say by --trials how many: the space is not a grid.")
    trials = min(n for n in (trials, size) if n is not None)
    if trials < 1:
        raise ConfigError(f"--trials must be at least 1; got {trials}.")
    _optuna()
    times = times or Times()
    if eval_only is not None:
        if overrides or workers > 1:
            raise ConfigError("--eval-only takes no overrides and one worker.")
        spec, readouts = check_evaluated(sweep_file, sweep, eval_only, boxes)
        shares, finish = [((), "")], _measured(sweep, readouts)
    else:
        assert config is not None
        shares = _shares(workers)
        spec, finish = check(sweep_file, sweep, config, overrides), None
    opened, _ = open_study(where, spec)
    tasks = [
        Task(
            place=where,
            trials=trials,
            config=config or "",
            cores=cores,
            device=device,
            times=times,
            **({} if command is None else {"command": tuple(command)}),
        )
        for cores, device in shares
    ]
    with StopRequest() as stop, _Watch(opened, where, trials, stream) as watch:
        if finish is not None:

            def and_tell(claims: Claims, claim: Claim) -> None:
                finish(claims, claim)
                watch.look()

            work(tasks[0], stop, and_tell)
        else:
            _workers(tasks, stop, watch)
        counts = watch.look()
    at = where.storage or where.out
    if stop.requested:
        raise Stopped(
            f"stopped by {stop.name}: {counts['running']} trials are unfinished, their "
            "state is saved; the same command goes on with the study.",
            stop.exit_code,
        )
    if watch.died and counts["running"]:
        raise InputError(
            f"{at}: {counts['running']} trials are unfinished, {watch.died}; the same "
            "command goes on with the study."
        )
    if not counts["complete"] and not counts["running"]:
        raise InputError(f"{at}: no trial was completed; {watch.last_reason}.")
    return counts


def _shares(workers: int) -> list[tuple[tuple[int, ...], str]]:
    """Cores and GPU of each worker: cores are parted, each GPU is one worker's."""
    devices = _devices()
    if devices and workers > len(devices):
        raise ConfigError(
            f"{workers} workers and {len(devices)} GPUs: each worker needs one of its "
            "own; set JAX_PLATFORMS=cpu to train on the CPU."
        )
    shares: list[tuple[int, ...]] = [()] * workers
    if workers > 1 and hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if workers > len(cores):
            shares = [(cores[i % len(cores)],) for i in range(workers)]
        else:
            cuts = [len(cores) * i // workers for i in range(workers + 1)]
            shares = [tuple(cores[a:b]) for a, b in itertools.pairwise(cuts)]
    return [(cores, devices[i] if devices else "") for i, cores in enumerate(shares)]


def _devices() -> list[str]:
    """What CUDA_VISIBLE_DEVICES can name, without a look by JAX, which would take them."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip()]
    try:
        answer = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found = [line for line in answer.splitlines() if line.startswith("GPU ")]
    return [str(i) for i in range(len(found))]


def _workers(tasks: Sequence[Task], stop: StopRequest, watch: _Watch) -> None:
    """Starts a process a task and watches them to their ends."""
    processes: dict[int, subprocess.Popen] = {}
    out = tasks[0].place.out
    try:
        for number, task in enumerate(tasks):
            with open(out / f"worker_{number}.log", "ab") as log:
                processes[number] = subprocess.Popen(
                    _bound([sys.executable, "-m", "pose_jax.sweep", task.to_json()]),
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    process_group=0,
                )  # fmt: skip
        while processes and not stop.requested:
            time.sleep(tasks[0].times.poll)
            watch.look()
            for number, process in list(processes.items()):
                if process.poll() is not None:
                    del processes[number]
                    if process.returncode:
                        watch.mourn(number, process.returncode, out)
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()


class _Watch:
    """How far a study is: a line a trial, and a bar on a terminal."""

    def __init__(self, study: Any, where: Place, trials: int, stream: TextIO | None):
        self.study = study
        self.trials = trials
        self.stream = stream or sys.stdout
        self.died = ""
        self.last_reason = "none was started"
        self._told: set[int] = set()
        self._bar = None
        done = [t for t in self._all() if t.state.is_finished()]
        self._told = {t.number for t in done}
        self._say(
            f"study {where.storage or where.out}: {len(done)} of {trials} trials are done"
        )
        if self.stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=trials, initial=len(done), file=self.stream, dynamic_ncols=True,
                bar_format="trials {n_fmt}/{total_fmt} {bar:20}{desc}",
            )  # fmt: skip

    def _all(self) -> list[Any]:
        return self.study.get_trials(deepcopy=False)[: self.trials]

    def look(self) -> dict[str, int]:
        """Tells of trials that have finished since; counts all by their state."""
        trials = self._all()
        for trial in trials:
            if trial.state.is_finished() and trial.number not in self._told:
                self._told.add(trial.number)
                self._say(self._line(trial))
        counts = dict.fromkeys(("complete", "pruned", "fail", "running"), 0)
        for trial in trials:
            counts[trial.state.name.lower()] += 1
        failed = [t for t in trials if "reason" in t.user_attrs]
        if failed:
            last = failed[-1]
            self.last_reason = f"trial {last.number}: {last.user_attrs['reason']}"
        if self._bar is not None:
            self._bar.set_description_str(f"  {counts['running']} running", False)
            self._bar.update(len(self._told) - self._bar.n)
        return counts

    def _line(self, trial: Any) -> str:
        spec = self.study.user_attrs["sweep"]
        how = trial.state.name.lower()
        if how == "complete":
            how = f"{spec['metric']} {trial.value:.4g}"
        elif how == "pruned" and trial.last_step is not None:
            at = trial.intermediate_values[trial.last_step]
            how = f"pruned at batch {trial.last_step}, {spec['metric']} {at:.4g}"
        elif how == "fail":
            how = f"failed: {trial.user_attrs.get('reason', 'no reason is known')}"
        point = " ".join(f"{key}={_shown(v)}" for key, v in trial.params.items())
        minutes, seconds = divmod(round(trial.duration.total_seconds()), 60)
        done = f"{len(self._told)}/{self.trials}"
        return f"trial {trial.number} ({done})  {how}  {point}  {minutes}:{seconds:02}"

    def mourn(self, number: int, code: int, out: Path) -> None:
        """Says that a worker has died."""
        how = f"exit code {code}"
        if code < 0:
            how = signal.Signals(-code).name
        self.died = f"worker {number} died ({how}; {out / f'worker_{number}.log'})"
        self._say(self.died)

    def _say(self, text: str) -> None:
        if self._bar is None:
            print(text, file=self.stream, flush=True)
        else:
            self._bar.write(text, file=self.stream)

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.refresh()
            self._bar.close()


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(argv: Sequence[str]) -> int:
    """A worker, started by `run`."""
    with StopRequest() as stop:
        work(Task.from_json(argv[0]), stop)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
