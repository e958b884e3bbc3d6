"""`load`, `build` and what they say about mistakes: one line with the key's path."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any, Literal

import pytest
from ml_collections import ConfigDict, config_dict

from pose_jax import config as config_lib
from pose_jax import methods
from pose_jax.errors import ConfigError
from pose_jax.training import config as training_config


@dataclasses.dataclass(frozen=True)
class Inner:
    lr: float
    name: Literal["adam", "sgd"] = "adam"
    momentum: float | None = None


@dataclasses.dataclass(frozen=True)
class Outer:
    size: tuple[int, int]
    inner: Inner
    steps: tuple[int, ...] = ()
    buckets: tuple[tuple[int, int], ...] = ()
    flag: bool = False
    label: str = "x"
    many: list[float] = dataclasses.field(default_factory=list)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    either: int | str = 0
    derived: int = dataclasses.field(default=7, init=False)

    def __post_init__(self):
        if self.size[0] < 1:
            raise ValueError(f"size must be positive; got {self.size}.")


def section(**changes):
    return {"size": (3, 2), "inner": {"lr": 0.5}, **changes}


@pytest.mark.parametrize("wrap", [dict, ConfigDict], ids=["dict", "ConfigDict"])
def test_build_makes_the_declared_types(wrap):
    given = section(
        inner={"lr": 1, "name": "sgd", "momentum": None},
        steps=[1, 2],
        buckets=[[4, 5], (6, 7)],
        many=(1, 2.5),
        options={"a": {"b": (1, 2)}},
        either="text",
    )
    built = config_lib.build(Outer, wrap(given), "config.outer")
    assert built == Outer(
        size=(3, 2),
        inner=Inner(lr=1.0, name="sgd"),
        steps=(1, 2),
        buckets=((4, 5), (6, 7)),
        many=[1.0, 2.5],
        options={"a": {"b": (1, 2)}},
        either="text",
    )
    assert type(built.inner.lr) is float
    assert type(built.options["a"]) is dict
    assert built.derived == 7


def test_build_leaves_a_built_section_alone():
    inner = Inner(lr=2.0)
    assert config_lib.build(Outer, section(inner=inner)).inner is inner
    assert config_lib.build(Inner, inner) is inner


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (section(inner={"lrr": 1.0}), ["c.inner.lrr", "no such key", "'lr'"]),
        (section(lable="y"), ["c.lable", "'label'"]),
        (section(derived=1), ["c.derived", "no such key"]),
        ({"size": (1, 1)}, ["c.inner", "missing"]),
        (section(inner={}), ["c.inner.lr", "missing", "a float"]),
        (section(inner=3), ["c.inner", "section"]),
        (section(inner={"lr": "fast"}), ["c.inner.lr", "a float", "'fast'", "a str"]),
        (section(inner={"lr": True}), ["c.inner.lr", "a float", "a bool"]),
        (section(inner={"lr": 1.0, "momentum": "x"}), ["c.inner.momentum", "a float"]),
        (section(inner={"lr": 1.0, "name": "adm"}), ["c.inner.name", "'adam', 'sgd'"]),
        (section(inner={"lr": 1.0, "name": "adm"}), ["Did you mean 'adam'?"]),
        (section(inner={"lr": 1.0, "name": 3}), ["c.inner.name", "got 3"]),
        (section(size=(1, 2, 3)), ["c.size", "2 values"]),
        (section(size=5), ["c.size", "tuple[int, int]", "got 5"]),
        (section(size=(1, 2.0)), ["c.size[1]", "an int", "a float"]),
        (section(size=(True, 2)), ["c.size[0]", "an int", "a bool"]),
        (section(steps="12"), ["c.steps", "tuple"]),
        (section(buckets=((1, 2), (3,))), ["c.buckets[1]", "2 values"]),
        (section(flag=1), ["c.flag", "a bool", "an int"]),
        (section(label=None), ["c.label", "a str", "None"]),
        (section(many={"a": 1}), ["c.many"]),
        (section(options=[1]), ["c.options"]),
        (section(either=1.5), ["c.either", "an int or a str"]),
        (section(size=(0, 2)), ["c: size must be positive; got (0, 2)."]),
    ],
)
def test_build_names_the_mistake_in_one_line(given, words):
    for wrapped in (given, ConfigDict(given)):
        with pytest.raises(ConfigError) as caught:
            config_lib.build(Outer, wrapped, "c")
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert word in message


def test_build_blames_the_code_for_types_that_no_config_has():
    @dataclasses.dataclass
    class Odd:
        value: complex

    with pytest.raises(TypeError, match=r"c\.value"):
        config_lib.build(Odd, {"value": 1}, "c")


CONFIG = """
from ml_collections import ConfigDict

def get_config(variant=""):
    if variant not in ("", "small"):
        raise ValueError(f"variant: 'small' or nothing; got {variant!r}.")
    return ConfigDict({
        "seed": 0,
        "optimizer": {"lr": 1e-3, "name": "adam", "clip": None, "drops": (170, 200)},
        "train": {"steps": 10 if variant == "small" else 1000, "fast": False},
        "model": {"layers": (), "scales": (0.5, 2.0), "skip": ("head",)},
    })
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "base.py"
    path.write_text(CONFIG)
    return path


def test_load_reads_the_file_and_its_argument(file):
    assert config_lib.load(file).train.steps == 1000
    assert config_lib.load(f"{file}:small").train.steps == 10
    assert config_lib.load(f"{file}:").train.steps == 1000


def test_a_loaded_config_is_locked(file):
    config = config_lib.load(file)
    with pytest.raises((AttributeError, KeyError)):
        config.optimizer.lrr = 1.0


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        (["--config.optimizer.lr=3e-4"], "optimizer.lr", 3e-4),
        (["--config.optimizer.lr", "3e-4"], "optimizer.lr", 3e-4),
        (["--config.optimizer.lr=1"], "optimizer.lr", 1.0),
        (["--config.optimizer.lr=1", "--config.optimizer.lr=2"], "optimizer.lr", 2.0),
        (["--config.seed", "-3"], "seed", -3),
        (["--config.optimizer.name=a=b"], "optimizer.name", "a=b"),
        (["--config.optimizer.name="], "optimizer.name", ""),
        (["--config.optimizer.clip=1.5"], "optimizer.clip", 1.5),
        (["--config.optimizer.clip=high"], "optimizer.clip", "high"),
        (["--config.optimizer.lr=None"], "optimizer.lr", None),
        (["--config.optimizer.drops=(1, 2, 3)"], "optimizer.drops", (1, 2, 3)),
        (["--config.optimizer.drops=1,2"], "optimizer.drops", (1, 2)),
        (["--config.optimizer.drops=5"], "optimizer.drops", (5,)),
        (["--config.optimizer.drops=()"], "optimizer.drops", ()),
        (["--config.model.scales=(1, 0.5)"], "model.scales", (1.0, 0.5)),
        (["--config.model.layers=(1, 'a')"], "model.layers", (1, "a")),
        (["--config.model.skip=head,stem"], "model.skip", ("head", "stem")),
        (["--config.model.skip=('stem',)"], "model.skip", ("stem",)),
        (["--config.train.fast=true"], "train.fast", True),
        (["--config.train.fast=0"], "train.fast", False),
    ],
)
def test_overrides_are_read_as_the_type_they_replace(file, override, key, value):
    config = config_lib.load(file, override)
    found = config
    for name in key.split("."):
        found = found[name]
    assert found == value
    assert type(found) is type(value)
    changed = config_lib.differences(config, config_lib.load(file))
    assert set(changed) <= {key}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--config.optimizer=1", ["section", "lr"]),
        ("--config.seed.x=1", ["config.seed", "value and has no keys"]),
        ("--config.seed=1.5", ["--config.seed=1.5", "an int"]),
        ("--config.optimizer.lr=fast", ["a float", "0.001"]),
        ("--config.train.fast=maybe", ["a bool"]),
        ("--config.optimizer.drops=(1, 'a')", ["a tuple"]),
        ("--config.optimizer.drops=(1", ["a tuple"]),
        ("--config.model.scales=(a, b)", ["a tuple"]),
        ("--config.optimizer.lr", ["value is missing"]),
        ("--confg.seed=1", ["--confg.seed=1", "not a valid override"]),
        ("seed=1", ["not a valid override", "--config.section.key=value"]),
    ],
)
def test_wrong_overrides_are_one_line(file, override, words):
    with pytest.raises(ConfigError) as caught:
        config_lib.load(file, [override])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_an_override_may_set_what_the_file_leaves_at_its_default(file):
    """Whether there is such a key is for `build` to say."""
    words = ["--config.optimizer.nesterov=true", "--config.new.part.size=(3, 4)"]
    config = config_lib.load(file, [*words, "--config.optimizer.kind=adam"])
    assert config.optimizer.nesterov is True
    assert config.new.part.size == (3, 4)
    assert config.optimizer.kind == "adam"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_config(:\n  pass\n", ["wrong.py, line 1", "SyntaxError"]),
        ("import nothing_like_this\n", ["line 1", "nothing_like_this"]),
        ("x = 1\n", ["get_config"]),
        ("def get_config():\n  a = {}\n  return a['k']\n", ["line 3", "KeyError"]),
        ("def get_config():\n  return 3\n", ["must return a ConfigDict"]),
    ],
)
def test_a_broken_config_file_is_one_line(tmp_path, text, words):
    path = tmp_path / "wrong.py"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config_lib.load(path)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_broken_file_is_named_where_it_was_asked_for(tmp_path, monkeypatch):
    (tmp_path / "my-config.py").write_text("def get_config():\n  return 1 / 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^my-config\.py, line 2: ZeroDivisionError"):
        config_lib.load("my-config.py")


def write(folder, **files):
    """Files of a folder by stem; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture
def unchanged(tmp_path):
    """Fails where a test leaves something in sys.path, or of tmp_path in sys.modules."""
    path = list(sys.path)
    yield
    assert sys.path == path
    for name, module in list(sys.modules.items()):
        # Not getattr: there are modules that answer to any name.
        has = getattr(module, "__dict__", {})
        places = [has.get("__file__"), *(has.get("__path__") or ())]
        assert not any(str(tmp_path) in str(place) for place in places), name


def test_config_files_import_files_of_their_own_folder(tmp_path, unchanged):
    """At their top and in get_config; two folders may have files of the same name."""
    text = (
        "from _recipes import made\n\n"
        "def get_config():\n"
        "  import later\n"
        "  return {**made(), 'later': later.VALUE}\n"
    )
    for value in (1, 2):
        write(
            tmp_path / f"folder_{value}",
            base=text,
            _recipes=f"import later\ndef made():\n  return {{'value': {value}}}\n",
            later=f"VALUE = {value}0\n",
        )
    for value in (1, 2, 1):
        config = config_lib.load(tmp_path / f"folder_{value}" / "base.py")
        assert config.to_dict() == {"value": value, "later": 10 * value}
        assert "_recipes" not in sys.modules and "later" not in sys.modules


def test_config_files_import_from_folders_of_their_folder(
    tmp_path, monkeypatch, unchanged
):
    write(tmp_path / "inner", _recipes="VALUE = 3\n")
    text = "from inner._recipes import VALUE\nget_config = lambda: {'value': VALUE}\n"
    write(tmp_path, outer=text)
    monkeypatch.chdir(tmp_path)
    assert config_lib.load("outer.py").value == 3
    assert not any(name.split(".")[0] == "inner" for name in sys.modules)


def test_what_a_config_imports_from_elsewhere_stays(tmp_path, monkeypatch):
    """A module of another folder with the same name is there again afterwards."""
    elsewhere = write(
        tmp_path / "elsewhere", stays="VALUE = 1\n", _recipes="VALUE = 1\n"
    )
    monkeypatch.syspath_prepend(elsewhere)
    import _recipes as other

    assert other.VALUE == 1
    text = (
        "import stays, _recipes\n"
        "get_config = lambda: {'value': (stays.VALUE, _recipes.VALUE)}\n"
    )
    folder = write(tmp_path / "folder", base=text, _recipes="VALUE = 2\n")
    try:
        assert config_lib.load(folder / "base.py").value == (1, 2)
        assert sys.modules["_recipes"] is other
        assert sys.modules["stays"].VALUE == 1
    finally:
        for name in ("_recipes", "stays"):
            sys.modules.pop(name, None)


def test_a_config_that_loads_another_gets_its_own_files(tmp_path, unchanged):
    inner = write(
        tmp_path / "inner",
        base="import _recipes\nget_config = lambda: {'value': _recipes.VALUE}\n",
        _recipes="VALUE = 1\n",
    )
    text = (
        "import _recipes\nfrom pose_jax import config\n"
        "def get_config():\n"
        f"  inner = config.load({str(inner / 'base.py')!r})\n"
        "  import _recipes as again\n"
        "  return {'found': (inner.value, _recipes.VALUE, again.VALUE)}\n"
    )
    outer = write(tmp_path / "outer", base=text, _recipes="VALUE = 2\n")
    assert config_lib.load(outer / "base.py").found == (1, 2, 2)


@pytest.mark.parametrize(
    ("helper", "words"),
    [
        ("def made():\n  return {}['k']\n", ["line 4 (_recipes.py, line 2): KeyError"]),
        ("x = 1\n\nx.y\n", ["line 1 (_recipes.py, line 3): AttributeError"]),
        ("x = 1\ndef made(:\n", ["line 1 (_recipes.py, line 2): SyntaxError"]),
        ("import nothing_like_this\n", ["line 1 (_recipes.py, line 1): ModuleNotF"]),
        ("x = 1\n", ["line 1: ImportError: cannot import name 'made'"]),
        (None, ["line 1: ModuleNotFoundError: No module named '_recipes'"]),
    ],
)
def test_an_error_in_an_imported_file_is_one_line(tmp_path, helper, words, unchanged):
    base = "from _recipes import made\n\ndef get_config():\n  return made()\n"
    folder = write(tmp_path, base=base)
    if helper is not None:
        write(folder, _recipes=helper)
    with pytest.raises(ConfigError) as caught:
        config_lib.load(folder / "base.py")
    message = str(caught.value)
    assert "\n" not in message
    for word in ["base.py", *words]:
        assert word in message
    assert "_recipes" not in sys.modules


def test_an_error_beyond_the_folder_is_where_the_config_called(tmp_path, monkeypatch):
    """Also where the libraries lie below the config's folder."""
    libraries = write(
        tmp_path / "lib3.11", beyond="def fail():\n  raise OSError('x')\n"
    )
    monkeypatch.syspath_prepend(libraries)
    write(tmp_path, base="import beyond\n\nget_config = lambda: beyond.fail()\n")
    with pytest.raises(ConfigError, match=r"base\.py, line 3: OSError: x$"):
        config_lib.load(tmp_path / "base.py")
    del sys.modules["beyond"]


def test_arguments_of_config_files_are_checked(file, tmp_path):
    with pytest.raises(ConfigError, match="'small' or nothing; got 'large'"):
        config_lib.load(f"{file}:large")
    plain = tmp_path / "plain.py"
    plain.write_text("def get_config():\n  return {'a': 1}\n")
    assert config_lib.load(plain, ["--config.a=2"]).a == 2
    with pytest.raises(ConfigError, match="takes no argument; got 'x'"):
        config_lib.load(f"{plain}:x")


def test_a_missing_file_names_the_nearest(file):
    with pytest.raises(ConfigError, match=r"bass\.py: no such.*mean 'base'"):
        config_lib.load(file.with_name("bass.py"))
    write(file.parent, _bass="")  # No config.
    with pytest.raises(ConfigError, match=r"bass\.py: no such.*mean 'base'"):
        config_lib.load(file.with_name("bass.py"))
    with pytest.raises(ConfigError, match="Python file"):
        config_lib.load(file.parent)


def test_json_brings_a_config_back(file):
    config = config_lib.load(file, ["--config.optimizer.lr=1e-7"])
    again = config_lib.from_json(config_lib.to_json(config))
    assert again.to_dict() == config.to_dict()
    assert config_lib.differences(again, config) == {}
    with pytest.raises((AttributeError, KeyError)):
        again.optimizer.lrr = 1.0
    for text in ("{", "[1]"):
        with pytest.raises(ConfigError, match="JSON"):
            config_lib.from_json(text)


def test_placeholders_become_none():
    config = ConfigDict({"a": config_dict.placeholder(float)})
    assert json.loads(config_lib.to_json(config)) == {"a": None}


def test_differences_are_those_of_leaves():
    default = {"a": 1, "b": {"c": (1, 2), "d": None}, "e": {}, "gone": 0}
    changed = {"a": 2, "b": {"c": [1, 2], "d": 3}, "e": {"new": None}}
    assert config_lib.differences(changed, default) == {
        "a": (1, 2),
        "b.d": (None, 3),
        "e": ({}, None),
        "gone": (0, None),
        "e.new": (None, None),
    }


def test_the_config_layer_loads_nothing_heavy(run_python):
    code = (
        "import sys, pose_jax.config; "
        "print([m for m in ('jax', 'tensorflow', 'flax') if m in sys.modules])"
    )
    out = run_python(code)
    assert out.stdout.strip() == "[]", out.stderr


def sections_with_defaults():
    """Every field of a section whose own default is another section."""
    classes = [training_config.Config, *(m.Config for m in methods.METHODS.values())]
    while classes:
        cls = classes.pop()
        for field in dataclasses.fields(cls):
            standard = (
                field.default
                if field.default_factory is dataclasses.MISSING
                else field.default_factory()
            )
            if dataclasses.is_dataclass(standard):
                classes.append(type(standard))
                name = f"{cls.__module__}.{cls.__qualname__}.{field.name}"
                yield pytest.param(standard, id=name)


@pytest.mark.parametrize("standard", [*sections_with_defaults()])
def test_naming_one_key_of_a_section_leaves_its_other_defaults(standard):
    default = dataclasses.field(default_factory=lambda: standard)
    outer = dataclasses.make_dataclass(
        "Outer", [("section", type(standard), default)], frozen=True
    )
    values = dataclasses.asdict(standard)
    assert values
    for key, value in values.items():
        assert config_lib.build(outer, {"section": {key: value}}).section == standard


def test_a_section_is_laid_over_the_default_of_its_field():
    built = methods.parse(
        {
            "name": "multipose",
            "model": {"name": "multipose_pocket"},
            "augment": {"flip": 0.5},
        }
    )[1]
    own = built.augment
    assert (own.flip, own.scale, own.scale_law) == (0.5, 0.2, "uniform")
    built = methods.parse(
        {
            "name": "detector",
            "model": {"name": "faster_rcnn_pocket"},
            "augment": {"scale": 0.1},
        }
    )[1]
    assert (built.augment.flip, built.augment.scale) == (0.5, 0.1)
