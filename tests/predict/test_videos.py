"""`pose-jax predict VIDEO` without a network: results, stops, csv, ids, suggestions."""

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pose_jax import cli
from pose_jax.data import video
from pose_jax.keypoints import COCO, LSP
from pose_jax.predict import People, Person, estimator, suggest, videos
from pose_jax.predict import run as run_lib

pytest.importorskip("av", reason="PyAV is not installed")
K = 17


class MadeUp:
    """An estimator: the brightness of a frame says where its people stand.

    Frame i of `film` has brightness 4 i + 8; its first person stands at (i, i).
    """

    keypoints, category_id, digest = COCO, 1, "weights"

    def __init__(self):
        self.frames, self.before = 0, lambda: None
        self.scores, self.many, self.wrong = {}, {}, set()

    def person(self, i, place):
        low = np.array([i % 40 + 50 * place, i % 40], float)
        points_xy = low + np.linspace(0, 20, K)[:, None] * [[1, 2]]
        if i in self.wrong:
            points_xy[3, 0] = np.nan
        box = np.r_[low, low + (20, 40)]
        score = self.scores.get(i, 0.9)
        return Person(points_xy, np.full(K, score), score, box)

    def __call__(self, images, passes=1):
        found = []
        for image in images:
            self.before()
            self.frames += 1
            i = round((image.mean() - 8) / 4)
            found.append(People(self.person(i, j) for j in range(self.many.get(i, 1))))
        return found


@pytest.fixture
def network(monkeypatch):
    found = MadeUp()
    monkeypatch.setattr(run_lib, "load", lambda *_, **__: found)
    return found


def film(path, count=40, size=(64, 48), fps=25):
    with video.writer(path, fps) as add:
        for i in range(count):
            add(np.full((size[1], size[0], 3), 4 * i + 8, np.uint8))
    return path


def run(out, *words):
    return cli.main(["predict", "--run", "RUN", "--out", str(out), *map(str, words)])


def people_of(out):
    return json.loads((out / "predictions.json").read_text())


def test_what_is_written(network, tmp_path, capsys):
    path, out = film(tmp_path / "film.mp4"), tmp_path / "out"
    assert run(out, path) == 0
    said, err = capsys.readouterr()
    assert "each frame is treated as one person" in said
    assert f"40 people in 40 frames: {out}" in said and "note" not in err
    people = people_of(out)
    lines = (out / "predictions.jsonl").read_text().splitlines()
    assert list(map(json.loads, lines)) == people and len(people) == 40
    assert [p["image_id"] for p in people] == list(range(40))
    assert people[7]["keypoints"][:3] == [7.0, 7.0, 0.9]
    assert people[7]["file_name"] == "film.mp4" and "track_id" not in people[7]
    info = json.loads((out / "predictions_info.json").read_text())
    assert info["video"] == {
        "file_name": "film.mp4", "path": str(path), "width": 64, "height": 48,
        "fps": 25.0, "frames": 40,
    }  # fmt: skip
    drawn = list(video.open_video(out / "film_poses.mp4").read())
    plain = list(video.open_video(path).read())
    assert len(drawn) == 40
    difference = np.abs(drawn[9].astype(int) - plain[9]).max(-1)
    assert difference[9:40, 9:30].max() > 60 and difference[:4].max() < 20
    rows = list(csv.reader((out / "film_poses.csv").open()))
    assert [row[0] for row in rows[:3]] == ["scorer", "bodyparts", "coords"]
    assert rows[1][1:5] == ["nose"] * 3 + ["left_eye"]
    assert rows[2][1:5] == ["x", "y", "likelihood", "x"]
    assert rows[3 + 7][:4] == ["7", "7.0", "7.0", "0.9"] and len(rows) == 43
    # The same command does nothing again.
    before = network.frames
    assert run(out, path) == 0 and network.frames == before
    assert {p.name for p in out.iterdir()} == {
        "predictions.jsonl", "predictions.json", "predictions_info.json",
        "film_poses.mp4", "film_poses.csv",
    }  # fmt: skip


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_stopped_video_continues_and_gives_the_same(
    error, network, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(videos, "_PIECE", 15)
    path, out, other = film(tmp_path / "film.mp4"), tmp_path / "out", tmp_path / "other"
    assert run(other, path) == 0

    def stop():
        if network.frames == 20:
            raise error

    network.frames, network.before = 0, stop
    if error is KeyboardInterrupt:
        assert run(out, path) == 130
        assert "interrupted: 16 of 40 frames are done" in capsys.readouterr().out
    else:
        with pytest.raises(SystemExit):
            run(out, path)
    network.before = lambda: None
    # As if it had been killed while it was writing.
    with open(out / "predictions.jsonl", "a") as file:
        file.write('{"image_id": 16, "keyp')
    # The second stop comes while the video is drawn.
    real, count = videos._drawn, []

    def drawn(*arguments):
        count.append(1)
        if len(count) == 33:
            raise error
        return real(*arguments)

    monkeypatch.setattr(videos, "_drawn", drawn)
    code = None
    try:
        code = run(out, path)
    except SystemExit:
        pass
    assert code in (None, 130) and "continuing with frame 16" in capsys.readouterr().err
    assert run(out, path) == 0
    assert len(count) == 33 + 10  # Two pieces of 15 frames were kept.
    for name in ("predictions.json", "predictions.jsonl", "film_poses.csv"):
        assert (out / name).read_bytes() == (other / name).read_bytes()
    frames = [list(video.open_video(o / "film_poses.mp4").read()) for o in (out, other)]
    assert len(frames[0]) == len(frames[1]) == 40
    assert all(
        np.abs(a.astype(int) - b).mean() < 2 for a, b in zip(*frames, strict=True)
    )


def test_results_of_other_options_or_videos_are_not_mixed(network, tmp_path, capsys):
    path, out = film(tmp_path / "film.mp4", 20), tmp_path / "out"
    assert run(out, path) == 0
    assert run(out, path, "--passes", 2) == 1
    assert "has the results of film.mp4 with passes 1, not 2" in capsys.readouterr().err
    network.digest = "others"
    assert run(out, path) == 1
    assert "with weights weights, not others" in capsys.readouterr().err
    network.digest = "weights"
    assert run(out, film(tmp_path / "b.mp4", 21)) == 1
    assert "of film.mp4 with video" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    mine = tmp_path / "mine/film_poses.csv"
    mine.write_text("mine")
    assert run(tmp_path / "mine", path) == 1 and mine.read_text() == "mine"
    assert "was not written by pose-jax" in capsys.readouterr().err


def test_people_are_tracked(network, tmp_path, capsys):
    network.many = {i: 2 for i in range(40)} | {20: 1, 21: 1, 30: 0}
    path, out = film(tmp_path / "film.mp4"), tmp_path / "out"
    assert run(out, path, "--detector", "D") == 0
    assert "no csv: frame 0 has 2 people" in capsys.readouterr().err
    assert not (out / "film_poses.csv").exists()
    before = network.frames
    assert run(out, path, "--detector", "D", "--track") == 0
    assert network.frames == before  # Ids are made of the results.
    people = people_of(out)
    assert {p["track_id"] for p in people} == {1, 2}
    assert [p["track_id"] for p in people if p["image_id"] == 22] == [1, 2]
    rows = list(csv.reader((out / "film_poses.csv").open()))
    header = ["scorer", "individuals", "bodyparts", "coords"]
    assert [row[0] for row in rows[:4]] == header
    assert rows[1][1] == "individual1" and rows[1][1 + 3 * K] == "individual2"
    assert all(len(row) == 1 + 6 * K for row in rows) and len(rows) == 44
    assert rows[4 + 20][1 + 3 * K :] == ["NaN"] * 3 * K and rows[4 + 20][1] != "NaN"
    assert rows[4 + 30][1:] == ["NaN"] * 6 * K
    assert rows[4 + 22][1 + 3 * K] == "72.0"
    # A shorter gap makes new ids.
    assert run(out, path, "--detector", "D", "--track", "--gap", "1") == 0
    assert {p["track_id"] for p in people_of(out)} == {1, 2, 3}


def test_sets_without_sigmas_are_tracked_with_one_for_all(network, tmp_path, capsys):
    network.keypoints = LSP
    network.person = lambda i, place: Person(
        np.zeros((14, 2)), np.ones(14), 1.0, np.array([0.0, 0, 9, 9])
    )
    path = film(tmp_path / "film.mp4", 3)
    assert run(tmp_path / "out", path, "--detector", "D", "--track") == 0
    says = "'lsp' has no sigmas: people are tracked with 0.1 for each keypoint"
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--track", "--track is for several people"),
        ("--gap 3", "--gap is that of --track"),
        ("--track --detector D --gap -1", "--gap cannot be negative"),
        ("--suggest 0", "--suggest must be positive"),
        ("--boxes b.json", "--boxes is for images"),
    ],
)
def test_options_that_do_not_fit(words, says, network, tmp_path, capsys):
    path = film(tmp_path / "film.mp4", 2)
    assert run(tmp_path / "out", path, *words.split()) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_options_of_videos_and_mixed_inputs(network, tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    path = film(tmp_path / "film.mp4", 2)
    assert run(tmp_path / "out", tmp_path / "a.png", "--track") == 2
    assert "are for videos" in capsys.readouterr().err
    for words in ([path, tmp_path / "a.png"], [tmp_path / "a.png", path]):
        assert run(tmp_path / "out", *words) == 1
        err = capsys.readouterr().err
        assert "film.mp4 is a video, and" in err and err.count("\n") == 1


def test_several_videos_have_a_folder_each(network, tmp_path, capsys):
    for name in "ab":
        film(tmp_path / f"in/{name}.mp4", 3)
    (tmp_path / "in/c.mp4").write_bytes(b"none")
    assert run(tmp_path / "out", tmp_path / "in") == 1
    err = capsys.readouterr().err
    assert "c.mp4 cannot be read as a video" in err
    for name in "ab":
        assert len(people_of(tmp_path / "out" / name)) == 3
        assert (tmp_path / f"out/{name}/{name}_poses.mp4").is_file()
    assert not (tmp_path / "out/c").exists()
    assert run(tmp_path / "more", str(tmp_path / "in/[ab].mp4")) == 0


def test_a_video_that_cannot_be_read_is_one_line(network, tmp_path, capsys):
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 200)
    for name in ("film.mp4", "gone.mp4"):
        assert run(tmp_path / "out", tmp_path / name) == 1
        err = capsys.readouterr().err
        assert name in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists() and not network.frames


def test_the_readable_part_of_a_video_is_predicted(network, tmp_path, capsys):
    path, out = tmp_path / "film.mkv", tmp_path / "out"
    path.write_bytes(film(tmp_path / "film.mp4", 40).read_bytes())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 9 // 10])
    for _ in range(2):  # The second time from the results.
        assert run(out, path) == 1
        said, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if "error" in line]
        assert len(lines) == 1 and "film.mkv" in lines[0]
        count = len(people_of(out))
        assert 5 < count < 40 and f"{count} people in {count} frames" in said
        assert len(list(video.open_video(out / "film_poses.mp4").read())) == count


def test_values_that_are_not_finite_are_left_out_and_an_error(
    network, tmp_path, capsys
):
    network.wrong = {5}
    path = film(tmp_path / "film.mp4", 20)
    for _ in range(2):
        assert run(tmp_path / "out", path) == 1
        assert "1 people are left out" in capsys.readouterr().err
    assert len(people_of(tmp_path / "out")) == 19
    rows = list(csv.reader((tmp_path / "out/film_poses.csv").open()))
    assert rows[3 + 5][1:] == ["NaN"] * 3 * K


def test_an_animated_image_is_a_video_if_it_is_alone(network, tmp_path, monkeypatch):
    shades = [np.full((48, 64, 3), 4 * i + 8, np.uint8) for i in range(3)]
    first, *rest = map(Image.fromarray, shades)
    path = tmp_path / "film.gif"
    first.save(path, save_all=True, append_images=rest, duration=40)
    assert run(tmp_path / "out", path) == 0
    assert [p["image_id"] for p in people_of(tmp_path / "out")] == [0, 1, 2]
    monkeypatch.setattr(video, "can_write", lambda: False)
    assert run(tmp_path / "bare", path) == 0
    assert len(people_of(tmp_path / "bare")) == 3


# Suggestions.


@pytest.mark.parametrize(
    ("scores", "count", "frames"),
    [
        ([5, 1, 2, 9, 9, 9, 3, 9], 2, [1, 6]),  # 2 is close to 1.
        ([5, 1, 2, 9, 9, 9, 3, 9], 8, list(range(8))),
        ([5, 1, 2], 9, [0, 1, 2]),
        ([np.nan, 4, np.nan, 3], 1, [3]),
        ([1, 1, 1, 1], 2, [0, 1]),
        ([1] * 10, 2, [0, 3]),
        ([np.nan], 3, []),
        ([], 3, []),
    ],
)
def test_frames_of_low_score_apart(scores, count, frames):
    assert suggest.choose(scores, count).tolist() == frames


def test_there_are_always_as_many_as_asked_for():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n, count = rng.integers(1, 60, 2)
        scores = rng.uniform(size=n)
        scores[rng.uniform(size=n) < 0.3] = np.nan
        found = suggest.choose(scores, count)
        assert len(found) == min(count, (~np.isnan(scores)).sum())
        assert not np.isnan(scores[found]).any() and (np.diff(found) > 0).all()


def test_suggestions_are_images_with_poses(network, tmp_path, capsys):
    network.scores = {3: 0.1, 4: 0.15, 30: 0.2}
    path, out = film(tmp_path / "film.mp4"), tmp_path / "out"
    assert run(out, path, "--suggest", "2") == 0
    folder = out / "suggestions"
    assert f"2 frames to label next: {folder}" in capsys.readouterr().out
    names = ["film_000003.png", "film_000030.png"]
    assert sorted(p.name for p in (folder / "suggestions").iterdir()) == names
    pixels = np.asarray(Image.open(folder / "suggestions" / names[1]))
    np.testing.assert_array_equal(pixels, list(video.open_video(path).read())[30])
    people = people_of(folder)
    assert [(p["file_name"], p["image_id"]) for p in people] == [
        (names[0], 3), (names[1], 30),
    ]  # fmt: skip
    info = json.loads((folder / "predictions_info.json").read_text())
    assert [i["file_name"] for i in info["images"]] == names
    assert info["images"][0]["path"] == str(folder / "suggestions" / names[0])
    data = json.loads(
        (folder / "annotations/person_keypoints_suggestions.json").read_text()
    )
    assert data["images"][1] == {
        "id": 30, "file_name": names[1], "width": 64, "height": 48,
    }  # fmt: skip
    first, second = data["annotations"]
    assert first["keypoints"][:3] == [3, 3, 2] and first["num_keypoints"] == 17
    # Keypoints below the image are not labeled.
    assert second["keypoints"][-3:] == [0, 0, 0] and second["num_keypoints"] == 7
    (category,) = data["categories"]
    assert category["skeleton"][0] == [16, 14] and category["id"] == 1
    # Corrections are not replaced.
    (folder / "mine.txt").write_text("")
    assert run(out, path, "--suggest", "2") == 0 and (folder / "mine.txt").exists()
    assert run(out, path, "--suggest", "3") == 1
    assert "exists, with other suggestions" in capsys.readouterr().err


def test_the_digest_changes_with_any_weight_of_both_networks():
    def digest(*weights):
        people = object.__new__(estimator.Estimator)
        runs = [SimpleNamespace(variables={"a": np.array([w, 0.0])}) for w in weights]
        people._loaded, people._detector = runs[0], (*runs[1:], None)[0]
        return people.digest

    found = {digest(1), digest(2), digest(1, 1), digest(1, 2), digest(1)}
    assert len(found) == 4 and all(len(each) == 16 for each in found)


def test_every_command_of_the_page_is_accepted(network, tmp_path, monkeypatch):
    """With a made-up network; a slow test runs them with trained ones."""
    text = (Path(__file__).parents[2] / "docs/video.md").read_text()
    commands = re.findall(r"^pose-jax (.*)$", text, re.M)
    assert len(commands) == 3
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "film.mp4", 55)
    for i, command in enumerate(commands):
        words = [f"poses{i}" if word == "poses" else word for word in command.split()]
        assert cli.main(words) == 0
        assert (tmp_path / f"poses{i}/film_poses.csv").is_file()
    assert len(list((tmp_path / "poses2/suggestions/suggestions").iterdir())) == 50
