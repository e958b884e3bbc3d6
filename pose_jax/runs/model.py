"""RUN/model: final weights and manifest; and initialization from other weights.

Weights are stored as host arrays under their path in the tree, independent of the devices
used. Paths and patterns are those of `trees`.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from absl import logging
from flax.traverse_util import empty_node, flatten_dict, unflatten_dict

from pose_jax import config as config_lib
from pose_jax import data as data_lib
from pose_jax import methods, writing
from pose_jax._version import __version__
from pose_jax.data.plan import InputConfig
from pose_jax.data.table import Table
from pose_jax.errors import ConfigError, InputError, one_line
from pose_jax.keypoints import KeypointSet, matched
from pose_jax.runs import checkpoint as checkpoint_lib
from pose_jax.runs import digests
from pose_jax.trees import first, flatten, nearest, path_matches
from pose_jax.types import Method, Variables

VERSIONS = {"pose_jax": __version__, "jax": jax.__version__, "flax": flax.__version__}
"""Package versions that are recorded in a manifest."""


def write_model(
    run: Path,
    *,
    config: Mapping[str, Any],
    method: Method,
    train_table: Table,
    variables: Variables,
    scores: Mapping[str, float],
) -> None:
    """Writes RUN/model: the final weights and their manifest."""
    manifest = _manifest(config, method, train_table) | {"scores": dict(scores)}
    if jax.process_index() == 0:
        save_model(run / "model", jax.device_get(variables), manifest)


def write_manifest(
    run: Path, *, config: Mapping[str, Any], method: Method, train_table: Table
) -> None:
    """Writes RUN/manifest.json: what `load` has to know to use a checkpoint of the run."""
    if jax.process_index() == 0:
        sealed = digests.sealed(_manifest(config, method, train_table))
        writing.write(run / _MANIFEST, json.dumps(sealed, indent=2, sort_keys=True))


def _manifest(
    config: Mapping[str, Any], method: Method, train_table: Table
) -> dict[str, Any]:
    plain = json.loads(config_lib.to_json(config))
    return {
        "method": plain["method"],
        "keypoints": method.keypoints.to_json() if method.keypoints else None,
        "input": plain["input"],
        "data": plain["data"]["eval"],
        "evaluation": plain.get("evaluation", {}),
        "category_id": train_table.category_id,
        "train_data": {
            "name": train_table.name,
            "fingerprint": train_table.fingerprint(),
        },
        "versions": VERSIONS,
    }


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A loaded RUN/model, or a checkpoint of the run.

    Attributes:
      variables: the weights.
      manifest: the content of manifest.json; `scores` are those of the checkpoint.
      keypoints: the keypoint set of the method; None for a detector.
      input: the input config.
      checkpoint: "PHASE/STEP" of a checkpoint; "" for RUN/model.
    """

    variables: Variables
    manifest: dict[str, Any]
    keypoints: KeypointSet | None
    input: InputConfig
    checkpoint: str = ""

    @property
    def category_id(self) -> int:
        """The id of people in the data that it was trained on."""
        return self.manifest.get("category_id", 1)

    @property
    def decoder(self) -> str:
        """The decoder of the run, or the name of the method if it has no choice."""
        section = self.manifest["method"]
        _, config = methods.parse(section)
        return getattr(config, "decoder", "") or section["name"]

    def method(
        self, decoder: str | None = None, flip: str | None = None, **settings: Any
    ) -> Method:
        """Builds the run's method, optionally with other settings.

        Args:
          decoder: name of a decoder; None: the run's.
          flip: a flip test; None: the run's.
          **settings: fields of the method's section; None: the run's.

        Raises:
          ConfigError: a setting that the method does not have, or an invalid value.
        """
        self._check_complete()
        section = dict(self.manifest["method"])
        settings["flip_test"] = flip
        section |= {name: it for name, it in settings.items() if it is not None}
        return methods.build(section, self.keypoints, decoder=decoder)

    def eval_table(
        self,
        *,
        data: str | None = None,
        split: str | None = None,
        boxes: str = "gt",
        annotations: str | None = None,
        format: str | None = None,
        match_keypoints: bool = False,
    ) -> Table:
        """Loads the run's evaluation data.

        Args:
          data, split: another root or split; None: from the config. Options that name
            files of the former one are not used for it.
          boxes: "gt" for ground-truth boxes, or a COCO detections JSON file.
          annotations: the annotation file, if it has another name; None: from the config.
          format: another data set, as in a config, at `data`; None: that of the config.
          match_keypoints: if the data have another keypoint set, the table has only the
            keypoints that are in both by the same name.

        Raises:
          InputError: the data are missing or have another keypoint set.
          ConfigError: the data set has no such option.
        """
        self._check_complete()
        section = self.manifest["data"]
        source = config_lib.build(data_lib.SourceConfig, section, "manifest.data")
        source, dropped = data_lib.moved(source, data, split, format)
        if not source.root:
            raise InputError(
                "the model was converted from published weights and has no data folder: "
                f"give the folder of {source.name} by --data, or another by --data and "
                "--format."
            )
        options = dict(source.options)
        if self.keypoints is not None:  # What the option said is in the run.
            options.pop("keypoints", None)
        for flag, name, file in (
            ("--boxes FILE", "detections", None if boxes == "gt" else boxes),
            ("--annotations", "annotations", annotations),
        ):
            if file is None:
                continue
            if not data_lib.data_set(source.name).takes(name):
                known = data_lib.DATASETS.items()
                takers = ", ".join(repr(k) for k, it in known if it.takes(name))
                raise ConfigError(
                    f"{flag} is only supported for data sets {takers}; this run's is "
                    f"{source.name!r}."
                )
            options[name] = file
        for name in dropped.keys() - options.keys():
            logging.warning(
                "%s = %r is of the data set in the config, not of %s %s, and is not used.",
                name, dropped[name], source.root, source.split,
            )  # fmt: skip
        source = dataclasses.replace(source, options=options)
        table = data_lib.load(source, self.keypoints)
        if (
            self.keypoints
            and table.ground_truth is None
            and "detections" not in options
        ):
            raise InputError(
                f"{table.name} has no annotations, hence no boxes: give a detector's boxes "
                "by --boxes FILE."
            )
        if self.keypoints is None or table.keypoints == self.keypoints:
            return table
        if match_keypoints:
            return table.matched_to(self.keypoints)
        same = len(matched(table.keypoints, self.keypoints))
        remedy = f", or on the {same} keypoints of the same name by `pose-jax eval "
        remedy += "--match-keypoints`"
        raise InputError(
            f"the model has keypoint set {self.keypoints.name!r}, but {table.name} has "
            f"{table.keypoints.name!r}: evaluate on data with the set of the model"
            f"{remedy if same else ''}."
        )

    def _check_complete(self) -> None:
        if self.manifest.get("converted", {}).get("part") in (
            "backbone",
            "without head",
        ):
            raise InputError(
                "the model is a backbone without a head: train a model that is "
                "initialized from it by config.train.init_from."
            )


def load(run: Path | str, checkpoint: str | None = None) -> LoadedRun:
    """Loads RUN/model, or a checkpoint of the run, which need not be finished.

    Args:
      run: the run directory.
      checkpoint: as in `checkpoint.read`: "best", "last", a step, or "PHASE/STEP"; None:
        RUN/model.

    Raises:
      ConfigError: `checkpoint` is not the name of one.
      InputError: there is no finished model, or no such checkpoint.
    """
    run, chosen = Path(run), None
    if checkpoint is None:
        variables, manifest = load_model(run / "model")
    else:
        manifest = manifest_of(run)
    keypoints = manifest["keypoints"]
    keypoints = keypoints and KeypointSet.from_json(keypoints)
    if checkpoint is not None:
        method = methods.build(manifest["method"], keypoints)
        names = [phase.name for phase in method.phases]
        chosen = checkpoint_lib.read(run, checkpoint, names)
        variables, manifest["scores"] = chosen.variables, chosen.metrics
    return LoadedRun(
        variables=variables,
        manifest=manifest,
        keypoints=keypoints,
        input=config_lib.build(InputConfig, manifest["input"], "manifest.input"),
        checkpoint=chosen.name if chosen else "",
    )


def manifest_of(run: Path | str) -> dict[str, Any]:
    """Reads the manifest of a run, finished or not.

    Raises:
      InputError: it is missing or damaged.
    """
    run = Path(run)
    file = run / _MANIFEST
    if (run / "model").is_dir() or not file.exists():
        return load_manifest(run / "model")
    try:
        return digests.opened(json.loads(file.read_text(encoding="utf-8")))
    except _UNREADABLE as error:
        raise InputError(
            f"{file} cannot be read ({one_line(error, 200)}): start the training again to "
            "rewrite it."
        ) from error


def save_model(
    path: str | Path, variables: Mapping[str, Any], manifest: Mapping[str, Any]
) -> None:
    """Writes a finished model; an existing one is replaced after the write is complete.

    Args:
      path: directory of `model.safetensors`, with one array per path, and
        `manifest.json`, with the digests of the arrays and of itself.
      variables: nested mappings of arrays.
      manifest: description of the model as plain values.

    Raises:
      InputError: the disk is full; nothing is left of what was written.
    """
    if jax.process_index() != 0:
        return
    members = _to_members(variables)
    arrays = {name: digests.of_array(member) for name, member in members.items()}
    path = Path(path).absolute()
    _recover(path)
    new, old = _siblings(path)
    shutil.rmtree(new, ignore_errors=True)
    sealed = digests.sealed({**manifest, "arrays": arrays})
    text = json.dumps(sealed, indent=2, sort_keys=True)
    try:
        with writing.naming(path):
            new.mkdir(parents=True)
            safetensors.numpy.save_file(members, new / _ARRAYS)
            (new / _MANIFEST).write_text(text + "\n", encoding="utf-8")
    except BaseException:  # Leaves nothing that would refuse the same command later.
        shutil.rmtree(new, ignore_errors=True)
        if path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()
        raise
    if path.exists():
        path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def load_model(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the variables of a finished model, as NumPy arrays, and its manifest.

    Raises:
      InputError: the model is missing or damaged.
    """
    manifest, arrays = _read_manifest(path)
    file = Path(path) / (_ARRAYS if arrays is not None else _OLD_ARRAYS)
    try:
        if arrays is None:  # An older model; its archive has checksums.
            with np.load(file, allow_pickle=False) as archive:
                return _from_members(archive), manifest
        members = safetensors.numpy.load_file(file)
        found = {name: digests.of_array(member) for name, member in members.items()}
        wrong = [n for n in sorted({*arrays, *found}) if arrays.get(n) != found.get(n)]
        if wrong:
            raise ValueError(f"differs from what was written: {first(wrong)}")
    except _UNREADABLE as error:
        raise _unusable(file, error) from error
    return _from_members(members), manifest


def load_manifest(path: str | Path) -> dict[str, Any]:
    """Reads the manifest of a finished model.

    Raises:
      InputError: the model is missing or damaged.
    """
    return _read_manifest(path)[0]


def _read_manifest(path: str | Path) -> tuple[dict[str, Any], dict[str, str] | None]:
    """Returns the manifest, and the digests of the arrays; None for an old model."""
    path = Path(path).absolute()
    _recover(path)
    file = path / _MANIFEST
    if not path.is_dir():
        raise InputError(
            f"{path}: no model found. RUN/model is written at the end of training, or by "
            "`pose-jax weights convert`."
        )
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(manifest, dict):
            raise ValueError("not a JSON object")
        if digests.is_sealed(manifest) or (path / _ARRAYS).exists():
            manifest = digests.opened(manifest)
            return manifest, manifest.pop("arrays")
    except _UNREADABLE as error:
        raise _unusable(file, error) from error
    return manifest, None


_ARRAYS, _MANIFEST, _OLD_ARRAYS = "model.safetensors", "manifest.json", "variables.npz"
_UNREADABLE = (
    OSError, ValueError, KeyError, EOFError, RecursionError, zipfile.BadZipFile, zlib.error,
    safetensors.SafetensorError,
)  # fmt: skip


def _unusable(file: Path, error: Exception) -> InputError:
    return InputError(
        f"{file} cannot be read ({one_line(error, 200)}): the model is incomplete or "
        "damaged. Copy it again, or run the training again to rewrite it."
    )


def _siblings(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + ".new"), path.with_name(path.name + ".old")


def _recover(path: Path) -> None:
    """Restores the old model if a writer was killed between its two renames."""
    _, old = _siblings(path)
    if old.exists() and not path.exists():
        old.rename(path)


def _to_members(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens to {"a/b": array}; an empty mapping is stored as the member "a/"."""
    members: dict[str, np.ndarray] = {}
    for path, leaf in flatten_dict(variables, keep_empty_nodes=True).items():
        for name in path:
            if "/" in name:
                raise ValueError(f"variable name {name!r} must not contain '/'.")
        name = "/".join(path)
        if leaf is empty_node:
            members[name + "/"] = np.zeros(0)
            continue
        # In C order, which safetensors assumes.
        members[name] = np.asarray(jax.device_get(leaf), order="C")
        dtype = members[name].dtype
        if dtype.kind not in "biuf" and dtype != jnp.bfloat16:
            raise ValueError(f"{name}: dtype {dtype} cannot be stored in a model.")
    return members


def _from_members(members: Mapping[str, np.ndarray]) -> dict[str, Any]:
    nodes = {
        key.removesuffix("/"): empty_node if key.endswith("/") else members[key]
        for key in members
    }
    return unflatten_dict(nodes, sep="/")


@dataclasses.dataclass(frozen=True)
class MergeReport:
    """The paths ("params/head/kernel") that `merge_params` has treated in each way.

    Attributes:
      loaded: loaded from the other variables.
      skipped: not loaded because a pattern matches.
      new: not loaded because the other variables do not have them.
      unused: in the other variables only.
    """

    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"loaded {len(self.loaded)} arrays"]
        for word in ("skipped", "new", "unused"):
            names = getattr(self, word)
            if names:
                parts.append(f"{word} {len(names)} ({first(names)})")
        return ", ".join(parts)


def merge_params(
    own: Mapping[str, Any], loaded: Mapping[str, Any], skip: Sequence[str] = ("head",)
) -> tuple[Any, MergeReport]:
    """Initializes from other weights: replaces the leaves of `own` that `loaded` has.

    Args:
      own: initialized variables; their structure, shapes and dtypes are kept.
      loaded: variables of another model.
      skip: patterns (`path_matches`) of leaves to keep.

    Returns:
      The merged variables and a report.

    Raises:
      ConfigError: a pattern matches nothing, no leaf can be loaded, or a leaf that is not
        skipped has another shape.
    """
    own_leaves, other_leaves = flatten(own), flatten(loaded)
    paths = [*own_leaves, *other_leaves]
    for pattern in skip:
        if not any(path_matches(pattern, path) for path in paths):
            raise ConfigError(
                f"init_skip: {pattern!r} matches no variable. {nearest(pattern, paths)}"
            )
    leaves, wrong = [], []
    groups: dict[str, list[str]] = {"loaded": [], "skipped": [], "new": []}
    for path, leaf in own_leaves.items():
        name = "/".join(path)
        if any(path_matches(pattern, path) for pattern in skip):
            group = "skipped"
        elif path not in other_leaves:
            group = "new"
        else:
            group = "loaded"
            value = other_leaves[path]
            if value.shape != leaf.shape:
                wrong.append(f"{name}: {list(value.shape)} for {list(leaf.shape)}")
            leaf = value.astype(leaf.dtype)
        groups[group].append(name)
        leaves.append(leaf)
    if wrong:
        raise ConfigError(
            f"init_from has other shapes: {first(wrong)}. Add these to init_skip."
        )
    if not groups["loaded"]:
        raise ConfigError(
            "init_from has no variable of this model outside of init_skip: check that it "
            "is a run of the same network. It has "
            f"{first(['/'.join(path) for path in other_leaves])}."
        )
    report = MergeReport(
        **{group: tuple(names) for group, names in groups.items()},
        unused=tuple("/".join(path) for path in other_leaves if path not in own_leaves),
    )
    return jax.tree.unflatten(jax.tree.structure(own), leaves), report
