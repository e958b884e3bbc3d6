"""One network, all of its decoders, with intervals.

    python -m experiments.dark.decoders --run RUN [--flip none|plain|shift] [--data ROOT]
        [--split SPLIT] [--out FILE.md]

Prints a table of metrics by decoder, and the differences between some of them with their
95% intervals: a paired bootstrap of images, as of `pose-jax eval --compare`.
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
from pose_jax.runs import directory
from pose_jax.types import Poses

DECODERS = {
    "argmax": "argmax",
    "shift": "shift by sign (HRNet's code)",
    "shift_second": "shift to the second maximum, eq. (8)",
    "dark_unmodulated": "DARK without modulation",
    "dark_paper": "DARK, paper",
    "dark": "DARK, robust",
}
"""As `--decoder` names them, and in words."""

STEPS = (
    ("argmax", "shift"),
    ("argmax", "shift_second"),
    ("shift", "dark_paper"),
    ("dark_unmodulated", "dark_paper"),
    ("dark_paper", "dark"),
)
"""Which decoders are compared: the second minus the first."""

SAMPLES = 1000

Values = Mapping[str, np.ndarray]
"""By metric: [1 + samples], the value itself and those of the resampled images."""


def predict(
    run: Path | str,
    *,
    flip: str | None = None,
    data: str | None = None,
    split: str | None = None,
) -> tuple[Table, dict[str, Poses]]:
    """The evaluation people of a run, and what each decoder says of them."""
    loaded = directory.load(run)
    table = loaded.eval_table(data=data, split=split)
    mesh = sharding_lib.make_mesh()
    found = {}
    for decoder in DECODERS:
        predictor = Predictor(loaded.method(decoder, flip), mesh)
        found[decoder] = predictor(loaded.variables, table, loaded.input)
    return table, found


def resample(
    table: Table, poses: Sequence[Poses], *, samples: int = SAMPLES, seed: int = 0
) -> Values:
    """Metrics of the people as they are, and of resampled images.

    Samples are the same for every call with one table and seed, so that values may be
    subtracted.

    Args:
      table: the people.
      poses: predictions of one or several networks; their metrics are averaged.
      samples: of the bootstrap.
      seed: of the samples.
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
    """The value itself and the 95% interval of its samples."""
    low, high = np.nanquantile(values[1:], (0.025, 0.975))
    return float(values[0]), float(low), float(high)


def with_interval(values: np.ndarray, digits: int = 3) -> str:
    """A difference for a table; in bold if its interval has no 0 in it."""
    value, low, high = interval(values)
    text = f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, the first column to the left, the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def chosen(names: Sequence[str]) -> list[str]:
    """The metrics worth a column: AP if there is one, PCK, PCP, the error."""
    wanted = ("AP", "AP75", "PCKh@0.5", "PCKh@0.1", "PCK@0.05", "PCK@0.1", "PCK@0.2")
    order = (*wanted, "PCP@0.5", "pixel_error")
    return [name for want in order for name in names if name.startswith(f"{want}@")]


def report(table: Table, poses: Mapping[str, Poses]) -> str:
    """Both tables, in Markdown."""
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
        f"{people} people of {len(table.images)} images of {table.name}. In brackets: 95% "
        f"intervals, {SAMPLES} paired bootstrap samples of images; bold: without 0."
    )
    return f"{first}\n\n{second}\n\n{note}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", required=True, help="run directory")
    parser.add_argument("--flip", choices=("none", "plain", "shift"))
    parser.add_argument("--data", help="another folder of the evaluation data")
    parser.add_argument("--split", help="another split")
    parser.add_argument("--out", type=Path, help="Markdown file to write, too")
    args = parser.parse_args(arguments)
    text = report(*predict(args.run, flip=args.flip, data=args.data, split=args.split))
    print(text)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
