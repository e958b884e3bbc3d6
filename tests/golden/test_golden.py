"""What each method computes is what it computed when its file was written."""

import math

import pytest

from tests.golden import harness

TOLERANCE = 1e-4
"""Of the size of a value, on another machine or with another JAX."""


def _differences(stored, computed, path=""):
    """Paths whose values differ, with how much; a digest counts on one machine alone."""
    if isinstance(stored, dict):
        if sorted(stored) != sorted(computed):
            yield f"{path}: has {sorted(computed)}, had {sorted(stored)}"
            return
        for key in stored:
            yield from _differences(stored[key], computed[key], f"{path}/{key}")
    elif isinstance(stored, list) and path.split("/")[1] == "phases":
        # A norm, a random product of its size, a digest.
        size = max(abs(stored[0]), 1e-6)
        for old, new in zip(stored[:2], computed[:2], strict=True):
            if not abs(old - new) <= TOLERANCE * size:
                yield f"{path}: {new}, was {old}"
    elif isinstance(stored, list):
        flat, other = _flat(stored), _flat(computed)
        size = max(map(abs, flat), default=0.0)
        if len(flat) != len(other):
            yield f"{path}: {len(other)} numbers, had {len(flat)}"
            return
        worst = max((abs(a - b) for a, b in zip(flat, other, strict=True)), default=0.0)
        if not worst <= TOLERANCE * size:
            yield f"{path}: differs by {worst} of {size}"
    elif not math.isclose(stored, computed, rel_tol=TOLERANCE, abs_tol=1e-9):
        yield f"{path}: {computed}, was {stored}"


def _flat(values):
    if isinstance(values, list):
        return [number for value in values for number in _flat(value)]
    return [float(values)]


# One in `make test`; what the others compute is tested by its definition in tests/methods.
SOON = ("dark_pocket",)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in SOON else pytest.mark.slow)
        for name in harness.CASES
    ],
)
def test_equals_its_file(name):
    stored = harness.load(name)
    same_machine = stored.pop("machine") == harness.machine()
    computed = harness.compute(name)
    differences = list(_differences(stored, computed))
    assert not differences, "\n".join(differences)
    if same_machine:
        assert computed == stored, "equal to 1e-4, but not to the bit"


def test_a_difference_is_found():
    """The comparison itself: of a loss, of a state, of points, of a missing module."""
    stored = {
        "phases": {"pose": {"losses": {"loss": 0.5}, "state": {"a": [2.0, 1.0, "ab"]}}},
        "predictions": {"points_xy": [[[1.0, 30.0]]]},
    }

    def changed(path, value):
        copy = eval(repr(stored))
        place = copy
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        return list(_differences(stored, copy))

    assert list(_differences(stored, stored)) == []
    assert changed(("phases", "pose", "losses", "loss"), 0.5002)
    assert changed(("phases", "pose", "state", "a"), [2.001, 1.0, "ab"])
    assert not changed(("phases", "pose", "state", "a"), [2.0001, 1.0, "cd"])
    assert changed(("predictions", "points_xy"), [[[1.0, 30.01]]])
    assert not changed(("predictions", "points_xy"), [[[1.002, 30.0]]])
    assert changed(("phases", "pose", "state"), {"b": [2.0, 1.0, "ab"]})
