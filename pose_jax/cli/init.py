"""The verb that writes a config: `pose-jax init`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pose_jax.cli.options import Parser, Run, given


def init(parser: Parser) -> Run:
    """write a commented config for data of your own, and one of a detector if needed"""
    parser.option("data", "data set folder in COCO's format", Path, metavar="DATA")
    parser.option("--out", "config to write, e.g. mine.py", Path, required=True)
    parser.option(
        "--start",
        "published weights to begin with, or scratch (default: auto, a network that suits "
        "this machine, and scratch if its weights cannot be had)",
        default="auto",
        choices=("auto", "scratch", "movenet_lightning", "movenet_thunder"),
    )
    parser.option(
        "--minutes", "time that training may take here (default: 20)", float, 20.0
    )
    parser.option("--split", "training split (default: train*, or the only one)")
    parser.option("--annotations", "annotation file of --split", Path)
    parser.option("--category", "name or id of the category, if there are several")
    parser.option(
        "--keypoints", "name or JSON file of the keypoint set (default: that of DATA)"
    )
    parser.option("--seed", "seed of the validation images (default: 0)", int, 0)

    def run(args: argparse.Namespace) -> None:
        from pose_jax import init

        names = "start", "minutes", "split", "annotations", "category", "keypoints"
        print(init.init(args.data, args.out, **given(args, *names, "seed")))

    return run
