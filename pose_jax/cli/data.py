"""Verbs for data sets: `pose-jax data VERB`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pose_jax.cli.options import (
    Parser,
    Run,
    comma_separated,
    config_option,
    given,
    load_config,
    width_x_height,
)
from pose_jax.errors import ConfigError


def data_synth(parser: Parser) -> Run:
    """generate a data set of synthetic people in COCO format"""
    parser.option("--out", "folder to write", Path, required=True)
    parser.option("--n", "number of training images (default: 200)", int, 200)
    parser.option("--val", "number of validation images (default: n / 8)", int)
    parser.option("--seed", "random seed (default: 0)", int, 0)
    parser.option("--size", "image size, e.g. 320x256", width_x_height)
    parser.option(
        "--difficulty",
        "easy: one upright, fully visible, front-facing person per image; crowd: several "
        "people who occlude each other (default: hard)",
        default="hard",
        choices=("hard", "easy", "crowd"),
    )

    def run(args: argparse.Namespace) -> None:
        from pose_jax.data.synthetic import scenes

        options = given(args, "n", "seed", "val", "difficulty")
        options |= given(args, "size", unset=False)
        # Starting a process pays off from about a hundred images on.
        options["workers"] = min(os.cpu_count() or 1, 1 + args.n // 100)
        print(scenes.write_dataset(args.out, **options))

    return run


def data_show(parser: Parser) -> Run:
    """draw the training inputs of a config: augmented images, keypoints, targets"""
    config_option(parser)
    parser.option("--out", "PNG file to write", Path, required=True)
    parser.option("--rows", "number of training inputs to draw (default: 24)", int, 24)

    def run(args: argparse.Namespace) -> None:
        config = load_config(args)
        from pose_jax.training import preview

        preview.show(config, args.out, args.rows)

    return run


def data_check(parser: Parser) -> Run:
    """check the files, labels and images of a data set for errors"""
    parser.option("root", "data set folder", Path, nargs="?", metavar="ROOT")
    config_option(parser, required=False)
    parser.option("--split", "split to check, e.g. val2017 (default: all splits)")
    parser.option("--format", "data set format (default: inferred from files in ROOT)")
    parser.option("--keypoints", "name of the keypoint set of a COCO annotation file")
    parser.option("--category", "name or id of the category of people in that file")
    parser.option("--annotations", "annotation file", Path)
    parser.option("--detections", "COCO detections JSON file", Path)
    parser.option(
        "--images",
        "headers: read the start and end of each image (default); full: decode all images",
        default="headers",
        choices=("headers", "full"),
    )

    def run(args: argparse.Namespace) -> int:
        names = "split", "format", "annotations", "detections", "category"
        options = given(args, *names)
        options["keypoint_set"] = args.keypoints
        if (args.config is None) == (args.root is None):
            raise ConfigError("give either ROOT or --config.")
        if args.config is not None and any(options.values()):
            raise ConfigError(
                "--config allows only --images; use all others with ROOT."
            )
        config = None if args.config is None else load_config(args)
        from pose_jax.data.check import run as check

        if config is not None:
            sources, need_images = check.config_sources(config), True
        else:
            # A split that was not requested may have labels without images.
            sources = check.sources(args.root, **options)
            need_images = args.split is not None
        exit_code = 0
        for source in sources:
            report = check.check(source, images=args.images, need_images=need_images)
            print(report.text())
            exit_code = max(exit_code, report.exit_code)
        return exit_code

    return run


def data_prepare(parser: Parser) -> Run:
    """pack data sets into a store of a few large files with checked records"""
    config_option(parser, required=False)
    parser.option("--format", "data set format, as in a config (instead of --config)")
    parser.option("--root", "data set folder")
    parser.option("--split", "split to pack, e.g. val2017")
    parser.option("--name", "data set name inside the store (default: the format)")
    parser.option("--out", "store folder", Path, required=True)

    def run(args: argparse.Namespace) -> None:
        single = (args.format, args.root, args.split)
        if not (all(single) if args.config is None else not any(single)):
            raise ConfigError("give either --config, or --format, --root and --split.")
        from pose_jax import config
        from pose_jax import data as data_lib

        sources = [dict(zip(("name", "root", "split"), single, strict=True))]
        if args.config is not None:
            data = load_config(args).get("data", {})
            sources = [dict(data[use]) for use in data]
        for i, section in enumerate(sources):
            if section not in sources[:i]:
                source = config.build(data_lib.SourceConfig, section, "config.data")
                print(data_lib.prepare_source(source, args.out, args.name))

    return run


def data_convert(parser: Parser) -> Run:
    """convert labels of CVAT, Label Studio, SLEAP and others to a data set, and back"""
    parser.option(
        "path",
        "export of the tool; with --to: output folder of predict, or a data set",
        Path,
        metavar="PATH",
    )
    parser.option(
        "--from",
        "labelling tool: cvat, deeplabcut (lightning-pose too), label-studio, labelme "
        "(X-AnyLabeling too), sleap, yolo-pose",
        dest="from_tool",
        metavar="TOOL",
    )
    parser.option(
        "--to",
        "tool to write for: coco, deeplabcut, label-studio, sleap, yolo-pose",
        dest="to_tool",
        metavar="TOOL",
    )
    parser.option("--out", "folder to write", Path, required=True)
    parser.option(
        "--names",
        "names of the keypoints in their order, e.g. snout,tail",
        comma_separated,
        (),
    )
    parser.option(
        "--images", "folder of the images, or the one Label Studio serves", Path
    )
    parser.option(
        "--label-config", "labelling configuration of Label Studio (XML)", Path
    )
    parser.add_argument(
        "--interpolated", action="store_true", help="poses between keyframes too (CVAT)"
    )
    parser.add_argument(
        "--predicted",
        action="store_true",
        help="predictions too, where nothing was labelled (SLEAP, Label Studio)",
    )
    parser.add_argument(
        "--copy", action="store_true", help="copies of the images instead of links"
    )
    parser.option("--split", "split of images that are in none (default: train)")

    def run(args: argparse.Namespace) -> None:
        if (args.from_tool is None) == (args.to_tool is None):
            raise ConfigError("give either --from or --to.")
        from pose_jax.data import convert

        names = "names", "images", "label_config", "interpolated", "predicted", "copy"
        options = convert.Options(**given(args, *names))
        where = args.path, args.out, options
        if args.to_tool is not None:
            if args.split is not None:
                raise ConfigError("--split is an option of --from.")
            print(convert.to_tool(args.to_tool, *where))
        else:
            rest = given(args, "split", unset=False)
            print(convert.from_tool(args.from_tool, *where, **rest))

    return run


def data_split(parser: Parser) -> Run:
    """divide a COCO annotation file into training and validation, by video"""
    parser.option("root", "data set folder", Path, metavar="ROOT")
    parser.option(
        "--out", "folder to write train.json and val.json", Path, required=True
    )
    parser.option(
        "--by",
        "group of images that stays together: video (default), the frames with one "
        "video_id, or of one folder and file name without its number; folder; image",
        default="video",
        choices=("video", "folder", "image"),
    )
    parser.option("--val", "fraction of validation images (default: 0.2)", float, 0.2)
    parser.option(
        "--test", "fraction of test images, for test.json (default: 0)", float, 0.0
    )
    parser.option("--seed", "random seed (default: 0)", int, 0)
    parser.option("--split", "split to divide (default: the only one)", dest="name")
    parser.option("--annotations", "annotation file of --split", Path)

    def run(args: argparse.Namespace) -> None:
        from pose_jax.data import split

        names = "by", "val", "test", "seed", "name", "annotations"
        print(split.split(args.root, args.out, **given(args, *names)))

    return run
