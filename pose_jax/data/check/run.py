"""`pose-jax data check`: reports and counts all problems of a data set in one pass.

The readers stop at the first error; this continues. COCO JSON files are checked directly
(`coco_json`), other formats through their readers. Both are converted to columns
(`people`), which share their checks. `images` checks image files.

An error is something that a reader rejects, or that silently makes scores or labels wrong;
a warning may be intended. Nothing is modified. Host code: NumPy and Pillow.

To add a check: a line in `kinds.KINDS`, and `file.add(kind, example)` where it is detected.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax import config as config_lib
from pose_jax import data as data_lib
from pose_jax.data import coco, keypoint_sets
from pose_jax.data.check import coco_json
from pose_jax.data.check import images as images_lib
from pose_jax.data.check import people as people_lib
from pose_jax.data.check.findings import File, Findings, Report
from pose_jax.data.table import Table
from pose_jax.errors import ConfigError, InputError
from pose_jax.keypoints import MPII

# ------------------------------------------------------------------- what to check


def sources(
    root: str | Path,
    *,
    format: str | None = None,
    split: str | None = None,
    keypoint_set: str | None = None,
    category: str | None = None,
    annotations: str | Path | None = None,
    detections: str | Path | None = None,
) -> list[data_lib.SourceConfig]:
    """Returns the data sets in a folder, detected or as given by options.

    Args:
      root: the folder.
      format: name of a data set, as in a config; None: detect it by its files.
      split: a split; None: all splits in the folder.
      keypoint_set: keypoint set of a COCO JSON file, see `keypoint_sets.resolve`; None:
        that of the file.
      category: name or id of the category of people in it.
      annotations: the annotation file, if it has another name.
      detections: a COCO results file to check with it.

    Raises:
      InputError: the folder does not exist, or holds no known data set.
      ConfigError: the options exclude each other.
    """
    root = Path(root)
    known = {format: data_lib.data_set(format, "--format")} if format else {}
    options: dict[str, Any] = {
        "keypoints": keypoint_set,
        "category": category,
        "detections": detections and Path(detections),
        "annotations": annotations and Path(annotations),
    }
    options = {name: given for name, given in options.items() if given is not None}
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; pass the one that holds the data.")
    known = known or _recognized(root)
    if not known and annotations is not None:
        known = {name: it for name, it in data_lib.DATASETS.items() if it.json}
    if not known:
        raise InputError(_nothing_known(root))
    is_json = all(data_set.json for data_set in known.values())
    if options.keys() - {"annotations"} and not is_json:
        raise ConfigError(
            "--keypoints, --category and --detections require COCO JSON; "
            f"this is {' and '.join(known)}."
        )
    if annotations is not None and split is None and is_json:
        split = coco.split_of(Path(annotations))
        if split is None:
            raise ConfigError(
                f"--annotations {annotations}: name the folder of its images with --split."
            )
    found = []
    for name, data_set in known.items():
        splits = [split] if split else data_set.splits and data_set.splits(root)
        if splits is None:
            raise ConfigError(f"name the split of {name} to check with --split.")
        found += [data_lib.SourceConfig(name, str(root), s, options) for s in splits]
    if len(found) > 1 and not {"annotations", "detections"}.isdisjoint(options):
        which = ", ".join(f"{source.name} {source.split}" for source in found)
        raise ConfigError(
            f"name the split of that file with --split or --format: {which}."
        )
    return found


def _recognized(root: Path) -> dict[str, data_lib.DataSet]:
    """Returns the data sets that a folder looks like."""
    known = data_lib.DATASETS.items()
    return {name: it for name, it in known if it.recognize and it.recognize(root)}


def _nothing_known(root: Path) -> str:
    inside = {p: _recognized(p) for p in sorted(root.iterdir()) if p.is_dir()}
    if any(inside.values()):
        names = ", ".join(f"{p} ({' and '.join(it)})" for p, it in inside.items() if it)
        return f"{root} is no data set, but holds some: {names}. Pass one of them."
    files = ", ".join(it.files for it in data_lib.DATASETS.values() if it.files)
    return (
        f"{root} looks like no data set that is known: no {files}. "
        "Name its format with --format."
    )


def config_sources(config: Mapping[str, Any]) -> list[data_lib.SourceConfig]:
    """Returns the training and evaluation data of a config, once if they are the same.

    Raises:
      ConfigError: the config has no such section, or it is invalid.
    """
    found: list[data_lib.SourceConfig] = []
    for use in ("train", "eval"):
        try:
            section = config["data"][use]
        except (KeyError, TypeError):
            raise ConfigError(f"config.data.{use} is missing.") from None
        source = config_lib.build(data_lib.SourceConfig, section, f"config.data.{use}")
        if found:
            source = data_lib.inheriting(source, found[0])
        if source not in found:
            found.append(source)
    return found


def check(
    source: data_lib.SourceConfig,
    *,
    images: images_lib.Depth = "headers",
    need_images: bool = True,
) -> Report:
    """Checks one split for all kinds of problems.

    Args:
      source: the split, as in a config.
      images: "headers" reads headers and ends of all images and decodes
        `images.SAMPLE` of them; "full" decodes all.
      need_images: whether a missing folder of images is an error (COCO JSON files).

    Returns:
      The report; problems of the data are in it and not raised.

    Raises:
      ConfigError: no such data set, or an option is invalid.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # For extreme numbers.
        if data_lib.data_set(source.name).json:
            return _check_json(source, images, need_images)
        return _check_table(source, images)


def _check_json(
    source: data_lib.SourceConfig, depth: images_lib.Depth, need_images: bool
) -> Report:
    options = dict(source.options)
    root = Path(source.root)
    found = Findings(root)
    path = options.get("annotations") or coco.annotation_file(root, source.split)
    file = coco_json.JsonFile(found, Path(path))
    data = file.read(dict)
    folders, names = coco.image_folders(root, source.split), []
    if data is not None and isinstance(data.get("images"), list):
        named = [i.get("file_name") for i in data["images"] if isinstance(i, Mapping)]
        names = [name for name in named if isinstance(name, str)]
    folder = coco.image_folder(root, source.split, Path(path), names)
    if folder is None:
        File(found, root).add(
            "no-image-folder",
            f"none of {', '.join(map(str, folders))}",
            severity="error" if need_images else "warning",
        )
    notes, counts = [], {}
    if data is not None:
        listed, ids = coco_json.images(file, data)
        people, category = coco_json.people(
            file, data, listed, ids, options.get("keypoints"), options.get("category")
        )
        if category is not None:
            notes.append(keypoint_sets.described(people.keypoints))
        people_lib.check_people(people, file)
        boxes = {coco.box_source(data): len(people.names)}
        if options.get("detections") is not None:
            results = coco_json.JsonFile(found, Path(options["detections"]))
            useful = coco_json.detections(results, listed, ids, category)
            boxes["detections"] = useful
        if folder is not None:
            pictures, missing = File(found, folder), options.get("missing", "error")
            files = coco_json.files_of_images(listed, pictures, missing)
            notes.append(images_lib.check_images(files, pictures, depth, source.exif))
        counts = people_lib.counts([image.id for image in listed], people, boxes)
    if folder is not None and not any(f.severity == "error" for f in found.sorted()):
        # Data without findings must be readable, including cases not checked above.
        _read(source, file)
    title = f"COCO {source.split}: {path}, images in {folder or 'no folder'}"
    return Report(title, tuple(notes), found.sorted(), counts)


def _read(source: data_lib.SourceConfig, file: File) -> Table | None:
    """Returns the reader's Table; None, and adds a finding, if it raises an error."""
    read = data_lib.reader(source)
    try:
        return read()
    except ConfigError:
        raise
    except InputError as error:
        file.add("reader-refuses", str(error))
    except Exception as error:  # Reported in one line, like other findings.
        if source.name not in data_lib.DATASETS:
            raise  # The user's own reader: the traceback shows where it crashed.
        file.add("reader-fails", f"{type(error).__name__}: {error}")
    return None


def _check_table(source: data_lib.SourceConfig, depth: images_lib.Depth) -> Report:
    """Checks a format without its own checks: by its reader, then its columns."""
    root = Path(source.root)
    found = Findings(root)
    file = File(found, root)
    title, notes = f"{source.name} {source.split}: {root}", []
    table = _read(source, file)
    if table is None and "missing" not in source.options:
        # If only images are missing, the rest can be checked.
        options = {**source.options, "missing": "skip"}
        with contextlib.suppress(ConfigError):  # A reader without this option.
            again = dataclasses.replace(source, options=options)
            table = _read(again, File(Findings(root), root))
            notes = ["checked without missing images"]
    if table is None:
        # One of the images may be what stopped the reader.
        paths = sorted(p for p in root.glob("images/*") if p.is_file())
        files = [(path, "not read", None) for path in paths]
        note = images_lib.check_images(files, file, depth, source.exif)
        return Report(title, (note,), found.sorted(), {"files in images": len(paths)})
    notes += table.notes
    people = _people_of(table if table.truth is None else table.truth)
    people_lib.check_set(file, table.keypoints)
    if table.labelled and not len(table):
        file.add("annotations-empty", f"{len(table.images)} images")
    if table.labelled or table.truth is not None:
        people_lib.check_people(people, file)
    files = [
        (image, f"image id {image_id}", (int(size[0]), int(size[1])))
        for image, image_id, size in zip(
            table.images, table.image_ids, table.image_sizes, strict=True
        )
        if not isinstance(image, np.ndarray)
    ]
    notes.append(images_lib.check_images(files, file, depth, source.exif))
    counts = people_lib.counts(table.image_ids, people, {table.box_source: len(table)})
    return Report(title, tuple(notes), found.sorted(), counts)


def _people_of(table: Table) -> people_lib.People:
    shown = [i.name if isinstance(i, Path) else "pixels" for i in table.images]
    people = zip(table.ids, table.image, strict=True)
    return people_lib.People(
        names=[f"person id {own_id} ({shown[image]})" for own_id, image in people],
        keypoints=table.keypoints,
        images=table.image_ids[table.image],
        sizes=table.image_sizes[table.image].astype(np.float64),
        points_xy=table.points_xy,
        visibility=table.visibility,
        boxes_xyxy=table.boxes_xyxy,
        areas=table.areas,
        crowd=table.crowd,
        # MPII's are squares about a center, and may extend beyond the image.
        annotated_boxes=table.box_source == "gt_boxes" and table.keypoints != MPII,
    )
