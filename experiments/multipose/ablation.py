"""MultiPose's ablation on synthetic people, several a picture; two seeds of each network.

    python -m experiments.multipose.ablation [--only decoders,auxiliary,others,radius,delta]
        [--seeds 0,1] [--steps N] [--runs runs/multipose_ablation]
        [--out experiments/multipose/ablation.md] [--smoke]

Makes the people, trains the network of `configs/multipose/synthetic.py` and its variants
one after the other, and writes tables of all people and of those who stand close together.
What is there already is kept: data are not made twice, trainings that were stopped go on.
`--only` trains and prints parts; each needs the base, and "decoders" nothing else.

Radius and delta are in pixels of the input, 97x73. The radii are 0.6, 1 and 1.5 times the
base's; the deltas are not scaled with the input: what 1 is at 353x257 is 0.3 here.
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
from pose_jax.runs import directory as run_directory
from pose_jax.types import Poses

CONFIG = "configs/multipose/synthetic.py"

BASE = "base"

DECODERS = {
    "argmax": "argmax of the discs, without offsets",
    "argmax_offset": "argmax, moved by its offset",
    "hough_subpixel": "votes, sub-pixel (not in the paper)",
}
"""Of the base, by what `--decoder` calls them. The base itself is read out by "hough"."""

VARIANTS: Mapping[str, Mapping[str, str]] = {
    "auxiliary": {"no_auxiliary": "method.auxiliary_weight=0"},
    "others": {
        "others_none": "method.others=none",
        "others_both": "method.others=both",
    },
    "radius": {"radius_4.3": "method.radius=4.3", "radius_10.7": "method.radius=10.7"},
    "delta": {"delta_0.3": "method.delta=0.3", "delta_3": "method.delta=3"},
}
"""Networks of their own, by part, and in what they differ from the base."""

PARTS = ("decoders", *VARIANTS)

WORDS = {
    BASE: "base: votes, others left out of the auxiliary map, R 7.1 px, delta 1 px",
    **DECODERS,
    "no_auxiliary": "no auxiliary loss",
    "others_none": "others left out of no map",
    "others_both": "others left out of both maps",
    "radius_4.3": "R 4.3 px",
    "radius_10.7": "R 10.7 px",
    "delta_0.3": "delta 0.3 px",
    "delta_3": "delta 3 px",
}

CROWDED = "close: "
"""Before the metrics' names: of `crowded` people alone."""

METRICS = (
    *(f"{name}@gt_boxes" for name in ("AP", "AP50", "AP75", "PCK@0.05", "PCK@0.1")),
    *(f"{CROWDED}{name}@gt_boxes" for name in ("AP", "PCK@0.1")),
)

PAPER = {
    "COCO": (64.9, 85.5, 71.3, 62.3, 70.0, 69.7),
    "COCO and its own images": (68.5, 87.1, 75.5, 65.8, 73.3, 73.3),
}
"""ResNet-101 at 353x257 on COCO test-dev with the paper's own detector, by training data:
AP, AP50, AP75, APm, APl, AR. Of its ablations no number could be checked."""

# ------------------------------------------------------------------------------ training


def trained(parts: Sequence[str]) -> dict[str, list[str]]:
    """The networks that these parts need, with their overrides; the base first."""
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
      directory: of the runs.
      seeds: of each network.
      parts: some of PARTS.
      steps: of each training; None: the config's.
      smoke: two steps on a few small pictures.

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
    found: dict[str, list[Path]] = {}
    # Seed by seed, so that a first table could be had half-way.
    for seed in seeds:
        for name, overrides in trained(parts).items():
            run = directory / f"{name}_seed{seed}"
            found.setdefault(name, []).append(run)
            words = [*overrides, f"--config.seed={seed}"]
            if steps is not None:
                words.append(f"--config.train.steps={steps}")
            if smoke:
                words.append("--config.input.reader=numpy")  # TensorFlow loads slowly.
            if not is_finished(run, config, words):
                # A process each: what one has compiled and cached is gone with it.
                subprocess.run(
                    [
                        *(sys.executable, "-m", "pose_jax", "train"),
                        *("--config", config, "--run", str(run), *words),
                    ],
                    check=True,
                )
    return found


def is_finished(run: Path, config: str, overrides: Sequence[str]) -> bool:
    """Whether a run has a model, of this very config."""
    if not (run / "model" / "manifest.json").is_file():
        return False
    wanted = json.loads(config_lib.to_json(config_lib.load(config, overrides)))
    there = json.loads((run / "config.json").read_text(encoding="utf-8"))
    return not config_lib.differences(wanted, there)


# ---------------------------------------------------------------------------- prediction


def predict(run: Path, decoders: Sequence[str]) -> tuple[Table, dict[str, Poses]]:
    """The evaluation people of a run, and what each decoder says of them."""
    loaded = run_directory.load(run)
    table = loaded.eval_table()
    mesh = sharding_lib.make_mesh()
    found = {}
    for decoder in decoders:
        predictor = Predictor(loaded.method(decoder), mesh)
        found[decoder] = predictor(loaded.variables, table, loaded.input)
    return table, found


def crowded(table: Table) -> np.ndarray:
    """[r] rows of people in whose box there is a labelled keypoint of somebody else."""
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
    """Some rows of a table alone, in all of its images, and the poses of these."""
    columns = ("image", "ids", "boxes_xyxy", "box_scores", "points_xy", "visibility")
    columns += ("areas", "crowd")
    people = {name: getattr(table, name)[rows] for name in columns}
    if table.head_sizes is not None:
        people["head_sizes"] = table.head_sizes[rows]
    number = np.full(len(table), -1, np.int32)
    number[rows] = np.arange(len(rows))
    found = []
    for one in poses:
        kept = jax.tree.map(lambda leaf, keep=number[one.row] >= 0: leaf[keep], one)
        found.append(dataclasses.replace(kept, row=number[kept.row]))
    return dataclasses.replace(table, **people), found


def metrics_of(table: Table, poses: Sequence[Poses], samples: int = SAMPLES) -> Values:
    """METRICS, averaged over networks, of the people as they are and of resampled images.

    Where nobody is crowded, the metrics of those are left out.
    """
    values = dict(resample(table, poses, samples=samples))
    rows = crowded(table)
    if len(rows):
        # As many images as before: their samples are the same.
        found = resample(*of_people(table, poses, rows), samples=samples)
        values |= {CROWDED + name: several for name, several in found.items()}
    return {name: values[name] for name in METRICS if name in values}


def measure(
    found: Mapping[str, Sequence[Path]], parts: Sequence[str] = PARTS
) -> tuple[dict[str, Values], dict[str, list[float]], str]:
    """Metrics of every network and decoder, by the keys of WORDS.

    Returns:
      the means over seeds with their samples; the AP of each seed; the people, in words.
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
        f"{len(table.labelled_rows())} people of {len(table.images)} images, "
        f"{len(crowded(table))} of them with a keypoint of somebody else in their box"
    )
    return means, single, people


# -------------------------------------------------------------------------------- tables


def _columns(means: Mapping[str, Values]) -> list[str]:
    return [name for name in METRICS if name in means[BASE]]


def _short(name: str) -> str:
    return name.removesuffix("@gt_boxes")


def scores(means: Mapping[str, Values], single: Mapping[str, Sequence[float]]) -> str:
    """A row for each network and decoder."""
    columns = _columns(means)
    rows = []
    for row in [name for name in WORDS if name in means]:
        cells = [f"{means[row][name][0]:.3f}" for name in columns]
        cells[0] += f" ({', '.join(f'{value:.3f}' for value in single[row])})"
        rows.append([WORDS[row], *cells])
    first, *others = map(_short, columns)
    return markdown(["", f"{first} (each seed)", *others], rows)


def differences(means: Mapping[str, Values]) -> str:
    """What each change makes of the base, with intervals."""
    columns = _columns(means)
    rows = []
    for row in [name for name in WORDS if name in means and name != BASE]:
        changes = (
            with_interval(means[row][name] - means[BASE][name]) for name in columns
        )
        rows.append([f"{WORDS[row]} - base", *changes])
    return markdown(["difference", *map(_short, columns)], rows)


def paper() -> str:
    """What the paper has of the whole system, on other people."""
    rows = [
        [data, *(f"{value:.1f}" for value in values)] for data, values in PAPER.items()
    ]
    head = ["the paper's: pose network trained on", *"AP AP50 AP75 APm APl AR".split()]
    return (
        f"{markdown(head, rows)}\n\nThe paper's numbers are those of ResNet-101 at "
        "353x257 on COCO test-dev, with boxes of its own detector: other people, another "
        "network, other boxes. None of them belongs to a row above."
    )


def report(
    means: Mapping[str, Values],
    single: Mapping[str, Sequence[float]],
    people: str,
    seeds: Sequence[int],
) -> str:
    """All tables, and what they are of."""
    note = (
        f"Means over trainings with seeds {', '.join(map(str, seeds))}, on {people}; "
        f'these are "{CROWDED.strip(": ")}". All metrics are @gt_boxes. In brackets '
        f"behind differences: 95% intervals, {SAMPLES} paired bootstrap samples of "
        "images, which say nothing of other seeds; bold: without 0."
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
    parser.add_argument("--steps", type=int, help="of each training")
    parser.add_argument("--runs", type=Path, help="default: runs/multipose_ablation")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--smoke", action="store_true", help="two steps of each")
    args = parser.parse_args(arguments)
    text = args.seeds or ("0" if args.smoke else "0,1")
    seeds = [int(seed) for seed in text.split(",")]
    # What a smoke run finds must not stand where the real one's belongs.
    directory = args.runs or Path("runs/multipose_ablation" + "_smoke" * args.smoke)
    out = args.out or (
        directory / "ablation.md" if args.smoke else Path(__file__).with_suffix(".md")
    )
    if args.smoke:  # Here and in the trainings: they compile much and run little.
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=0"
    try:
        found = train(
            directory, seeds, parts=args.only, steps=args.steps, smoke=args.smoke
        )
        content = report(*measure(found, args.only), seeds)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(error.returncode) from None  # Training has said why.
    print(content)
    write(out, content)


if __name__ == "__main__":
    main()
