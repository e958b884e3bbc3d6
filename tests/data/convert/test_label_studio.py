"""Label Studio: whose keypoint is whose, in which order, on which image."""

import json

import pytest

from pose_jax.data import convert
from pose_jax.data.convert.form import Options
from pose_jax.errors import ConfigError, InputError
from tests.data.convert import exports

NAMES = ("snout", "ear", "tail")


def region(own_id, kind, label, x, y, parent=None, **more):
    value = {"x": x, "y": y, kind: [label], **more}
    found = {
        "id": own_id, "type": kind, "value": value, "from_name": "a", "to_name": "image",
        "original_width": 64, "original_height": 48, "image_rotation": 0,
    }  # fmt: skip
    return found if parent is None else {**found, "parentID": parent}


def point(own_id, label, x, y, parent=None):
    return region(own_id, "keypointlabels", label, x, y, parent, width=0.5)


def box(own_id, x, y, w, h, label="mouse", rotation=0):
    more = {"width": w, "height": h, "rotation": rotation}
    return region(own_id, "rectanglelabels", label, x, y, **more)


def relation(a, b):
    return {"type": "relation", "from_id": a, "to_id": b, "direction": "right"}


def task(image, *results, own_id=1, **more):
    annotations = [
        result if isinstance(result, dict) else {"id": i, "result": result}
        for i, result in enumerate(results)
    ]
    return {"id": own_id, "annotations": annotations, "data": {"image": image}, **more}


def write(folder, *tasks):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "export.json"
    path.write_text(json.dumps(tasks))
    return path


def test_parents_and_relations(tmp_path):
    result = [
        point("p1", "tail", 50, 50, "A"),
        box("A", 10, 10, 50, 50),
        point("p2", "snout", 25, 25, "A"),
        box("B", 50, 50, 25, 25),
        point("p3", "snout", 60, 60),
        point("p4", "ear", 70, 70),
        point("p5", "ear", 1, 1),
        box("C", 0, 0, 5, 5, "feeder"),
        box("D", 0, 0, 5, 5),
        relation("B", "B"),
        relation("p3", "B"),
        relation("B", "p4"),
        relation("p1", "B"),  # parentID wins.
    ]
    exports.picture(tmp_path / "a.png")
    said, found = exports.convert_from(
        "label-studio",
        write(tmp_path, task("a.png", result)),
        tmp_path / "o",
        names=NAMES,
    )
    first, second, empty = found["train/a.png"]
    assert exports.points(first) == {"snout": (16, 12, 2), "tail": (32, 24, 2)}
    assert first["box"] == (6.4, 4.8, 32, 24)
    assert exports.points(second) == {"snout": (38.4, 28.8, 2), "ear": (44.8, 33.6, 2)}
    assert exports.points(empty) == {} and empty["box"] == (0, 0, 3.2, 2.4)
    assert "1 keypoint that belong to no rectangle" in said
    assert "1 rectangle 'feeder' without keypoints" in said
    assert "joint_boxes" not in said


def test_a_rotated_rectangle_becomes_its_extent(tmp_path):
    result = [box("A", 50, 50, 25, 25, rotation=90), point("p", "ear", 40, 60, "A")]
    exports.picture(tmp_path / "a.png")
    path = write(tmp_path, task("a.png", result))
    _, found = exports.convert_from("label-studio", path, tmp_path / "o", names=NAMES)
    assert found["train/a.png"][0]["box"] == (20, 24, 12, 16)


# Name of the image in the task, and those that exist; the first of them is meant.
FILES = {
    "upload": ("/data/upload/3/9c1d2e3f-a.png", "x/a.png"),
    "upload of such a name": ("/data/upload/3/9c1d2e3f-a.png", "9c1d2e3f-a.png", "a.png"),
    "local": ("/data/local-files/?d=mice/night%20shift/deadbeef-a.png",
              "night shift/deadbeef-a.png", "a.png"),
    "bucket": ("s3://bucket/mice/a%20b.png", "mice/a b.png"),
    "windows": ("C:\\mice\\a.png", "a.png"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_names_of_images(tmp_path, name):
    reference, *names = FILES[name]
    for own in names:
        exports.picture(tmp_path / "pictures" / own)
    result = [box("A", 10, 10, 50, 50), point("p1", "tail", 50, 50, "A")]
    path = write(tmp_path, task(reference, result))
    images = tmp_path / "pictures"
    _, found = exports.convert_from(
        "label-studio", path, tmp_path / "o", names=NAMES, images=images
    )
    assert list(found) == [f"train/{names[0]}"]


def test_of_several_annotations_ground_truth_then_the_last_is_taken(tmp_path):
    def annotation(x, **more):
        return {
            "result": [box("A", 0, 0, 50, 50), point("p", "ear", x, 50, "A")],
            **more,
        }

    tasks = [
        task("a.png", annotation(10, updated_at="2025-01-03"),
             annotation(20, updated_at="2025-01-02", ground_truth=True)),
        task("b.png", annotation(10, updated_at="2025-01-02"),
             annotation(20, updated_at="2025-01-03"),
             annotation(30, updated_at="2025-01-04", was_cancelled=True)),
        task("c.png"),
        task("d.png", predictions=[annotation(40)]),
    ]  # fmt: skip
    for letter in "abcd":
        exports.picture(tmp_path / f"{letter}.png")
    path = write(tmp_path, *tasks)
    said, found = exports.convert_from(
        "label-studio", path, tmp_path / "o", names=NAMES
    )
    assert list(found) == ["train/a.png", "train/b.png"]
    assert all(people[0]["points"]["ear"][0] == 12.8 for people in found.values())
    assert "ground truth is taken, or the one updated last" in said
    for line in ("2 further annotations of tasks", "1 task without annotations",
                 "1 prediction of tasks without annotations"):  # fmt: skip
        assert f"left out: {line}" in said
    _, found = exports.convert_from(
        "label-studio", path, tmp_path / "o2", names=NAMES, predicted=True
    )
    assert list(found) == ["train/a.png", "train/b.png", "train/d.png"]


def test_without_rectangles_an_image_shows_one_animal(tmp_path):
    one = [point("p1", "ear", 25, 25), point("p2", "tail", 50, 50)]
    two = [point("p1", "ear", 25, 25), point("p2", "ear", 50, 50)]
    for letter in "ab":
        exports.picture(tmp_path / f"{letter}.png")
    path = write(tmp_path, task("a.png", one), task("b.png", two))
    said, found = exports.convert_from(
        "label-studio", path, tmp_path / "o", names=NAMES
    )
    assert found["train/b.png"] == []
    assert found["train/a.png"][0]["box"] == (16, 12, 16, 12)
    assert "1 box made from keypoints" in said and "2 keypoints that belong" in said


CONFIGS = {
    "model_index": ('<Label value="tail" model_index="2"/><Label value="snout" '
                    'model_index="0"/><Label value="ear" model_index="1"/>', NAMES),
    "lines": ('<Label value="tail"/><Label value="snout"/><Label value="ear"/>',
              ("tail", "snout", "ear")),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_the_order_is_that_of_the_labelling_configuration(tmp_path, name):
    labels, order = CONFIGS[name]
    config = tmp_path / "config.xml"
    config.write_text(f"<View><KeyPointLabels>{labels}</KeyPointLabels></View>")
    exports.picture(tmp_path / "a.png")
    result = [box("A", 0, 0, 50, 50), point("p", "ear", 10, 50, "A")]
    path = write(tmp_path, task("a.png", result))
    with pytest.raises(InputError, match=r"order of its keypoints \(ear\).*--names"):
        exports.convert_from("label-studio", path, tmp_path / "o")
    exports.convert_from("label-studio", path, tmp_path / "o", label_config=config)
    (category,) = exports.categories(tmp_path / "o")
    assert category["keypoints"] == list(order)


def test_files_that_are_refused(tmp_path):
    path = write(tmp_path, {"image": "a.png", "annotation_id": 1, "lead_time": 1})
    with pytest.raises(InputError, match="JSON-MIN"):
        exports.convert_from("label-studio", path, tmp_path / "o", names=NAMES)
    exports.picture(tmp_path / "a.png")
    write(tmp_path, task("a.png", [box("A", 0, 0, 5, 5)]))
    with pytest.raises(InputError, match="no keypoints in its annotations"):
        exports.convert_from("label-studio", path, tmp_path / "o", names=NAMES)
    result = [box("A", 0, 0, 5, 5), point("p", "ear", 10, 50, "A")]
    write(tmp_path, task("a.png", result))
    with pytest.raises(ConfigError, match=r"no keypoint 'earr'.*Did you mean 'ear'"):
        exports.convert_from("label-studio", path, tmp_path / "o", names=("earr", "x"))
    del result[1]["value"]["x"]
    write(tmp_path, task("a.png", result))
    with pytest.raises(InputError, match=r"task 1 is not as Label Studio writes it"):
        exports.convert_from("label-studio", path, tmp_path / "o", names=NAMES)
    path.write_text(path.read_text()[:-30])
    with pytest.raises(InputError, match="is not JSON"):
        exports.convert_from("label-studio", path, tmp_path / "o", names=NAMES)
    with pytest.raises(ConfigError, match="takes no --interpolated"):
        convert.from_tool("label-studio", path, tmp_path, Options(interpolated=True))
