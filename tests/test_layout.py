"""Which folder may import which, read from every import, those inside functions too."""

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pose_jax"

FLOOR = {
    "codecs", "errors", "geometry", "keypoints", "losses", "metrics", "nms", "writing",
}  # fmt: skip
"""What everything may import, and what imports nothing above itself."""

ALLOWED: dict[str, set[str]] = {
    "__main__": {"cli"},
    "__init__": {"_version", "predict"},
    "cli": {
        "_version", "config", "data", "doctor", "evaluation", "export", "info",
        "init", "predict", "report", "sweep", "training", "weights",
    },
    "init": {"_version", "config", "data", "evaluation", "training", "weights"},
    "sweep": {
        "config", "data", "evaluation", "methods", "report", "runs", "sharding",
        "training",
    },
    "report": {
        "_version", "config", "data", "evaluation", "runs", "sharding", "training",
        "types",
    },
    "info": {"config", "data", "methods", "models", "runs", "training", "types"},
    "predict": {"data", "drawing", "evaluation", "runs", "sharding"},
    "export": {"_version", "methods", "models", "runs", "types"},
    "doctor": set(),
    "training": {
        "config", "data", "drawing", "evaluation", "methods", "runs", "sharding",
        "trees", "types",
    },
    "evaluation": {
        "config", "data", "drawing", "methods", "runs", "sharding", "types",
    },
    "weights": {"data", "methods", "models", "runs", "trees"},
    "runs": {"_version", "config", "data", "methods", "trees", "types"},
    "methods": {"config", "drawing", "models", "registry", "types"},
    "data": {"config", "registry", "types"},
    "drawing": set(),
    "models": {"registry"},
    "registry": set(),
    "sharding": set(),
    "config": set(),
    "types": set(),
    "trees": set(),
    "_version": set(),
    "geometry": set(),
    "keypoints": set(),
    "losses": set(),
    "metrics": set(),
    "codecs": set(),
    "nms": set(),
    "errors": set(),
    "writing": set(),
}  # fmt: skip
"""What each file or folder of the top level may import, beside the floor."""

IN_THE_FLOOR = {"nms": {"metrics"}, "metrics": {"errors", "keypoints"}}
"""What a module of the floor may import of it."""


def _modules() -> dict[str, Path]:
    """Every module by its dotted name below the package; a package by its folder's."""
    modules = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        names = path.relative_to(PACKAGE).with_suffix("").parts
        names = names[:-1] if names[-1] == "__init__" else names
        modules[".".join(names)] = path
    return modules


MODULES = _modules()
PATHS = sorted(MODULES.values())


def imports(path: Path, modules=MODULES) -> set[str]:
    """Dotted names, below the package, of all modules that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}: relative imports are not used here"
            if node.module and f"{node.module}.".startswith("pose_jax."):
                prefix = node.module.removeprefix("pose_jax").lstrip(".")
                for alias in node.names:
                    name = f"{prefix}.{alias.name}".lstrip(".")
                    found.add(name if name in modules else prefix)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if f"{alias.name}.".startswith("pose_jax."):
                    found.add(alias.name.removeprefix("pose_jax").lstrip("."))
    return found


def _top(module: str) -> str:
    return module.split(".")[0] or "__init__"


def test_every_file_and_folder_of_the_top_level_is_in_the_table():
    assert {_top(module) for module in MODULES} == set(ALLOWED)


@pytest.mark.parametrize("top", ALLOWED)
def test_imports_run_downwards_only(top):
    allowed = ALLOWED[top] | (IN_THE_FLOOR.get(top, set()) if top in FLOOR else FLOOR)
    if top in FLOOR - {"errors", "keypoints"}:
        allowed |= {"errors", "keypoints"}
    for module, path in MODULES.items():
        if _top(module) == top:
            wrong = {_top(name) for name in imports(path)} - allowed - {top}
            assert not wrong, f"{module or '__init__'} imports {sorted(wrong)}"


def test_no_arrow_of_the_table_is_unused():
    """So that the table says what is there, and a new arrow is a decision."""
    for top, allowed in ALLOWED.items():
        used = {
            _top(name)
            for module, path in MODULES.items()
            if _top(module) == top
            for name in imports(path)
        }
        assert allowed <= used, f"{top} does not import {sorted(allowed - used)}"


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Names that lead back to the first of them, or []."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        for other in sorted(arrows.get(name, ())):
            found = visit(other, [*path, name])
            if found:
                return found
        done.add(name)
        return []

    for name in arrows:
        found = visit(name, [])
        if found:
            return found
    return []


def test_no_files_import_each_other_in_a_circle():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []
    arrows = {module: imports(path) for module, path in MODULES.items()}
    found = circle(arrows)
    assert not found, " -> ".join([*found, found[0]])


def test_nothing_imports_configs_experiments_or_tests():
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            tops = {name.split(".")[0] for name in names}
            assert not tops & {"configs", "experiments", "tests"}, path.name


@pytest.mark.parametrize("top", sorted(FLOOR - {"errors"}))
def test_the_pure_floor_imports_jax_numpy_and_jaxtyping_alone(top):
    allowed = {"jax", "numpy", "jaxtyping", "pose_jax", "__future__"}
    for module, path in MODULES.items():
        if _top(module) != top:
            continue
        for node in ast.parse(path.read_text()).body:  # At module level.
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            tops = {name.split(".")[0] for name in names}
            foreign = tops - allowed - sys.stdlib_module_names
            assert not foreign, f"{module} imports {sorted(foreign)}"


def _long_bodies(folder: Path, lines: int) -> list[str]:
    """Functions with longer bodies, docstrings not counted."""
    long = []
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body and body[-1].end_lineno - body[0].lineno + 1 > lines:
                long.append(f"{path.name}:{node.name}")
    return long


def test_no_body_and_no_file_is_too_long():
    assert not _long_bodies(PACKAGE / "methods", 60)
    assert not _long_bodies(PACKAGE, 80)
    assert _long_bodies(PACKAGE / "methods", 10), "the count itself"
    lengths = {path.name: len(path.read_text().splitlines()) for path in PATHS}
    assert not {name: lines for name, lines in lengths.items() if lines > 700}


KINDS = {"PersonView", "ImageView", "Poses", "Boxes", "PersonLabels", "ImageLabels"}


def _asks_of_kinds(path: Path) -> bool:
    """Whether a file asks if something is of a person or of an image."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "isinstance"
        and KINDS & {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_person_or_image_is_asked_once():
    """`rows.of` asks of views, `evaluation.of` whether there are keypoints; no other."""
    assert [path for path in PATHS if _asks_of_kinds(path)] == [
        PACKAGE / "data/rows.py"
    ]


def test_the_top_level_stays_small():
    files = [path for path in PACKAGE.glob("*.py")]
    folders = {path.parent for path in PACKAGE.glob("*/__init__.py")}
    assert len(files) <= 17, sorted(path.name for path in files)
    assert len(folders) <= 15, sorted(path.name for path in folders)


FOLDERS = sorted(PACKAGE.rglob("__init__.py"))


@pytest.mark.parametrize("path", FOLDERS, ids=lambda path: path.parent.name)
def test_each_folder_says_what_it_is_for(path):
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert len(text.splitlines()) >= 2, f"{path.parent.name}: what is it for?"


def test_the_readme_has_a_line_for_each_folder():
    text = (ROOT / "README.md").read_text()
    layout = text[text.index("## Layout") :]
    named = set(re.findall(r"`(?:pose_jax/)?(\w+)/?(?:\.py)?`", layout))
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= named, f"README's layout lacks {sorted(folders - named)}"


# The names that other programs import, as the README promises them.

PUBLIC = """
pose_jax load
pose_jax.codecs.gaussian encode reaches decode_argmax decode_shift decode_dark modulate
pose_jax.codecs.offsets encode fuse decode decode_peak decode_density
pose_jax.codecs.regression normalize denormalize
pose_jax.geometry person_box crop_transform compose invert transform_points warp
pose_jax.geometry heatmap_to_input input_to_heatmap
pose_jax.losses heatmap_mse heatmap_sigmoid_cross_entropy offset_huber masked_mean
pose_jax.losses keypoint_squared_error keypoint_smooth_l1
pose_jax.metrics oks pcp pck pdj pckh coco_keypoint_ap coco_box_ap
pose_jax.nms box_nms oks_nms soft_oks_nms
pose_jax.keypoints KeypointSet remap swap
pose_jax.models build
pose_jax.weights from_torch from_tfjs
pose_jax.sweep Sweep grid choice linear_range log_range
pose_jax.methods.system find_people
"""


@pytest.mark.parametrize("line", PUBLIC.strip().splitlines())
def test_what_outsiders_import_is_there_and_documented(line, capsys):
    module_name, *names = line.split()
    module = importlib.import_module(module_name)
    for name in names:
        value = getattr(module, name)
        help(value)
        text = capsys.readouterr().out
        assert name in text.splitlines()[0] and value.__doc__, f"{module_name}.{name}"
    if module_name == "pose_jax.keypoints":
        assert {"COCO", "MPII", "LSP", "FLIC"} <= set(vars(module))
