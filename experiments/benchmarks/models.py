r"""Speed of the networks: images per second in training and inference, fast and stock ops.

    python -m experiments.benchmarks.models
    python -m experiments.benchmarks.models --models=pocket --batch=64 --repeats=10

Training is loss, gradients and Adam, without data pipeline. The two forms are timed in
turns and the best time of each counts, which makes their ratio robust. Both compute the
same results: see `pose_jax.models.ops`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from pose_jax import models
from pose_jax.models import ops

# Height, width. All other networks have 256x192, as in the papers.
SIZES = {"pocket": (128, 96)}


def compiled_steps(
    name: str, batch: int
) -> tuple[dict[str, Callable[[], Any]], int, float]:
    """Returns compiled training step and forward pass, parameters, and compile time."""
    model = models.build(name)
    h, w = SIZES.get(name, (256, 192))
    images = jnp.zeros((batch, h, w, 3))
    # Constant weights: times do not depend on them, and random ones compile slowly.
    variables = jax.tree.map(
        lambda leaf: jnp.full(leaf.shape, 0.01),
        jax.eval_shape(
            lambda: model.init(jax.random.key(0), images[:1], train=True),
        ),
    )
    optimizer = optax.adam(1e-3)
    state = optimizer.init(variables["params"])

    def train(variables, state, images):
        def loss(params):
            outputs, changed = model.apply(
                {**variables, "params": params},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            return jnp.mean(outputs[-1] ** 2), changed

        gradients, changed = jax.grad(loss, has_aux=True)(variables["params"])
        updates, state = optimizer.update(gradients, state, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        return {"params": params, **changed}, state

    start = time.perf_counter()
    train_step = jax.jit(train).lower(variables, state, images).compile()
    seconds = time.perf_counter() - start
    forward = jax.jit(model.apply).lower(variables, images).compile()
    steps = {
        "train": lambda: train_step(variables, state, images),
        "forward": lambda: forward(variables, images),
    }
    return (
        steps,
        sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        seconds,
    )


def measure(
    name: str, batch: int, repeats: int, forms: list[Literal["fast", "stock"]]
) -> list[str]:
    """Measures one network; returns table rows."""
    compiled = {}
    for form in forms:
        with ops.use_forms(form):
            compiled[form] = compiled_steps(name, batch)
    rows = []
    for kind in ("train", "forward"):
        best = dict.fromkeys(forms, float("inf"))
        for _ in range(repeats):
            for form in forms:
                start = time.perf_counter()
                jax.block_until_ready(compiled[form][0][kind]())
                best[form] = min(best[form], time.perf_counter() - start)
        for form in forms:
            _, parameters, seconds = compiled[form]
            compile_time = f"{seconds:.1f}" if kind == "train" else ""
            ratio = best["stock"] / best[form] if "stock" in forms else float("nan")
            rows.append(
                f"{name:20} {parameters:12,} {kind:8} {form:6} {batch / best[form]:10.1f} "
                f"{ratio:9.2f} {compile_time:>10}"
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="pocket,simple_baseline_18", metavar="A,B")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--forms", default="fast,stock", metavar="A,B")
    arguments = parser.parse_args()
    print(
        f"{jax.default_backend()}, batch {arguments.batch}, best of {arguments.repeats}"
    )
    print(
        f"{'model':20} {'parameters':>12} {'':8} {'forms':6} {'images/s':>10} "
        f"{'vs stock':>9} {'compile s':>10}"
    )
    for name in arguments.models.split(","):
        forms = arguments.forms.split(",")
        for row in measure(name, arguments.batch, arguments.repeats, forms):
            print(row, flush=True)


if __name__ == "__main__":
    main()
