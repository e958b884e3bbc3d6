"""What eval says of the width of heatmaps."""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax.codecs import gaussian
from pose_jax.data.plan import InputConfig
from pose_jax.evaluation import widths
from pose_jax.keypoints import COCO, LSP
from pose_jax.methods import cells, dark
from pose_jax.methods.topdown import ModelConfig
from pose_jax.types import PersonView
from tests.made_up import MadeUp, make_table


@pytest.mark.parametrize(
    ("found", "assumed", "differ"),
    [(2.0, 2.0, False), (1.6, 2.0, False), (1.4, 2.0, True), (2.8, 2.0, True)],
)
def test_widths_that_differ_by_a_third_are_said(found, assumed, differ):
    text = widths.described(found, assumed)
    assert f"deviation of {found:.2f} pixels, the decoder assumes {assumed:.2f}" in text
    assert ("differ by a third" in text) == differ
    assert "no clear peaks" in widths.described(math.nan, assumed)


@pytest.mark.parametrize(
    ("options", "assumed"),
    [
        ({}, 1.5),
        ({"kernel_size": 11}, 2.0),
        ({"decoder": "dark_paper"}, 1.5),
        ({"decoder": "argmax"}, None),
        ({"decoder": "dark_unmodulated"}, None),
        ({"kernel_size": 1}, None),
    ],
)
def test_a_method_knows_what_its_decoder_assumes(options, assumed):
    config = dark.Config(
        name="dark",
        model=ModelConfig("pocket"),
        input_size=(64, 64),
        sigma=1.5,
        **options,
    )
    found = dark.Dark(config, COCO).assumed_sigma
    assert found == (None if assumed is None else pytest.approx(assumed))


def test_cells_assume_the_width_of_their_kernel():
    config = cells.Config(
        name="cells", model=ModelConfig("movenet_lightning"), input_size=(192, 192),
        decoder="dark",
    )  # fmt: skip
    assert cells.Cells(config, COCO).assumed_sigma == pytest.approx(1.1)


@dataclasses.dataclass(frozen=True, eq=False)
class Peaks(MadeUp):
    """Maps of peaks of width 1.4."""

    assumed_sigma: float | None = 2.0

    view: ClassVar = PersonView(size=(8, 8), alignment="aligned")

    def inspect(self, variables, inputs):
        del variables
        points = jnp.full((len(inputs.row), len(LSP), 2), 12.3)
        return {"heatmaps": gaussian.encode(points, size=(32, 24), sigma=1.4)}


def test_the_maps_of_a_few_rows_are_measured():
    table, config = make_table(6, keypoint_set=LSP), InputConfig(2, (64, 64), "numpy")
    arguments = {}, table, config, np.arange(6, dtype=np.int32)
    note = widths.note(Peaks(keypoints=LSP), *arguments)
    assert note is not None and "of 1.40 pixels, the decoder assumes 2.00: they" in note
    assert widths.note(Peaks(keypoints=LSP, assumed_sigma=None), *arguments) is None
    assert widths.note(Peaks(keypoints=LSP), {}, table, config, []) is None
