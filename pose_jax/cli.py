"""The command line: `pose-jax VERB`, one thin function a verb.

A verb's function declares its options and returns what runs; that imports the verb's
module, so that help, version and mistakes cost nothing. What the user can fix is
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

    def option(
        self, name: str, words: str, kind: Any = str, default: Any = None, **rest: Any
    ) -> None:
        """`add_argument`, with its help text in second place."""
        self.add_argument(name, help=words, type=kind, default=default, **rest)

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
    parser.option(
        "--config",
        "config file, FILE.py or FILE.py:ARGUMENT; --config.KEY=VALUE overrides one "
        "value, for example --config.optimizer.lr=3e-4",
        required=required,
    )


def _config(args: argparse.Namespace) -> Any:
    from pose_jax import config

    return config.load(args.config, args.overrides)


def _given(args: argparse.Namespace, *names: str, unset: bool = True) -> dict[str, Any]:
    """Some options as keyword arguments; `unset`: also those that were not given."""
    found = {name: getattr(args, name) for name in names}
    return {n: value for n, value in found.items() if unset or value is not None}


# -------------------------------------------------------------------------------- verbs


def _data_synth(parser: _Parser) -> Run:
    """make a data set of synthetic people, in COCO's format"""
    parser.option("--out", "folder to write", Path, required=True)
    parser.option("--n", "number of training images (default: 200)", int, 200)
    parser.option("--val", "number of validation images (default: n / 8)", int)
    parser.option("--seed", "seed of the random people (default: 0)", int, 0)
    parser.option("--size", "image size, for example 320x256", _size)
    parser.option(
        "--difficulty",
        "easy: one upright, fully visible, front-facing person per image; crowd: several "
        "people who occlude each other (default: hard)",
        default="hard",
        choices=("hard", "easy", "crowd"),
    )

    def run(args: argparse.Namespace) -> None:
        from pose_jax.data.synthetic import scenes

        options = _given(args, "n", "seed", "val", "difficulty")
        options |= _given(args, "size", unset=False)
        # A process is worth its start for a hundred pictures or more.
        options["workers"] = min(os.cpu_count() or 1, 1 + args.n // 100)
        print(scenes.write_dataset(args.out, **options))

    return run


def _data_show(parser: _Parser) -> Run:
    """draw what a config trains on: augmented inputs, keypoints, targets"""
    _config_option(parser)
    parser.option("--out", "PNG to write", Path, required=True)
    parser.option("--rows", "number of training inputs to draw (default: 24)", int, 24)

    def run(args: argparse.Namespace) -> None:
        config = _config(args)
        from pose_jax.training import preview

        preview.show(config, args.out, args.rows)

    return run


def _data_check(parser: _Parser) -> Run:
    """look for everything that is wrong with a data set: files, labels, images"""
    parser.option("root", "folder of the data set", Path, nargs="?", metavar="ROOT")
    _config_option(parser, required=False)
    parser.option("--split", "one split, for example val2017 (default: all there are)")
    parser.option(
        "--format", "kind of data set, as in a config (default: by the files in ROOT)"
    )
    parser.option("--keypoints", "name of the keypoint set that a COCO json follows")
    parser.option("--annotations", "file of labels", Path)
    parser.option("--detections", "COCO detections json", Path)
    parser.option(
        "--images",
        "read headers and ends of images (the default), or decode all",
        default="headers",
        choices=("headers", "full"),
    )

    def run(args: argparse.Namespace) -> int:
        said = _given(args, "split", "format", "annotations", "detections")
        said["keypoint_set"] = args.keypoints
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
    parser.option("--format", "instead of --config: kind of data set, as in a config")
    parser.option("--root", "folder of the data set")
    parser.option("--split", "split to pack, for example val2017")
    parser.option("--name", "data set name inside the store (default: the format)")
    parser.option("--out", "folder of the store", Path, required=True)

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
    """train a config in a run directory; resumes a run that was stopped"""
    _config_option(parser)
    parser.option("--run", "run directory", Path, required=True)

    def run(args: argparse.Namespace) -> None:
        config = _config(args)
        from pose_jax.training import train

        train.train(config, args.run)

    return run


def _eval(parser: _Parser) -> Run:
    """measure a trained model; writes RUN/eval"""
    parser.option("--run", "run directory", Path)
    parser.option(
        "--decoder",
        "decoders of the network's output, for example argmax,shift,dark (default: the "
        "config's)",
        _names,
        (),
    )
    parser.option(
        "--flip",
        "flip tests, for example none,shift (default: the config's)",
        _names,
        (),
    )
    parser.option("--data", "another folder of the evaluation data")
    parser.option("--split", "another split, for example val2017")
    parser.option(
        "--boxes", '"gt" (the default) or a COCO detections json', default="gt"
    )
    parser.option(
        "--nms",
        "suppression of poses on a detector's boxes (default: the config's, oks)",
        choices=("none", "oks", "soft_oks"),
    )
    parser.option("--nms-threshold", "OKS threshold of --nms (default: 0.9)", float)
    parser.option(
        "--compare",
        "instead of --run: differences of two runs on the same people, with 95%% "
        "intervals",
        nargs=2,
        metavar=("RUN_A[:DECODER]", "RUN_B[:DECODER]"),
    )

    def run(args: argparse.Namespace) -> None:
        if (args.run is None) == (args.compare is None):
            raise ConfigError("give either --run RUN or --compare RUN_A RUN_B.")
        where = _given(args, "data", "split", "boxes")
        if args.compare is not None:
            from pose_jax.evaluation import compare

            print(compare.compare(*args.compare, **where))
            return
        from pose_jax.evaluation import evaluate

        options = {"decoders": args.decoder, "flips": args.flip, **where}
        options |= _given(args, "nms", "nms_threshold")
        found = evaluate.evaluate_run(args.run, **options)
        print(evaluate.described(args.run, found))

    return run


def _predict(parser: _Parser) -> Run:
    """find poses in images; writes pictures and predictions.json"""
    parser.option("images", "image files", Path, nargs="+", metavar="IMAGE")
    parser.option("--run", "run directory", Path, required=True)
    parser.option(
        "--boxes", "json of person boxes: COCO detections or annotations", Path
    )
    parser.option(
        "--detector",
        "run directory of a person detector, instead of --boxes",
        Path,
        metavar="RUN",
    )
    detected = {
        "slots": ("most people per image (default: 32)", int),
        "box_nms": ("IoU threshold of box NMS (default: 0.6)", float),
        "oks_nms": ("OKS threshold of pose NMS (default: 0.5)", float),
    }
    for name, (words, kind) in detected.items():
        option = f"--{name.replace('_', '-')}"
        parser.option(option, f"with --detector: {words}", kind)
    parser.option(
        "--rescoring",
        "with --detector: score that ranks people, the mean of the keypoints', the box's "
        "or their product (default: the run's)",
        choices=("pose", "box", "product"),
    )
    parser.option("--out", "folder to write (default: RUN/predictions)", Path)

    def run(args: argparse.Namespace) -> int:
        from pose_jax import predict

        return predict.predict_run(
            args.run,
            args.images,
            boxes=args.boxes,
            out=args.out or args.run / "predictions",
            detector=args.detector,
            **_given(args, *detected, "rescoring", unset=False),
        )

    return run


def _report(parser: _Parser) -> Run:
    """write RUN/report.html: scores, people, errors, curves, config, in one file"""
    parser.option("run", "run directory", Path, metavar="RUN")
    parser.option(
        "--people",
        "most people, or images of a detector, to predict, evenly spaced (default: 500)",
        int,
        500,
    )
    parser.option("--data", "another folder of the evaluation data")

    def run(args: argparse.Namespace) -> None:
        from pose_jax.report import run as report

        report.report(args.run, people=args.people, data=args.data)

    return run


def _info(parser: _Parser) -> Run:
    """say what a run or a config is: model, cost, data, scores"""
    parser.option("target", "run directory or config file", metavar="RUN|CONFIG.py")

    def run(args: argparse.Namespace) -> None:
        from pose_jax import info

        print(info.text(info.info(args.target)))

    return run


def _weights_convert(parser: _Parser) -> Run:
    """make a run directory of published PyTorch weights"""
    parser.option("file", ".safetensors, or .pth of torch.save", Path, metavar="FILE")
    parser.option("--model", "network, for example hrnet_w32", required=True)
    parser.option("--out", "run directory to make", Path, required=True)
    parser.add_argument(
        "--backbone",
        action="store_true",
        help="FILE is torchvision's ResNet or HRNet's network for ImageNet: a start for "
        "train.init_from. Taken by simple_baseline_*, hrnet_*, and by resnet_regression_* "
        "and multipose_*, for which no whole network is published",
    )
    parser.option(
        "--keypoints", "keypoint set (default: the one with as many keypoints)"
    )
    parser.option(
        "--input-size",
        "size of the network's input (default: 192x256, for mpii 256x256, for hourglass "
        "96x128, for multipose 257x353)",
        _size,
    )
    parser.option(
        "--sigma",
        "Gaussian sigma of the training targets, in heatmap pixels (default: 1 at 96x128, "
        "for hourglass_8 2; 3 at 288x384; else 2)",
        float,
    )
    parser.option(
        "--alignment",
        "alignment of crops and heatmaps: \"stride\" for HRNet's and SimpleBaseline's own "
        'weights (the default), "aligned" for DarkPose\'s (the default for hourglass)',
        choices=("stride", "aligned"),
    )
    parser.option(
        "--channels",
        "order of the colors in training (default: as published, rgb for hrnet and "
        "backbones, else bgr)",
        choices=("rgb", "bgr"),
    )

    def run(args: argparse.Namespace) -> None:
        from pose_jax.weights import convert

        options = _given(
            args, "backbone", "input_size", "sigma", "alignment", "channels"
        )
        options["keypoint_set"] = args.keypoints
        print(convert.convert(args.file, args.model, args.out, **options))

    return run


def _export(parser: _Parser) -> Run:
    """write a decoder as one file that JAX runs without pose_jax"""
    parser.option(
        "--decoder", "decoder, for example dark, argmax (default: the run's, else dark)"
    )
    parser.option("--out", "folder to make", Path, required=True)
    parser.option("--run", "run directory whose sigma and kernel size are used", Path)
    parser.option("--sigma", "Gaussian blur sigma, in heatmap pixels", float)
    parser.option(
        "--kernel-size",
        "size of the blur's kernel, in heatmap pixels (without --sigma: OpenCV's kernel)",
        int,
    )

    def run(args: argparse.Namespace) -> None:
        from pose_jax import export

        options = _given(args, "decoder", "run", "sigma", "kernel_size")
        print(export.export_decoder(args.out, **options))

    return run


def _study_options(parser: _Parser) -> None:
    parser.option(
        "--study",
        "folder of the study, or an Optuna storage: postgresql://, mysql://, sqlite:///, "
        "redis://, grpc://HOST:PORT",
        required=True,
        metavar="DIR_OR_URL",
    )
    parser.option("--name", "study name (required with a storage)")
    parser.option(
        "--out",
        "with a storage: folder of the runs, shared by all machines (default: runs/NAME)",
        Path,
    )


def _sweep_run(parser: _Parser) -> Run:
    """train a config with many values of its settings; resumes a study"""
    _config_option(parser, required=False)
    parser.option("--sweep", "file with get_sweep", required=True)
    _study_options(parser)
    parser.option("--trials", "trials of the whole study (default: all of a grid)", int)
    parser.option("--workers", "trainings at the same time (default: 1)", int, 1)
    parser.option(
        "--eval-only",
        "instead of --config: evaluate a trained run under different decoding settings, "
        "without training",
        metavar="RUN",
    )
    parser.option(
        "--boxes",
        'with --eval-only: "gt" (the default) or a COCO detections json',
        default="gt",
    )

    def run(args: argparse.Namespace) -> None:
        from pose_jax.sweep import runner

        names = "config", "overrides", "eval_only", "boxes", "trials", "workers"
        options = _given(args, *names, "name", "out")
        runner.run(args.sweep, args.study, **options)

    return run


def _sweep_report(parser: _Parser) -> Run:
    """write the leaderboard of a sweep: ranks, curves, importances, in one file"""
    _study_options(parser)
    parser.option(
        "--html", "file to write (default: report.html in the study's folder)", Path
    )

    def run(args: argparse.Namespace) -> None:
        from pose_jax.sweep import summary

        summary.report(args.study, name=args.name, out=args.out, file=args.html)

    return run


def _doctor(parser: _Parser) -> Run:
    """check this machine: versions, devices, memory, data folders"""
    parser.option("data", "data folders to look at", Path, nargs="*")

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
