"""SLEAP: labels of users, predictions, images in the file; by sleap-io."""

import builtins

import numpy as np
import pytest

from pose_jax.data.convert import sleap
from pose_jax.errors import ConfigError, InputError
from tests.data.convert import exports

NAMES = ["thorax", "wing_a", "wing_b"]


@pytest.fixture
def sio():
    return pytest.importorskip("sleap_io")


def skeleton(sio):
    nodes = [sio.Node(name) for name in NAMES]
    return sio.Skeleton(
        nodes,
        [sio.Edge(nodes[0], nodes[1])],
        [sio.Symmetry([nodes[1], nodes[2]])],
        name="fly",
    )


USER = [[16.5, 12.75], [10.25, 8.5], [np.nan, np.nan]]
PREDICTED = [[16, 12], [11, 8], [30, 30]]


def write(sio, folder, embed=False):
    """Two labelled frames of three: one corrected by a user, one predicted only."""
    fly = skeleton(sio)
    paths = [
        exports.picture(folder / f"frames/{i}.png", shade=80 * i) for i in range(3)
    ]
    video = sio.Video.from_filename([str(path) for path in paths])
    predicted = [
        sio.PredictedInstance.from_numpy(np.array(PREDICTED, float), fly, score=0.8)
        for _ in range(2)
    ]
    user = sio.Instance.from_numpy(np.array(USER), fly, track=sio.Track("a"))
    user.from_predicted = predicted[0]
    frames = [
        sio.LabeledFrame(video, 1, [predicted[0], user]),
        sio.LabeledFrame(video, 2, [predicted[1]]),
    ]
    labels = sio.Labels(frames, videos=[video], skeletons=[fly])
    path = folder / ("flies.pkg.slp" if embed else "flies.slp")
    labels.save(str(path), embed="all" if embed else False, verbose=False)
    return path


@pytest.mark.parametrize("embed", [False, True])
def test_labels_of_users_and_predictions(tmp_path, sio, embed):
    path = write(sio, tmp_path / "in", embed)
    if embed:  # Nothing beside the file is needed.
        path = path.rename(tmp_path / "flies.pkg.slp")
    said, found = exports.convert_from("sleap", path, tmp_path / "o")
    ((name, (person,)),) = found.items()
    assert person["points"] == {
        "thorax": (16.5, 12.75, 2), "wing_a": (10.25, 8.5, 2), "wing_b": (0, 0, 0),
    }  # fmt: skip
    assert person["track"] == "a" and person["category"] == "fly"
    (category,) = exports.categories(tmp_path / "o")
    assert category["skeleton"] == [[1, 2]]
    assert (tmp_path / "o/keypoints.json").is_file()
    assert "2 predicted instances (--predicted takes" in said
    assert name == ("train/00_0/frame_000001.png" if embed else "train/1.png")
    from PIL import Image

    assert Image.open(tmp_path / "o" / name).getpixel((0, 0)) == 80

    said, found = exports.convert_from("sleap", path, tmp_path / "o2", predicted=True)
    assert [len(people) for people in found.values()] == [1, 1]
    assert "1 prediction that a user has corrected" in said


def test_before_format_1_1_points_are_moved_by_half_a_pixel(tmp_path, sio):
    import h5py
    from numpy.lib import recfunctions as rfn

    path = write(sio, tmp_path)
    with h5py.File(path, "r+") as file:
        file["metadata"].attrs["format_id"] = 1.0
        instances = file["instances"][:]
        del file["instances"]  # They had no score of tracking.
        columns = [name for name in instances.dtype.names if name != "tracking_score"]
        file["instances"] = rfn.repack_fields(instances[columns])
    _, found = exports.convert_from("sleap", path, tmp_path / "o")
    assert found["train/1.png"][0]["points"]["thorax"] == (16, 12.25, 2)


def test_a_video_that_is_not_there_and_half_a_file(tmp_path, sio):
    fly = skeleton(sio)
    video = sio.Video("/data/films/day2.mp4", open_backend=False)
    video.backend_metadata = {"type": "MediaVideo", "shape": [9, 48, 64, 1]}
    user = sio.Instance.from_numpy(np.array(USER), fly)
    labels = sio.Labels([sio.LabeledFrame(video, 5, [user])])
    path = tmp_path / "flies.slp"
    labels.save(str(path), verbose=False)
    with pytest.raises(InputError, match=r"frame 5 of /data/films/day2\.mp4"):
        exports.convert_from("sleap", path, tmp_path / "o")
    (tmp_path / "day2.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    with pytest.raises(InputError, match=r"day2\.mp4 cannot be read"):
        exports.convert_from("sleap", path, tmp_path / "o")
    assert not (tmp_path / "o").exists()
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="cannot be read as a file of SLEAP"):
        exports.convert_from("sleap", path, tmp_path / "o")


def test_without_sleap_io_one_line_names_the_extra(tmp_path, monkeypatch):
    found = builtins.__import__

    def absent(name, *rest):
        if name == "sleap_io":
            raise ImportError("No module named 'sleap_io'")
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    path = tmp_path / "flies.slp"
    path.write_bytes(b"\x89HDF")
    assert sleap.recognize(path)
    with pytest.raises(ConfigError, match=r"sleap-io.*pose_jax\[convert\]"):
        exports.convert_from("sleap", path, tmp_path / "o")
