"""The command line: `pose-jax VERB`, with one thin function per verb.

The function of a verb declares its options and returns the function to run. The latter
imports the verb's module, so that help, version and usage errors stay fast. Errors that the
user can fix are one line on stderr, with exit code 2 for the command line or a config and 1
for data. All other errors keep their traceback.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pose_jax import writing
from pose_jax._version import __version__
from pose_jax.errors import ConfigError, InputError, Stopped, did_you_mean

Run = Callable[[argparse.Namespace], int | None]


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports errors in one line, with the closest known option."""

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
        """Calls `add_argument`; the help text is the second argument."""
        self.add_argument(name, help=words, type=kind, default=default, **rest)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message.rstrip('.')}. See `{self.prog} --help`.")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Like `parse_args`; config overrides are stored in `overrides`."""
        words, overrides = list(words), []
        if "--config" in self.options:
            words, overrides = split_overrides(words)
        for word in words:
            name = word.split("=")[0]
            if name.startswith("--") and len(name) > 2 and name not in self.options:
                self.error(f"unknown option {name}.{did_you_mean(name, self.options)}")
        args = self.parse_args(words)
        args.overrides = overrides
        return args


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates config overrides from all other arguments, without checking them.

    An override is "--config.a.b=VALUE", or "--config.a.b" followed by "VALUE".
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
    """Parses WIDTHxHEIGHT as (width, height)."""
    width, height = (int(part) for part in text.lower().split("x"))
    if min(width, height) < 1:
        raise ValueError
    return width, height


_size.__name__ = "WIDTHxHEIGHT"  # argparse prints it: "invalid WIDTHxHEIGHT value".


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _config_option(parser: _Parser, required: bool = True) -> None:
    parser.option(
        "--config",
        "config file, FILE.py or FILE.py:ARGUMENT; --config.KEY=VALUE overrides one "
        "value, e.g. --config.optimizer.lr=3e-4",
        required=required,
    )


def _config(args: argparse.Namespace) -> Any:
    from pose_jax import config

    return config.load(args.config, args.overrides)


def _given(args: argparse.Namespace, *names: str, unset: bool = True) -> dict[str, Any]:
    """Returns some options as keyword arguments; `unset` includes those not given."""
    options = {name: getattr(args, name) for name in names}
    return {n: value for n, value in options.items() if unset or value is not None}


# -------------------------------------------------------------------------------- verbs


def _data_synth(parser: _Parser) -> Run:
    """generate a data set of synthetic people in COCO format"""
    parser.option("--out", "folder to write", Path, required=True)
    parser.option("--n", "number of training images (default: 200)", int, 200)
    parser.option("--val", "number of validation images (default: n / 8)", int)
    parser.option("--seed", "random seed (default: 0)", int, 0)
    parser.option("--size", "image size, e.g. 320x256", _size)
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
        # Starting a process pays off from about a hundred images on.
        options["workers"] = min(os.cpu_count() or 1, 1 + args.n // 100)
        print(scenes.write_dataset(args.out, **options))

    return run


def _data_show(parser: _Parser) -> Run:
    """draw the training inputs of a config: augmented images, keypoints, targets"""
    _config_option(parser)
    parser.option("--out", "PNG file to write", Path, required=True)
    parser.option("--rows", "number of training inputs to draw (default: 24)", int, 24)

    def run(args: argparse.Namespace) -> None:
        config = _config(args)
        from pose_jax.training import preview

        preview.show(config, args.out, args.rows)

    return run


def _data_check(parser: _Parser) -> Run:
    """check the files, labels and images of a data set for errors"""
    parser.option("root", "data set folder", Path, nargs="?", metavar="ROOT")
    _config_option(parser, required=False)
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
        options = _given(args, *names)
        options["keypoint_set"] = args.keypoints
        if (args.config is None) == (args.root is None):
            raise ConfigError("give either ROOT or --config.")
        if args.config is not None and any(options.values()):
            raise ConfigError(
                "--config allows only --images; use all others with ROOT."
            )
        config = None if args.config is None else _config(args)
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


def _data_prepare(parser: _Parser) -> Run:
    """pack data sets into a store of a few large files with checked records"""
    _config_option(parser, required=False)
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
            data = _config(args).get("data", {})
            sources = [dict(data[use]) for use in data]
        for i, section in enumerate(sources):
            if section not in sources[:i]:
                source = config.build(data_lib.SourceConfig, section, "config.data")
                print(data_lib.prepare_source(source, args.out, args.name))

    return run


def _train(parser: _Parser) -> Run:
    """train a config in a run directory, or resume a stopped run"""
    _config_option(parser)
    parser.option("--run", "run directory", Path, required=True)

    def run(args: argparse.Namespace) -> None:
        config = _config(args)
        from pose_jax.training import train

        train.train(config, args.run)

    return run


def _eval(parser: _Parser) -> Run:
    """evaluate a trained model and write RUN/eval"""
    parser.option("--run", "run directory", Path)
    parser.option(
        "--decoder",
        "comma-separated decoders, e.g. argmax,shift,dark (default: from the config)",
        _names,
        (),
    )
    parser.option(
        "--flip",
        "comma-separated flip tests, e.g. none,shift (default: from the config)",
        _names,
        (),
    )
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
        names = "data", "split", "boxes", "annotations", "format", "match_keypoints"
        where = _given(args, *names)
        if args.compare is not None:
            from pose_jax.evaluation import compare

            print(compare.compare(*args.compare, **where))
            return
        from pose_jax.evaluation import evaluate

        options = {"decoders": args.decoder, "flips": args.flip, **where}
        options |= _given(args, "nms", "nms_threshold", "out")
        options |= _given(args, "max_detections", unset=False)
        evaluations = evaluate.evaluate_run(args.run, **options)
        print(evaluate.described(args.run, evaluations, args.out))

    return run


def _predict(parser: _Parser) -> Run:
    """predict poses in images; write pictures of them and predictions.json"""
    parser.option(
        "images",
        "image files, folders of images, or patterns such as 'videos/**/*.jpg' (quoted)",
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
    detected = {
        "slots": ("maximum number of detections per image (default: 32)", int),
        "box_nms": ("IoU threshold for box NMS (default: 0.6)", float),
        "oks_nms": ("OKS threshold for pose NMS (default: 0.5)", float),
    }
    for name, (words, kind) in detected.items():
        option = f"--{name.replace('_', '-')}"
        parser.option(option, f"{words}, with --detector", kind)
    parser.option(
        "--rescoring",
        "score used to rank people: keypoint mean, box score, or their product (default: "
        "from the run's config), with --detector",
        choices=("pose", "box", "product"),
    )
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
    parser.option("--out", "output folder (default: RUN/predictions)", Path)

    def run(args: argparse.Namespace) -> int:
        from pose_jax import predict

        return predict.predict_run(
            args.run,
            args.images,
            boxes=args.boxes,
            out=args.out or args.run / "predictions",
            detector=args.detector,
            **_given(
                args,
                *detected,
                "rescoring",
                "category",
                "exif",
                "min_score",
                unset=False,
            ),
        )

    return run


def _report(parser: _Parser) -> Run:
    """write RUN/report.html: scores, people, errors, curves and config in one file"""
    parser.option("run", "run directory", Path, metavar="RUN")
    parser.option(
        "--people",
        "maximum number of evenly spaced people (detectors: images) (default: 500)",
        int,
        500,
    )
    parser.option("--data", "evaluation data folder (default: from the run's config)")

    def run(args: argparse.Namespace) -> None:
        from pose_jax.report import run as report

        report.report(args.run, people=args.people, data=args.data)

    return run


def _info(parser: _Parser) -> Run:
    """describe a run or a config: model, cost, data, scores"""
    parser.option("target", "run directory or config file", metavar="RUN|CONFIG.py")

    def run(args: argparse.Namespace) -> None:
        from pose_jax import info

        print(info.text(info.info(args.target)))

    return run


def _weights_convert(parser: _Parser) -> Run:
    """convert published PyTorch weights to a run directory"""
    parser.option("file", ".safetensors or torch.save file", Path, metavar="FILE")
    parser.option("--model", "network name, e.g. hrnet_w32", required=True)
    parser.option("--out", "run directory to create", Path, required=True)
    parser.add_argument(
        "--backbone",
        action="store_true",
        help="convert an ImageNet backbone (torchvision's ResNet or HRNet's classifier) "
        "for train.init_from. Supported by simple_baseline_*, hrnet_*, and by "
        "resnet_regression_* and multipose_*, which have no complete published checkpoint",
    )
    parser.option(
        "--keypoints", "keypoint set (default: the set with this number of keypoints)"
    )
    parser.option(
        "--input-size",
        "network input size (default: 192x256, mpii 256x256, hourglass 96x128, multipose "
        "257x353)",
        _size,
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
        'SimpleBaseline checkpoints, "aligned" for DarkPose (default for hourglass)',
        choices=("stride", "aligned"),
    )
    parser.option(
        "--channels",
        "color order used in training (default: rgb for hrnet and backbones, otherwise "
        "bgr)",
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


def _weights_list(parser: _Parser) -> Run:
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


def _weights_fetch(parser: _Parser) -> Run:
    """download published weights and convert them to a run directory"""
    parser.option("name", "name from `pose-jax weights list`", metavar="NAME")
    parser.option("--out", "run directory to create", Path, required=True)
    parser.option("--model", "network, for a backbone of several (default: the first)")

    def run(args: argparse.Namespace) -> None:
        from pose_jax.weights import fetch

        print(fetch.fetch(args.name, args.out, network=args.model))

    return run


def _export(parser: _Parser) -> Run:
    """export a decoder to one file that JAX runs without pose_jax"""
    parser.option(
        "--decoder", "decoder, e.g. dark, argmax (default: the run's decoder, or dark)"
    )
    parser.option("--out", "folder to create", Path, required=True)
    parser.option("--run", "run directory that sets sigma and kernel size", Path)
    parser.option("--sigma", "Gaussian blur sigma, in heatmap pixels", float)
    parser.option(
        "--kernel-size",
        "blur kernel size, in heatmap pixels (without --sigma: OpenCV's sigma)",
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


def _sweep_run(parser: _Parser) -> Run:
    """run a hyperparameter sweep, or resume a study"""
    _config_option(parser, required=False)
    parser.option("--sweep", "sweep file, which defines get_sweep", required=True)
    _study_options(parser)
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
        options = _given(args, *names, "name", "out")
        runner.run(args.sweep, args.study, **options)

    return run


def _sweep_report(parser: _Parser) -> Run:
    """write a sweep report: leaderboard, learning curves and importances in one file"""
    _study_options(parser)
    parser.option(
        "--html", "HTML file to write (default: report.html in the study folder)", Path
    )

    def run(args: argparse.Namespace) -> None:
        from pose_jax.sweep import summary

        summary.report(args.study, name=args.name, out=args.out, file=args.html)

    return run


def _doctor(parser: _Parser) -> Run:
    """check this machine: versions, devices, memory, data folders"""
    parser.option("data", "data folders to check", Path, nargs="*")

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
    "weights list": _weights_list,
    "weights fetch": _weights_fetch,
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
            "pose-jax VERB --help   show the options of a verb",
            "pose-jax --version",
        ]
    )


def _find_verb(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Returns the verb that `words` start with, and the remaining words."""
    for count in (2, 1):
        if " ".join(words[:count]) in VERBS:
            return " ".join(words[:count]), words[count:]
    group = [name for name in VERBS if name.startswith(f"{words[0]} ")]
    if group and (len(words) == 1 or words[1].startswith("-")):
        raise ConfigError(f"{words[0]} is incomplete: use one of {', '.join(group)}.")
    given = " ".join(words[:2]) if group else words[0]
    near = did_you_mean(given, group or VERBS)
    raise ConfigError(f"unknown verb {given!r}.{near} See pose-jax --help.")


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
    hook, sys.unraisablehook = sys.unraisablehook, _interrupt_again
    try:
        return _run(sys.argv[1:] if argv is None else list(argv))
    except InputError as error:
        print(f"pose-jax: error: {error}", file=sys.stderr)
        return error.exit_code
    except Stopped as note:
        print(f"pose-jax: {note}")
        return note.exit_code
    except BrokenPipeError:  # The reader of a pipe has enough: `| head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        refused = writing.refused(error)
        if refused is None:
            raise
        print(f"pose-jax: error: {refused}", file=sys.stderr)
        return refused.exit_code
    except KeyboardInterrupt:
        print("pose-jax: interrupted", file=sys.stderr)
        return 130
    finally:
        sys.unraisablehook = hook


def _interrupt_again(unraisable: Any) -> None:
    """Repeats Ctrl-C if it came in a callback of JAX or in a destructor.

    Python ignores the exceptions of these and would go on.
    """
    if unraisable.exc_type is KeyboardInterrupt:
        main_thread = threading.main_thread().ident
        threading.Timer(0.1, signal.pthread_kill, (main_thread, signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(unraisable)
