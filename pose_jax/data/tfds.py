"""Other TensorFlow Datasets, and stores of this package, as a Table.

  data.train = {"name": "tfds", "root": "DATA/coco/2017/1.1.0", "split": "train"}

The root is the folder of one version, as written by TFDS.

Images remain encoded in their records; TensorFlow is not imported.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax.data import coco, ids, keypoint_sets, pixels
from pose_jax.data.store import Store, damaged, import_tfds, open_builder, read
from pose_jax.data.table import Record, Table
from pose_jax.errors import InputError, one_line
from pose_jax.keypoints import COCO, KeypointSet


def load(
    root: Any, split: str, *, keypoints: keypoint_sets.Option | None = None
) -> Table:
    """Reads a split of any TFDS data set whose features are named as in TFDS's COCO.

    A store of `prepare` is read by `store.read`. For others, every record is read once for
    the following features; further ones are ignored:

    * `image`: Image. Its size is taken from its bytes.
    * `image/id`: an integer, or a text (then as of `ids.numbers`); where it is absent, the
      number of the record.
    * `objects`: Sequence of
      `bbox`: BBox in TFDS's own form, (ymin, xmin, ymax, xmax) relative to the image;
      `keypoints`: [k, 3] or [3 k], (x, y, visibility 0, 1, 2) in pixels of the image;
      `area` in pixels, default the box's, which `notes` says; `is_crowd`, default False;
      `id`, an integer, default 1, 2, ...; `label`: if it is a ClassLabel with "person",
      objects of other classes are left out.

    Args:
      root: the folder of its version, or a builder; stored as ArrayRecord.
      split: name of the TFDS split; "train[:100]" is accepted too.
      keypoints: the keypoint set, see `keypoint_sets.resolve`; None: COCO's, or that of a
        store.

    Raises:
      ConfigError: no such keypoint set.
      InputError: a feature is missing or of another form, or the data are not stored as
        ArrayRecord.
    """
    path = Path(root if isinstance(root, str | Path) else root.data_dir)
    if (path / "columns.npz").exists():
        table = read(path, split)
        if keypoints is None:
            return table
        return table.with_keypoints(keypoint_sets.resolve(keypoints, table.keypoints))
    builder: Any = root
    if isinstance(root, str | Path):
        try:
            builder = open_builder(path)
        except InputError:
            raise
        except Exception as error:  # TFDS has no class for these.
            why = one_line(error, 200)
            raise InputError(f"{path} is no TFDS data: {why}") from None
    keypoint_set = COCO if keypoints is None else keypoint_sets.resolve(keypoints, None)
    features = dict(builder.info.features.items())
    misfit = _misfit(features, keypoint_set)
    if misfit is not None:
        raise InputError(f"{path}: feature {misfit}.")
    store = Store(builder, split)
    try:
        count = len(store)
    except Exception as error:  # Another file format, or no such split.
        raise InputError(
            f"{path}: split {split!r} cannot be read: {one_line(error, 200)} (`tfds "
            "convert_format` makes ArrayRecord of other formats)."
        ) from None
    label = dict(features["objects"].feature.items()).get("label")
    names = getattr(label, "names", None) or ()
    person = names.index("person") if "person" in names else None
    images = [_image(store, i, len(keypoint_set), person) for i in range(count)]
    if not images:
        raise InputError(f"{path}: split {split!r} has no record.")
    people, notes = [len(image["areas"]) for image in images], []
    if "area" not in features["objects"]:
        notes.append(coco.no_area(sum(people), path))
    columns: dict[str, Any] = {
        name: np.concatenate([image[name] for image in images]) for name in images[0]
    }
    if columns["image_ids"].dtype != np.int64:
        texts = [bytes(own).decode(errors="replace") for own in columns["image_ids"]]
        columns["image_ids"] = np.array(ids.numbers(texts), np.int64)
        notes.append(coco.TEXT_IDS)
    if not columns["ids"].all():
        columns["ids"] = np.arange(1, len(columns["ids"]) + 1)
    return Table(
        name=f"{builder.name} {split}",
        keypoints=keypoint_set,
        images=tuple(Record(store, i) for i in range(count)),
        image=np.repeat(np.arange(count, dtype=np.int32), people),
        box_scores=np.ones(sum(people)),
        notes=tuple(notes),
        **columns,
    )


def _misfit(features: dict[str, Any], keypoints: KeypointSet) -> str | None:
    """Returns what is missing or of another form, or None."""
    kinds, k = import_tfds().features, len(keypoints)
    if not isinstance(features.get("image"), kinds.Image):
        return "image must be an Image"
    own_id = features.get("image/id")
    if own_id is not None and not isinstance(own_id, kinds.Text):
        if own_id.np_dtype != np.int64:
            return "image/id must be int64 or text"
    objects: Any = features.get("objects")
    if not isinstance(objects, kinds.Sequence) or not (
        "bbox" in objects and "keypoints" in objects
    ):
        return "objects must be a Sequence with bbox and keypoints"
    box, points = objects["bbox"], objects["keypoints"]
    # Early TFDS versions had one form only and did not store it.
    form = getattr(getattr(box, "bbox_format", None), "value", None)
    if not isinstance(box, kinds.BBoxFeature) or form not in (None, "REL_YXYX"):
        return (
            "objects/bbox must be a BBox: ymin, xmin, ymax, xmax relative to the image"
        )
    if points.shape not in ((k, 3), (3 * k,)):
        return (
            f"objects/keypoints is {points.shape}; {k} keypoints of set "
            f"{keypoints.name} are ({k}, 3) or ({3 * k},)"
        )
    return None


def _image(store: Store, index: int, k: int, person: int | None) -> dict[str, Any]:
    """Returns the columns of one image, of objects with the label `person` if not None."""
    record = store[index]
    try:
        size = np.array(pixels.sizes(io.BytesIO(record["image"]), f"record {index}")[0])
    except InputError as error:
        raise damaged(store, one_line(error, 200)) from None
    objects = record["objects"]
    boxes = np.asarray(objects["bbox"], np.float64).reshape(-1, 4)
    triples = np.asarray(objects["keypoints"], np.float64).reshape(-1, k, 3)
    kept = np.ones(len(boxes), bool)
    if person is not None:
        kept = np.asarray(objects["label"]) == person
    finite = np.isfinite(triples[..., :2]).all(-1) | (triples[..., 2] == 0)
    known = np.isin(triples[..., 2], (0, 1, 2)) & finite
    if not known.all() or (boxes[kept] > 1).any():
        raise InputError(
            f"{store}: record {index}: visibility must be 0, 1 or 2, labeled keypoints "
            "finite, and bbox within 0 and 1."
        )
    boxes = boxes[:, [1, 0, 3, 2]] * np.tile(size, 2)
    areas = objects.get("area", (boxes[:, 2:] - boxes[:, :2]).prod(-1))
    people = {
        "ids": np.asarray(objects.get("id", np.zeros(len(boxes))), np.int64),
        "boxes_xyxy": boxes,
        # Beside visibility 0 may be anything, NaN too.
        "points_xy": np.where(np.isfinite(triples[..., :2]), triples[..., :2], 0),
        "visibility": triples[..., 2].astype(np.int32),
        "areas": np.asarray(areas, np.float64),
        "crowd": np.asarray(objects.get("is_crowd", np.zeros(len(boxes))), bool),
    }
    return {
        "image_ids": np.array([record.get("image/id", index)]),
        "image_sizes": size.astype(np.int32)[None],
        **{name: column[kept] for name, column in people.items()},
    }
