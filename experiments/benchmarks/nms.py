"""Time of `nms.box_nms`, by fixed point, compared with one candidate after another.

    python -m experiments.benchmarks.nms [--candidates 2000] [--repeats 20] [--run DETECTOR]

Prints milliseconds for clusters of boxes, a chain, and 4 images at once, the best of the
repeats, all functions in turns, and the number of trips of the fixed point. "former" is the
loop over candidates that `box_nms` had, with overlaps of arrays [n, 2]; "one by one" is the
same loop with separate coordinates, which is the fastest on a CPU: its steps depend on each
other, which costs more on accelerators. With the run of a detector: the trips for the
candidates of its proposal network, untrained and trained, on random pixels.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pose_jax import nms

THRESHOLD = 0.7


def loop(boxes_xyxy, scores, iou_of_row):
    """Each candidate in turn drops those after it."""
    order = nms._by_score(scores, jnp.ones(scores.shape, bool))
    ranked, rank = boxes_xyxy[order], jnp.arange(scores.size)

    def drop(i, keep):
        too_close = iou_of_row(ranked, i) > THRESHOLD
        return keep & ~(keep[i] & too_close & (rank > i))

    keep = lax.fori_loop(0, scores.size, drop, jnp.ones(scores.shape, bool))
    return jnp.zeros_like(keep).at[order].set(keep)


def one_by_one(boxes_xyxy, scores):
    def iou_of_row(ranked, i):
        x0, y0, x1, y1 = (ranked[:, j] for j in range(4))
        area = (x1 - x0) * (y1 - y0)
        w = jnp.maximum(jnp.minimum(x1[i], x1) - jnp.maximum(x0[i], x0), 0)
        h = jnp.maximum(jnp.minimum(y1[i], y1) - jnp.maximum(y0[i], y0), 0)
        return w * h / (area[i] + area - w * h)

    return loop(boxes_xyxy, scores, iou_of_row)


def former(boxes_xyxy, scores):
    def iou_of_row(ranked, i):
        box = ranked[i]
        low = jnp.maximum(box[None, :2], ranked[:, :2])
        shared = jnp.minimum(box[None, 2:], ranked[:, 2:]) - low
        intersection = jnp.prod(jnp.maximum(shared, 0), axis=-1)
        area = jnp.prod(jnp.maximum(ranked[:, 2:] - ranked[:, :2], 0), axis=-1)
        own = jnp.prod(jnp.maximum(box[2:] - box[:2], 0))
        union = own + area - intersection
        return jnp.where(union > 0, intersection / jnp.where(union > 0, union, 1), 0)

    return loop(boxes_xyxy, scores, iou_of_row)


def by_fixed_point(boxes_xyxy, scores):
    return nms.box_nms(boxes_xyxy, scores, threshold=THRESHOLD)


def trips(boxes_xyxy, scores):
    valid = jnp.ones(scores.shape, bool)
    ranked = boxes_xyxy[nms._by_score(scores, valid)]
    return nms._greedy(nms._box_iou(ranked) > THRESHOLD, valid)[1]


def clusters(n: int, seed: int = 0):
    """Boxes around 300 people, as many as a detector proposes."""
    rng = np.random.default_rng(seed)
    who = rng.integers(0, 300, n)
    middle = rng.uniform(0, 600, (300, 2))[who] + rng.normal(0, 6, (n, 2))
    size = rng.uniform(40, 150, (300, 2))[who] * rng.uniform(0.8, 1.2, (n, 1))
    boxes_xyxy = np.concatenate([middle - size / 2, middle + size / 2], 1)
    return boxes_xyxy.astype(np.float32), rng.random(n).astype(np.float32)


def chain(n: int):
    """Boxes of which each overlaps the next by 0.82, and the one after by less."""
    left = np.arange(n, dtype=np.float32)
    boxes_xyxy = np.stack([left, 0 * left, left + 10, 0 * left + 10], 1)
    return boxes_xyxy, -left


def milliseconds(functions, arguments, repeats: int) -> list[float]:
    best = [np.inf] * len(functions)
    for function in functions:
        jax.block_until_ready(function(*arguments))
    for _ in range(repeats):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            best[i] = min(best[i], 1e3 * (time.perf_counter() - start))
    return best


FUNCTIONS = {
    "fixed point": by_fixed_point,
    "one by one": one_by_one,
    "former": former,
}


def times(n: int, repeats: int) -> None:
    print(
        f"{f'ms, {n} candidates':20}"
        + "".join(f"{f:>13}" for f in FUNCTIONS)
        + "  trips"
    )
    for name, (boxes_xyxy, scores) in {
        "clusters": clusters(n),
        "chain": chain(n),
    }.items():
        functions = [jax.jit(function) for function in FUNCTIONS.values()]
        first, *others = (np.asarray(f(boxes_xyxy, scores)) for f in functions)
        assert all((first == other).all() for other in others)
        best = milliseconds(functions, (boxes_xyxy, scores), repeats)
        count = int(jax.jit(trips)(boxes_xyxy, scores))
        print(f"{name:20}" + "".join(f"{t:13.1f}" for t in best) + f"{count:7d}")
    images = zip(*(clusters(n, seed) for seed in range(4)), strict=True)
    several = [np.stack(each) for each in images]
    functions = [jax.jit(jax.vmap(function)) for function in FUNCTIONS.values()]
    best = milliseconds(functions, several, repeats)
    print(f"{'4 images, clusters':20}" + "".join(f"{t:13.1f}" for t in best))


def trips_of(run: str) -> None:
    """Prints the trips for what a detector's proposal network gives to the suppression."""
    from pose_jax.runs import model as model_lib

    loaded = model_lib.load(run)
    method, trained = loaded.method(), loaded.variables["detector"]
    width, height = method.view.buckets[0]
    images = np.random.default_rng(0).normal(size=(1, height, width, 3))
    images = jnp.asarray(images, jnp.float32)
    weights = {
        "untrained": method.phases[0].init(jax.random.key(0)),
        "trained": trained,
    }
    counts = []
    original = nms.box_nms

    def counted(boxes_xyxy, scores, *, threshold, valid=None):
        valid = jnp.ones(scores.shape, bool) if valid is None else valid
        order = nms._by_score(scores, valid)
        too_close = nms._box_iou(boxes_xyxy[order]) > threshold
        jax.debug.callback(
            lambda *both: counts.append(tuple(map(int, both))),
            scores.size,
            nms._greedy(too_close, valid[order])[1],
        )
        return original(boxes_xyxy, scores, threshold=threshold, valid=valid)

    nms.box_nms = counted
    for name, variables in weights.items():
        variables = {key: variables[key] for key in ("params", "batch_stats")}
        _, anchors, objectness, deltas, _ = method._first_half(variables, images, False)
        region = jnp.array([[0, 0, width, height]], jnp.float32)
        for train in (False, True):
            counts.clear()
            jax.block_until_ready(
                method._propose(images, anchors, objectness, deltas, region, train)
            )
            jax.effects_barrier()
            shown = ", ".join(f"{count} for {n}" for n, count in sorted(counts))
            print(f"{name}, {'training' if train else 'prediction'}: trips {shown}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--candidates", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--run", help="run directory of a detector")
    arguments = parser.parse_args()
    times(arguments.candidates, arguments.repeats)
    if arguments.run:
        trips_of(arguments.run)


if __name__ == "__main__":
    main()
