"""The trainer, read top to bottom: state, step, loop, phases, run.

It alone knows optimisers, schedules, averaging, checkpoints and evaluation times. What is
learnt is the method's business: the trainer sees phases, batches and numbers.

A run is a function of its config: the order of rows and everything random follow from
(seed, phase, epoch, row), so a run that was stopped and started again ends in the same
weights as one that was not.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from pose_jax import sharding as sharding_lib
from pose_jax.data import readers
from pose_jax.data.table import Table
from pose_jax.drawing import people as drawing
from pose_jax.errors import ConfigError, InputError, Stopped, did_you_mean
from pose_jax.evaluation import evaluate
from pose_jax.evaluation import measure as measures
from pose_jax.runs import directory as run_directory
from pose_jax.runs import log, states
from pose_jax.training import interrupts, optim
from pose_jax.training import keys as keys_lib
from pose_jax.training.config import Setup, TrainConfig, setup
from pose_jax.types import Boxes, Mean, PersonView, Phase, Poses, Variables, View

# ------------------------------------------------------------------------ state and step


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["step", "params", "batch_stats", "constants", "opt_state", "ema"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Arrays and nothing else. `ema` is {"params", "batch_stats"}, or {} without."""

    step: jax.Array
    params: Any
    batch_stats: Any
    constants: Any
    opt_state: Any
    ema: Any

    def weights(self) -> dict[str, Any]:
        """What the phase gives to the rest of the program: averaged if there is one."""
        own = {"params": self.params, "batch_stats": self.batch_stats}
        return {**own, **self.ema, "constants": self.constants}


def create_state(variables: Mapping[str, Any], tx, *, averaging: bool) -> TrainState:
    """The state before the first step; the average starts as a copy."""
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
    """(state, weights of earlier phases, batch, key) -> (state, Means by name)."""

    def train_step(state: TrainState, earlier: Variables, batch, key):
        variables = {**earlier, phase.name: {"constants": state.constants}}
        example = phase.prepare(variables, batch, keys_lib.augment_key(key))
        model_state = {"batch_stats": state.batch_stats}
        grad_fn = jax.value_and_grad(phase.loss, has_aux=True)
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


Evaluation = tuple[dict[str, float], Poses | Boxes]
"""Metrics by name, and the predictions that gave them."""


class _Window:
    """What a log line is made of: sums since the last one, and where the time went."""

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
    """Scalars as a log line has them."""
    names = {"images_per_second": "images/s", "input_bound_percent": "input-bound"}
    shown = {names.get(name, name): value for name, value in scalars.items()}
    return shown | {"input-bound": f"{shown['input-bound']:.0f}%"}


def _check_finite(
    step: int, phase: str, total: float, rows, table: Table, view: View
) -> None:
    if math.isfinite(total):
        return
    people = isinstance(view, PersonView)
    ids = (table.ids if people else table.image_ids)[rows].tolist()
    raise InputError(
        f"phase {phase!r}: the loss of step {step} is {total}; nothing after the last "
        f"checkpoint is kept. The batch's {'row' if people else 'image'} ids: {ids}. Lower "
        "config.optimizer.lr, set config.optimizer.clip_norm, or look at these "
        f"{'rows' if people else 'images'}."
    )


def _loop(
    phase: Phase, state: TrainState, earlier: Variables, s: Setup, *, run, mesh, step_fn,
    schedule, store, writer, predictor, key, stop,
) -> tuple[TrainState, Evaluation | None]:  # fmt: skip
    """Takes one phase from where `state` is to its last step, and its last evaluation.

    Raises Stopped, with the state saved, once `stop` asks for it.
    """
    train = s.sections[phase.name][1]
    plan = s.train_plan()
    start = int(state.step)
    batches = readers.batches(plan, start, train.steps)
    progress = log.Progress(train.steps, start, label=phase.name)
    window, pending, evaluation = _Window(), None, None

    def due(step: int, every: int) -> bool:
        return step == train.steps or (every > 0 and step % every == 0 and step > 0)

    def settle() -> None:
        """Reads the numbers of the step before: the device never waits for a log line."""
        nonlocal pending, window
        if pending is None:
            return
        step, rows, sums = pending
        pending = shown = None
        sums = jax.device_get(sums)
        total = float(sums.pop("total"))
        _check_finite(step, phase.name, total, rows, s.train_table, plan.view)
        window.add(sums, len(rows))
        if due(step, train.log_every_steps) or step == 1:
            scalars = {**window.scalars(), "lr": float(schedule(step - 1))}
            writer.write(step, phase.name, scalars)
            shown = _shown(scalars)
            window = _Window()
        progress(step, shown)

    # The order of one turn is fixed: evaluate and save what `step` steps have made, then
    # fetch, then step. So a resumed run neither repeats nor skips a batch.
    # A run that was stopped while it evaluated does that first.
    missed = start > 0 and start not in _evaluations(run, phase.name)
    for step in range(start, train.steps + 1):
        asked = sharding_lib.agreed(stop.requested, step)
        evaluated = due(step, train.eval_every_steps) and (step > start or missed)
        # Never again what is saved already: replacing it could lose it.
        save = step > start and (
            due(step, train.checkpoint_every_steps)
            or (evaluated and bool(train.best_metric))
        )
        if evaluated or save or asked:
            settle()
        away = time.perf_counter()
        metrics = {}
        if evaluated and not asked:
            weights = {**earlier, phase.name: state.weights()}
            try:
                evaluation = evaluate.evaluate(
                    predictor, weights, s.eval_table, s.config.input,
                    s.config.evaluation, between_batches=stop.check,
                )  # fmt: skip
            except interrupts.Interrupted:
                asked = True
            else:
                metrics = evaluation[0]
                writer.write(step, phase.name, metrics)
                progress.say(measures.one_line(step, metrics))
        if save or (asked and step > start):
            store.save(step, state, metrics)
        window.away += time.perf_counter() - away
        if asked:
            progress.close()
            store.wait()
            raise Stopped(
                f"stopped by {stop.name} at step {step} of {train.steps} of phase "
                f"{phase.name!r}; its state is saved, the same command goes on from it.",
                stop.exit_code,
            )
        if step == train.steps:
            break
        fetch = time.perf_counter()
        batch = next(batches)
        device_batch = sharding_lib.put_batch(batch, mesh)
        window.waiting += time.perf_counter() - fetch
        state, sums = step_fn(state, earlier, device_batch, key)
        if step == start:
            window = _Window()  # The first call compiled.
        settle()
        rows = batch.inputs.row[batch.inputs.valid]
        pending = (step + 1, rows, sums)
    progress.close()
    return state, evaluation


# ---------------------------------------------------------------------------------- run


def train(
    config: Mapping[str, Any], run: Path | str, *, devices: Sequence[Any] | None = None
) -> dict[str, float]:
    """Trains all phases of a config in the directory `run`; resumes what is there.

    Args:
      config: the sections of `Config`.
      run: the run directory; made if absent.
      devices: to use; None for all.

    SIGTERM and Ctrl-C let the step finish and save its state; asked twice, they kill.

    Returns:
      The last evaluation's metrics.

    Raises:
      ConfigError: the config is wrong, or `run` holds a run of another config.
      InputError: data that cannot be used, a loss that is not finite, `run` is in use by
        another process, or the disk is full.
      Stopped: by a signal.
    """
    s = setup(config)
    run = Path(run)
    # With several processes JAX itself catches SIGTERM: they must agree on a step.
    catch = jax.process_count() == 1
    with (
        run_directory.claim(run, config),
        interrupts.StopRequest(enabled=catch) as stop,
    ):
        return _train(s, config, run, devices, stop)


def _train(s: Setup, config, run: Path, devices, stop) -> dict[str, float]:
    mesh = sharding_lib.make_mesh(devices)
    print(
        f"{s.method.name} on {sharding_lib.device_summary(mesh)}: "
        f"{len(s.train_plan().rows)} {_rows_are(s.method.view)} of {s.train_table.name}, "
        f"evaluated on {s.eval_table.name}; run {run}"
    )
    _check_metric_names(s)
    writer = log.MetricWriter(run)
    predictor = evaluate.Predictor(s.method, mesh)
    variables: dict[str, Any] = {}
    evaluation = reached = None
    for number, phase in enumerate(s.method.phases):
        weights, found = _run_phase(
            phase, variables, s, run=run, mesh=mesh, writer=writer,
            predictor=predictor, keys=keys_lib.phase_keys(s.config.seed, number), stop=stop,
        )  # fmt: skip
        name = s.sections[phase.name][1].stop_metric
        if name:
            # One that was through before is in the log.
            metrics = found[0] if found else _last_metrics(run, phase.name)
            before, reached = reached, metrics[name]
            if before is not None and reached <= before:
                print(
                    f"phase {phase.name!r} ends the training and is left out of the model: "
                    f"{name} is {reached:.4g} after it, {before:.4g} without it."
                )
                break
        variables[phase.name], evaluation = weights, found
    if evaluation is None:  # It had been trained to its end already.
        evaluation = evaluate.evaluate(
            predictor, variables, s.eval_table, s.config.input, s.config.evaluation
        )
    metrics, found = evaluation
    run_directory.write_model(
        run,
        config=config,
        method=s.method,
        train_table=s.train_table,
        variables=variables,
        scores=metrics,
    )
    evaluate.draw_run(run, predictor, s.eval_table, found, variables, s.config.input)
    writer.close()
    print(f"model: {run / 'model'}   pictures: {run / 'pictures'}")
    return metrics


def _check_metric_names(s: Setup) -> None:
    """Before anything is trained: does the evaluation give what a phase asks for?"""
    for _, train in s.sections.values():
        for field in ("best_metric", "stop_metric"):
            name = getattr(train, field)
            if not name:
                continue
            names = measures.names(s.eval_table, boxes=s.method.keypoints is None)
            if name not in names:
                meant = did_you_mean(name, names) or " It gives nothing."
                raise ConfigError(
                    f"config.train.{field}: the evaluation gives no {name!r}.{meant}"
                )


def _rows_are(view: View) -> str:
    return "people" if isinstance(view, PersonView) else "images"


def _evaluations(run: Path, phase: str) -> dict[int, dict[str, float]]:
    """What the evaluations of a phase found, by step, from the log."""
    return {
        entry["step"]: entry
        for entry in log.read_metrics(run)
        if entry["phase"] == phase and any(map(measures.is_metric, entry))
    }


def _last_metrics(run: Path, phase: str) -> dict[str, float]:
    """What the last evaluation of a phase found."""
    return list(_evaluations(run, phase).values())[-1]


def _run_phase(
    phase: Phase,
    earlier: Variables,
    s: Setup,
    *,
    run,
    mesh,
    writer,
    predictor,
    keys,
    stop,
) -> tuple[dict[str, Any], Evaluation | None]:
    """Starts one phase or resumes it; returns its weights and its last evaluation."""
    train = s.sections[phase.name][1]
    with states.Checkpoints(
        run / "checkpoints" / phase.name,
        keep_latest=train.keep_checkpoints,
        best_metric=train.best_metric or None,
    ) as store:  # Also where something is raised: what is being written gets finished.
        state, step_fn, schedule = _start(
            phase, earlier, s, run=run, mesh=mesh, store=store, keys=keys
        )
        writer.resume(phase.name, int(state.step))
        state, evaluation = _loop(
            phase, state, earlier, s, run=run, mesh=mesh, step_fn=step_fn,
            schedule=schedule, store=store, writer=writer, predictor=predictor,
            key=keys[1], stop=stop,
        )  # fmt: skip
    return state.weights(), evaluation


def _start(phase: Phase, earlier: Variables, s: Setup, *, run, mesh, store, keys):
    """The state to go on from, the jitted step, and the schedule."""
    optimizer, train = s.sections[phase.name]
    init_key, step_key = keys
    latest = store.latest_step()
    shapes = jax.eval_shape(phase.init, init_key)
    tx, schedule = optim.make_optimizer(optimizer, train.steps, shapes["params"])
    replicated = sharding_lib.replicated(mesh)

    before = {}
    if phase.starts_from is not None:
        weights = earlier[phase.starts_from]
        before = {name: weights[name] for name in ("params", "batch_stats")}

    def new_state(init_key, constants, before):
        # A copy: the steps will give these buffers up, the earlier phase needs its own.
        before = jax.tree.map(jnp.copy, before)
        variables = {**phase.init(init_key), **before, "constants": constants}
        return create_state(variables, tx, averaging=optimizer.ema_decay > 0)

    other = None if latest is not None else _state_to_go_on_from(phase, train, s)
    if latest is None and other is None:
        constants = _statistics(phase, earlier, s, mesh)
        state = _once(new_state, out_shardings=replicated)(init_key, constants, before)
        if train.init_from:
            state = _start_from(state, phase, train, tx, optimizer, mesh)
        _draw_inputs(phase, earlier, state, s, run, step_key)
        if phase.statistics is not None:
            store.save(0, state)  # So that nothing is measured twice.
    else:
        constants = _statistics(phase, earlier, s, mesh, shapes_only=True)
        shapes = jax.eval_shape(new_state, init_key, constants, before)
        if other is None:
            state, source = store.restore(shapes), ""
        else:
            with states.Checkpoints(other, read_only=True) as theirs:
                state, source = theirs.restore(shapes), f", from {train.resume_from}"
        step = int(state.step)
        print(f"phase {phase.name!r}: resumed at step {step} of {train.steps}{source}")
        if step > train.steps:
            raise ConfigError(
                f"config.train.resume_from: {train.resume_from} is at step {step}, beyond "
                f"config.train.steps = {train.steps}."
            )
        state = sharding_lib.put_replicated(state, mesh)
    step_fn = jax.jit(
        make_train_step(phase, tx, optimizer),
        donate_argnums=0,
        out_shardings=(replicated, replicated),
    )
    return state, step_fn, schedule


def _state_to_go_on_from(phase: Phase, train: TrainConfig, s: Setup) -> Path | None:
    """The checkpoints of `resume_from`; None without, or if it never came to this phase."""
    if not train.resume_from:
        return None
    directory = Path(train.resume_from) / "checkpoints" / phase.name
    if states.whole_steps(directory):
        return directory
    if phase is s.method.phases[0]:
        raise InputError(
            f"config.train.resume_from: {train.resume_from} has no checkpoint of phase "
            f"{phase.name!r} ({directory}). init_from takes the weights of a finished run."
        )
    return None


def _once(function, **options):
    """jit for what runs once: most of its time would go into making it fast."""
    quick = {"xla_backend_optimization_level": 0}
    return jax.jit(function, compiler_options=quick, **options)


def _statistics(phase: Phase, earlier, s: Setup, mesh, shapes_only: bool = False):
    """The phase's constants: one pass over the training rows, without augmentation."""
    if phase.statistics is None:
        return {}
    batches = readers.batches(s.train_plan(), 0, s.train_plan().steps_per_epoch)
    if shapes_only:  # The values are in the checkpoint.
        return jax.eval_shape(
            lambda batch: phase.statistics.finish(
                phase.statistics.measure(earlier, batch)
            ),
            next(batches),
        )
    measure = jax.jit(
        phase.statistics.measure, out_shardings=sharding_lib.replicated(mesh)
    )
    total = None
    for batch in batches:
        sums = measure(earlier, sharding_lib.put_batch(batch, mesh))
        total = sums if total is None else jax.tree.map(jnp.add, total, sums)
    return phase.statistics.finish(total)


def _start_from(
    state: TrainState, phase: Phase, train: TrainConfig, tx, optimizer, mesh
):
    """Weights of another run's model, as far as names and shapes agree."""
    variables, _ = states.load_model(Path(train.init_from) / "model")
    loaded = variables.get(phase.name, next(iter(variables.values())))
    own = {"params": state.params, "batch_stats": state.batch_stats}
    merged, report = states.merge_params(own, loaded, skip=train.init_skip)
    print(f"phase {phase.name!r}: started from {train.init_from}\n{report}")
    new = create_state(
        {**merged, "constants": state.constants}, tx, averaging=optimizer.ema_decay > 0
    )
    return sharding_lib.put_replicated(new, mesh)


def _draw_inputs(phase: Phase, earlier, state: TrainState, s: Setup, run: Path, key):
    """RUN/pictures/inputs_<phase>.png: what the network is about to be shown."""
    batch = next(readers.batches(s.train_plan(), 0, 1))
    variables = {**earlier, phase.name: {"constants": state.constants}}
    example = _once(phase.prepare)(variables, batch, keys_lib.augment_key(key))
    preview = jax.device_get(phase.preview(example))
    out = run / "pictures" / f"inputs_{phase.name}.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    view = s.method.view
    alignment = view.alignment if isinstance(view, PersonView) else "stride"
    picture = drawing.preview_sheet(preview, s.method.keypoints, alignment=alignment)
    drawing.save_png(out, picture)
