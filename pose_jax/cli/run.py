"""Verbs for runs: train, eval, predict, report, export, info."""

from __future__ import annotations

import argparse
from pathlib import Path

from pose_jax.cli.options import (
    Parser,
    Run,
    checkpoint_option,
    comma_separated,
    config_option,
    given,
    load_config,
    numbers,
    weighting_option,
    width_x_height,
)
from pose_jax.errors import ConfigError


def train(parser: Parser) -> Run:
    """train a config in a run directory, or resume a stopped run"""
    config_option(parser)
    parser.option("--run", "run directory", Path, required=True)

    def run(args: argparse.Namespace) -> None:
        config = load_config(args)
        from pose_jax.training import train

        train.train(config, args.run)

    return run


def evaluate(parser: Parser) -> Run:
    """evaluate a trained model and write RUN/eval"""
    parser.option("--run", "run directory", Path)
    parser.option(
        "--decoder",
        "comma-separated decoders, e.g. argmax,shift,dark (default: from the config)",
        comma_separated,
        (),
    )
    parser.option(
        "--flip",
        "comma-separated flip tests, e.g. none,shift (default: from the config)",
        comma_separated,
        (),
    )
    weighting_option(parser)
    checkpoint_option(parser)
    parser.option("--data", "evaluation data folder (default: from the run's config)")
    parser.option("--split", "evaluation split (default: from the run's config)")
    parser.option("--annotations", "annotation file of --data or --split")
    parser.option("--format", "data set format of --data (default: the run's)")
    parser.add_argument(
        "--match-keypoints",
        action="store_true",
        help="if the data have another keypoint set than the model, compare the keypoints "
        "with the same name; their number is in the names of the metrics",
    )
    parser.option(
        "--boxes", '"gt" (default) or a COCO detections JSON file', default="gt"
    )
    parser.option(
        "--nms",
        "pose NMS, used with detected boxes only (default: from the run's config, oks)",
        choices=("none", "oks", "soft_oks"),
    )
    parser.option("--nms-threshold", "OKS threshold of --nms (default: 0.9)", float)
    parser.option(
        "--max-detections",
        "number of poses per image for a further AP (AP counts the best 20, as COCO does)",
        int,
        metavar="N",
    )
    parser.option(
        "--sigmas",
        "OKS sigmas for AP: one number for all keypoints, or one per keypoint separated by "
        "commas (default: those of the run's keypoint set)",
        numbers,
        metavar="S[,S...]",
    )
    parser.option(
        "--compare",
        "two runs to compare on the same people, with 95%% intervals (instead of --run)",
        nargs=2,
        metavar=("RUN_A[:DECODER]", "RUN_B[:DECODER]"),
    )
    parser.option("--out", "output folder (default: RUN/eval)", Path)

    def run(args: argparse.Namespace) -> None:
        if (args.run is None) == (args.compare is None):
            raise ConfigError("give either --run RUN or --compare RUN_A RUN_B.")
        if args.compare is not None and args.out is not None:
            raise ConfigError("--compare writes no files: omit --out.")
        if args.compare is not None and args.checkpoint is not None:
            raise ConfigError("--compare compares final models: omit --checkpoint.")
        names = "data", "split", "boxes", "annotations", "format", "match_keypoints"
        where = given(args, *names)
        if args.compare is not None:
            from pose_jax.evaluation import compare

            print(compare.compare(*args.compare, **where))
            return
        from pose_jax.evaluation import evaluate

        options = {"decoders": args.decoder, "flips": args.flip, **where}
        options |= given(args, "nms", "nms_threshold", "out")
        names = "max_detections", "weighting", "sigmas", "checkpoint"
        options |= given(args, *names, unset=False)
        evaluations = evaluate.evaluate_run(args.run, **options)
        print(evaluate.described(args.run, evaluations, args.out))

    return run


def predict(parser: Parser) -> Run:
    """predict poses in images or videos; write pictures of them and predictions.json"""
    parser.option(
        "images",
        "image files, folders of images, or patterns such as 'videos/**/*.jpg' (quoted); "
        "or videos",
        Path,
        nargs="+",
        metavar="IMAGE",
    )
    parser.option("--run", "run directory", Path, required=True)
    parser.option(
        "--boxes", "JSON file of person boxes: COCO detections or annotations", Path
    )
    parser.option(
        "--detector",
        "run directory of a person detector (instead of --boxes)",
        Path,
        metavar="RUN",
    )
    _detector_options(parser)
    parser.option(
        "--category", "name or id of people in --boxes, if it has several categories"
    )
    parser.option(
        "--exif",
        "which pixels boxes and points refer to, for images with an EXIF orientation: "
        "apply: the image as a viewer shows it; ignore: the pixels as stored (default: "
        "those of the size in --boxes, stored if both have it; without boxes, apply)",
        choices=("apply", "ignore"),
    )
    parser.option(
        "--min-score",
        "score below which boxes are left out and people are not drawn (default: none)",
        float,
    )
    parser.option(
        "--passes",
        "2: predict each person again, in the box of the keypoints found first; without "
        "--boxes and --detector (default: 1)",
        int,
        choices=(1, 2),
    )
    weighting_option(parser)
    _video_options(parser)
    checkpoint_option(parser)
    parser.option("--out", "output folder (default: RUN/predictions)", Path)

    def run(args: argparse.Namespace) -> int:
        from pose_jax import predict

        return predict.predict_run(
            args.run,
            args.images,
            boxes=args.boxes,
            out=args.out or args.run / "predictions",
            detector=args.detector,
            **given(args, *_DETECTED, *_ABOUT_PEOPLE, unset=False),
        )

    return run


_DETECTED = {
    "slots": ("maximum number of detections per image (default: 32)", int),
    "box_nms": ("IoU threshold for box NMS (default: 0.6)", float),
    "oks_nms": ("OKS threshold for pose NMS (default: 0.5)", float),
}


def _detector_options(parser: Parser) -> None:
    for name, (words, kind) in _DETECTED.items():
        option = f"--{name.replace('_', '-')}"
        parser.option(option, f"{words}, with --detector", kind)
    parser.option(
        "--rescoring",
        "score used to rank people: keypoint mean, box score, or their product (default: "
        "from the run's config), with --detector",
        choices=("pose", "box", "product"),
    )


def _video_options(parser: Parser) -> None:
    parser.add_argument(
        "--track",
        action="store_true",
        default=None,
        help="give people of a video ids: predictions.json has a track_id, and the csv is "
        "that of several animals",
    )
    parser.option(
        "--gap",
        "number of frames that a person may be missing and keep the id, with --track "
        "(default: 10)",
        int,
    )
    parser.option(
        "--suggest",
        "number of frames of a video to label next: those of low score, spread in time, "
        "in OUT/suggestions (default: none)",
        int,
        metavar="N",
    )


_ABOUT_PEOPLE = (
    "rescoring", "category", "exif", "min_score", "passes", "weighting", "checkpoint",
    "track", "gap", "suggest",
)  # fmt: skip


def report(parser: Parser) -> Run:
    """write RUN/report.html: scores, people, errors, curves and config in one file"""
    parser.option("run", "run directory", Path, metavar="RUN")
    parser.option(
        "--people",
        "maximum number of evenly spaced people (detectors: images) (default: 500)",
        int,
        500,
    )
    parser.option("--data", "evaluation data folder (default: from the run's config)")
    checkpoint_option(parser)

    def run(args: argparse.Namespace) -> None:
        from pose_jax.report import run as report

        options = given(args, "people", "data", "checkpoint")
        report.report(args.run, **options)

    return run


def info(parser: Parser) -> Run:
    """describe a run or a config: model, cost, data, scores"""
    parser.option("target", "run directory or config file", metavar="RUN|CONFIG.py")

    def run(args: argparse.Namespace) -> None:
        from pose_jax import info

        print(info.text(info.info(args.target)))

    return run


def export(parser: Parser) -> Run:
    """export a run, or a decoder alone, to files that run without pose_jax"""
    parser.option("--out", "folder to create", Path)
    parser.option("--run", "run directory whose network and decoder are exported", Path)
    parser.option(
        "--detector",
        "run directory of a detector: photographs in, people out (default: crops in)",
        Path,
    )
    parser.option(
        "--part",
        'part of the run: "network" (default), or "decoder", its decoder alone',
        choices=("network", "decoder"),
    )
    parser.option(
        "--format",
        '"jax" (default), "saved_model" for TensorFlow, or "tflite"',
        choices=("jax", "saved_model", "tflite"),
    )
    parser.option(
        "--decoder", "decoder, e.g. dark, argmax (default: the run's decoder, or dark)"
    )
    parser.option("--flip", "flip test, e.g. none (default: the run's)")
    parser.option(
        "--canvas",
        "size of photographs, with --detector (default: the detector's largest)",
        width_x_height,
    )
    parser.option("--slots", "people per photograph, with --detector", int)
    parser.add_argument(
        "--bfloat16", action="store_true", help="store weights in half the bytes"
    )
    parser.option("--sigma", "Gaussian blur sigma, in heatmap pixels", float)
    parser.option(
        "--kernel-size",
        "blur kernel size, in heatmap pixels (without --sigma: OpenCV's sigma)",
        int,
    )
    parser.option(
        "--refresh",
        "folder of an earlier export, to be written again by this version of JAX",
        Path,
        metavar="FILE",
    )

    def run(args: argparse.Namespace) -> None:
        _check_export(args)
        from pose_jax import export

        if args.refresh is not None:
            print(export.refresh(args.refresh))
        elif args.run is None or args.part == "decoder":
            options = given(args, "decoder", "run", "sigma", "kernel_size")
            print(export.export_decoder(args.out, **options))
        else:
            options = given(args, *_OF_NETWORKS, "decoder", unset=False)
            print(export.export_run(args.out, args.run, **options))

    return run


_OF_NETWORKS = ("detector", "format", "flip", "canvas", "slots", "bfloat16")
_OF_DECODERS = ("sigma", "kernel_size")


def _check_export(args: argparse.Namespace) -> None:
    """Raises ConfigError for options of the other kind of export."""
    names = {"run", "out", "part", "decoder", *_OF_NETWORKS, *_OF_DECODERS}
    unused, reason = set(), ""
    if args.refresh is not None:
        unused, reason = names, "--refresh takes no other option"
    elif args.out is None:
        raise ConfigError("--out is required, or --refresh.")
    elif args.run is None:
        unused = {"part", *_OF_NETWORKS}
        reason = "without --run a decoder is exported"
    elif args.part == "decoder":
        unused, reason = set(_OF_NETWORKS), "--part decoder exports the decoder alone"
    else:
        unused = set(_OF_DECODERS)
        reason = "they are set by --run; give these options or --run, not both"
    for name in sorted(unused):
        if getattr(args, name) not in (None, False):
            raise ConfigError(f"--{name.replace('_', '-')}: {reason}.")
