"""Decodes any heatmaps, [n, k, h, w] of NumPy or PyTorch, with DARK.

    python -m experiments.dark.decode_your_heatmaps MAPS.npy SIGMA WIDTH HEIGHT OUT.npy
SIGMA is that of the Gaussians, in heatmap pixels, WIDTHxHEIGHT the network's input size.
"""

import sys

import jax.numpy as jnp

from pose_jax import geometry
from pose_jax.codecs import gaussian


def decode(heatmaps, sigma, input_size, alignment="stride"):
    """Returns points_xy [n, k, 2] in input pixels, scores [n, k]; input_size is (w, h)."""
    maps = jnp.moveaxis(jnp.asarray(heatmaps), 1, -1)
    points_xy, scores = gaussian.decode_dark(maps, sigma=sigma)
    sizes = {"heatmap_size": maps.shape[2:0:-1], "input_size": input_size}
    return geometry.heatmap_to_input(points_xy, **sizes, alignment=alignment), scores


if __name__ == "__main__":
    sigma, *size = map(float, sys.argv[2:5])
    jnp.save(sys.argv[5], decode(jnp.load(sys.argv[1]), sigma, size)[0])
