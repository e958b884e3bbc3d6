"""Several tables as one: nothing lost, ids that say whose row it is, refusals."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from pose_jax import cli, config, data, keypoints
from pose_jax.data import joined
from pose_jax.data.canvas import decode
from pose_jax.data.plan import InputConfig, Plan
from pose_jax.data.readers import batches
from pose_jax.data.table import Table
from pose_jax.errors import ConfigError, InputError
from pose_jax.evaluation import poses as measure
from pose_jax.training import config as training_config
from pose_jax.types import PersonView
from tests.data import writers
from tests.made_up import detections, make_poses, make_table

OF_IMAGES = ("image_ids", "image_sizes")
SHIFTED = {"image_ids", "ids", "image"}


def tables():
    """Three that differ in length and in every column, and share ids."""
    rng = np.random.default_rng(0)
    found = []
    for i, n in enumerate((6, 3, 5)):
        table = make_table(n, seed=i, name="abc"[i])
        sizes = rng.integers(400, 500, table.image_sizes.shape).astype(np.int32)
        found.append(
            dataclasses.replace(
                table,
                image_sizes=sizes,
                box_scores=rng.random(n),
                visibility=rng.integers(0, 3, (n, 17)).astype(np.int32),
                areas=rng.uniform(100, 200, n),
                crowd=rng.random(n) < 0.4,
                head_sizes=rng.uniform(10, 20, n),
            )
        )
    return found


# -------------------------------------------------------------------------- what is in it


def test_rows_and_images_follow_one_another_in_every_column():
    parts = tables()
    whole = joined.join(parts)
    columns = [
        f.name
        for f in dataclasses.fields(Table)
        if isinstance(getattr(parts[0], f.name), np.ndarray)
    ]
    assert len(columns) == 11 and len(whole) == 14 and len(whole.images) == 8
    for name in columns:
        found, own = getattr(whole, name), [getattr(part, name) for part in parts]
        assert found.dtype == own[0].dtype, name
        if name not in SHIFTED:
            np.testing.assert_array_equal(found, np.concatenate(own), name)
    row = 0
    for part in parts:
        for i in range(len(part)):
            image = part.images[part.image[i]]
            assert whole.images[whole.image[row]] is image
            size = whole.image_sizes[whole.image[row]]
            assert size.tolist() == part.image_sizes[part.image[i]].tolist()
            row += 1
    assert whole.keypoints is keypoints.COCO and whole.box_source == "gt_boxes"
    assert whole.labelled and whole.truth is None


def test_an_id_is_that_of_the_source_and_which_source_it_was():
    a, b, c = tables()  # Image ids 10 to 12, annotation ids 1 to 6.
    whole = joined.join([a, b, c])
    assert whole.name == "a + b (ids + 100) + c (ids + 200)"
    assert whole.image_ids.tolist() == [10, 11, 12, 110, 111, 210, 211, 212]
    assert whole.ids.tolist() == [1, 2, 3, 4, 5, 6, 101, 102, 103, *range(201, 206)]
    large = dataclasses.replace(b, ids=np.array([0, 900_100_581_904, 7]))
    whole = joined.join([a, large])
    assert whole.name == "a + b (ids + 1000000000000)"
    assert whole.ids[6:].tolist() == [10**12, 1_900_100_581_904, 10**12 + 7]


def test_ids_that_leave_no_room_are_refused():
    a, b, _ = tables()
    for bad in (-1, 2**63 - 1, 10**18):
        ids = b.ids.copy()
        ids[1] = bad
        with pytest.raises(InputError, match=r"^b: ids from .* Renumber them") as e:
            joined.join([a, dataclasses.replace(b, ids=ids)])
        assert "\n" not in str(e.value) and str(bad) in str(e.value)
        alone = joined.join([dataclasses.replace(b, ids=ids)])
        assert alone.ids.tolist() == ids.tolist() and alone.name == "b"
    long = dataclasses.replace(b, ids=b.ids + 10**17)
    assert joined.join([long] * 9).ids.max() == 8 * 10**18 + long.ids.max()
    with pytest.raises(InputError, match="those of 10 data sets"):
        joined.join([long] * 10)
    boxes = detections(make_table(2), [0], [0.5])  # Ids that the truth alone has.
    truth = dataclasses.replace(boxes.truth, ids=np.array([1, 10**18]))
    with pytest.raises(InputError, match="Renumber them"):
        joined.join([boxes, dataclasses.replace(boxes, truth=truth)])


def test_images_without_people_keep_their_place():
    a, b, _ = tables()
    empty = {
        name: getattr(a, name)[:0]
        for name in (
            "image", "ids", "boxes_xyxy", "box_scores", "points_xy", "visibility",
            "areas", "crowd", "head_sizes",
        )
    }  # fmt: skip
    bare = dataclasses.replace(a, image_ids=a.image_ids + 1000, **empty)
    whole = joined.join([bare, b])
    assert len(whole) == len(b) and len(whole.images) == 5
    assert whole.image_ids.tolist() == [1010, 1011, 1012, 10010, 10011]
    assert whole.people_of_image(0).tolist() == []
    assert whole.people_of_image(3).tolist() == b.people_of_image(0).tolist()


def test_head_sizes_that_one_has_are_zero_in_the_others():
    a, b, c = tables()
    whole = joined.join([a, dataclasses.replace(b, head_sizes=None), c])
    expected = [*a.head_sizes, 0, 0, 0, *c.head_sizes]
    assert whole.head_sizes.tolist() == expected
    none = [dataclasses.replace(t, head_sizes=None) for t in (a, b)]
    assert joined.join(none).head_sizes is None


def test_the_fingerprint_is_of_all_sources():
    a, b, c = tables()
    found = [joined.join(parts).fingerprint() for parts in ([a, b], [b, a], [a, c])]
    assert len(set(found)) == 3
    changed = dataclasses.replace(b, boxes_xyxy=b.boxes_xyxy + 1)
    assert joined.join([a, changed]).fingerprint() not in found


# ------------------------------------------------------------------------------- metrics


@pytest.mark.slow
def test_metrics_are_of_all_people_though_the_sources_share_ids():
    parts = [make_table(6, seed=0, name="a"), make_table(4, seed=1, name="b")]
    whole = joined.join(parts)
    assert measure.measure(whole, make_poses(whole))["AP@gt_boxes"] == pytest.approx(1)
    moved = np.repeat([4.0, 30.0], (6, 4))[:, None, None]  # b's are further away.
    metrics = measure.measure(whole, make_poses(whole, moved))
    alone = [
        measure.measure(part, make_poses(part, by))
        for part, by in zip(parts, (4.0, 30.0), strict=True)
    ]
    for name in ("pixel_error@gt_boxes", "PCK@0.2@gt_boxes"):
        mean = np.average([found[name] for found in alone], weights=(6, 4))
        assert metrics[name] == pytest.approx(mean), name
    assert alone[0]["AP@gt_boxes"] > metrics["AP@gt_boxes"] > alone[1]["AP@gt_boxes"]


def test_heads_are_counted_where_there_are_any():
    with_heads = make_table(4, keypoints.MPII, head_sizes=np.full(4, 50.0))
    whole = joined.join([make_table(2, keypoints.MPII, seed=1), with_heads])
    metrics = measure.measure(whole, make_poses(whole))
    assert metrics["PCKh@0.5@gt_boxes"] == 1
    assert metrics["PCKh_people_without_head_box@gt_boxes"] == 2


def test_boxes_of_a_detector_keep_the_truth_they_are_measured_against():
    truths = [make_table(4, seed=0, name="a"), make_table(6, seed=1, name="b")]
    found = [
        detections(truths[0], [2, 0, 1, 3], [0.9, 0.8, 0.7, 0.6]),
        detections(truths[1], [0, 1, 2, 3], [0.9, 0.8, 0.7, 0.6]),
    ]
    whole = joined.join(found)
    assert whole.box_source == "detections" and not whole.labelled
    assert not whole.ids.any()
    assert whole.truth.fingerprint() == joined.join(truths).fingerprint()
    assert set(whole.image_ids) <= set(whole.truth.image_ids)
    metrics = measure.measure(whole, make_poses(whole))
    assert metrics["AR@detections"] == pytest.approx(0.8)  # 8 of 10 people.


# ------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"keypoint_set": keypoints.MPII}, r"'coco' \(17\) and 'mpii' \(16\).*remap"),
        ({"box_source": "image"}, "'gt_boxes' and 'image', which metrics tell apart"),
        ({"labelled": False}, "b has no labels"),
        ({"centric": "OC"}, "left and right are '' and 'OC'.*`centric`"),
        ({"exif": "apply"}, "their exif is 'auto' and 'apply'"),
    ],
)
def test_what_cannot_be_one_table_is_refused_in_one_line(changes, said):
    a, b = make_table(name="a"), make_table(name="b", **changes)
    for parts in ([a, b], [a, a, b]):
        with pytest.raises(ConfigError, match=f"^a and b cannot be .*{said}") as error:
            joined.join(parts)
        assert "\n" not in str(error.value)


def test_the_persons_sides_go_with_sets_that_have_no_others():
    one, pc, oc = (make_table(centric=c) for c in ("", "PC", "OC"))
    assert joined.join([one, pc]).centric == joined.join([pc, one]).centric == "PC"
    assert joined.join([one, one]).centric == ""
    assert joined.join([oc, oc]).centric == "OC"
    with pytest.raises(ConfigError, match="'PC' and 'OC'"):
        joined.join([pc, oc])


def test_detections_do_not_go_with_boxes_that_have_no_truth():
    boxes = detections(make_table(), [0], [0.5])
    bare = dataclasses.replace(boxes, truth=None, name="bare")
    for parts in ([boxes, bare], [bare, boxes]):
        with pytest.raises(ConfigError, match="bare has no labels"):
            joined.join(parts)
    with pytest.raises(ValueError, match="must be a table"):
        joined.join([])


# --------------------------------------------------------------------------- from configs


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    writers.lsp(root / "LSP", writers.lsp_people(count=5))
    extended = writers.lsp_people(True, count=5)
    writers.lsp(root / "LSPET", extended, extended=True)
    return root


def section(root, split="1-3", **changes):
    sources = {"lsp_extended": {"root": "LSPET"}, "lsp": {"root": "LSP"}}
    sources = changes.pop("sources", sources)
    options = {"sources": sources}
    return {"name": "joined", "root": str(root), "split": split, "options": options}


def load(section):
    source = config.build(data.SourceConfig, section, "config.data.train")
    return data.load(source)


def parts_of(root, split):
    folders = {"lsp": "LSP", "lsp_extended": "LSPET"}
    return [
        data.load(data.SourceConfig(name, str(root / folder), split))
        for name, folder in folders.items()
    ]


def test_sources_are_read_in_the_order_of_their_names(root):
    whole, parts = load(section(root)), parts_of(root, "1-3")
    assert whole.fingerprint() == joined.join(parts).fingerprint()
    assert whole.images == parts[0].images + parts[1].images
    assert whole.name == "lsp 1-3 + lsp_extended 1-3 (ids + 10)"
    assert whole.centric == "PC" and whole.box_source == "joint_boxes"


def test_a_source_has_its_own_split_root_options_and_name(root):
    image = {"boxes": "image"}
    first = {"name": "lsp", "root": "LSP", "options": image}
    second = first | {"root": str(root / "LSP"), "split": "4-5"}
    sources = {"first": first, "second": second}
    whole = load(section(root, sources=sources))
    assert whole.image_ids.tolist() == [1, 2, 3, 14, 15]
    assert whole.box_source == "image"
    assert [i.name for i in whole.images[-2:]] == ["im0004.jpg", "im0005.jpg"]


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ({"lps": {"root": "LSP"}}, r"sources\.lps: no data set 'lps'.*mean 'lsp'"),
        ({"lsp": {"rooot": "LSP"}}, r"sources\.lsp\.rooot: no such key.*mean 'root'"),
        ({"lsp": {"root": 3}}, r"sources\.lsp\.root must be a str; got 3"),
        ({"lsp": "LSP"}, r"sources\.lsp must be a section \(a mapping\); got 'LSP'"),
        ({"joined": {"root": "LSP"}}, r"sources\.joined: joined itself"),
        ({}, "sources must be sections by name"),
        (({"name": "lsp"},), "sources must be sections by name"),
    ],
)
def test_a_wrong_source_is_one_line(root, sources, said):
    with pytest.raises(ConfigError, match=rf"^config\.data: {said}") as error:
        load(section(root, sources=sources))
    assert "\n" not in str(error.value)


def test_sources_that_do_not_fit_are_named(root):
    sources = {
        "lsp": {"root": "LSP", "options": {"boxes": "image"}},
        "lsp_extended": {"root": "LSPET"},
    }
    with pytest.raises(ConfigError, match="lsp 1-3 and lsp_extended 1-3 cannot be one"):
        load(section(root, sources=sources))
    with pytest.raises(InputError, match=r"nowhere.*does not exist"):
        load(section(root, sources={"lsp": {"root": "nowhere"}}))


def test_a_split_that_no_source_takes_is_refused(root):
    """`eval --split` must not be passed over in silence."""
    sources = {"lsp": {"root": "LSP", "split": "1-2"}}
    assert len(load(section(root, split="", sources=sources))) == 2
    with pytest.raises(ConfigError, match=r"no source uses split '4-5'.*lsp '1-2'"):
        load(section(root, split="4-5", sources=sources))
    both = {**sources, "lsp_extended": {"root": "LSPET"}}
    assert load(section(root, split="4-5", sources=both)).ids.tolist() == [1, 2, 14, 15]


CONFIG = """
from ml_collections import ConfigDict

def get_config():
    joined = {
        "name": "joined", "root": "ROOT", "split": "1-3",
        "options": {"sources": {"lsp_extended": {"root": "LSPET"}, "lsp": {"root": "LSP"}}},
    }
    return ConfigDict({
        "method": {
            "name": "dark", "model": {"name": "pocket", "options": {"width": 8}},
            "input_size": (32, 32), "sigma": 1.0,
        },
        "data": {"train": joined, "eval": {**joined, "split": "4-5"}},
        "input": {"batch_size": 2, "canvas_size": (64, 64), "reader": "numpy"},
        "optimizer": {"name": "adam", "lr": 1e-3}, "train": {"steps": 1}, "seed": 0,
    })
"""


@pytest.fixture
def file(root, tmp_path):
    path = tmp_path / "both.py"
    path.write_text(CONFIG.replace("ROOT", str(root)))
    return path


def test_every_value_of_a_source_can_be_overridden(file, root):
    sources = "--config.data.train.options.sources"
    overrides = [
        f"{sources}.lsp.root={root / 'LSP'}",
        f"{sources}.lsp.split=2-2",
        "--config.data.train.root=nowhere",
        f"{sources}.lsp_extended.root={root / 'LSPET'}",
    ]
    setup = training_config.setup(config.load(file, overrides))
    assert setup.train_table.name == "lsp 2-2 + lsp_extended 1-3 (ids + 10)"
    assert setup.eval_table.name == "lsp 4-5 + lsp_extended 4-5 (ids + 10)"
    again = config.from_json(config.to_json(config.load(file, overrides)))
    assert training_config.setup(again).train_table.name == setup.train_table.name
    with pytest.raises(ConfigError, match="mean 'split'"):
        training_config.setup(config.load(file, [f"{sources}.lsp.splt=1-2"]))
    with pytest.raises(ConfigError, match="boxes must be one of"):
        training_config.setup(config.load(file, [f"{sources}.lsp.options.boxes=imag"]))


@pytest.mark.parametrize("reader", ["numpy", "tf"])
def test_each_row_sees_its_own_image(root, reader):
    if reader == "tf":
        pytest.importorskip("tensorflow")
    whole = load(section(root, split="all"))
    config = InputConfig(5, (230, 190), reader=reader, workers=1)
    read = batches(Plan(whole, PersonView(size=(32, 32)), config))
    for part, batch in zip(parts_of(root, "all"), read, strict=True):
        points = part.points_xy.astype(np.float32)
        np.testing.assert_array_equal(batch.labels.points_xy, points)
        for own, canvas in enumerate(batch.inputs.images):
            pixels = decode(part, own)
            h, w = pixels.shape[:2]
            np.testing.assert_array_equal(canvas[:h, :w], pixels)


def test_the_command_line_looks_at_joined_data(file, tmp_path, capsys):
    assert cli.main(["data", "check", "--config", str(file)]) == 0
    text = capsys.readouterr().out
    assert "joined 1-3" in text and "6 images" in text and "4 people" in text
    (tmp_path / "out").mkdir()
    show = ["data", "show", "--config", str(file), "--rows", "4"]
    assert cli.main([*show, "--out", str(tmp_path / "out/inputs.png")]) == 0
    assert Image.open(tmp_path / "out/inputs.png").size[0] > 100


# ---------------------------------------------------------------------------- real files


def test_the_real_sets_join(real_data):
    options = {"missing": "skip", "boxes": "image"}
    sources = {
        name: {"root": root, "split": split, "options": options}
        for name, root, split in (
            ("lsp", "lsp_dataset", "test"),
            ("lsp_extended", "lspet_dataset", "1-20"),
        )
    }
    whole = load(section(real_data, "", sources=sources))
    assert len(whole) == 26 and len(whole.labelled_rows()) == 26
    assert whole.name == "lsp test + lsp_extended 1-20 (ids + 10000)"
    assert whole.image_ids[[0, 6, -1]].tolist() == [1010, 10001, 10020]
    assert decode(whole, 6).shape[:2] == tuple(whole.image_sizes[6][::-1])
