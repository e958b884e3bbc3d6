"""The way back: what is written for a tool is read again by its own reader."""

import json
from xml.etree import ElementTree

import pytest

from pose_jax import cli
from pose_jax.data import convert
from pose_jax.data.convert.form import Options
from pose_jax.errors import ConfigError, InputError
from pose_jax.keypoints import KeypointSet
from tests.data.convert import exports, test_cvat

FLY = KeypointSet(
    name="fly",
    names=("head", "left_wing", "right_wing"),
    flip_pairs=((1, 2),),
    skeleton=((0, 1), (0, 2)),
)
# Per image; the last point of the first fly is outside of the image.
POSES = {
    "a/1.png": [[10, 12, 0.9, 20.5, 30.25, 0.7, 70, 20, 0.1],
                [5, 6, 0.9, 7, 8, 0.8, 9, 9.5, 0.7]],
    "b/2.png": [[1, 2, 0.5, 3, 4, 0.5, 5, 6, 0.5]],
}  # fmt: skip


def predict(folder):
    """Writes what `predict` writes."""
    folder.mkdir(parents=True)
    images, people = [], []
    for i, (name, poses) in enumerate(POSES.items(), 1):
        path = exports.picture(folder.parent / "images" / name)
        images.append({"id": i, "file_name": name, "path": str(path), "width": 64,
                       "height": 48, "picture": name})  # fmt: skip
        for pose in poses:
            people.append({"file_name": name, "image_id": i, "category_id": 4,
                           "keypoints": pose, "score": 0.6,
                           "bbox": [4.0, 5.0, 80.0, 30.0]})  # fmt: skip
    info = {"keypoints": FLY.to_json(), "category": {"id": 4, "name": "fly"},
            "images": images, "skipped": []}  # fmt: skip
    (folder / "predictions.json").write_text(json.dumps(people))
    (folder / "predictions_info.json").write_text(json.dumps(info))
    return folder


def expected(pose, outside=True):
    """Returns the points of a pose; those outside of the image are left out."""
    triples = zip(FLY.names, pose[0::3], pose[1::3], strict=True)
    return {n: (x, y, 2) for n, x, y in triples if outside or x < 64}


def same(found, outside=False):
    """Whether people of all images are those of POSES, to the digits that files have."""
    assert [name.split("/", 1)[1] for name in found] == list(POSES)
    for people, poses in zip(found.values(), POSES.values(), strict=True):
        assert len(people) == len(poses)
        for person, pose in zip(people, poses, strict=True):
            wanted = expected(pose, outside)
            points = exports.points(person)
            assert points.keys() == wanted.keys()
            for name in wanted:
                assert points[name] == pytest.approx(wanted[name], abs=1e-3), name


def back(tool, tmp_path, **options):
    folder = predict(tmp_path / "predicted")
    said = convert.to_tool(tool, folder, tmp_path / tool, Options(**options))
    assert said.startswith(f"3 people or animals in 2 images: {tmp_path / tool}")
    return said, tmp_path / tool


OUTSIDE = "1 point outside of the image left out"


def test_label_studio(tmp_path):
    said, out = back("label-studio", tmp_path)
    assert OUTSIDE in said and "2 boxes cut at the border of the image" not in said
    assert "3 boxes cut at the border of the image" in said
    assert f"DOCUMENT_ROOT={tmp_path / 'images'}" in said
    tasks = json.loads((out / "tasks.json").read_text())
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=a/1.png"
    assert tasks[0]["predictions"][0]["score"] == 0.6
    _, found = exports.convert_from(
        "label-studio", out / "tasks.json", tmp_path / "again", predicted=True,
        images=tmp_path / "images", label_config=out / "labeling.xml",
    )  # fmt: skip
    same(found)
    assert found["train/a/1.png"][0]["box"] == (4, 5, 60, 30)
    (category,) = exports.categories(tmp_path / "again")
    assert category["keypoints"] == list(FLY.names)
    ElementTree.parse(out / "labeling.xml")


def test_label_studio_s_own_check_takes_them(tmp_path):
    sdk = pytest.importorskip("label_studio_sdk.label_interface")
    _, out = back("label-studio", tmp_path)
    interface = sdk.LabelInterface((out / "labeling.xml").read_text())
    for task in json.loads((out / "tasks.json").read_text()):
        assert not interface.validate_prediction(
            task["predictions"][0], return_errors=True
        )


def test_coco_as_cvat_and_roboflow_import_it(tmp_path):
    said, out = back("coco", tmp_path)
    assert OUTSIDE in said
    same(exports.read_back(out))
    data = json.loads((out / "annotations/person_keypoints_default.json").read_text())
    assert [c["id"] for c in data["categories"]] == [1]
    assert data["categories"][0]["skeleton"] == [[1, 2], [1, 3]]
    assert {v for a in data["annotations"] for v in a["keypoints"][2::3]} == {0, 2}
    assert (out / "images/default/a/1.png").resolve().is_file()
    # The data set is taken back too.
    convert.to_tool("yolo-pose", out, tmp_path / "yolo", Options(copy=True))
    _, found = exports.convert_from("yolo-pose", tmp_path / "yolo", tmp_path / "again")
    same(found)
    assert not (tmp_path / "yolo/images/train/a/1.png").is_symlink()


def test_yolo_pose(tmp_path):
    said, out = back("yolo-pose", tmp_path)
    assert OUTSIDE in said
    _, found = exports.convert_from("yolo-pose", out, tmp_path / "again")
    same(found)
    (category,) = exports.categories(tmp_path / "again")
    assert category["name"] == "fly" and category["keypoints"] == list(FLY.names)
    keypoints = json.loads((tmp_path / "again/keypoints.json").read_text())
    assert keypoints["flip_pairs"] == [[1, 2]]


def test_deeplabcut(tmp_path):
    said, out = back("deeplabcut", tmp_path)
    assert "deeplabcut.convertcsv2h5" in said
    lines = (out / "labeled-data/a/CollectedData_pose_jax.csv").read_text().splitlines()
    assert lines[1].startswith("individuals,,,animal1") and len(lines) == 5
    _, found = exports.convert_from("deeplabcut", out, tmp_path / "again")
    same(found, outside=True)


def test_sleap(tmp_path):
    pytest.importorskip("sleap_io")
    said, out = back("sleap", tmp_path)
    assert "3 instances" in said
    path = out / "labels.slp"
    _, found = exports.convert_from("sleap", path, tmp_path / "again", predicted=True)
    same(found, outside=True)
    with pytest.raises(InputError, match="--predicted takes predictions"):
        exports.convert_from("sleap", path, tmp_path / "again2")


# ------------------------------------------------------------------- what all tools share


def test_the_command_line(tmp_path, capsys):
    folder = predict(tmp_path / "predicted")
    line = [
        "data",
        "convert",
        "--to",
        "coco",
        str(folder),
        "--out",
        str(tmp_path / "o"),
    ]
    assert cli.main(line) == 0
    assert "3 people or animals in 2 images" in capsys.readouterr().out
    assert cli.main([*line, "--from", "cvat"]) == 2
    assert "either --from or --to" in capsys.readouterr().err
    assert cli.main([*line, "--interpolated"]) == 2
    assert (
        "--to coco takes no --interpolated; it takes --copy." in capsys.readouterr().err
    )
    assert cli.main(line) == 2
    assert "already exists" in capsys.readouterr().err
    assert cli.main(["data", "convert", "--from", "cvatt", "x", "--out", "y"]) == 2
    assert "Did you mean 'cvat'?" in capsys.readouterr().err


def test_the_help_names_every_tool(capsys):
    with pytest.raises(SystemExit):
        cli.main(["data", "convert", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    readable, writable = out.split("--to TOOL")[-2:]
    assert all(name in readable for name in convert.READABLE)
    assert all(name in writable for name in convert.WRITABLE)


def test_files_of_another_tool_are_recognized(tmp_path):
    test_cvat.write(tmp_path / "in", "")
    with pytest.raises(
        InputError, match="is not of SLEAP but of CVAT: use --from cvat"
    ):
        exports.convert_from("sleap", tmp_path / "in", tmp_path / "o")
    with pytest.raises(InputError, match=r"gone does not exist"):
        exports.convert_from("sleap", tmp_path / "gone", tmp_path / "o")
    (tmp_path / "coco/annotations").mkdir(parents=True)
    with pytest.raises(InputError, match="looks like COCO, which is read as it is"):
        exports.convert_from("cvat", tmp_path / "coco", tmp_path / "o")
    with pytest.raises(InputError, match="is neither a folder that `predict"):
        convert.to_tool("coco", tmp_path / "in", tmp_path / "o")


def test_two_images_of_one_name_and_images_elsewhere_are_refused(tmp_path):
    folder = predict(tmp_path / "predicted")
    with pytest.raises(ConfigError, match="does not hold"):
        images = tmp_path / "predicted"
        convert.to_tool("label-studio", folder, tmp_path / "o", Options(images=images))
    info = json.loads((folder / "predictions_info.json").read_text())
    info["images"][1]["file_name"] = info["images"][0]["file_name"]
    (folder / "predictions_info.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match=r"two images would have the name 'a/1\.png'"):
        convert.to_tool("coco", folder, tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_boxes_made_from_keypoints_are_called_so(tmp_path):
    from pose_jax.data import coco

    folder = tmp_path / "in"
    pose = test_cvat.skeleton(
        {"ear": test_cvat.at("10,14"), "tail": test_cvat.at("20,14")}
    )
    test_cvat.write(folder, test_cvat.image("a.png", pose))
    exports.picture(folder / "a.png")
    _, found = exports.convert_from("cvat", folder, tmp_path / "out")
    # No side is shorter than a pixel.
    assert found["train/a.png"][0]["box"] == (10, 13.5, 10, 1)
    mouse = KeypointSet("mouse", ("snout", "ear", "tail"), (), ((0, 2), (0, 1)))
    table = coco.load(tmp_path / "out", "train", keypoints=mouse)
    assert table.box_source == "joint_boxes" and len(table) == 1
    assert coco.box_source({"info": None}) == "gt_boxes"
