"""Checks a decoder of heatmaps against published answers, with NumPy only.

    python check.py MODULE:FUNCTION ANSWER [--tolerance 0.001]

FUNCTION takes float32 maps [n, h, w] and returns points [n, 2], (x, y) in heatmap pixels.
ANSWER: peak, quarter, dark_11, dark_17, dark_no_blur, udp_11, udp_17 or nan_peak, see
CONFORMANCE.md. Prints the maps outside of the tolerance by kind; exit code 1 if any.
"""

import argparse
import importlib
import pathlib
import sys

import numpy as np

FILE = pathlib.Path(__file__).parent / "conformance.npz"


def differences(function, answer):
    """Returns the kind of each map and the distance from the answer, [n] each."""
    data = np.load(FILE)
    if answer.startswith("nan"):
        maps, kinds = data["nan_maps"], np.full(len(data["nan_maps"]), "NaN")
    else:
        maps, kinds = data["maps"] / data["divisor"], data["kind"]
    found, expected = np.asarray(function(maps)), data[answer]
    distance = np.linalg.norm(found - expected, axis=-1)
    both_nan = np.isnan(found).any(-1) & np.isnan(expected).any(-1)
    return kinds, np.where(both_nan, 0, np.where(np.isnan(distance), np.inf, distance))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("function")
    parser.add_argument("answer")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    args = parser.parse_args()
    sys.path.insert(0, ".")
    module, name = args.function.split(":")
    function = getattr(importlib.import_module(module), name)
    kinds, distance = differences(function, args.answer)
    for kind in np.unique(kinds):
        of = distance[kinds == kind]
        wrong = (of > args.tolerance).sum()
        print(f"{kind:12} {wrong} of {len(of)} differ, by up to {of.max():.4g} px")
    sys.exit(int((distance > args.tolerance).any()))
