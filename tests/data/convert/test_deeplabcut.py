"""DeepLabCut and lightning-pose: rows of three forms, several animals."""

import pytest

from pose_jax.errors import InputError
from tests.data.convert import exports

CONFIG = """
scorer: lab
project_path: D:\\mice
video_sets:
  D:\\mice\\videos\\day.mp4:
    crop: 0, 64, 0, 48
bodyparts:
- snout
- ear
- Tail
skeleton:
- - snout
  - Tail
"""
HEAD = (
    "scorer{0},lab,lab,lab,lab,lab,lab\nbodyparts{0},snout,snout,ear,ear,Tail,Tail\n"
    "coords{0},x,y,x,y,x,y\n"
)
ROWS = {
    "one column": (HEAD.format(""), "labeled-data/day/1.png"),
    "backslashes": (HEAD.format(""), "labeled-data\\day\\1.png"),
    "three columns": (HEAD.format(",,"), "labeled-data,day,1.png"),
}


def write(folder, *rows, name="day/CollectedData_lab.csv", config=CONFIG):
    path = folder / "labeled-data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(rows))
    if config:
        (folder / "config.yaml").write_text(config)
    return folder


@pytest.mark.parametrize("name", ROWS)
def test_rows(tmp_path, name):
    head, row = ROWS[name]
    empty = row.replace("1.png", "2.png")
    write(tmp_path, head, f"{row},1.5,2,,,10,20.25\n", f"{empty},,,,,,\n")
    for i in (1, 2, 3):
        exports.picture(tmp_path / f"labeled-data/day/{i}.png")
    said, found = exports.convert_from("deeplabcut", tmp_path, tmp_path / "o")
    ((image, (person,)),) = found.items()
    assert image == "train/1.png"
    assert person["points"] == {
        "snout": (1.5, 2, 2), "ear": (0, 0, 0), "Tail": (10, 20.25, 2),
    }  # fmt: skip
    assert person["box"] == (1.5, 2, 8.5, 18.25)
    (category,) = exports.categories(tmp_path / "o")
    assert category["skeleton"] == [[1, 3]]
    assert "1 image without a labelled point" in said and "joint_boxes" in said


def test_several_animals(tmp_path):
    head = (
        "scorer,,,lab,lab,lab,lab,lab,lab,lab,lab,lab,lab\n"
        "individuals,,,m1,m1,m1,m1,m2,m2,m2,m2,single,single\n"
        "bodyparts,,,nose,nose,back,back,nose,nose,back,back,bowl,bowl\n"
        "coords,,,x,y,x,y,x,y,x,y,x,y\n"
    )
    config = "scorer: lab\nbodyparts: MULTI!\nmultianimalbodyparts: [back, nose]\n"
    rows = [
        "labeled-data,day,1.png,1,2,11,12,3,4,13,14,5,6\n",
        "labeled-data,day,2.png,,,,,3,4,13,14,,\n",
        "labeled-data,day,3.png,3,,,,3,4,,,,\n",
    ]
    write(tmp_path, head, *rows, config=config)
    for i in (1, 2, 3):
        exports.picture(tmp_path / f"labeled-data/day/{i}.png")
    said, found = exports.convert_from("deeplabcut", tmp_path, tmp_path / "o")
    assert [p["track"] for p in found["train/1.png"]] == ["m1", "m2"]
    (second,) = found["train/2.png"]
    assert second["track"] == "m2"
    assert list(second["points"]) == ["back", "nose"]
    assert found["train/3.png"] == []  # One point has no extent.
    assert "individual 'single': bowl" in said
    assert "1 pose without a box and with fewer than two labelled points" in said


def test_a_file_of_lightning_pose_is_relative_to_its_folder(tmp_path):
    rows = [
        f"labeled-data/{s}/img1.png,1,2,,,10,20\n" for s in ("session0", "session1")
    ]
    path = tmp_path / "CollectedData.csv"
    path.write_text(HEAD.format("") + "".join(rows))
    for name in ("session0/img1", "session0/img2", "session1/img1"):
        exports.picture(tmp_path / f"labeled-data/{name}.png")
    _, found = exports.convert_from("deeplabcut", path, tmp_path / "o")
    assert list(found) == ["train/session0/img1.png", "train/session1/img1.png"]


def test_files_that_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        InputError, match=r"holds no labeled-data/\*/CollectedData\*.csv"
    ):
        exports.convert_from("deeplabcut", tmp_path / "empty", tmp_path / "o")
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no CSV file of DeepLabCut"):
        exports.convert_from("deeplabcut", path, tmp_path / "o")
    path.write_text("scorer,n,n,n\nbodyparts,a,a,a\ncoords,x,y,likelihood\n0,1,2,0.9\n")
    with pytest.raises(InputError, match="holds predictions"):
        exports.convert_from("deeplabcut", path, tmp_path / "o")
    path.write_text(HEAD.format("") + "labeled-data/day/1.png,1,2,,,,,\n")
    with pytest.raises(InputError, match="8 columns, the header has 7"):
        exports.convert_from("deeplabcut", path, tmp_path / "o")
    path.write_text(HEAD.format("") + "labeled-data/day/1.png,1,two,,,,\n")
    with pytest.raises(InputError, match="row 1 of the labels is not as DeepLabCut"):
        exports.convert_from("deeplabcut", path, tmp_path / "o")
