"""Synthetic people: COCO-style images and exact labels, from a seed.

Articulated 3D bodies (metres) seen by a perspective camera, drawn into a depth buffer.
Labels are in the image frame: points (x, y) with integer pixel centres, projections of
the joint centres; boxes and polygons in pixel edges: pixel i covers [i, i + 1].

Visibility is COCO's: 2 where the joint's own surface is what its pixel shows, 1 where
something is in front of it (another limb, another person, clutter), 0 with x = y = 0
outside the frame. Two habits of COCO's annotators are kept: an eye, ear or nose behind
its own head is 0, and so is everything of a person of whom hardly anything is seen.

Left and right wear the same, so only front and back tell them apart: face, hair, shirt
front, belt buckle, trouser pockets, backpack, and the way shoes and joints bend.

Body frame: x to the person's left, y up, z forward. Camera frame: x right, y down, z
ahead.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import json
import math
import multiprocessing
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from pose_jax.datasets import raster
from pose_jax.errors import InputError
from pose_jax.keypoints import COCO

VERSION = 2
"""Changes with the pictures: within one version a seed always gives the same bytes."""

_DOWN, _AHEAD = np.array([0, -1.0, 0]), np.array([0, 0, 1.0])
_TO_CAMERA = np.diag([1.0, -1, -1])
# Nose, eyes and ears on the unit sphere of the head, in COCO's order.
_FACE = np.array([(0, -0.12, 1.12), (0.36, 0.1, 0.93), (-0.36, 0.1, 0.93),
                  (1, -0.05, -0.08), (-1, -0.05, -0.08)])  # fmt: skip
# How far, in statures, a joint lies below its own skin or clothes at most.
_DEPTH = {"nose": 0.03, "eye": 0.02, "ear": 0.035, "shoulder": 0.06, "elbow": 0.045,
          "wrist": 0.04, "hip": 0.1, "knee": 0.06, "ankle": 0.055}  # fmt: skip
_TOLERANCE = np.array([_DEPTH[name.split("_")[-1]] for name in COCO.names])
# Centre and radii on the head's unit sphere.
_HEADWEAR = {"long": ((0, -0.3, -0.42), (1.05, 1.25, 0.75)),
             "bun": ((0, 0.5, -1.1), (0.45, 0.45, 0.45)),
             "cap": ((0, 0.45, 0.9), (0.75, 0.08, 0.8))}  # fmt: skip
# Degrees: flexion, abduction, outward twist of shoulder or hip; bend of elbow or knee.
_ARMS = (
    ((-15, 20), (4, 18), (-40, 10), (0, 35)),  # hanging
    ((-25, 0), (35, 55), (-80, -55), (80, 115)),  # hand on hip
    ((140, 175), (0, 30), (-30, 30), (0, 50)),  # raised
    ((-10, 20), (60, 110), (-20, 80), (0, 60)),  # out to the side
    ((50, 100), (-5, 30), (-40, 30), (0, 70)),  # reaching forward
    ((20, 45), (5, 25), (-70, -30), (80, 120)),  # before the chest
    ((20, 60), (10, 40), (-20, 20), (115, 145)),  # to the face
    ((-5, 15), (75, 105), (60, 100), (50, 110)),  # waving
)
_LEGS = {
    "stand": ((-8, 8), (0, 12), (-5, 25), (0, 12)),
    "sit": ((70, 100), (0, 28), (-5, 20), (55, 110)),
    "squat": ((90, 120), (8, 30), (0, 30), (100, 140)),
    "lunge": ((-25, 85), (0, 35), (-10, 25), (0, 100)),
}
_PATTERNS = ("plain", "plain", "plain", "rows", "columns", "checks")
_POSES = ("stand", "walk", "sit", "squat", "lunge", "bend", "lie")


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A posed body in the body frame: joints in metres, a rotation per bone."""

    height: float
    head_radii: np.ndarray
    joints: dict[str, np.ndarray]
    frames: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Actor:
    """A dressed skeleton before the camera: camera = rotation @ body + position."""

    skeleton: Skeleton
    look: SimpleNamespace
    rotation: np.ndarray
    position: np.ndarray


@dataclasses.dataclass(frozen=True)
class Person:
    """What the annotation file says of one person, and two facts for statistics.

    Attributes:
      points_xy: [17, 2] image frame; (0, 0) where not labelled.
      visibility: [17] 0, 1, 2.
      polygons: outlines [p, 2] of the pieces seen, in pixel edges.
      area: pixels seen.
      box_xywh: tight box of these pixels.
      facing_deg: between chest and camera: 0 from the front, 180 from behind.
      cut: some joint is outside the frame.
    """

    points_xy: np.ndarray
    visibility: np.ndarray
    polygons: list[np.ndarray]
    area: float
    box_xywh: tuple[int, int, int, int]
    facing_deg: float
    cut: bool


def _turn(x: float = 0, y: float = 0, z: float = 0) -> np.ndarray:
    """Rotation Rx @ Rz @ Ry, degrees."""
    x, y, z = math.radians(x), math.radians(y), math.radians(z)
    (a, b, c), (i, j, k) = map(math.cos, (x, y, z)), map(math.sin, (x, y, z))
    return np.array([[c * b, -k, c * j],
                     [a * k * b + i * j, a * c, a * k * j - i * b],
                     [i * k * b - a * j, i * c, i * k * j + a * b]])  # fmt: skip


def _pick(rng: np.random.Generator, options: Sequence, shares: Sequence[float]):
    """One of the options, with these shares; Generator.choice is far slower."""
    return options[bisect.bisect(list(itertools.accumulate(shares[:-1])), rng.random())]


def _sample_angles(rng: np.random.Generator) -> SimpleNamespace:
    def some(*ranges):
        return [rng.uniform(low, high) for low, high in ranges]

    kind = _pick(rng, _POSES, (0.36, 0.24, 0.11, 0.07, 0.11, 0.06, 0.05))
    shares = (0.3, 0.1, 0.12, 0.1, 0.12, 0.12, 0.07, 0.07)
    arms = [_pick(rng, _ARMS, shares), _pick(rng, _ARMS, shares)]
    if rng.random() < 0.4:
        arms[1] = arms[0]
    pose = SimpleNamespace(
        root=[rng.normal(0, 4), 0, rng.normal(0, 3)],
        spine=some((-8, 14), (-25, 25), (-9, 9)),
        head=some((-22, 22), (-45, 45), (-10, 10)),
        arms=[some(*arm) for arm in arms],
        legs=[some(*_LEGS.get(kind, _LEGS["stand"])) for _ in range(2)],
    )
    if kind == "walk":  # From a stroll to a run, arms against legs.
        stride, run = rng.uniform(15, 55) * rng.choice([-1, 1]), rng.random()
        for side, swing in enumerate((stride, -stride)):
            bend = some((5, 25)) if swing > 0 else some((5, 75))
            pose.legs[side][::3] = [swing if swing > 0 else 0.5 * swing, *bend]
            if rng.random() < 0.8:
                out, twist = some((5, 15), (-35, 0))
                pose.arms[side] = [-0.8 * swing, out, twist, 10 + 80 * run]
        pose.root[0] += 12 * run
    elif kind in ("squat", "bend"):
        pose.spine[0] = rng.uniform(10, 40)
        pose.root[0] = rng.uniform(0, 20) if kind == "squat" else rng.uniform(20, 50)
        for leg in pose.legs:
            leg[0] += pose.root[0] if kind == "bend" else 0
    elif kind == "lie":
        pose.root = [[90, 0, 0], [-90, 0, 0], [0, 0, 90], [0, 0, -90]][rng.integers(4)]
    return pose


def sample_skeleton(rng: np.random.Generator) -> Skeleton:
    """A body of random age and build in a random pose within joint limits.

    Elbows bend forward and knees backward, by 0 to 145 degrees; left and right bones
    are equally long.
    """
    pose = _sample_angles(rng)
    young = max(0.0, rng.uniform(-1.2, 1.0))
    height = rng.normal(1.7, 0.07) * (1 - 0.4 * young)
    size = {"hip": 0.056, "thigh": 0.245 - 0.03 * young, "shank": 0.24 - 0.03 * young,
            "torso": 0.29, "neck": 0.045, "shoulder": 0.115, "upper_arm": 0.168,
            "forearm": 0.148, "hand": 0.06, "foot": 0.1}  # fmt: skip
    spread = height * rng.uniform(0.93, 1.07, len(size))
    size = {k: v * s for (k, v), s in zip(size.items(), spread.tolist(), strict=True)}
    radii = np.array([0.045, 0.067, 0.056]) * height * (1 + 0.45 * young)
    pelvis = _turn(*pose.root)
    chest = pelvis @ _turn(*pose.spine)
    head = chest @ _turn(*pose.head)
    frames = {"pelvis": pelvis, "chest": chest, "head": head}
    joints = {"pelvis": np.zeros(3), "waist": -0.3 * size["torso"] * pelvis @ _DOWN}
    joints["neck"] = joints["waist"] - 0.7 * size["torso"] * chest @ _DOWN
    throat = joints["neck"] - size["neck"] * chest @ _DOWN
    joints["head"] = throat + head @ (radii * (0, 0.85, 0.2))
    for name, place in zip(COCO.names, _FACE, strict=False):
        joints[name] = joints["head"] + head @ (place * radii)
    chains = (
        ("neck", chest, pose.arms, -1, 0.02, "shoulder upper_arm elbow forearm wrist"),
        ("pelvis", pelvis, pose.legs, 1, 0, "hip thigh knee shank ankle"),
    )
    for side, (who, sign) in enumerate((("left_", 1), ("right_", -1))):
        for base, body, limbs, bend, drop, names in chains:
            top, upper, middle, lower, end = names.split()
            flexion, abduction, twist, hinge = limbs[side]
            first = body @ _turn(-flexion, sign * twist, sign * abduction)
            second = first @ _turn(bend * hinge)
            offset = body @ [sign * size[top], -drop * height, 0]
            joints[who + top] = joints[base] + offset
            joints[who + middle] = joints[who + top] + size[upper] * first @ _DOWN
            joints[who + end] = joints[who + middle] + size[lower] * second @ _DOWN
            frames[who + upper], frames[who + lower] = first, second
        hand = size["hand"] * frames[who + "forearm"] @ _DOWN
        foot = frames[who + "shank"] @ _turn(rng.normal(0, 8))
        joints[who + "hand"] = joints[who + "wrist"] + hand
        joints[who + "heel"] = joints[who + "ankle"] + 0.022 * height * foot @ _DOWN
        joints[who + "toe"] = joints[who + "heel"] + size["foot"] * foot @ _AHEAD
    return Skeleton(height, radii, joints, frames)


def sample_look(rng: np.random.Generator) -> SimpleNamespace:
    """Build, clothes, skin and hair; the same on both sides of the body."""
    hair = [(25, 20, 18), (70, 45, 28), (150, 110, 60), (120, 60, 30), (190, 190, 190)]
    return SimpleNamespace(
        stout=rng.uniform(0.85, 1.25), loose=rng.uniform(0.9, 1.25),
        skin=raster.skin(rng),
        hair=np.float32(hair[rng.integers(5)]) * np.float32(rng.uniform(0.8, 1.2)),
        hair_line=_pick(rng, (0.05, 0.17, 0.8), (0.6, 0.3, 0.1)),
        beard=rng.random() < 0.15, backpack=rng.random() < 0.15,
        style=_pick(rng, ("short", "long", "bun", "cap"), (0.42, 0.26, 0.1, 0.22)),
        shirt=raster.colour(rng), accent=raster.colour(rng), buttons=rng.random() < 0.6,
        pattern=_PATTERNS[rng.integers(6)], stripe=rng.uniform(0.012, 0.04),
        sleeve=_pick(rng, (0.15, 0.6, 2), (0.1, 0.4, 0.5)),
        trousers=raster.colour(rng, 0.4), trouser_leg=_pick(rng, (0.7, 2), (0.35, 0.65)),
        shoes=raster.colour(rng), hat=raster.colour(rng),
    )  # fmt: skip


def _shirt(look: SimpleNamespace, x, y, front) -> np.ndarray:
    """Colours of shirt points; x, y from the waist, in statures."""
    rows, columns = np.floor(y / look.stripe) % 2, np.floor(x / look.stripe + 0.5) % 2
    dark = {"rows": rows, "columns": columns, "checks": rows * columns}
    dark = dark.get(look.pattern, np.zeros_like(x))[:, None]
    rgb = np.where(dark > 0, look.accent, look.shirt)
    if look.buttons:
        rgb[front & (np.abs(x) < 0.013)] = 0.5 * look.shirt
        rgb[front & (np.abs(x) < 0.009) & (y % 0.04 < 0.016)] = 255 - look.shirt
    else:
        rgb[front & (np.abs(x) < 0.045) & (np.abs(y - 0.12) < 0.03)] = 255 - look.shirt
    rgb[front & (y > 0.15) & (np.abs(x) < (y - 0.15) * 0.9)] = look.skin
    return rgb


def _trousers(look: SimpleNamespace, unit: np.ndarray) -> np.ndarray:
    x, y, z = unit
    rgb = np.tile(look.trousers, (x.size, 1))
    rgb[y > 0.55] *= 0.35  # The belt, its buckle in front, the pockets behind.
    rgb[(y > 0.5) & (np.abs(x) < 0.16) & (z > 0)] = (225, 205, 120)
    rgb[(np.abs(np.abs(x) - 0.45) < 0.2) & (np.abs(y) < 0.3) & (z < 0)] *= 0.55
    return rgb


def _face(look: SimpleNamespace, unit: np.ndarray) -> np.ndarray:
    x, y, z = unit
    side, front, rgb = np.abs(x), z > 0, np.tile(look.skin, (x.size, 1))
    rgb[(side < 0.3) & (np.abs(y + 0.5) < 0.055) & front] = (150, 50, 55)
    if look.beard:
        rgb[(y < -0.32) & (z > 0.1) & ((side > 0.25) | (y < -0.58))] = look.hair
    eye = side - 0.36
    rgb[front & ((eye / 0.2) ** 2 + ((y - 0.1) / 0.12) ** 2 < 1)] = 245
    rgb[front & (eye**2 + (y - 0.1) ** 2 < 0.012)] = (25, 20, 20)
    rgb[front & (np.abs(eye) < 0.2) & (np.abs(y - 0.32) < 0.05)] = look.hair
    rgb[0.75 * y - 0.8 * z > look.hair_line] = look.hair
    if look.style == "cap":
        rgb[y > 0.42 - 0.1 * z] = look.hat
    return rgb


def _shapes(actor: Actor, number: int) -> list[raster.Limb | raster.Ball]:
    """One person's shapes; the head has an owner of its own."""
    look, body, h, shapes = actor.look, actor.skeleton, actor.skeleton.height, []
    at = np.stack(list(body.joints.values())) @ actor.rotation.T + actor.position
    at = dict(zip(body.joints, at, strict=True))
    torso, pelvis, head = (
        actor.rotation @ body.frames[k] for k in ("chest", "pelvis", "head")
    )

    def ball(centre, frame, radii, paint, owner=2 * number):
        shapes.append(raster.Ball(owner, centre, frame, radii, paint))

    def limb(a, b, ra, rb, first, second=None, split=2.0):
        if split < 1:
            paint = lambda t: np.where(t[:, None] < split, first, second)
        else:
            paint = first
        shapes.append(raster.Limb(2 * number, at[a], at[b], ra * h, rb * h, paint))

    for lift, x, y, z in ((0.11, 0.108, 0.125, 0.068), (0.0, 0.092, 0.11, 0.064)):
        x, z = x * look.stout, z * look.stout
        paint = lambda u, x=x, y=y, lift=lift: _shirt(
            look, u[0] * x, u[1] * y + lift, u[2] > 0
        )
        radii = np.array([x, y, z]) * h
        ball(at["waist"] + torso @ [0, lift * h, 0], torso, radii, paint)
    radii = np.array([0.098 * look.stout, 0.08, 0.07 * look.stout]) * h
    ball(at["pelvis"], pelvis, radii, lambda unit: _trousers(look, unit))
    limb("left_shoulder", "right_shoulder", 0.035, 0.035, look.shirt)
    limb("neck", "head", 0.032, 0.03, look.skin)
    if look.backpack:
        centre = at["neck"] + torso @ [0, -0.13 * h, -0.1 * h]
        ball(centre, torso, np.array([0.09, 0.13, 0.06]) * h, look.hat)
    parts = [
        ((0, 0, 0), (1, 1, 1), lambda unit: _face(look, unit)),
        ((0, -0.1, 0.98), (0.17, 0.2, 0.24), look.skin * 0.93),
        *((p, (0.16, 0.24, 0.2), look.skin * 0.9) for p in _FACE[3:]),
    ]
    if look.style in _HEADWEAR:
        place, radii = _HEADWEAR[look.style]
        parts.append((place, radii, look.hat if look.style == "cap" else look.hair))
    for place, radii, paint in parts:
        centre = at["head"] + head @ (place * body.head_radii)
        ball(centre, head, radii * body.head_radii, paint, 2 * number + 1)
    cuff = look.shirt if look.sleeve > 1 else look.skin
    shank = look.trousers if look.trouser_leg > 1 else look.skin
    for s in ("left_", "right_"):
        limb(s + "shoulder", s + "elbow", 0.033 * look.loose, 0.026,
             look.shirt, look.skin, look.sleeve)  # fmt: skip
        limb(s + "elbow", s + "wrist", 0.025, 0.017, cuff)
        limb(s + "wrist", s + "hand", 0.017, 0.021, look.skin)
        limb(s + "hip", s + "knee", 0.052 * look.loose, 0.038,
             look.trousers, look.skin, look.trouser_leg)  # fmt: skip
        limb(s + "knee", s + "ankle", 0.036 * look.loose, 0.025, shank)
        limb(s + "heel", s + "toe", 0.028, 0.02, look.shoes)
    return shapes


def draw(
    background: np.ndarray, actors: list[Actor], clutter: list[tuple], *, focal: float,
    light: np.ndarray,
) -> tuple[np.ndarray, list[Person]]:  # fmt: skip
    """Draws a scene and labels everybody of whom a pixel is seen.

    Args:
      background: uint8 [h, w, 3].
      actors: at Z > 0.
      clutter: capsules (a, b, radius at a, radius at b, colour), camera frame, metres.
      focal: pixels.
      light: [3] unit vector towards the light, camera frame.

    Returns:
      image float32 [h, w, 3] in 0..255, and people in the order of `actors`.
    """
    canvas = raster.Canvas(background, focal, light)
    shapes = [raster.Limb(255, *thing) for thing in clutter]
    for number, actor in enumerate(actors, 1):
        shapes += _shapes(actor, number)
    canvas.draw(shapes)
    people = [_label(canvas, actor, number) for number, actor in enumerate(actors, 1)]
    return canvas.rgb.reshape(background.shape), [p for p in people if p is not None]


def _label(canvas: raster.Canvas, actor: Actor, number: int) -> Person | None:
    mask = canvas.owner >> 1 == number
    area = int(np.count_nonzero(mask))
    if not area:
        return None
    body, limit = actor.skeleton, np.array(canvas.shape[::-1]) - 1
    joints = np.stack([body.joints[name] for name in COCO.names])
    joints = joints @ actor.rotation.T + actor.position
    xy = canvas.project(joints).round(2)
    inside = ((xy >= 0) & (xy <= limit)).all(1)
    column, row = np.clip(np.rint(xy), 0, limit).astype(int).T
    covered = canvas.depth[row, column] < joints[:, 2] - _TOLERANCE * body.height
    # Behind the own head: the way to the camera meets the skull, shrunk a little.
    way = -joints[:5] @ (actor.rotation @ body.frames["head"] / body.head_radii)
    along = (_FACE * way).sum(1) / np.linalg.norm(way, axis=1)
    behind = (along < 0) & ((_FACE**2).sum(1) - along**2 < 0.8)
    behind |= covered[:5] & (canvas.owner[row, column] == 2 * number + 1)[:5]
    labelled = inside & (area >= max(30, 0.01 * np.ptp(xy, axis=0).prod()))
    labelled[:5] &= ~behind
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    (y0, y1), (x0, x1) = rows[[0, -1]].tolist(), columns[[0, -1]].tolist()
    chest = actor.rotation @ body.frames["chest"] @ _AHEAD
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
    rng: np.random.Generator, *, size: tuple[int, int] = (320, 256), max_people: int = 4
) -> tuple[np.ndarray, list[Person]]:
    """A picture, uint8 [h, w, 3], of one to `max_people` people, and who is in it."""
    (w, h), focal = size, (1.0, 1.4, 2.0)[rng.integers(3)] * size[1]

    def ray(x, y):
        return np.array([(x - 0.5) * w / focal, (y - 0.5) * h / focal, 1.0])

    pitches = (0.0, rng.uniform(8, 32), rng.uniform(-18, -6))  # Level, above, below.
    pitch = _pick(rng, pitches, (0.4, 0.4, 0.2))
    view = _turn(z=rng.normal(0, 4)) @ _turn(pitch) @ _TO_CAMERA
    count = min(max_people, _pick(rng, (1, 2, 3, 4), (0.4, 0.3, 0.18, 0.12)))
    actors, boxes = [], []
    for _ in range(count):
        body, look = sample_skeleton(rng), sample_look(rng)
        middle = np.mean(list(body.joints.values()), 0)
        points = np.stack([body.joints[name] for name in COCO.names]) - middle
        for _ in range(30):
            share = np.exp(rng.uniform(np.log(0.3), np.log(1.2 if count < 3 else 0.9)))
            depth = focal * body.height / (share * h)
            rotation = view @ _turn(y=rng.uniform(-180, 180))
            centre = depth * ray(rng.uniform(0.06, 0.94), rng.normal(0.5, 0.12))
            joints = points @ rotation.T + centre
            xy = joints[:, :2] * (focal / joints[:, 2:]) / size  # -1/2 to 1/2 is seen.
            good = joints[:, 2].min() > 0.25 and (np.abs(xy) < 0.49).all(1).sum() >= 7
            low, high = xy.min(0), xy.max(0)
            for z, low2, high2 in boxes:
                shared = np.maximum(np.minimum(high, high2) - np.maximum(low, low2), 0)
                farther = high - low if depth > z else high2 - low2
                good &= shared.prod() < 0.6 * farther.prod()
                good &= shared.prod() == 0 or abs(depth - z) > 0.5
            if good:
                actors.append(Actor(body, look, rotation, centre - rotation @ middle))
                boxes.append((depth, low, high))
                break
    clutter = []
    for _ in range(_pick(rng, (0, 1, 2, 3), (0.25, 0.35, 0.25, 0.15))):
        depth = boxes[rng.integers(len(boxes))][0] * rng.uniform(0.5, 1.2)
        way = ray(rng.uniform(0, 1), rng.normal(0.65, 0.2))
        clutter += raster.clutter(rng, way, depth)
    light = np.array([rng.normal(0, 0.6), -0.7, rng.uniform(-0.9, -0.2)])
    light /= np.linalg.norm(light)
    background = raster.background(rng, size)
    for things in (clutter, []):  # Somebody must be seen.
        image, people = draw(background, actors, things, focal=focal, light=light)
        if people:
            break
    return raster.photograph(rng, image), people


def _write_image(job: tuple[Path, int, list[int], tuple[int, int]]) -> list[dict]:
    """Writes one picture; returns its annotations."""
    path, image_id, seed, size = job
    image, people = render(np.random.default_rng(seed), size=size)
    Image.fromarray(image).save(path, "JPEG", quality=90)
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


def write_coco(
    out: Path, *, split: str, count: int, seed: int, size: tuple[int, int] = (320, 256),
    first_id: int = 1, workers: int = 1,
) -> Path:  # fmt: skip
    """Writes a split as COCO does: `out/train2017/*.jpg` and its keypoint file.

    Picture i depends on (seed, split, i, size) alone: not on the count or the workers.

    Returns:
      the keypoint file, which is written last.
    """
    folder = Path(out) / f"{split}2017"
    path = Path(out) / "annotations" / f"person_keypoints_{split}2017.json"
    for directory in (folder, path.parent):
        directory.mkdir(parents=True, exist_ok=True)
    images = [
        {"file_name": f"{i:012d}.jpg", "height": size[1], "width": size[0], "id": i}
        for i in range(first_id, first_id + count)
    ]
    stream = [seed, zlib.crc32(split.encode())]
    jobs = [
        (folder / image["file_name"], image["id"], [*stream, index], size)
        for index, image in enumerate(images)
    ]
    if workers > 1:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
            annotations = list(pool.map(_write_image, jobs, chunksize=16))
    else:
        annotations = [_write_image(job) for job in jobs]
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
    path.write_text(json.dumps(content, separators=(",", ":")))
    return path


def write_dataset(
    out: Path, *, n: int, seed: int, val: int | None = None,
    size: tuple[int, int] = (320, 256), workers: int = 1,
) -> str:  # fmt: skip
    """Writes train2017 of n pictures and val2017 of `val` (default: an eighth of n).

    Returns:
      one line saying what was done: nothing, where `out` holds this set already.

    Raises:
      InputError: `out` holds something else.
    """
    out, counts = Path(out), {"train": n, "val": max(1, n // 8) if val is None else val}
    manifest = {"generator": __name__, "version": VERSION, "seed": seed}
    manifest = json.dumps({**manifest, **counts, "size": list(size)}, indent=2) + "\n"
    note = out / "synthetic.json"
    what = f"{n} + {counts['val']} images of synthetic people"
    if note.is_file():
        if (held := note.read_text()) != manifest:
            held = " ".join(held.split())
            raise InputError(
                f"{out}: holds another set, {held}; choose another folder."
            )
        if all(
            (out / f"annotations/person_keypoints_{split}2017.json").is_file()
            and len(list((out / f"{split}2017").glob("*.jpg"))) == count
            for split, count in counts.items()
        ):
            return f"{out} holds these {what} already; nothing to do."
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is not an empty folder; choose another.")
    out.mkdir(parents=True, exist_ok=True)
    note.write_text(manifest)
    for split, first_id in (("train", 1), ("val", n + 1)):
        which = {"split": split, "count": counts[split], "first_id": first_id}
        write_coco(out, **which, seed=seed, size=size, workers=workers)
    return f"Wrote {what} to {out}."
