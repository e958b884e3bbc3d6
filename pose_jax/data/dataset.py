"""What a kind of data set says about itself, for `pose_jax.data.DATASETS`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

from pose_jax.data.table import Table
from pose_jax.keypoints import KeypointSet


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One kind of data set. All but `load` may be left out.

    Attributes:
      load: `load(root, split, **options) -> Table`.
      files: what its folder holds, for messages: "examples.mat (FLIC)".
      recognise: whether a folder holds data of this kind; None: it is never guessed.
      splits: the splits in a folder; None: they must be named.
      keypoints: the set that its people usually have.
      json: its labels are one json in COCO's form, which `data check` looks at as it
        stands in the file.
      about: description, homepage, license and citation, as far as they are known.
    """

    load: Callable[..., Table]
    files: str = ""
    recognise: Callable[[Path], bool] | None = None
    splits: Callable[[Path], list[str]] | None = None
    keypoints: KeypointSet | None = None
    json: bool = False
    about: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def license(self) -> str:
        """Its licence, as a phrase; "" where it is not known."""
        return self.about.get("license", "")

    @property
    def takes_detections(self) -> bool:
        """Whether its reader has an option for the boxes of a detector."""
        return "detections" in inspect.signature(self.load).parameters
