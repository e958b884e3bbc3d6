"""Verbs for published weights: `pose-jax weights VERB`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pose_jax.cli.options import (
    Parser,
    Run,
    given,
    width_x_height,
)


def weights_convert(parser: Parser) -> Run:
    """convert published weights to a run directory"""
    parser.option(
        "file",
        ".safetensors or torch.save file, also of mmpose or transformers; the .index.json "
        "of a checkpoint in several files; for movenet_* and posenet_* the model.json of a "
        "TensorFlow.js graph model",
        Path,
        metavar="FILE",
    )
    parser.option("--model", "network name, e.g. hrnet_w32", required=True)
    parser.option("--out", "run directory to create", Path, required=True)
    parser.add_argument(
        "--backbone",
        action="store_true",
        help="convert an ImageNet backbone (torchvision's ResNet, HRNet's classifier, "
        "EfficientNet-Lite0) for train.init_from. Supported by simple_baseline_*, hrnet_*, "
        "and by efficientnet_lite0, resnet_regression_* and multipose_*, which have no "
        "complete published checkpoint",
    )
    parser.option(
        "--keypoints",
        "keypoint set, coco or mpii (default: that with this number of keypoints); for "
        "another set, or a .json file of one, the head is left out",
    )
    parser.option(
        "--input-size",
        "network input size (default: 192x256, mpii 256x256, hourglass 96x128, multipose "
        "and posenet 257x353, movenet_lightning 192x192, movenet_thunder 256x256)",
        width_x_height,
    )
    parser.option(
        "--sigma",
        "Gaussian sigma of the training targets, in heatmap pixels (default: 1 at 96x128, "
        "except hourglass_8: 2; 3 at 288x384; otherwise 2)",
        float,
    )
    parser.option(
        "--alignment",
        'alignment of crops and heatmaps: "stride" (default) for the HRNet and '
        'SimpleBaseline checkpoints, "aligned" for DarkPose and mmpose\'s UDP (default for '
        'hourglass and vitpose), "half_pixel" for half-pixel centers',
        choices=("stride", "aligned", "half_pixel"),
    )
    parser.option(
        "--decoder",
        'heatmap decoder: "shift" (default for alignment stride), "dark" (default for the '
        'others), "dark_paper" for mmpose\'s DARK',
    )
    parser.option(
        "--channels",
        "color order used in training (default: rgb for hrnet, vitpose, backbones and "
        "mmpose, otherwise bgr)",
        choices=("rgb", "bgr"),
    )
    parser.option(
        "--norm-epsilon",
        "epsilon of the norms of faster_rcnn_fpn_* (default: 0, as in torchvision's "
        "COCO_V1 networks; 1e-5 for a file whose norms were trained)",
        float,
    )
    parser.option(
        "--stride",
        "input pixels per cell of posenet_*: 16 (default) or 8, with the same weights",
        int,
        choices=(8, 16),
    )

    def run(args: argparse.Namespace) -> None:
        from pose_jax.weights import convert

        options = given(
            args,
            *("backbone", "input_size", "sigma", "alignment", "decoder", "channels"),
            "norm_epsilon",
        )
        options["keypoint_set"] = args.keypoints
        options["options"] = given(args, "stride", unset=False)
        print(convert.convert(args.file, args.model, args.out, **options))

    return run


def weights_list(parser: Parser) -> Run:
    """list published weights: settings, reported scores, sizes, licenses, files"""
    parser.option(
        "names",
        "weights to describe completely (default: a table of all)",
        nargs="*",
        metavar="NAME",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")

    def run(args: argparse.Namespace) -> None:
        from pose_jax.weights import listing

        print(listing.listing(args.names, as_json=args.json))

    return run


def weights_fetch(parser: Parser) -> Run:
    """download published weights and convert them to a run directory"""
    parser.option("name", "name from `pose-jax weights list`", metavar="NAME")
    parser.option("--out", "run directory to create", Path, required=True)
    parser.option("--model", "network, for a backbone of several (default: the first)")

    def run(args: argparse.Namespace) -> None:
        from pose_jax.weights import fetch

        print(fetch.fetch(args.name, args.out, network=args.model))

    return run
