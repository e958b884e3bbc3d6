"""What `pose-jax predict` has written, in the common form."""

from __future__ import annotations

from pathlib import Path

from pose_jax.data.convert import files
from pose_jax.data.convert.form import (
    Category,
    Image,
    Labels,
    Options,
    Person,
    Tool,
    reading,
)
from pose_jax.errors import InputError
from pose_jax.keypoints import KeypointSet

RESULTS, INFO = "predictions.json", "predictions_info.json"


def recognize(path: Path) -> bool:
    """Returns whether this is the output folder of `predict`, or its results."""
    folder = path if path.is_dir() else path.parent
    named = path.is_dir() or path.name == RESULTS
    return named and all((folder / name).is_file() for name in (RESULTS, INFO))


def read(path: Path, options: Options) -> Labels:
    """Reads an output folder of `predict`.

    All keypoints are visible (v = 2), with their scores. Images that are not there are
    missing.

    Raises:
      InputError: the files are absent or broken.
    """
    folder = path if path.is_dir() else path.parent
    info = files.parse_json(folder / INFO, dict)
    rows = files.parse_json(folder / RESULTS, list)
    labels, images = Labels(), {}
    with reading(folder / INFO, TOOL.title):
        keypoints = KeypointSet.from_json(info["keypoints"])
        name = info["category"].get("name") or "person"
        names = keypoints.names
        pair = lambda pairs: tuple((names[i], names[j]) for i, j in pairs)
        labels.categories[name] = Category(
            name, names, pair(keypoints.skeleton), pair(keypoints.flip_pairs)
        )
        find = files.Finder([options.images] if options.images else [folder])
        for row in info["images"]:
            listed = Path(row["path"])
            file = listed if listed.is_file() else find(row["file_name"])
            if file is None:
                labels.missing.append(row["path"])
                labels.sought = (listed.parent, *find.folders)
                continue
            size = int(row["width"]), int(row["height"])
            image = Image(files.posix(row["file_name"]), file=file, size=size)
            images[row["id"]] = image
            labels.images.append(image)
    with reading(folder / RESULTS, TOOL.title):
        for row in rows:
            image = images.get(row["image_id"])
            if image is None:
                labels.left_out.add("prediction[s] of images that are not there")
                continue
            k = row["keypoints"]
            at = dict(
                zip(names, zip(k[0::3], k[1::3], k[2::3], strict=True), strict=True)
            )
            x, y, w, h = (float(value) for value in row["bbox"])
            image.people.append(
                Person(
                    name,
                    {n: (float(px), float(py), 2) for n, (px, py, _) in at.items()},
                    (x, y, w, h),
                    score=float(row["score"]),
                    scores={n: float(score) for n, (_, _, score) in at.items()},
                )
            )
    if not labels.images and not labels.missing:
        raise InputError(f"{folder} has no predicted images.")
    for image in labels.images:  # Names of images given by absolute paths.
        image.name = image.name.lstrip("/").replace("../", "")
    return labels


TOOL = Tool(title="pose-jax predict", read=read, recognize=recognize)
