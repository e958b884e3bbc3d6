"""Names in a config: registered here, or somebody's own, or one line that says why not."""

import sys

import pytest

from pose_jax import registry
from pose_jax.errors import ConfigError

KNOWN = {"dark": 1, "deeppose": 2}


def lookup(name):
    return registry.lookup(name, KNOWN, kind="method", where="config.method.name")


def said(name):
    """Why there is no such thing, in one line."""
    with pytest.raises(ConfigError) as error:
        lookup(name)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder; what is imported, and the path, are as before afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def write(folder, text, name="somebodys"):
    path = folder.joinpath(*name.split(".")).with_suffix(".py")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_a_registered_name_is_what_is_registered():
    assert lookup("dark") == 1 and lookup("deeppose") == 2


@pytest.mark.parametrize("module", ["somebodys", "package.somebodys"])
def test_a_name_with_a_colon_is_imported_from_the_path(folder, monkeypatch, module):
    write(folder, "class Mine:\n    there = 3\n", module)
    monkeypatch.syspath_prepend(folder)
    found = lookup(f"{module}:Mine")
    assert found.there == 3
    assert lookup(f"{module}:Mine") is found  # Imported once.


def test_a_name_with_a_colon_is_imported_from_the_current_folder(folder, monkeypatch):
    """As a console script has it: its path has not the current folder. It comes last."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(folder)
    write(folder, "mine = 4\n")
    write(folder, "raise ValueError('of the folder')\n", "colorsys")
    before = list(sys.path)
    assert lookup("somebodys:mine") == 4
    assert callable(lookup("colorsys:hsv_to_rgb"))
    assert sys.path == [*before, str(folder)]  # Once.


def test_a_registered_name_comes_before_somebodys_own(folder, monkeypatch):
    write(folder, "mine = 4\n")
    monkeypatch.syspath_prepend(folder)
    known = {"somebodys:mine": 5}
    assert registry.lookup("somebodys:mine", known, kind="model", where="here") == 5


def test_a_name_that_is_not_there_is_said_with_all_that_are_and_the_nearest():
    assert said("darc") == (
        "config.method.name: no method 'darc'; there are dark, deeppose. Did you mean "
        "'dark'? For a method of your own, give 'package.module:attribute'."
    )
    assert "Did you mean 'deeppose'?" in said("deep_pose")


@pytest.mark.parametrize("name", [None, 3, "", ("dark",)])
def test_what_is_no_name_is_refused(name):
    assert f"no method {name!r}; there are dark, deeppose." in said(name)


def test_without_anything_registered_nothing_is_near():
    with pytest.raises(ConfigError) as error:
        registry.lookup("x", {}, kind="model", where="config.x")
    assert "Did you mean" not in str(error.value)
    assert "For a model of your own, give" in str(error.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "nobodys_module:Mine",
            "ModuleNotFoundError: No module named 'nobodys_module'",
        ),
        ("package.nobodys:Mine", "ModuleNotFoundError: No module named 'package."),
        ("somebodys:Yours", "module 'somebodys' has no 'Yours'"),
        ("somebodys:", "module 'somebodys' has no ''"),
        (":Mine", "ValueError: "),
        ("raises:Mine", "ValueError: two lines of a reason"),
        ("absent:Mine", "ModuleNotFoundError: No module named 'nobodys_package'"),
        ("misspelt:Mine", "AttributeError: module 'math' has no attribute 'pie'"),
        ("broken:Mine", "SyntaxError: "),
    ],
)
def test_what_cannot_be_imported_is_said_with_the_reason(
    name, reason, folder, monkeypatch
):
    """Whoever's fault it is: the module is not there, or it fails."""
    write(folder, "class Mine:\n    pass\n")
    write(folder, "", "package.__init__")
    write(folder, "raise ValueError('two lines\\nof a reason')\n", "raises")
    write(folder, "import nobodys_package\n", "absent")
    write(folder, "import math\n\nMine = math.pie\n", "misspelt")
    write(folder, "class Mine\n", "broken")
    monkeypatch.syspath_prepend(folder)
    start = f"config.method.name: {name!r} cannot be imported: {reason}"
    assert said(name).startswith(start)
