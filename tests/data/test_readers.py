"""Batches: which rows, which pixels; readers, threads and stops change nothing."""

import dataclasses
import gc
import importlib.util
import itertools
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from pose_jax import geometry, keypoints
from pose_jax.data import canvas as canvas_lib
from pose_jax.data import coco, readers
from pose_jax.data.plan import InputConfig, Plan
from pose_jax.data.table import Table, from_boxes
from pose_jax.errors import ConfigError, InputError
from pose_jax.types import ImageView, PersonView

K = 3
SET = keypoints.KeypointSet("three", ("a", "b", "c"), ((0, 1),), ((0, 1),))
READERS = ["numpy", "tf"]


def batches(plan, reader, *steps):
    if reader == "tf" and importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed: the tf reader cannot be tested")
    read = getattr(readers, f"{reader}_batches")
    return list(read(plan, *steps))


def assert_same(a, b):
    """Equal to the bit, dtypes and all."""
    left, right = jax.tree.leaves(a), jax.tree.leaves(b)
    assert len(left) == len(right)
    for x, y in zip(left, right, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def picture(rng, width, height):
    """Smooth shapes with some noise: chroma upsampling and DCT have work to do."""
    small = rng.integers(0, 256, (height // 7 + 2, width // 7 + 2, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def write_images(folder, rng):
    """Every kind of file, by size from smaller than a canvas to many times as large."""
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees": must be ignored.
    deep = rng.integers(0, 65536, (37, 52), dtype=np.uint16)
    kinds = {
        "small.jpg": (picture(rng, 41, 30), {}),
        "full.jpg": (picture(rng, 96, 64), {"subsampling": "4:4:4"}),
        "wide.jpg": (picture(rng, 301, 157), {"progressive": True}),
        "huge.jpg": (picture(rng, 641, 803), {"subsampling": "4:2:0", "quality": 60}),
        "h2v1.jpg": (picture(rng, 202, 211), {"subsampling": "4:2:2"}),
        "gray.jpg": (picture(rng, 151, 88).convert("L"), {}),
        "cmyk.jpg": (picture(rng, 133, 120).convert("CMYK"), {}),
        "turned.jpg": (picture(rng, 120, 61), {"exif": exif}),
        "rgb.png": (picture(rng, 333, 99), {}),
        "alpha.png": (picture(rng, 77, 80).convert("RGBA"), {}),
        "palette.png": (picture(rng, 78, 81).convert("P"), {}),
        "deep.png": (Image.fromarray(deep), {}),
        "plain.bmp": (picture(rng, 222, 190), {}),
    }
    for name, (image, options) in kinds.items():
        image.save(folder / name, **options)
    return [folder / name for name in kinds]


def make_table(images, sizes, rng, people=None):
    """Boxes of all sizes, some over the border, some crowds; 1 to 5 of each image."""
    m = len(images)
    people = 1 + np.arange(m) % 5 if people is None else people
    image = rng.permutation(np.repeat(np.arange(m, dtype=np.int32), people))
    n = len(image)
    wh = sizes[image]
    centre = rng.uniform(-0.1, 1.1, (n, 2)) * wh
    half = rng.uniform(0.02, 0.6, (n, 2)) * wh
    visibility = rng.integers(0, 3, (n, K)).astype(np.int32)
    visibility[:, 0] = np.maximum(visibility[:, 0], 1)
    return Table(
        name="test",
        keypoints=SET,
        images=tuple(images),
        image_ids=np.arange(m) + 900100000000,
        image_sizes=sizes.astype(np.int32),
        image=image,
        ids=np.arange(n) + 900200000000,
        boxes_xyxy=np.concatenate([centre - half, centre + half], -1),
        box_scores=np.ones(n),
        points_xy=rng.uniform(0, 1, (n, K, 2)) * wh[:, None],
        visibility=visibility,
        areas=4 * half.prod(-1),
        crowd=rng.uniform(size=n) < 0.15,
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rng = np.random.default_rng(0)
    files = write_images(tmp_path_factory.mktemp("images"), rng)
    sizes = np.array([Image.open(file).size for file in files])
    return make_table(files, sizes, rng)


def random_table(seed, n=400):
    """Boxes and sizes only; the pixels are never read."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 2000, (n, 2))
    return make_table([Path("none")] * n, sizes, rng, people=1)


CONFIG = InputConfig(batch_size=8, canvas_size=(96, 64), workers=3)
VIEW = PersonView(size=(24, 32), max_others=2)
IMAGES = ImageView(
    size=(48, 64), buckets=((96, 64), (64, 96), (160, 160)), max_people=3
)


# Which rows.


@pytest.mark.parametrize("batch_size", [1, 7, 8, 52, 400])
@pytest.mark.parametrize("view", [VIEW, IMAGES], ids=["people", "images"])
def test_evaluation_reads_every_row_once(table, view, batch_size):
    plan = Plan(table, view, dataclasses.replace(CONFIG, batch_size=batch_size))
    seen = []
    for step in range(plan.steps_per_epoch):
        epoch, rows, valid = plan.batch_rows(step)
        assert epoch == 0 and rows.shape == valid.shape == (batch_size,)
        assert rows.dtype == np.int32 and valid.dtype == bool and valid.any()
        assert (rows[~valid] == rows[0]).all()
        assert len(np.unique(plan.windows[rows, 3:], axis=0)) == 1
        seen += rows[valid].tolist()
    assert sorted(seen) == plan.rows.tolist()
    assert plan.batch_rows(plan.steps_per_epoch)[0] == 1
    if view is VIEW:
        assert seen == plan.rows.tolist()
        assert plan.rows.tolist() == table.labelled_rows().tolist()
    else:
        assert plan.rows.tolist() == list(range(len(table.images)))


@pytest.mark.parametrize("view", [VIEW, IMAGES], ids=["people", "images"])
def test_order_is_a_pure_function_of_seed_and_epoch(table, view):
    def plan(seed, batch_size=4):
        config = dataclasses.replace(CONFIG, batch_size=batch_size)
        return Plan(table, view, config, training=True, seed=seed)

    a, b, other = plan(1), plan(1, batch_size=2), plan(2)
    orders = [a.order(epoch).tolist() for epoch in range(4)]
    a.batch_rows(100)  # Asking for something else changes nothing.
    assert [b.order(epoch).tolist() for epoch in (3, 2, 1, 0)] == orders[::-1]
    assert all(sorted(order) == sorted(a.rows.tolist()) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert other.order(0).tolist() != orders[0]
    # A batch visits rows of its epoch, each at most once, in any order of asking.
    steps = range(3 * a.steps_per_epoch)
    forward = [a.batch_rows(step) for step in steps]
    backward = [plan(1).batch_rows(step) for step in reversed(steps)][::-1]
    assert_same([f[1:] for f in forward], [f[1:] for f in backward])
    for epoch, of_epoch in itertools.groupby(forward, key=lambda f: f[0]):
        visited = [row for _, rows, valid in of_epoch for row in rows[valid].tolist()]
        assert len(set(visited)) == len(visited)
        assert set(visited) <= set(orders[epoch])
        if view is VIEW:
            assert visited == orders[epoch][: len(visited)]
            assert len(visited) == len(orders[epoch]) // 4 * 4


def test_the_order_of_a_seed_never_changes():
    rows = np.arange(10, dtype=np.int32)
    plan = Plan(random_table(0), VIEW, CONFIG, rows=rows, training=True, seed=3)
    assert plan.order(5).tolist() == [6, 4, 3, 2, 0, 8, 7, 5, 9, 1]


def test_training_on_fewer_rows_than_a_batch_pads_one(table):
    plan = Plan(table, VIEW, CONFIG, rows=table.labelled_rows()[:3], training=True)
    assert plan.steps_per_epoch == 1
    for step in range(3):
        epoch, rows, valid = plan.batch_rows(step)
        assert epoch == step and valid.tolist() == [True] * 3 + [False] * 5
        assert sorted(rows[:3]) == plan.rows.tolist()
        assert (rows[3:] == rows[0]).all()
    (batch,) = batches(plan, "numpy", 0, 1)
    assert not batch.inputs.images[3:].any()
    assert not batch.labels.visibility[3:].any()
    assert not batch.labels.others_visibility[3:].any()
    assert batch.labels.visibility[:3].any(-1).all()


@pytest.mark.parametrize("training", [False, True])
def test_processes_share_every_batch(table, training):
    whole = Plan(table, VIEW, CONFIG, training=training, seed=5)
    parts = [
        Plan(
            table,
            VIEW,
            CONFIG,
            training=training,
            seed=5,
            process_index=i,
            process_count=4,
        )
        for i in range(4)
    ]
    assert {part.steps_per_epoch for part in parts} == {whole.steps_per_epoch}
    for step in range(whole.steps_per_epoch + 2):
        epoch, rows, valid = whole.batch_rows(step)
        split = [part.batch_rows(step) for part in parts]
        assert {s[0] for s in split} == {epoch}
        assert np.concatenate([s[1] for s in split]).tolist() == rows.tolist()
        assert np.concatenate([s[2] for s in split]).tolist() == valid.tolist()
    pieces = [batches(part, "numpy", 0, 2) for part in parts]
    for step, batch in enumerate(batches(whole, "numpy", 0, 2)):
        joined = np.concatenate([piece[step].inputs.images for piece in pieces])
        np.testing.assert_array_equal(joined, batch.inputs.images)


# Which pixels.


def slow_canvas(pixels, transform, places):
    """The definition: means of r x r pixels of the image continued by zeros."""
    r = int(transform[0, 0])
    values = []
    for u, v in places:
        centre = transform @ (u, v, 1)
        x0, y0 = np.int64(centre - (r - 1) / 2)
        cell = pixels[y0 : y0 + r, x0 : x0 + r].astype(np.float64)
        values.append(np.floor(cell.sum((0, 1)) / r**2 + 0.5))
    return np.array(values)


@pytest.mark.parametrize("training", [False, True])
def test_canvases_show_what_canvas_to_image_says(table, training):
    plan = Plan(table, VIEW, CONFIG, training=training, seed=1)
    places = np.array([(u, v) for u in range(96) for v in range(64) if (u + v) % 7 < 1])
    u, v = places.T
    shown = set()
    for batch in batches(plan, "numpy", 0, plan.steps_per_epoch):
        inputs = batch.inputs
        for i in np.flatnonzero(inputs.valid)[::2]:
            pixels = canvas_lib.decode(table, table.image[inputs.row[i]])
            transform = inputs.canvas_to_image[i]
            expected = slow_canvas(pixels, transform, places)
            np.testing.assert_array_equal(inputs.images[i][v, u], expected)
            assert transform[0, 1] == transform[1, 0] == 0
            assert transform[0, 0] == transform[1, 1]
            shown.add(int(transform[0, 0]))
    assert len(shown) > 2  # Reduced by several factors, and not at all.


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("keep_aspect", [True, False])
def test_windows_follow_the_rule(training, keep_aspect):
    view = PersonView(size=(192, 256), keep_aspect=keep_aspect)
    canvas = np.array([320, 256])
    table = random_table(int(training))
    plan = Plan(
        table, view, InputConfig(4, (320, 256)), training=training,
        rows=np.arange(len(table)),
    )  # fmt: skip
    kinds = set()
    for row, (*corner, r, cw, ch) in enumerate(plan.windows.astype(int)):
        size, box = table.image_sizes[table.image[row]], table.boxes_xyxy[row]
        assert [cw, ch] == canvas.tolist()
        if (size <= canvas).all():
            assert (r, corner) == (1, [0, 0])
            kinds.add("whole")
            continue
        corner = np.array(corner)
        assert (corner >= 0).all()
        assert (corner + r * canvas <= np.maximum(size, r * canvas)).all()
        wh = box[2:] - box[:2]
        if keep_aspect:
            wh = np.maximum(wh, wh[::-1] * [192 / 256, 256 / 192])
        wh = 1.25 * np.maximum(wh, [1, 1])
        coarsest = max(1, int(min(wh / [192, 256])))
        half = wh * (2.0 if training else 1.0) / 2
        centre = (box[:2] + box[2:]) / 2

        def window(r, centre=centre, half=half, size=size):
            low, high = np.floor(centre - half) - r, np.floor(centre + half) + r + 2
            return np.clip(low, 0, size), np.clip(high, 0, size)

        def fits(r):
            low, high = window(r)
            return (high - low <= r * canvas).all()

        wanted = next((s for s in range(1, coarsest + 1) if fits(s)), coarsest)
        assert r == wanted
        low, high = window(r)
        if fits(r):
            kinds.add("reduced" if r > 1 else "cut")
            assert (corner <= low).all() and (high <= corner + r * canvas).all()
            spare = (low + high - r * canvas) // 2  # What is left over, on both sides.
            spare = np.clip(spare, 0, np.maximum(size - r * canvas, 0))
            assert (corner == spare).all()
            # Every bilinear tap inside the (reduced) image finds its canvas pixels.
            for axis in range(2):
                inset = (r - 1) / 2
                at = np.linspace(centre[axis] - half[axis], centre[axis] + half[axis])
                at = at[(at >= inset) & (at <= size[axis] - 1 - inset)]
                on_canvas = (at - corner[axis] - inset) / r
                assert (np.floor(on_canvas) >= 0).all()
                assert (np.floor(on_canvas) + 1 <= canvas[axis]).all()
                inside = at + r <= size[axis] - 1 - inset
                assert (np.floor(on_canvas[inside]) + 1 < canvas[axis]).all()
        else:
            kinds.add("too large")
            for axis in np.flatnonzero(high - low > r * canvas):
                ideal = np.clip(centre[axis], 0, size[axis]) - r * canvas[axis] / 2
                ideal = np.clip(ideal, 0, max(size[axis] - r * canvas[axis], 0))
                assert abs(corner[axis] - ideal) <= 0.5
    assert kinds == {"whole", "reduced", "cut", "too large"}


@pytest.mark.parametrize("aspect", [None, 0.75, 1.6])
def test_the_hosts_person_box_is_that_of_geometry(aspect):
    boxes = random_table(4).boxes_xyxy
    boxes[:3, 2:] = boxes[:3, :2]  # Empty ones too.
    host = canvas_lib.person_box(boxes, aspect=aspect, padding=1.25)
    device = geometry.person_box(jnp.asarray(boxes), aspect=aspect, padding=1.25)
    for a, b in zip(host, device, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-3)


def test_images_are_whole_in_the_smallest_bucket_that_holds_them(table):
    plan = Plan(table, IMAGES, CONFIG)
    for (x, y, r, *bucket), size in zip(plan.windows, table.image_sizes, strict=True):
        assert (x, y) == (0, 0)
        holds = [
            (s, w * h)
            for s in range(1, 20)
            for w, h in IMAGES.buckets
            if -(-size[0] // s) <= w and -(-size[1] // s) <= h
        ]
        assert (r, bucket[0] * bucket[1]) == min(holds)
    assert len(np.unique(plan.windows[:, 3:], axis=0)) == 3
    assert plan.windows[:, 2].max() > 2


# The same bits.


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("view", [VIEW, IMAGES], ids=["people", "images"])
def test_both_readers_give_the_same_bits(table, view, training):
    plan = Plan(table, view, CONFIG, training=training, seed=2)
    steps = (0, plan.steps_per_epoch + 1)
    a, b = batches(plan, "numpy", *steps), batches(plan, "tf", *steps)
    assert len(a) == len(b) == steps[1]
    assert_same(a, b)
    assert any(batch.inputs.images.any() for batch in a)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("view", [VIEW, IMAGES], ids=["people", "images"])
def test_starting_at_a_step_is_slicing(table, view, reader):
    plan = Plan(table, view, CONFIG, training=True, seed=9)
    whole = batches(plan, reader, 0, plan.steps_per_epoch + 3)
    start = plan.steps_per_epoch - 1
    endless = getattr(readers, f"{reader}_batches")(plan, start)
    for batch in whole[start:]:
        assert_same(next(endless), batch)
    if reader == "numpy":
        part = batches(plan, reader, start, len(whole) - 1)
        assert_same(part, whole[start:-1])
        evaluation = Plan(table, view, CONFIG, seed=9)
        assert len(batches(evaluation, reader)) == evaluation.steps_per_epoch


def test_threads_and_caches_change_nothing(table):
    def read(workers, cache_mb):
        config = dataclasses.replace(CONFIG, workers=workers, cache_mb=cache_mb)
        return batches(Plan(table, VIEW, config, training=True), "numpy", 0, 8)

    once = read(1, 0)
    assert_same(read(7, 0), once)
    assert_same(read(7, 1), once)  # Does not hold them all.
    assert_same(read(2, 100), once)


def test_the_cache_stays_within_its_limit(table):
    decoded = readers._Decoded(table, 100_000)
    for image in [0, 1, 2, 0, 4, 5, 3, 5]:  # 3 alone is larger than the limit.
        pixels = decoded(image)
        np.testing.assert_array_equal(pixels, canvas_lib.decode(table, image))
        assert sum(kept.nbytes for kept in decoded._kept.values()) <= 100_000
    assert decoded._bytes == sum(kept.nbytes for kept in decoded._kept.values())
    assert decoded(5) is pixels


# EXIF orientations.


@pytest.fixture
def turned(tmp_path):
    """JPEG files of orientation 6, listed as shown, and 3, of which both sizes fit."""
    rng, files = np.random.default_rng(1), []
    for orientation in (6, 3):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files.append(tmp_path / f"{orientation}.jpg")
        picture(rng, 60, 41).save(files[-1], exif=exif)
    return make_table(files, np.array([[41, 60], [60, 41]]), rng, people=1)


@pytest.mark.parametrize("reader", READERS)
def test_the_listed_size_decides_the_frame_of_the_pixels(
    turned, reader, monkeypatch, caplog
):
    def shown(exif):
        table = dataclasses.replace(turned, exif=exif)
        config = dataclasses.replace(CONFIG, batch_size=2, reader=reader)
        plan = Plan(table, IMAGES, config)
        if reader == "tf":
            batches(plan, "tf")  # Skips without TensorFlow.
        (batch,) = readers.batches(plan)
        order = np.argsort(batch.inputs.row)
        return batch.inputs.images[order], plan.undecided

    upright, stored = (np.asarray(Image.open(f).convert("RGB")) for f in turned.images)
    upright = np.rot90(upright, -1)
    images, undecided = shown("auto")
    np.testing.assert_array_equal(images[0, :60, :41], upright)
    np.testing.assert_array_equal(images[1, :41, :60], stored)
    assert undecided == {1}
    (message,) = [text for text in caplog.messages if "EXIF" in text]
    assert message.startswith(
        f"test: 1 image with an EXIF orientation (first: {turned.images[1]}"
    )
    images, undecided = shown("apply")
    np.testing.assert_array_equal(images[1, :41, :60], stored[::-1, ::-1])
    assert undecided == set()
    with pytest.raises(InputError, match=r"6\.jpg .* is 60x41 .*say 41x60"):
        shown("ignore")


# What comes with the pixels.


def test_batches_have_the_documented_types(table):
    common = {
        "images": (8, 64, 96, 3), "canvas_to_image": (8, 2, 3), "box_xyxy": (8, 4),
        "box_score": (8,), "valid": (8,), "row": (8,), "epoch": (),
    }  # fmt: skip
    person = {
        "points_xy": (8, K, 2), "visibility": (8, K), "area": (8,),
        "others_xy": (8, 2, K, 2), "others_visibility": (8, 2, K),
    }  # fmt: skip
    image = {"people_xyxy": (8, 3, 4), "people_kind": (8, 3)}
    whole = {"visibility", "others_visibility", "people_kind", "row", "epoch"}
    for view, of_labels in ((VIEW, person), (IMAGES, image)):
        (batch,) = batches(Plan(table, view, CONFIG), "numpy", 0, 1)
        shapes = common | of_labels
        kinds = {name: "int32" if name in whole else "float32" for name in shapes}
        kinds |= {"images": "uint8", "valid": "bool"}
        columns = vars(batch.inputs) | vars(batch.labels) | {"epoch": batch.epoch}
        assert {name: leaf.shape for name, leaf in columns.items()} | {
            "images": (8, 64, 96, 3)
        } == shapes
        assert {name: str(leaf.dtype) for name, leaf in columns.items()} == kinds


def test_labels_of_people_come_from_the_table(table):
    others = set()
    for batch in batches(Plan(table, VIEW, CONFIG), "numpy"):
        inputs, labels = batch.inputs, batch.labels
        for i in np.flatnonzero(inputs.valid):
            row = inputs.row[i]
            for ours, theirs in (
                (inputs.box_xyxy, table.boxes_xyxy),
                (labels.points_xy, table.points_xy),
                (labels.visibility, table.visibility),
                (labels.area, table.areas),
            ):
                np.testing.assert_array_equal(ours[i], theirs[row].astype(ours.dtype))
            centres = (table.boxes_xyxy[:, :2] + table.boxes_xyxy[:, 2:]) / 2
            near = sorted(
                (np.linalg.norm(centres[other] - centres[row]), other)
                for other in range(len(table))
                if table.image[other] == table.image[row]
                and other != row
                and not table.crowd[other]
            )[:2]
            for slot in range(2):
                if slot < len(near):
                    expected = table.points_xy[near[slot][1]].astype(np.float32)
                    seen = table.visibility[near[slot][1]]
                else:
                    expected, seen = np.zeros((K, 2)), np.zeros(K)
                np.testing.assert_array_equal(labels.others_xy[i, slot], expected)
                np.testing.assert_array_equal(labels.others_visibility[i, slot], seen)
            others.add(len(near))
    assert 2 in others and len(others) > 1


def test_labels_of_images_are_their_people(table):
    for batch in batches(Plan(table, IMAGES, CONFIG), "numpy"):
        inputs, labels = batch.inputs, batch.labels
        for i, image in enumerate(inputs.row):
            if not inputs.valid[i]:
                assert not labels.people_kind[i].any()
                continue
            rows = np.flatnonzero(table.image == image)
            people = [r for r in rows if not table.crowd[r]]
            people = (people + [r for r in rows if table.crowd[r]])[:3]
            kinds = [1 + int(table.crowd[r]) for r in people] + [0] * (3 - len(people))
            assert labels.people_kind[i].tolist() == kinds
            boxes = table.boxes_xyxy[people].astype(np.float32)
            np.testing.assert_array_equal(labels.people_xyxy[i, : len(boxes)], boxes)
            assert inputs.box_xyxy[i].tolist() == [0, 0, *table.image_sizes[image]]


@pytest.mark.parametrize("reader", READERS)
def test_images_in_memory_have_no_labels(reader):
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, (h, 90, 3), dtype=np.uint8) for h in (50, 61, 150)]
    table = from_boxes(images, None, keypoints=SET)
    for view in (VIEW, dataclasses.replace(IMAGES, buckets=((96, 64),))):
        (batch,) = batches(Plan(table, view, CONFIG), reader)
        assert batch.labels is None
        np.testing.assert_array_equal(batch.inputs.images[0, :50, :90], images[0])
        assert not batch.inputs.images[0, 50:].any()
    with pytest.raises(InputError, match="no labels"):
        Plan(table, VIEW, CONFIG, training=True)


# What goes wrong.


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("damage", ["gone", "cut short", "not an image", "other size"])
def test_an_unreadable_image_is_named_where_it_is_read(table, tmp_path, reader, damage):
    bad = tmp_path / "bad.jpg"
    data = Path(table.images[1]).read_bytes()
    if damage == "other size":
        data = Path(table.images[0]).read_bytes()
    elif damage != "gone":
        data = data[: len(data) // 2] if damage == "cut short" else b"text" * 50
    if damage != "gone":
        bad.write_bytes(data)
    images = (table.images[0], bad, *table.images[2:])
    broken = dataclasses.replace(table, images=images)
    good = [row for row in table.labelled_rows() if table.image[row] != 1][:8]
    rows = np.array(good + [row for row in table.people_of_image(1)])
    plan = Plan(broken, VIEW, CONFIG, rows=rows)
    before = threading.active_count()
    if reader == "tf":
        pytest.importorskip("tensorflow")
    read = getattr(readers, f"{reader}_batches")(plan)
    assert next(read).inputs.valid.all()
    with pytest.raises(InputError, match=r"bad\.jpg .*900100000001") as caught:
        next(read)
    assert "\n" not in str(caught.value)
    if reader == "numpy":
        assert threading.active_count() == before


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("view", [VIEW, IMAGES], ids=["people", "images"])
def test_rows_of_unreadable_images_are_replaced(table, view, reader, tmp_path, caplog):
    """By others of the epoch, as from any start, and by every reader."""
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(table.images[4].read_bytes()[:700])
    images = (*table.images[:4], bad, *table.images[5:])
    broken = dataclasses.replace(table, images=images, on_error="skip")
    plan = Plan(broken, view, CONFIG, training=True, seed=4)
    last = 2 * plan.steps_per_epoch
    found = batches(plan, reader, 0, last)
    assert "bad.jpg" in caplog.text and "1 of at most 1 images" in caplog.text
    for step, batch in enumerate(found):
        _, rows, _ = plan.batch_rows(step)
        lost = plan.kind.images(table, rows) == 4
        np.testing.assert_array_equal(batch.inputs.row[~lost], rows[~lost])
        assert (plan.kind.images(table, batch.inputs.row) != 4).all()
        assert set(batch.inputs.row) <= set(plan.rows)
    assert_same(found, batches(plan, "numpy", 0, last))
    assert_same(found[3:], batches(plan, reader, 3, last))
    evaluation = Plan(broken, view, CONFIG)
    evaluated = batches(evaluation, reader)
    read = np.concatenate([b.inputs.row[b.inputs.valid] for b in evaluated])
    lost = plan.kind.images(table, evaluation.rows) == 4
    assert lost.any() and sorted(read) == sorted(evaluation.rows[~lost])


def test_too_many_unreadable_images_stop_the_training(table, tmp_path):
    bad = []
    for i in range(2):
        bad.append(tmp_path / f"bad{i}.jpg")
        bad[-1].write_bytes(b"")
    images = (*bad, *table.images[2:])
    broken = dataclasses.replace(table, images=images, on_error="skip")
    plan = Plan(broken, VIEW, CONFIG, training=True)
    with pytest.raises(
        InputError, match=r"bad\d.jpg.*image 2 of epoch 0.* 1% .*here 1"
    ):
        batches(plan, "numpy", 0, plan.steps_per_epoch)


def test_what_tensorflow_alone_refuses_is_read_all_the_same(table, monkeypatch, caplog):
    tf = pytest.importorskip("tensorflow")
    rows = [*table.people_of_image(0), *table.people_of_image(3), *range(20)]
    plan = Plan(table, VIEW, CONFIG, rows=rows)
    expected = batches(plan, "numpy")
    big = int(np.sort([file.stat().st_size for file in table.images])[-2])

    def refuse(contents):
        tf.debugging.assert_less(tf.strings.length(contents), big)
        return shape(contents)

    shape = tf.image.extract_jpeg_shape
    monkeypatch.setattr(tf.image, "extract_jpeg_shape", refuse)
    assert_same(batches(plan, "tf"), expected)
    assert caplog.text.count("TensorFlow could not read step") > 0


def test_dropping_the_iterator_stops_its_threads(table):
    def reading():
        names = [thread.name for thread in threading.enumerate()]
        return sum(name.startswith("pose_jax_read") for name in names)

    before = reading()
    read = readers.numpy_batches(Plan(table, VIEW, CONFIG, training=True))
    next(read)
    assert reading() > before
    del read
    gc.collect()
    assert reading() == before


def test_plans_and_configs_that_cannot_be_are_refused(table):
    for fields in (
        {"batch_size": 0}, {"canvas_size": (0, 5)}, {"reader": "grain"},
        {"workers": -1}, {"cache_mb": -1},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=next(iter(fields))):
            dataclasses.replace(CONFIG, **fields)
    with pytest.raises(ConfigError, match="multiple of 3"):
        Plan(table, VIEW, CONFIG, process_count=3)
    with pytest.raises(InputError, match="no rows"):
        Plan(table, VIEW, CONFIG, rows=[])
    for fields in ({"process_index": 2}, {"seed": -1}):
        with pytest.raises(ValueError, match=next(iter(fields)).split("_")[0]):
            Plan(table, VIEW, CONFIG, **fields)


def test_the_numpy_reader_works_without_tensorflow(table, run_python):
    """Also that "auto" chooses it then, and that importing the file imports no tf."""
    code = f"""
import sys
sys.modules["tensorflow"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "tensorflow" else find(name)
import numpy as np
from pose_jax import keypoints
from pose_jax.data import readers
from pose_jax.data.plan import InputConfig, Plan
from pose_jax.data.table import from_boxes
from pose_jax.errors import ConfigError
from pose_jax.types import PersonView
table = from_boxes([{str(table.images[0])!r}], None, keypoints=keypoints.COCO)
config = InputConfig(batch_size=2)
plan = Plan(table, PersonView((48, 64)), config)
(batch,) = readers.batches(plan)
assert batch.inputs.images.any()
try:
    next(readers.tf_batches(plan))
except ConfigError as error:
    assert "install" in str(error)
else:
    raise AssertionError
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_auto_takes_tensorflow_where_it_is(table, monkeypatch):
    taken = []
    for reader in READERS:
        name = f"{reader}_batches"
        monkeypatch.setattr(
            readers, name, lambda *a, reader=reader: taken.append(reader)
        )
    plan = Plan(table, VIEW, CONFIG)
    for found in (None, "spec"):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, f=found: f)
        readers.batches(plan)
    for reader in READERS:
        config = dataclasses.replace(CONFIG, reader=reader)
        readers.batches(Plan(table, VIEW, config))
    assert taken == ["numpy", "tf", "numpy", "tf"]


@pytest.mark.parametrize("canvas", [(640, 640), (160, 128)])
def test_real_coco_is_the_same_by_both_readers(real_data, canvas):
    table = coco.load(real_data / "coco", "val2017")
    config = InputConfig(batch_size=16, canvas_size=canvas)
    plan = Plan(table, PersonView(size=(48, 64), max_others=3), config)
    count = 0
    for a, b in zip(readers.numpy_batches(plan), readers.tf_batches(plan), strict=True):
        assert_same(a, b)
        count += int(a.inputs.valid.sum())
    assert count == len(table.labelled_rows()) == 164
