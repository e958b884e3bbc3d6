"""What each method and network family computes from one seeded batch, as small files.

    python -m tests.golden.harness [NAME ...]      # write the files again

A file holds, for one case: of each phase the loss, the norm of the gradient by module and
the state after one step of the optimizer; then the points or boxes of `predict`. A state
is kept as a few numbers a module: its norm, its product with a fixed random vector, and a
digest of its bytes.

A refactoring leaves the files as they are. Whoever changes what is computed writes them
again and says in the commit why each of them changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "jax" not in sys.modules:  # As tests/conftest.py has it: another level, other bits.
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import optax

from pose_jax import keypoints, methods
from pose_jax.data import readers
from pose_jax.data.plan import InputConfig, Plan
from pose_jax.training import keys, optim, train
from tests.made_up import make_table

FOLDER = Path(__file__).parent

# As users have it, and not as tests/conftest.py does: another way to compile, other bits.
_OPTIONS = (
    {"xla_cpu_use_fusion_emitters": True}
    if "xla_cpu_use_fusion_emitters" in os.environ.get("XLA_FLAGS", "")
    else None
)
_jit = partial(jax.jit, compiler_options=_OPTIONS)

_AUGMENT = {"flip": 0.5, "scale": 0.2, "rotation": 30.0, "brightness": 0.2}
_BOX_AUGMENT = {"flip": 0.5, "scale": 0.2, "translation": 0.5, "contrast": 0.2}


def _dark(
    model: str, size=(64, 96), options=None, norm="batch", **fields
) -> dict[str, Any]:
    return {
        "name": "dark",
        "model": {"name": model, "norm": norm, "options": options or {}},
        "input_size": size,
        "augment": _AUGMENT,
        **fields,
    }


def _deeppose(model: str, size=(64, 64), options=None, **fields) -> dict[str, Any]:
    return {
        "name": "deeppose",
        "model": {"name": model, "options": options or {}},
        "input_size": size,
        "augment": _AUGMENT,
        **fields,
    }


def _multipose(model: str, size=(49, 65), **fields) -> dict[str, Any]:
    return {
        "name": "multipose",
        "model": {"name": model},
        "input_size": size,
        "radius": 6.0,
        "augment": {**_AUGMENT, "scale_law": "uniform"},
        **fields,
    }


def _detector(model: str, scales, norm="batch", **fields) -> dict[str, Any]:
    return {
        "name": "detector",
        "model": {"name": model, "norm": norm},
        "size": (96, 128),
        "buckets": ((160, 128), (128, 160)),
        "max_people": 4,
        "anchor_scales": scales,
        "pre_nms": 64,
        "post_nms": 32,
        "test_pre_nms": 64,
        "test_post_nms": 16,
        "rpn_samples": 32,
        "box_samples": 16,
        "slots": 6,
        "augment": _BOX_AUGMENT,
        **fields,
    }


CASES: dict[str, dict[str, Any]] = {
    "dark_pocket": _dark("pocket", sigma=1.5, flip_test="shift"),
    "dark_simple_baseline": _dark(
        "simple_baseline_18", (64, 64), encoding="biased", decoder="shift", ohkm=8
    ),
    "dark_hrnet": _dark(
        "hrnet_w32",
        (64, 64),
        {"modules": (1, 1, 1), "blocks": 1},
        # Statistics of maps of 2 x 2 pixels would not be the same on another machine.
        norm="frozen",
        alignment="aligned",
        decoder="dark_paper",
        flip_test="plain",
    ),
    "dark_hourglass": _dark(
        "hourglass_4",
        (64, 64),
        {"width": 16, "depth": 2},
        loss="cross_entropy",
        joint_weights=True,
        decoder="argmax",
    ),
    "deeppose_cascade": _deeppose(
        "deeppose",
        (80, 72),
        {"width": 12},
        stages=3,
        flip_test="plain",
        inside=0.1,
        start="before",
    ),
    "deeppose_resnet": _deeppose(
        "resnet_regression_18", (64, 64), stages=1, loss="smooth_l1"
    ),
    "simcc_pocket": {
        "name": "simcc",
        "model": {"name": "simcc_pocket"},
        "input_size": (48, 64),
        "sigma": 1.5,
        "decoder": "expectation",
        "flip_test": "plain",
        "augment": _AUGMENT,
    },
    "multipose_pocket": _multipose("multipose_pocket", flip_test="plain"),
    "multipose_resnet": _multipose(
        "multipose_18", others="both", reduction="pixel", rescoring="product"
    ),
    "detector_pocket": _detector(
        "faster_rcnn_pocket", ((24.0, 48.0, 96.0),), norm="frozen"
    ),
    "detector_resnet": _detector(
        "faster_rcnn_18", ((24.0, 48.0, 96.0),), norm="frozen"
    ),
    "detector_pyramid": _detector(
        "faster_rcnn_fpn_18",
        ((16.0,), (32.0,), (64.0,), (96.0,), (128.0,)),
        norm="frozen",
    ),
}
"""The method section of each case."""


def _table():
    """Six people on three seeded pictures, some keypoints unlabelled."""
    rng = np.random.default_rng(5)
    # Smooth, so that a warp that is a little off is a little off in its pixels too.
    coarse = rng.uniform(0, 255, (3, 6, 6, 3))
    wide = np.clip(np.kron(coarse, np.ones((1, 20, 24, 1))), 0, 255).astype(np.uint8)
    table = make_table(6, keypoints.MPII, seed=5)
    scale = np.array([0.32, 0.28])  # 400 x 400 pixels to 144 x 120.
    visibility = rng.choice([0, 1, 2], table.visibility.shape, p=[0.15, 0.25, 0.6])
    torso = list(keypoints.MPII.torso)
    visibility[:, torso] = 2
    points = np.where(visibility[..., None] > 0, table.points_xy * scale, np.nan)
    return make_table(
        6,
        keypoints.MPII,
        images=tuple(wide),
        image_sizes=np.array([[144, 120]] * 3, np.int32),
        boxes_xyxy=table.boxes_xyxy * np.tile(scale, 2),
        points_xy=points,
        visibility=visibility.astype(np.int32),
        areas=table.areas * scale.prod(),
    )


def _summary(tree, *, depth: int) -> dict[str, list]:
    """Of the leaves below each path of `depth` names: norm, random product, digest."""
    groups: dict[str, list] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        names = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
        groups.setdefault("/".join(names[:depth]), []).append((path, np.asarray(leaf)))
    summary = {}
    for name, leaves in sorted(groups.items()):
        flat = np.concatenate([leaf.ravel().astype(np.float64) for _, leaf in leaves])
        fixed = np.random.default_rng(flat.size).standard_normal(flat.size)
        digest = hashlib.sha256(b"".join(leaf.tobytes() for _, leaf in leaves))
        norm = float(np.linalg.norm(flat))
        summary[name] = [
            norm, float(flat @ fixed / np.sqrt(flat.size)), digest.hexdigest()[:12]
        ]  # fmt: skip
    return summary


def compute(name: str) -> dict[str, Any]:
    """What a case gives on this machine, as its file has it."""
    table = _table()
    method = methods.build(CASES[name], table.keypoints)
    config = InputConfig(3, canvas_size=(144, 120), reader="numpy")
    plan = Plan(table, method.view, config, training=True, seed=1)
    batch = next(readers.numpy_batches(plan, 0, 1))
    # Plain momentum: Adam's first step is the sign of the gradient, at zero anything.
    optimizer = optim.OptimizerConfig(
        name="sgd", lr=1e-3, ema_decay=0.9, ema_warmup=True
    )
    variables: dict[str, Any] = {}
    phases = {}
    for number, phase in enumerate(method.phases):
        phases[phase.name], variables[phase.name] = _train_once(
            phase, number, variables, batch, optimizer
        )
    inputs = next(readers.numpy_batches(Plan(table, method.view, config))).inputs
    predicted = jax.device_get(_jit(method.predict)(variables, inputs))
    predictions = {
        field: np.asarray(getattr(predicted, field), np.float64).tolist()
        for field in vars(predicted)
    }
    return {"phases": phases, "predictions": predictions}


def _weights(shapes, number: int):
    """Seeded weights without a zero among them, so that every module has a gradient."""

    def leaf(path, shape):
        name = jax.tree_util.keystr(path)
        rng = np.random.default_rng([number, *name.encode()])
        values = rng.standard_normal(shape.shape)
        if "kernel" in name:
            values *= np.sqrt(1 / np.prod(shape.shape[:-1]))
        elif "scale" in name or "var" in name:
            values = 0.4 + 0.1 * np.abs(values)
        else:
            values *= 0.05
        return jnp.asarray(values, shape.dtype)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def _train_once(phase, number, earlier, batch, optimizer):
    """Losses, gradients and state of one step of a phase; and its weights after it."""
    init_key, step_key = keys.phase_keys(7, number)
    constants = {}
    if phase.statistics is not None:
        sums = _jit(phase.statistics.measure)(earlier, batch)
        constants = phase.statistics.finish(sums)
    new = _weights(jax.eval_shape(phase.init, init_key), number)
    tx, _ = optim.make_optimizer(optimizer, 10, new["params"])
    state = train.create_state({**new, "constants": constants}, tx, averaging=True)
    step = _jit(train.make_train_step(phase, tx, optimizer))
    state, sums = step(state, earlier, batch, step_key)
    # After one step the momentum is the gradient.
    gradient = optax.tree_utils.tree_get(state.opt_state, "trace")
    summary = {
        key: float(value if hasattr(value, "dtype") else value.compute())
        for key, value in jax.device_get(sums).items()
    }
    stored = {
        "losses": summary,
        "gradient": _summary(gradient, depth=1),
        "state": _summary(
            {
                "params": state.params,
                "batch_stats": state.batch_stats,
                "constants": state.constants,
                **{f"ema_{name}": tree for name, tree in state.ema.items()},
            },
            depth=1,
        ),
    }
    return stored, state.weights()


def machine() -> dict[str, Any]:
    """What equal bits may be expected of."""
    cpu = platform.processor() or platform.machine()
    flags = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = dict(
            line.split(":", 1) for line in info.read_text().splitlines() if ":" in line
        )
        lines = {key.strip(): value.strip() for key, value in lines.items()}
        cpu, flags = lines.get("model name", cpu), lines.get("flags", "")
    return {
        "cpu": cpu,
        "flags": hashlib.sha256(flags.encode()).hexdigest()[:12],
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else 0,
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "numpy": np.__version__,
    }


def load(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())


def write(name: str) -> None:
    text = json.dumps({"machine": machine(), **compute(name)}, indent=None)
    (FOLDER / f"{name}.json").write_text(text.replace('], "', '],\n"') + "\n")


if __name__ == "__main__":
    import time

    jax.config.update("jax_num_cpu_devices", 4)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    for name in sys.argv[1:] or CASES:
        start = time.perf_counter()
        write(name)
        print(f"{name}: {time.perf_counter() - start:.1f} s")
