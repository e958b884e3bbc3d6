"""Published networks on real people, with each decoder: one command a table.

    python -m experiments.published.tables coco --root COCO
    python -m experiments.published.tables lsp_extended --root LSPET

Every network of `pose-jax weights list` whose files are in $POSE_JAX_WEIGHTS or in the
cache folder of `pose-jax weights fetch` is converted to runs/published/NAME and evaluated;
the others are named. In parentheses: the 95% interval of the difference from the first row,
from 2000 paired bootstrap samples of images. The network is computed once for all decoders,
which are part of one jitted function.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pose_jax import sharding
from pose_jax.errors import ConfigError, InputError
from pose_jax.evaluation import compare
from pose_jax.evaluation import poses as kind
from pose_jax.evaluation.predictor import Predictor
from pose_jax.runs import model as model_lib
from pose_jax.types import Method, Poses
from pose_jax.weights import fetch
from pose_jax.weights.catalogue import RELEASES

DATA = {
    "coco": ("val2017", ("AP@", "AP50@", "AP75@", "PCK@")),
    "lsp_extended": ("5501-6000", ("PCK@", "PCP@")),
}
"""Data set to its split and the beginnings of the metrics that are shown."""

VARIANTS: dict[str, dict[str, object]] = {
    "argmax": {"decoder": "argmax"},
    "shift": {"decoder": "shift"},
    "dark, kernel 3": {"decoder": "dark", "kernel_size": 3},
    "dark, kernel 5": {"decoder": "dark", "kernel_size": 5},
    "dark, kernel 11": {"decoder": "dark", "kernel_size": 11},
    "offset of the best cell": {"decoder": "argmax_offset"},
    "Hough votes": {"decoder": "hough"},
    "density of votes": {"decoder": "density"},
}
ALONE = {"weighting": "none"}
"""For crops of one person: the highest peak, not that of the person in the middle."""


class Together:
    """Several variants of a run's method as one, whose network is computed once."""

    def __init__(self, methods: list[Method]) -> None:
        self.methods, self.view = methods, methods[0].view

    def predict(self, variables, inputs) -> Poses:
        poses = [method.predict(variables, inputs) for method in self.methods]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *poses)
        return dataclasses.replace(stacked, row=poses[0].row)


def available() -> Iterator[tuple[str, model_lib.LoadedRun]]:
    """Yields names and runs; prints which networks have no files here."""
    absent = []
    for name in RELEASES:
        run = Path("runs/published") / name
        if not (run / "model").exists():
            if not fetch.present(name):
                absent.append(name)
                continue
            try:
                print(fetch.fetch(name, run), "\n")
            except InputError as error:
                print(f"{name}: {error}\n")
                continue
        loaded = model_lib.load(run)
        if (
            loaded.keypoints is not None
            and loaded.manifest["converted"]["part"] == "whole"
        ):
            yield name, loaded
    print(f"without files here: {', '.join(absent)}")


def variants(loaded: model_lib.LoadedRun) -> dict[str, Method]:
    """Returns the variants that the run's method has; the published one is marked."""
    changes = {name: dict(values) for name, values in VARIANTS.items()}
    for name in ("argmax", "dark, kernel 5", "offset of the best cell"):
        changes[f"{name}, highest peak"] = changes[name] | ALONE
    found, published = {}, loaded.method()
    for name, values in changes.items():
        try:
            method = loaded.method(**values)
        except ConfigError:
            continue
        own = method.config == published.config and values["decoder"] == loaded.decoder
        found[f"{name} (published)" if own else name] = method
    return found


def table(loaded: model_lib.LoadedRun, data: str, root: str) -> list[str]:
    """Returns the table of a network as Markdown."""
    split, shown = DATA[data]
    people = loaded.eval_table(
        data=root, split=split, format=data, match_keypoints=data != "coco"
    )
    methods = variants(loaded)
    together = Predictor(Together(list(methods.values())), sharding.make_mesh())
    stacked = together(loaded.variables, people, loaded.input)
    base, lines, seen = None, [], []
    for i, name in enumerate(methods):
        one = lambda leaf, i=i: leaf[:, i] if leaf is not stacked.row else leaf
        poses = kind.matched(people, jax.tree.map(one, stacked), loaded.keypoints)
        if any(np.array_equal(poses.points_xy, each) for each in seen):
            continue  # PoseNet has nothing that chooses a person.
        seen.append(poses.points_xy)
        base = poses if base is None else base
        found = [
            each
            for each in compare.differences(people, base, poses)
            if each.name.startswith(shown)
        ]
        cells = [f"{each.b:.3f}" for each in found]
        if poses is not base:
            cells = [
                f"{cell} ({each.low:+.3f} to {each.high:+.3f})"
                for cell, each in zip(cells, found, strict=True)
            ]
        if not lines:
            lines = [
                ["decoder", *(each.name for each in found)],
                ["---"] * (len(found) + 1),
            ]
        lines.append([name, *cells])
    counted = f"{len(people.labelled_rows())} people of {len(people.images)} images"
    return [
        f"{counted}, {people.name}\n",
        *(f"| {' | '.join(cells)} |" for cells in lines),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=DATA)
    parser.add_argument("--root", required=True, help="the folder of the data set")
    args = parser.parse_args()
    for name, loaded in available():
        print(f"**{name}**\n", *table(loaded, args.data, args.root), "", sep="\n")


if __name__ == "__main__":
    main()
