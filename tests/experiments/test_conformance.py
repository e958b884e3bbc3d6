"""The decoders on maps with published answers, and the checker alone."""

import functools
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.decoders import check
from pose_jax.codecs import gaussian

paper = functools.partial(gaussian.decode_dark, variant="paper")


@pytest.mark.parametrize(
    ("answer", "decode", "others"),
    [
        ("peak", gaussian.decode_argmax, 4),  # Published: (0, 0) if nothing is above 0.
        ("quarter", gaussian.decode_shift, 4),
        ("dark_11", functools.partial(paper, kernel_size=11), 0),
        ("dark_17", functools.partial(paper, kernel_size=17), 0),
        ("dark_no_blur", functools.partial(paper, kernel_size=1), 0),
        ("nan_peak", gaussian.decode_argmax, 0),
    ],
)
def test_published_answers(answer, decode, others):
    function = lambda maps: decode(jnp.asarray(np.moveaxis(maps, 0, -1)))[0]
    _, distance = check.differences(function, answer)
    assert (distance > 1e-4).sum() == others


def test_the_checker_needs_numpy_only(tmp_path):
    (tmp_path / "own.py").write_text(
        "import numpy as np\n"
        "def peak(maps):\n"
        "    flat = maps.reshape(len(maps), -1)\n"
        "    y, x = np.divmod(flat.argmax(1), maps.shape[2])\n"
        "    return np.stack([x, y], -1) * (flat.max(1) > 0)[:, None]\n"
    )
    command = [sys.executable, check.__file__, "own:peak"]
    run = lambda answer: subprocess.run(
        [*command, answer], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    right, wrong = run("peak"), run("dark_11")
    assert right.returncode == 0 and "border       0 of 22 differ" in right.stdout
    assert wrong.returncode == 1 and "bump         8 of 8 differ" in wrong.stdout
