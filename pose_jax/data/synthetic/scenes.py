"""Synthetic people: COCO-style images and exact labels, from a seed.

Articulated 3D bodies (meters) seen by a perspective camera, drawn into a depth buffer.
Labels are in the image frame: points (x, y) with integer pixel centers, projections of
the joint centers; boxes and polygons in pixel edges: pixel i covers [i, i + 1].

Visibility is COCO's: 2 where the joint's own surface is visible at its pixel, 1 where
something is in front of it (another limb, another person, clutter), 0 with x = y = 0
outside the frame. As in COCO's annotations, an eye, ear or nose behind its own head is 0,
and so are all joints of a person who is hardly visible.

Left and right look the same, so only front and back distinguish them: face, hair, shirt
front, belt buckle, trouser pockets, backpack, and the direction of shoes and joints.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import multiprocessing
import signal
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from pose_jax import writing
from pose_jax.data.synthetic import bodies, raster
from pose_jax.errors import ConfigError, InputError, one_line
from pose_jax.keypoints import COCO

VERSION = 2
"""Version of the images: within a version a seed always gives the same bytes."""

_TO_CAMERA = np.diag([1.0, -1, -1])
# Maximum depth of a joint below its skin or clothes, in units of body height.
_DEPTH = {"nose": 0.03, "eye": 0.02, "ear": 0.035, "shoulder": 0.06, "elbow": 0.045,
          "wrist": 0.04, "hip": 0.1, "knee": 0.06, "ankle": 0.055}  # fmt: skip
_TOLERANCE = np.array([_DEPTH[name.split("_")[-1]] for name in COCO.names])


@dataclasses.dataclass(frozen=True)
class Person:
    """Annotation of one person, and two values for statistics.

    Attributes:
      points_xy: [17, 2] image frame; (0, 0) where not labeled.
      visibility: [17] 0, 1, 2.
      polygons: outlines [p, 2] of the visible parts, in pixel edges.
      area: number of visible pixels.
      box_xywh: tight box of these pixels.
      facing_deg: angle between chest and camera: 0 from the front, 180 from behind.
      cut: whether any joint is outside the frame.
    """

    points_xy: np.ndarray
    visibility: np.ndarray
    polygons: list[np.ndarray]
    area: float
    box_xywh: tuple[int, int, int, int]
    facing_deg: float
    cut: bool


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Distributions of image contents: probabilities of alternatives, and ranges.

    Attributes:
      people: probabilities of one, two, three and four people.
      poses: probabilities of `bodies.POSES`.
      pitches: probabilities of a camera that is level, above, below.
      turn_deg: maximum angle by which people turn away from the camera, either way.
      stature: minimum and maximum height of people, relative to the image height.
      across, down: positions of people's centers: a range of the width, and the standard
        deviation about half of the height.
      joints_seen: minimum number of a person's joints inside the image.
      clutter: probabilities of none, one, two and three objects.
    """

    people: tuple[float, ...]
    poses: tuple[float, ...]
    pitches: tuple[float, ...]
    turn_deg: float
    stature: tuple[float, float]
    across: tuple[float, float]
    down: float
    joints_seen: int
    clutter: tuple[float, ...]


# One upright, fully visible, front-facing person: a small network learns to localize the
# joints to a pixel or two in minutes.
_EASY = Scenes(
    people=(1, 0, 0, 0),
    poses=(0.6, 0.4, 0, 0, 0, 0, 0),
    pitches=(1, 0, 0),
    turn_deg=60,
    stature=(0.5, 0.85),
    across=(0.3, 0.7),
    down=0.04,
    joints_seen=17,
    clutter=(1, 0, 0, 0),
)
DIFFICULTIES = {
    "hard": Scenes(
        people=(0.4, 0.3, 0.18, 0.12),
        poses=bodies.POSE_SHARES,
        pitches=(0.4, 0.4, 0.2),
        turn_deg=180,
        stature=(0.3, 1.2),
        across=(0.06, 0.94),
        down=0.12,
        joints_seen=7,
        clutter=(0.25, 0.35, 0.25, 0.15),
    ),
    "easy": _EASY,
    # Several such people who occlude each other: a small network learns to detect and to
    # separate them in minutes on two CPU cores.
    "crowd": dataclasses.replace(
        _EASY,
        people=(0.15, 0.3, 0.3, 0.25),
        stature=(0.45, 0.85),
        across=(0.15, 0.85),
        clutter=(0.7, 0.3, 0, 0),
    ),
}
"""Kinds of images, by name."""


def draw(
    background: np.ndarray, actors: list[bodies.Actor], clutter: list[tuple], *,
    focal: float, light: np.ndarray,
) -> tuple[np.ndarray, list[Person]]:  # fmt: skip
    """Renders a scene and labels all people with a visible pixel.

    Args:
      background: uint8 [h, w, 3].
      actors: at Z > 0.
      clutter: capsules (a, b, radius at a, radius at b, color), camera frame, meters.
      focal: pixels.
      light: [3] unit vector toward the light, camera frame.

    Returns:
      image float32 [h, w, 3] in 0..255, and people in the order of `actors`.
    """
    canvas = raster.Canvas(background, focal, light)
    shapes = [raster.Limb(255, *thing) for thing in clutter]
    for number, actor in enumerate(actors, 1):
        shapes += bodies.shapes_of(actor, number)
    canvas.draw(shapes)
    people = [_label(canvas, actor, number) for number, actor in enumerate(actors, 1)]
    return canvas.rgb.reshape(background.shape), [p for p in people if p is not None]


def _label(canvas: raster.Canvas, actor: bodies.Actor, number: int) -> Person | None:
    mask = canvas.owner >> 1 == number
    area = int(np.count_nonzero(mask))
    if not area:
        return None
    body, limit = actor.skeleton, np.array(canvas.shape[::-1]) - 1
    joints = np.stack([body.joints[name] for name in COCO.names])
    joints = joints @ actor.rotation.T + actor.position
    xy = canvas.project(joints).round(2)
    inside = np.all((xy >= 0) & (xy <= limit), axis=1)
    column, row = np.clip(np.rint(xy), 0, limit).astype(int).T
    covered = canvas.depth[row, column] < joints[:, 2] - _TOLERANCE * body.height
    # Behind its own head: the line to the camera meets the slightly shrunk skull.
    way = -joints[:5] @ (actor.rotation @ body.frames["head"] / body.head_radii)
    along = (bodies.FACE * way).sum(1) / np.linalg.norm(way, axis=1)
    behind = (along < 0) & ((bodies.FACE**2).sum(1) - along**2 < 0.8)
    behind |= covered[:5] & (canvas.owner[row, column] == 2 * number + 1)[:5]
    labelled = inside & (area >= max(30, 0.01 * np.ptp(xy, axis=0).prod()))
    labelled[:5] &= ~behind
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    (y0, y1), (x0, x1) = rows[[0, -1]].tolist(), columns[[0, -1]].tolist()
    chest = actor.rotation @ body.frames["chest"] @ bodies.AHEAD
    cosine = -chest @ actor.position / np.linalg.norm(actor.position)
    return Person(
        points_xy=np.where(labelled[:, None], xy, 0.0),
        visibility=np.where(labelled, np.where(covered, 1, 2), 0),
        polygons=[p + (x0, y0) for p in raster.outline(mask[y0 : y1 + 1, x0 : x1 + 1])],
        area=float(area),
        box_xywh=(x0, y0, x1 + 1 - x0, y1 + 1 - y0),
        facing_deg=float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))),
        cut=bool((~inside).any()),
    )


def render(
    rng: np.random.Generator, *, size: tuple[int, int] = (320, 256),
    max_people: int = 4, difficulty: str = "hard",
) -> tuple[np.ndarray, list[Person]]:  # fmt: skip
    """Renders an image, uint8 [h, w, 3], of one to `max_people` people; returns both."""
    scenes = DIFFICULTIES[difficulty]
    (w, h), focal = size, (1.0, 1.4, 2.0)[rng.integers(3)] * size[1]

    def ray(x, y):
        return np.array([(x - 0.5) * w / focal, (y - 0.5) * h / focal, 1.0])

    pitches = (0.0, rng.uniform(8, 32), rng.uniform(-18, -6))  # Level, above, below.
    pitch = bodies.pick(rng, pitches, scenes.pitches)
    view = bodies.turn(z=rng.normal(0, 4)) @ bodies.turn(pitch) @ _TO_CAMERA
    count = min(max_people, bodies.pick(rng, (1, 2, 3, 4), scenes.people))
    actors, boxes = [], []
    for _ in range(count):
        body = bodies.sample_skeleton(rng, scenes.poses)
        look = bodies.sample_look(rng)
        middle = np.mean(list(body.joints.values()), 0)
        points = np.stack([body.joints[name] for name in COCO.names]) - middle
        for _ in range(30):
            low, high = scenes.stature
            high = high if count < 3 else min(high, 0.9)
            share = np.exp(rng.uniform(np.log(low), np.log(high)))
            depth = focal * body.height / (share * h)
            yaw = rng.uniform(-scenes.turn_deg, scenes.turn_deg)
            rotation = view @ bodies.turn(y=yaw)
            across, down = rng.uniform(*scenes.across), rng.normal(0.5, scenes.down)
            center = depth * ray(across, down)
            joints = points @ rotation.T + center
            xy = (
                joints[:, :2] * (focal / joints[:, 2:]) / size
            )  # -1/2 to 1/2 is inside.
            seen = (np.abs(xy) < 0.49).all(1).sum()
            good = joints[:, 2].min() > 0.25 and seen >= scenes.joints_seen
            low, high = xy.min(0), xy.max(0)
            for z, low2, high2 in boxes:
                shared = np.maximum(np.minimum(high, high2) - np.maximum(low, low2), 0)
                farther = high - low if depth > z else high2 - low2
                good &= shared.prod() < 0.6 * farther.prod()
                good &= shared.prod() == 0 or abs(depth - z) > 0.5
            if good:
                at = center - rotation @ middle
                actors.append(bodies.Actor(body, look, rotation, at))
                boxes.append((depth, low, high))
                break
    clutter = []
    for _ in range(bodies.pick(rng, (0, 1, 2, 3), scenes.clutter)):
        depth = boxes[rng.integers(len(boxes))][0] * rng.uniform(0.5, 1.2)
        way = ray(rng.uniform(0, 1), rng.normal(0.65, 0.2))
        clutter += raster.clutter(rng, way, depth)
    light = np.array([rng.normal(0, 0.6), -0.7, rng.uniform(-0.9, -0.2)])
    light /= np.linalg.norm(light)
    background = raster.background(rng, size)
    for things in (clutter, []):  # At least one person must be visible.
        image, people = draw(background, actors, things, focal=focal, light=light)
        if people:
            break
    return raster.photograph(rng, image), people


def _write_image(job: tuple[Path, int, list[int], dict]) -> list[dict]:
    """Writes one image; returns its annotations."""
    path, image_id, seed, options = job
    image, people = render(np.random.default_rng(seed), **options)
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=90)
    writing.write(path, content.getvalue())
    return [
        {
            "segmentation": [p.round(1).reshape(-1).tolist() for p in person.polygons],
            "num_keypoints": int((person.visibility > 0).sum()),
            "area": person.area,
            "iscrowd": 0,
            "keypoints": [
                value
                for xy, v in zip(person.points_xy, person.visibility, strict=True)
                for value in (*xy.tolist(), int(v))
            ],
            "image_id": image_id,
            "bbox": list(person.box_xywh),
            "category_id": 1,
            "id": 10 * image_id + number,
        }
        for number, person in enumerate(people)
    ]


def _write_images(jobs: list, workers: int) -> list[list[dict]]:
    if workers == 1:
        return [_write_image(job) for job in jobs]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        with _ignore_interrupts():
            annotations = pool.map(_write_image, jobs, chunksize=16)
        return list(annotations)


@contextlib.contextmanager
def _ignore_interrupts() -> Iterator[None]:
    """Ignores Ctrl-C while processes are started, which inherit that.

    It is sent to all processes of a terminal, but only the first one reports it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def write_coco(
    out: Path, *, split: str, count: int, seed: int, size: tuple[int, int] = (320, 256),
    first_id: int = 1, workers: int = 1, difficulty: str = "hard",
) -> Path:  # fmt: skip
    """Writes a split in COCO's layout: `out/train2017/*.jpg` and its keypoint file.

    Image i depends on (seed, split, i, size, difficulty) only, not on the count or the
    workers.

    Returns:
      The keypoint file, which is written last.
    """
    folder = Path(out) / f"{split}2017"
    path = Path(out) / "annotations" / f"person_keypoints_{split}2017.json"
    folder.mkdir(parents=True, exist_ok=True)
    images = [
        {"file_name": f"{i:012d}.jpg", "height": size[1], "width": size[0], "id": i}
        for i in range(first_id, first_id + count)
    ]
    stream = [seed, zlib.crc32(split.encode())]
    options = {"size": size, "difficulty": difficulty}
    jobs = [
        (folder / image["file_name"], image["id"], [*stream, index], options)
        for index, image in enumerate(images)
    ]
    annotations = _write_images(jobs, workers)
    skeleton = [(i + 1, j + 1) for i, j in COCO.skeleton]
    person = {"supercategory": "person", "id": 1, "name": "person"}
    person |= {"keypoints": COCO.names, "skeleton": skeleton}
    content = {
        "info": {"description": "pose_jax synthetic people", "version": str(VERSION)},
        "licenses": [],
        "images": images,
        "annotations": list(itertools.chain.from_iterable(annotations)),
        "categories": [person],
    }
    writing.write(path, json.dumps(content, separators=(",", ":")))
    return path


def write_dataset(
    out: Path, *, n: int, seed: int, val: int | None = None,
    size: tuple[int, int] = (320, 256), workers: int = 1, difficulty: str = "hard",
) -> str:  # fmt: skip
    """Writes train2017 with n images and val2017 with `val` (default: an eighth of n).

    Returns:
      One line that says what was done: nothing, if `out` holds this data set already.

    Raises:
      InputError: `out` holds another set, or cannot be written.
      ConfigError: no such difficulty, or `out` holds something else.
    """
    if difficulty not in DIFFICULTIES:
        known = ", ".join(DIFFICULTIES)
        raise ConfigError(f"no difficulty {difficulty!r}; there are {known}.")
    out, counts = Path(out), {"train": n, "val": max(1, n // 8) if val is None else val}
    manifest = {"generator": __name__, "version": VERSION, "seed": seed}
    if difficulty != "hard":
        manifest["difficulty"] = difficulty
    manifest = json.dumps({**manifest, **counts, "size": list(size)}, indent=2) + "\n"
    note = out / "synthetic.json"
    what = f"{n} + {counts['val']} images of synthetic people"
    if note.is_file():
        if (held := note.read_text()) != manifest:
            held = one_line(held)
            raise InputError(
                f"{out}: holds another set, {held}; choose another folder."
            )
        if all(
            (out / f"annotations/person_keypoints_{split}2017.json").is_file()
            and len(list((out / f"{split}2017").glob("*.jpg"))) == count
            for split, count in counts.items()
        ):
            return f"{out} holds these {what} already; nothing to do."
        writing.check(out)
    else:
        writing.check_new(out)
    writing.write(note, manifest)
    for split, first_id in (("train", 1), ("val", n + 1)):
        which = {"split": split, "count": counts[split], "first_id": first_id}
        which |= {"size": size, "difficulty": difficulty}
        write_coco(out, **which, seed=seed, workers=workers)
    return f"Wrote {what} to {out}."
