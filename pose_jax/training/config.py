"""A config file made real: its sections, the data they name, the method they build."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from pose_jax import config as config_lib
from pose_jax import data as data_lib
from pose_jax import methods
from pose_jax.data import readers
from pose_jax.data.table import Table
from pose_jax.errors import ConfigError
from pose_jax.evaluation import evaluate
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
    input: readers.InputConfig
    optimizer: optim.OptimizerConfig
    train: TrainConfig
    phases: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    evaluation: evaluate.EvaluationConfig = dataclasses.field(
        default_factory=evaluate.EvaluationConfig
    )
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Setup:
    """A config made real, before any weight exists."""

    config: Config
    method: Method
    train_table: Table
    eval_table: Table
    sections: dict[str, tuple[optim.OptimizerConfig, TrainConfig]]

    def train_plan(self) -> readers.Plan:
        """The order of the training rows, for this process."""
        return readers.Plan(
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
        extra = sorted(set(own) - {"optimizer", "train"})
        if extra:
            raise ConfigError(
                f"config.phases.{name}.{extra[0]}: a phase has 'optimizer' and 'train'."
            )
        sections[name] = tuple(
            config_lib.build(
                cls,
                {**dict(config[section]), **dict(own.get(section, {}))},
                f"config.{section}",
            )
            for cls, section in (
                (optim.OptimizerConfig, "optimizer"),
                (TrainConfig, "train"),
            )
        )
    return Setup(built, method, train_table, eval_table, sections)
