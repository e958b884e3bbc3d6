"""Verbs for sweeps and for this machine: `pose-jax sweep VERB`, doctor."""

from __future__ import annotations

import argparse
from pathlib import Path

from pose_jax.cli.options import (
    Parser,
    Run,
    config_option,
    given,
)


def study_options(parser: Parser) -> None:
    parser.option(
        "--study",
        "study folder, or Optuna storage URL: postgresql://, mysql://, sqlite:///, "
        "redis://, grpc://HOST:PORT",
        required=True,
        metavar="DIR_OR_URL",
    )
    parser.option("--name", "study name (required with a storage URL)")
    parser.option(
        "--out",
        "run folder shared by all machines, with a storage URL (default: runs/NAME)",
        Path,
    )


def sweep_run(parser: Parser) -> Run:
    """run a hyperparameter sweep, or resume a study"""
    config_option(parser, required=False)
    parser.option("--sweep", "sweep file, which defines get_sweep", required=True)
    study_options(parser)
    parser.option("--trials", "total number of trials (default: complete grid)", int)
    parser.option("--workers", "number of parallel trainings (default: 1)", int, 1)
    parser.option(
        "--eval-only",
        "evaluate a trained run under different decoding settings instead of training "
        "(instead of --config)",
        metavar="RUN",
    )
    parser.option(
        "--boxes",
        'boxes for --eval-only: "gt" (default) or a COCO detections JSON file',
        default="gt",
    )

    def run(args: argparse.Namespace) -> None:
        from pose_jax.sweep import runner

        names = "config", "overrides", "eval_only", "boxes", "trials", "workers"
        options = given(args, *names, "name", "out")
        runner.run(args.sweep, args.study, **options)

    return run


def sweep_report(parser: Parser) -> Run:
    """write a sweep report: leaderboard, learning curves and importances in one file"""
    study_options(parser)
    parser.option(
        "--html", "HTML file to write (default: report.html in the study folder)", Path
    )

    def run(args: argparse.Namespace) -> None:
        from pose_jax.sweep import summary

        summary.report(args.study, name=args.name, out=args.out, file=args.html)

    return run


def doctor(parser: Parser) -> Run:
    """check this machine: versions, devices, memory, data folders"""
    parser.option("data", "data folders to check", Path, nargs="*")

    def run(args: argparse.Namespace) -> int:
        from pose_jax import doctor

        return doctor.doctor(args.data)

    return run
