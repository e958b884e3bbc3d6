"""pyproject.toml, requirements.txt and the package agree; no machine is named."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pose_jax

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PYPROJECT)["project"]
REQUIREMENTS = (ROOT / "requirements.txt").read_text()
LINES = [li for li in REQUIREMENTS.splitlines() if li and not li.startswith("#")]


def _key(name):
    return name.lower().replace("_", "-")


def _numbers(version):
    return [int(n) for n in re.findall(r"\d+", version)]


def _pins():
    """{name: versions}: one version, or one for each marker."""
    pins = {}
    for line in LINES:
        name, version = re.match(r"([\w.-]+)==([\w.]+)", line).groups()
        pins.setdefault(_key(name), []).append(version)
    return pins


def _floors():
    """(name, floor) of every requirement in pyproject.toml, extras included."""
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    floors = {re.match(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)", r).groups()
              for requirements in lists for r in requirements}  # fmt: skip
    assert len(floors) >= 20
    return sorted(floors)


@pytest.mark.parametrize(("name", "floor"), _floors())
def test_requirements_satisfy_the_floors(name, floor):
    pins = _pins()
    assert _key(name) in pins, f"{name} has no version in requirements.txt"
    for version in pins[_key(name)]:
        assert _numbers(version) >= _numbers(floor)


def test_every_requirement_is_an_exact_version_for_every_python():
    markers = {}
    for line in LINES:
        match = re.fullmatch(r"([\w.-]+)==[\w.]+(?:; (.+))?", line)
        assert match, line
        markers.setdefault(_key(match[1]), []).append(match[2])
    assert list(markers) == sorted(markers)
    older, newer = 'python_version < "3.12"', 'python_version >= "3.12"'
    for name, conditions in markers.items():
        by_python = [c for c in conditions if c and "python_version" in c]
        if by_python:
            assert [older in c for c in conditions] == [True, False], name
            assert conditions[1].replace(newer, older) == conditions[0], name
        else:
            assert len(conditions) == 1, name


def test_no_registry_and_no_path_is_named():
    for text in (REQUIREMENTS, PYPROJECT, (ROOT / "Makefile").read_text()):
        assert not re.search(
            r"https?://|--(extra-)?index-url|find-links|file://|@ ", text
        )
    assert not re.search(r"^-|/\w+/", REQUIREMENTS, re.MULTILINE)


def test_torch_is_never_required():
    assert "torch" not in dict(_floors()) and "torch" not in _pins()


def test_the_version_stands_in_one_place():
    assert re.fullmatch(r"\d+\.\d+\.\d+", pose_jax.__version__)
    pytest.importorskip("setuptools")
    assert pose_jax.__version__ not in re.sub(r">=[\d.]+", "", PYPROJECT)
    answer = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert answer.stdout.split()[-1] == pose_jax.__version__


def test_every_folder_of_the_package_is_a_package():
    folders = {path.parent for path in (ROOT / "pose_jax").rglob("*.py")}
    missing = [f.name for f in folders if not (f / "__init__.py").exists()]
    assert not missing, f"they would not be installed: {missing}"


def _imports_at_module_level(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_everything_imported_is_required():
    """Each third-party module at module level belongs to a base requirement."""
    required = {_key(re.split("[>[]", r)[0]) for r in PROJECT["dependencies"]}
    named = {"PIL": "pillow", "absl": "absl-py", "orbax": "orbax-checkpoint"}
    for path in (ROOT / "pose_jax").rglob("*.py"):
        for module in _imports_at_module_level(path):
            top = module.split(".")[0]
            if top and top != "pose_jax" and top not in sys.stdlib_module_names:
                assert _key(named.get(top, top)) in required, f"{path.name}: {top}"


def test_importing_the_package_loads_nothing_else():
    code = (
        "import sys; before = set(sys.modules); import pose_jax; pose_jax.__version__; "
        "print(*{m.split('.')[0] for m in set(sys.modules) - before})"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    tops = set(answer.stdout.split())
    assert tops - set(sys.stdlib_module_names) <= {"pose_jax"}


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonesuch"):
        _ = pose_jax.nonesuch


def _make(*words, path=os.environ["PATH"]):
    return subprocess.run(
        ["make", "-n", *words],
        cwd=ROOT, env={"PATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_make_finds_a_python_that_runs(tmp_path):
    """A broken command of the right name in front of it is passed over."""
    for name in ("python3", "python3.13"):
        shim = tmp_path / name
        shim.write_text("#!/bin/sh\nexit 127\n")
        shim.chmod(0o755)
    (tmp_path / "python3.11").symlink_to(sys.executable)
    answer = _make(
        "VENV=unbuilt", "unbuilt/bin/python", path=f"{tmp_path}:/usr/bin:/bin"
    )
    assert answer.returncode == 0, answer.stderr
    assert re.search(r"^python3\.1[12] -m venv unbuilt$", answer.stdout, re.MULTILINE)


def test_the_base_install_has_no_extras_and_the_tests_have():
    base = _make("VENV=unbuilt", "unbuilt/.base").stdout
    full = _make("VENV=unbuilt", "test").stdout
    assert "-c requirements.txt -e ." in base and "[data" not in base
    assert '-c requirements.txt -e ".[data,dev]"' in full
    assert "JAX_PLATFORMS=cpu" in full and "pytest" in full
