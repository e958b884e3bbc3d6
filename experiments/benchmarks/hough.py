"""Speed and memory of Hough voting, compared with NumPy and with the network.

    python -m experiments.benchmarks.hough [--batch 2] [--size 353x257] [--repeats 10]

Prints milliseconds per person (17 keypoints), the ratio to NumPy, temporary memory, and the
time of decoding as a fraction of the network's forward pass. The NumPy version loops over
keypoints and adds all pixels to a flat map with `np.add.at`, once per corner of the
bilinear kernel. All functions are timed in turns, and the median is reported. The offsets
point to 17 random points, with noise of 3 pixels; the heatmaps are random.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pose_jax import models
from pose_jax.codecs import offsets

KEYPOINTS = 17
RADIUS = 25
NETWORK = "multipose_101"

VOTING = {
    "fuse": lambda *maps: offsets.fuse(*maps, radius=RADIUS),
    "fuse, all at once": lambda *maps: offsets._fuse_at_once(
        *maps, 1 / (math.pi * RADIUS**2)
    ),
    "fuse, gradient": jax.grad(
        lambda *maps: jnp.sum(jnp.square(offsets.fuse(*maps, radius=RADIUS))),
        argnums=(0, 1),
    ),
    "decode": lambda *maps: offsets.decode(*maps, radius=RADIUS),
    "decode, sub-pixel": lambda *maps: offsets.decode(
        *maps, radius=RADIUS, subpixel=True
    ),
}


def numpy_loop(heatmaps: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Computes `offsets.fuse`: [b, h, w, k], [b, h, w, k, 2] -> [b, h, w, k]."""
    b, h, w, k = heatmaps.shape
    pixel_y, pixel_x = np.mgrid[:h, :w].astype(np.float32)
    fused = np.empty_like(heatmaps)
    for i in range(b):
        for j in range(k):
            x = pixel_x + field[i, :, :, j, 0]
            y = pixel_y + field[i, :, :, j, 1]
            left, top = np.floor(x), np.floor(y)
            right, below = x - left, y - top
            column, row = left.astype(np.int64), top.astype(np.int64)
            votes = heatmaps[i, :, :, j]
            one_map = np.zeros(h * w, np.float32)
            for dy, weight_y in enumerate((1 - below, below)):
                for dx, weight_x in enumerate((1 - right, right)):
                    xs, ys = column + dx, row + dy
                    inside = (xs >= 0) & (xs < w) & (ys >= 0) & (ys < h)
                    flat = (ys * w + xs)[inside]
                    np.add.at(one_map, flat, (votes * weight_y * weight_x)[inside])
            fused[i, :, :, j] = one_map.reshape(h, w) / np.float32(math.pi * RADIUS**2)
    return fused


def random_maps(batch: int, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    heatmaps = random.uniform(0, 1, (batch, h, w, KEYPOINTS)).astype(np.float32)
    points = random.uniform(0, 1, (batch, KEYPOINTS, 2)) * [w - 1, h - 1]
    _, field = offsets.encode(
        jnp.asarray(points, jnp.float32), size=(w, h), radius=RADIUS
    )
    noise = random.normal(0, 3, field.shape).astype(np.float32)
    return heatmaps, np.asarray(field) + noise


def median_seconds(
    functions: dict[str, Callable[[], Any]], repeats: int
) -> dict[str, float]:
    """Returns the median time of each function, in turns; the first turn is a warmup."""
    seconds = {name: [] for name in functions}
    for _ in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(turns[1:])) for name, turns in seconds.items()}


def compiled_network(batch: int, h: int, w: int) -> Callable[[], Any] | None:
    """Returns the forward pass with constant weights; None if the network is unknown."""
    if NETWORK not in models.MODELS:
        return None
    network = models.build(NETWORK, num_keypoints=KEYPOINTS)
    images = jnp.zeros((batch, h, w, 3))
    shapes = jax.eval_shape(
        lambda: network.init(jax.random.key(0), images[:1], train=True)
    )
    variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01), shapes)
    forward = jax.jit(lambda v, x: network.apply(v, x, train=False))
    forward = forward.lower(variables, images).compile()
    return lambda: forward(variables, images)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", default="353x257", metavar="HxW")
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    h, w = map(int, arguments.size.split("x"))
    batch, repeats = arguments.batch, arguments.repeats

    maps = random_maps(batch, h, w)
    on_device = tuple(map(jnp.asarray, maps))
    voting = {
        name: jax.jit(f).lower(*on_device).compile() for name, f in VOTING.items()
    }
    expected = numpy_loop(*maps)
    for name in ("fuse", "fuse, all at once"):
        actual = voting[name](*on_device)
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-5)

    device = jax.devices()[0].device_kind
    print(
        f"{jax.default_backend()} ({device}), {os.cpu_count()} cores, jax "
        f"{jax.__version__}, numpy {np.__version__}; batch {batch}, {h}x{w}, median of "
        f"{repeats}"
    )
    print(f"{'':18} {'ms/person':>10} {'vs numpy':>9} {'temporary MB/person':>20}")
    functions = {name: lambda f=f: f(*on_device) for name, f in voting.items()}
    seconds = median_seconds(
        {"numpy loop": lambda: numpy_loop(*maps), **functions}, repeats
    )
    for name, t in seconds.items():
        row = f"{name:18} {t / batch * 1e3:10.1f} {seconds['numpy loop'] / t:8.1f}x"
        if name in voting:
            memory = voting[name].memory_analysis().temp_size_in_bytes
            row += f" {memory / batch / 1e6:20.0f}"
        print(row, flush=True)

    forward = compiled_network(batch, h, w)
    if forward is None:
        print(f"{NETWORK}: skipped, no such network")
        return
    pair = {"decode": functions["decode"], NETWORK: forward}
    seconds = median_seconds(pair, max(1, repeats // 3))
    fraction = seconds["decode"] / seconds[NETWORK]
    print(
        f"{NETWORK}, forward: {seconds[NETWORK] / batch * 1e3:.0f} ms/person; decoding "
        f"takes {fraction:.1%} of that"
    )


if __name__ == "__main__":
    main()
