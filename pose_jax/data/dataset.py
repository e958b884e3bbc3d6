"""Description of a data set, for `pose_jax.data.DATASETS`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from pose_jax.data.table import Table
from pose_jax.keypoints import KeypointSet


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set. All fields but `load` are optional.

    Attributes:
      load: `load(root, split, **options) -> Table`.
      files: contents of its folder, for messages: "examples.mat (FLIC)".
      recognize: whether a folder holds this data set; None: it is never detected.
      splits: returns the splits in a folder; None: they must be named.
      keypoints: the usual keypoint set.
      json: whether its labels are a JSON file in COCO's format, which `data check` reads
        directly.
      file_options: options of its reader that name files, and what the file is of: one
        "split", or the whole data set in "root".
      about: description, homepage, license and citation, as far as they are known.
    """

    load: Callable[..., Table]
    files: str = ""
    recognize: Callable[[Path], bool] | None = None
    splits: Callable[[Path], list[str]] | None = None
    keypoints: KeypointSet | None = None
    json: bool = False
    file_options: Mapping[str, Literal["split", "root"]] = dataclasses.field(
        default_factory=dict
    )
    about: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def license(self) -> str:
        """The license, as a phrase; "" if unknown."""
        return self.about.get("license", "")

    def takes(self, option: str) -> bool:
        """Returns whether its reader has an option of this name."""
        return option in inspect.signature(self.load).parameters
