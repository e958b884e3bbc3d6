"""2D human pose estimation in JAX: train, evaluate, compare and reuse.

Importing the package loads nothing else, so that one decoder costs one decoder:

    from pose_jax.codecs import gaussian
    points_xy, scores = gaussian.decode_dark(heatmaps, sigma=2)

    import pose_jax
    people = pose_jax.load("runs/demo")(images)
"""

from typing import TYPE_CHECKING, Any

from pose_jax._version import __version__

if TYPE_CHECKING:
    from pose_jax.predict import load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from pose_jax.predict import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
