"""The command line: `pose-jax VERB`, one thin function a verb.

A verb's function declares its options and returns what runs; that imports the verb's
module, so that help, version and mistakes cost nothing. What is the user's to mend is
one line on stderr: exit code 2 for the command line or a config, 1 for data. Anything
else keeps its traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pose_jax._version import __version__
from pose_jax.errors import ConfigError, InputError, Stopped, did_you_mean, disk_full

Run = Callable[[argparse.Namespace], int | None]


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with the nearest option that there is."""

    def __init__(self, **kwargs: Any) -> None:
        self.options: list[str] = []
        super().__init__(allow_abbrev=False, **kwargs)

    def add_argument(self, *args: Any, **kwargs: Any) -> argparse.Action:
        action = super().add_argument(*args, **kwargs)
        self.options += action.option_strings
        return action

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see `{self.prog} --help`.")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Like parse_args; `overrides` takes the words of config overrides."""
        words, overrides = list(words), []
        if "--config" in self.options:
            words, overrides = split_overrides(words)
        for word in words:
            name = word.split("=")[0]
            if name.startswith("--") and len(name) > 2 and name not in self.options:
                self.error(f"no option {name}.{did_you_mean(name, self.options)}")
        args = self.parse_args(words)
        args.overrides = overrides
        return args


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Parts the words of config overrides from all others; nothing is checked here.

    An override is "--config.a.b=VALUE", or "--config.a.b" and then "VALUE".
    """
    rest, overrides = [], []
    value_follows = False
    for word in words:
        if word.startswith("--config.") or (
            value_follows and not word.startswith("--")
        ):
            overrides.append(word)
            value_follows = word.startswith("--") and "=" not in word
        else:
            rest.append(word)
            value_follows = False
    return rest, overrides


def _size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT to (width, height)."""
    width, height = (int(part) for part in text.lower().split("x"))
    if min(width, height) < 1:
        raise ValueError
    return width, height


_size.__name__ = "WIDTHxHEIGHT"  # argparse's word for it: "invalid WIDTHxHEIGHT value".


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _config_option(parser: _Parser, required: bool = True) -> None:
    parser.add_argument(
        "--config",
        required=required,
        help="a config file, FILE.py or FILE.py:ARGUMENT; --config.KEY=VALUE overrides "
        "one value, for example --config.optimizer.lr=3e-4",
    )


def _config(args: argparse.Namespace) -> Any:
    from pose_jax import config

    return config.load(args.config, args.overrides)


# -------------------------------------------------------------------------------- verbs


def _data_synth(parser: _Parser) -> Run:
    """make a data set of synthetic people, in COCO's form"""
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--n", type=int, default=200, help="training images")
    parser.add_argument("--val", type=int, help="validation images (default: n / 8)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=_size, help="of an image, for example 320x256")
    parser.add_argument(
        "--difficulty",
        choices=("hard", "easy", "crowd"),
        default="hard",
        help="easy: one person a picture, upright, whole, from the front; crowd: mostly "
        "several such, before one another (default: hard)",
    )

    def run(args: argparse.Namespace) -> None:
        from pose_jax.data.synthetic import scenes

        options = {} if args.size is None else {"size": args.size}
        options["difficulty"] = args.difficulty
        # A process is worth its start for a hundred pictures or more.
        options["workers"] = min(os.cpu_count() or 1, 1 + args.n // 100)
        print(
            scenes.write_dataset(
                args.out, n=args.n, seed=args.seed, val=args.val, **options
            )
        )

    return run


def _data_show(parser: _Parser) -> Run:
    """draw what a config trains on: augmented inputs, keypoints, targets"""
    _config_option(parser)
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument("--rows", type=int, default=24, help="people to draw")

    def run(args: argparse.Namespace) -> None:
        config = _config(args)
        from pose_jax.training import preview

        preview.show(config, args.out, args.rows)

    return run


def _data_check(parser: _Parser) -> Run:
    """look for everything that is wrong with a data set: files, labels, images"""
    parser.add_argument("root", nargs="?", type=Path, metavar="ROOT")
    _config_option(parser, required=False)
    parser.add_argument("--split", help="for example val2017 (default: all there are)")
    parser.add_argument(
        "--format",
        choices=("coco", "mpii", "lsp", "lsp_extended", "flic"),
        help="default: by the files in ROOT",
    )
    parser.add_argument(
        "--keypoints",
        choices=("coco", "mpii", "lsp", "flic"),
        help="the set that a COCO json follows (default: coco)",
    )
    parser.add_argument("--annotations", type=Path, help="the file of labels")
    parser.add_argument("--detections", type=Path, help="a COCO detections json")
    parser.add_argument(
        "--images",
        choices=("headers", "full"),
        default="headers",
        help="read headers and ends of images (the default), or decode all",
    )

    def run(args: argparse.Namespace) -> int:
        said = {
            "split": args.split,
            "format": args.format,
            "keypoint_set": args.keypoints,
            "annotations": args.annotations,
            "detections": args.detections,
        }
        if (args.config is None) == (args.root is None):
            raise ConfigError("give either ROOT or --config.")
        if args.config is not None and any(said.values()):
            raise ConfigError(
                "--config says all but --images; the rest goes with ROOT."
            )
        config = None if args.config is None else _config(args)
        from pose_jax.data.check import run as check

        if config is not None:
            found, need_images = check.config_sources(config), True
        else:
            # A split that was not asked for may be labels alone.
            found = check.sources(args.root, **said)
            need_images = args.split is not None
        exit_code = 0
        for source in found:
            report = check.check(source, images=args.images, need_images=need_images)
            print(report.text())
            exit_code = max(exit_code, report.exit_code)
        return exit_code

    return run


def _data_prepare(parser: _Parser) -> Run:
    """pack data sets into a store of checked records: a few large files"""
    _config_option(parser, required=False)
    parser.add_argument(
        "--format", help="instead of --config: a kind of data set, for example coco"
    )
    parser.add_argument("--root", help="its folder")
    parser.add_argument("--split", help="for example val2017")
    parser.add_argument("--name", help="of the data set in the store (default: format)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the store")

    def run(args: argparse.Namespace) -> None:
        single = (args.format, args.root, args.split)
        if not (all(single) if args.config is None else not any(single)):
            raise ConfigError("give either --config or --format, --root and --split.")
        from pose_jax import config
        from pose_jax import data as data_lib

        sources = [dict(zip(("name", "root", "split"), single, strict=True))]
        if args.config is not None:
            data = _config(args).get("data", {})
            sources = [dict(data[use]) for use in data]
        for i, section in enumerate(sources):
            if section not in sources[:i]:
                source = config.build(data_lib.SourceConfig, section, "config.data")
                print(data_lib.prepare_source(source, args.out, args.name))

    return run


def _train(parser: _Parser) -> Run:
    """train a config in a run directory; goes on where it was stopped"""
    _config_option(parser)
    parser.add_argument("--run", type=Path, required=True, help="run directory")

    def run(args: argparse.Namespace) -> None:
        config = _config(args)
        from pose_jax.training import train

        train.train(config, args.run)

    return run


def _eval(parser: _Parser) -> Run:
    """measure a trained model; writes RUN/eval"""
    parser.add_argument("--run", type=Path, help="run directory")
    parser.add_argument(
        "--decoder",
        type=_names,
        default=(),
        help="read-outs of the network, for example argmax,shift,dark "
        "(default: the config's)",
    )
    parser.add_argument(
        "--flip",
        type=_names,
        default=(),
        help="flip tests, for example none,shift (default: the config's)",
    )
    parser.add_argument("--data", help="another folder of the evaluation data")
    parser.add_argument("--split", help="another split, for example val2017")
    parser.add_argument(
        "--boxes", default="gt", help='"gt" (the default) or a COCO detections json'
    )
    parser.add_argument(
        "--nms",
        choices=("none", "oks", "soft_oks"),
        help="of poses on boxes of a detector (default: the config's, oks)",
    )
    parser.add_argument("--nms-threshold", type=float, help="OKS (default: 0.9)")
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar=("RUN_A[:DECODER]", "RUN_B[:DECODER]"),
        help="instead: differences of two runs on the same people, with 95%% intervals",
    )

    def run(args: argparse.Namespace) -> None:
        if (args.run is None) == (args.compare is None):
            raise ConfigError("give either --run RUN or --compare RUN_A RUN_B.")
        if args.compare is not None:
            from pose_jax.evaluation import compare

            where = {"data": args.data, "split": args.split, "boxes": args.boxes}
            print(compare.compare(*args.compare, **where))
            return
        from pose_jax.evaluation import evaluate

        evaluate.evaluate_run(
            args.run,
            decoders=args.decoder,
            flips=args.flip,
            data=args.data,
            split=args.split,
            boxes=args.boxes,
            nms=args.nms,
            nms_threshold=args.nms_threshold,
        )

    return run


def _predict(parser: _Parser) -> Run:
    """find poses in images; writes pictures and predictions.json"""
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--run", type=Path, required=True, help="run directory")
    parser.add_argument(
        "--boxes",
        type=Path,
        help="json of person boxes: COCO detections or annotations",
    )
    parser.add_argument(
        "--detector",
        type=Path,
        metavar="RUN",
        help="run directory of a detector that finds the people, instead of --boxes",
    )
    parser.add_argument(
        "--slots",
        type=int,
        help="with --detector: people an image, at most (default: 32)",
    )
    parser.add_argument(
        "--box-nms", type=float, help="with --detector: IoU of two boxes (default: 0.6)"
    )
    parser.add_argument(
        "--oks-nms", type=float, help="with --detector: OKS of two poses (default: 0.5)"
    )
    parser.add_argument(
        "--rescoring",
        choices=("pose", "box", "product"),
        help="with --detector: what people are ranked by (default: as the run says)",
    )
    parser.add_argument("--out", type=Path, help="folder (default: RUN/predictions)")

    def run(args: argparse.Namespace) -> int:
        from pose_jax import predict

        out = args.out or args.run / "predictions"
        options = {
            name: getattr(args, name)
            for name in ("slots", "box_nms", "oks_nms", "rescoring")
            if getattr(args, name) is not None
        }
        return predict.predict_run(
            args.run,
            args.images,
            boxes=args.boxes,
            out=out,
            detector=args.detector,
            **options,
        )

    return run


def _report(parser: _Parser) -> Run:
    """write RUN/report.html: curves, scores, errors, people, config, in one file"""
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument(
        "--people",
        type=int,
        default=500,
        help="predict at most so many, of a detector so many images, evenly spaced "
        "(default: 500)",
    )
    parser.add_argument("--data", help="another folder of the evaluation data")

    def run(args: argparse.Namespace) -> None:
        from pose_jax.report import run as report

        report.report(args.run, people=args.people, data=args.data)

    return run


def _info(parser: _Parser) -> Run:
    """say what a run or a config is: model, cost, data, scores"""
    parser.add_argument("target", metavar="RUN|CONFIG.py")

    def run(args: argparse.Namespace) -> None:
        from pose_jax import info

        print(info.text(info.info(args.target)))

    return run


def _weights_convert(parser: _Parser) -> Run:
    """make a run directory of published PyTorch weights"""
    parser.add_argument(
        "file", type=Path, metavar="FILE", help=".safetensors, or .pth of torch.save"
    )
    parser.add_argument("--model", required=True, help="for example hrnet_w32")
    parser.add_argument("--out", type=Path, required=True, help="run directory to make")
    parser.add_argument(
        "--backbone",
        action="store_true",
        help="FILE is torchvision's ResNet or HRNet's network for ImageNet: a start for "
        "train.init_from. Taken by simple_baseline_*, hrnet_*, and by resnet_regression_* "
        "and multipose_*, for which there is nothing else",
    )
    parser.add_argument(
        "--keypoints",
        choices=("coco", "mpii"),
        help="default: the set of as many keypoints",
    )
    parser.add_argument(
        "--input-size",
        type=_size,
        help="the network was trained at (default: 192x256, for mpii 256x256, for "
        "hourglass 96x128, for multipose 257x353)",
    )
    parser.add_argument(
        "--sigma",
        type=float,
        help="of its targets, heatmap pixels (default: 1 at 96x128, for "
        "hourglass_8 2; 3 at 288x384; else 2)",
    )
    parser.add_argument(
        "--alignment",
        choices=("stride", "aligned"),
        help="of crops and heatmaps: \"stride\" for HRNet's and SimpleBaseline's own "
        'weights (the default), "aligned" for DarkPose\'s (the default for hourglass)',
    )
    parser.add_argument(
        "--channels",
        choices=("rgb", "bgr"),
        help="order of the colours it was trained on (default: as published, rgb for "
        "hrnet and backbones, else bgr)",
    )

    def run(args: argparse.Namespace) -> None:
        from pose_jax.weights import convert

        print(
            convert.convert(
                args.file,
                args.model,
                args.out,
                backbone=args.backbone,
                keypoint_set=args.keypoints,
                input_size=args.input_size,
                sigma=args.sigma,
                alignment=args.alignment,
                channels=args.channels,
            )
        )

    return run


def _export(parser: _Parser) -> Run:
    """write a decoder as one file that JAX runs without pose_jax"""
    parser.add_argument(
        "--decoder", help="for example dark, argmax (default: the run's, else dark)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--run",
        type=Path,
        help="run directory that sigma and kernel size are taken from",
    )
    parser.add_argument("--sigma", type=float, help="of the blur, heatmap pixels")
    parser.add_argument(
        "--kernel-size", type=int, help="of the blur, heatmap pixels (alone: OpenCV's)"
    )

    def run(args: argparse.Namespace) -> None:
        from pose_jax import export

        print(
            export.export_decoder(
                args.out,
                decoder=args.decoder,
                run=args.run,
                sigma=args.sigma,
                kernel_size=args.kernel_size,
            )
        )

    return run


def _study_options(parser: _Parser) -> None:
    parser.add_argument(
        "--study",
        required=True,
        metavar="DIR_OR_URL",
        help="folder of the study, or an Optuna storage: postgresql://, mysql://, "
        "sqlite:///, redis://, grpc://HOST:PORT",
    )
    parser.add_argument("--name", help="of the study, in a storage")
    parser.add_argument(
        "--out",
        type=Path,
        help="with a storage: folder of the runs, shared by all machines (default: "
        "runs/NAME)",
    )


def _sweep_run(parser: _Parser) -> Run:
    """train a config with many values of its settings; goes on where it was stopped"""
    _config_option(parser, required=False)
    parser.add_argument("--sweep", required=True, help="file with get_sweep")
    _study_options(parser)
    parser.add_argument(
        "--trials", type=int, help="of the whole study (default: all of a grid)"
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="trainings at once (default: 1)"
    )
    parser.add_argument(
        "--eval-only",
        metavar="RUN",
        help="instead of --config: read out the network of a run, train nothing",
    )
    parser.add_argument(
        "--boxes",
        default="gt",
        help='with --eval-only: "gt" (the default) or a COCO detections json',
    )

    def run(args: argparse.Namespace) -> None:
        from pose_jax.sweep import runner

        runner.run(
            args.sweep,
            args.study,
            config=args.config,
            overrides=args.overrides,
            eval_only=args.eval_only,
            boxes=args.boxes,
            trials=args.trials,
            workers=args.workers,
            name=args.name,
            out=args.out,
        )

    return run


def _sweep_report(parser: _Parser) -> Run:
    """write the leaderboard of a sweep: ranks, curves, importances, in one file"""
    _study_options(parser)
    parser.add_argument(
        "--html", type=Path, help="file to write (default: report.html in the folder)"
    )

    def run(args: argparse.Namespace) -> None:
        from pose_jax.sweep import summary

        summary.report(args.study, name=args.name, out=args.out, file=args.html)

    return run


def _doctor(parser: _Parser) -> Run:
    """check this machine: versions, devices, memory, data folders"""
    parser.add_argument("data", nargs="*", type=Path, help="data folders to look at")

    def run(args: argparse.Namespace) -> int:
        from pose_jax import doctor

        return doctor.doctor(args.data)

    return run


VERBS: dict[str, Callable[[_Parser], Run]] = {
    "data synth": _data_synth,
    "data show": _data_show,
    "data check": _data_check,
    "data prepare": _data_prepare,
    "train": _train,
    "eval": _eval,
    "predict": _predict,
    "report": _report,
    "info": _info,
    "weights convert": _weights_convert,
    "export": _export,
    "sweep run": _sweep_run,
    "sweep report": _sweep_report,
    "doctor": _doctor,
}


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = (f"  {name:{width}}  {verb.__doc__}" for name, verb in VERBS.items())
    return "\n".join(
        [
            "usage: pose-jax VERB [options]",
            "",
            "2D human pose estimation in JAX.",
            "",
            *verbs,
            "",
            "pose-jax VERB --help   the options of a verb",
            "pose-jax --version",
        ]
    )


def _find_verb(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The verb that `words` begin with, and what follows it."""
    for count in (2, 1):
        if " ".join(words[:count]) in VERBS:
            return " ".join(words[:count]), words[count:]
    group = [name for name in VERBS if name.startswith(f"{words[0]} ")]
    if group and (len(words) == 1 or words[1].startswith("-")):
        raise ConfigError(f"{words[0]}: say which one: {', '.join(group)}.")
    given = " ".join(words[:2]) if group else words[0]
    near = did_you_mean(given, group or VERBS)
    raise ConfigError(f"no verb {given!r}.{near} See pose-jax --help.")


def _run(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"pose-jax {__version__}")
        return 0
    name, rest = _find_verb(words)
    parser = _Parser(prog=f"pose-jax {name}", description=VERBS[name].__doc__)
    run = VERBS[name](parser)
    return run(parser.parse(rest)) or 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code."""
    try:
        return _run(sys.argv[1:] if argv is None else list(argv))
    except InputError as error:
        print(f"pose-jax: error: {error}", file=sys.stderr)
        return error.exit_code
    except Stopped as note:
        print(f"pose-jax: {note}")
        return note.exit_code
    except OSError as error:
        reason = disk_full(error)
        if reason is None:
            raise
        where = error.filename or "a file"
        print(
            f"pose-jax: error: {where} cannot be written: {reason}. Free some space and "
            "run the same command again.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("pose-jax: interrupted", file=sys.stderr)
        return 130
