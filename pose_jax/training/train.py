"""The trainer: state, step, loop, phases, run.

Only this module handles optimizers, schedules, averaging, checkpoints and evaluation
intervals. It is independent of the method and works on phases, batches and scalars.

A run is a function of its config: the order of rows and all random numbers depend only on
(seed, phase, epoch, row), so that a resumed run ends with the same weights as an
uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from pose_jax import evaluation as evaluation_lib
from pose_jax import sharding as sharding_lib
from pose_jax import writing
from pose_jax.data import readers
from pose_jax.data.plan import Plan
from pose_jax.errors import (
    ConfigError,
    InputError,
    Stopped,
    did_you_mean,
)
from pose_jax.evaluation import pictures, text
from pose_jax.evaluation.evaluate import Evaluation, evaluate
from pose_jax.evaluation.predictor import Predictor
from pose_jax.runs import directory as run_directory
from pose_jax.runs import heads, log, states
from pose_jax.runs import model as model_lib
from pose_jax.training import interrupts, optim, preview
from pose_jax.training import keys as keys_lib
from pose_jax.training.config import Setup, TrainConfig, setup
from pose_jax.training.saves import DivergedError, Saves, all_finite, due
from pose_jax.trees import first
from pose_jax.types import Mean, Phase, Variables

# ------------------------------------------------------------------------ state and step


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Training state, arrays only; `ema` is {"params", "batch_stats"}, or {} if unused."""

    step: jax.Array
    params: Any
    batch_stats: Any
    constants: Any
    opt_state: Any
    ema: Any

    def weights(self) -> dict[str, Any]:
        """Returns the weights for evaluation and for the model, averaged if configured."""
        own = {"params": self.params, "batch_stats": self.batch_stats}
        return {**own, **self.ema, "constants": self.constants}


def create_state(variables: Mapping[str, Any], tx, *, averaging: bool) -> TrainState:
    """Creates the state before the first step; the average starts as a copy."""
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    average = {"params": params, "batch_stats": batch_stats} if averaging else {}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        constants=variables.get("constants", {}),
        opt_state=tx.init(params),
        ema=optim.ema_start(average),
    )


def make_train_step(phase: Phase, tx, optimizer: optim.OptimizerConfig):
    """Returns (state, weights of earlier phases, batch, key) -> (state, Means by name)."""

    def loss_of(params, *inputs):
        # No backward pass through layers below which all parameters are frozen.
        return phase.loss(optim.without_gradient(params, optimizer.freeze), *inputs)

    def train_step(state: TrainState, earlier: Variables, batch, key):
        variables = {**earlier, phase.name: {"constants": state.constants}}
        example = phase.prepare(variables, batch, keys_lib.augment_key(key))
        model_state = {"batch_stats": state.batch_stats}
        grad_fn = jax.value_and_grad(loss_of, has_aux=True)
        (loss, (model_state, sums)), grads = grad_fn(
            state.params,
            model_state,
            example,
            jax.random.fold_in(jax.random.fold_in(key, 1), state.step),
        )
        params, opt_state = optim.apply(tx, grads, state.opt_state, state.params)
        new = dataclasses.replace(
            state,
            step=state.step + 1,
            params=params,
            batch_stats=model_state["batch_stats"],
            opt_state=opt_state,
        )
        if state.ema:
            now = {"params": new.params, "batch_stats": new.batch_stats}
            decay = optim.ema_decay(optimizer, state.step)
            new = dataclasses.replace(new, ema=optim.ema_update(state.ema, now, decay))
        return new, {"total": loss, **sums}

    return train_step


# ------------------------------------------------------------------------------ the loop


class _Window:
    """Sums and times since the last log line."""

    def __init__(self) -> None:
        self.sums: dict[str, Mean] = {}
        self.images = 0
        self.waiting = self.away = 0.0
        self.start = time.perf_counter()

    def add(self, sums: Mapping[str, Mean], images: int) -> None:
        for name, mean in sums.items():
            self.sums[name] = self.sums[name] + mean if name in self.sums else mean
        self.images += images

    def scalars(self) -> dict[str, float]:
        busy = max(time.perf_counter() - self.start - self.away, 1e-9)
        means = {name: mean.compute() for name, mean in self.sums.items()}
        return {
            **means,
            "images_per_second": self.images / busy,
            "input_bound_percent": 100 * self.waiting / busy,
        }


def _shown(scalars: Mapping[str, float]) -> dict[str, Any]:
    """Formats the scalars of a log line."""
    names = {"images_per_second": "images/s", "input_bound_percent": "input-bound"}
    shown = {names.get(name, name): value for name, value in scalars.items()}
    return shown | {"input-bound": f"{shown['input-bound']:.0f}%"}


class Trainer:
    """Trains all phases of a config.

    Attributes:
      setup: the resolved config.
      config: the original config.
      run: the run directory.
      mesh: the mesh of devices.
      stop: stop request by a signal.
      writer: metric writer.
      predictor: predictor used for evaluations.
      variables: the weights of the finished phases.
    """

    def __init__(self, setup: Setup, config, run: Path, devices, stop) -> None:
        self.setup, self.config, self.run, self.stop = setup, config, run, stop
        self.mesh = sharding_lib.make_mesh(devices)
        self.writer = log.MetricWriter(run)
        self.predictor = Predictor(setup.method, self.mesh)
        self.variables: dict[str, Any] = {}

    def train(self) -> dict[str, float]:
        """Trains all phases, then writes the model and its pictures."""
        s = self.setup
        print(
            f"{s.method.name} on {sharding_lib.device_summary(self.mesh)}: "
            f"{len(s.plan.rows)} {s.plan.kind.words} of {s.train_table.name}, evaluated on "
            f"{s.eval_table.name}; run {self.run}"
        )
        _check_metric_names(s)
        _check_data(s)
        model_lib.write_manifest(
            self.run, config=self.config, method=s.method, train_table=s.train_table
        )
        evaluation = reached = None
        for number, phase in enumerate(s.method.phases):
            keys = keys_lib.phase_keys(s.config.seed, number)
            weights, metrics, last = self.phase(phase, keys)
            if name := s.sections[phase.name].train.stop_metric:
                before, reached = reached, metrics[name]
                if before is not None and reached <= before:
                    print(
                        f"Stopping: phase {phase.name!r} did not improve {name} "
                        f"({reached:.4g}, was {before:.4g}); it is not part of the saved "
                        "model."
                    )
                    break
            self.variables[phase.name], evaluation = weights, last
        if evaluation is None:  # By an earlier process, or the best is not the last.
            evaluation = self.evaluate(self.variables)
        model_lib.write_model(
            self.run,
            config=self.config,
            method=s.method,
            train_table=s.train_table,
            variables=self.variables,
            scores=evaluation.metrics,
        )
        pictures.draw_run(
            self.run, s.method, evaluation, self.variables, s.config.input
        )
        self.writer.close()
        print(f"model: {self.run / 'model'}   pictures: {self.run / 'pictures'}")
        return evaluation.metrics

    def evaluate(self, variables: Variables, **options) -> Evaluation:
        """Evaluates weights; `options` are passed to `evaluate.evaluate`."""
        s = self.setup
        return evaluate(
            self.predictor, variables, s.eval_table, s.config.input,
            s.config.evaluation, **options,
        )  # fmt: skip

    def phase(
        self, phase: Phase, keys
    ) -> tuple[dict[str, Any], dict[str, float], Evaluation | None]:
        """Trains or resumes one phase.

        Returns:
          Its weights (`TrainConfig.keep`), the metrics of their evaluation, and that
          evaluation (None if it was made by an earlier process, or is not the last).
        """
        train = self.setup.sections[phase.name].train
        with states.Checkpoints(
            self.run / "checkpoints" / phase.name,
            keep_latest=train.keep_checkpoints,
            **_best(train),
        ) as store:  # The context manager completes pending writes on exceptions too.
            state, step_fn, schedule = self.start(phase, store, keys)
            step = int(state.step)
            evaluated = step == 0 or store.metrics(step) is not None
            self.writer.resume(phase.name, step, evaluated=evaluated)
            state, evaluation = self.loop(
                phase, state, step_fn, schedule, store, keys[1]
            )
            step, best = int(state.step), store.best_step()
            if train.keep == "best" and best not in (None, step):
                restored = store.restore(state, best)
                state = sharding_lib.put_replicated(restored, self.mesh)
                evaluation, step = None, best
            metrics = store.metrics(step, {})
        if train.keep == "best":
            value = (
                f"{train.best_metric} {metrics.get(train.best_metric, math.nan):.4g}"
            )
            print(
                f"phase {phase.name!r}: the weights of step {step} are kept ({value})"
            )
        return state.weights(), metrics, evaluation

    def loop(
        self, phase: Phase, state: TrainState, step_fn, schedule, store, key
    ) -> tuple[TrainState, Evaluation | None]:
        """Runs one phase from `state` to its last step.

        Returns:
          The final state, and the last evaluation made here, or None.

        Raises:
          Stopped: stopped by a signal; the state is saved.
          Exception: any error; the state of the last finished step is saved, unless the
            training has diverged.
        """
        train = self.setup.sections[phase.name].train
        start = int(state.step)
        batches = readers.batches(self.setup.plan, start, train.steps)
        log_lines = _Log(self, phase, schedule, start)
        sections = self.setup.sections[phase.name]
        saves = Saves(self.run, phase.name, sections, store, log_lines, start)
        evaluation, ended = None, _ended(train, store)
        # The order of each iteration is fixed: save the state after `step` steps, evaluate
        # it, then fetch, then step, so that a resumed run neither repeats nor skips a
        # batch. A run that was stopped during an evaluation starts with that evaluation.
        missed = start > 0 and store.metrics(start) is None
        for step in range(start, train.steps + 1):
            asked = sharding_lib.agreed(self.stop.requested, step)
            evaluated = due(step, train.eval_every_steps, train.steps) and (
                step > start or missed
            )
            with saves.on_error(state):
                # Never saved twice: a failure while replacing one could lose it.
                if step > start and (evaluated or asked or saves.due(step)):
                    saves.save(step, state)
                if evaluated and not asked:
                    away = time.perf_counter()
                    evaluation = self._evaluate_step(
                        phase, state, step, store, log_lines.progress
                    )
                    asked, ended = evaluation is None, _ended(train, store)
                    log_lines.window.away += time.perf_counter() - away
                if asked:
                    log_lines.progress.close()
                    raise self._stopped(phase, step, store)
                if step == train.steps or ended:
                    break
                fetch = time.perf_counter()
                batch = next(batches)
                device_batch = sharding_lib.put_batch(batch, self.mesh)
                log_lines.window.waiting += time.perf_counter() - fetch
            state, sums = step_fn(state, self.variables, device_batch, key)
            with saves.on_error(state):
                if step == start:  # Excludes the first call's compilation.
                    log_lines.window = _Window()
                log_lines.settle()
                log_lines.pending = step + 1, batch.inputs.row[batch.inputs.valid], sums
        if ended and int(state.step) < train.steps:
            log_lines.progress.say(
                f"phase {phase.name!r}: ended at step {int(state.step)} of {train.steps}: "
                f"{train.patience} evaluations without a better {train.best_metric}"
            )
        log_lines.progress.close()
        return state, evaluation

    def _evaluate_step(
        self, phase: Phase, state: TrainState, step: int, store, progress
    ) -> Evaluation | None:
        """Evaluates a saved state; returns None if a stop was requested meanwhile."""
        weights = {**self.variables, phase.name: state.weights()}
        try:
            evaluation = self.evaluate(weights, between_batches=self.stop.check)
        except interrupts.Interrupted:
            return None
        try:
            metrics = evaluation.metrics
        except InputError:
            if all_finite(evaluation.predictions):
                raise
            what = f"the predictions after step {step} are not finite"
            raise DivergedError(what, step) from None
        store.record(step, metrics)
        self.writer.write(step, phase.name, metrics)
        progress.say(text.one_line(step, metrics))
        return evaluation

    def _stopped(self, phase: Phase, step: int, store) -> Stopped:
        """Returns the note of a run that was stopped after `step`, whose state is saved."""
        store.wait()
        last = self.setup.sections[phase.name].train.steps
        return Stopped(
            f"stopped by {self.stop.name} at step {step} of {last} of phase "
            f"{phase.name!r}; the state is saved, the same command resumes from it.",
            self.stop.exit_code,
        )

    def start(self, phase: Phase, store: states.Checkpoints, keys):
        """Returns the initial or restored state, the jitted step, and the schedule."""
        s = self.setup
        optimizer, train = s.sections[phase.name]
        init_key, step_key = keys
        latest = store.latest_step()
        shapes = jax.eval_shape(phase.init, init_key)
        tx, schedule = optim.make_optimizer(optimizer, train.steps, shapes["params"])
        replicated = sharding_lib.replicated(self.mesh)

        before = {}
        if phase.starts_from is not None:
            weights = self.variables[phase.starts_from]
            before = {name: weights[name] for name in ("params", "batch_stats")}

        def new_state(init_key, constants, before):
            # A copy: the steps donate these buffers, the earlier phase still needs its own.
            before = jax.tree.map(jnp.copy, before)
            variables = {**phase.init(init_key), **before, "constants": constants}
            return create_state(variables, tx, averaging=optimizer.ema_decay > 0)

        other = None if latest is not None else self._other_checkpoints(phase, train)
        if latest is None and other is None:
            constants = self.statistics(phase)
            state = _once(new_state, out_shardings=replicated)(
                init_key, constants, before
            )
            if train.init_from:
                state = self._start_from(state, phase, tx)
            self._draw_inputs(phase, state, step_key)
            if phase.statistics is not None:
                store.save(0, state)  # Avoids measuring the statistics twice.
        else:
            constants = self.statistics(phase, shapes_only=True)
            shapes = jax.eval_shape(new_state, init_key, constants, before)
            if other is None:
                state, source = store.restore(shapes), ""
            else:
                with states.Checkpoints(
                    other, read_only=True, **_best(train)
                ) as other_store:
                    state = other_store.restore(shapes)
                    store.adopt(other_store, state, int(state.step))
                source = f", from {train.resume_from}"
            step = int(state.step)
            print(
                f"phase {phase.name!r}: resumed at step {step} of {train.steps}{source}"
            )
            if step > train.steps:
                raise ConfigError(
                    f"config.train.resume_from: {train.resume_from} is at step {step}: set "
                    f"config.train.steps (now {train.steps}) to at least that."
                )
            state = sharding_lib.put_replicated(state, self.mesh)
        step_fn = jax.jit(
            make_train_step(phase, tx, optimizer),
            donate_argnums=0,
            out_shardings=(replicated, replicated),
        )
        return state, step_fn, schedule

    def _other_checkpoints(self, phase: Phase, train: TrainConfig) -> Path | None:
        """Returns the checkpoints of `resume_from`; None if it did not reach this phase."""
        if not train.resume_from:
            return None
        directory = Path(train.resume_from) / "checkpoints" / phase.name
        if states.whole_steps(directory):
            return directory
        if phase is self.setup.method.phases[0]:
            raise InputError(
                f"config.train.resume_from: {train.resume_from} has no checkpoint of phase "
                f"{phase.name!r} ({directory}). To start from the weights of a finished "
                "run, use init_from."
            )
        return None

    def statistics(self, phase: Phase, *, shapes_only: bool = False):
        """Computes a phase's constants in a pass over the training rows, not augmented."""
        if (statistics := phase.statistics) is None:
            return {}
        plan, earlier = self.setup.plan, self.variables
        batches = readers.batches(plan, 0, plan.steps_per_epoch)
        if shapes_only:  # The values are restored from the checkpoint.
            return jax.eval_shape(
                lambda batch: statistics.finish(statistics.measure(earlier, batch)),
                next(batches),
            )
        measure = jax.jit(
            phase.statistics.measure, out_shardings=sharding_lib.replicated(self.mesh)
        )
        total = None
        for batch in batches:
            sums = measure(earlier, sharding_lib.put_batch(batch, self.mesh))
            total = sums if total is None else jax.tree.map(jnp.add, total, sums)
        return phase.statistics.finish(total)

    def _start_from(self, state: TrainState, phase: Phase, tx) -> TrainState:
        """Loads the weights of another run's model where the names match."""
        optimizer, train = self.setup.sections[phase.name]
        start = model_lib.load(train.init_from)
        loaded = start.variables.get(phase.name, next(iter(start.variables.values())))
        own = {"params": state.params, "batch_stats": state.batch_stats}
        keypoints, others = self.setup.method.keypoints, start.keypoints
        if keypoints and others and heads.present(loaded, phase.heads):
            try:
                rows = heads.sources(keypoints, others, train.init_map)
            except ValueError as error:
                raise ConfigError(f"config.train.init_map: {error}") from None
            if rows != tuple((i,) for i in range(len(others))):
                loaded = heads.map_heads(own, loaded, phase.heads, rows, len(others))
                print(heads.described(keypoints, others, rows))
        merged, report = model_lib.merge_params(own, loaded, skip=train.init_skip)
        print(f"phase {phase.name!r}: initialized from {train.init_from}\n{report}")
        merged = {**merged, "constants": state.constants}
        new = create_state(merged, tx, averaging=optimizer.ema_decay > 0)
        return sharding_lib.put_replicated(new, self.mesh)

    def _draw_inputs(self, phase: Phase, state: TrainState, key) -> None:
        """Draws RUN/pictures/inputs_<phase>.png, the inputs of the first step."""
        method = self.setup.method
        batch = next(readers.batches(self.setup.plan, 0, 1))
        variables = {**self.variables, phase.name: {"constants": state.constants}}
        example = _once(phase.prepare)(variables, batch, keys_lib.augment_key(key))
        shown = jax.device_get(phase.preview(example))
        out = self.run / "pictures" / f"inputs_{phase.name}.png"
        preview.draw(out, shown, method)


class _Log:
    """The log lines of a phase. Scalars are fetched one step late, so that the device never
    waits for logging.

    Attributes:
      progress: progress on the terminal.
      window: sums and times for the next line.
      pending: (step, rows, sums) of the step whose scalars have not been fetched.
    """

    def __init__(self, trainer: Trainer, phase: Phase, schedule, start: int) -> None:
        self._trainer, self._phase, self._schedule = trainer, phase.name, schedule
        self._train = trainer.setup.sections[phase.name].train
        self.progress = log.Progress(self._train.steps, start, label=phase.name)
        self.window = _Window()
        self.pending: tuple[int, Any, Any] | None = None

    def settle(self) -> None:
        """Fetches the scalars of the previous step and logs them if due."""
        if self.pending is None:
            return
        step, rows, sums = self.pending
        self.pending = shown = None
        sums = jax.device_get(sums)
        total = float(sums.pop("total"))
        if not math.isfinite(total):
            raise _not_finite(step, total, rows, self._trainer.setup)
        self.window.add(sums, len(rows))
        if due(step, self._train.log_every_steps, self._train.steps) or step == 1:
            scalars = {**self.window.scalars(), "lr": float(self._schedule(step - 1))}
            self._trainer.writer.write(step, self._phase, scalars)
            shown = _shown(scalars)
            self.window = _Window()
        self.progress(step, shown)


def _best(train: TrainConfig) -> dict[str, Any]:
    """Returns which evaluation is the best, as `states.Checkpoints` takes it."""
    if not train.best_metric:
        return {}
    mode = text.best_mode(train.best_metric)
    return {"best_metric": train.best_metric, "best_mode": mode}


def _ended(train: TrainConfig, store: states.Checkpoints) -> bool:
    """Returns whether there were `patience` evaluations without an improvement."""
    return 0 < train.patience <= store.without_improvement()


def _once(function, **options):
    """Jits a function that runs once, with low optimization to reduce compile time."""
    quick = {"xla_backend_optimization_level": 0}
    return jax.jit(function, compiler_options=quick, **options)


def _not_finite(step: int, total: float, rows, s: Setup) -> DivergedError:
    kind = s.plan.kind
    ids = kind.ids(s.train_table)[rows].tolist()
    return DivergedError(
        f"the loss of step {step} is {total}",
        step - 1,
        f" If it happens again, check these {kind.words} of the batch, by id: {ids}.",
    )


def _check_data(s: Setup) -> None:
    """Checks what would otherwise end the training at an evaluation or in an epoch.

    Raises:
      InputError: the evaluation data have no labeled people, or images are missing.
    """
    table = s.eval_table
    Plan(table=table, view=s.method.view, config=s.config.input)
    truth, kind = table.ground_truth, s.plan.kind
    if truth is not None and not len(kind.default(truth, training=True)):
        raise InputError(
            f"config.data.eval: {table.name} has no labeled people to evaluate on: give "
            "another split."
        )
    for section, each in (("train", s.train_table), ("eval", table)):
        missing = each.missing_images() if each.on_error == "stop" else []
        if missing:
            raise InputError(
                f"config.data.{section}: {len(missing)} of {len(each.images)} images of "
                f"{each.name} are missing: {first([str(path) for path in missing])}. "
                "Copy them there, or leave them out of the annotations."
            )


def _check_metric_names(s: Setup) -> None:
    """Checks before training that the evaluation computes `best_metric`, `stop_metric`."""
    kind = evaluation_lib.of(s.method)
    names = kind.names(s.eval_table)
    for section in s.sections.values():
        for field in ("best_metric", "stop_metric"):
            name = getattr(section.train, field)
            if name and name not in names:
                meant = did_you_mean(name, names) or " It computes no metrics."
                if why := kind.why_absent(s.eval_table, name):
                    meant = f" {why[0].upper()}{why[1:]}."
                raise ConfigError(
                    f"config.train.{field}: the evaluation has no metric {name!r}.{meant}"
                )


# ---------------------------------------------------------------------------------- run


def train(
    config: Mapping[str, Any], run: Path | str, *, devices: Sequence[Any] | None = None
) -> dict[str, float]:
    """Trains all phases of a config in the directory `run`, or resumes the run there.

    On SIGTERM or Ctrl-C the current step is finished and the state saved; a second signal
    ends the process immediately.

    Args:
      config: the sections of `Config`.
      run: the run directory; created if missing.
      devices: devices to use; None for all.

    Returns:
      The metrics of the last evaluation.

    Raises:
      ConfigError: the config is invalid, or `run` has a run of another config.
      InputError: the data are not usable, the loss is not finite, `run` is in use by
        another process, or the disk is full.
      Stopped: stopped by a signal.
    """
    run = Path(run)
    writing.check(run, "give another --run")
    s = setup(config)
    mesh = sharding_lib.make_mesh(devices)
    sharding_lib.check_batch(s.config.input.batch_size, mesh)
    # With several processes JAX itself handles SIGTERM, to agree on a common step.
    catch = jax.process_count() == 1
    with (
        run_directory.claim(run, config),
        interrupts.StopRequest(enabled=catch) as stop,
    ):
        return Trainer(s, config, run, devices, stop).train()
