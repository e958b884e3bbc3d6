"""Ablation of DARK on synthetic people: encoding, input size, decoding; two seeds each.

    python -m experiments.dark.ablation [--runs runs/dark_ablation] [--seeds 0,1]
        [--out experiments/dark/ablation.md] [--smoke]

Generates the data, trains the networks of `configs/dark/synthetic.py` sequentially,
evaluates each with six decoders, and writes the tables. Existing data is reused, finished
trainings are skipped and stopped trainings are resumed.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.dark import decoders
from experiments.dark.decoders import DECODERS, Values
from pose_jax.data.synthetic import scenes
from pose_jax.errors import InputError

ENCODINGS = ("biased", "unbiased")
SIZES = ("128x96", "64x48")
"""Input sizes, height x width."""

Cell = tuple[str, str, str]
"""Encoding, input size, decoder."""

PAPER = {
    ("biased", "argmax"): "61.2",
    ("biased", "shift"): "66.9",
    ("biased", "dark_unmodulated"): "68.1",
    ("biased", "dark_paper"): "68.4",
    ("unbiased", "dark_paper"): "70.7",
}
"""AP of HRNet-W32 at 128x96 on COCO val2017 in the paper; 61.2, 68.1 and 68.4 are derived
from differences given in its text."""

METRICS = ("AP@gt_boxes", "AP75@gt_boxes", "PCK@0.05@gt_boxes", "pixel_error@gt_boxes")


def train(
    runs: Path, seeds: Sequence[int], *, smoke: bool
) -> dict[tuple[str, str], list[Path]]:
    """Trains all networks; returns the runs of each encoding and size, by seed."""
    if smoke:
        scenes.write_dataset(Path("data/smoke"), n=4, val=3, seed=0)
    else:
        done = scenes.write_dataset(
            Path("data/synthetic-easy"),
            n=6000,
            val=1000,
            seed=0,
            size=(192, 160),
            difficulty="easy",
            workers=2,
        )
        print(done, flush=True)
    trained: dict[tuple[str, str], list[Path]] = {}
    # Seed by seed, so that a table of one seed is possible early.
    for seed, size, encoding in itertools.product(seeds, SIZES[::-1], ENCODINGS):
        words = [encoding] * (encoding == "biased") + [size] * (size == "64x48")
        argument = ",".join([*words, *["smoke"] * smoke])
        config = "configs/dark/synthetic.py" + f":{argument}" * bool(argument)
        run = runs / f"{encoding}_{size}_seed{seed}"
        trained.setdefault((encoding, size), []).append(run)
        if not (run / "model" / "manifest.json").is_file():
            # Separate processes release compiled functions and caches.
            subprocess.run(
                [
                    *(sys.executable, "-m", "pose_jax", "train", "--config", config),
                    *("--run", str(run), f"--config.seed={seed}"),
                ],
                check=True,
            )
    return trained


def measure(
    found: Mapping[tuple[str, str], Sequence[Path]],
) -> tuple[dict[Cell, Values], dict[Cell, list[float]], str]:
    """Measures all networks and decoders.

    Returns:
      The means over seeds with their samples; the AP of each seed; a description of the
      data.
    """
    means: dict[Cell, Values] = {}
    single: dict[Cell, list[float]] = {}
    people = ""
    for (encoding, size), paths in found.items():
        poses: dict[str, list] = {name: [] for name in DECODERS}
        for path in paths:
            table, predicted = decoders.predict(path)
            for name, one in predicted.items():
                poses[name].append(one)
        for name, several in poses.items():
            cell = encoding, size, name
            means[cell] = decoders.resample(table, several)
            single[cell] = [
                float(decoders.resample(table, [one], samples=0)[METRICS[0]][0])
                for one in several
            ]
        people = f"{len(table.labelled_rows())} people in {len(table.images)} images"
    return means, single, people


def scores(means: Mapping[Cell, Values], single: Mapping[Cell, list[float]]) -> str:
    """Makes the table of the paper (encoding, decoding, AP), by input size."""
    head = ["encoding", "decoding"]
    for size in SIZES:
        head += [f"{size}: AP (each seed)", "AP75", "PCK@0.05", "error, px"]
    head.append("AP in the paper, COCO, HRNet-W32, 128x96")
    rows = []
    for encoding, decoder in itertools.product(ENCODINGS, DECODERS):
        row = [encoding, DECODERS[decoder]]
        for size in SIZES:
            cell = encoding, size, decoder
            ap, ap75, pck, error = (means[cell][name][0] for name in METRICS)
            seeds = ", ".join(f"{value:.3f}" for value in single[cell])
            row += [f"{ap:.3f} ({seeds})", f"{ap75:.3f}", f"{pck:.3f}", f"{error:.3f}"]
        rows.append([*row, PAPER.get((encoding, decoder), "")])
    return decoders.markdown(head, rows)


def differences(means: Mapping[Cell, Values]) -> str:
    """Makes a table of the effect of each component, with intervals, by input size."""

    def between(size, a, b, metric):
        values = [means[encoding, size, decoder] for encoding, decoder in (a, b)]
        return values[1][metric] - values[0][metric]

    pairs = {
        f"{DECODERS[b]} - {DECODERS[a]}, {encoding}": ((encoding, a), (encoding, b))
        for encoding, (a, b) in itertools.product(ENCODINGS, decoders.STEPS)
    }
    pairs |= {
        f"unbiased - biased, {DECODERS[decoder]}": (
            ("biased", decoder),
            ("unbiased", decoder),
        )
        for decoder in DECODERS
    }
    complete = ("biased", "shift"), ("unbiased", "dark")
    pairs["all of DARK: unbiased and robust - biased and shift"] = complete
    shown = METRICS[0], METRICS[2]
    head = ["difference"]
    head += [f"{size}: {name.rsplit('@', 1)[0]}" for size in SIZES for name in shown]
    rows = [
        [
            words,
            *(
                decoders.with_interval(between(size, *pair, metric))
                for size in SIZES
                for metric in shown
            ),
        ]
        for words, pair in pairs.items()
    ]
    large, small = (
        [between(size, *complete, metric) for metric in shown] for size in SIZES
    )
    gains = [
        f"{name.rsplit('@', 1)[0]} {decoders.with_interval(s - b)}"
        for name, s, b in zip(shown, small, large, strict=True)
    ]
    return (
        f"{decoders.markdown(head, rows)}\n\nGain of all of DARK at {SIZES[1]} minus "
        f"gain at {SIZES[0]}: {', '.join(gains)}."
    )


def write(out: Path, content: str) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(content + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/dark_ablation"))
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument(
        "--out", type=Path, default=Path("experiments/dark/ablation.md")
    )
    parser.add_argument("--smoke", action="store_true", help="two steps per network")
    args = parser.parse_args(arguments)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    try:
        means, single, people = measure(train(args.runs, seeds, smoke=args.smoke))
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(error.returncode) from None  # Training has printed the reason.
    text = (
        f"{scores(means, single)}\n\n{differences(means)}\n\nMeans over {len(seeds)} "
        f"trainings with seeds {args.seeds}, on {people} of the validation split. In "
        f"brackets after differences: 95% intervals from {decoders.SAMPLES} paired "
        "bootstrap samples of images, without the variation between seeds; bold: intervals "
        "that exclude 0."
    )
    print(text)
    write(args.out, text)


if __name__ == "__main__":
    main()
