"""Tiny sets in the original form of each data set, all of the same made-up people.

Coordinates are quarters of a pixel: adding and taking away MATLAB's one changes no bit.
"""

import dataclasses
import json

import numpy as np
import scipy.io
from PIL import Image

from pose_jax import keypoints
from pose_jax.keypoints import KeypointSet

EMPTY = np.zeros((0, 0))
"""What MATLAB has in a field that was never set."""

FLIC_COLUMNS = {
    "left_shoulder": 0, "left_elbow": 1, "left_wrist": 2,
    "right_shoulder": 3, "right_elbow": 4, "right_wrist": 5,
    "left_hip": 6, "right_hip": 9, "left_eye": 12, "right_eye": 13, "nose": 16,
}  # fmt: skip
MPII_OFFICIAL = "mpii_human_pose_v1_u12_1.mat"


@dataclasses.dataclass(frozen=True)
class People:
    """What a Table should say of the files, images in the order of their first person."""

    keypoints: KeypointSet
    files: tuple[str, ...]
    sizes: np.ndarray  # [m, 2]
    image: np.ndarray  # [n]
    points_xy: np.ndarray  # [n, k, 2]
    visibility: np.ndarray  # [n, k]
    boxes_xyxy: np.ndarray  # [n, 4] of 50 x 50 pixels

    def each(self):
        """(file, box, points, visibility) of each; the last is of another split."""
        columns = (self.boxes_xyxy, self.points_xy, self.visibility[..., None])
        return zip([self.files[i] for i in self.image], *columns, strict=True)


def people(keypoint_set, *, flags=(0, 1, 2), image=(0, 1, 0, 2), pattern="{}.jpg"):
    """People of those visibilities; the first of them is wholly labelled."""
    rng = np.random.default_rng(0)
    n, k, m = len(image), len(keypoint_set), len(set(image))
    visibility = rng.choice(flags, (n, k)).astype(np.int32)
    visibility[:1] = max(flags)
    # Any two joints are further apart than the least side of a box, each way.
    places = rng.permuted(np.tile(np.arange(k), (n, 2, 1)), axis=-1)
    points = 10 * places.transpose(0, 2, 1) + rng.integers(1, 4, (n, k, 2)) / 4
    corner = rng.integers(0, 80, (n, 2)) / 4
    return People(
        keypoint_set,
        tuple(pattern.format(i + 1) for i in range(m)),
        np.array([(190 + 7 * i, 180 - 9 * i) for i in range(m)]),
        np.array(image),
        points,
        visibility,
        np.concatenate([corner, corner + 50], -1),
    )


def images(folder, these):
    """Of noise, another for every name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (w, h) in zip(these.files, these.sizes, strict=True):
        rng = np.random.default_rng(list(name.encode()))
        pixels = rng.integers(0, 256, (h // 9, w // 9, 3), np.uint8)
        Image.fromarray(pixels).resize((w, h)).save(folder / name, "JPEG")


def stand_ins(folder, names):
    """One tiny image under all these names: of real annotations few images are there."""
    folder.mkdir()
    Image.new("RGB", (8, 9)).save(folder.parent / "tiny.jpg")
    for name in names:
        (folder / name).symlink_to(folder.parent / "tiny.jpg")


def structs(*rows):
    """A MATLAB struct array: every element has every field, if only an empty one."""
    fields = list(dict.fromkeys(name for row in rows for name in row))
    array = np.empty((1, len(rows)), [(name, object) for name in fields])
    for i, row in enumerate(rows):
        for name in fields:
            array[name][0, i] = row.get(name, EMPTY)
    return array


DROP = object()


def put(value, *keys, to=DROP):
    """Sets or drops what stands at these keys of what a file holds."""
    *inner, last = keys
    for key in inner:
        value = value[key]
    if to is DROP:
        del value[last]
    else:
        value[last] = to


def edit(path, change):
    """`change` is given what a json holds, or the variables of a .mat."""
    if path.suffix == ".mat":
        held = scipy.io.loadmat(path)
        held = {name: held[name] for name in held if not name.startswith("__")}
        change(held)
        scipy.io.savemat(path, held)
    else:
        held = json.loads(path.read_text())
        change(held)
        path.write_text(json.dumps(held))


# Each writes the images and the annotations of a split, and returns the file of these.


def lsp_people(extended=False, count=4):
    """Each in an image of its own."""
    pattern = "im{:05d}.jpg" if extended else "im{:04d}.jpg"
    flags = (0, 2) if extended else (1, 2)
    return people(keypoints.LSP, flags=flags, image=range(count), pattern=pattern)


def save_joints(path, joints, *, extended=False):
    """[n, 14, 3] with the axes of LSP or of its extension."""
    order = (1, 2, 0) if extended else (2, 1, 0)
    scipy.io.savemat(path, {"joints": joints.transpose(order)})


def lsp(root, these, *, extended=False, joints=None):
    """`joints`, as of `save_joints`, may be others than these people's."""
    images(root / "images", these)
    if joints is None:
        flags = these.visibility == (2 if extended else 1)
        joints = np.concatenate([these.points_xy, flags[..., None]], -1)
    save_joints(root / "joints.mat", joints, extended=extended)
    return root / "joints.mat"


def flic_examples(these):
    columns = [FLIC_COLUMNS[name] for name in these.keypoints.names]
    rows = []
    for name, box, points, flags in these.each():
        coords = np.full((2, 29), np.nan)
        coords[:, columns] = np.where(flags > 0, points, np.nan).T
        row = {"coords": coords, "filepath": name, "torsobox": box[None]}
        rows.append(row | {"istrain": True, "istest": False})
    rows[-1] |= {"istrain": False, "istest": True}
    return rows


def flic(root, these):
    images(root / "images", these)
    examples = structs(*flic_examples(these))
    scipy.io.savemat(root / "examples.mat", {"examples": examples})
    return root / "examples.mat"


def mpii_rows(these):
    """Rows of train.json and its like: 1-based, a flag for every labelled joint."""
    return [
        {
            "image": name,
            "center": ((box[:2] + box[2:]) / 2 + (1, 1 - 15 * 0.25)).tolist(),
            "scale": 0.25,
            "joints": (points + 1).tolist(),
            "joints_vis": (flags[:, 0] > 0).astype(int).tolist(),
        }
        for name, box, points, flags in these.each()
    ]


def gt_valid(rows, diagonals):
    """The variables of gt_valid.mat, head boxes of these diagonals."""
    points = np.array([row["joints"] for row in rows])
    missing = 1 - np.array([row["joints_vis"] for row in rows])
    boxes = np.array([[[5, 5], [5 + 0.6 * d, 5 + 0.8 * d]] for d in diagonals])
    return {
        "pos_gt_src": points.transpose(1, 2, 0),
        "headboxes_src": boxes.transpose(1, 2, 0),
        "jnt_missing": missing.T,
    }


def mpii_both_rows(these):
    """Rows of mpii_annotations.json."""
    rows, sizes = [], these.sizes[these.image].astype(float).tolist()
    for common, (*_, points, flags), (w, h) in zip(
        mpii_rows(these), these.each(), sizes, strict=True
    ):
        triples = np.concatenate([points + 1, flags == 2], -1) * (flags > 0)
        row = {"img_paths": common["image"], "objpos": common["center"]}
        row |= {"scale_provided": common["scale"], "joint_self": triples.tolist()}
        rows.append(row | {"isValidation": 0.0, "img_width": w, "img_height": h})
    rows[-1]["isValidation"] = 1.0
    return rows


def mpii_release(these):
    """The variable of the official file: each person in an entry of its own."""
    entries = []
    for row, (*_, flags) in zip(mpii_rows(these), these.each(), strict=True):
        points = [
            {"x": x, "y": y, "id": joint, "is_visible": int(flag == 2)}
            for joint, ((x, y), flag) in enumerate(
                zip(row["joints"], flags[:, 0], strict=True)
            )
            if flag
        ]
        rect = {"annopoints": structs({"point": structs(*points)}), "scale": 0.25}
        rect["objpos"] = structs(dict(zip("xy", row["center"], strict=True)))
        image = structs({"name": row["image"]})
        entries.append({"image": image, "annorect": structs(rect)})
    return {"annolist": structs(*entries), "img_train": np.ones((1, len(entries)))}


def mpii(root, these, *, file="valid.json"):
    """In the form that the file's name says."""
    images(root / "images", these)
    path = root / "annot" / file
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".mat":
        scipy.io.savemat(path, {"RELEASE": mpii_release(these)})
    else:
        rows = mpii_both_rows if "annotations" in file else mpii_rows
        path.write_text(json.dumps(rows(these)))
    return path


def coco(root, these, *, split="train2017", folder=None):
    images(root / (folder or split), these)
    names, sizes = list(these.keypoints.names), these.sizes.tolist()
    data = {
        "images": [
            {"id": i, "file_name": name, "width": w, "height": h}
            for i, (name, (w, h)) in enumerate(zip(these.files, sizes, strict=True), 11)
        ],
        "categories": [
            {"id": 2, "name": "dog"}, {"id": 1, "name": "person", "keypoints": names},
        ],
        "annotations": [
            {
                "id": i, "image_id": 11 + these.files.index(name), "category_id": 1,
                "iscrowd": 0, "bbox": [*box[:2].tolist(), 50, 50], "area": 41.5,
                "keypoints": np.concatenate([points, flags], -1).reshape(-1).tolist(),
            }
            for i, (name, box, points, flags) in enumerate(these.each(), 1)
        ],
    }  # fmt: skip
    path = root / "annotations" / f"person_keypoints_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data))
    return path
