"""Exports: files that run without pose_jax; `pose-jax export`.

`decoder` writes a heatmap decoder, `network` a run's network with its decoder, or with a
detector the whole system, `tensorflow` the same as a SavedModel or for TFLite, and
`example` is the script that runs each of them.
"""

from pose_jax.export.decoder import PLATFORMS, Decoder, export_decoder, load
from pose_jax.export.network import Network, export_run, load_network, refresh

__all__ = [
    "PLATFORMS", "Decoder", "Network", "export_decoder", "export_run", "load",
    "load_network", "refresh",
]  # fmt: skip
