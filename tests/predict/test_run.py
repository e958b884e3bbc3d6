"""`pose-jax predict` without a network: inputs, names, ids, files; damage and stops."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, features

from pose_jax import cli, predict
from pose_jax.errors import ConfigError, InputError
from pose_jax.keypoints import COCO, KeypointSet
from pose_jax.predict import People, Person, estimator, inputs
from pose_jax.predict import run as run_lib
from pose_jax.types import Poses


class MadeUp:
    """An estimator of a point per box: its first corner."""

    keypoints, category_id = COCO, 1

    def __init__(self):
        self.arrays, self.scores, self.before = [], None, lambda: None

    def __call__(self, images, boxes=None, scores=None, passes=1):
        self.before()
        self.arrays += list(images)
        if boxes is None:
            boxes = [np.array([[0, 0, *image.shape[1::-1]]]) for image in images]
        scores = scores or [np.ones(len(own)) for own in boxes]
        return [
            People(
                Person(np.tile(xyxy[:2] / 1, (17, 1)), np.ones(17), float(s), xyxy, s)
                for xyxy, s in zip(own, of, strict=True)
            )
            for own, of in zip(boxes, scores, strict=True)
        ]


@pytest.fixture
def network(monkeypatch):
    found = MadeUp()
    monkeypatch.setattr(run_lib, "load", lambda *_, **__: found)
    return found


def picture(path, size=(6, 4), value=99, **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 0)).save(path, **save)
    return path


def run(out, *words):
    return cli.main(["predict", "--run", "RUN", "--out", str(out), *map(str, words)])


def written(out):
    people = json.loads((out / "predictions.json").read_text())
    lines = (out / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == people
    return people, json.loads((out / "predictions_info.json").read_text())


# Which images.


@pytest.mark.parametrize(
    ("names", "pictures"),
    [
        (["a/1.jpg", "a/2.jpg"], ["1.png", "2.png"]),
        (["a/1.jpg", "b/1.jpg"], ["a/1.png", "b/1.png"]),
        (["a/1.jpg", "2.jpg"], ["a/1.png", "2.png"]),
        (["x.png", "x.jpg"], ["x.png.png", "x.jpg.png"]),
        (["x.png", "x.jpg", "x.jpg.tif"], ["x.png.png", "x.jpg-2.png", "x.jpg.png"]),
        (["x.jpg", "X.jpg"], ["x.jpg.png", "X.jpg-2.png"]),
    ],
)
def test_every_image_has_a_picture_of_its_own(names, pictures, tmp_path):
    sources, _ = inputs.find([tmp_path / name for name in names])
    assert [source.picture for source in sources] == pictures
    assert len({source.name for source in sources}) == len(names)


def test_images_are_files_folders_and_patterns_each_once(tmp_path):
    for name in ("a/1.jpg", "a/2.JPG", "a/b/3.png", "a/[4].jpg"):
        picture(tmp_path / name)
    (tmp_path / "a/notes.txt").write_text("")
    (tmp_path / "a/.hidden.jpg").write_text("")

    def find(*arguments):
        sources, notes = inputs.find([tmp_path / argument for argument in arguments])
        return [str(s.path.relative_to(tmp_path / "a")) for s in sources], notes

    names, notes = find("a")
    assert (
        names == ["1.jpg", "2.JPG", "[4].jpg"] and "1 files are not images" in notes[0]
    )
    assert find("a/*.jpg")[0] == ["1.jpg", "[4].jpg"]
    assert find("a/**/*.png") == (["b/3.png"], [])
    assert find("a/[4].jpg")[0] == ["[4].jpg"]
    names, notes = find("a/1.jpg", "a/../a/1.jpg")
    assert names == ["1.jpg"] and "1 images were given more than once" in notes[0]
    for argument, says in (("a/*.bmp", "no file matches"), ("", "has no images")):
        with pytest.raises(InputError, match=says):
            find(argument)


@pytest.mark.parametrize(
    ("names", "listed", "ids"),
    [
        (["0007.jpg", "12.jpg"], {}, [7, 12]),
        (["0001.jpg", "1.jpg"], {}, [1, 2]),
        (["a.jpg", "7.jpg"], {}, [1, 2]),
        (["\u00b2\u00b2.jpg", "7.jpg"], {}, [1, 2]),
        (["9" * 5000 + ".jpg", "7.jpg"], {}, [1, 2]),
        (["7.jpg", "8.jpg"], {0: 8, 1: 7}, [8, 7]),
        (["7.jpg", "8.jpg"], {0: 8}, [8, 9]),
        (["7.jpg", "a.jpg"], {0: "x"}, ["x", 1]),
    ],
)
def test_ids_differ(names, listed, ids):
    sources = [inputs.Source(Path(name), name, name) for name in names]
    listed = {sources[i].path: own for i, own in listed.items()}
    found = inputs.image_ids(sources, listed)
    assert [found[source.path] for source in sources] == ids


# What is written.


def test_results_are_described(network, tmp_path):
    a, b = picture(tmp_path / "a/0001.jpg"), picture(tmp_path / "b/0001.jpg", (8, 9))
    assert run(tmp_path / "out", a, b) == 0
    people, info = written(tmp_path / "out")
    assert [(p["file_name"], p["image_id"]) for p in people] == [
        ("a/0001.jpg", 1),
        ("b/0001.jpg", 2),
    ]
    assert info["category"]["id"] == 1 and info["category"]["name"] == "person"
    assert KeypointSet.from_json(info["keypoints"]) == COCO and info["skipped"] == []
    assert info["images"][1] == {
        "id": 2, "file_name": "b/0001.jpg", "path": str(b), "width": 8, "height": 9,
        "picture": "b/0001.png",
    }  # fmt: skip
    assert Image.open(tmp_path / "out/b/0001.png").size == (8, 9)
    assert run(tmp_path / "out", a) == 0  # Its own files are replaced.
    assert len(written(tmp_path / "out")[0]) == 1


def test_files_of_the_user_are_never_replaced(network, tmp_path, capsys):
    folder = tmp_path / "in"
    image = picture(folder / "a.jpg")
    own = picture(folder / "a.png").read_bytes()
    boxes = folder / "predictions.json"
    boxes.write_text(json.dumps([{"bbox": [0, 0, 2, 2], "file_name": "a.jpg"}]))
    kept = boxes.read_bytes()
    for words, says in (
        ([image], "a.png exists and was not written by pose-jax"),
        ([folder / "a.png"], "would overwrite"),
        ([folder], "would overwrite"),
        ([image, "--boxes", boxes], "would overwrite|was not written"),
    ):
        assert run(folder, *words) == 1
        err = capsys.readouterr().err
        assert any(part in err for part in says.split("|")) and err.count("\n") == 1
    assert (folder / "a.png").read_bytes() == own and boxes.read_bytes() == kept
    assert run(tmp_path, image) == 0  # Beside it there is room.


def _cut(path, image, part, **options):
    image.save(path, **options)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])


def damaged_images(folder):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (60, 80, 3), dtype=np.uint8) for _ in range(3)]
    first, *rest = (Image.fromarray(array) for array in noise)
    frames = {"save_all": True, "append_images": rest}
    _cut(folder / "pages.tif", first, 2 / 3, **frames)
    _cut(folder / "moving.gif", first, 0.3, **frames)
    _cut(folder / "cut.jpg", first, 0.5)
    (folder / "empty.png").write_bytes(b"")
    names = ["pages.tif", "moving.gif", "cut.jpg", "empty.png", "missing.jpg"]
    if features.check("avif"):
        _cut(folder / "cut.avif", first, 0.7, **frames)
        names.append("cut.avif")
    return [folder / name for name in names]


def test_damaged_images_are_named_and_counted_and_the_others_done(
    network, tmp_path, capsys
):
    bad = damaged_images(tmp_path)
    good = [picture(tmp_path / "x.bmp"), picture(tmp_path / "y.png")]
    assert run(tmp_path / "out", good[0], *bad, good[1]) == 1
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == len(bad)
    assert all(str(path) in err for path in bad)
    assert f"2 people in 2 images: {tmp_path / 'out'}; {len(bad)} of" in out
    people, info = written(tmp_path / "out")
    assert [p["file_name"] for p in people] == ["x.bmp", "y.png"]
    assert [skipped["path"] for skipped in info["skipped"]] == list(map(str, bad))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_is_done_is_kept_whatever_stops_it(error, network, tmp_path, capsys):
    images, out = [picture(tmp_path / f"{i}.bmp") for i in range(40)], tmp_path / "out"

    def stop():
        if len(network.arrays) == 32:  # The results of earlier images are on disk.
            assert len((out / "predictions.jsonl").read_text().splitlines()) == 32
            raise error

    network.before = stop
    if error is KeyboardInterrupt:
        assert run(out, *images) == 130
        assert (
            "interrupted: 32 of 40 images are done and kept" in capsys.readouterr().out
        )
    else:
        with pytest.raises(error):
            run(out, *images)
    people, info = written(out)
    assert len(people) == len(info["images"]) == 32


def test_values_that_are_not_finite_are_left_out_and_an_error(
    network, tmp_path, capsys
):
    boxes = [{"bbox": [x, 0, 2, 2], "file_name": "a.bmp"} for x in (1, 2)]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    image = picture(tmp_path / "a.bmp")
    real = network.__call__

    class Diverged(MadeUp):
        def __call__(self, *arguments, **options):
            (people,) = real(*arguments, **options)
            people[0].points_xy[3, 1] = np.nan
            return [people]

    network.__class__ = Diverged
    assert run(tmp_path / "out", image, "--boxes", tmp_path / "boxes.json") == 1
    assert "1 people are left out" in capsys.readouterr().err
    assert [p["bbox"][0] for p in written(tmp_path / "out")[0]] == [2]


def test_boxes_of_an_annotation_file(network, tmp_path, capsys):
    """Its list, its category, its ids; an empty box does not stop the others."""
    a, b = picture(tmp_path / "a.bmp"), picture(tmp_path / "b.bmp")
    content = {
        "images": [{"id": 5, "file_name": "b.bmp", "width": 6, "height": 4}],
        "categories": [{"id": 2, "name": "person"}],
        "annotations": [
            {"image_id": 5, "category_id": 2, "bbox": bbox}
            for bbox in ([1, 1, 2, 2], [0, 0, 0, 2])
        ],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    assert run(tmp_path / "out", a, b, "--boxes", tmp_path / "boxes.json") == 0
    err = capsys.readouterr().err
    assert "1 empty" in err and "1 of 2 images have no box" in err
    people, info = written(tmp_path / "out")
    (person,) = people
    assert (person["image_id"], person["category_id"]) == (5, 2)
    assert person["bbox"] == [1, 1, 2, 2]
    assert {image["file_name"]: image["id"] for image in info["images"]} == {
        "a.bmp": 6,
        "b.bmp": 5,
    }


def test_boxes_below_a_score_are_left_out_and_people_not_drawn(network, tmp_path):
    image, boxes = picture(tmp_path / "a.bmp", (80, 60)), tmp_path / "boxes.json"
    rows = [
        {"bbox": [9, 9, 50, 40], "file_name": "a.bmp", "score": s} for s in (0.2, 0.9)
    ]
    boxes.write_text(json.dumps(rows))
    for score, count in (("0.5", 1), ("0.1", 2), ("0.95", None)):
        words = [image, "--boxes", boxes, "--min-score", score]
        assert run(tmp_path / "out", *words) == (1 if count is None else 0)
        if count is not None:
            assert len(written(tmp_path / "out")[0]) == count


# EXIF orientations.


@pytest.mark.parametrize(
    ("orientation", "listed", "words", "shape", "note"),
    [
        (6, None, [], (6, 4), False),
        (6, None, ["--exif", "ignore"], (4, 6), False),
        (6, (6, 4), [], (4, 6), False),
        (6, (4, 6), [], (6, 4), False),
        (3, (6, 4), [], (4, 6), True),
        (3, (6, 4), ["--exif", "apply"], (4, 6), False),
        (6, "bare", [], (4, 6), True),
        (6, "bare", ["--exif", "apply"], (6, 4), False),
        (6, (9, 9), [], None, False),
    ],
)
def test_points_refer_to_the_pixels_of_the_boxes(
    orientation, listed, words, shape, note, network, tmp_path, capsys
):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    row = {"bbox": [0, 0, 2, 2], "file_name": "a.png", "image_id": 1}
    if listed is not None:
        images = [{"id": 1, "file_name": "a.png"}]
        images[0] |= dict(zip(("width", "height"), listed, strict=False))
        content = (
            [row] if listed == "bare" else {"images": images, "annotations": [row]}
        )
        (tmp_path / "boxes.json").write_text(json.dumps(content))
        words = [*words, "--boxes", tmp_path / "boxes.json"]
    code = run(tmp_path / "out", tmp_path / "a.png", *words)
    err = capsys.readouterr().err
    if shape is None:
        assert code == 1 and "is 6x4 or 4x6 (EXIF" in err and "9x9" in err
        return
    assert code == 0 and ("1 image with an EXIF orientation" in err) == note
    (array,) = network.arrays
    assert array.shape == (*shape, 3)
    turned = shape == (6, 4) or "apply" in words
    first = {6: pixels[-1, 0], 3: pixels[-1, -1]}[orientation]
    np.testing.assert_array_equal(array[0, 0], first if turned else pixels[0, 0])


def test_a_category_needs_boxes(capsys):
    assert cli.main("predict a.jpg --run r --category person".split()) == 2
    assert "--category is that of --boxes" in capsys.readouterr().err


# Two passes.


def _person(points_xy, scores):
    return Person(
        np.array(points_xy), np.array(scores), 1.0, np.array([0.0, 0, 90, 70])
    )


@pytest.mark.parametrize(
    ("points_xy", "scores", "box"),
    [
        ([[9, 5], [20, 8], [12, 30], [80, 2]], [0.9, 0.2, 0.5, 0.1], [9, 5, 20, 30]),
        ([[9, 5], [9, 8], [9, 30]], [0.9, 0.9, 0.9], [9, 5, 10, 30]),
        ([[9, 5], [20, 8], [12, 30]], [0.9, 0.9, 0.1], [0, 0, 90, 70]),
        ([[9, 5], [20, 8], [np.nan, 30]], [0.9, 0.9, 0.9], [0, 0, 90, 70]),
    ],
)
def test_the_second_box_is_that_of_the_keypoints_found(points_xy, scores, box):
    np.testing.assert_array_equal(estimator.second_box(_person(points_xy, scores)), box)


def test_the_second_pass_is_in_the_box_of_the_first(monkeypatch):
    """The made-up network puts the points of a box into its upper left quarter."""
    people = object.__new__(estimator.Estimator)
    people.keypoints, people.system = COCO, None
    people._loaded = SimpleNamespace(variables=None, input=None)
    seen = []

    def predictor(variables, table, config, rows):
        seen.append(table.boxes_xyxy[rows])
        low, size = seen[-1][:, :2], seen[-1][:, 2:] - seen[-1][:, :2]
        part = np.stack([np.arange(17), np.arange(17) ** 2 / 16], -1) / 32
        points_xy = low[:, None] + size[:, None] * part
        n = len(rows)
        return Poses(points_xy, np.ones((n, 17)), np.ones(n), np.ones(n, bool), rows)

    people.predictor = predictor
    images = [np.zeros((h, w, 3), np.uint8) for w, h in ((80, 40), (16, 24))]
    (first,), (second,) = people(images, passes=2)
    np.testing.assert_allclose(seen[0], [[0, 0, 80, 40], [0, 0, 16, 24]])
    np.testing.assert_allclose(seen[1], [[0, 0, 40, 20], [0, 0, 8, 12]])
    np.testing.assert_allclose(first.points_xy[-1], [20, 10])
    np.testing.assert_allclose(second.box_xyxy, [0, 0, 8, 12])
    with pytest.raises(ConfigError, match="2 passes are for images without boxes"):
        people(images, boxes=[np.ones((0, 4))] * 2, passes=2)
    with pytest.raises(ConfigError, match="passes must be 1 or 2; got 3"):
        people(images, passes=3)


def test_passes_are_stated(network, tmp_path, capsys):
    image = picture(tmp_path / "1.jpg")
    assert run(tmp_path / "out", image, "--passes", "2") == 0
    out, err = capsys.readouterr()
    assert "one person, predicted again in the box of its keypoints" in out
    assert "1.jpg: too few keypoints found: only one pass" in err
    assert run(tmp_path / "out", image, "--passes", "2", "--boxes", "b.json") == 2
    assert "2 passes are for images without boxes" in capsys.readouterr().err


def test_the_package_offers_what_is_imported():
    assert {"load", "predict_run", "Person", "People", "Estimator"} <= set(
        vars(predict)
    )
