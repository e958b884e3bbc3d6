"""CVAT's XML: skeletons by name, keyframes, splits; and files that are refused."""

import pytest

from pose_jax.errors import InputError
from tests.data.convert import exports

# Node 3 was deleted: ids of nodes are no positions.
SVG = (
    '<line data-type="edge" data-node-from="1" data-node-to="4"/>'
    '<line data-type="edge" data-node-from="1" data-node-to="2"/>'
    '<circle data-node-id="1" data-label-name="snout"/>'
    '<circle data-node-id="2" data-label-name="ear"/>'
    '<circle data-node-id="4" data-label-name="tail"/>'
)


def label(name, kind, svg="", parent=""):
    escaped = svg.replace("<", "&lt;").replace(">", "&gt;")
    parent = f"<parent>{parent}</parent>" if parent else ""
    return (
        f"<label><name>{name}</name><type>{kind}</type><svg>{escaped}</svg>{parent}"
        "</label>"
    )


MOUSE = label("mouse", "skeleton", SVG) + "".join(
    label(name, "points", parent="mouse") for name in ("snout", "ear", "tail")
)


def task(labels=MOUSE, more="", own_id=3):
    return f"<task><id>{own_id}</id>{more}<labels>{labels}</labels></task>"


def write(folder, body, meta=None):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "annotations.xml"
    path.write_text(
        "<?xml version='1.0'?><annotations><version>1.1</version>"
        f"<meta>{meta or task()}</meta>{body}</annotations>"
    )
    return path


def image(name, body, size=(64, 48), more=""):
    return (
        f'<image id="0" name="{name}" width="{size[0]}" height="{size[1]}" {more}>'
        f"{body}</image>"
    )


def skeleton(points, more=""):
    body = "".join(f'<points label="{n}" {rest}/>' for n, rest in points.items())
    return f'<skeleton label="mouse" {more}>{body}</skeleton>'


def at(xy, outside=0, occluded=0, more=""):
    return f'points="{xy}" outside="{outside}" occluded="{occluded}" {more}'


def test_points_are_known_by_name_and_edges_by_node(tmp_path):
    pose = skeleton(
        {
            "tail": at("40,30", outside=1, occluded=1),
            "ear": at("10,14", occluded=1),
            "snout": at("12.5,9.25"),
        }
    )
    away = skeleton({n: at("1,1", outside=1) for n in ("snout", "ear", "tail")})
    feeder = '<box label="feeder" xtl="50" ytl="2" xbr="62" ybr="11"/>'
    write(tmp_path / "in", image("night/a.png", pose + away + feeder))
    exports.picture(tmp_path / "in/images/night/a.png")
    said, found = exports.convert_from("cvat", tmp_path / "in", tmp_path / "out")
    (person,) = found["train/night/a.png"]
    assert person["points"] == {
        "snout": (12.5, 9.25, 2), "ear": (10, 14, 1), "tail": (0, 0, 0),
    }  # fmt: skip
    assert person["box"] == (10, 9.25, 2.5, 4.75)
    (category,) = exports.categories(tmp_path / "out")
    assert category["keypoints"] == ["snout", "ear", "tail"]
    assert category["skeleton"] == [[1, 3], [1, 2]]
    assert "1 box made from keypoints: metrics say @joint_boxes" in said
    assert "left out: 1 shape box 'feeder', not a skeleton" in said
    assert "left out: 1 skeleton 'mouse' with every point outside" in said
    link = tmp_path / "out/train/night/a.png"
    assert link.is_symlink() and link.resolve().is_file()


def test_a_box_of_the_same_group_is_that_of_the_skeleton(tmp_path):
    pose = skeleton({"ear": at("10,14"), "tail": at("20,20")}, 'group_id="7"')
    box = '<box label="mouse" group_id="7" xtl="5" ytl="2" xbr="62" ybr="11"/>'
    write(tmp_path, image("a.png", box + pose))
    exports.picture(tmp_path / "a.png")
    said, found = exports.convert_from("cvat", tmp_path, tmp_path / "out", copy=True)
    assert found["train/a.png"][0]["box"] == (5, 2, 57, 9)
    assert "joint_boxes" not in said
    assert not (tmp_path / "out/train/a.png").is_symlink()


def test_plain_points_need_names(tmp_path):
    shape = '<points label="mouse" occluded="{}" points="{}"/>'
    good, other = shape.format(0, "1,2;5,6"), shape.format(0, "1,2;5,6;7,8")
    meta = task(label("mouse", "points"))
    path = write(tmp_path, image("a.png", good + other), meta)
    exports.picture(tmp_path / "a.png")
    with pytest.raises(InputError, match="--names A,B"):
        exports.convert_from("cvat", path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    names = ("snout", "tail")
    said, found = exports.convert_from("cvat", path, tmp_path / "out", names=names)
    (person,) = found["train/a.png"]
    assert person["points"] == {"snout": (1, 2, 2), "tail": (5, 6, 2)}
    assert "1 shape of points 'mouse', with another number of points" in said


def frame(number, points, key=0):
    return skeleton(points, f'frame="{number}" keyframe="{key}"')


def track(body, own_id=0, more=""):
    return f'<track id="{own_id}" label="mouse" {more}>{body}</track>'


KEY = 'keyframe="1"'
NOT = 'keyframe="0"'
FILM = track(
    frame(0, {"ear": at("10,10", more=KEY), "tail": at("30,30", more=KEY)}, 1)
    + frame(1, {"ear": at("11,11", more=NOT), "tail": at("30,30", more=NOT)})
    # A keyframe of one point alone; the skeleton says 0.
    + frame(2, {"ear": at("12,12", more=KEY), "tail": at("30,30", more=NOT)})
    # The tail is outside since the last keyframe, and absent.
    + frame(3, {"ear": at("13,13", more=KEY), "snout": at("1,1", more=KEY)}, 1)
    + frame(4, {n: at("1,1", outside=1, more=KEY) for n in ("ear", "tail")}, 1)
)


@pytest.mark.parametrize("interpolated", [False, True])
def test_keyframes_of_any_point_count(tmp_path, interpolated):
    write(tmp_path, FILM, task(more="<original_size><width>64</width><height>48</height>"
                               "</original_size><source>mice.mp4</source>"))  # fmt: skip
    for i in range(5):
        exports.picture(tmp_path / f"images/frame_{i:06d}.PNG")
    said, found = exports.convert_from(
        "cvat", tmp_path, tmp_path / "out", interpolated=interpolated
    )
    frames = [0, 1, 2, 3] if interpolated else [0, 2, 3]
    assert list(found) == [f"train/frame_{i:06d}.PNG" for i in frames]
    last = found["train/frame_000003.PNG"][0]
    assert exports.points(last) == {"snout": (1, 1, 2), "ear": (13, 13, 2)}
    assert last["track"] == "0"
    assert ("1 interpolated pose between keyframes" in said) != interpolated


def test_frames_of_two_videos_are_told_apart(tmp_path):
    """Their names have no ending and repeat; subsets are splits."""
    tasks = [
        task(more=f"<name>film{i}</name><subset>{subset}</subset>", own_id=i)
        for i, subset in enumerate(("Train", "Train", "default"))
    ]
    pose = skeleton({"ear": at("10,14"), "tail": at("20,20")})
    images = [
        image("frame_000000", pose, more=f'task_id="{i}" subset="{subset}"')
        for i, subset in enumerate(("Train", "Train"))
    ]
    film = track(frame(0, {"ear": at("1,2"), "tail": at("30,30")}, 1), 0, 'task_id="2"')
    write(tmp_path, "".join(images) + film, f"<project>{''.join(tasks)}</project>")
    for i in range(3):
        folder = "Train/" if i < 2 else ""
        exports.picture(tmp_path / f"images/{folder}film{i}/frame_000000.png")
    said, found = exports.convert_from("cvat", tmp_path, tmp_path / "out", split="val")
    assert sorted(found) == [
        "Train/frame_000000.png", "Train/frame_000000_1.png", "val/frame_000000.png",
    ]  # fmt: skip
    files = [(tmp_path / "out" / name).resolve().parent.name for name in sorted(found)]
    assert files == ["film0", "film1", "film2"]
    assert "--config.data.train.split" not in said


ANOTHER = {
    "cut": (b"<annotations><meta></meta><image", "is no complete XML"),
    "zip": (b"PK\x03\x04rest", "is a ZIP archive: unpack it"),
    "voc": (b"<annotation><folder>x</folder></annotation>", "another XML file"),
    "empty": (b"", "is no complete XML"),
}


@pytest.mark.parametrize("name", ANOTHER)
def test_other_files_are_named(tmp_path, name):
    content, reason = ANOTHER[name]
    (tmp_path / "annotations.xml").write_bytes(content)
    with pytest.raises(InputError, match=rf"annotations\.xml.*{reason}"):
        exports.convert_from("cvat", tmp_path, tmp_path / "out")


def test_boxes_alone_and_missing_fields_are_refused(tmp_path):
    box = '<box label="mouse" xtl="5" ytl="2" xbr="62" ybr="11"/>'
    write(tmp_path, image("a.png", box), task(label("mouse", "rectangle")))
    with pytest.raises(
        InputError, match="no skeletons and no points, only box 'mouse'"
    ):
        exports.convert_from("cvat", tmp_path, tmp_path / "out")
    write(tmp_path, image("a.png", '<skeleton label="mouse"><points/></skeleton>'))
    with pytest.raises(InputError, match=r"not as CVAT writes it \(no 'points'\)"):
        exports.convert_from("cvat", tmp_path, tmp_path / "out")


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    pose = skeleton({"ear": at("10,nan"), "tail": at("20,20")})
    write(tmp_path, image("a.png", pose))
    exports.picture(tmp_path / "a.png")
    with pytest.raises(
        InputError, match=r"a\.png has a point or a box that is not fin"
    ):
        exports.convert_from("cvat", tmp_path, tmp_path / "out")


def test_images_that_are_not_there(tmp_path):
    pose = skeleton({"ear": at("10,14"), "tail": at("20,20")})
    write(tmp_path, image("a.png", pose) + image("b.png", pose))
    with pytest.raises(
        InputError, match=r"none of its 2 images is in .*a\.png, b\.png"
    ):
        exports.convert_from("cvat", tmp_path, tmp_path / "out")
    exports.picture(tmp_path / "b.png")
    said, found = exports.convert_from("cvat", tmp_path, tmp_path / "out")
    assert list(found) == ["train/b.png"]
    assert "left out: 1 image not found in" in said and "(a.png)" in said
    exports.picture(tmp_path / "a.png", (32, 24))
    said, _ = exports.convert_from("cvat", tmp_path, tmp_path / "out2")
    assert "1 image of another size than the export says (first: a.png)" in said
