"""Every data set in its original form: what each must read, find, and refuse in one line.

A new data set is a writer and an entry of FORMATS.
"""

import dataclasses
import functools
import itertools
import re
import shutil
import typing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from pose_jax import data, keypoints
from pose_jax.data import canvas, readers
from pose_jax.data.check import run as check
from pose_jax.data.plan import InputConfig, Plan
from pose_jax.errors import ConfigError, InputError
from pose_jax.types import PersonView
from tests.data import writers

COMBINATIONS = {
    "joined": "has no files of its own: test_joined.py",
    "prepared": "is written by us from a Table: test_store.py",
    "tfds": "has no one form; is written by TFDS: test_store.py",
}


@dataclasses.dataclass(frozen=True)
class Format:
    """One form of one data set.

    Attributes:
      name: a key of DATASETS.
      write: `write(root, people)` writes it and returns the file of annotations.
      people: made for what the form can say.
      damage: what breaks the file, and what the message says, beside what breaks any
        file of its suffix.
      suffix: of the file of annotations.
      split: that holds all people.
      found: the splits that its folder is found to have.
      bad_splits: more than one that nobody has.
      empty: `empty(path)` takes all people out of a split, and that split.
      sized: whether the file knows the sizes of the images.
    """

    name: str
    write: Callable[[Path, writers.People], Path]
    people: writers.People
    damage: list[tuple[Callable[[Path], object], str]]
    suffix: str = ".mat"
    split: str = "all"
    found: tuple[str, ...] = ("all",)
    bad_splits: tuple[str, ...] = ()
    empty: tuple[Callable[[Path], object], str] | None = None
    sized: bool = False

    def source(self, root, **options):
        return data.SourceConfig(self.name, str(root), self.split, options)


# ------------------------------------------------------------------------ ways to damage


def no_keypoints(path):
    for keys in (("categories", 1), *(("annotations", i) for i in range(4))):
        put(*keys, "keypoints")(path)


def put(*keys, **to):
    """Changes a json, or the variables of a .mat, as of `writers.put`."""
    return lambda path: writers.edit(path, lambda held: writers.put(held, *keys, **to))


def saved(**variables):
    return lambda path: scipy.io.savemat(path, variables)


def bytes_of(contents):
    return lambda path: path.write_bytes(contents)


def swap_axes(path):
    joints = scipy.io.loadmat(path)["joints"]
    scipy.io.savemat(path, {"joints": joints.swapaxes(0, 1)})


def folder(path):
    path.unlink()
    path.mkdir()


COMMON = [
    (Path.unlink, "does not exist|none of"),
    (folder, "cannot be read|none of"),
    (bytes_of(b""), "Fetch it again"),
    (bytes_of(b"joints" * 99), "Fetch it again"),
    (lambda path: path.write_bytes(path.read_bytes()[:500]), "Fetch it again"),
]
BY_SUFFIX = {
    ".mat": [
        (bytes_of(b" " * 124 + b"\0\2IM" + b" " * 99), "version 7.3; save it with -v7"),
        (saved(other=1), "no variable .*it has: other"),
    ],
    ".json": [
        (bytes_of(b"\xff\xfe"), "Fetch it again"),
        (bytes_of(b"[" * 100_000), "Fetch it again"),
        (bytes_of(b"[1]"), "another kind of file"),
        (bytes_of(b"7"), "JSON int, not a .*another kind of file"),
    ],
}
REMEDY = (
    r"Fetch|Fix the annotation file|names another|save it with|another kind of file|"
    r"another data set|Read it as|Pass the set|Use the person_keypoints"
)


def lsp_damage(x, flag, no_image):
    """`x` and `flag` are places in `joints`."""
    return [
        (swap_axes, r'data set "lsp.*Read it as that'),
        (saved(joints=np.ones((4, 14, 3))), "is 4 x 14 x 3; .*another data set"),
        (saved(joints=np.ones(7)), "1 x 7"),
        (saved(joints=np.ones(no_image)), "holds no numbers"),
        (saved(joints=np.full((*no_image[:2], 4), "x")), "holds no numbers"),
        (put("joints", flag, to=2), "flags of `joints` must be 0 or 1"),
        (
            put("joints", x, to=np.nan),
            "image 1: right_wrist is labeled but not finite",
        ),
    ]


def rows_damage(*cases):
    """What makes row 1 of MPII's jsons unusable: (field, value, what is said)."""
    dropped = [(name, writers.DROP, "is missing|must be a file") for name, *_ in cases]
    return [
        (put(1, field, to=to), f"row 1: {field} (?:{said})")
        for field, to, said in (*cases, *dropped)
    ]


def point(joint):
    """One person of MPII's official file, of one point."""
    points = writers.structs({"x": 1, "y": 1, "id": joint})
    return writers.structs({"annopoints": writers.structs({"point": points})})


EXAMPLE = (0, 2)
ENTRIES = ("RELEASE", "annolist", (0, 0))
LSP_SPLITS = ("0-3", "3-2", "2-5", "val", "", "1", "-", "1-2-3", "test")
FORMATS = {
    "lsp": Format(
        "lsp", writers.lsp, writers.lsp_people(),
        lsp_damage((0, 6, 0), (2, 3, 1), (3, 14, 0)),
        bad_splits=("train", *LSP_SPLITS),
    ),
    "lsp_extended": Format(
        "lsp_extended", functools.partial(writers.lsp, extended=True),
        writers.lsp_people(extended=True),
        lsp_damage((6, 0, 0), (3, 2, 1), (14, 3, 0)),
        bad_splits=LSP_SPLITS,
    ),
    "flic": Format(
        "flic", writers.flic, writers.people(keypoints.FLIC, flags=(0, 2)),
        [
            (put("examples", "coords", EXAMPLE, to=np.ones((2, 28))),
             "example 3: coords must be 2 x 29 numbers; got 2 x 28"),
            (put("examples", "coords", EXAMPLE, to="x" * 29), "3: coords must be 2"),
            (put("examples", "filepath", EXAMPLE, to=""), "example 3: filepath is missing"),
            (saved(examples=np.ones(5)), "no struct array"),
        ],
        found=("train", "test"), empty=(put("examples", "istest", (0, 3), to=0), "test"),
    ),
    "mpii": Format(
        "mpii", writers.mpii, writers.people(keypoints.MPII, flags=(0, 2)),
        rows_damage(
            ("image", 7, "must be a file name"),
            ("joints", [[1, float("nan")]] * 16, "must be 16 x 2 finite"),
            ("joints", [[1], [2, 3]], "must be 16 x 2 finite"),
            ("joints_vis", None, "must be 16 finite"),
            ("center", [1, 2, 3], "must be 2 finite"),
            ("scale", "big", "must be a number"),
            ("scale", 10**400, "must be a number"),
        ),
        suffix=".json", split="valid", found=("valid",), empty=(bytes_of(b"[]"), "valid"),
    ),
    "mpii, both splits in a json": Format(
        "mpii", functools.partial(writers.mpii, file="mpii_annotations.json"),
        writers.people(keypoints.MPII),
        rows_damage(
            ("img_paths", "", "must be a file name"),
            ("joint_self", [[1, 2]] * 16, "must be 16 x 3 finite"),
            ("objpos", None, "must be 2 finite"),
            ("scale_provided", [1], "must be a number"),
            ("isValidation", "yes", "must be a number"),
            ("img_width", 0, "must be positive"),
            ("img_height", 1e300, "must be positive"),
        ),
        suffix=".json", found=("train", "valid"), sized=True,
        empty=(put(3, "isValidation", to=0), "valid"),
    ),
    "mpii, the official file": Format(
        "mpii", functools.partial(writers.mpii, file=writers.MPII_OFFICIAL),
        writers.people(keypoints.MPII),
        [
            (put(*ENTRIES, "image", (0, 1), to=writers.EMPTY),
             r"annolist\(2\)\.image\.name is missing"),
            (put("RELEASE", "img_train", (0, 0), to=np.ones((1, 3))),
             "annolist has 4 images and img_train 3"),
            (put(*ENTRIES, to=7), "annolist has 0 images"),
            (put(*ENTRIES, "annorect", (0, 2), to=point(16)),
             r"annolist\(3\)\.annorect\(1\): a point has the id 16"),
        ],
        empty=(lambda path: None, "test"),
    ),
    "coco": Format(
        "coco", writers.coco, writers.people(keypoints.COCO),
        [  # All that a row can have is in check/test_run.py.
            (no_keypoints, "no category names keypoints, and no annotation has any"),
            (put("categories", 1, "keypoints", to=["nose"]), "must be 3 finite numbers"),
            (put("images", 1, "width"), "image id 12: width is missing"),
            (put("images", 1, "id", to=11), "id 11: two images"),
            (put("annotations", 2, "image_id", to=77), "annotation id 3: image_id 77 is"),
            (put("annotations", 2, to=5), "annotation number 2: category_id is missing"),
        ],
        suffix=".json", split="train2017", found=("train2017",), sized=True,
        empty=(put("annotations", to=[]), "train2017"),
    ),
}  # fmt: skip
DAMAGES = [
    pytest.param(form, *what, id=f"{label}: {i}: {what[1]}")
    for label, form in FORMATS.items()
    for i, what in enumerate(COMMON + BY_SUFFIX[form.suffix] + form.damage)
]


@pytest.fixture(scope="module", params=FORMATS)
def form(request):
    return FORMATS[request.param]


@pytest.fixture
def root(form, tmp_path):
    form.write(tmp_path, form.people)
    return tmp_path


def refused(source, said, kind=InputError):
    """Returns the message, which is the same of a source of joined data."""
    part = {k: v for k, v in vars(source).items() if k != "on_error"}
    joined = data.SourceConfig("joined", "", "", {"sources": {"it": part}})
    messages = []
    for each in (source, joined):
        with pytest.raises(kind) as caught:
            data.load(each)
        messages.append(str(caught.value).removeprefix("config.data: "))
    assert messages[1].removeprefix("sources.it: ") == messages[0]
    assert re.search(said, messages[0]) and "\n" not in messages[0], messages[0]
    return messages[0]


# ----------------------------------------------------------------------- what all must do


def test_every_data_set_is_in_the_table():
    named = {form.name for form in FORMATS.values()}
    assert named | set(COMBINATIONS) == set(data.DATASETS)
    assert not named & set(COMBINATIONS)


@pytest.mark.parametrize("name", sorted({form.name for form in FORMATS.values()}))
def test_it_says_what_it_is(name):
    known = data.DATASETS[name]
    assert known.about["description"] and known.license
    assert known.about["citation"].startswith("@inproceedings{")
    assert known.files or name == "lsp_extended"
    assert known.recognize and known.splits
    assert data.usual_keypoints(name, {}) is known.keypoints is not None


def test_importing_the_readers_is_cheap(run_python):
    done = run_python(
        "import sys, pose_jax.data; print({'scipy.io', 'PIL'} & set(sys.modules))"
    )
    assert done.stdout.split() == ["set()"], done.stderr


def test_its_people_come_back(form, tmp_path):
    for folder in "ab":
        form.write(tmp_path / folder, form.people)
    table, people = data.load(form.source(tmp_path / "a")), form.people
    assert table.name == f"{form.name} {form.split}" and table.labelled
    assert table.keypoints is people.keypoints is data.DATASETS[form.name].keypoints
    assert [image.name for image in table.images] == list(people.files)
    assert table.image_sizes.tolist() == people.sizes.tolist()
    assert table.image.tolist() == people.image.tolist()
    assert len(set(table.ids)) == len(table) == len(people.image)
    np.testing.assert_array_equal(table.visibility, people.visibility)
    labelled = people.visibility > 0
    np.testing.assert_array_equal(table.points_xy[labelled], people.points_xy[labelled])
    boxes = people.boxes_xyxy
    if table.box_source == "joint_boxes":
        low = np.where(labelled[..., None], people.points_xy, np.inf).min(1)
        high = np.where(labelled[..., None], people.points_xy, -np.inf).max(1)
        boxes = np.concatenate([low, high], -1)
        whole = data.load(form.source(tmp_path / "a", boxes="image"))
        sizes = people.sizes[people.image].tolist()
        assert whole.boxes_xyxy.tolist() == [[0, 0, *size] for size in sizes]
        assert whole.areas.tolist() == [w * h for w, h in sizes]
        assert whole.box_source == "image"
        assert whole.fingerprint() != table.fingerprint()
    assert table.boxes_xyxy.tolist() == boxes.tolist()
    if form.name != "coco":  # Which has ids of its own.
        first = np.unique(people.image, return_index=True)[1]
        assert table.ids.tolist() == [1, 2, 3, 4]
        assert table.image_ids.tolist() == (first + 1).tolist()
        assert not table.points_xy[~labelled].any()
    one = {"sources": {"one": {"name": form.name, "root": "b"}}}
    for source in (
        form.source(tmp_path / "a"),
        form.source(tmp_path / "b"),
        data.SourceConfig("joined", str(tmp_path), form.split, one),
    ):
        assert data.load(source).fingerprint() == table.fingerprint()


@pytest.mark.parametrize(
    ("name", "file", "variable"),
    [("lsp", "joints-OC.mat", "joints"), ("flic", "flic-joints-oc.mat", "flic_anno")],
)
def test_the_observers_sides_are_another_file(name, file, variable, tmp_path):
    form = FORMATS[name]
    form.write(tmp_path, form.people)
    refused(form.source(tmp_path, centric="OC"), f"{file} does not exist")
    order = list(form.people.keypoints.permutation)
    columns = {
        k: getattr(form.people, k)[:, order] for k in ("points_xy", "visibility")
    }
    other = form.write(tmp_path / "b", dataclasses.replace(form.people, **columns))
    *_, held = scipy.io.loadmat(other).values()
    scipy.io.savemat(tmp_path / file, {variable: held})
    person, observer = (
        data.load(form.source(tmp_path, centric=c)) for c in ("PC", "OC")
    )
    assert (person.centric, observer.centric) == ("PC", "OC")
    np.testing.assert_array_equal(observer.points_xy, person.points_xy[:, order])
    assert person.fingerprint() != observer.fingerprint()


def test_its_folder_is_found(form, root):
    found = check.sources(root)
    assert [(it.name, it.split) for it in found] == [(form.name, s) for s in form.found]
    people = list(itertools.chain(*(data.load(it).points_xy for it in found)))
    whole = data.load(form.source(root)).points_xy
    np.testing.assert_array_equal(people, whole)
    assert check.check(form.source(root)).counts["people"] == len(whole)


@pytest.mark.parametrize("reader", ["numpy", "tf"])
def test_its_rows_are_read_with_their_own_images(form, root, reader):
    if reader == "tf":
        pytest.importorskip("tensorflow")
    table = data.load(form.source(root))
    config = InputConfig(len(table), (220, 220), reader=reader, workers=1)
    (batch,) = readers.batches(Plan(table, PersonView(size=(32, 32)), config))
    assert batch.inputs.row.tolist() == list(range(len(table)))
    np.testing.assert_array_equal(batch.labels.points_xy, table.points_xy)
    np.testing.assert_array_equal(batch.labels.visibility, table.visibility)
    for image, pixels in zip(form.people.image, batch.inputs.images, strict=True):
        with Image.open(next(root.rglob(form.people.files[image]))) as image:
            w, h = image.size
            np.testing.assert_array_equal(pixels[:h, :w], np.asarray(image))


@pytest.mark.parametrize(("form", "damage", "said"), DAMAGES)
def test_damage_is_named_in_one_line(form, damage, said, tmp_path):
    path = form.write(tmp_path, form.people)
    damage(path)
    message = refused(form.source(tmp_path), said)
    if "none of" in message:
        assert str(path.parent) in message and path.name in message
    else:
        assert str(path) in message and re.search(REMEDY, message), message


ANYTHING = [
    None, True, 0, -1, 2.5, 1e300, 10**400, 2**70, float("nan"), "", "text", "\0", "a" * 99,
    [], [1], [[1, 2], [3]], ["x"], [None], {}, {"a": 1}, writers.EMPTY, np.ones((2, 29)),
    np.full((2, 29), "x"), np.full((3, 14, 4), "x"), np.array([[7, "x"]], object),
]  # fmt: skip


def places(held, above=()):
    """The keys of all that stands in a json, or in the variables of a .mat."""
    if isinstance(held, np.ndarray) and held.dtype.names and held.size:
        inner = [(name, (0, 0)) for name in held.dtype.names]
        inner = {keys: held[keys[0]][keys[1]] for keys in inner}
    elif isinstance(held, list):
        inner = {(i,): value for i, value in enumerate(held[:3])}
    else:
        inner = {(k,): held[k] for k in held} if isinstance(held, dict) else {}
    for keys, value in inner.items():
        yield (*above, *keys)
        yield from places(value, (*above, *keys))


def test_anything_in_any_place_is_read_or_refused_in_one_line(form, root):
    path, found = annotations(form, root), []
    undamaged = path.read_bytes()
    writers.edit(path, lambda held: found.extend(places(held)))
    rng = np.random.default_rng(0)
    for i, what in rng.permutation([*np.ndindex(len(found), len(ANYTHING))])[:60]:
        path.write_bytes(undamaged)
        try:
            put(*found[i], to=ANYTHING[what])(path)
        except (TypeError, ValueError, OverflowError):
            continue  # No such file can be.
        try:
            data.load(form.source(root)).fingerprint()
        except InputError as error:
            assert "\n" not in str(error)


def annotations(form, root):
    (path,) = (path for path in root.rglob(f"*{form.suffix}") if path.is_file())
    return path


def test_annotations_may_have_another_name(form, root):
    expected = data.load(form.source(root)).fingerprint()
    path = annotations(form, root)
    mine = path.rename(root / f"mine{form.suffix}")
    refused(form.source(root), path.name)
    found = data.load(form.source(root, annotations=mine))
    assert found.fingerprint() == expected
    absent = root / f"absent{form.suffix}"
    said = rf"{re.escape(str(absent))} does not exist; `annotations=` names another"
    refused(form.source(root, annotations=absent), said)


def test_missing_images_are_counted_or_skipped(form, root):
    whole = data.load(form.source(root))
    m = len(whole.images)
    whole.images[0].unlink()
    name = re.escape(form.people.files[0])
    refused(form.source(root), rf'1 of {m} images of .*: {name}\. .*missing="skip"')
    rest = data.load(form.source(root, missing="skip"))
    kept = whole.image != 0
    assert rest.images == whole.images[1:]
    assert rest.image.tolist() == (whole.image[kept] - 1).tolist()
    for column in ("image_ids", "image_sizes"):
        np.testing.assert_array_equal(getattr(rest, column), getattr(whole, column)[1:])
    for column in ("ids", "boxes_xyxy", "points_xy", "visibility", "areas"):
        found, expected = getattr(rest, column), getattr(whole, column)[kept]
        np.testing.assert_array_equal(found, expected)
    for image in rest.images:
        image.unlink()
    refused(form.source(root), rf"{m} of {m} images of .*: {name}, ")
    assert len(data.load(form.source(root, missing="skip"))) == 0
    whole.images[0].parent.rmdir()
    said = rf"{whole.images[0].parent}.* is.* a folder\. Unpack the"
    refused(form.source(root, missing="skip"), said)


NAMED = {
    "coco": ("images", 0, "file_name"),
    "flic": ("examples", "filepath", (0, 0)),
    "mpii": (0, "image"),
    "mpii, both splits in a json": (0, "img_paths"),
}
"""Where the files of annotations name the first image."""


@pytest.mark.parametrize("label", NAMED)
def test_names_of_images_stay_in_their_folder_and_links_are_followed(label, tmp_path):
    form = FORMATS[label]
    path = form.write(tmp_path / "set", form.people)
    folder = data.load(form.source(tmp_path / "set")).images[0].parent
    (folder / "deep").mkdir()
    outside = Path(shutil.copy(folder / "1.jpg", tmp_path / "outside.jpg"))
    for name, said in (
        (str(outside), r"outside\.jpg: .*absolute"),
        ("../../outside.jpg", r'outside\.jpg: .*hold "\.\."'),
        ("deep/../2.JPG", r"\(2\.jpg is there\): listed names include a folder"),
        (r"C:\a\2.jpg", r"\(2\.jpg is there\): listed names include a folder"),
        ("2.JPG", r"\(2\.jpg is there\): .*upper and lower case"),
    ):
        put(*NAMED[label], to=name)(path)
        refused(form.source(tmp_path / "set"), said)
    put(*NAMED[label], to="deep/link.jpg")(path)
    (folder / "deep" / "link.jpg").symlink_to(outside)
    table = data.load(form.source(tmp_path / "set"))
    assert folder / "deep" / "link.jpg" in table.images


def test_an_image_that_is_none_or_of_another_size_is_named(form, root):
    path = data.load(form.source(root)).images[1]
    path.write_text("<html>")
    said = rf"{path}.* cannot be read.* Fetch it again"
    with pytest.raises(InputError, match=said) as caught:
        canvas.decode(data.load(form.source(root)), 1)
    assert "\n" not in str(caught.value)
    Image.new("RGB", (9, 7)).save(path)
    table = data.load(form.source(root))
    if form.sized:
        with pytest.raises(InputError, match=rf"{path}.* is 9x7, the annotations say"):
            canvas.decode(table, 1)
    else:
        assert table.image_sizes[1].tolist() == [9, 7]
        assert canvas.decode(table, 1).shape == (7, 9, 3)


def test_what_its_reader_does_not_take_is_refused(form, root):
    said = rf"^options of data set '{form.name}': .*'nosuch'"
    refused(form.source(root, nosuch=1), said, kind=ConfigError)
    hints = typing.get_type_hints(data.DATASETS[form.name].load)
    options = {k for k, it in hints.items() if typing.get_origin(it) is typing.Literal}
    assert "missing" in options
    for option in options - {"split"}:
        said = rf"^{option} must be one of .*'nosuch'\.$"
        refused(form.source(root, **{option: "nosuch"}), said, kind=ConfigError)
    # Any name may be a split of COCO.
    kind = InputError if form.name == "coco" else ConfigError
    for split in ("nosuch", *form.bad_splits):
        source = dataclasses.replace(form.source(root), split=split)
        refused(source, "split|nosuch", kind=kind)


def test_a_split_without_people_is_a_table_without_rows(form, root):
    if form.empty is None:
        pytest.skip("all that it has are people")
    damage, split = form.empty
    path = annotations(form, root)
    damage(path)
    table = data.load(dataclasses.replace(form.source(root), split=split))
    assert table.points_xy.shape == (0, len(table.keypoints), 2) and table.fingerprint()
    with pytest.raises(InputError, match=f"{table.name}: there are no rows") as caught:
        Plan(table, PersonView(size=(32, 32)), InputConfig(2))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "folder", "split"),
    [
        ("lsp", "lsp_dataset", "all"),
        ("lsp_extended", "lspet_dataset", "5001-6000"),
        ("flic", "FLIC", "all"),
        ("mpii", "mpii", "valid"),
    ],
)
def test_real_photographs_are_clean_and_hold_their_people(
    name, folder, split, real_data
):
    # Of most there are a few images.
    options = {"missing": "skip"}
    source = data.SourceConfig(name, str(real_data / folder), split, options)
    report = check.check(source)
    assert report.exit_code == 0, report.text()
    table = data.load(source)
    sizes = table.image_sizes[table.image][:, None]
    inside = ((table.points_xy >= 0) & (table.points_xy < sizes)).all(-1)
    labelled = table.visibility > 0
    assert inside[labelled].mean() > 0.98
    low, high = table.boxes_xyxy[:, None, :2], table.boxes_xyxy[:, None, 2:]
    held = ((table.points_xy >= low) & (table.points_xy <= high)).all(-1)
    assert held[labelled].mean() > 0.9
