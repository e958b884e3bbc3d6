"""Packaging of pose_jax. Floors only; requirements.txt has the versions tested."""

import re
from pathlib import Path

from setuptools import find_packages, setup

_VERSION = (Path(__file__).parent / "pose_jax" / "_version.py").read_text()
_X86_LINUX = 'sys_platform == "linux" and platform_machine == "x86_64"'
_NOT_X86_LINUX = 'sys_platform != "linux" or platform_machine != "x86_64"'

setup(
    name="pose_jax",
    version=re.search(r'^__version__ = "(.+)"$', _VERSION, re.MULTILINE)[1],
    description="Train, evaluate, compare and reuse 2D human pose estimators in JAX.",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["pose_jax", "pose_jax.*"]),
    install_requires=[
        "absl-py>=2.1",
        "flatbuffers>=25.2",
        "flax>=0.12",
        "jax>=0.10",
        "jaxtyping>=0.3",
        "matplotlib>=3.9",
        "ml_collections>=1.0",
        "numpy>=2.0",
        "optax>=0.2.7",
        "orbax-checkpoint>=0.12",
        "pillow>=11.0",
        "pycocotools>=2.0.8",
        "safetensors>=0.5",
        "scipy>=1.14",
        "tqdm>=4.66",
    ],
    extras_require={
        "data": [
            f"tensorflow-cpu>=2.20; {_X86_LINUX}",
            f"tensorflow>=2.20; {_NOT_X86_LINUX}",
            "tensorflow-datasets>=4.9.10",
        ],
        "log": ["tensorboardX>=2.6.2", "tensorboard>=2.20"],
        "sweep": ["optuna>=4.2"],
        "dev": [
            "optuna>=4.2",
            "tensorboardX>=2.6.2",
            "pytest>=8.0",
            "pytest-xdist>=3.8",
            "hypothesis>=6.100",
            "beartype>=0.20",
            "ruff>=0.9",
            "pyright>=1.1.390",
        ],
    },
    entry_points={"console_scripts": ["pose-jax = pose_jax.cli:main"]},
)
