"""Config resolution: sections, data sets, method."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import jax

from pose_jax import config as config_lib
from pose_jax import data as data_lib
from pose_jax import methods
from pose_jax.data.plan import InputConfig, Plan
from pose_jax.data.table import Table
from pose_jax.errors import ConfigError
from pose_jax.evaluation.suppress import EvaluationConfig
from pose_jax.training import optim
from pose_jax.types import Method


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data sets for training and evaluation."""

    train: data_lib.SourceConfig
    eval: data_lib.SourceConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length, checkpoints and initialization of a phase. All lengths count batches.

    Attributes:
      steps: length of the phase.
      log_every_steps: interval of log lines.
      eval_every_steps: interval of evaluations; 0: only at the end.
      checkpoint_every_steps: interval of checkpoints; 0: none by steps. Every evaluation
        and the end of the phase have one too.
      checkpoint_every_minutes: maximum wall-clock time without a checkpoint; 0: no limit.
      keep_checkpoints: number of latest checkpoints to keep, in addition to the best one.
      best_metric: evaluation metric that selects the best checkpoint, the highest or, of an
        error, the lowest; "": no best checkpoint is kept.
      patience: end the phase after this number of successive evaluations without an
        improvement of `best_metric` over all evaluations before them; 0: never. The
        learning rate still follows the schedule of the complete phase.
      keep: which weights of the phase are used: "last", or "best", those of the evaluation
        with the best `best_metric` (the later of equals). Note that "best" and `patience`
        select on the evaluation data.
      stop_metric: evaluation metric (higher is better) that every phase has to improve over
        the previous phase. The first phase that does not is not part of the model and ends
        the training; DeepPose chooses its number of stages like this. "": all phases are
        trained and kept. Note that this selects the model on the evaluation data.
      resume_from: a run whose last state (with optimizer state and step) is resumed in
        this run directory with this config; "" for none.
      init_from: a run whose RUN/model provides the initial weights; "" for none.
      init_skip: patterns of parameters that are not loaded from `init_from`.
      init_map: where the keypoint set is not that of `init_from`: keypoints to those of
        `init_from` whose channels of the head initialize them; the mean of several; "" for
        a random initialization. Keypoints that it does not name are matched by name; those
        without a match are initialized randomly.

    A phase is initialized, in order of priority, from this run's checkpoint, `resume_from`,
    `init_from`, or randomly.
    """

    steps: int
    log_every_steps: int = 50
    eval_every_steps: int = 0
    checkpoint_every_steps: int = 0
    checkpoint_every_minutes: float = 10.0
    keep_checkpoints: int = 2
    best_metric: str = ""
    patience: int = 0
    keep: Literal["last", "best"] = "last"
    stop_metric: str = ""
    resume_from: str = ""
    init_from: str = ""
    init_skip: tuple[str, ...] = ()
    init_map: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.patience < 0:
            raise ValueError(f"patience must not be negative; got {self.patience}.")
        user = "patience" if self.patience else "keep='best'"
        for needed in ("best_metric", "eval_every_steps"):
            if (self.patience or self.keep == "best") and not getattr(self, needed):
                raise ValueError(f"{user} requires {needed}; set both.")


@dataclasses.dataclass(frozen=True)
class Config:
    """All sections of a config; `phases` overrides `optimizer` and `train` per phase."""

    method: Mapping[str, Any]
    data: DataConfig
    input: InputConfig
    optimizer: optim.OptimizerConfig
    train: TrainConfig
    phases: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    seed: int = 0


class Sections(NamedTuple):
    """The sections of one phase."""

    optimizer: optim.OptimizerConfig
    train: TrainConfig


@dataclasses.dataclass(frozen=True)
class Setup:
    """A resolved config, before weights are initialized; `sections` by phase."""

    config: Config
    method: Method
    train_table: Table
    eval_table: Table
    sections: dict[str, Sections]

    @functools.cached_property
    def plan(self) -> Plan:
        """The order of the training rows in this process."""
        return Plan(
            table=self.train_table,
            view=self.method.view,
            config=self.config.input,
            training=True,
            seed=self.config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )


def setup(config: Mapping[str, Any]) -> Setup:
    """Checks all sections, reads the annotation files and builds the method.

    Raises:
      ConfigError: an unknown key, a wrong type, a missing value.
      InputError: the data are missing or not usable.
    """
    built = config_lib.build(Config, config, "config")
    methods.parse(built.method)  # Before the data are read.
    train_table = data_lib.load(built.data.train)
    # A run has the keypoint set of its training data.
    eval_source = data_lib.inheriting(built.data.eval, built.data.train)
    eval_table = data_lib.load(eval_source, train_table.keypoints)
    method = methods.build(built.method, train_table.keypoints)
    same = train_table.keypoints == eval_table.keypoints
    if method.keypoints is not None and not same:
        sets = train_table.keypoints, eval_table.keypoints
        got = " and ".join(f"{each.name!r} ({len(each)})" for each in sets)
        why = (
            ""
            if sets[0].names != sets[1].names
            else (
                ", of the same names: leave out config.data.eval.options.keypoints, as the "
                "training data's is used"
            )
        )
        raise ConfigError(
            "config.data: training and evaluation data must have the same keypoint set; "
            f"got {got}{why}."
        )
    names = [phase.name for phase in method.phases]
    unknown = sorted(set(built.phases) - set(names))
    if unknown:
        raise ConfigError(
            f"config.phases.{unknown[0]}: no such phase; method {method.name!r} has "
            f"{', '.join(names)}."
        )
    sections = {}
    for name in names:
        own = built.phases.get(name, {})
        extra = sorted(set(own) - set(Sections._fields))
        if extra:
            raise ConfigError(
                f"config.phases.{name}.{extra[0]}: unknown key; a phase may have only "
                "'optimizer' and 'train'."
            )
        optimizer, train = (
            {**dict(config[section]), **dict(own.get(section, {}))}
            for section in Sections._fields
        )
        sections[name] = Sections(
            config_lib.build(optim.OptimizerConfig, optimizer, "config.optimizer"),
            config_lib.build(TrainConfig, train, "config.train"),
        )
    return Setup(built, method, train_table, eval_table, sections)


# ---------------------------------------------------------------------- effective values


class Absent(enum.Enum):
    """Placeholder for a missing value or default."""

    REQUIRED = "required"
    NONE = "–"
    UNKNOWN = "unknown key"


class Setting(NamedTuple):
    """An effective value of a config.

    Attributes:
      key: dotted key, e.g. "optimizer.lr".
      value: the effective value.
      default: the default value; an Absent if there is none.
    """

    key: str
    value: Any
    default: Any

    @property
    def changed(self) -> bool:
        """True if the value differs from the default; always true for required values."""
        value, default = (
            json.loads(json.dumps(each, default=str))  # Tuples are lists in JSON.
            for each in (self.value, self.default)
        )
        return value != default


def settings(config: Mapping[str, Any]) -> list[Setting]:
    """Lists all effective values of a run, in the order of the sections.

    Args:
      config: all sections, unchecked: unknown keys are listed as such and missing keys have
        their default, so that configs of other versions can be read.
    """
    return list(_settings(Config, config, "", Absent.REQUIRED))


def _settings(
    cls: type, section: Mapping[str, Any], prefix: str, standard: Any
) -> Iterator[Setting]:
    """Yields the values of a section; defaults are those of `cls` or of `standard`."""
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for name, field in fields.items():
        key, default = prefix + name, Absent.REQUIRED
        if not isinstance(standard, Absent):
            default = getattr(standard, name)
        elif field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        inner = _section_class(key, hints[name], section)
        if inner is not None and isinstance(section.get(name, {}), Mapping):
            yield from _settings(inner, section.get(name, {}), f"{key}.", default)
        elif isinstance(section.get(name), Mapping) and section[name]:
            for leaf, (_, value) in config_lib.differences(section[name], {}).items():
                yield Setting(f"{key}.{leaf}", value, Absent.NONE)
        else:
            unset = Absent.NONE if default is Absent.REQUIRED else default
            yield Setting(key, section.get(name, unset), default)
    for name in section:
        if name not in fields:
            yield Setting(prefix + name, section[name], Absent.UNKNOWN)


def _section_class(key: str, hint: Any, section: Mapping[str, Any]) -> type | None:
    """Returns the dataclass that declares a key, or None."""
    if key == "method":
        try:
            return methods.find(section.get(key, {}).get("name")).Config
        except ConfigError:
            return None
    arms = [hint, *typing.get_args(hint)]
    return next(
        (a for a in arms if isinstance(a, type) and dataclasses.is_dataclass(a)), None
    )
