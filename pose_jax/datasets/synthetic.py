"""Synthetic people: COCO-style images and exact labels from a seed, with NumPy and Pillow.

Articulated 3D bodies (metres) seen by a perspective camera, drawn into a depth buffer.
Labels are in the image frame: points (x, y) with integer pixel centres, the projections of
the joint centres; boxes and polygons in pixel edges, so that pixel i covers [i, i + 1].

Visibility is COCO's: 2 if what is seen at the joint's pixel is the joint's own surface; 1 if
something else is in front of it (another limb, another person, clutter); 0, with x = y = 0,
outside the frame. Two habits of COCO's annotators are kept: an eye, ear or nose on the far
side of its own head is 0, and so is everything of a person of whom hardly anything is seen.

Left and right have the same clothes, so they can only be told from front and back: the
face, shirt front, belt buckle, hair, backpack, trouser pockets and the way shoes point.

Body frame: x to the person's left, y up, z forward. Camera frame: X right, Y down, Z ahead.
"""

from __future__ import annotations

import colorsys
import dataclasses
import itertools
import json
import multiprocessing
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pose_jax.errors import InputError
from pose_jax.keypoints import COCO

VERSION = 1
"""Changes with the pictures: the same seed gives the same bytes within one version."""

_MIRROR = np.diag([-1.0, 1.0, 1.0])
_TO_CAMERA = np.diag([1.0, -1.0, -1.0])
_CLUTTER = 255
# On the unit sphere of the head: x left, y up, z forward.
_FACE = {
    "nose": (0, -0.12, 1.12),
    "left_eye": (0.36, 0.1, 0.93),
    "right_eye": (-0.36, 0.1, 0.93),
    "left_ear": (1.0, -0.05, -0.08),
    "right_ear": (-1.0, -0.05, -0.08),
}
# How far, in statures, a joint lies below its own skin or clothes at most.
_DEPTH_OF = {
    "shoulder": 0.06, "elbow": 0.045, "wrist": 0.04, "hip": 0.1, "knee": 0.06,
    "ankle": 0.055, "nose": 0.03, "eye": 0.02, "ear": 0.035,
}  # fmt: skip
_TOLERANCE = np.array([_DEPTH_OF[name.split("_")[-1]] for name in COCO.names])

# Ranges in degrees: shoulder flexion, abduction, outward twist; elbow.
_ARMS = {
    "hang": ((-15, 20), (4, 18), (-40, 10), (0, 35)),
    "akimbo": ((-25, 0), (35, 55), (-80, -55), (80, 115)),
    "up": ((140, 175), (0, 30), (-30, 30), (0, 50)),
    "side": ((-10, 20), (60, 110), (-20, 80), (0, 60)),
    "forward": ((50, 100), (-5, 30), (-40, 30), (0, 70)),
    "chest": ((20, 45), (5, 25), (-70, -30), (80, 120)),
    "phone": ((20, 60), (10, 40), (-20, 20), (115, 145)),
    "wave": ((-5, 15), (75, 105), (60, 100), (50, 110)),
    "back": ((-45, -20), (5, 20), (-80, -50), (30, 80)),
}
# Ranges in degrees: hip flexion, abduction, outward twist; knee.
_LEGS = {
    "stand": ((-8, 8), (0, 12), (-5, 25), (0, 12)),
    "sit": ((70, 100), (0, 28), (-5, 20), (55, 110)),
    "squat": ((90, 120), (8, 30), (0, 30), (100, 140)),
    "lunge": ((-25, 85), (0, 35), (-10, 25), (0, 100)),
}


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A posed body in the body frame: joints in metres, one rotation per bone."""

    height: float
    head_radii: np.ndarray
    joints: dict[str, np.ndarray]
    frames: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Actor:
    """A dressed skeleton in front of the camera: camera = rotation @ body + position."""

    skeleton: Skeleton
    style: dict[str, Any]
    rotation: np.ndarray
    position: np.ndarray


@dataclasses.dataclass(frozen=True)
class Clutter:
    """Flat things: polygons in the image frame at one depth."""

    polygons: list[np.ndarray]
    depth: float
    rgb: np.ndarray


@dataclasses.dataclass(frozen=True)
class Person:
    """What the annotation file says of one person, and which way the chest faces.

    Attributes:
      points_xy: [17, 2] image frame; (0, 0) where not labelled.
      visibility: [17] 0, 1, 2.
      polygons: outlines [p, 2] of the pieces that are seen, in pixel edges.
      area: pixels seen.
      box_xywh: the tight box of these pixels.
      facing_deg: between chest and camera: 0 from the front, 180 from behind.
      cut: some joint lies outside the frame.
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
    (cx, cy, cz), (sx, sy, sz) = (
        np.cos(np.deg2rad((x, y, z))),
        np.sin(np.deg2rad((x, y, z))),
    )
    return (
        np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
        @ np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    )


def _sample_angles(rng: np.random.Generator) -> dict[str, Any]:
    """Joint angles of one of a few kinds of pose, degrees."""

    def some(ranges):
        return [rng.uniform(low, high) for low, high in ranges]

    kind = rng.choice(
        ["stand", "walk", "sit", "squat", "lunge", "bend", "lie"],
        p=[0.36, 0.24, 0.11, 0.07, 0.11, 0.06, 0.05],
    )
    arms = rng.choice(
        list(_ARMS), 2, p=[0.3, 0.1, 0.1, 0.1, 0.12, 0.1, 0.06, 0.06, 0.06]
    )
    if rng.random() < 0.4:
        arms[1] = arms[0]
    angles: dict[str, Any] = {
        "root": [rng.normal(0, 4), 0, rng.normal(0, 3)],
        "spine": some([(-8, 14), (-25, 25), (-9, 9)]),
        "head": some([(-22, 22), (-45, 45), (-10, 10)]),
        "arms": [some(_ARMS[arm]) for arm in arms],
        "legs": [some(_LEGS.get(kind, _LEGS["stand"])) for _ in range(2)],
        "feet": some([(-15, 15), (-15, 15)]),
    }
    if kind == "walk":  # From a stroll to a run, arms against legs.
        stride, run = rng.uniform(15, 55) * rng.choice([-1, 1]), rng.uniform(0, 1)
        for side, swing in enumerate((stride, -stride)):
            knee = (
                abs(stride) * rng.uniform(0.2, 0.5) if swing > 0 else rng.uniform(5, 70)
            )
            angles["legs"][side][0] = swing if swing > 0 else swing * 0.5
            angles["legs"][side][3] = knee
            if rng.random() < 0.8:
                arm = [-swing * 0.8, rng.uniform(5, 15), rng.uniform(-35, 0)]
                angles["arms"][side] = [*arm, 10 + 85 * run * rng.uniform(0.7, 1)]
        angles["root"][0] += 12 * run
    elif kind in ("squat", "bend"):
        angles["spine"][0] = rng.uniform(10, 40)
        angles["root"][0] = (
            rng.uniform(0, 20) if kind == "squat" else rng.uniform(20, 50)
        )
    if kind == "bend":
        for leg in angles["legs"]:
            leg[0] += angles["root"][0]
    if kind == "lie":
        angles["root"] = [[90, 0, 0], [-90, 0, 0], [0, 0, 90], [0, 0, -90]][
            rng.integers(4)
        ]
    return angles


def sample_skeleton(rng: np.random.Generator) -> Skeleton:
    """A body of random age and build in a random pose within joint limits.

    Elbows bend forward only and knees backward only, by 0 to 145 degrees; left and right
    bones are of equal length.
    """
    angles = _sample_angles(rng)
    young = max(0.0, rng.uniform(-1.2, 1.0))
    height = rng.normal(1.7, 0.07) * (1 - 0.4 * young)
    length = {  # In statures.
        "hip": 0.056, "thigh": 0.245 - 0.03 * young, "shank": 0.24 - 0.03 * young,
        "torso": 0.29, "neck": 0.045, "shoulder": 0.115, "upper_arm": 0.168,
        "forearm": 0.148, "hand": 0.06, "foot": 0.1,
    }  # fmt: skip
    length = {k: v * height * rng.uniform(0.93, 1.07) for k, v in length.items()}
    head_radii = np.array([0.045, 0.067, 0.056]) * height * (1 + 0.45 * young)
    root, spine, head = (_turn(*angles[name]) for name in ("root", "spine", "head"))
    frames = {"pelvis": root, "chest": root @ spine, "head": root @ spine @ head}
    down, ahead = np.array([0, -1.0, 0]), np.array([0, 0, 1.0])
    joints = {"pelvis": np.zeros(3), "waist": -0.3 * length["torso"] * root @ down}
    joints["neck"] = joints["waist"] - 0.7 * length["torso"] * frames["chest"] @ down
    throat = joints["neck"] - length["neck"] * frames["chest"] @ down
    joints["head"] = throat + frames["head"] @ [
        0,
        0.85 * head_radii[1],
        0.2 * head_radii[2],
    ]
    for name, place in _FACE.items():
        joints[name] = joints["head"] + frames["head"] @ (place * head_radii)
    for side, sign in enumerate((1.0, -1.0)):
        who = ("left_", "right_")[side]
        flip = np.eye(3) if sign > 0 else _MIRROR
        for chain, base, (top, mid, end), bones, bend in (
            (
                "arms",
                "chest",
                ("shoulder", "elbow", "wrist"),
                ("upper_arm", "forearm"),
                -1,
            ),
            ("legs", "pelvis", ("hip", "knee", "ankle"), ("thigh", "shank"), 1),
        ):
            flexion, abduction, twist, hinge = angles[chain][side]
            first = frames[base] @ flip @ _turn(-flexion, twist, abduction) @ flip
            second = first @ _turn(bend * hinge)
            start = joints["neck" if base == "chest" else "pelvis"]
            drop = -0.02 * height if base == "chest" else 0.0
            joints[who + top] = start + frames[base] @ [sign * length[top], drop, 0]
            joints[who + mid] = joints[who + top] + length[bones[0]] * first @ down
            joints[who + end] = joints[who + mid] + length[bones[1]] * second @ down
            frames[who + bones[0]], frames[who + bones[1]] = first, second
        forearm, shank = frames[who + "forearm"], frames[who + "shank"]
        foot = shank @ _turn(angles["feet"][side])
        joints[who + "hand"] = joints[who + "wrist"] + length["hand"] * forearm @ down
        sole = joints[who + "ankle"] + 0.022 * height * foot @ down
        joints[who + "heel"] = sole - 0.012 * height * foot @ ahead
        joints[who + "toe"] = sole + length["foot"] * foot @ ahead
        frames[who + "foot"] = foot
    return Skeleton(height, head_radii, joints, frames)


def _colour(rng: np.random.Generator, *, dull: float = 0.0) -> np.ndarray:
    """[3] in 0..255."""
    hue, saturation, value = (
        rng.random(),
        rng.random() * (1 - dull),
        rng.uniform(0.12, 1),
    )
    return 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def _skin(rng: np.random.Generator) -> np.ndarray:
    light, dark = np.array([245, 208, 180.0]), np.array([88, 56, 40.0])
    return light + rng.beta(1, 1.4) * (dark - light)


def sample_style(rng: np.random.Generator) -> dict[str, Any]:
    """Clothes, skin and hair; the same on both sides of the body."""
    hairs = np.array(
        [[25, 20, 18], [70, 45, 28], [150, 110, 60], [120, 60, 30], [190] * 3]
    )
    return {
        "skin": _skin(rng),
        "hair": hairs[rng.integers(5)] * rng.uniform(0.8, 1.2),
        "hair_line": rng.choice([0.0, 0.12, 0.75], p=[0.6, 0.3, 0.1]),
        "hair_style": rng.choice(
            ["short", "long", "bun", "cap"], p=[0.42, 0.26, 0.1, 0.22]
        ),
        "beard": rng.random() < 0.15,
        "hat": _colour(rng),
        "shirt": _colour(rng),
        "accent": _colour(rng),
        "pattern": rng.choice(
            ["plain", "rows", "columns", "checks"], p=[0.5, 0.2, 0.15, 0.15]
        ),
        "stripe": rng.uniform(0.012, 0.04),
        "front": rng.choice(["buttons", "logo", "open"]),
        "sleeve": rng.choice([0.15, 0.6, 2.0], p=[0.1, 0.4, 0.5]),
        "trousers": _colour(rng, dull=0.4),
        "trouser_leg": rng.choice([0.7, 2.0], p=[0.35, 0.65]),
        "shoes": _colour(rng),
        "backpack": _colour(rng) if rng.random() < 0.15 else None,
        "loose": rng.uniform(0.9, 1.25),
        "stout": rng.uniform(0.85, 1.25),
    }


class _Canvas:
    """Colour, depth and owner per pixel; shapes must come far to near for soft edges."""

    def __init__(self, background: np.ndarray, focal: float, light: np.ndarray):
        self.height, self.width = background.shape[:2]
        self.rgb = background.astype(np.float32).reshape(-1, 3)
        self.depth = np.full((self.height, self.width), np.inf, np.float32)
        self.owner = np.zeros((self.height, self.width), np.uint8)
        self.focal, self.light = focal, light
        self.centre = np.array([(self.width - 1) / 2, (self.height - 1) / 2])

    def project(self, points: np.ndarray) -> np.ndarray:
        return points[..., :2] * (self.focal / points[..., 2:]) + self.centre

    def _window(self, low, high):
        x0, y0 = np.maximum(np.floor(low).astype(int), 0)
        x1 = min(int(np.ceil(high[0])) + 1, self.width)
        y1 = min(int(np.ceil(high[1])) + 1, self.height)
        return (x0, x1, y0, y1) if x0 < x1 and y0 < y1 else None

    def _put(self, window, alpha, depth, shape, owner):
        """Blends one shape in; `shape(kept pixels)` gives their colours and normals."""
        x0, x1, y0, y1 = window
        seen = (alpha > 0) & (depth < self.depth[y0:y1, x0:x1])
        keep = np.flatnonzero(seen)
        rgb, normal = shape(keep)
        shade = 0.52 + 0.55 * np.maximum(normal[0] * self.light[0] + normal[1] * self.light[1]
                                         + normal[2] * self.light[2], 0)  # fmt: skip
        row, column = np.divmod(keep, x1 - x0)
        at = (row + y0) * self.width + column + x0
        blend = alpha.reshape(-1)[keep][:, None]
        self.rgb[at] += blend * (rgb * shade[:, None] - self.rgb[at])
        solid = seen & (alpha >= 0.5)
        self.depth[y0:y1, x0:x1][solid] = depth[solid]
        self.owner[y0:y1, x0:x1][solid] = owner

    def ball(self, owner, centre, axes, radii, paint: Callable) -> None:
        """An ellipsoid, ray traced; `paint` takes points [3, n] of its unit sphere."""
        scale = self.focal / centre[2]
        half = scale * np.linalg.norm(axes * radii, axis=1)[:2] * 1.15 + 1
        middle = self.project(centre)
        if (window := self._window(middle - half, middle + half)) is None:
            return
        x0, x1, y0, y1 = window
        x = (
            np.arange(x0, x1, dtype=np.float32) - np.float32(self.centre[0])
        ) / self.focal
        y = (
            np.arange(y0, y1, dtype=np.float32) - np.float32(self.centre[1])
        ) / self.focal
        to_unit = (axes / radii).T.astype(np.float32)
        goal = (to_unit @ centre).astype(np.float32)
        x, y = x.astype(np.float32), y.astype(np.float32)[:, None]
        ray = [row[0] * x + (row[1] * y + row[2]) for row in to_unit]
        along = ray[0] * goal[0] + ray[1] * goal[1] + ray[2] * goal[2]
        square = ray[0] * ray[0] + ray[1] * ray[1] + ray[2] * ray[2]
        inside = 1 - (goal @ goal - along * along / square)
        alpha = np.clip(inside * np.float32(0.5 * scale * radii.min()) + 0.5, 0, 1)
        depth = (along - np.sqrt(np.maximum(square * inside, 0))) / square

        def shape(keep):
            t = depth.reshape(-1)[keep]
            unit = np.stack(
                [r.reshape(-1)[keep] * t - g for r, g in zip(ray, goal, strict=True)]
            )
            normal = to_unit.T @ unit
            return paint(unit), normal / np.sqrt((normal * normal).sum(0) + 1e-9)

        self._put(window, alpha, depth, shape, owner)

    def limb(self, owner, a, b, ra, rb, paint: Callable) -> None:
        """A tapered capsule from a to b; `paint` takes positions [n] in 0..1 along it."""
        (ax, ay), (bx, by) = self.project(np.stack([a, b]))
        fa, fb = ra * self.focal / a[2], rb * self.focal / b[2]
        low = (min(ax - fa, bx - fb) - 1, min(ay - fa, by - fb) - 1)
        high = (max(ax + fa, bx + fb) + 1, max(ay + fa, by + fb) + 1)
        if (window := self._window(np.array(low), np.array(high))) is None:
            return
        x0, x1, y0, y1 = window
        x = np.arange(x0, x1, dtype=np.float32) - np.float32(ax)
        y = (np.arange(y0, y1, dtype=np.float32) - np.float32(ay))[:, None]
        dx, dy = np.float32(bx - ax), np.float32(by - ay)
        t = np.clip((x * dx + y * dy) / max(dx * dx + dy * dy, np.float32(1e-6)), 0, 1)
        out_x, out_y = x - t * dx, y - t * dy
        radius = np.float32(fa) + t * np.float32(fb - fa)
        inside = 1 - (out_x * out_x + out_y * out_y) / (radius * radius)
        alpha = np.clip(0.5 * inside * radius + 0.5, 0, 1)
        bulge = np.sqrt(np.maximum(inside, 0))
        depth = np.float32(a[2]) + t * np.float32(b[2] - a[2])
        depth -= bulge * (np.float32(ra) + t * np.float32(rb - ra))

        def shape(keep):
            r = radius.reshape(-1)[keep]
            normal = [v.reshape(-1)[keep] / r for v in (out_x, out_y)]
            return paint(t.reshape(-1)[keep]), [*normal, -bulge.reshape(-1)[keep]]

        self._put(window, alpha, depth, shape, owner)

    def flat(self, clutter: Clutter) -> None:
        stencil = Image.new("L", (self.width, self.height))
        pen = ImageDraw.Draw(stencil)
        for polygon in clutter.polygons:
            pen.polygon([tuple(p) for p in polygon.tolist()], fill=255)
        alpha = (np.asarray(stencil) > 0).astype(np.float32)
        depth = np.full(alpha.shape, clutter.depth, np.float32)

        def shape(keep):
            row, column = np.divmod(keep, self.width)
            grain = (
                0.8 + 0.3 * row / self.height + 0.05 * ((column // 6 + row // 9) % 2)
            )
            return clutter.rgb * grain[:, None], np.full((3, keep.size), -0.55)

        self._put((0, self.width, 0, self.height), alpha, depth, shape, _CLUTTER)

    def person(self, actor: Actor, number: int) -> list[tuple[float, Callable]]:
        """The shapes of one person, each with its depth."""
        body, style = actor.skeleton, actor.style
        h, skin, shirt, accent = body.height, style["skin"], style["shirt"], style["accent"]
        stripe, pattern = style["stripe"] * h, style["pattern"]
        at = {k: actor.rotation @ p + actor.position for k, p in body.joints.items()}
        axes = {k: actor.rotation @ f for k, f in body.frames.items()}
        shapes = []

        def ball(centre, frame, radii, paint, owner=2 * number):
            paint = paint if callable(paint) else _plain(paint)
            call = lambda: self.ball(owner, centre, frame, np.array(radii), paint)  # noqa: E731
            shapes.append((centre[2], call))

        def limb(a, b, ra, rb, first, second=None, split=2.0):
            def paint(t):
                other = first if second is None else second
                return np.where((t < split)[:, None], first, other)

            a, b = (at[v] if isinstance(v, str) else v for v in (a, b))
            call = lambda: self.limb(2 * number, a, b, ra * h, rb * h, paint)  # noqa: E731
            shapes.append(((a[2] + b[2]) / 2, call))

        def cloth(unit, radii, lift):
            x, y = unit[0] * radii[0], unit[1] * radii[1] + lift
            rows, columns = np.floor(y / stripe) % 2, np.floor(x / stripe + 0.5) % 2
            dark = {"rows": rows, "columns": columns, "checks": rows * columns}.get(pattern)
            cloth = np.tile(shirt, (x.size, 1))
            if dark is not None:
                cloth[dark > 0] = accent
            return cloth, x / h, y / h

        def chest(unit):
            rgb, x, y = cloth(unit, chest_radii, 0.13 * h)
            front = unit[2] > 0
            rgb[front & (y > 0.15) & (np.abs(x) < (y - 0.15) * 0.9)] = skin
            if style["front"] == "logo":
                rgb[front & (np.abs(x) < 0.045) & (np.abs(y - 0.12) < 0.03)] = 255 - shirt
            return rgb if style["front"] == "logo" else opening(rgb, x, y, front & (y < 0.16))

        def opening(rgb, x, y, front):
            if style["front"] == "buttons":
                rgb[front & (np.abs(x) < 0.011)] = 0.6 * shirt
                rgb[front & (np.abs(x) < 0.008) & (y % 0.04 < 0.014)] = 255 - shirt
            elif style["front"] == "open":
                rgb[front & (np.abs(x) < 0.035)] = 255 - shirt
            return rgb

        def belly(unit):
            rgb, x, y = cloth(unit, belly_radii, 0.0)
            return rgb if style["front"] == "logo" else opening(rgb, x, y, unit[2] > 0)

        def seat(unit):
            rgb = np.tile(style["trousers"], (unit.shape[1], 1))
            x, y, z = unit
            rgb[y > 0.55] = 0.35 * style["trousers"]  # The belt and its buckle.
            rgb[(y > 0.5) & (np.abs(x) < 0.16) & (z > 0)] = (225, 205, 120)
            rgb[(np.abs(np.abs(x) - 0.45) < 0.2) & (np.abs(y) < 0.3) & (z < 0)] *= 0.55
            return rgb

        def face(unit):
            x, y, z = unit
            rgb, side = np.tile(skin, (x.size, 1)), np.abs(x)
            rgb[(side < 0.3) & (np.abs(y + 0.5) < 0.055) & (z > 0)] = (150, 50, 55)
            if style["beard"]:
                rgb[(y < -0.32) & (z > 0.1) & ((side > 0.25) | (y < -0.58))] = style["hair"]
            rgb[((side - 0.36) / 0.2) ** 2 + ((y - 0.1) / 0.12) ** 2 + (z < 0) < 1] = 245
            rgb[(side - 0.36) ** 2 + (y - 0.1) ** 2 + (z < 0) < 0.012] = (25, 20, 20)
            rgb[(np.abs(side - 0.36) < 0.2) & (np.abs(y - 0.32) < 0.05) & (z > 0)] = style["hair"]
            rgb[0.75 * y - 0.8 * z > 0.05 + style["hair_line"]] = style["hair"]
            if style["hair_style"] == "cap":
                rgb[y > 0.42 - 0.1 * z] = style["hat"]
            return rgb

        wide, loose, trousers = style["stout"], style["loose"], style["trousers"]
        chest_radii = np.array([0.108 * wide, 0.125, 0.068 * wide]) * h
        belly_radii = np.array([0.092 * wide, 0.11, 0.064 * wide]) * h
        up = {k: axes[k][:, 1] for k in ("chest", "pelvis", "head")}
        torso = axes["chest"]
        ball(at["waist"] + 0.11 * h * up["chest"], torso, chest_radii, chest)
        ball(at["waist"], torso, belly_radii, belly)
        pelvis = np.array([0.098 * wide, 0.08, 0.07 * wide]) * h
        ball(at["pelvis"] + 0.01 * h * up["pelvis"], axes["pelvis"], pelvis, seat)
        limb("left_shoulder", "right_shoulder", 0.035, 0.035, shirt)
        limb("neck", "head", 0.032, 0.03, skin)
        if style["backpack"] is not None:
            pack = at["neck"] - 0.13 * h * up["chest"] - 0.1 * h * torso[:, 2]
            ball(pack, torso, np.array([0.09, 0.13, 0.06]) * h, style["backpack"])

        head, skull, own = axes["head"], body.head_radii, 2 * number + 1
        place = lambda *unit: at["head"] + head @ (np.array(unit) * skull)  # noqa: E731
        ball(at["head"], head, skull, face, own)
        ball(place(0, -0.1, 0.98), head, skull * [0.17, 0.2, 0.24], skin * 0.93, own)
        for side in (-1, 1):
            ball(place(side, -0.05, -0.08), head, skull * [0.16, 0.24, 0.2], skin * 0.9, own)
        if style["hair_style"] == "long":
            ball(place(0, -0.3, -0.42), head, skull * [1.05, 1.25, 0.75], style["hair"], own)
        elif style["hair_style"] == "bun":
            ball(place(0, 0.5, -1.1), head, skull * 0.45, style["hair"], own)
        elif style["hair_style"] == "cap":
            ball(place(0, 0.45, 0.9), head, skull * [0.75, 0.08, 0.8], style["hat"], own)

        sleeve, leg = style["sleeve"], style["trouser_leg"]
        for who in ("left_", "right_"):
            w, e, s = who + "wrist", who + "elbow", who + "shoulder"
            limb(s, e, 0.033 * loose, 0.026, shirt, skin, sleeve)
            limb(e, w, 0.026 if sleeve > 1 else 0.023, 0.017, shirt if sleeve > 1 else skin)
            limb(w, who + "hand", 0.017, 0.021, skin)
            k, a = who + "knee", who + "ankle"
            limb(who + "hip", k, 0.052 * loose, 0.038, trousers, skin, leg)
            limb(k, a, 0.036 * loose, 0.025, trousers if leg > 1 else skin)
            limb(who + "heel", who + "toe", 0.028, 0.02, style["shoes"])
        return shapes


def _plain(rgb: np.ndarray) -> Callable:
    return lambda unit: np.broadcast_to(rgb, (unit.shape[-1], 3))


def outline(mask: np.ndarray, *, step: int = 4) -> list[np.ndarray]:
    """Polygons [p, 2] (pixel edges) round the pieces of a mask [h, w].

    Every `step`-th pixel edge gives a vertex, its midpoint. A hole of note is opened by a
    slit one pixel wide, because COCO's polygons have no holes.
    """
    mask = np.pad(mask, 1)
    while True:
        # Pixel edges with the inside on their right hand; where two pixels touch by a
        # corner, four meet there, and either pairing closes.
        following: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for dy, dx, (ax, ay), (bx, by) in (
            (-1, 0, (0, 0), (1, 0)), (0, 1, (1, 0), (1, 1)),
            (1, 0, (1, 1), (0, 1)), (0, -1, (0, 1), (0, 0)),
        ):  # fmt: skip
            ys, xs = np.nonzero(mask & ~np.roll(mask, (-dy, -dx), (0, 1)))
            for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
                following.setdefault((x + ax, y + ay), []).append((x + bx, y + by))
        loops, holes = [], []
        while following:
            at = start = next(iter(following))
            loop = []
            while True:
                ends = following[at]
                loop.append(at)
                to = ends.pop()
                if not ends:
                    del following[at]
                at = to
                if at == start:
                    break
            loop = np.array(loop)
            size = _shoelace(loop)
            if size < -20:
                holes.append(loop)
            elif size > 0:
                loops.append((size, loop))
        if not holes:
            break
        for hole in holes:
            x, y = hole[np.argmin(hole[:, 1])]
            above = np.flatnonzero(~mask[:y, x])
            mask[above[-1] + 1 : y, x] = False
    loops.sort(key=lambda pair: -pair[0])
    keep = [loop for size, loop in loops if size >= 12] or [loop for _, loop in loops[:1]]
    middles = [(loop + np.roll(loop, -1, 0)) / 2 - 1 for loop in keep]
    return [m[:: min(step, len(m) // 4)] for m in middles]


def _shoelace(polygon: np.ndarray) -> float:
    """Area, positive where the inside is on the right hand (y points down)."""
    x, y = polygon[:, 0], polygon[:, 1]
    return 0.5 * float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())


def draw(
    background: np.ndarray,
    actors: list[Actor],
    clutter: list[Clutter],
    *,
    focal: float,
    light: np.ndarray,
) -> tuple[np.ndarray, list[Person]]:
    """Draws a scene and labels everybody of whom a pixel is seen.

    Args:
      background: uint8 [h, w, 3].
      actors: in metres, Z > 0.
      clutter: in pixels, each at its depth in metres.
      focal: pixels.
      light: [3] unit vector towards the light, camera frame.

    Returns:
      float32 [h, w, 3] in 0..255, and the people in the order of `actors`.
    """
    canvas = _Canvas(background, focal, light.astype(np.float32))
    shapes = [(c.depth, lambda c=c: canvas.flat(c)) for c in clutter]
    for number, actor in enumerate(actors, 1):
        shapes += canvas.person(actor, number)
    for _, shape in sorted(shapes, key=lambda pair: -pair[0]):
        shape()
    people = [_label(canvas, actor, number) for number, actor in enumerate(actors, 1)]
    return canvas.rgb.reshape(background.shape), [p for p in people if p is not None]


def _label(canvas: _Canvas, actor: Actor, number: int) -> Person | None:
    mask = (canvas.owner == 2 * number) | (canvas.owner == 2 * number + 1)
    area = int(mask.sum())
    if not area:
        return None
    body = actor.skeleton
    joints = np.stack([body.joints[name] for name in COCO.names])
    joints = joints @ actor.rotation.T + actor.position
    xy = canvas.project(joints).round(2)
    limit = np.array([canvas.width - 1, canvas.height - 1])
    inside = ((xy >= 0) & (xy <= limit)).all(1)
    column, row = np.clip(np.rint(xy).astype(int), 0, limit).T
    covered = canvas.depth[row, column] < joints[:, 2] - _TOLERANCE * body.height
    # The far side of one's own head: the way to the camera meets the skull, shrunk a little.
    to_unit = (actor.rotation @ body.frames["head"] / body.head_radii).T
    unit = np.array(list(_FACE.values()))
    way = -joints[:5] @ to_unit.T
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    along = (unit * way).sum(1)
    behind = (along < 0) & ((unit * unit).sum(1) - along**2 < 0.8)
    own_head = canvas.owner[row[:5], column[:5]] == 2 * number + 1
    labelled = inside.copy()
    labelled[:5] &= ~(behind | (covered[:5] & own_head))
    if area < 0.01 * np.ptp(xy, axis=0).prod() or area < 30:
        labelled[:] = False
    visibility = np.where(labelled, np.where(covered, 1, 2), 0)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    box = (x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y)
    chest = actor.rotation @ body.frames["chest"][:, 2]
    cosine = -chest @ actor.position / np.linalg.norm(actor.position)
    return Person(
        points_xy=np.where(labelled[:, None], xy, 0.0),
        visibility=visibility,
        polygons=outline(mask),
        area=float(area),
        box_xywh=box,
        facing_deg=float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))),
        cut=bool((~inside).any()),
    )


def _background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Clutter without people: blobs, walls, sticks and skin-coloured things."""
    w, h = size
    image = None
    for cells, weight in ((3, 1.0), (24, 0.35)):
        coarse = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        layer = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        image = layer if image is None else Image.blend(image, layer, weight)
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(4, 16)):
        x, y = rng.uniform(0, w), rng.uniform(0, h)
        a, b = rng.exponential(0.13, 2) * h + 2
        fill = _skin(rng) if rng.random() < 0.15 else _colour(rng, dull=0.3)
        fill = tuple(fill.astype(int).tolist())
        kind = rng.integers(4)
        if kind == 0:
            pen.ellipse([x - a, y - b, x + a, y + b], fill=fill)
        elif kind == 1:
            pen.rectangle([x - a, y - 2 * b, x + a, y + 2 * b], fill=fill)
        elif kind == 2:
            angle, reach = rng.uniform(0, np.pi), 2 * b
            dx, dy = reach * np.cos(angle), reach * np.sin(angle)
            pen.line([x - dx, y - dy, x + dx, y + dy], fill=fill, width=int(rng.integers(2, 14)))
        else:
            corners = rng.normal(0, 1, (rng.integers(3, 7), 2)) * (a, b) + (x, y)
            pen.polygon([tuple(c) for c in corners.tolist()], fill=fill)
    return np.asarray(image)


def _clutter(rng: np.random.Generator, size: tuple[int, int], depth: float) -> Clutter:
    """A pole, a box or a plant."""
    w, h = size
    x, kind = rng.uniform(0, w), rng.integers(3)
    if kind == 0:
        half, lean = rng.uniform(0.006, 0.025) * w, rng.normal(0, 0.05) * h
        corners = [(x - half, -1), (x + half, -1), (x + half + lean, h), (x - half + lean, h)]
        polygons = [np.array(corners)]
    elif kind == 1:
        a, b = rng.uniform(0.04, 0.16, 2) * h
        y = rng.uniform(0.45, 1.0) * h
        square = np.array([(-a, -b), (a, -b), (a, b), (-a, b)])
        turn = _turn(z=rng.normal(0, 8))[:2, :2]
        polygons = [square @ turn + (x, y)]
    else:
        root, polygons = np.array([x, rng.uniform(0.7, 1.1) * h]), []
        for angle in rng.uniform(0.15 * np.pi, 0.85 * np.pi, rng.integers(4, 10)):
            tip = np.array([np.cos(angle), -np.sin(angle)]) * rng.uniform(0.15, 0.4) * h
            broad = np.array([tip[1], -tip[0]]) * rng.uniform(0.06, 0.14)
            polygons.append(root + np.array([0 * tip, tip / 2 + broad, tip, tip / 2 - broad]))
    rgb = _colour(rng, dull=0.2) if kind < 2 else np.array([60, 130, 50]) * rng.uniform(0.5, 1.3)
    return Clutter(polygons, depth, rgb)


def render(
    rng: np.random.Generator, *, size: tuple[int, int] = (320, 256), max_people: int = 4
) -> tuple[np.ndarray, list[Person]]:
    """One picture of one to four people.

    Args:
      rng: all randomness.
      size: (width, height).
      max_people: at most, at least one.

    Returns:
      image uint8 [h, w, 3], and everybody in it.
    """
    w, h = size
    focal = rng.choice([1.0, 1.4, 2.0]) * h
    pitch = rng.choice([0.0, rng.uniform(8, 32), rng.uniform(-18, -6)], p=[0.4, 0.4, 0.2])
    view = _turn(z=rng.normal(0, 4)) @ _turn(pitch) @ _TO_CAMERA
    count = min(max_people, int(rng.choice([1, 2, 3, 4], p=[0.4, 0.3, 0.18, 0.12])))
    actors: list[Actor] = []
    boxes: list[tuple[float, np.ndarray, np.ndarray]] = []
    for _ in range(count):
        body, style = sample_skeleton(rng), sample_style(rng)
        for attempt in itertools.count():
            share = np.exp(rng.uniform(np.log(0.3), np.log(1.2 if count < 3 else 0.9)))
            depth = focal * body.height / (share * h)
            rotation = view @ _turn(y=rng.uniform(-180, 180))
            x, y = rng.uniform(0.06, 0.94) * w, rng.normal(0.5, 0.12) * h
            middle = np.mean(list(body.joints.values()), 0)
            ray = np.array([(x - (w - 1) / 2) / focal, (y - (h - 1) / 2) / focal, 1.0])
            position = ray * depth - rotation @ middle
            joints = np.stack([body.joints[n] for n in COCO.names]) @ rotation.T + position
            xy = joints[:, :2] * (focal / joints[:, 2:]) + ((w - 1) / 2, (h - 1) / 2)
            inside = ((xy > 0) & (xy < (w - 1, h - 1))).all(1).sum()
            good = inside >= 7 and joints[:, 2].min() > 0.25
            for other, low, high in boxes:
                shared = np.minimum(high, xy.max(0)) - np.maximum(low, xy.min(0))
                shared = np.maximum(shared, 0).prod()
                farther = np.ptp(xy, axis=0) if depth > other else high - low
                good &= shared < 0.6 * farther.prod()
                good &= shared == 0 or abs(depth - other) > 0.5
            if good or attempt > 30:
                break
        if good:
            actors.append(Actor(body, style, rotation, position))
            boxes.append((depth, xy.min(0), xy.max(0)))
    depths = [box[0] for box in boxes]
    clutter = [
        _clutter(rng, size, rng.choice(depths) * rng.uniform(0.45, 1.3))
        for _ in range(rng.choice([0, 1, 2, 3], p=[0.3, 0.35, 0.25, 0.1]))
    ]
    light = np.array([rng.normal(0, 0.6), -0.7, rng.uniform(-0.9, -0.2)])
    light /= np.linalg.norm(light)
    image, people = draw(_background(rng, size), actors, clutter, focal=focal, light=light)
    image = image * rng.uniform(0.7, 1.15) + rng.uniform(-10, 25)
    noise = rng.integers(0, 256, image.shape, dtype=np.uint8)
    image += (noise.astype(np.float32) - 127.5) * np.float32(rng.uniform(0, 0.14))
    image = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        blur = ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9))
        image = np.asarray(Image.fromarray(image).filter(blur))
    return image, people


def _write_image(job: tuple[Path, int, int, str, int, tuple[int, int]]) -> list[dict]:
    """Writes one picture; returns its annotations. A function of the job alone."""
    path, image_id, index, split, seed, size = job
    rng = np.random.default_rng([seed, zlib.crc32(split.encode()), index])
    image, people = render(rng, size=size)
    Image.fromarray(image).save(path, "JPEG", quality=90)
    return [
        {
            "segmentation": [p.round(1).reshape(-1).tolist() for p in person.polygons],
            "num_keypoints": int((person.visibility > 0).sum()),
            "area": person.area,
            "iscrowd": 0,
            "keypoints": [
                number
                for (x, y), v in zip(person.points_xy.tolist(), person.visibility, strict=True)
                for number in (x, y, int(v))
            ],
            "image_id": image_id,
            "bbox": list(person.box_xywh),
            "category_id": 1,
            "id": 10 * image_id + number,
        }
        for number, person in enumerate(people)
    ]


def write_coco(
    out: Path,
    *,
    split: str,
    count: int,
    seed: int,
    size: tuple[int, int] = (320, 256),
    first_id: int = 1,
    workers: int = 1,
) -> Path:
    """Writes one split the way COCO does: `out/train2017/*.jpg` and its keypoint file.

    Picture i depends on (seed, split, i) only: not on the count and not on the workers.

    Returns:
      the annotation file, written last.
    """
    out = Path(out)
    folder = out / f"{split}2017"
    folder.mkdir(parents=True, exist_ok=True)
    ids = range(first_id, first_id + count)
    names = [f"{i:012d}.jpg" for i in ids]
    jobs = [
        (folder / name, image_id, index, split, seed, tuple(size))
        for index, (name, image_id) in enumerate(zip(names, ids, strict=True))
    ]
    if workers > 1:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
            annotations = list(pool.map(_write_image, jobs, chunksize=16))
    else:
        annotations = [_write_image(job) for job in jobs]
    content = {
        "info": {"description": "pose_jax synthetic people", "version": str(VERSION)},
        "licenses": [],
        "images": [
            {"file_name": name, "height": size[1], "width": size[0], "id": image_id}
            for name, image_id in zip(names, ids, strict=True)
        ],
        "annotations": list(itertools.chain.from_iterable(annotations)),
        "categories": [
            {
                "supercategory": "person",
                "id": 1,
                "name": "person",
                "keypoints": list(COCO.names),
                "skeleton": [[i + 1, j + 1] for i, j in COCO.skeleton],
            }
        ],
    }
    path = out / "annotations" / f"person_keypoints_{split}2017.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, separators=(",", ":")))
    return path


def write_dataset(
    out: Path,
    *,
    n: int,
    seed: int,
    val: int | None = None,
    size: tuple[int, int] = (320, 256),
    workers: int = 1,
) -> str:
    """Writes train2017 with n pictures and val2017 with `val` (default: an eighth).

    Returns:
      one line that says what was done; nothing is, where `out` already holds this set.

    Raises:
      InputError: `out` holds something else.
    """
    out = Path(out)
    val = max(1, n // 8) if val is None else val
    manifest = {
        "generator": "pose_jax.datasets.synthetic", "version": VERSION, "seed": seed,
        "n": n, "val": val, "size": list(size),
    }  # fmt: skip
    note = out / "synthetic.json"
    if note.is_file():
        held = json.loads(note.read_text())
        if held != manifest:
            raise InputError(
                f"{out}: holds other synthetic people ({held}); delete it or choose another --out."
            )
        if _complete(out, {"train": n, "val": val}):
            return f"{out} already holds these {n} + {val} images; nothing to do."
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: not an empty folder; choose another --out.")
    out.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(manifest, indent=2) + "\n")
    write_coco(out, split="train", count=n, seed=seed, size=size, workers=workers)
    write_coco(
        out, split="val", count=val, seed=seed, size=size, first_id=n + 1, workers=workers
    )
    return f"Wrote {n} + {val} images of synthetic people to {out}."


def _complete(out: Path, counts: dict[str, int]) -> bool:
    return all(
        (out / "annotations" / f"person_keypoints_{split}2017.json").is_file()
        and len(list((out / f"{split}2017").glob("*.jpg"))) == count
        for split, count in counts.items()
    )
