"""Ablation of MultiPose on synthetic crowds, with two seeds per network.

    python -m experiments.multipose.ablation [--only decoders,auxiliary,others,radius,delta]
        [--seeds 0,1] [--steps N] [--runs runs/multipose_ablation]
        [--out experiments/multipose/ablation.md] [--smoke]

Generates the data, trains the network of `configs/multipose/synthetic.py` and its variants
sequentially, and writes tables for all people and for those close to other people. Existing
data is reused, finished trainings are skipped and stopped trainings are resumed. `--only`
selects parts; all parts train the base, "decoders" nothing else.

Radius and delta are in pixels of the input, 97x73. The radii are 0.6, 1 and 1.5 times that
of the base; the deltas are not scaled with the input: 1 at 353x257 corresponds to 0.3 here.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from experiments.dark.ablation import write
from experiments.dark.decoders import (
    SAMPLES,
    Values,
    markdown,
    resample,
    with_interval,
)
from pose_jax import config as config_lib
from pose_jax import sharding as sharding_lib
from pose_jax.data.synthetic import scenes
from pose_jax.data.table import Table
from pose_jax.errors import InputError
from pose_jax.evaluation.predictor import Predictor
from pose_jax.runs import model as model_lib
from pose_jax.types import Poses

CONFIG = "configs/multipose/synthetic.py"

BASE = "base"

DECODERS = {
    "argmax": "heatmap argmax, without offsets",
    "argmax_offset": "heatmap argmax + offset",
    "hough_subpixel": "Hough voting, sub-pixel (not in the paper)",
}
"""Other decoders of the base network by their `--decoder` name; the base uses "hough"."""

VARIANTS: Mapping[str, Mapping[str, str]] = {
    "auxiliary": {"no_auxiliary": "method.auxiliary_weight=0"},
    "others": {
        "others_none": "method.others=none",
        "others_both": "method.others=both",
    },
    "radius": {"radius_4.3": "method.radius=4.3", "radius_10.7": "method.radius=10.7"},
    "delta": {"delta_0.3": "method.delta=0.3", "delta_3": "method.delta=3"},
}
"""Separately trained networks by part, with their difference from the base."""

PARTS = ("decoders", *VARIANTS)

WORDS = {
    BASE: "base: Hough voting, others excluded from auxiliary map, R 7.1 px, delta 1 px",
    **DECODERS,
    "no_auxiliary": "no auxiliary loss",
    "others_none": "others excluded from no map",
    "others_both": "others excluded from both maps",
    "radius_4.3": "R 4.3 px",
    "radius_10.7": "R 10.7 px",
    "delta_0.3": "delta 0.3 px",
    "delta_3": "delta 3 px",
}

CROWDED = "close: "
"""Prefix of the metrics of `crowded` people."""

METRICS = (
    *(f"{name}@gt_boxes" for name in ("AP", "AP50", "AP75", "PCK@0.05", "PCK@0.1")),
    *(f"{CROWDED}{name}@gt_boxes" for name in ("AP", "PCK@0.1")),
)

PAPER = {
    "COCO": (64.9, 85.5, 71.3, 62.3, 70.0, 69.7),
    "COCO and its own images": (68.5, 87.1, 75.5, 65.8, 73.3, 73.3),
}
"""ResNet-101 at 353x257 on COCO test-dev with the paper's own detector, by training data:
AP, AP50, AP75, APm, APl, AR. The numbers of its ablations could not be verified."""

# ------------------------------------------------------------------------------ training


def trained(parts: Sequence[str]) -> dict[str, list[str]]:
    """Returns the networks of some parts with their overrides; the base is first."""
    return {BASE: []} | {
        name: [f"--config.{override}"]
        for part, variants in VARIANTS.items()
        if part in parts
        for name, override in variants.items()
    }


def train(
    directory: Path,
    seeds: Sequence[int],
    *,
    parts: Sequence[str] = PARTS,
    steps: int | None = None,
    smoke: bool = False,
) -> dict[str, list[Path]]:
    """Trains the networks of some parts.

    Args:
      directory: folder of the runs.
      seeds: seeds of each network.
      parts: some of PARTS.
      steps: steps of each training; None: from the config.
      smoke: two steps on a few small images.

    Returns:
      The runs of each network, by seed.
    """
    if smoke:
        scenes.write_dataset(Path("data/smoke"), n=4, val=3, seed=0)
    else:
        done = scenes.write_dataset(
            Path("data/synthetic-crowd"),
            n=5000,
            val=500,
            seed=0,
            workers=2,
            difficulty="crowd",
        )
        print(done, flush=True)
    config = CONFIG + ":smoke" * smoke
    runs: dict[str, list[Path]] = {}
    # Seed by seed, so that a table of one seed is possible early.
    for seed in seeds:
        for name, overrides in trained(parts).items():
            run = directory / f"{name}_seed{seed}"
            runs.setdefault(name, []).append(run)
            words = [*overrides, f"--config.seed={seed}"]
            if steps is not None:
                words.append(f"--config.train.steps={steps}")
            if smoke:
                words.append("--config.input.reader=numpy")  # TensorFlow loads slowly.
            if not is_finished(run, config, words):
                # Separate processes release compiled functions and caches.
                subprocess.run(
                    [
                        *(sys.executable, "-m", "pose_jax", "train"),
                        *("--config", config, "--run", str(run), *words),
                    ],
                    check=True,
                )
    return runs


def is_finished(run: Path, config: str, overrides: Sequence[str]) -> bool:
    """Returns whether a run has a model with exactly this config."""
    if not (run / "model" / "manifest.json").is_file():
        return False
    requested = json.loads(config_lib.to_json(config_lib.load(config, overrides)))
    stored = json.loads((run / "config.json").read_text(encoding="utf-8"))
    return not config_lib.differences(requested, stored)


# ---------------------------------------------------------------------------- prediction


def predict(run: Path, decoders: Sequence[str]) -> tuple[Table, dict[str, Poses]]:
    """Returns the evaluation data of a run, and the poses of each decoder."""
    loaded = model_lib.load(run)
    table = loaded.eval_table()
    mesh = sharding_lib.make_mesh()
    poses = {}
    for decoder in decoders:
        predictor = Predictor(loaded.method(decoder), mesh)
        poses[decoder] = predictor(loaded.variables, table, loaded.input)
    return table, poses


def crowded(table: Table) -> np.ndarray:
    """Returns [r] rows of people with a labeled keypoint of another person in their box."""
    rows = []
    for row in table.labelled_rows():
        others = table.people_of_image(table.image[row])
        others = others[others != row]
        points_xy = table.points_xy[others][table.visibility[others] > 0]
        low, high = np.split(table.boxes_xyxy[row], 2)
        if ((points_xy >= low) & (points_xy <= high)).all(-1).any():
            rows.append(row)
    return np.array(rows, np.int32)


def of_people(
    table: Table, poses: Sequence[Poses], rows: np.ndarray
) -> tuple[Table, list[Poses]]:
    """Selects rows of a table (keeping all images), and their poses."""
    columns = ("image", "ids", "boxes_xyxy", "box_scores", "points_xy", "visibility")
    columns += ("areas", "crowd")
    people = {name: getattr(table, name)[rows] for name in columns}
    if table.head_sizes is not None:
        people["head_sizes"] = table.head_sizes[rows]
    number = np.full(len(table), -1, np.int32)
    number[rows] = np.arange(len(rows))
    selected = []
    for one in poses:
        kept = jax.tree.map(lambda leaf, keep=number[one.row] >= 0: leaf[keep], one)
        selected.append(dataclasses.replace(kept, row=number[kept.row]))
    return dataclasses.replace(table, **people), selected


def metrics_of(table: Table, poses: Sequence[Poses], samples: int = SAMPLES) -> Values:
    """Returns METRICS, averaged over networks, on the original and on resampled images.

    The metrics of crowded people are omitted if there are none.
    """
    values = dict(resample(table, poses, samples=samples))
    rows = crowded(table)
    if len(rows):
        # The number of images is the same, hence also the bootstrap samples.
        of_crowded = resample(*of_people(table, poses, rows), samples=samples)
        values |= {CROWDED + name: several for name, several in of_crowded.items()}
    return {name: values[name] for name in METRICS if name in values}


def measure(
    found: Mapping[str, Sequence[Path]], parts: Sequence[str] = PARTS
) -> tuple[dict[str, Values], dict[str, list[float]], str]:
    """Measures all networks and decoders; results are by the keys of WORDS.

    Returns:
      The means over seeds with their samples; the AP of each seed; a description of the
      data.
    """
    poses: dict[str, list[Poses]] = {}
    table = None
    for name, paths in found.items():
        others = list(DECODERS) if name == BASE and "decoders" in parts else []
        for path in paths:
            table, predicted = predict(path, ["hough", *others])
            for decoder, one in predicted.items():
                row = name if decoder == "hough" else decoder
                poses.setdefault(row, []).append(one)
    assert table is not None
    means = {row: metrics_of(table, several) for row, several in poses.items()}
    single = {
        row: [
            float(resample(table, [one], samples=0)[METRICS[0]][0]) for one in several
        ]
        for row, several in poses.items()
    }
    people = (
        f"{len(table.labelled_rows())} people in {len(table.images)} images, "
        f"{len(crowded(table))} of them with a keypoint of another person in their box"
    )
    return means, single, people


# -------------------------------------------------------------------------------- tables


def _columns(means: Mapping[str, Values]) -> list[str]:
    return [name for name in METRICS if name in means[BASE]]


def _short(name: str) -> str:
    return name.removesuffix("@gt_boxes")


def scores(means: Mapping[str, Values], single: Mapping[str, Sequence[float]]) -> str:
    """Makes a table with one row per network and decoder."""
    columns = _columns(means)
    rows = []
    for row in [name for name in WORDS if name in means]:
        cells = [f"{means[row][name][0]:.3f}" for name in columns]
        cells[0] += f" ({', '.join(f'{value:.3f}' for value in single[row])})"
        rows.append([WORDS[row], *cells])
    first, *others = map(_short, columns)
    return markdown(["", f"{first} (each seed)", *others], rows)


def differences(means: Mapping[str, Values]) -> str:
    """Makes a table of differences from the base, with intervals."""
    columns = _columns(means)
    rows = []
    for row in [name for name in WORDS if name in means and name != BASE]:
        changes = (
            with_interval(means[row][name] - means[BASE][name]) for name in columns
        )
        rows.append([f"{WORDS[row]} - base", *changes])
    return markdown(["difference", *map(_short, columns)], rows)


def paper() -> str:
    """Makes a table of the paper's results for the complete system, on other data."""
    rows = [
        [data, *(f"{value:.1f}" for value in values)] for data, values in PAPER.items()
    ]
    head = ["the paper's: pose network trained on", *"AP AP50 AP75 APm APl AR".split()]
    return (
        f"{markdown(head, rows)}\n\nThe paper's numbers are for ResNet-101 at 353x257 on "
        "COCO test-dev, with boxes of its own detector: data, network and boxes differ "
        "from those of the rows above."
    )


def report(
    means: Mapping[str, Values],
    single: Mapping[str, Sequence[float]],
    people: str,
    seeds: Sequence[int],
) -> str:
    """Makes all tables and a description."""
    note = (
        f"Means over trainings with seeds {', '.join(map(str, seeds))}, on {people} "
        f'("{CROWDED.strip(": ")}"). All metrics are @gt_boxes. In brackets after '
        f"differences: 95% intervals from {SAMPLES} paired bootstrap samples of images, "
        "without the variation between seeds; bold: intervals that exclude 0."
    )
    tables = [scores(means, single)]
    if len(means) > 1:
        tables.append(differences(means))
    return "\n\n".join([*tables, note, paper()])


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    for part in parts:
        if part not in PARTS:
            near = difflib.get_close_matches(part, PARTS, n=1, cutoff=0.0)
            raise argparse.ArgumentTypeError(
                f"no part {part!r}; there are {', '.join(PARTS)}. "
                f"Did you mean {near[0]!r}?"
            )
    return parts


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", type=_parts, default=list(PARTS), metavar="PARTS")
    parser.add_argument("--seeds", help="default: 0,1; with --smoke: 0")
    parser.add_argument("--steps", type=int, help="steps of each training")
    parser.add_argument("--runs", type=Path, help="default: runs/multipose_ablation")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--smoke", action="store_true", help="two steps per network")
    args = parser.parse_args(arguments)
    text = args.seeds or ("0" if args.smoke else "0,1")
    seeds = [int(seed) for seed in text.split(",")]
    # Smoke results must not overwrite the real ones.
    directory = args.runs or Path("runs/multipose_ablation" + "_smoke" * args.smoke)
    out = args.out or (
        directory / "ablation.md" if args.smoke else Path(__file__).with_suffix(".md")
    )
    if args.smoke:  # Mostly compile time, here and in the trainings.
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=0"
    try:
        runs = train(
            directory, seeds, parts=args.only, steps=args.steps, smoke=args.smoke
        )
        content = report(*measure(runs, args.only), seeds)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(error.returncode) from None  # Training has printed the reason.
    print(content)
    write(out, content)


if __name__ == "__main__":
    main()
