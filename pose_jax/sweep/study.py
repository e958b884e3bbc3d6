"""Storage of a study, sampling of its trials, and ownership of the trials by workers.

Optuna stores the trials in a journal in the study folder, or in a storage with a URL. A
trial is unfinished while its Optuna state is "running". Its owner is determined by

* a lock on OUT/trials/0007/claim, on one machine. It is held by worker and training and
  released when both have ended.
* a heartbeat in Optuna's storage, between machines. An owner is considered lost if its
  heartbeat does not change for `Times.lost`; clocks of machines are not compared. An owner
  that was replaced detects this at its next heartbeat, and stops.

A worker resumes unfinished trials without an owner from their checkpoints.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import socket
import time
import uuid
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TextIO

from pose_jax import config as config_lib
from pose_jax import writing
from pose_jax.errors import ConfigError, InputError, one_line


@dataclasses.dataclass(frozen=True)
class Times:
    """Intervals and timeouts in seconds.

    Attributes:
      poll: interval of checks of a training and its log.
      beat: interval of heartbeats for other machines.
      lost: time without heartbeat after which an owner on another machine is lost.
      settle: wait after taking over a trial from another machine, to detect that another
        worker took it over at the same time.
    """

    poll: float = 1.0
    beat: float = 60.0
    lost: float = 300.0
    settle: float = 5.0


@dataclasses.dataclass(frozen=True)
class Place:
    """The location of a study.

    Attributes:
      storage: "" for a journal in `out`, or an Optuna storage URL.
      name: name of the study in the storage.
      out: folder of the run directories of the trials.
    """

    storage: str
    name: str
    out: Path


def place(study: str, name: str | None = None, out: Path | str | None = None) -> Place:
    """Parses --study: a folder, or a storage URL.

    Raises:
      ConfigError: a URL without a name, or a folder with a name or `out`.
    """
    if "://" not in study:
        if name is not None or out is not None:
            raise ConfigError(
                "--name and --out are only used with a storage URL: omit them if --study "
                "is a folder."
            )
        return Place("", "sweep", Path(study))
    if name is None:
        raise ConfigError("--name is required with a storage URL, to select the study.")
    return Place(study, name, Path(out) if out is not None else Path("runs") / name)


def load_optuna():
    try:
        import optuna
    except ImportError:
        raise InputError(
            "sweeps require optuna, which is not installed: pip install 'pose_jax[sweep]'."
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _storage(where: Place):
    optuna = load_optuna()
    url = where.storage
    try:
        if not url:
            return _journal(where.out)
        if url.startswith("grpc://"):
            host, _, port = url.removeprefix("grpc://").rstrip("/").partition(":")
            with warnings.catch_warnings():
                # Optuna marks it as experimental.
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return optuna.storages.GrpcStorageProxy(
                    host=host, port=int(port or 13000)
                )
        if url.startswith("redis://"):
            from optuna.storages.journal import JournalRedisBackend

            return optuna.storages.JournalStorage(JournalRedisBackend(url))
        # SQLite writes block each other across processes.
        options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
        return optuna.storages.RDBStorage(url, engine_kwargs=options)
    except (ImportError, OSError, ValueError) as error:
        raise InputError(f"{url or where.out}: {one_line(error)}") from error


def _journal(out: Path):
    """Opens a journal with a lock that ends with its process; repairs truncated lines."""
    optuna = load_optuna()
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class Lock:  # Optuna's lock interface; its base class is not public.
        def acquire(self) -> bool:
            self._held = _wait_for(out / "journal.lock")
            _drop_truncated_line(out / "journal.log")
            return True

        def release(self) -> None:
            self._held.close()

    out.mkdir(parents=True, exist_ok=True)
    path = str(out / "journal.log")
    lock = Lock() if locks_work(out) else JournalFileOpenLock(path)
    backend = JournalFileBackend(path, lock_obj=lock)  # pyright: ignore[reportArgumentType]
    return optuna.storages.JournalStorage(backend)


def _drop_truncated_line(path: Path) -> None:
    """Removes the incomplete last line of a process that was killed while writing."""
    with open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        if not end:
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            start = max(0, end - 2**20)
            file.seek(start)
            file.truncate(start + file.read().rfind(b"\n") + 1)


def lock(path: Path, *, wait: bool = False) -> TextIO | None:
    """Locks a file and returns it open, or None if it is locked. The lock is held until it
    is closed here and in all children. Without lock support, locking always succeeds."""
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


def _wait_for(path: Path) -> TextIO:
    file = lock(path, wait=True)
    assert file is not None
    return file


def locks_work(folder: Path) -> bool:
    """Returns whether files in the folder can be locked (not on Windows and some NFS)."""
    try:
        import fcntl

        with open(folder / "journal.lock", "a") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (ImportError, OSError) as error:
        return isinstance(error, BlockingIOError)
    return True


def _machine() -> str:
    """Returns an id that is equal in all processes that share file locks."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = str(uuid.getnode())
    return f"{socket.gethostname()} {boot}"


def _sampler(optuna, spec: Mapping[str, Any], study_of: Callable[[], Any]):
    """Returns a sampler that determines a trial from its number: the grid values, and the
    other values once per combination of grids. Samples depend on seed, number, key and the
    previous trials, not on the worker."""
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
                return combinations[combination][list(grids).index(param_name)]
            if combination:  # Not from `study`: Hyperband passes a filtered one.
                trials = study_of().get_trials(deepcopy=False)
                return trials[trial.number - combination].params[param_name]
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
    """Opens a study with its sampler and pruner; returns it and its stored specification.

    Args:
      where: location of the study.
      spec: the result of `check`, to create a missing study. None: the study must exist.

    Raises:
      ConfigError: the study is of another sweep.
      InputError: the study does not exist, or the storage is not accessible.
    """
    optuna = load_optuna()
    at = where.storage or where.out
    if spec is None and not where.storage and not (where.out / "journal.log").exists():
        raise InputError(f"{at}: no study found.")
    storage = _storage(where)
    if spec is None:
        try:
            kept = optuna.load_study(study_name=where.name, storage=storage).user_attrs
        except KeyError:
            raise InputError(f"{at}: no study {where.name!r} found.") from None
        if "sweep" not in kept:
            raise InputError(f"{at}: study {where.name!r} is not a pose-jax sweep.")
        spec = dict(kept["sweep"])
    with writing.naming(where.out):
        study = optuna.create_study(
            study_name=where.name, storage=storage, direction=spec["direction"],
            load_if_exists=True, sampler=_sampler(optuna, spec, lambda: study),
            pruner=_pruner(optuna, spec),
        )  # fmt: skip
    # The storage keeps JSON, which has no tuples.
    spec = dict(json.loads(json.dumps(spec)))
    kept = study.user_attrs.get("sweep")
    if kept is None:
        study.set_user_attr("sweep", kept := spec)
    changed = [k for k in spec if k != "config" and kept.get(k) != spec[k]]
    if changed:
        if changed == ["base"]:
            differences = config_lib.differences(spec["base"], kept["base"])
            changed = [f"config.{key}" for key in differences]
        raise ConfigError(
            f"{at} has a study of another sweep, which differs in "
            f"{', '.join(changed[:3])}: give another --study"
            + (" or --name." if where.storage else ".")
        )
    return study, spec


class Left(Exception):
    """Raised when a trial is left unfinished by this worker."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A trial owned by this worker, and its locked file."""

    trial: Any
    file: TextIO


class Claims:
    """Ownership of trials from the view of one worker; see the docstring of the module."""

    def __init__(self, study: Any, spec, where: Place, trials: int, times: Times):
        self.study, self.spec, self.out = study, spec, where.out
        self.trials, self.times = trials, times
        self._token = uuid.uuid4().hex[:12]
        self.out.mkdir(parents=True, exist_ok=True)
        # Without file locks, only heartbeats tell about other workers.
        near = _machine() if locks_work(self.out) else self._token
        self._place = f"{near} {self.out.resolve()}"
        self._beat_of: dict[int, tuple[Any, float]] = {}
        self._alive: set[int] = set()
        self._beats = itertools.count()

    def run(self, number: int) -> Path:
        return self.out / "trials" / f"{number:04d}"

    def next(self) -> Claim | Literal["wait", "done"]:
        """Returns an unfinished trial without an owner, or a new one; its file must be
        closed at the end. "wait": other workers may still leave trials unfinished."""
        with _wait_for(self.out / "asking.lock"):
            claim = self._next()
        if isinstance(claim, Claim):
            self._draw(claim.trial)
        return claim

    def _next(self) -> Claim | Literal["wait", "done"]:
        trials = self.study.get_trials(deepcopy=False)
        pending = [t for t in trials[: self.trials] if not t.state.is_finished()]
        for frozen in pending:
            if file := self._take(frozen):
                return Claim(self._trial(frozen), file)
        if len(trials) < self.trials:
            new = self.study.ask()
            # Another machine may have asked at the same time: a trial beyond the limit
            # stays without an owner until --trials is increased.
            if new.number < self.trials:
                self._sign(new)
                file = self._hold(new.number)
                assert file is not None, f"trial {new.number} is new, but locked"
                return Claim(new, file)
            return "wait"
        return "wait" if {t.number for t in pending} - self._alive else "done"

    def _trial(self, frozen: Any):
        return load_optuna().trial.Trial(self.study, frozen._trial_id)

    def _hold(self, number: int) -> TextIO | None:
        self.run(number).mkdir(parents=True, exist_ok=True)
        return lock(self.run(number) / "claim")

    def _sign(self, trial: Any) -> None:
        owner = {"token": self._token, "place": self._place, "pid": os.getpid()}
        trial.set_user_attr("worker", {**owner, "host": socket.gethostname()})

    def _take(self, frozen: Any) -> TextIO | None:
        """Takes over an unfinished trial if its owner is lost."""
        owner = frozen.user_attrs.get("worker", {})
        sign = owner.get("token"), frozen.user_attrs.get("beat")
        before, since = self._beat_of.setdefault(
            frozen.number, (sign, time.monotonic())
        )
        near = owner.get("place") == self._place
        if sign != before:
            self._beat_of[frozen.number] = sign, time.monotonic()
            if not near:  # Its owner is alive and will finish it.
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
        """Samples the values that a trial does not have yet."""
        count = math.prod(
            len(at["texts"]) for at in self.spec["space"].values() if at.get("every")
        )
        first = trial.number - trial.number % count
        if first != trial.number:
            # Sampled by the worker of the first trial of the point, or here if it died.
            frozen = self.study.get_trials(deepcopy=False)[first]
            since = time.monotonic()
            while len(frozen.params) < len(self.spec["space"]):
                if time.monotonic() - since > self.times.settle:
                    suggest(self._trial(frozen), self.spec["space"])
                time.sleep(min(self.times.poll, 0.2))
                frozen = self.study.get_trials(deepcopy=False)[first]
        suggest(trial, self.spec["space"])

    def beat(self, trial: Any) -> bool:
        """Writes a heartbeat for other machines; returns whether the trial is still owned
        by this worker."""
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
          Left: the trial was taken over by another worker.
        """
        if not self.mine(trial):
            raise Left
        trial.set_user_attr("run", str(self.run(trial.number)))
        if reason:
            trial.set_user_attr("reason", reason)
        state = load_optuna().trial.TrialState[how.upper()]
        self.study.tell(trial, value, state, skip_if_finished=True)

    def state(self, trial: Any):
        return self.study.get_trials(deepcopy=False)[trial.number]


def suggest(trial: Any, space: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Samples the values of a trial; existing values are kept."""
    values = {}
    for key, at in space.items():
        if "texts" in at:
            values[key] = trial.suggest_categorical(key, at["texts"])
        else:
            whole = isinstance(at["low"], int) and isinstance(at["high"], int)
            draw = trial.suggest_int if whole else trial.suggest_float
            step = int(at["step"] or 1) if whole else at["step"]
            how = {"log": True} if at["log"] else {"step": step}
            values[key] = draw(key, at["low"], at["high"], **how)
    return values
