"""Table and curves of a DeepPose run: PCP by limb and stage, PDJ by threshold.

    python -m experiments.deeppose.table --run RUN [--beside RUN] [--data ROOT]
        [--split SPLIT] [--out FOLDER]

Prints the paper's Table 1 (PCP at 0.5 of arms and legs after each stage), strict and loose,
next to the numbers of the paper, and the improvement of each stage with 95% intervals from
a paired bootstrap of images. With --out, it writes them to FOLDER/table.md, and the PDJ
curves to FOLDER/pdj.png. --beside adds a run of another method, e.g. of heatmaps, that was
evaluated on the same people.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.dark.decoders import SAMPLES, markdown, resample, with_interval
from pose_jax import sharding as sharding_lib
from pose_jax.data.table import Table
from pose_jax.drawing import curves as curves_lib
from pose_jax.errors import InputError
from pose_jax.evaluation import poses as measure
from pose_jax.evaluation.predictor import Predictor
from pose_jax.keypoints import LIMBS
from pose_jax.runs import model as model_lib
from pose_jax.types import Poses

PAPER = {
    "stage_1": ("0.50", "0.27", "0.74", "0.65", "0.54"),
    "stage_2": ("0.56", "0.36", "0.78", "0.70", "0.60"),
    "stage_3": ("0.56", "0.38", "0.77", "0.71", "0.61"),
}
"""Table 1 of the paper, LSP test images, quoted from memory: PCP of LIMBS, their mean."""

COMPARED = ("PCP_lower_arm@0.5", "PCP_limbs@0.5", "PCK@0.1", "PCK@0.2", "pixel_error")


def predict(
    run: Path | str, *, data: str | None = None, split: str | None = None
) -> tuple[Table, dict[str, Poses]]:
    """Returns the evaluation data of a run, and the poses after each of its stages.

    Raises:
      InputError: the run is of another method, or the data has no labels.
    """
    loaded = model_lib.load(run)
    if "stage_1" not in loaded.variables:
        raise InputError(f"{run} is not a run of method 'deeppose'.")
    table = loaded.eval_table(data=data, split=split)
    if not table.labelled:
        raise InputError(f"{table.name}: PCP requires labels.")
    mesh = sharding_lib.make_mesh()
    poses = {}
    for stage in sorted(loaded.variables):
        predictor = Predictor(loaded.method(stage), mesh)
        poses[stage] = predictor(loaded.variables, table, loaded.input)
    return table, poses


def predict_beside(
    run: Path | str, table: Table, *, data: str | None = None, split: str | None = None
) -> dict[str, Poses]:
    """Returns the poses of a run of another method on the same people, by method name.

    Raises:
      InputError: the run was evaluated on other people or boxes.
    """
    loaded = model_lib.load(run)
    other = loaded.eval_table(data=data, split=split)
    if other.fingerprint() != table.fingerprint():
        raise InputError(
            f"{run}: evaluated on {other.name} with boxes {other.box_source!r}, not on the "
            f"same people as {table.name} with boxes {table.box_source!r}."
        )
    method = loaded.method()
    predictor = Predictor(method, sharding_lib.make_mesh())
    name = f"{method.name}, {loaded.manifest['method']['model']['name']}"
    return {name: predictor(loaded.variables, table, loaded.input)}


def scores(table: Table, poses: Mapping[str, Poses]) -> str:
    """Makes the table of PCP by limb and stage: ours, strict and loose, and the paper's."""
    kinds = [*LIMBS, "limbs"]
    head = ["stage", *(f"{kind.replace('_', ' ')}, strict" for kind in LIMBS), "mean"]
    head += [f"{kind.replace('_', ' ')}, loose" for kind in LIMBS] + ["mean"]
    head += [f"paper, LSP test: {kind.replace('_', ' ')}" for kind in LIMBS]
    rows = []
    for stage, found in poses.items():
        values = measure.measure(table, found)
        names = [
            measure.full_name(f"{name}_{kind}", table, 0.5)
            for name in ("PCP", "PCP_loose")
            for kind in kinds
        ]
        own = [f"{values[name]:.3f}" if name in values else "" for name in names]
        rows.append([stage, *own, *PAPER.get(stage, [""] * 5)])
    return markdown([*head, "mean"], rows)


def differences(table: Table, poses: Mapping[str, Poses]) -> str:
    """Makes the table of differences of each stage to the previous and to the first one."""
    values = {stage: resample(table, [found]) for stage, found in poses.items()}
    stages = list(values)
    names = [
        name
        for wanted in COMPARED
        for name in values["stage_1"]
        if name.startswith(f"{wanted}@")
    ]
    own = [stage for stage in stages if stage.startswith("stage_")]
    pairs = list(itertools.pairwise(own))
    if len(own) > 2:
        pairs.append((own[0], own[-1]))
    pairs += [(own[-1], other) for other in stages[len(own) :]]
    rows = [
        [f"{b} - {a}", *(with_interval(values[b][n] - values[a][n]) for n in names)]
        for a, b in pairs
    ]
    rows = [
        *([stage, *(f"{values[stage][n][0]:.3f}" for n in names)] for stage in stages),
        *rows,
    ]
    return markdown(["", *names], rows)


def flips(table: Table, poses: Mapping[str, Poses]) -> str:
    """Makes the table of left-right confusions and their effect on PDJ."""
    rows = []
    for stage, found in poses.items():
        values = measure.measure(table, found)
        row = [stage]
        for name, threshold in (
            ("flipped_people", None),
            ("PDJ", 0.2),
            ("PDJ_unflipped", 0.2),
        ):
            full = measure.full_name(name, table, threshold)
            row.append(f"{values[full]:.3f}" if full in values else "")
        rows.append(row)
    head = ["", "flipped people", "PDJ@0.2", "PDJ@0.2, unflipped"]
    return markdown(head, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", required=True, help="run directory")
    parser.add_argument("--beside", help="run of another method, on the same people")
    parser.add_argument("--data", help="evaluation data folder")
    parser.add_argument("--split", help="evaluation split")
    parser.add_argument("--out", type=Path, help="folder for table.md and pdj.png")
    args = parser.parse_args(arguments)
    try:
        table, poses = predict(args.run, data=args.data, split=args.split)
        if args.beside:
            poses |= predict_beside(
                args.beside, table, data=args.data, split=args.split
            )
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    text = "\n\n".join(
        [
            scores(table, poses),
            differences(table, poses),
            flips(table, poses),
            f"{len(table.labelled_rows())} people in {len(table.images)} images of "
            f"{table.name}. The columns of the paper are for other people. In brackets: "
            f"95% intervals from {SAMPLES} paired bootstrap samples of images; bold: "
            "intervals that exclude 0.",
        ]
    )
    print(text)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "table.md").write_text(text + "\n", encoding="utf-8")
        curves = {
            stage: measure.pdj_curve(table, found) for stage, found in poses.items()
        }
        curves_lib.pdj_curves(
            curves, args.out / "pdj.png", thresholds=measure.PDJ_THRESHOLDS
        )


if __name__ == "__main__":
    main()
