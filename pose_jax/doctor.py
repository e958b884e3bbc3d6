"""`pose-jax doctor`: checks that this machine meets the requirements of pose_jax.

Prints one line per check: ok, old or missing, with the fix. "optional" lines never fail.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pose_jax.errors import one_line

PYTHON_FLOOR = (3, 11)
_EXTRAS = {
    "tensorflow": "the tf.data reader (without it: the NumPy reader, same pixels)",
    "tensorflow_datasets": "prepared data sets",
    "tensorboardX": "TensorBoard logs (without it: metrics.jsonl)",
    "av": "videos in `predict`",
}
_EXTRA_OF = {"tensorboardX": "log", "av": "video"}
_GIGABYTE = 2**30


class Line(NamedTuple):
    """The result of a check; `state` is "ok", a problem, or "optional" (not required)."""

    state: str
    what: str
    remedy: str = ""


def doctor(data_roots: Sequence[Path] = ()) -> int:
    """Prints all checks; returns an exit code, 1 if a requirement is not met."""
    lines = [_python(), *_packages(), *_devices(), *_extras(), *_machine()]
    lines += _data(data_roots)
    for line in lines:
        remedy = f"  -> {line.remedy}" if line.remedy else ""
        print(f"{line.state:8}  {line.what}{remedy}")
    wrong = sum(line.state not in ("ok", "optional") for line in lines)
    print(f"{wrong} of {len(lines)} checks failed" if wrong else "all checks passed")
    return 1 if wrong else 0


def _python() -> Line:
    what = f"Python {platform.python_version()}"
    if sys.version_info >= PYTHON_FLOOR:
        return Line("ok", what)
    return Line("old", what, "needs 3.11 or newer: make PYTHON=/path/to/python venv")


def version_tuple(version: str) -> tuple[int, ...]:
    """Returns the leading numbers of a version: "0.10.2rc1" is (0, 10, 2)."""
    return tuple(int(n) for n in re.split(r"[^\d.]", version)[0].split(".") if n)


def _packages() -> Iterator[Line]:
    try:
        requirements = importlib.metadata.requires("pose_jax") or []
    except importlib.metadata.PackageNotFoundError:
        yield Line("missing", "pose_jax is not installed", "pip install -e .")
        return
    for requirement in requirements:
        if "extra ==" in requirement:
            continue
        name, floor = (part.strip() for part in requirement.split(">="))
        remedy = f"pip install -U '{name}>={floor}'"
        version = _distribution(name)
        if version is None:
            yield Line("missing", f"{name} (at least {floor})", remedy)
        elif version_tuple(version) < version_tuple(floor):
            yield Line("old", f"{name} {version} (at least {floor})", remedy)
        else:
            yield Line("ok", f"{name} {version}")
    try:
        import jax
        import jaxlib.version
    except (ImportError, RuntimeError) as error:  # RuntimeError: incompatible versions.
        yield Line("missing", f"jax cannot be imported: {error}", "pip install -U jax")
        return
    jaxlib_version = jaxlib.version.__version__
    yield Line("ok", f"jaxlib {jaxlib_version} with jax {jax.__version__}")


def _devices() -> Iterator[Line]:
    try:
        import jax

        devices = jax.devices()
    except (ImportError, RuntimeError) as error:
        reason = f"no JAX device: {one_line(error)}"
        yield Line("missing", reason, "unset JAX_PLATFORMS")
        return
    kind = f"{devices[0].platform} ({devices[0].device_kind})"
    yield Line("ok", f"{len(devices)} JAX device(s): {kind}")
    if devices[0].platform == "cpu" and shutil.which("nvidia-smi"):
        yield Line(
            "optional",
            "NVIDIA driver found, but JAX is using the CPU",
            f"pip install 'jax[cuda12]=={jax.__version__}', or unset JAX_PLATFORMS",
        )


def _extras() -> Iterator[Line]:
    for name, use in _EXTRAS.items():
        # Located, not imported: importing TensorFlow takes seconds.
        if importlib.util.find_spec(name) is None:
            extra = _EXTRA_OF.get(name, "data")
            yield Line("optional", f"no {name}: {use}", f"pip install -e '.[{extra}]'")
        else:
            version = _distribution(name) or _distribution(f"{name}_cpu") or ""
            yield Line("ok", f"{name} {version}")
    if importlib.util.find_spec("tensorflow") is not None:
        # The reader hides the GPUs from it (tf.config.set_visible_devices).
        cpu_only = _distribution("tensorflow_cpu") is not None
        why = "CPU build" if cpu_only else "GPUs are hidden before its first use"
        yield Line("ok", f"TensorFlow takes no GPU memory: {why}")


def _distribution(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine() -> Iterator[Line]:
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # Not on macOS.
        cores = len(os.sched_getaffinity(0))
    yield Line("ok", f"{cores} CPU cores")
    with contextlib.suppress(AttributeError, ValueError, OSError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        yield Line("ok", f"{memory / _GIGABYTE:.1f} GB of memory")
    free = shutil.disk_usage(".").free / _GIGABYTE
    what = f"{free:.1f} GB free on this disk"
    if free < 1:
        yield Line("low", what, "runs with checkpoints need at least 1 GB")
    else:
        yield Line("ok", what)


def _data(roots: Sequence[Path]) -> Iterator[Line]:
    """Looks for known data sets in $POSE_JAX_DATA/NAME and in the given roots."""
    folders = [(Path(root), True) for root in roots]
    if base := os.environ.get("POSE_JAX_DATA"):
        if not Path(base).is_dir():
            what = f"$POSE_JAX_DATA: no such folder {base}"
            yield Line("missing", what, "correct or unset the variable")
        else:
            folders += [(p, False) for p in sorted(Path(base).iterdir()) if p.is_dir()]
    for root, asked in folders:
        if not root.is_dir():
            yield Line("missing", f"data {root}: no such folder", "check the path")
        elif files := sorted(root.glob("annotations/person_keypoints_*.json*")):
            yield from _coco_lines(root, files)
        elif asked:
            yield Line(
                "missing",
                f"data {root}: no annotations/person_keypoints_*.json",
                "a COCO folder has annotations/, train2017/ and val2017/",
            )
    if not folders:
        yield Line(
            "optional", "no data folder given", "pose-jax data synth --out data/people"
        )


def _coco_lines(root: Path, files: Sequence[Path]) -> Iterator[Line]:
    for file in files:
        split = file.name.removeprefix("person_keypoints_").partition(".json")[0]
        what, images = f"data {root}: COCO {split}", root / split
        if images.is_dir():
            count = sum(1 for _ in images.iterdir())
            yield Line("ok", f"{what}, {count} image files")
        else:
            yield Line("optional", f"{what}: labels only, no {images}")
