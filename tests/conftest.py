"""Strictness for all tests: four CPU devices, no silent broadcasting between ranks, no
key used twice, and shapes of the pure functions checked against their annotations."""

import gc
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The tests compile much and run little.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
)
# XLA's fusion emitters, which pass through MLIR, take several times as long to compile as
# its older ones. Later versions have no others, and end at a flag that they do not know.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

# Many tests train the same small network: compiled once for the whole session, by
# whichever of its processes is the first.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="pose_jax_compiled_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import hypothesis
import jax
import numpy as np
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

# The same examples in every run; `make test-fuzz` draws others.
hypothesis.settings.register_profile("fixed", derandomize=True, database=None)
hypothesis.settings.register_profile("random", print_blob=True)
hypothesis.settings.load_profile(os.environ.get("POSE_JAX_EXAMPLES", "fixed"))

# Before anything imports them; submodules are covered. Those in `types` are not: a
# checked dataclass would refuse the shapes that `jax.eval_shape` puts into it.
_LAYER_1 = ("codecs", "geometry", "losses", "metrics", "nms")
install_import_hook([f"pose_jax.{name}" for name in _LAYER_1], "beartype.beartype")

from pose_jax.drawing import sheet  # noqa: E402, I001
from pose_jax.evaluation import pictures  # noqa: E402


# Matplotlib takes longer for the curves of a run than a small network for its training.
# Tests of the curves call `drawing.curves` itself; one run is drawn with `real_curves`.
_CURVES = pictures.curves_lib


def _placeholder(metrics_path: Path | str, out: Path | str) -> None:
    assert Path(metrics_path).exists()
    sheet.save_png(out, np.zeros((1, 1, 3), np.uint8))


pictures.curves_lib = types.SimpleNamespace(curves=_placeholder)


@pytest.fixture(scope="module")
def real_curves() -> Iterator[None]:
    """Trained runs get the curves that users get."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "curves_lib", _CURVES)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder of real images and annotations, named by POSE_JAX_DATA; or skips."""
    folder = os.environ.get("POSE_JAX_DATA")
    if not folder:
        pytest.skip("POSE_JAX_DATA names no folder of real images")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"POSE_JAX_DATA is not a folder: {folder}")
    return path


@pytest.fixture(scope="session")
def run_python() -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs code in a Python of its own, which finds pose_jax; output is captured."""

    def run(code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=False,
        )

    return run


_LONG = ("test_resume.py", "test_train.py", "test_convert.py", "test_models.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests take long come first, so that no process waits for another."""
    items.sort(key=lambda item: item.path.name not in _LONG)


@pytest.fixture(scope="module", autouse=True)
def _forget():
    """A process that keeps the programs of all files grows to gigabytes, which the garbage
    collector walks through again and again."""
    yield
    jax.clear_caches()
    gc.collect()
    gc.freeze()
