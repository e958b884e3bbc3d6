"""Config resolution: the sections, the data they name, the method they build."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

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
    """What to train on and what to evaluate on."""

    train: data_lib.SourceConfig
    eval: data_lib.SourceConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Lengths count batches.

    Attributes:
      steps: of the phase.
      log_every_steps: between log lines.
      eval_every_steps: between evaluations; 0: only at the end.
      checkpoint_every_steps: between checkpoints; 0: only at the end.
      keep_checkpoints: the latest so many are kept, and the best.
      best_metric: which evaluation metric says "best"; "" keeps the latest alone.
      stop_metric: which evaluation metric, higher being better, every phase has to raise
        above that of the phase before; the first that does not is left out of the model
        and ends the training, as DeepPose chooses how many stages there are. "": all
        phases are trained and kept. Beware: the model is then chosen by the people it is
        evaluated on.
      resume_from: a run whose last state to go on from, with its optimiser and step, in a
        directory and with a config of one's own; "" for none.
      init_from: a run whose RUN/model gives the starting weights; "" for none.
      init_skip: parameters with one of these in their path are not taken from there.

    How a phase starts is the first of these that there is: this run's own checkpoint,
    `resume_from`, `init_from`, from scratch.
    """

    steps: int
    log_every_steps: int = 50
    eval_every_steps: int = 0
    checkpoint_every_steps: int = 0
    keep_checkpoints: int = 2
    best_metric: str = ""
    stop_metric: str = ""
    resume_from: str = ""
    init_from: str = ""
    init_skip: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Config:
    """All sections. `phases` overrides `optimizer` and `train` by phase name."""

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
    """A resolved config, before any weight exists; `sections` by phase."""

    config: Config
    method: Method
    train_table: Table
    eval_table: Table
    sections: dict[str, Sections]

    @functools.cached_property
    def plan(self) -> Plan:
        """The order of the training rows, for this process."""
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
    """Checks every section, reads the annotation files, builds the method.

    Raises:
      ConfigError: a key nobody reads, a wrong type, a missing value.
      InputError: the data are not there or not usable.
    """
    built = config_lib.build(Config, config, "config")
    methods.parse(built.method)  # Before the data are read.
    train_table = data_lib.load(built.data.train)
    eval_table = data_lib.load(built.data.eval)
    method = methods.build(built.method, train_table.keypoints)
    same = train_table.keypoints == eval_table.keypoints
    if method.keypoints is not None and not same:
        raise ConfigError(
            f"config.data: training labels are {train_table.keypoints.name!r}, evaluation "
            f"labels {eval_table.keypoints.name!r}; both must be the same set."
        )
    names = [phase.name for phase in method.phases]
    unknown = sorted(set(built.phases) - set(names))
    if unknown:
        raise ConfigError(
            f"config.phases.{unknown[0]}: method {method.name!r} has the phases {names}."
        )
    sections = {}
    for name in names:
        own = built.phases.get(name, {})
        extra = sorted(set(own) - set(Sections._fields))
        if extra:
            raise ConfigError(
                f"config.phases.{name}.{extra[0]}: a phase has 'optimizer' and 'train'."
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


# ----------------------------------------------------------------- every value in force


class Absent(enum.Enum):
    """Stands for a value that is not there, in words."""

    REQUIRED = "required"
    NONE = "–"
    UNKNOWN = "unknown key"


class Setting(NamedTuple):
    """One value of a config.

    Attributes:
      key: "optimizer.lr".
      value: in force.
      default: what it would be without the config; an Absent where there is none.
    """

    key: str
    value: Any
    default: Any

    @property
    def changed(self) -> bool:
        """Whether the value is not the default; a required one has none."""
        value, default = (
            json.loads(json.dumps(each, default=str))  # Tuples are lists in JSON.
            for each in (self.value, self.default)
        )
        return value != default


def settings(config: Mapping[str, Any]) -> list[Setting]:
    """Every value that a run goes by, in the order of the sections.

    Args:
      config: all sections. It is not checked: keys that are unknown are listed as such, and
        those that are missing have the default, so that the config of a run of another
        version can be read.
    """
    return list(_settings(Config, config, "", Absent.REQUIRED))


def _settings(
    cls: type, section: Mapping[str, Any], prefix: str, standard: Any
) -> Iterator[Setting]:
    """Of one section, whose defaults are those of its class or of `standard`."""
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
    """The dataclass that reads a key, if one does."""
    if key == "method":
        try:
            return methods.find(section.get(key, {}).get("name")).Config
        except ConfigError:
            return None
    arms = [hint, *typing.get_args(hint)]
    return next(
        (a for a in arms if isinstance(a, type) and dataclasses.is_dataclass(a)), None
    )
