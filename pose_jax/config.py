"""Configs: Python files of plain values, converted to frozen dataclasses.

`load` reads a file and applies overrides; `build` converts a section to the dataclass that
declares its keys. Unknown keys, missing keys and wrong types are reported in one line with
the full path of the key. This module knows no specific section.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib.util
import inspect
import json
import re
import sys
import textwrap
import traceback
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, Union

from ml_collections import ConfigDict

from pose_jax.errors import ConfigError, did_you_mean, one_line

T = TypeVar("T")

# ------------------------------------------------------------- sections to dataclasses


def build(
    cls: type[T], section: Any, path: str = "config", default: T | None = None
) -> T:
    """Builds a dataclass from a section; omitted keys keep their defaults.

    This holds for nested sections too: where the default of a field is an instance,
    omitted keys have the values of that instance.

    Args:
      cls: a dataclass whose annotations give the types. Nested dataclasses, tuples,
        `Literal`, optional values and mappings are supported. An int is accepted for a
        float, a list for a tuple.
      section: a mapping of plain values, or an instance of `cls`.
      path: name of the section in messages, e.g. "config.optimizer".
      default: instance that provides omitted keys; None: the defaults of the fields.

    Raises:
      ConfigError: a key is unknown, missing, or of the wrong type, or `cls` rejects the
        values (ValueError in its `__post_init__`).
    """
    if isinstance(section, cls):
        return section
    if not _is_mapping(section):
        raise ConfigError(f"{path} must be a section (a mapping); got {section!r}.")
    assert dataclasses.is_dataclass(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in section:
        if key not in fields:
            raise ConfigError(
                f"{path}.{key}: no such key.{did_you_mean(key, fields, cutoff=0.5)}"
                f" Known keys: {', '.join(fields)}."
            )
    hints = typing.get_type_hints(cls)
    values = {}
    for name, field in fields.items():
        standard = _default_of(field) if default is None else getattr(default, name)
        if name in section:
            where = f"{path}.{name}"
            values[name] = _convert(hints[name], section[name], where, standard)
        elif standard is not dataclasses.MISSING:
            values[name] = standard
        else:
            raise ConfigError(
                f"{path}.{name} is missing: it has no default and must be "
                f"{_name_of(hints[name])}."
            )
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {one_line(error)}") from error


def _default_of(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _convert(hint: Any, value: Any, path: str, default: Any = None) -> Any:
    """Converts `value` to the type `hint`; raises ConfigError if it does not fit."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return _plain(value)
    if origin is Literal:
        for choice in args:
            if type(value) is type(choice) and value == choice:
                return choice
        words = [choice for choice in args if isinstance(choice, str)]
        raise ConfigError(
            f"{path} must be {_name_of(hint)}; got {value!r}."
            + did_you_mean(value, words, cutoff=0.5)
        )
    if origin in (Union, types.UnionType):
        return _convert_union(args, value, path, default)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        default = default if isinstance(default, hint) else None
        return build(hint, value, path, default)
    if hint is tuple or origin is tuple:
        return _convert_tuple(args, value, path, _name_of(hint))
    if hint is list or origin in (list, Sequence):
        if isinstance(value, list | tuple):
            item = args[0] if args else Any
            return [_convert(item, v, f"{path}[{i}]") for i, v in enumerate(value)]
    elif hint in (dict, Mapping) or origin in (dict, Mapping):
        if _is_mapping(value):
            item = args[1] if args else Any
            return {k: _convert(item, value[k], f"{path}.{k}") for k in value}
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif hint in (int, str, bool, type(None)):
        if type(value) is hint:
            return value
    else:
        raise TypeError(f"{path}: type {hint!r} is not supported in a config.")
    raise _wrong_type(path, hint, value)


def _convert_union(args: tuple[Any, ...], value: Any, path: str, default: Any) -> Any:
    if value is None and type(None) in args:
        return None
    arms = [arm for arm in args if arm is not type(None)]
    if len(arms) == 1:
        return _convert(arms[0], value, path, default)
    # The exact type first, so that an int stays an int where a float is allowed too.
    for arm in sorted(arms, key=lambda arm: arm is not type(value)):
        try:
            return _convert(arm, value, path, default)
        except ConfigError:
            continue
    raise _wrong_type(path, Union[args], value)  # noqa: UP007


def _convert_tuple(args: Any, value: Any, path: str, wanted: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{path} must be {wanted}; got {value!r}.")
    if not args or args[-1] is Ellipsis:
        items = [args[0] if args else Any] * len(value)
    elif len(args) != len(value):
        raise ConfigError(
            f"{path} must have {len(args)} values ({wanted}); got {_plain(value)!r}."
        )
    else:
        items = args
    return tuple(
        _convert(item, v, f"{path}[{i}]")
        for i, (item, v) in enumerate(zip(items, value, strict=True))
    )


def _wrong_type(path: str, hint: Any, value: Any) -> ConfigError:
    return ConfigError(
        f"{path} must be {_name_of(hint)}; got {_plain(value)!r}, "
        f"{_article(type(_plain(value)).__name__)}."
    )


def _name_of(hint: Any) -> str:
    """Returns a readable name of a type for messages."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, args))
    if origin in (Union, types.UnionType):
        return " or ".join(map(_name_of, args))
    if hint is type(None):
        return "None"
    if origin is not None:
        return str(hint).replace("typing.", "").replace("collections.abc.", "")
    return _article(hint.__name__)


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping | ConfigDict)


def _plain(value: Any) -> Any:
    """Converts sections to dicts, recursively, and objects that have a plain form."""
    if _is_mapping(value):
        return {key: _plain(value[key]) for key in value}
    if dataclasses.is_dataclass(value):
        to_json = getattr(value, "to_json", None)
        return value if to_json is None else _plain(to_json())
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value


# --------------------------------------------------------------- files and overrides


def load(file: str | Path, overrides: Sequence[str] = ()) -> ConfigDict:
    """Reads a config file and applies overrides.

    A config file may import other files of its folder by name, e.g.
    `from _recipes import coco`. These imports are undone afterward, so two folders may have
    files of the same name. Files whose names start with "_" are not configs.

    Args:
      file: a Python file with `get_config`; the part after a colon is its argument:
        "configs/x.py:small".
      overrides: as on the command line: "--config.optimizer.lr=3e-4", or key and value as
        separate words. A value is parsed as the type of the value it replaces; a key that
        the file does not have is added, and `build` accepts or rejects it.

    Returns:
      The config, locked.

    Raises:
      ConfigError: one line, for every kind of failure.
    """
    name, _, argument = str(file).partition(".py:")
    path = Path(name + ".py" if argument else str(file).removesuffix(":"))
    config = run_file(path, "get_config", argument or None)
    if not _is_mapping(config):
        raise ConfigError(f"{path}: get_config must return a ConfigDict.")
    config = ConfigDict(_plain(config), type_safe=True)
    for key, text in _split_overrides(overrides):
        _override(config, key, text)
    return config.lock()


def run_file(path: Path, function: str, argument: str | None = None) -> Any:
    """Runs "get_config" or "get_sweep" of a Python file and returns its result.

    Raises:
      ConfigError: one line, for every kind of failure.
    """
    kind = function.removeprefix("get_")
    if path.suffix != ".py" or not path.is_file():
        configs = [p.stem for p in path.parent.glob("*.py") if p.stem[0] != "_"]
        raise ConfigError(
            f"{path}: no such {kind} file; a {kind} is a Python file (.py)."
            + did_you_mean(path.stem, configs, cutoff=0.5)
        )
    file = path.absolute()
    spec = importlib.util.spec_from_file_location("_config_" + path.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        with _imports_from(file.parent):
            spec.loader.exec_module(module)
            get = getattr(module, function, None)
            if not callable(get):
                raise ConfigError(f"the file defines no function {function}.")
            if argument is not None and not inspect.signature(get).parameters:
                raise ConfigError(f"{function} takes no argument; got {argument!r}.")
            return get(*([] if argument is None else [argument]))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except Exception as error:
        raise ConfigError(
            f"{path}{_line_of(error, file)}: {type(error).__name__}: {one_line(error)}"
        ) from error


@contextlib.contextmanager
def _imports_from(folder: Path) -> Iterator[None]:
    """Searches a folder first for imports inside the `with` block.

    On exit `sys.path` is restored, and so are the entries of `sys.modules` whose names
    occur in the folder; other modules imported meanwhile stay.
    """
    path, names = list(sys.path), {entry.stem for entry in folder.iterdir()}
    names -= set(sys.stdlib_module_names)

    def take() -> dict[str, types.ModuleType]:
        of_folder = [name for name in sys.modules if name.split(".")[0] in names]
        return {name: sys.modules.pop(name) for name in of_folder}

    before = take()
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()  # A file may be newer than the finder's cache.
    try:
        yield
    finally:
        sys.path[:] = path
        take()
        sys.modules.update(before)


def _line_of(error: Exception, file: Path) -> str:
    """Returns the location of an error in the file and in its imports from the folder:
    ", line 3" or ", line 3 (_recipes.py, line 12)"."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [(Path(frame.filename), frame.lineno) for frame in frames]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((Path(error.filename), error.lineno))
    lines = [line for place, line in places if place == file]
    where = f", line {lines[-1]}" if lines else ""
    for place, line in reversed(places):
        if place == file:
            break
        if _importable(place, file.parent):
            return f"{where} ({place.relative_to(file.parent)}, line {line})"
    return where


def _importable(file: Path, folder: Path) -> bool:
    """Returns whether the file can be imported from the folder (excludes a venv in it)."""
    if not file.is_relative_to(folder):
        return False
    parts = file.relative_to(folder).with_suffix("").parts
    return all(part.isidentifier() for part in parts)


def _split_overrides(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Splits overrides into keys and values: [("optimizer.lr", "3e-4")]."""
    words, pairs = list(overrides), []
    while words:
        word = words.pop(0)
        match = re.fullmatch(r"--?config\.([^=]+)(=.*)?", word, re.DOTALL)
        if not match:
            raise ConfigError(
                f"{word!r} is not a valid override: write --config.section.key=value."
            )
        key, value = match.groups()
        if value is not None:
            value = value[1:]
        elif words and not words[0].startswith("--"):
            value = words.pop(0)
        else:
            raise ConfigError(f"{word}: the value is missing.")
        pairs.append((key, value))
    return pairs


def _override(config: ConfigDict, key: str, text: str) -> None:
    """Sets one value. Keys that the file omits are added: only `build` knows which keys
    exist and reports unknown ones."""
    *parents, name = key.split(".")
    section, path = config, "config"
    for part in parents:
        if part not in section:
            section[part] = ConfigDict()
        section, path = section[part], f"{path}.{part}"
        if not isinstance(section, ConfigDict):
            raise ConfigError(f"--config.{key}: {path} is a value and has no keys.")
    old = section.get(name)
    if isinstance(old, ConfigDict):
        raise ConfigError(
            f"--config.{key} is a section: set one of its keys ({', '.join(old)})."
        )
    try:
        value = _parse(text, old)
    except (ValueError, SyntaxError) as error:
        raise ConfigError(
            f"--config.{key}={text}: must be {_article(type(old).__name__)}, "
            f"for example {old!r}."
        ) from error
    with section.ignore_type():
        section[name] = value


def _parse(text: str, old: Any) -> Any:
    """Parses the text of an override as the type of the value it replaces."""
    if isinstance(old, str):
        return text
    if text == "None":
        return None
    if isinstance(old, bool):
        if text.lower() not in _BOOLS:
            raise ValueError("not a bool")
        return _BOOLS[text.lower()]
    if isinstance(old, int | float):
        return type(old)(text)
    try:
        # JSON spelling of booleans is accepted too.
        value = _BOOLS[text] if text in ("true", "false") else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if old is None:
            return text
        if not all(isinstance(v, str) for v in old):
            raise
        value = tuple(text.split(","))
    if old is None:
        return value
    value = tuple(value) if isinstance(value, list | tuple) else (value,)
    if old and all(isinstance(v, float) for v in old):
        value = tuple(float(v) for v in value)
    if old and not {type(v) for v in value} <= {type(v) for v in old}:
        raise ValueError("other types")
    return value


_BOOLS = {"true": True, "1": True, "false": False, "0": False}


# ----------------------------------------------------------------- text and differences


def to_json(config: Any) -> str:
    """Serializes the config as JSON text; `from_json` is the inverse."""
    return json.dumps(_plain(config), indent=2) + "\n"


def from_json(text: str) -> ConfigDict:
    """Reads a locked config from JSON text; lists become tuples.

    Raises:
      ConfigError: the text is not a JSON object.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"the config is not JSON: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise ConfigError("the config must be a JSON object.")
    return ConfigDict(_tuples(values)).lock()


def differences(config: Any, default: Any) -> dict[str, tuple[Any, Any]]:
    """Returns changed values: {"optimizer.lr": (default, value)}; None where absent."""
    old, new = _leaves(default), _leaves(config)
    return {
        key: (old.get(key), new.get(key))
        for key in [*old, *(key for key in new if key not in old)]
        if (key in old, old.get(key)) != (key in new, new.get(key))
    }


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Returns values by dotted key; an empty section counts as a value."""
    if not _is_mapping(value) or (prefix and not len(value)):
        return {prefix: _tuples(_plain(value))}
    leaves = {}
    for key in value:
        leaves |= _leaves(value[key], f"{prefix}.{key}" if prefix else key)
    return leaves


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(v) for key, v in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


# ------------------------------------------------------------------- files with comments


class Entry(NamedTuple):
    """A key of a section of a config file.

    Attributes:
      key: the key.
      value: a plain value.
      why: a comment; "" for none.
    """

    key: str
    value: Any
    why: str = ""


def text(
    sections: Mapping[str, Sequence[Entry]],
    intro: Sequence[str],
    commands: Sequence[str],
) -> str:
    """Returns a config file with comments.

    Args:
      sections: the entries of each section.
      intro: paragraphs of its docstring.
      commands: lines that follow them, as they are.
    """
    parts = [textwrap.fill(_safe(part), 88) for part in intro]
    lines = ['r"""' + parts[0], ""]
    for part in parts[1:]:
        lines += [part, ""]
    lines += [f"  {_safe(command)}" for command in commands]
    lines += [
        '"""', "", "from ml_collections import ConfigDict", "", "",
        'def get_config(variant: str = "") -> ConfigDict:',
        "    if variant:", '        raise ValueError(f"no variant {variant!r}.")',
        "    c = ConfigDict()", "    c.seed = 0",
    ]  # fmt: skip
    for name, rows in sections.items():
        lines += [f"    c.{name} = ConfigDict(", "        {"]
        for row in rows:
            why = textwrap.wrap(row.why, 74)
            lines += [f"            # {line}" for line in why]
            lines += _entry(row.key, row.value, 12)
        lines += ["        }", "    )"]
    return "\n".join([*lines, "    return c", ""])


def _entry(key: str, value: Any, indent: int) -> list[str]:
    """Returns the lines of an entry of a mapping, which are short."""
    begin = f"{' ' * indent}{json.dumps(key, ensure_ascii=False)}: "
    line = f"{begin}{_literal(value)},"
    if len(line) <= 88 or not isinstance(value, Mapping):
        return [line]
    inner = [line for k, v in value.items() for line in _entry(k, v, indent + 4)]
    return [f"{begin}{{", *inner, f"{' ' * indent}}},"]


def _safe(line: str) -> str:
    """Returns a line that cannot end a docstring."""
    return line.replace('"""', "'''")


def _literal(value: Any) -> str:
    """Returns a plain value as Python, with double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        inner = ", ".join(map(_literal, value))
        return f"({inner}{',' * (len(value) == 1)})"
    if isinstance(value, Mapping):
        pairs = (f"{json.dumps(k)}: {_literal(v)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    return repr(value)
