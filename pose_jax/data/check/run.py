"""`pose-jax data check`: everything that is wrong with a data set, counted, in one go.

The readers stop at the first error; this goes on. COCO json is looked at as it stands in
the file (`coco_json`), the other formats through their readers. Both become columns
(`people`), which share their checks. `images` looks at image files.

An error is what a reader refuses, or what silently makes scores or labels wrong; a
warning is what may be meant. Nothing is changed. Host code: NumPy and Pillow.

To add a check: a line in `kinds.KINDS`, and `file.add(kind, example)` where it is seen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax import config as config_lib
from pose_jax import data as data_lib
from pose_jax.data import coco
from pose_jax.data.check import coco_json
from pose_jax.data.check import images as images_lib
from pose_jax.data.check import people as people_lib
from pose_jax.data.check.findings import File, Findings, Report
from pose_jax.data.table import Table
from pose_jax.errors import ConfigError, InputError
from pose_jax.keypoints import COCO, MPII

# ------------------------------------------------------------------- what to look at


def sources(
    root: str | Path,
    *,
    format: str | None = None,
    split: str | None = None,
    keypoint_set: str | None = None,
    annotations: str | Path | None = None,
    detections: str | Path | None = None,
) -> list[data_lib.SourceConfig]:
    """What is in a folder, or what is said to be.

    Args:
      root: the user's folder.
      format: a data set, as a config names it; None: by the files that are there.
      split: None: all that are there.
      keypoint_set: a key of `keypoints.SETS` that a COCO json follows.
      annotations: the annotation file, if it has another name.
      detections: a COCO results json to check with it.

    Raises:
      InputError: the folder is absent, or nothing in it is known.
      ConfigError: the options do not go together.
    """
    root = Path(root)
    known = {format: data_lib.data_set(format, "--format")} if format else {}
    options: dict[str, Any] = {
        "keypoints": keypoint_set and coco.keypoint_set(keypoint_set),
        "detections": detections and Path(detections),
        "annotations": annotations and Path(annotations),
    }
    options = {name: given for name, given in options.items() if given is not None}
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give the one that holds the data.")
    known = known or _recognised(root)
    if not known and annotations is not None:
        known = {name: it for name, it in data_lib.DATASETS.items() if it.json}
    if not known:
        raise InputError(_nothing_known(root))
    is_json = all(data_set.json for data_set in known.values())
    if options.keys() - {"annotations"} and not is_json:
        raise ConfigError(
            "--keypoints and --detections go with COCO json; "
            f"this is {' and '.join(known)}."
        )
    if annotations is not None and split is None and is_json:
        match = re.fullmatch(r"person_keypoints_(.+)", Path(annotations).stem)
        if match is None:
            raise ConfigError(
                f"--annotations {annotations}: say with --split which folder holds its "
                "images."
            )
        split = match[1]
    found = []
    for name, data_set in known.items():
        if not split and data_set.splits is None:
            raise ConfigError(f"say with --split which split of {name} to look at.")
        splits = [split] if split else data_set.splits(root)
        found += [data_lib.SourceConfig(name, str(root), s, options) for s in splits]
    if len(found) > 1 and not {"annotations", "detections"}.isdisjoint(options):
        which = ", ".join(f"{source.name} {source.split}" for source in found)
        raise ConfigError(f"say with --split or --format whose file that is: {which}.")
    return found


def _recognised(root: Path) -> dict[str, data_lib.DataSet]:
    """The data sets that a folder looks like."""
    known = data_lib.DATASETS.items()
    return {name: it for name, it in known if it.recognise and it.recognise(root)}


def _nothing_known(root: Path) -> str:
    inside = {p: _recognised(p) for p in sorted(root.iterdir()) if p.is_dir()}
    if any(inside.values()):
        names = ", ".join(f"{p} ({' and '.join(it)})" for p, it in inside.items() if it)
        return f"{root} is no data set, but holds some: {names}. Give one of them."
    files = ", ".join(it.files for it in data_lib.DATASETS.values() if it.files)
    return (
        f"{root} looks like no data set that is known: no {files}. "
        "Say with --format what it is."
    )


def config_sources(config: Mapping[str, Any]) -> list[data_lib.SourceConfig]:
    """What a config trains on and evaluates on; once, where that is the same.

    Raises:
      ConfigError: the config has no such section, or it is wrong.
    """
    found = []
    for use in ("train", "eval"):
        try:
            section = config["data"][use]
        except (KeyError, TypeError):
            raise ConfigError(f"config.data.{use} is missing.") from None
        source = config_lib.build(data_lib.SourceConfig, section, f"config.data.{use}")
        if source not in found:
            found.append(source)
    return found


def check(
    source: data_lib.SourceConfig,
    *,
    images: images_lib.Depth = "headers",
    need_images: bool = True,
) -> Report:
    """Looks for everything that is wrong with one split.

    Args:
      source: as a config names it.
      images: "headers" reads headers and ends of all images and decodes
        `images.SAMPLE` of them; "full" decodes all.
      need_images: whether it is an error that there is no folder of images (COCO json).

    Returns:
      The report; what is wrong with the data is in it and not raised.

    Raises:
      ConfigError: no such data set, or an option is wrong.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # Of absurd numbers.
        if data_lib.data_set(source.name).json:
            return _check_json(source, images, need_images)
        return _check_table(source, images)


def _check_json(
    source: data_lib.SourceConfig, depth: images_lib.Depth, need_images: bool
) -> Report:
    options = dict(source.options)
    wanted = coco.keypoint_set(options.get("keypoints", COCO))
    root = Path(source.root)
    found = Findings(root)
    path = options.get("annotations") or coco.annotation_file(root, source.split)
    file = coco_json.JsonFile(found, Path(path))
    data = file.read(dict)
    folders = coco.image_folders(root, source.split)
    folder = next(filter(Path.is_dir, folders), None)
    if folder is None:
        File(found, root).add(
            "no-image-folder",
            f"neither {folders[0]} nor {folders[1]}",
            severity="error" if need_images else "warning",
        )
    notes, counts = [], {}
    if data is not None:
        listed, known_ids = coco_json.images(file, data)
        people, category = coco_json.people(file, data, listed, known_ids, wanted)
        people_lib.check_people(people, file)
        boxes = {"gt_boxes": len(people.names)}
        if options.get("detections") is not None:
            results = coco_json.JsonFile(found, Path(options["detections"]))
            useful = coco_json.detections(results, listed, known_ids, category)
            boxes["detections"] = useful
        if folder is not None:
            pictures, missing = File(found, folder), options.get("missing", "error")
            files = coco_json.files_of_images(listed, pictures, missing)
            notes.append(images_lib.check_images(files, pictures, depth))
        counts = people_lib.counts([image.id for image in listed], people, boxes)
    if folder is not None and not any(f.severity == "error" for f in found.sorted()):
        # What is clean here must be readable, whatever was not thought of above.
        _read(source, file)
    title = f"COCO {source.split}: {path}, images in {folder or 'no folder'}"
    return Report(title, tuple(notes), found.sorted(), counts)


def _read(source: data_lib.SourceConfig, file: File) -> Table | None:
    """The reader's Table; None, and a finding, if it refuses."""
    read = data_lib.reader(source)
    try:
        return read()
    except ConfigError:
        raise
    except InputError as error:
        file.add("reader-refuses", str(error))
    except Exception as error:  # To be told in one line with all the rest.
        if source.name not in data_lib.DATASETS:
            raise  # The user's own reader: the traceback tells where it crashed.
        file.add("reader-fails", f"{type(error).__name__}: {error}")
    return None


def _check_table(source: data_lib.SourceConfig, depth: images_lib.Depth) -> Report:
    """A format that has no checks of its own: its reader, then its columns."""
    root = Path(source.root)
    found = Findings(root)
    file = File(found, root)
    title, notes = f"{source.name} {source.split}: {root}", []
    table = _read(source, file)
    if table is None and "missing" not in source.options:
        # Perhaps only images are absent: then the rest can be looked at.
        options = {**source.options, "missing": "skip"}
        with contextlib.suppress(ConfigError):  # A reader without this option.
            again = dataclasses.replace(source, options=options)
            table = _read(again, File(Findings(root), root))
            notes = ["looked at without what is missing"]
    if table is None:
        # One of the images may be what stopped the reader.
        paths = sorted(p for p in root.glob("images/*") if p.is_file())
        files = [(path, "not read", None) for path in paths]
        note = images_lib.check_images(files, file, depth)
        return Report(title, (note,), found.sorted(), {"files in images": len(paths)})
    people = _people_of(table if table.truth is None else table.truth)
    people_lib.check_set(file, table.keypoints)
    if table.labelled or table.truth is not None:
        people_lib.check_people(people, file)
    files = [
        (image, f"image id {image_id}", (int(size[0]), int(size[1])))
        for image, image_id, size in zip(
            table.images, table.image_ids, table.image_sizes, strict=True
        )
        if not isinstance(image, np.ndarray)
    ]
    notes.append(images_lib.check_images(files, file, depth))
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
        # MPII's are squares about a centre, and leave the image on purpose.
        annotated_boxes=table.box_source == "gt_boxes" and table.keypoints != MPII,
    )
