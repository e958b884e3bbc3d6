"""Packed stores: what comes back is what was packed, to the bit, or one clear line."""

import dataclasses
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from pose_jax import cli, keypoints
from pose_jax import data as data_lib
from pose_jax.data import coco, lsp, readers, store
from pose_jax.data import tfds as tfds_lib
from pose_jax.data.plan import InputConfig, Plan
from pose_jax.data.table import Table, from_boxes
from pose_jax.errors import ConfigError, InputError
from pose_jax.types import ImageView, PersonView

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")

COLUMNS = [
    field.name
    for field in dataclasses.fields(Table)
    if field.name not in ("images", "truth")
]
CONFIG = InputConfig(batch_size=4, canvas_size=(64, 48), workers=2)
PEOPLE = PersonView(size=(24, 32), max_others=2)
IMAGES = ImageView(size=(48, 64), buckets=((96, 64), (64, 96)), max_people=3)


def write_coco(root, split="val2017", seed=0):
    """Eight images of every kind; the last without people. People are scattered."""
    rng = np.random.default_rng(seed)
    folder = root / split
    folder.mkdir(parents=True, exist_ok=True)
    small = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((90, 61), Image.Resampling.BICUBIC)
    deep = Image.fromarray(rng.integers(0, 65536, (61, 90), dtype=np.uint16))
    files = {
        "a.jpg": picture, "b.jpg": picture.rotate(180), "gray.jpg": picture.convert("L"),
        "cmyk.jpg": picture.convert("CMYK"), "c.png": picture, "deep.png": deep,
        "d.jpg": picture.transpose(Image.Transpose.TRANSPOSE), "empty.jpg": picture,
    }  # fmt: skip
    for name, image in files.items():
        image.save(folder / name)
    with (folder / "a.jpg").open("ab") as file:
        file.write(b"\0\0\0")  # Bytes that end so must come back too.
    ids = (900100000000 + rng.permutation(len(files))).tolist()
    # Fractions that 32 bits do not hold.
    boxes = rng.uniform((0, 0, 5, 5), (60, 40, 30, 20), (21, 4)).tolist()
    points, flags = rng.uniform(0, 60, (21, 17, 2)), rng.integers(0, 3, (21, 17, 1))
    triples = np.concatenate([points, flags], -1).reshape(21, -1).tolist()
    people = [
        {
            "id": 900200000000 + i, "image_id": ids[i % 7], "category_id": 1,
            "iscrowd": int(i == 3), "bbox": box, "area": box[2] * box[3] / 3,
            "keypoints": triples[i],
        }
        for i, box in enumerate(boxes)
    ]  # fmt: skip
    data = {
        "images": [
            {"id": i, "file_name": name, "width": image.width, "height": image.height}
            for i, (name, image) in zip(ids, files.items(), strict=True)
        ],
        "categories": [
            {"id": 1, "name": "person", "keypoints": list(keypoints.COCO.names)}
        ],
        "annotations": people,
    }
    (root / "annotations").mkdir(exist_ok=True)
    path = root / "annotations" / f"person_keypoints_{split}.json"
    path.write_text(json.dumps(data))
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("folder"))


@pytest.fixture(scope="module")
def folder(root):
    return coco.load(root, "val2017")


@pytest.fixture(scope="module")
def out(folder, tmp_path_factory):
    """A store of several shards."""
    out = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "SHARD_BYTES", 8000)
        about = coco.DATA_SET.about
        path = store.prepare(folder, out, dataset="coco", split="val2017", about=about)
    assert len(list(path.glob("*.array_record*"))) > 2
    return out


def assert_same_table(a, b):
    """Equal to the bit, dtypes and all; and the images' bytes."""
    for name in COLUMNS:
        x, y = getattr(a, name), getattr(b, name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype, name
            assert x.shape == y.shape, name
            assert x.tobytes() == y.tobytes(), name
        else:
            assert x == y, name
    assert a.fingerprint() == b.fingerprint()
    assert [read(image) for image in a.images] == [read(image) for image in b.images]


def read(image):
    return image.read_bytes() if isinstance(image, Path) else image.read()


# The same as the folder.


def test_a_store_is_the_folder_again(folder, out):
    prepared = store.load(out, "val2017")
    assert_same_table(folder, prepared)
    assert not any(isinstance(image, Path) for image in prepared.images)
    assert len(prepared.people_of_image(7)) == 0


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("view", [PEOPLE, IMAGES], ids=["people", "images"])
@pytest.mark.parametrize("reader", ["numpy", "tf"])
def test_batches_are_the_same_to_the_bit(folder, out, reader, view, training):
    if reader == "tf":
        pytest.importorskip("tensorflow")
    batches = getattr(readers, f"{reader}_batches")
    prepared = store.load(out, "val2017")
    plans = [
        Plan(table, view, CONFIG, training=training, seed=4)
        for table in (folder, prepared)
    ]
    steps = (0, 2 * plans[0].steps_per_epoch)
    a, b = (jax.tree.leaves(list(batches(plan, *steps))) for plan in plans)
    assert len(a) == len(b) > 10
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_every_column_of_every_kind_of_table_survives(folder, tmp_path):
    """Also NaN, columns that only some data sets have, and a set of one's own."""
    rng = np.random.default_rng(1)
    n = len(folder)
    own = keypoints.KeypointSet(
        "own", ("a", "b", "c"), ((0, 1),), ((0, 1),),
        sticks=(("torso", (0, 1), 2),), torso=(0, 2), sigmas=(0.1, 0.25, 1 / 3),
    )  # fmt: skip
    table = dataclasses.replace(
        folder,
        name="mpii valid",
        keypoints=own,
        points_xy=np.where(rng.random((n, 3, 2)) < 0.2, np.nan, rng.random((n, 3, 2))),
        visibility=rng.integers(0, 3, (n, 3)).astype(np.int32),
        box_source="joint_boxes",
        labelled=False,
        centric="OC",
        category_id=3,
        notes=("one", "another"),
        head_sizes=rng.random(n),
    )
    path = store.prepare(table, tmp_path, dataset="mpii", split="valid")
    assert_same_table(table, store.load(tmp_path, "valid"))
    assert_same_table(table, tfds_lib.load(path, "valid"))


def test_a_table_without_people_is_packed_too(root, tmp_path):
    images = [root / "val2017" / name for name in ("a.jpg", "c.png")]
    table = from_boxes(images, [np.zeros((0, 4))] * 2, keypoints=keypoints.LSP)
    for split in ("all", "1-2"):  # "all" means something else to TFDS.
        store.prepare(table, tmp_path, dataset="lsp", split=split)
        assert_same_table(table, store.load(tmp_path, split))


def test_a_store_can_be_packed_again(folder, out, tmp_path):
    first = store.load(out, "val2017")
    store.prepare(first, tmp_path, dataset="other", split="val")
    assert_same_table(folder, store.load(tmp_path, "val"))


def test_records_hold_all_of_the_table(folder, out):
    """What TFDS alone reads, without us."""
    builder = tfds.builder_from_directory(out / "coco" / "val2017" / store.VERSION)
    decoders = {"image": tfds.decode.SkipDecoding()}
    source = builder.as_data_source("val2017", decoders=decoders)
    rows = []
    for i, record in enumerate(source):
        assert record["image"] == folder.images[i].read_bytes()
        assert record["image/id"] == folder.image_ids[i]
        assert record["image/size"].tolist() == folder.image_sizes[i].tolist()
        people = dict(record["people"])
        row = people.pop("row")
        assert row.tolist() == folder.people_of_image(i).tolist()
        assert set(people) >= {"ids", "boxes_xyxy", "points_xy", "visibility", "areas"}
        for name, column in people.items():
            expected = getattr(folder, name)[row]
            assert column.dtype == expected.dtype and column.shape == expected.shape
            np.testing.assert_array_equal(column, expected)
        rows += row.tolist()
    assert sorted(rows) == list(range(len(folder)))
    info = builder.info
    assert "CC BY 4.0" in info.redistribution_info.license
    assert "ECCV" in info.citation and "cocodataset" in info.homepage
    assert info.metadata["keypoints"]["names"] == list(keypoints.COCO.names)


def test_many_threads_read_one_store(folder, out):
    prepared = store.load(out, "val2017")
    order = np.random.default_rng(0).integers(0, len(folder.images), 400)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: prepared.images[i].read(), order))
    expected = [image.read_bytes() for image in folder.images]
    assert found == [expected[i] for i in order]


def test_detections_replace_the_people_of_a_store(folder, out, root, tmp_path):
    rows = [
        {"image_id": int(folder.image_ids[i]), "category_id": 1, "bbox": [1, 2, 9, 8],
         "score": 0.5 + i / 100}
        for i in (4, 1, 1)
    ]  # fmt: skip
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(rows))
    expected = coco.load(root, "val2017", detections=path)
    options = {"detections": str(path)}
    source = data_lib.SourceConfig("prepared", str(out), "val2017", options)
    found = data_lib.load(source)
    assert_same_table(expected, found)
    assert_same_table(expected.truth, found.truth)
    with pytest.raises(InputError, match="annotated"):
        store.prepare(expected, tmp_path, dataset="coco", split="val2017")


def test_no_tensorflow_and_no_connection(root, run_python, tmp_path):
    code = f"""
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("a connection")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from pose_jax.data import coco, readers, store
from pose_jax.data.plan import InputConfig, Plan
from pose_jax.types import PersonView
assert "tensorflow_datasets" not in sys.modules
table = coco.load({str(root)!r}, "val2017")
store.prepare(table, {str(tmp_path)!r}, dataset="coco", split="val2017")
table = store.load({str(tmp_path)!r}, "val2017")
config = InputConfig(4, reader="numpy")
plan = Plan(table, PersonView((48, 64)), config)
assert next(readers.batches(plan)).inputs.images.any()
assert "tensorflow" not in sys.modules
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


# Writing it.


def test_a_store_that_is_there_is_kept_or_refused(folder, tmp_path):
    path = store.prepare(folder, tmp_path, dataset="coco", split="val2017")
    times = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    assert store.prepare(folder, tmp_path, dataset="coco", split="val2017") == path
    assert {file: file.stat().st_mtime_ns for file in path.iterdir()} == times
    other = dataclasses.replace(folder, areas=folder.areas + 1)
    with pytest.raises(InputError, match=other.fingerprint()) as caught:
        store.prepare(other, tmp_path, dataset="coco", split="val2017")
    assert str(path) in str(caught.value)
    (path / "columns.npz").unlink()
    with pytest.raises(InputError, match="damaged"):
        store.prepare(folder, tmp_path, dataset="coco", split="val2017")


def files_under(folder):
    """But for TFDS's note of which configuration is the default."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if path.parent.name != ".config"]


def test_nothing_is_left_of_a_run_that_failed(tmp_path):
    table = coco.load(write_coco(tmp_path / "folder"), "val2017")
    image = table.images[4]
    data = image.read_bytes()
    image.unlink()
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"c\.png") as caught:
        store.prepare(table, out, dataset="coco", split="val2017")
    assert "\n" not in str(caught.value)
    assert not files_under(out)
    image.write_bytes(data)
    store.prepare(table, out, dataset="coco", split="val2017")
    assert_same_table(table, store.load(out, "val2017"))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(5, "Input/output error", "b.jpg"), r"b\.jpg: Input/output error"),
        (
            RuntimeError("write() failed: No space left on device; at byte 9"),
            r"val2017.1\.0\.0 cannot be written \(No space left on device\)",
        ),
    ],
)
def test_a_failure_half_way_leaves_no_store(error, says, folder, tmp_path, monkeypatch):
    def examples(*args):
        yield next(original(*args))
        raise error

    original = store._examples
    monkeypatch.setattr(store, "_examples", examples)
    with pytest.raises(InputError, match=says):
        store.prepare(folder, tmp_path, dataset="coco", split="val2017")
    assert not files_under(tmp_path)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (
            lambda jpeg: b"root:x:0:0:root:/root:/bin/bash\n",
            "files that are not images",
        ),
        (lambda jpeg: b"", "image files of 0 bytes"),
        (lambda jpeg: jpeg[: len(jpeg) // 2], "truncated or damaged"),
    ],
)
def test_what_is_no_image_is_not_packed(tmp_path, contents, said):
    table = coco.load(write_coco(tmp_path / "folder"), "val2017")
    image = table.images[6]
    target = image.rename(tmp_path / "elsewhere.jpg")
    image.symlink_to(target)  # The user's own: it is followed.
    store.prepare(table, tmp_path / "out", dataset="coco", split="val2017")
    target.write_bytes(contents(target.read_bytes()))
    with pytest.raises(InputError, match=rf"{image}: .*{said}") as caught:
        store.prepare(table, tmp_path / "other", dataset="coco", split="val2017")
    assert "\n" not in str(caught.value)
    assert not files_under(tmp_path / "other")


def test_what_cannot_be_packed_is_refused(folder, tmp_path):
    pixels = np.zeros((4, 5, 3), np.uint8)
    table = from_boxes([pixels], None, keypoints=keypoints.COCO)
    with pytest.raises(InputError, match="files"):
        store.prepare(table, tmp_path, dataset="coco", split="val")
    for names in (("co co", "val"), ("coco", "val/2017"), ("coco", ""), ("2d", "a")):
        with pytest.raises(ConfigError, match="names are letters"):
            store.prepare(folder, tmp_path, dataset=names[0], split=names[1])
    assert not list(tmp_path.iterdir())


# What goes wrong when reading.


def copy_of(out, tmp_path):
    shutil.copytree(out, tmp_path / "copy")
    return tmp_path / "copy" / "coco" / "val2017" / store.VERSION


def rewrite(name, old, new):
    def apply(path):
        text = (path / name).read_text()
        assert old in text
        (path / name).write_text(text.replace(old, new))

    return apply


def holds(name, contents):
    return lambda path: (path / name).write_bytes(contents)


def gone(name):
    return lambda path: sorted(path.glob(name))[-1].unlink()


def cut_a_shard(path):
    shard = sorted(path.glob("*.array_record*"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])


def change_a_column(path):
    with np.load(path / "columns.npz") as file:
        columns = dict(file)
    columns["areas"][3] += 1
    np.savez(path / "columns.npz", **columns)


DAMAGES = {
    "shard cut": (cut_a_shard, "bytes"),
    "shard gone": (gone("*.array_record*"), "-of-.* is missing"),
    "columns gone": (gone("columns.npz"), "columns.npz"),
    "columns cut": (holds("columns.npz", b"PK\3\4 and no more"), "damaged"),
    "columns changed": (change_a_column, "columns.npz"),
    "metadata gone": (gone("metadata.json"), "metadata.json"),
    "no json": (holds("metadata.json", b"{"), "JSONDecode"),
    "info is broken": (rewrite("dataset_info.json", "{", "["), "damaged"),
    "features gone": (gone("features.json"), "damaged"),
    "later version": (rewrite("metadata.json", store.VERSION, "2.0.0"), r"n 2\.0\.0"),
    "other table": (rewrite("metadata.json", '"labelled"', '"named"'), "named"),
    "other split": (rewrite("metadata.json", '"val2017"', '"val2014"'), "val2014"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_one_line_that_names_it(out, tmp_path, damage):
    path = copy_of(out, tmp_path)
    apply, words = DAMAGES[damage]
    apply(path)
    with pytest.raises(InputError, match=words) as caught:
        store.load(tmp_path / "copy", "val2017")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


IMAGE_CLASS = "tensorflow_datasets.core.features.image_feature.Image"
LEGACY_FEATURES = {
    "type": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
    "content": {"image": {"type": "own_module.Image", "content": "{}"}},
    "proto_cls": "own_module.Proto",
}


def other_form(path):
    rewrite("features.json", IMAGE_CLASS, "own_module.Image")(path)
    rewrite("features.json", "pythonClassName", "python_class_name")(path)


@pytest.mark.parametrize(
    "damage",
    [
        rewrite("features.json", IMAGE_CLASS, "own_module.Image"),
        other_form,
        holds("features.json", json.dumps(LEGACY_FEATURES).encode()),
    ],
)
def test_a_store_imports_nothing_from_where_it_is_read(
    out, tmp_path, damage, monkeypatch
):
    path = copy_of(out, tmp_path)
    damage(path)
    (tmp_path / "own_module.py").write_text("raise SystemExit('was imported')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    said = r"features\.json names 'own_module"
    with pytest.raises(InputError, match=said) as caught:
        store.load(tmp_path / "copy", "val2017")
    assert "\n" not in str(caught.value)
    (path / "columns.npz").unlink()  # Other data than those of `prepare`.
    with pytest.raises(InputError, match=said):
        tfds_lib.load(path, "train")


@pytest.mark.parametrize("reader", ["numpy", "tf"])
def test_bytes_that_changed_are_found_when_they_are_read(out, tmp_path, reader):
    if reader == "tf":
        pytest.importorskip("tensorflow")
    path = copy_of(out, tmp_path)
    for shard in path.glob("*.array_record*"):
        data = bytearray(shard.read_bytes())
        at = len(data) // 2
        data[at : at + 8] = bytes(255 - byte for byte in data[at : at + 8])
        shard.write_bytes(data)
    table = store.load(tmp_path / "copy", "val2017")
    read = getattr(readers, f"{reader}_batches")(Plan(table, PEOPLE, CONFIG))
    with pytest.raises(InputError, match="is damaged: record") as caught:
        list(read)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_store_of_a_split_is_found_or_not(folder, out, tmp_path):
    path = out / "coco" / "val2017" / store.VERSION
    for root in (out, out / "coco", path):
        assert len(store.load(root, "val2017")) == len(folder)
    with pytest.raises(InputError, match="'val2017'"):
        store.load(out, "val2018")
    with pytest.raises(InputError, match="none at all"):
        store.load(tmp_path, "val2017")
    with pytest.raises(InputError, match="'val2017', not 'train2017'"):
        store.load(path, "train2017")
    for name in ("one", "two"):
        store.prepare(folder, tmp_path, dataset=name, split="val2017")
    with pytest.raises(InputError, match="2 times"):
        store.load(tmp_path, "val2017")
    assert len(store.load(tmp_path / "one", "val2017")) == len(folder)


@pytest.mark.parametrize("name", ["tensorflow_datasets", "array_record"])
def test_what_is_not_installed_is_said(out, monkeypatch, name):
    find = store.importlib.util.find_spec
    monkeypatch.setattr(
        store.importlib.util, "find_spec", lambda n: None if n == name else find(n)
    )
    with pytest.raises(ConfigError, match=f"{name}, which is not installed"):
        store.load(out, "val2017")


# The verb.


def run_verb(capsys, *words):
    code = cli.main(["data", "prepare", *map(str, words)])
    return code, *capsys.readouterr()


def test_the_verb_packs_what_is_named(root, folder, tmp_path, capsys):
    words = f"--format coco --root {root} --split val2017 --out {tmp_path}".split()
    code, said, _ = run_verb(capsys, *words)
    assert code == 0
    path = tmp_path / "coco" / "val2017" / store.VERSION
    for fact in ("8 images", "21 people", "1 shards", folder.fingerprint(), str(path)):
        assert fact in said
    section = said.split("in a config: ")[1]
    source = data_lib.SourceConfig(**eval(section))
    assert_same_table(folder, data_lib.load(source))
    code, said, _ = run_verb(capsys, *words)
    assert code == 0 and "it was there" in said
    words[1:4] = "prepared", "--root", tmp_path
    code, said, error = run_verb(capsys, *words)
    assert code == 2 and "a store already" in error


def test_the_verb_packs_the_data_of_a_config_once_each(root, tmp_path, capsys):
    write_coco(root, "train2017", seed=1)
    config = Path(__file__).parents[2] / "configs" / "coco_subset.py"
    words = [f"--config.data.{use}.root={root}" for use in ("train", "eval")]
    words += ["--config", config, "--name", "synthetic", "--out", tmp_path]
    code, said, error = run_verb(capsys, *words)
    assert code == 0, error
    assert said.count("fingerprint") == 1  # Trained and evaluated on the same people.
    code, said, _ = run_verb(capsys, *words, "--config.data.eval.split=val2017")
    assert code == 0 and said.count("fingerprint") == 2
    for split in ("train2017", "val2017"):
        expected = coco.load(root, split)
        assert_same_table(expected, store.load(tmp_path / "synthetic", split))


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("", "--config, or --format"),
        ("--format coco", "--config, or --format"),
        ("--format coco --root r --split s --config c.py", "--config, or --format"),
        ("--format cocoa --root r --split s", "'coco'"),
        ("--format coco --root nowhere --split s", "nowhere"),
    ],
)
def test_mistakes_of_the_verb_are_one_line(words, meant, tmp_path, capsys):
    code, said, error = run_verb(capsys, *words.split(), "--out", tmp_path)
    assert code in (1, 2) and said == ""
    assert error.count("\n") == 1 and meant in error


# TFDS data of other makers.


def foreign(
    out, name, *, objects, rows, sequence=True, file_format="array_record", **other
):
    """Writes a TFDS data set: `rows` are (jpeg, image id, objects)."""
    objects = tfds.features.Sequence(objects) if sequence else objects

    class Foreign(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.1.0")
        url_infos = None

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "image/id": np.int64,
                "objects": objects,
                **other,
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for jpeg, image_id, people in rows:
                example = {"image": jpeg, "image/id": image_id, "objects": people}
                yield image_id, example

    Foreign.name = name
    builder = Foreign(data_dir=out)
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(download_config=config, file_format=file_format)
    return builder


def some_rows(root, shape=(17, 3), **fields):
    """Two images of 90x61 with two people and none; what is expected of them."""
    rng = np.random.default_rng(5)
    points = rng.uniform(0, 60, (2, 17, 3)).astype(np.float32)
    points[..., 2] = rng.integers(0, 3, (2, 17))
    people = [
        {
            "bbox": tfds.features.BBox(ymin=0.25, xmin=0.5, ymax=0.75, xmax=1.0),
            "keypoints": points[i].reshape(shape),
            **{name: values[i] for name, values in fields.items()},
        }
        for i in range(2)
    ]
    jpeg = root / "val2017" / "a.jpg"
    return [(jpeg, 77, people), (jpeg, 12, [])], points


@pytest.mark.parametrize("shape", [(17, 3), (51,)])
def test_other_tfds_data_are_read(root, tmp_path, shape):
    objects = {
        "bbox": tfds.features.BBoxFeature(),
        "keypoints": tfds.features.Tensor(shape=shape, dtype=np.float32),
    }
    rows, points = some_rows(root, shape)
    builder = foreign(tmp_path, "bare", objects=objects, rows=rows)
    for given in (builder, builder.data_dir, Path(builder.data_dir)):
        table = tfds_lib.load(given, "train")
        order = table.image_ids.tolist()
        assert sorted(order) == [12, 77]
        assert table.image_sizes.tolist() == [[90, 61]] * 2
        assert table.image.tolist() == [order.index(77)] * 2
        assert table.ids.tolist() == [1, 2]
        assert table.boxes_xyxy.tolist() == [[45, 15.25, 90, 45.75]] * 2
        assert table.areas.tolist() == [45 * 30.5] * 2
        np.testing.assert_array_equal(table.points_xy, points[..., :2])
        np.testing.assert_array_equal(table.visibility, points[..., 2])
        assert table.visibility.dtype == np.int32 and not table.crowd.any()
        assert (table.name, table.box_source) == ("bare train", "gt_boxes")
        jpeg = (root / "val2017" / "a.jpg").read_bytes()
        assert [image.read() for image in table.images] == [jpeg] * 2
    config = dataclasses.replace(CONFIG, reader="numpy")
    (batch,) = readers.batches(Plan(table, PEOPLE, config))
    assert batch.inputs.valid.tolist() == [True, True, False, False]
    assert len(tfds_lib.load(builder, "train[:1]").images) == 1
    # As a config names it.
    source = data_lib.SourceConfig("tfds", str(builder.data_dir), "train")
    assert data_lib.load(source).fingerprint() == table.fingerprint()
    for name, meant in (("lsp", "14 keypoints"), ("cocoa", "no keypoint set 'cocoa'")):
        wrong = dataclasses.replace(source, options={"keypoints": name})
        with pytest.raises((ConfigError, InputError), match=meant):
            data_lib.load(wrong)


def test_all_that_tfds_says_of_a_person_is_read(root, tmp_path):
    objects = {
        "bbox": tfds.features.BBoxFeature(),
        "keypoints": tfds.features.Tensor(shape=(17, 3), dtype=np.float32),
        "id": np.int64, "area": np.int64, "is_crowd": np.bool_,
        "label": tfds.features.ClassLabel(names=["dog", "person"]),
    }  # fmt: skip
    fields = {"id": [2**40, 6], "area": [3, 7], "is_crowd": [True, False]}
    rows, points = some_rows(root, **fields, label=["person", "dog"])
    builder = foreign(tmp_path, "full", objects=objects, rows=rows)
    table = tfds_lib.load(builder, "train", keypoints=keypoints.COCO)
    assert len(table) == 1
    assert table.ids.tolist() == [2**40] and table.areas.tolist() == [3]
    assert table.crowd.tolist() == [True]
    np.testing.assert_array_equal(table.points_xy, points[:1, :, :2])


def test_text_ids_and_nan_beside_no_label_are_read_from_tfds(root, tmp_path):
    objects = {
        "bbox": tfds.features.BBoxFeature(),
        "keypoints": tfds.features.Tensor(shape=(17, 3), dtype=np.float32),
    }
    rows, _ = some_rows(root)
    rows[0][2][0]["keypoints"][3] = (np.nan, np.inf, 0)
    rows = [(jpeg, f"im{own}", people) for jpeg, own, people in rows]
    texts = {"image/id": tfds.features.Text()}
    builder = foreign(tmp_path, "texts", objects=objects, rows=rows, **texts)
    table = tfds_lib.load(builder, "train")
    assert table.image_ids.tolist() == [1, 2]
    assert table.points_xy[0, 3].tolist() == [0, 0] and not table.visibility[0, 3]
    no_area, text_ids = table.notes
    assert no_area.startswith("2 people have no area") and "are text" in text_ids


def test_other_tfds_data_that_do_not_fit_are_refused(root, tmp_path):
    box, points = tfds.features.BBoxFeature(), (17, 3)

    def tensor(shape):
        return tfds.features.Tensor(shape=shape, dtype=np.float32)

    def refused(words, objects, rows, *, sequence=True, split="train", **options):
        name = f"data{len(list(tmp_path.iterdir()))}"
        options |= {"objects": objects, "rows": rows, "sequence": sequence}
        builder = foreign(tmp_path, name, **options)
        with pytest.raises(InputError, match=words) as caught:
            tfds_lib.load(builder, split)
        assert name in str(caught.value) and "\n" not in str(caught.value)

    usual = {"bbox": box, "keypoints": tensor(points)}
    rows, _ = some_rows(root)
    empty = [(rows[0][0], 1, [])]
    refused("bbox and keypoints", {"bbox": box}, empty)
    refused("a Sequence", usual, [(rows[0][0], 1, rows[0][2][0])], sequence=False)
    refused(r"\(3, 3\); 17 keypoints", usual | {"keypoints": tensor((3, 3))}, empty)
    refused("relative to the image", usual | {"bbox": tensor((4,))}, empty)
    xywh = tfds.features.BBoxFeature(bbox_format="XYWH")
    refused("relative to the image", usual | {"bbox": xywh}, empty)
    refused("image/id must", usual, empty, **{"image/id": np.int32})
    nan = some_rows(root)[0]
    nan[0][2][1]["keypoints"][3] = (np.nan, 1, 2)
    refused("labeled keypoints finite", usual, nan)
    refused("split 'test' cannot", usual, rows, split="test")
    wrong = some_rows(root)[0]
    wrong[0][2][1]["keypoints"][3, 2] = 5
    refused("visibility must be", usual, wrong)
    pytest.importorskip("tensorflow")
    refused("convert_format", usual, rows, file_format="tfrecord")
    with pytest.raises(InputError, match="no TFDS data"):
        tfds_lib.load(tmp_path, "train")


def test_a_store_has_its_own_keypoints(out):
    path = out / "coco" / "val2017" / store.VERSION
    assert tfds_lib.load(path, "val2017", keypoints=keypoints.COCO).keypoints
    with pytest.raises(InputError, match="of set 'coco', not the 14 of 'lsp'"):
        tfds_lib.load(path, "val2017", keypoints=keypoints.LSP)


# Real data.


def test_real_data_come_back(real_data, tmp_path):
    tables = {
        ("coco", "val2017"): coco.load(real_data / "coco", "val2017"),
        ("lsp_extended", "1-50"): lsp.load_extended(
            real_data / "lspet_dataset", "1-50"
        ),
    }
    for (dataset, split), table in tables.items():
        store.prepare(table, tmp_path, dataset=dataset, split=split)
        assert_same_table(table, store.load(tmp_path, split))
