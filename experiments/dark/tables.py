"""DARK's tables for real data: numbers of the paper, and ours where they have been run.

    python -m experiments.dark.tables {coco,ablation,mpii} [--runs runs]

Reads the output of `pose-jax eval` for the runs of configs/dark/*.py and prints a table in
the layout of the paper. A row requires both of its variants, for example

    pose-jax train --config configs/dark/coco_hrnet_w32_128x96.py:biased \
      --run runs/coco_hrnet_w32_128x96_biased
    pose-jax eval --run runs/coco_hrnet_w32_128x96_biased --boxes DETECTIONS.json \
      --decoder argmax,shift,dark_unmodulated,dark_paper,dark --flip shift
    pose-jax train --config configs/dark/coco_hrnet_w32_128x96.py \
      --run runs/coco_hrnet_w32_128x96
    pose-jax eval --run runs/coco_hrnet_w32_128x96 --boxes DETECTIONS.json \
      --decoder shift,dark_paper,dark --flip plain

with the published detections (person AP 56.4) for COCO, and without --boxes for MPII.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from experiments.dark.decoders import DECODERS, markdown
from pose_jax.errors import InputError

NOT_RUN = "not yet run"

COCO = Path(__file__).with_name("paper_coco.csv")
"""The paper's table for COCO val2017; config is the part of a file name after "coco_"."""

COCO_METRICS = ("AP", "AP50", "AP75", "APm", "APl", "AR")

ABLATION = (
    # Encoding, decoder, AP in the paper, and its derivation.
    ("biased", "argmax", "61.2", "66.9 - 5.7, from the text"),
    ("biased", "shift", "66.9", ""),
    ("biased", "dark_unmodulated", "68.1", "68.4 - 0.3, from the text"),
    ("biased", "dark_paper", "68.4", "66.9 + 1.5, from the text"),
    ("biased", "dark", "", ""),
    ("unbiased", "shift", "", ""),
    ("unbiased", "dark_paper", "70.7", ""),
    ("unbiased", "dark", "", ""),
)
"""HRNet-W32 at 128x96 on COCO val2017."""

MPII = {
    "biased": (
        (97.1, 95.9, 90.3, 86.5, 89.1, 87.1, 83.3, 90.3),
        (51.1, 42.7, 42.0, 41.6, 17.9, 29.9, 31.0, 37.7),
    ),
    "unbiased": (
        (97.2, 95.9, 91.2, 86.7, 89.7, 86.7, 84.0, 90.6),
        (55.2, 47.8, 47.4, 45.2, 20.1, 33.4, 35.4, 42.0),
    ),
}
"""HRNet-W32 at 256x256 on the MPII validation set, without and with DARK: PCKh@0.5, and
the paper's PCKh@0.1, which its code computes at 0.11."""

MPII_JOINTS = {
    "Head": ("head_top",),
    "Sho": ("left_shoulder", "right_shoulder"),
    "Elb": ("left_elbow", "right_elbow"),
    "Wri": ("left_wrist", "right_wrist"),
    "Hip": ("left_hip", "right_hip"),
    "Knee": ("left_knee", "right_knee"),
    "Ank": ("left_ankle", "right_ankle"),
}


def _read(run: Path, source: str, names: Sequence[str], file: str):
    """Reads the first of these evaluations that exists; None if none does."""
    for name in names:
        path = run / "eval" / source / name / file
        if path.is_file():
            try:
                return json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise InputError(
                    f"{path} is not JSON ({error}): evaluate the run again."
                ) from None
    return None


def _run_of(runs: Path, config: str, encoding: str) -> Path:
    return runs / (config + "_biased" * (encoding == "biased"))


def _names(decoder: str, own: str) -> list[str]:
    """Returns the names of a decoder in `eval`, without and with the flip test."""
    return [decoder, f"{decoder}_flip_{own}"]


def _percent(found: Mapping[str, float] | None, metrics: Sequence[str]) -> list[str]:
    if found is None:
        return [NOT_RUN, *[""] * (len(metrics) - 1)]
    return [f"{100 * found[name]:.1f}" for name in metrics]


def coco(runs: Path) -> str:
    """Makes the COCO table: all networks without and with DARK."""
    metrics = [f"{name}@detections" for name in COCO_METRICS]
    head = ["network", "input", "#Par", "GFLOPs", "", *COCO_METRICS]
    head += [f"ours: {name}" for name in COCO_METRICS]
    rows = []
    lines = list(csv.reader(COCO.read_text(encoding="utf-8").splitlines()))
    for config, network, size, gflops, *values in lines[1:]:
        base, dark = values[:6], values[6:]
        for encoding, words, paper, decoders, flip in (
            ("biased", "baseline", base, ["shift"], "shift"),
            ("unbiased", "+ DARK", dark, ["dark_paper", "dark"], "plain"),
        ):
            names = [name for decoder in decoders for name in _names(decoder, flip)]
            run = _run_of(runs, f"coco_{config}", encoding)
            found = _read(run, "detections", names, "metrics.json")
            rows.append(
                [
                    *(network, config.rsplit("_", 1)[1], size, gflops, words),
                    *paper,
                    *_percent(found, metrics),
                ]
            )
    return markdown(head, rows)


def ablation(runs: Path) -> str:
    """Makes the ablation table: encodings and decoders of one network."""
    rows = []
    for encoding, decoder, paper, source in ABLATION:
        run = _run_of(runs, "coco_hrnet_w32_128x96", encoding)
        flip = "shift" if encoding == "biased" else "plain"
        found = _read(run, "detections", _names(decoder, flip), "metrics.json")
        rows.append(
            [
                encoding,
                DECODERS[decoder],
                paper,
                source,
                *_percent(found, ["AP@detections"]),
            ]
        )
    return markdown(["encoding", "decoding", "AP in the paper", "", "ours: AP"], rows)


def mpii(runs: Path) -> str:
    """Makes the MPII table: PCKh by joint at 0.5, and at 0.11, called 0.1 in the paper."""
    head = ["PCKh", "", *MPII_JOINTS, "Mean"]
    head += [f"ours: {joint}" for joint in [*MPII_JOINTS, "Mean"]]
    rows = []
    for column, threshold in enumerate(("0.5", "0.11")):
        for encoding, words in (("biased", "baseline"), ("unbiased", "+ DARK")):
            decoders = ["shift"] if encoding == "biased" else ["dark_paper", "dark"]
            flip = "shift" if encoding == "biased" else "plain"
            names = [name for decoder in decoders for name in _names(decoder, flip)]
            run = _run_of(runs, "mpii_hrnet_w32_256x256", encoding)
            metrics = _read(run, "gt_boxes", names, "metrics.json")
            joints = _read(run, "gt_boxes", names, "keypoints.json")
            found = None
            if metrics is not None and joints is not None:
                pckh = {row["name"]: row[f"PCKh@{threshold}"] for row in joints}
                found = {
                    joint: sum(pckh[name] for name in members) / len(members)
                    for joint, members in MPII_JOINTS.items()
                }
                found["Mean"] = metrics[f"PCKh@{threshold}@gt_boxes"]
            label = threshold if threshold == "0.5" else '0.11 ("0.1" in the paper)'
            rows.append(
                [
                    *(label, words),
                    *(f"{value:.1f}" for value in MPII[encoding][column]),
                    *_percent(found, [*MPII_JOINTS, "Mean"]),
                ]
            )
    return markdown(head, rows)


TABLES: Mapping[str, Callable[[Path], str]] = {
    "coco": coco,
    "ablation": ablation,
    "mpii": mpii,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    args = parser.parse_args(arguments)
    try:
        print(TABLES[args.table](args.runs))
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    print("\nColumns without 'ours' are from the paper.")


if __name__ == "__main__":
    main()
