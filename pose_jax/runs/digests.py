"""SHA-256 digests of arrays and of JSON objects, so that damage is noticed on reading."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

_KEY = "sha256"


def of_array(array: Any) -> str:
    """Returns the digest of dtype, shape and bytes of an array."""
    array = np.asarray(array)
    digest = hashlib.sha256(f"{array.dtype.name}{list(array.shape)}".encode())
    # As bytes: bfloat16 has no buffer of its own.
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a JSON object with a digest of its content under a key of its own."""
    return {**content, _KEY: _of_json(content)}


def is_sealed(content: Mapping[str, Any]) -> bool:
    """Returns whether an object has a digest."""
    return _KEY in content


def opened(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of a sealed object.

    Raises:
      ValueError: the content differs from what was sealed, or has no digest.
    """
    rest = {name: value for name, value in content.items() if name != _KEY}
    if content.get(_KEY) != _of_json(rest):
        raise ValueError("its content differs from what was written")
    return rest


def _of_json(content: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(content))  # Tuples are lists in JSON.
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
