"""Where a study is kept, what it draws, and who has which of its trials.

Optuna keeps the trials: in a journal in the study's folder, or in a storage that has a
URL. A trial is unfinished as long as Optuna says "running", and belongs to who holds it:

* On one machine, a lock on OUT/trials/0007/claim, which worker and training hold together
  and which ends with both of them.
* Between machines, a beat that the owner writes into Optuna's storage: an owner whose beat
  has stood still for `Times.lost` is lost. Nobody's clock is compared with another's. One
  that comes back reads in its next beat that it was succeeded, and stops.

Whoever finds a trial unfinished and not held goes on with it from its own checkpoint.
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
from pose_jax.errors import ConfigError, InputError, one_line


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


def load_optuna():
    try:
        import optuna
    except ImportError:
        raise InputError(
            "sweeps need optuna, which is not installed: pip install 'pose_jax[sweep]'."
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
        raise InputError(f"{url or where.out}: {one_line(error)}") from error


def _journal(out: Path):
    """A journal whose lock dies with its process, and that a torn line does not end."""
    optuna = load_optuna()
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class Lock:  # As Optuna wants one; it has no name for the base in public.
        def acquire(self) -> bool:
            self._held = _wait_for(out / "journal.lock")
            _drop_torn_line(out / "journal.log")
            return True

        def release(self) -> None:
            self._held.close()

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


def lock(path: Path, *, wait: bool = False) -> TextIO | None:
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


def _wait_for(path: Path) -> TextIO:
    file = lock(path, wait=True)
    assert file is not None
    return file


def locks_work(folder: Path) -> bool:
    """Whether a file in the folder can be locked: not on Windows, not on all networks."""
    try:
        import fcntl

        with open(folder / "journal.lock", "a") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (ImportError, OSError) as error:
        return isinstance(error, BlockingIOError)
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
                return combinations[combination][list(grids).index(param_name)]
            if combination:  # Not by `study`: Hyperband shows a part of it.
                there = study_of().get_trials(deepcopy=False)
                return there[trial.number - combination].params[param_name]
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
    optuna = load_optuna()
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


class Left(Exception):
    """The trial is not this worker's to finish: it stays as it is."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A trial that is ours to work on, and the file whose lock says so."""

    trial: Any
    file: TextIO


class Claims:
    """What one worker does about who has which trial; see the module's docstring."""

    def __init__(self, study: Any, spec, where: Place, trials: int, times: Times):
        self.study, self.spec, self.out = study, spec, where.out
        self.trials, self.times = trials, times
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
        with _wait_for(self.out / "asking.lock"):
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
        return load_optuna().trial.Trial(self.study, frozen._trial_id)

    def _hold(self, number: int) -> TextIO | None:
        self.run(number).mkdir(parents=True, exist_ok=True)
        return lock(self.run(number) / "claim")

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
                    suggest(self._trial(frozen), self.spec["space"])
                time.sleep(min(self.times.poll, 0.2))
                frozen = self.study.get_trials(deepcopy=False)[first]
        suggest(trial, self.spec["space"])

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
          Left: it is another worker's by now.
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
    """A trial's values; what it has already, it keeps."""
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
