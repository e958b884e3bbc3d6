"""Small images, and data sets as `data convert` writes them."""

import io
import json

from PIL import Image

from pose_jax.data import convert
from pose_jax.data.convert.form import Options


def picture(path, size=(64, 48), shade=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, shade).save(path)
    return path


def png_bytes(size=(64, 48), shade=90):
    content = io.BytesIO()
    Image.new("L", size, shade).save(content, "PNG")
    return content.getvalue()


def convert_from(tool, path, out, **options):
    """Returns what is said, and the people of each image by "SPLIT/NAME"."""
    split = {"split": options.pop("split")} if "split" in options else {}
    said = convert.from_tool(tool, path, out, Options(**options), **split)
    return said, read_back(out)


def read_back(out):
    """Returns {"SPLIT/NAME": [{"box": ..., "points": {name: (x, y, v)}, ...}]}."""
    found = {}
    for path in sorted((out / "annotations").glob("person_keypoints_*.json")):
        split = path.stem.removeprefix("person_keypoints_")
        data = json.loads(path.read_text())
        categories = {c["id"]: c for c in data["categories"]}
        names = {}
        for image in data["images"]:
            names[image["id"]] = f"{split}/{image['file_name']}"
            found[names[image["id"]]] = []
        for row in data["annotations"]:
            category, k = categories[row["category_id"]], row["keypoints"]
            points = zip(k[0::3], k[1::3], k[2::3], strict=True)
            person = {
                "category": category["name"],
                "points": dict(zip(category["keypoints"], points, strict=True)),
                "box": tuple(row["bbox"]),
                "track": row.get("track_id"),
            }
            found[names[row["image_id"]]].append(person)
    return found


def categories(out, split="train"):
    path = out / "annotations" / f"person_keypoints_{split}.json"
    return json.loads(path.read_text())["categories"]


def points(person):
    """Returns the labelled points of a person."""
    return {name: point for name, point in person["points"].items() if point[2]}
