"""decode_your_heatmaps.py: other people's maps in, points of the network input out."""

import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.dark import decode_your_heatmaps
from pose_jax.codecs import gaussian

ROOT = Path(__file__).parents[2]
SIGMA, SIZE, INPUT_SIZE = 2.0, (36, 48), (144, 192)


@pytest.fixture(scope="module")
def points_xy():
    """[n, k, 2] in heatmap pixels, some nearer to an edge than the blur reaches."""
    rng = np.random.default_rng(0)
    return rng.uniform(1, np.array(SIZE) - 2, (4, 5, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def heatmaps(points_xy):
    """[n, k, h, w], as PyTorch's networks give them."""
    maps = gaussian.encode(jnp.asarray(points_xy), size=SIZE, sigma=SIGMA)
    return np.moveaxis(0.7 * np.asarray(maps), -1, 1)


def check(found, points_xy):
    found, scores = found
    np.testing.assert_allclose(found, 4 * points_xy, rtol=0, atol=0.02)
    assert scores.shape == points_xy.shape[:2]
    assert 0.6 < np.min(scores) <= np.max(scores) <= 0.7


def test_sub_pixel_points_come_back_in_input_pixels(heatmaps, points_xy):
    check(decode_your_heatmaps.decode(heatmaps, SIGMA, INPUT_SIZE), points_xy)
    double = heatmaps.astype(np.float64)
    check(decode_your_heatmaps.decode(double, SIGMA, INPUT_SIZE), points_xy)


def test_the_other_alignment_of_the_literature(heatmaps, points_xy):
    found, _ = decode_your_heatmaps.decode(heatmaps, SIGMA, INPUT_SIZE, "aligned")
    scale = (np.array(INPUT_SIZE) - 1) / (np.array(SIZE) - 1)
    np.testing.assert_allclose(found, scale * points_xy, rtol=0, atol=0.02)


def test_tensors_of_pytorch_are_taken_as_they_are(heatmaps, points_xy):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    tensor = torch.from_numpy(heatmaps)
    check(decode_your_heatmaps.decode(tensor, SIGMA, INPUT_SIZE), points_xy)
    # Not contiguous, as after a permute.
    tensor = tensor.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    check(decode_your_heatmaps.decode(tensor, SIGMA, INPUT_SIZE), points_xy)


def test_its_command_turns_a_file_into_a_file(heatmaps, points_xy, tmp_path):
    np.save(tmp_path / "maps.npy", heatmaps)
    words = [tmp_path / "maps.npy", "2", "144", "192", tmp_path / "points.npy"]
    module = "experiments.dark.decode_your_heatmaps"
    subprocess.run([sys.executable, "-m", module, *words], cwd=ROOT, check=True)
    found = np.load(tmp_path / "points.npy")
    np.testing.assert_allclose(found, 4 * points_xy, rtol=0, atol=0.02)


def test_it_is_short_and_loads_neither_flax_nor_tensorflow(run_python):
    lines = Path(decode_your_heatmaps.__file__).read_text().splitlines()
    assert len(lines) <= 25
    answer = run_python(
        "import sys; import experiments.dark.decode_your_heatmaps; "
        "print(*{'flax', 'tensorflow', 'torch'} & set(sys.modules))"
    )
    assert answer.returncode == 0 and answer.stdout == "\n", answer
