"""Cost of a network: counts multiply-adds of a traced function without running it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

from pose_jax.models import ops


def multiply_adds(fn: Callable, *args: Any) -> tuple[int, int]:
    """Counts the multiply-adds of the convolutions and matrix products of a function.

    Args:
      fn: a function of arrays; traced in the networks' stock forms, so that the count
        does not depend on this machine.
      *args: arrays or `jax.ShapeDtypeStruct`s.

    Returns:
      The true number (zero padding counts), and the number as the papers count it:
      a transposed convolution on its output grid, including inserted zeros.
      Divided by 2^30, that is the "GFLOPs" in the tables of HRNet, Simple Baselines and
      DARK.
    """
    with ops.use_forms("stock"):
        return _count(jax.make_jaxpr(fn)(*args).jaxpr)


def _count(jaxpr: Any) -> tuple[int, int]:
    true = charged = 0
    for equation in jaxpr.eqns:
        parameters = equation.params
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            outputs_axis = parameters["dimension_numbers"].rhs_spec[0]
            out = math.prod(equation.outvars[0].aval.shape)
            macs = out * math.prod(kernel) // kernel[outputs_axis]
            charged += macs
            true += macs // math.prod(parameters["lhs_dilation"])
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            left = equation.invars[0].aval.shape
            out = math.prod(equation.outvars[0].aval.shape)
            macs = out * math.prod(left[axis] for axis in contracted)
            charged += macs
            true += macs
        else:
            times = parameters.get("length", 1)  # Iterations of a scan.
            for inner in map(_jaxpr_of, jax.tree.leaves(list(parameters.values()))):
                if inner is not None:
                    inner_true, inner_charged = _count(inner)
                    true += times * inner_true
                    charged += times * inner_charged
    return true, charged


def _jaxpr_of(parameter: Any) -> Any | None:
    """Returns the jaxpr of an equation's parameter, closed or not; None if it is none."""
    jaxpr = getattr(parameter, "jaxpr", parameter)
    return jaxpr if hasattr(jaxpr, "eqns") else None
