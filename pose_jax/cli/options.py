"""Parsing of the options that verbs share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from pose_jax.errors import ConfigError, did_you_mean

Run = Callable[[argparse.Namespace], int | None]


class Parser(argparse.ArgumentParser):
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


def width_x_height(text: str) -> tuple[int, int]:
    """Parses WIDTHxHEIGHT as (width, height)."""
    width, height = (int(part) for part in text.lower().split("x"))
    if min(width, height) < 1:
        raise ValueError
    return width, height


width_x_height.__name__ = "WIDTHxHEIGHT"  # As argparse prints it.


def comma_separated(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def numbers(text: str) -> tuple[float, ...]:
    """Parses numbers that are separated by commas."""
    return tuple(float(number) for number in text.split(","))


def config_option(parser: Parser, required: bool = True) -> None:
    parser.option(
        "--config",
        "config file, FILE.py or FILE.py:ARGUMENT; --config.KEY=VALUE overrides one "
        "value, e.g. --config.optimizer.lr=3e-4",
        required=required,
    )


def weighting_option(parser: Parser) -> None:
    parser.option(
        "--weighting",
        "peaks of a movenet_* run: regression, those of the person in the middle of the "
        "crop; none, the highest, for images of one person (default: from the run's "
        "config, regression)",
        choices=("regression", "none"),
    )


def checkpoint_option(parser: Parser) -> None:
    parser.option(
        "--checkpoint",
        "checkpoint instead of the final model: best, last, STEP, or PHASE/STEP; the run "
        "need not be finished (default: RUN/model)",
    )


def load_config(args: argparse.Namespace) -> Any:
    from pose_jax import config

    return config.load(args.config, args.overrides)


def given(args: argparse.Namespace, *names: str, unset: bool = True) -> dict[str, Any]:
    """Returns some options as keyword arguments; `unset` includes those not given."""
    options = {name: getattr(args, name) for name in names}
    return {n: value for n, value in options.items() if unset or value is not None}
