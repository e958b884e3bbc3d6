import json

import numpy as np
import pytest
from PIL import Image

from experiments.dark import decoding_error


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoding") / "new"
    with pytest.MonkeyPatch.context() as patch:
        # Each width of blur is compiled anew: three instead of ten.
        patch.setattr(decoding_error, "SIGMAS", (1.0, 4.0))
        patch.setattr(decoding_error, "FACTORS", (0.5, 2.0))
        decoding_error.main(["--out", str(folder), "--maps", "64"])
    return folder


@pytest.fixture(scope="module")
def curves(out):
    return json.loads((out / "decoding_error.json").read_text())["curves"]


def at(curve, x):
    place = curve["x"].index(x)
    return {name: e["mean"][place] for name, e in curve["errors"].items()}


@pytest.mark.slow
def test_the_figure_is_wide_and_its_file_small(out):
    path = out / "decoding_error.png"
    assert path.stat().st_size < 300_000
    assert Image.open(path).width >= 1200


def test_every_number_is_finite(curves):
    drawn = {name for row in decoding_error.PANELS for name, *_ in row}
    assert drawn <= set(curves)
    for curve in curves.values():
        for statistics in curve["errors"].values():
            for values in statistics.values():
                assert len(values) == len(curve["x"])
                assert np.isfinite(values).all() and np.min(values) >= 0


def test_decoders_are_ordered_in_the_interior_without_noise(curves):
    mean = at(curves["noise_white"], 0.0)
    second, sign = mean["quarter shift, second"], mean["quarter shift, sign"]
    assert 0.45 > mean["argmax"] > second > sign > 0.15
    assert all(mean[f"DARK, {kind}"] < 3e-4 for kind in ("no blur", "paper", "robust"))


def test_only_robust_is_exact_at_the_rim(curves):
    mean = at(curves["distance_clean"], 2.25)
    assert mean["DARK, paper"] > 0.1 and mean["DARK, robust"] < 1e-5
    mean = at(curves["distance_clean"], 0.25)
    assert mean["DARK, no blur"] > 0.3 and mean["DARK, robust"] < 1e-5


def test_no_decoder_undoes_biased_targets(curves):
    mean = at(curves["encoding"], "biased")
    assert min(mean.values()) > 0.3


def test_edge_points_are_as_far_as_asked():
    x, y = decoding_error.edge_points(1000, 2, 2.5).T
    across, down = np.array(decoding_error.SIZE) - 1
    distances = np.stack([x, across - x, y, down - y])
    assert distances.min() >= 2 and distances.min(axis=0).max() < 2.5
    assert set(distances.argmin(axis=0)) == {0, 1, 2, 3}
