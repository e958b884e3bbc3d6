"""Bodies for `synthetic`: skeletons with joint limits, appearance, and their solids.

Body frame, meters: x to the person's left, y up, z forward. An `Actor` stands in the
camera frame: x right, y down, z ahead.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from pose_jax.data.synthetic import raster
from pose_jax.keypoints import COCO

_DOWN, AHEAD = np.array([0, -1.0, 0]), np.array([0, 0, 1.0])
# Nose, eyes and ears on the unit sphere of the head, in COCO's order.
FACE = np.array([(0, -0.12, 1.12), (0.36, 0.1, 0.93), (-0.36, 0.1, 0.93),
                  (1, -0.05, -0.08), (-1, -0.05, -0.08)])  # fmt: skip
# Center and radii on the head's unit sphere.
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
POSES = ("stand", "walk", "sit", "squat", "lunge", "bend", "lie")
POSE_SHARES = (0.36, 0.24, 0.11, 0.07, 0.11, 0.06, 0.05)


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A posed body in the body frame: joints in meters, a rotation per bone."""

    height: float
    head_radii: np.ndarray
    joints: dict[str, np.ndarray]
    frames: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Actor:
    """A skeleton with clothes in the camera frame: camera = rotation @ body + position."""

    skeleton: Skeleton
    look: SimpleNamespace
    rotation: np.ndarray
    position: np.ndarray


def turn(x: float = 0, y: float = 0, z: float = 0) -> np.ndarray:
    """Rotation Rx @ Rz @ Ry, degrees."""
    x, y, z = math.radians(x), math.radians(y), math.radians(z)
    (a, b, c), (i, j, k) = map(math.cos, (x, y, z)), map(math.sin, (x, y, z))
    return np.array([[c * b, -k, c * j],
                     [a * k * b + i * j, a * c, a * k * j - i * b],
                     [i * k * b - a * j, i * c, i * k * j + a * b]])  # fmt: skip


def pick(rng: np.random.Generator, options: Sequence, shares: Sequence[float]):
    """Samples one of the options with probabilities `shares`, faster than rng.choice."""
    return options[bisect.bisect(list(itertools.accumulate(shares[:-1])), rng.random())]


def _sample_angles(
    rng: np.random.Generator, pose_shares: Sequence[float]
) -> SimpleNamespace:
    def some(*ranges):
        return [rng.uniform(low, high) for low, high in ranges]

    kind = pick(rng, POSES, pose_shares)
    shares = (0.3, 0.1, 0.12, 0.1, 0.12, 0.12, 0.07, 0.07)
    arms = [pick(rng, _ARMS, shares), pick(rng, _ARMS, shares)]
    if rng.random() < 0.4:
        arms[1] = arms[0]
    pose = SimpleNamespace(
        root=[rng.normal(0, 4), 0, rng.normal(0, 3)],
        spine=some((-8, 14), (-25, 25), (-9, 9)),
        head=some((-22, 22), (-45, 45), (-10, 10)),
        arms=[some(*arm) for arm in arms],
        legs=[some(*_LEGS.get(kind, _LEGS["stand"])) for _ in range(2)],
    )
    if kind == "walk":  # From slow walking to running; arms swing opposite to legs.
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


def sample_skeleton(
    rng: np.random.Generator, pose_shares: Sequence[float] = POSE_SHARES
) -> Skeleton:
    """Samples a body of random age and build in a pose of POSES within joint limits.

    Elbows bend forward and knees backward, by 0 to 145 degrees; left and right bones
    are equally long.
    """
    pose = _sample_angles(rng, pose_shares)
    young = max(0.0, rng.uniform(-1.2, 1.0))
    height = rng.normal(1.7, 0.07) * (1 - 0.4 * young)
    size = {"hip": 0.056, "thigh": 0.245 - 0.03 * young, "shank": 0.24 - 0.03 * young,
            "torso": 0.29, "neck": 0.045, "shoulder": 0.115, "upper_arm": 0.168,
            "forearm": 0.148, "hand": 0.06, "foot": 0.1}  # fmt: skip
    spread = height * rng.uniform(0.93, 1.07, len(size))
    size = {k: v * s for (k, v), s in zip(size.items(), spread.tolist(), strict=True)}
    radii = np.array([0.045, 0.067, 0.056]) * height * (1 + 0.45 * young)
    pelvis = turn(*pose.root)
    chest = pelvis @ turn(*pose.spine)
    head = chest @ turn(*pose.head)
    frames = {"pelvis": pelvis, "chest": chest, "head": head}
    joints = {"pelvis": np.zeros(3), "waist": -0.3 * size["torso"] * pelvis @ _DOWN}
    joints["neck"] = joints["waist"] - 0.7 * size["torso"] * chest @ _DOWN
    throat = joints["neck"] - size["neck"] * chest @ _DOWN
    joints["head"] = throat + head @ (radii * (0, 0.85, 0.2))
    for name, place in zip(COCO.names, FACE, strict=False):
        joints[name] = joints["head"] + head @ (place * radii)
    chains = (
        ("neck", chest, pose.arms, -1, 0.02, "shoulder upper_arm elbow forearm wrist"),
        ("pelvis", pelvis, pose.legs, 1, 0, "hip thigh knee shank ankle"),
    )
    for side, (who, sign) in enumerate((("left_", 1), ("right_", -1))):
        for base, body, limbs, bend, drop, names in chains:
            top, upper, middle, lower, end = names.split()
            flexion, abduction, twist, hinge = limbs[side]
            first = body @ turn(-flexion, sign * twist, sign * abduction)
            second = first @ turn(bend * hinge)
            offset = body @ [sign * size[top], -drop * height, 0]
            joints[who + top] = joints[base] + offset
            joints[who + middle] = joints[who + top] + size[upper] * first @ _DOWN
            joints[who + end] = joints[who + middle] + size[lower] * second @ _DOWN
            frames[who + upper], frames[who + lower] = first, second
        hand = size["hand"] * frames[who + "forearm"] @ _DOWN
        foot = frames[who + "shank"] @ turn(rng.normal(0, 8))
        joints[who + "hand"] = joints[who + "wrist"] + hand
        joints[who + "heel"] = joints[who + "ankle"] + 0.022 * height * foot @ _DOWN
        joints[who + "toe"] = joints[who + "heel"] + size["foot"] * foot @ AHEAD
    return Skeleton(height, radii, joints, frames)


def sample_look(rng: np.random.Generator) -> SimpleNamespace:
    """Samples build, clothes, skin and hair; the same on both sides of the body."""
    hair = (25, 20, 18), (70, 45, 28), (150, 110, 60), (120, 60, 30), (190, 190, 190)
    hair = np.array(hair, np.float32)
    return SimpleNamespace(
        stout=rng.uniform(0.85, 1.25), loose=rng.uniform(0.9, 1.25),
        skin=raster.skin(rng),
        hair=hair[rng.integers(5)] * np.float32(rng.uniform(0.8, 1.2)),
        hair_line=pick(rng, (0.05, 0.17, 0.8), (0.6, 0.3, 0.1)),
        beard=rng.random() < 0.15, backpack=rng.random() < 0.15,
        style=pick(rng, ("short", "long", "bun", "cap"), (0.42, 0.26, 0.1, 0.22)),
        shirt=raster.colour(rng), accent=raster.colour(rng), buttons=rng.random() < 0.6,
        pattern=_PATTERNS[rng.integers(6)], stripe=rng.uniform(0.012, 0.04),
        sleeve=pick(rng, (0.15, 0.6, 2), (0.1, 0.4, 0.5)),
        trousers=raster.colour(rng, 0.4), trouser_leg=pick(rng, (0.7, 2), (0.35, 0.65)),
        shoes=raster.colour(rng), hat=raster.colour(rng),
    )  # fmt: skip


def _shirt(look: SimpleNamespace, x, y, front) -> np.ndarray:
    """Returns colors of shirt points; x, y from the waist, in units of body height."""
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


def shapes_of(actor: Actor, number: int) -> list[raster.Limb | raster.Ball]:
    """Returns the shapes of a person; the head has its own owner number."""
    look, body, h, shapes = actor.look, actor.skeleton, actor.skeleton.height, []
    at = np.stack(list(body.joints.values())) @ actor.rotation.T + actor.position
    at = dict(zip(body.joints, at, strict=True))
    bones = ("chest", "pelvis", "head")
    torso, pelvis, head = (actor.rotation @ body.frames[bone] for bone in bones)

    def ball(center, frame, radii, paint, owner=2 * number):
        shapes.append(raster.Ball(owner, center, frame, radii, paint))

    def limb(a, b, ra, rb, first, second: Any = None, split=2.0):
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
        center = at["neck"] + torso @ [0, -0.13 * h, -0.1 * h]
        ball(center, torso, np.array([0.09, 0.13, 0.06]) * h, look.hat)
    parts = [
        ((0, 0, 0), (1, 1, 1), lambda unit: _face(look, unit)),
        ((0, -0.1, 0.98), (0.17, 0.2, 0.24), look.skin * 0.93),
        *((p, (0.16, 0.24, 0.2), look.skin * 0.9) for p in FACE[3:]),
    ]
    if look.style in _HEADWEAR:
        place, radii = _HEADWEAR[look.style]
        parts.append((place, radii, look.hat if look.style == "cap" else look.hair))
    for place, radii, paint in parts:
        center = at["head"] + head @ (place * body.head_radii)
        ball(center, head, radii * body.head_radii, paint, 2 * number + 1)
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
