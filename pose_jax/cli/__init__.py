"""The command line: `pose-jax VERB`, with one thin function per verb.

The function of a verb declares its options and returns the function to run. The latter
imports the verb's module, so that help, version and usage errors stay fast. Errors that the
user can fix are one line on stderr, with exit code 2 for the command line or a config and 1
for data. All other errors keep their traceback.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from pose_jax import writing
from pose_jax._version import __version__
from pose_jax.cli import data, init, run, sweep, weights
from pose_jax.cli.options import Parser, Run
from pose_jax.errors import ConfigError, InputError, Stopped, did_you_mean

VERBS: dict[str, Callable[[Parser], Run]] = {
    "init": init.init,
    "data synth": data.data_synth,
    "data show": data.data_show,
    "data check": data.data_check,
    "data prepare": data.data_prepare,
    "data convert": data.data_convert,
    "data split": data.data_split,
    "train": run.train,
    "eval": run.evaluate,
    "predict": run.predict,
    "report": run.report,
    "info": run.info,
    "weights list": weights.weights_list,
    "weights fetch": weights.weights_fetch,
    "weights convert": weights.weights_convert,
    "export": run.export,
    "sweep run": sweep.sweep_run,
    "sweep report": sweep.sweep_report,
    "doctor": sweep.doctor,
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
    parser = Parser(prog=f"pose-jax {name}", description=VERBS[name].__doc__)
    function = VERBS[name](parser)
    return function(parser.parse(rest)) or 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code."""
    hook, sys.unraisablehook = sys.unraisablehook, _interrupt_again
    try:
        exit_code = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
        return exit_code
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
