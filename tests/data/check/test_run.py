"""`data check`: each kind of damage is told once, with its count and an example; what is
clean is clean; and the reader never breaks on what the check has told."""

import copy
import dataclasses
import json
import re

import numpy as np
import pytest
import scipy.io
from PIL import Image

from pose_jax import cli, keypoints
from pose_jax.data import DATASETS, SourceConfig, canvas, coco
from pose_jax.data.check import images
from pose_jax.data.check import run as check
from pose_jax.data.check.kinds import KINDS
from pose_jax.data.synthetic import scenes
from pose_jax.errors import ConfigError, InputError
from pose_jax.keypoints import COCO, KeypointSet
from tests.data import writers

WIDTH, HEIGHT = 120, 90
BOXES = ((10, 10, 20, 40), (40, 30, 20, 40), (70, 20, 20, 40), (95, 45, 20, 40))
ABSENT, FOLDER = "absent", "folder"
# In their box, from the front: left is at larger x.
LEFT_XY = (
    (0.56, 0.08), (0.62, 0.10), (0.75, 0.25), (0.85, 0.40), (0.90, 0.50),
    (0.65, 0.55), (0.65, 0.75), (0.65, 0.95),
)  # fmt: skip
IN_BOX_XY = np.array(
    [(0.5, 0.1), *(p for x, y in LEFT_XY for p in ((x, y), (1 - x, y)))]
)
RIGHT_EAR, WRISTS = 4, (9, 10)


def person(i, image_id, box):
    """Wrists are hidden, the right ear is not labelled."""
    triples = np.full((17, 3), 2.0)
    triples[:, :2] = np.array(box[:2]) + IN_BOX_XY * box[2:]
    triples[WRISTS, 2] = 1
    triples[RIGHT_EAR] = 0
    return {
        "id": i, "image_id": image_id, "category_id": 1, "iscrowd": 0,
        "bbox": list(box), "area": 400.0, "num_keypoints": 16,
        "keypoints": triples.reshape(-1).tolist(),
    }  # fmt: skip


class Folder:
    """A clean COCO folder: six images of four people each, and a detection for each.

    What damages it changes `data`, `boxes` and the images; then `save` writes the json.
    """

    def __init__(self, root):
        self.root, self.images = root, root / "train2017"
        self.json = root / "annotations" / "person_keypoints_train2017.json"
        self.boxes_json = root / "boxes.json"
        self.options = {}
        self.raw, self.raw_boxes = None, None  # Bytes, or ABSENT, in place of the json.
        people = [person(100 + i, 1 + i // 4, BOXES[i % 4]) for i in range(24)]
        self.data = {
            "images": [
                {"id": i, "file_name": f"im{i}.jpg", "width": WIDTH, "height": HEIGHT}
                for i in range(1, 7)
            ],
            "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.names)}],
            "annotations": people,
        }
        self.boxes = [
            {"image_id": p["image_id"], "category_id": 1, "score": 0.5}
            | {"bbox": list(p["bbox"])}
            for p in people
        ]
        self.images.mkdir()
        self.json.parent.mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        self.picture = Image.fromarray(noise)
        for i in range(1, 7):
            self.picture.save(self.images / f"im{i}.jpg", "JPEG")

    def save(self):
        for path, value, raw in (
            (self.json, self.data, self.raw),
            (self.boxes_json, self.boxes, self.raw_boxes),
        ):
            if raw == FOLDER:
                path.mkdir()
            elif raw != ABSENT:
                path.write_bytes(raw or json.dumps(value).encode())
        options = {"detections": str(self.boxes_json)} | self.options
        return SourceConfig("coco", str(self.root), "train2017", options)

    @property
    def keypoints(self):
        """[24, 17, 3] of all people; set it to write them back."""
        triples = [p["keypoints"] for p in self.data["annotations"]]
        return np.array(triples).reshape(-1, 17, 3)

    @keypoints.setter
    def keypoints(self, triples):
        for p, own in zip(self.data["annotations"], triples, strict=True):
            p["keypoints"] = own.reshape(-1).tolist()
            p["num_keypoints"] = int((own[:, 2] > 0).sum())


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def findings(source, **options):
    report = check.check(source, **options)
    assert report.exit_code == any(f.severity == "error" for f in report.findings)
    return {f.kind: f for f in report.findings}, report


# ------------------------------------------------------------------- ways to damage it


def put(*path, **to):
    return lambda folder: writers.put(folder.data, *path, **to)


def each(section, change):
    """`change` is given every row of a section, or of the boxes."""

    def damage(folder):
        for row in folder.boxes if section == "boxes" else folder.data[section]:
            change(row)

    return damage


def put_box(row, field, to):
    return lambda folder: folder.boxes[row].update({field: to})


def raw(value):
    return lambda folder: setattr(folder, "raw", value)


def raw_boxes(value):
    return lambda folder: setattr(folder, "raw_boxes", value)


def rename(old, new):
    """Exchanges two names of the category, or puts a new one."""

    def damage(folder):
        names = folder.data["categories"][0]["keypoints"]
        swap = {old: new, new: old}
        names[:] = [swap.get(name, name) for name in names]

    return damage


def label(change):
    """Changes the keypoints [24, 17, 3] in place."""

    def damage(folder):
        triples = folder.keypoints
        change(triples)
        folder.keypoints = triples

    return damage


def set_points(index, value):
    return label(lambda triples: triples.__setitem__(index, value))


def scale(x, y):
    def change(triples):
        triples[..., :2] *= (x, y)

    return label(change)


def exchange(*pairs):
    """Left and right of these pairs, in all people."""

    def change(triples):
        for i, j in pairs:
            triples[:, [i, j]] = triples[:, [j, i]]

    return label(change)


def swap_xy(folder):
    folder.keypoints = folder.keypoints[..., [1, 0, 2]]


@label
def beside_the_box(triples):
    labelled = triples[3, :, 2] > 0
    triples[3, labelled, :2] -= (60, 20)


def fewer_keypoints(folder):
    del folder.data["categories"][0]["keypoints"][16:]
    for p in folder.data["annotations"]:
        p["keypoints"] = p["keypoints"][:48]
        p["num_keypoints"] = 15


def as_corners(row):
    x, y, w, h = row["bbox"]
    row["bbox"] = [x, y, x + w, y + h]


def normalized(row):
    row["bbox"] = [
        side / whole for side, whole in zip(row["bbox"], (120, 90) * 2, strict=True)
    ]


def other_category(folder):
    folder.data["categories"].append({"id": 2, "name": "dog"})
    for p in folder.data["annotations"]:
        p["category_id"] = 2


def two_categories(folder):
    folder.data["categories"][0]["name"] = "human"
    folder.data["categories"].append({"id": 2, "name": "dog", "keypoints": ["tail"]})


def of_coco(damage):
    """The damage of a file that is asked to have COCO's keypoints."""

    def damaged(folder):
        damage(folder)
        folder.options["keypoints"] = "coco"

    return damaged


def other_number(folder):
    fewer_keypoints(folder)
    no_names(folder)


def no_names(folder):
    del folder.data["categories"][0]["keypoints"]


def no_keypoints(folder):
    no_names(folder)
    each("annotations", lambda row: row.pop("keypoints"))(folder)


def text_ids(folder):
    each("images", lambda row: row.update(id=f"im{row['id']}"))(folder)
    for section in ("annotations", "boxes"):
        each(section, lambda row: row.update(image_id=f"im{row['image_id']}"))(folder)


def decomposed_name(folder):
    file_named("im2.jpg", "e\u0301.jpg")(folder)
    folder.data["images"][1]["file_name"] = "\u00e9.jpg"


def again(section, row, **fields):
    """A second copy of a row."""

    def damage(folder):
        rows = folder.data[section]
        rows.append(copy.deepcopy(rows[row]) | fields)

    return damage


def unlabelled_and_empty(folder):
    set_points(7, 0)(folder)
    folder.data["annotations"][7]["bbox"][2] = 0


def file_named(old, new):
    return lambda folder: (folder.images / old).rename(folder.images / new)


def write_bytes(name, change):
    def damage(folder):
        path = folder.images / name
        path.write_bytes(change(path.read_bytes()))

    return damage


def save_as(form, mode=None, **options):
    """im2.jpg in another form and mode; Pillow goes by the contents, not the name."""

    def damage(folder):
        picture = folder.picture
        if mode == "I;16":
            picture = Image.fromarray(np.full((HEIGHT, WIDTH), 999, np.uint16))
        elif mode:
            picture = picture.convert(mode)
        picture.save(folder.images / "im2.jpg", form, **options)

    return damage


def save_size(width, height, **options):
    def damage(folder):
        picture = folder.picture.resize((width, height))
        picture.save(folder.images / "im2.jpg", "JPEG", **options)

    return damage


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def frames():
    other = Image.new("RGB", (WIDTH, HEIGHT), (9, 200, 9))
    return {"save_all": True, "append_images": [other]}


def colliding_names(folder):
    again("images", 0, id=7, file_name="IM1.jpg")(folder)
    folder.picture.save(folder.images / "IM1.jpg", "JPEG")


def moved_images(folder):
    folder.images.rename(folder.root / "elsewhere")


NAN, INF, HUGE = float("nan"), float("inf"), 10**400
ANN = ("annotations", 3)
JSON = r"person_keypoints_train2017\.json"
ID = rf"{JSON}: annotation id 103"
IMAGE = rf"{JSON}: image id 2"
FILE = r"train2017: im2\.jpg \(image id 2\)"
DETECTION = r"boxes\.json: detection 3"

CASES = [
    # kind, count, what its line shows, damage; kinds that follow from it
    ("json-missing", 1, JSON, raw(ABSENT)),
    ("json-unreadable", 1, JSON, raw(FOLDER)),
    ("json-broken", 1, rf"{JSON}: .*line 1", raw(b'{"images": [')),
    ("json-broken", 1, JSON, raw(b"\xff\xfe\x00")),
    ("json-broken", 1, rf"{JSON}: nested", raw(b"[" * 100_000)),
    ("json-kind", 1, rf"{JSON}: .*list", raw(b"[1, 2]")),
    ("section-missing", 1, f"{JSON}: images", put("images")),
    ("section-missing", 1, f"{JSON}: annotations", put("annotations", to={})),
    ("images-empty", 1, JSON, put("images", to=[]), "unknown-image"),
    ("annotations-empty", 1, JSON, put("annotations", to=[])),
    ("annotations-absent", 1, f"{JSON}: 6 images", put("annotations")),
    ("section-missing", 1, f"{JSON}: categories", put("categories", to={"id": 1})),
    ("field-missing", 1, f"{IMAGE}: file_name", put("images", 1, "file_name")),
    ("field-missing", 1, f"{IMAGE}: width", put("images", 1, "width")),
    ("field-missing", 1, f"{JSON}: image number 1: id", put("images", 1, "id"),
     "unknown-image", "detection-unknown-image"),
    ("field-missing", 1, f"{ID}: bbox", put(*ANN, "bbox")),
    ("field-missing", 1, f"{ID}: image_id", put(*ANN, "image_id")),
    ("field-missing", 1, f"{ID}: category_id", put(*ANN, "category_id")),
    ("field-type", 1, f"{IMAGE}: width is '120'", put("images", 1, "width", to="120")),
    ("field-type", 1, f"{IMAGE}: file_name is 3", put("images", 1, "file_name", to=3)),
    ("field-type", 1, "annotation number 3 is 5", put(*ANN, to=5)),
    ("field-type", 1, f"{ID}: bbox is", put(*ANN, "bbox", to=[1, 2, 3])),
    ("field-type", 1, f"{ID}: bbox is", put(*ANN, "bbox", to=["1", 2, 3, 4])),
    ("field-type", 1, f"{ID}: area is", put(*ANN, "area", to="400")),
    ("field-type", 1, f"{ID}: keypoints is", put(*ANN, "keypoints", to=7)),
    ("field-type", 1, f"{ID}: keypoints is", put(*ANN, "keypoints", to=[None] * 51)),
    ("field-type", 1, "category id 1: keypoints is 17",
     put("categories", 0, "keypoints", to=17)),
    ("id-not-integer", 1, "annotation id a: id is 'a'", put(*ANN, "id", to="a")),
    ("id-not-integer", 1, f"{ID}: image_id is 1.5", put(*ANN, "image_id", to=1.5)),
    ("id-not-integer", 1, "image id 2.5: id is 2.5", put("images", 1, "id", to=2.5),
     "unknown-image", "detection-unknown-image"),
    ("id-not-integer", 1, "annotation id 1180591", put(*ANN, "id", to=2**70)),
    ("size-not-positive", 1, rf"{IMAGE}: \[120, 0\]", put("images", 1, "height", to=0)),
    ("size-not-positive", 1, IMAGE, put("images", 1, "width", to=2**40)),
    ("duplicate-image-id", 1, IMAGE, again("images", 1)),
    ("duplicate-annotation-id", 1, ID, again(*ANN)),
    ("duplicate-file-name", 1, r"image id 7 and image id 2: im2\.jpg",
     again("images", 1, id=7)),
    ("unknown-image", 1, f"{ID}: image_id 77", put(*ANN, "image_id", to=77)),
    ("unknown-category", 1, f"{ID}: category_id 9", put(*ANN, "category_id", to=9)),
    ("no-people", 1, "24 annotations", other_category),
    ("category-unknown", 1, f"{JSON}: 'dog'", lambda f: f.options.update(category="dog")),
    ("category-without-keypoints", 1, JSON, no_keypoints),
    ("keypoints-not-named", 1, "category id 1: set coco", no_names),
    ("image-ids-text", 6, "image id im1", text_ids),
    ("several-categories", 1, "category id 1, category id 2", two_categories),
    ("keypoint-count", 1, "category id 1: 16; set coco has 17",
     of_coco(fewer_keypoints)),
    ("keypoint-names", 1, "keypoint 0 is 'Nose', set coco",
     of_coco(rename("nose", "Nose"))),
    ("keypoint-order", 2, "keypoint 0 is 'left_eye'",
     of_coco(rename("nose", "left_eye"))),
    ("keypoint-sides", 2, "is 'right_wrist'",
     of_coco(rename("left_wrist", "right_wrist")), "pair-swapped"),
    ("keypoints-number", 1, "category id 1: annotations have 16", other_number),
    ("keypoint-set", 1, "skeleton: .*18", lambda f: (
        rename("nose", "snout")(f),
        f.data["categories"][0].update(skeleton=[[1, 18]]))),
    ("keypoint-set", 1, "two keypoints have the name 'nose'",
     put("categories", 0, "keypoints", 1, to="nose")),
    ("keypoints-length", 1, f"{ID}: 50 numbers", put(*ANN, "keypoints", to=[0] * 50)),
    ("keypoints-not-finite", 1, ID, set_points((3, 5, 0), NAN)),
    ("keypoints-not-finite", 1, ID, put(*ANN, "keypoints", to=[HUGE] * 51)),
    ("visibility-value", 1, f"{ID}: v is 3", set_points((3, 5, 2), 3)),
    ("visibility-binary", 1, "384 keypoints",
     label(lambda t: np.minimum(t[..., 2], 1, out=t[..., 2]))),
    ("unlabelled-coordinates", 1, ID, set_points((3, 5, 2), 0)),
    ("num-keypoints", 1, f"{ID}: .* 99, not 16", put(*ANN, "num_keypoints", to=99)),
    ("no-labels", 1, "24 people", set_points(slice(None), 0)),
    ("points-normalized", 24, "annotation id 100", scale(1 / WIDTH, 1 / HEIGHT)),
    ("points-swapped", 24, "annotation id 100", swap_xy),
    ("points-outside", 1, rf"{ID}: left_shoulder \(500, ", set_points((3, 5, 0), 500)),
    ("points-mostly-outside", 348, "annotation id 100", scale(4, 4)),
    ("points-outside-box", 1, ID, beside_the_box),
    ("torso-degenerate", 1, ID, label(lambda t: np.copyto(t[3, 5], t[3, 12]))),
    ("pair-swapped", 1, "left_wrist and right_wrist: in 24 of 24, as annotation id 100",
     exchange(WRISTS)),
    ("sides-mirrored", 24, "24 of 24, as annotation id 100", exchange(*COCO.flip_pairs)),
    ("bbox-not-finite", 1, f"{ID}: bbox is", put(*ANN, "bbox", to=[1, 2, 3, NAN])),
    ("bbox-not-finite", 1, f"{ID}: bbox is", put(*ANN, "bbox", to=[1, 2, HUGE, 3])),
    ("bbox-empty", 1, ID, put(*ANN, "bbox", 2, to=0)),
    ("bbox-empty", 1, ID, put(*ANN, "bbox", 3, to=-4)),
    ("bbox-empty-unlabelled", 1, "annotation id 107", unlabelled_and_empty),
    ("bbox-outside", 1, ID, put(*ANN, "bbox", to=[500, 500, 20, 40]),
     "points-outside-box"),
    ("bbox-beyond", 1, ID, put(*ANN, "bbox", to=[95, 45, 20, 80])),
    ("bbox-xyxy", 24, "annotation id 100", each("annotations", as_corners)),
    ("bbox-normalized", 24, "annotation id 100",
     each("annotations", normalized)),
    ("area-absent", 1, ID, put(*ANN, "area")),
    ("area-absent", 1, ID, put(*ANN, "area", to=None)),
    ("area-tiny", 1, ID, put(*ANN, "area", to=1)),
    ("area-not-finite", 1, f"{ID}: area is nan", put(*ANN, "area", to=NAN)),
    ("area-not-finite", 1, f"{ID}: area is 1000", put(*ANN, "area", to=HUGE)),
    ("area-not-positive", 1, ID, put(*ANN, "area", to=0)),
    ("area-exceeds-box", 1, ID, put(*ANN, "area", to=5000)),
    ("iscrowd-value", 1, f"{ID}: iscrowd is 2", put(*ANN, "iscrowd", to=2)),
    ("iscrowd-value", 1, f"{ID}: iscrowd is 'no'", put(*ANN, "iscrowd", to="no")),
    ("no-image-folder", 1, "none of .*train2017, .*train2017", moved_images),
    ("image-missing", 1, r"'no\.jpg' \(image id 2\)",
     put("images", 1, "file_name", to="no.jpg")),
    ("image-missing", 1, r"'aaaa.*\(image id 2\)",
     put("images", 1, "file_name", to="a" * 5000)),
    ("image-name-case", 1, r"'im2\.jpg' \(image id 2\); IM2\.JPG is there",
     file_named("im2.jpg", "IM2.JPG")),
    ("image-name-folder", 1, r"\(image id 2\); im2\.jpg is there",
     put("images", 1, "file_name", to="train2017\\im2.jpg")),
    ("image-name-folder", 1, r"\(image id 2\); im2\.jpg is there",
     put("images", 1, "file_name", to="C:\\pictures\\IM2.jpg")),
    ("image-name-folder", 1, r"\(image id 2\); im2\.jpg is there",
     put("images", 1, "file_name", to="../train2017/im2.jpg")),
    ("image-name-outside", 1, r"'/etc/passwd' \(image id 2\)\]",
     put("images", 1, "file_name", to="/etc/passwd")),
    ("image-name-outside", 1, r"'\.\./boxes\.json' \(image id 2\)\]",
     put("images", 1, "file_name", to="../boxes.json")),
    ("image-name-unicode", 1, r"\(image id 2\); e\u0301\.jpg is there", decomposed_name),
    ("image-names-collide", 1, r"image id 7 and image id 1: IM1\.jpg", colliding_names),
    ("image-empty", 1, FILE, write_bytes("im2.jpg", lambda b: b"")),
    ("image-unreadable", 1, FILE, write_bytes("im2.jpg", lambda b: b"<html>")),
    ("image-truncated", 1, FILE, write_bytes("im2.jpg", lambda b: b[: len(b) // 2])),
    ("image-size", 1, rf"{FILE}: 60x45, listed as 120x90", save_size(60, 45)),
    ("image-size", 1, f"{FILE}: 90x120, listed as 120x90: turned",
     save_size(HEIGHT, WIDTH)),
    ("image-size", 1, f"{FILE}: 60x45 or 45x60 .*EXIF orientation 6",
     save_size(60, 45, exif=orientation(6)), "image-turned"),
    ("image-turned", 1, f"{FILE}: orientation 6, used turned",
     save_size(HEIGHT, WIDTH, exif=orientation(6))),
    ("image-gray", 1, f"{FILE}: L", save_as("JPEG", "L")),
    ("image-palette", 1, f"{FILE}: P", save_as("PNG", "P")),
    ("image-alpha", 1, f"{FILE}: RGBA", save_as("PNG", "RGBA")),
    ("image-alpha", 1, f"{FILE}: RGB", save_as("PNG", "RGB", transparency=(1, 2, 3))),
    ("image-cmyk", 1, f"{FILE}: CMYK", save_as("JPEG", "CMYK")),
    ("image-16-bit", 1, f"{FILE}: I;16", save_as("PNG", "I;16")),
    ("image-mode", 1, f"{FILE}: YCbCr", save_as("TIFF", "YCbCr")),
    ("image-range", 1, f"{FILE}: F", save_as("TIFF", "F")),
    ("image-turned", 1, f"{FILE}: orientation 3, used as stored, since both fit",
     save_as("JPEG", exif=orientation(3))),
    ("image-animated", 1, f"{FILE}: PNG", save_as("PNG", "RGB", **frames())),
    ("json-missing", 1, r"boxes\.json", raw_boxes(ABSENT)),
    ("json-broken", 1, r"boxes\.json", raw_boxes(b'[{"image_id": 1')),
    ("json-kind", 1, r"boxes\.json: .*dict", raw_boxes(b'{"images": []}')),
    ("detections-no-people", 1, r"boxes\.json: the list is empty", raw_boxes(b"[]")),
    ("detections-no-people", 24, f"{DETECTION[:-1]}0",
     each("boxes", lambda row: row.update(category_id=3))),
    ("detections-all-unknown", 24, f"{DETECTION[:-1]}0",
     each("boxes", lambda row: row.update(image_id=77))),
    ("detection-unknown-image", 1, rf"{DETECTION} \(image id 77\)",
     put_box(3, "image_id", 77)),
    ("detection-category", 1, f"{DETECTION}.*category_id 9",
     put_box(3, "category_id", 9)),
    ("field-type", 1, f"{DETECTION} is 5", lambda f: f.boxes.__setitem__(3, 5)),
    ("field-missing", 1, f"{DETECTION}: score", lambda f: f.boxes[3].pop("score")),
    ("id-not-integer", 1, f"{DETECTION}: image_id", put_box(3, "image_id", 1.5)),
    ("bbox-not-finite", 1, f"{DETECTION}: bbox", put_box(3, "bbox", [1, 2, INF, 3])),
    ("bbox-empty-unlabelled", 1, DETECTION, put_box(3, "bbox", [1, 2, 0, 3])),
    ("bbox-xyxy", 24, f"{DETECTION[:-1]}0", each("boxes", as_corners)),
    ("score-not-finite", 1, f"{DETECTION}: score is nan", put_box(3, "score", NAN)),
    ("score-not-finite", 1, f"{DETECTION}: score is 1000", put_box(3, "score", HUGE)),
    ("score-range", 1, f"{DETECTION}: score is 7", put_box(3, "score", 7.0)),
]  # fmt: skip
NAMES = [f"{i}-{case[0]}" for i, case in enumerate(CASES)]

ELSEWHERE = {"flip-pairs", "person-unusable", "reader-refuses", "reader-fails"}
"""Kinds that a COCO folder alone cannot have; they have tests of their own."""

SILENT = {
    "duplicate-annotation-id", "points-normalized", "points-swapped",
    "points-mostly-outside", "bbox-empty", "bbox-outside", "bbox-xyxy",
    "bbox-normalized", "area-not-positive",
    "detections-all-unknown", "detections-no-people", "annotations-empty",
}  # fmt: skip
"""Errors of meaning: a reader that looks at one row at a time takes them."""


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_damage_is_told_once_and_the_reader_refuses_what_is_an_error(case, folder):
    kind, count, shown, damage, *follow = case
    damage(folder)
    source = folder.save()
    found, report = findings(source)
    assert set(found) == {kind, *follow}, report.text()
    assert "\n" not in "".join(f.text() for f in report.findings)
    assert found[kind].count == count
    assert found[kind].severity == KINDS[kind].severity
    (line,) = [li for li in report.text().splitlines() if f"  {kind}  " in li]
    assert re.match(rf"(error  |warning)  {kind}  {count}: .+ -> .+  \[.+\]$", line)
    assert re.search(shown, line), line
    try:
        table = coco.load(source.root, source.split, **source.options)
        for i in range(len(table.images)):
            canvas.decode(table, i)
    except InputError as error:
        assert "\n" not in str(error) and source.root in str(error)
        assert KINDS[kind].severity == "error"
    else:
        assert KINDS[kind].severity == "warning" or kind in SILENT


def test_every_kind_has_a_case():
    assert {case[0] for case in CASES} | ELSEWHERE == set(KINDS)
    assert len(CASES) >= 40


# -------------------------------------------------------------------------------- clean


def test_a_clean_folder_is_clean_and_counted(folder):
    found, report = findings(folder.save())
    assert not found and report.exit_code == 0
    assert report.counts == {
        "images": 6,
        "of them with people": 6,
        "people": 24,
        "crowd regions among them": 0,
        "with labelled keypoints": 24,
        "keypoints visible": 24 * 14,
        "hidden": 24 * 2,
        "not labelled": 24,
        "boxes from gt_boxes": 24,
        "boxes from detections": 24,
    }
    text = report.text()
    assert "6 images: headers and ends read, 6 of them decoded" in text
    assert text.endswith("\nclean")


def test_what_coco_leaves_out_is_no_finding(folder):
    """People without keypoints, crowds, other categories, no iscrowd; both layouts."""
    rows = folder.data["annotations"]
    del rows[0]["keypoints"], rows[0]["num_keypoints"], rows[1]["iscrowd"]
    rows[2] |= {"iscrowd": 1, "keypoints": [], "num_keypoints": 0}
    rows[3]["keypoints"][3 * RIGHT_EAR : 3 * RIGHT_EAR + 2] = [None, NAN]
    folder.boxes[0]["image_id"], folder.boxes[1]["image_id"] = "1", "im2"
    rows[2]["id"] = 900100002299
    folder.data["categories"].append({"id": 2, "name": "dog"})
    rows.append({"id": 5, "image_id": 1, "category_id": 2, "bbox": [0, 0, 1, 1]})
    (folder.root / "images").mkdir()
    folder.images.rename(folder.root / "images" / "train2017")
    found, report = findings(folder.save())
    assert not found, report.text()
    assert report.counts["people"] == 24
    assert report.counts["crowd regions among them"] == 1
    assert report.counts["with labelled keypoints"] == 22


def test_synthetic_people_are_clean(tmp_path):
    scenes.write_dataset(tmp_path, n=12, seed=3, val=3)
    found = check.sources(tmp_path)
    assert [s.split for s in found] == ["train2017", "val2017"]
    for source in found:
        report = check.check(source, images="full")
        assert not report.findings, report.text()


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_real_coco_is_clean(split, real_data):
    found, report = findings(SourceConfig("coco", str(real_data / "coco"), split))
    assert not found, report.text()


# --------------------------------------------------------------------- more than one row


def test_several_kinds_are_told_together_errors_first(folder):
    put("annotations", 3, "area", to=0)(folder)
    put("annotations", 9, "area", to=-1)(folder)
    write_bytes("im2.jpg", lambda b: b"")(folder)
    save = folder.save()
    folder.picture.convert("L").save(folder.images / "im3.jpg", "JPEG")
    found, report = findings(save)
    assert list(found) == ["area-not-positive", "image-empty", "image-gray"]
    assert [f.count for f in found.values()] == [2, 1, 1]
    assert report.text().endswith("\n2 errors, 1 warning (of kinds)")


def test_areas_of_1_everywhere_are_an_error_that_says_what_ap_becomes(folder):
    each("annotations", lambda row: row.update(area=1))(folder)
    found, report = findings(folder.save())
    assert list(found) == ["area-tiny"] and report.exit_code == 1
    assert found["area-tiny"].count == 24
    assert "AP is about 0 for every network" in report.text()


def test_three_examples_are_shown_of_many(folder):
    for row in range(5):
        put("annotations", row, "area", to=0)(folder)
    found, _ = findings(folder.save())
    assert found["area-not-positive"].count == 5
    assert found["area-not-positive"].examples == (
        "annotation id 100", "annotation id 101", "annotation id 102",
    )  # fmt: skip
    assert found["area-not-positive"].text().endswith("annotation id 102; ...]")


def test_images_that_may_be_missing_are_a_warning(folder):
    put("images", 1, "file_name", to="no.jpg")(folder)
    source = folder.save()
    skip = SourceConfig("coco", source.root, source.split, {"missing": "skip"})
    found, report = findings(skip)
    assert found["image-missing"].severity == "warning" and report.exit_code == 0


def test_labels_without_images_are_a_warning_where_they_were_not_asked_for(folder):
    moved_images(folder)
    found, report = findings(folder.save(), need_images=False)
    assert found["no-image-folder"].severity == "warning" and report.exit_code == 0
    assert report.counts["people"] == 24


def test_a_sample_is_decoded_and_on_demand_all(folder, monkeypatch):
    monkeypatch.setattr(images, "SAMPLE", 1)

    def spoil(b):
        middle = len(b) // 2  # In the pixels; header and end stay.
        return b[:middle] + bytes(64) + b[middle + 64 :]

    save_as("PNG")(folder)
    write_bytes("im2.jpg", spoil)(folder)
    source = folder.save()
    found, report = findings(source)
    assert not found and "1 of them decoded" in report.text()
    found, report = findings(source, images="full")
    assert list(found) == ["image-truncated"] and "6 images decoded" in report.text()


def test_what_the_check_did_not_think_of_the_reader_tells(folder, monkeypatch):
    source = folder.save()

    def refuse(*args, **options):
        raise InputError("this was not thought of")

    def fail(*args, **options):
        raise KeyError("oops")

    def read_by(load):
        monkeypatch.setitem(
            DATASETS, "coco", dataclasses.replace(coco.DATA_SET, load=load)
        )

    read_by(refuse)
    found, report = findings(source)
    assert list(found) == ["reader-refuses"] and "not thought" in report.text()
    read_by(fail)
    found, report = findings(source)
    assert list(found) == ["reader-fails"] and "KeyError: 'oops'" in report.text()
    assert "please report it" in report.text()


def test_pairs_of_a_set_must_join_left_and_right(folder):
    names = ("left_hand", "right_hand", "left_foot", "right_foot")
    crossed = KeypointSet("crossed", names, ((0, 3), (1, 2)), ())
    lacking = KeypointSet("lacking", names, ((0, 1),), ())
    folder.data["categories"][0]["keypoints"] = list(names)
    for p in folder.data["annotations"]:
        p |= {"keypoints": p["keypoints"][15:27], "num_keypoints": 4}
    source = folder.save()
    for keypoint_set, count in ((crossed, 2), (lacking, 1)):
        options = {"keypoints": keypoint_set}
        found, report = findings(
            SourceConfig("coco", source.root, source.split, options)
        )
        assert found["flip-pairs"].count == count, report.text()


# -------------------------------------------------------------------------- other formats


def write_lsp(root, n=4):
    joints = np.zeros((3, 14, n))
    xy = {
        name: np.array((10, 10)) + IN_BOX_XY[i] * (60, 70)
        for i, name in enumerate(COCO.names)
    }
    xy |= {"neck": np.array((40, 24)), "head_top": np.array((40, 11))}
    for j, name in enumerate(keypoints.LSP.names):
        joints[:2, j] = xy[name][:, None]
    these = writers.lsp_people(count=n)
    writers.lsp(root, these, joints=joints.transpose(2, 1, 0))
    return joints


def test_another_format_is_found_and_clean(tmp_path):
    write_lsp(tmp_path)
    found, report = findings(*check.sources(tmp_path))
    assert not found, report.text()
    assert report.counts["people"] == report.counts["boxes from joint_boxes"] == 4


def test_another_format_shares_the_checks_of_columns_and_images(tmp_path):
    joints = write_lsp(tmp_path)
    joints[0, 3, 1] = 500
    joints[:2, 2, 2] = joints[:2, 9, 2]
    scipy.io.savemat(tmp_path / "joints.mat", {"joints": joints})
    path = tmp_path / "images" / "im0003.jpg"
    Image.open(path).convert("L").save(path, "JPEG")
    found, report = findings(*check.sources(tmp_path))
    assert set(found) == {"points-outside", "torso-degenerate", "image-gray"}
    assert (
        found["points-outside"]
        .examples[0]
        .startswith("person id 2 (im0002.jpg): left_hip (500, ")
    )
    assert "im0003.jpg (image id 3)" in report.text()


def test_another_format_is_checked_on_where_images_are_missing(tmp_path):
    write_lsp(tmp_path)
    (tmp_path / "images" / "im0002.jpg").unlink()
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "images" / "im0003.jpg", "JPEG")
    found, report = findings(*check.sources(tmp_path))
    assert list(found) == ["reader-refuses", "image-gray"]
    assert "1 of 4 images" in found["reader-refuses"].examples[0]
    assert report.counts["people"] == 3


def test_where_the_reader_refuses_all_images_are_still_looked_at(tmp_path):
    write_lsp(tmp_path)
    (tmp_path / "images" / "im0003.jpg").write_bytes(b"")
    (tmp_path / "images" / "im0001.jpg").write_bytes(b"none")
    found, _ = findings(*check.sources(tmp_path))
    assert set(found) == {"reader-refuses", "image-empty", "image-unreadable"}


def test_a_reader_of_your_own_is_checked_and_its_crashes_are_yours(
    tmp_path, monkeypatch
):
    write_lsp(tmp_path)
    (tmp_path / "own_reader.py").write_text(
        "from pose_jax.data import lsp\n\n\ndef load(root, split):\n"
        "    return lsp.load(root, {'everything': 'all'}[split])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="name the split of own_reader"):
        check.sources(tmp_path, format="own_reader:load")
    for split in ("everything", "nothing"):
        (source,) = check.sources(tmp_path, format="own_reader:load", split=split)
        if split == "everything":
            found, report = findings(source)
            assert not found and report.counts["people"] == 4, report.text()
        else:
            with pytest.raises(KeyError):
                check.check(source)


def test_another_format_without_people_is_not_clean(tmp_path):
    writers.mpii(tmp_path, writers.people(keypoints.MPII, flags=(0, 2)))
    for path in tmp_path.rglob("*.json"):
        path.write_text("[]")
    found, report = findings(*check.sources(tmp_path))
    assert list(found) == ["annotations-empty"] and report.exit_code == 1


def test_people_with_too_few_joints_for_a_box_are_told(tmp_path):
    joints = write_lsp(tmp_path).transpose(1, 0, 2)  # LSP-extended's axes.
    joints[:, 2] = 1
    joints[1:, 2, 1] = 0
    for path in (tmp_path / "images").iterdir():
        path.rename(path.with_name(path.name.replace("im", "im0")))
    scipy.io.savemat(tmp_path / "joints.mat", {"joints": joints})
    (source,) = check.sources(tmp_path)
    assert source.name == "lsp_extended"
    found, report = findings(source)
    assert list(found) == ["person-unusable"], report.text()
    assert "person id 2 (im00002.jpg)" in report.text()


# -------------------------------------------------------------------- what to look at


def test_splits_and_keypoints_are_found_or_said(folder):
    folder.save()
    other = folder.json.with_name("person_keypoints_own_split.json")
    other.write_text("{}")
    root = folder.root
    assert [s.split for s in check.sources(root)] == ["own_split", "train2017"]
    (source,) = check.sources(root, split="train2017", keypoint_set="mpii")
    assert source.options["keypoints"] == "mpii"
    (source,) = check.sources(root, annotations=other, detections="b.json")
    assert source.split == "own_split" and source.options["annotations"] == other
    with pytest.raises(ConfigError, match="--split"):
        check.sources(root, annotations="labels.json")
    with pytest.raises(ConfigError, match=r"--split.*own_split, coco train2017"):
        check.sources(root, detections="b.json")
    with pytest.raises(ConfigError, match="require COCO"):
        check.sources(root, format="lsp", detections="b.json")


def test_a_folder_that_is_none_says_where_one_is(folder, tmp_path):
    folder.save()
    with pytest.raises(InputError, match="not a folder"):
        check.sources(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"looks like no data set"):
        check.sources(folder.images)
    outer = tmp_path / "outer"
    outer.mkdir()
    for name in ("annotations", "train2017"):
        (tmp_path / name).rename(outer / name)
    with pytest.raises(InputError, match=r"holds some: .*outer \(coco\)"):
        check.sources(tmp_path)
    path = outer / "annotations" / folder.json.name
    boxes = path.rename(path.with_name("instances_train2017.json"))
    no_keypoints(folder)
    boxes.write_text(json.dumps(folder.data))
    with pytest.raises(InputError, match=r"instances_train2017\.json has no keypoints"):
        check.sources(outer)
    boxes.write_text("[]")
    with pytest.raises(InputError, match=r"it has: instances_train2017\.json"):
        check.sources(outer)


def test_a_config_is_checked_in_both_its_splits(folder):
    source = folder.save()
    section = {"name": "coco", "root": source.root, "split": "train2017"}
    other = section | {"split": "val2017", "options": {"missing": "skip"}}
    assert check.config_sources({"data": {"train": section, "eval": section}}) == [
        SourceConfig("coco", source.root, "train2017")
    ]
    first, second = check.config_sources({"data": {"train": section, "eval": other}})
    assert (first.split, second.split) == ("train2017", "val2017")
    with pytest.raises(ConfigError, match=r"config\.data\.eval is missing"):
        check.config_sources({"data": {"train": section}})
    with pytest.raises(ConfigError, match=r"no data set 'cocoo'"):
        check.check(SourceConfig("cocoo", source.root, "train2017"))


def test_the_verb_prints_the_report_and_exits_by_it(folder, capsys):
    put("annotations", 3, "area", to=0)(folder)
    folder.save()
    root = str(folder.root)
    assert cli.main(["data", "check", root]) == 1
    out, err = capsys.readouterr()
    assert "error    area-not-positive  1: " in out and err == ""
    assert cli.main(["data", "check", root, "--keypoints", "lsp"]) == 1
    assert "keypoint-count" in capsys.readouterr().out
    folder.data["annotations"][3]["area"] = 1
    folder.picture.convert("L").save(folder.images / "im3.jpg", "JPEG")
    folder.save()
    assert cli.main(["data", "check", root, "--split", "train2017"]) == 0
    assert "warning  image-gray  1: " in capsys.readouterr().out


def test_checking_loads_neither_flax_nor_tensorflow(folder, run_python):
    folder.save()
    words = ["data", "check", str(folder.root)]
    answer = run_python(
        f"import sys; from pose_jax import cli; assert cli.main({words!r}) == 0; "
        "print(*{'flax', 'tensorflow', 'optax', 'matplotlib'} & set(sys.modules))"
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[-1] == ""
