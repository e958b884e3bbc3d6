"""Comparison of all decoders of one network, with intervals.

    python -m experiments.dark.decoders --run RUN [--flip none|plain|shift] [--data ROOT]
        [--split SPLIT] [--out FILE.md]

Prints a table of metrics by decoder, and differences between decoders with 95% intervals
from a paired bootstrap of images, as in `pose-jax eval --compare`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pose_jax import sharding as sharding_lib
from pose_jax.data.table import Table
from pose_jax.evaluation import compare
from pose_jax.evaluation.predictor import Predictor
from pose_jax.runs import model as model_lib
from pose_jax.types import Poses

DECODERS = {
    "argmax": "argmax",
    "shift": "shift by sign (HRNet's code)",
    "shift_second": "shift to the second maximum, eq. (8)",
    "dark_unmodulated": "DARK without modulation",
    "dark_paper": "DARK, paper",
    "dark": "DARK, robust",
}
"""Names of decoders, as in `--decoder`, and their descriptions."""

STEPS = (
    ("argmax", "shift"),
    ("argmax", "shift_second"),
    ("shift", "dark_paper"),
    ("dark_unmodulated", "dark_paper"),
    ("dark_paper", "dark"),
)
"""Pairs of decoders to compare: the second minus the first."""

SAMPLES = 1000

Values = Mapping[str, np.ndarray]
"""Values by metric, [1 + samples]: on the original and on the resampled images."""


def predict(
    run: Path | str,
    *,
    flip: str | None = None,
    data: str | None = None,
    split: str | None = None,
) -> tuple[Table, dict[str, Poses]]:
    """Returns the evaluation data of a run, and the poses of each decoder."""
    loaded = model_lib.load(run)
    table = loaded.eval_table(data=data, split=split)
    mesh = sharding_lib.make_mesh()
    poses = {}
    for decoder in DECODERS:
        predictor = Predictor(loaded.method(decoder, flip), mesh)
        poses[decoder] = predictor(loaded.variables, table, loaded.input)
    return table, poses


def resample(
    table: Table, poses: Sequence[Poses], *, samples: int = SAMPLES, seed: int = 0
) -> Values:
    """Computes metrics on the original and on resampled images.

    All calls with the same table and seed use the same samples, so that values can be
    subtracted.

    Args:
      table: the data.
      poses: predictions of one or several networks, whose metrics are averaged.
      samples: number of bootstrap samples.
      seed: random seed of the samples.
    """
    m = len(table.images)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(m, np.full(m, 1 / m), size=samples)
    counts = np.concatenate([np.ones((1, m), np.int64), drawn])
    each = [compare.per_image(table, one) for one in poses]
    return {
        name: np.mean([statistics[name](counts) for statistics in each], axis=0)
        for name in each[0]
    }


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Returns the value and the 95% interval of its samples."""
    low, high = np.nanquantile(values[1:], (0.025, 0.975))
    return float(values[0]), float(low), float(high)


def with_interval(values: np.ndarray, digits: int = 3) -> str:
    """Formats a difference; in bold if its interval excludes 0."""
    value, low, high = interval(values)
    text = f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Formats a Markdown table, the first column left-aligned, the others right-aligned."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def chosen(names: Sequence[str]) -> list[str]:
    """Selects the metrics to show: AP, if available, PCK, PCP, pixel error."""
    order = ("AP", "AP75", "PCKh@0.5", "PCKh@0.1", "PCK@0.05", "PCK@0.1", "PCK@0.2")
    order = (*order, "PCP@0.5", "pixel_error")
    return [name for shown in order for name in names if name.startswith(f"{shown}@")]


def report(table: Table, poses: Mapping[str, Poses]) -> str:
    """Makes both tables in Markdown."""
    values = {name: resample(table, [found]) for name, found in poses.items()}
    metrics = chosen(list(values["argmax"]))
    people = len(table.labelled_rows()) if table.labelled else len(table)
    first = markdown(
        ["decoder", *metrics],
        [
            [words, *(f"{values[name][metric][0]:.3f}" for metric in metrics)]
            for name, words in DECODERS.items()
        ],
    )
    second = markdown(
        ["difference", *metrics],
        [
            [
                f"{DECODERS[b]} - {DECODERS[a]}",
                *(with_interval(values[b][m] - values[a][m]) for m in metrics),
            ]
            for a, b in STEPS
        ],
    )
    note = (
        f"{people} people in {len(table.images)} images of {table.name}. In brackets: 95% "
        f"intervals from {SAMPLES} paired bootstrap samples of images; bold: intervals "
        "that exclude 0."
    )
    return f"{first}\n\n{second}\n\n{note}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", required=True, help="run directory")
    parser.add_argument("--flip", choices=("none", "plain", "shift"))
    parser.add_argument("--data", help="evaluation data folder")
    parser.add_argument("--split", help="evaluation split")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    args = parser.parse_args(arguments)
    text = report(*predict(args.run, flip=args.flip, data=args.data, split=args.split))
    print(text)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
