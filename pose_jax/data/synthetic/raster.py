"""A small software rasterizer: shaded limbs and balls, backgrounds, outlines of masks.

Camera frame: x right, y down, z ahead, meters. Image frame: (x, y) with integer pixel
centers. Colors are 0..255.

All shapes of an image are evaluated together, on one list of the pixels they may cover:
at this size NumPy's call overhead dominates.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, SupportsIndex

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Paint = np.ndarray | Callable[[np.ndarray], np.ndarray]
"""A color [3], or a function from positions on the shape to colors [n, 3]."""


class Limb(NamedTuple):
    """A tapered capsule; positions [n] run from a (0) to b (1)."""

    owner: int
    a: np.ndarray
    b: np.ndarray
    radius_a: float
    radius_b: float
    paint: Paint


class Ball(NamedTuple):
    """An ellipsoid, axes in the columns; positions [3, n] are on the unit sphere."""

    owner: int
    center: np.ndarray
    axes: np.ndarray
    radii: np.ndarray
    paint: Paint


def _runs(first: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Concatenates range(first, stop) of all; also returns the index of each range."""
    counts = np.maximum(stop - first, 0)
    which = np.repeat(np.arange(counts.size), counts)
    return which, np.arange(which.size) + (first - np.cumsum(counts) + counts)[which]


class Canvas:
    """Color [h * w, 3], depth [h, w] and owner [h, w] of each pixel."""

    def __init__(self, background: np.ndarray, focal: float, light: np.ndarray):
        h, w = self.shape = background.shape[:2]
        self.rgb = background.astype(np.float32).reshape(-1, 3)
        self.depth = np.full((h, w), np.inf, np.float32)
        self.owner = np.zeros((h, w), np.uint8)
        self.focal, self.light = float(focal), light
        self.center = np.array([(w - 1) / 2, (h - 1) / 2])

    def project(self, points: np.ndarray) -> np.ndarray:
        """Projects the camera frame [..., 3] to the image frame [..., 2]."""
        return points[..., :2] * (self.focal / points[..., 2:]) + self.center

    def draw(self, shapes: Sequence[Limb | Ball]) -> None:
        """Draws far to near, so that soft edges blend with what is behind them."""
        limbs = [shape for shape in shapes if isinstance(shape, Limb)]
        balls = [shape for shape in shapes if isinstance(shape, Ball)]
        layers = [*self._limbs(limbs), *self._balls(balls)]
        for _, shape, *layer in sorted(layers, key=lambda layer: -layer[0]):
            self._blend(shape, *layer)

    def _blend(self, shape, at, alpha, depth, shade, place) -> None:
        buffer = self.depth.reshape(-1)
        before = buffer.take(at)
        alpha = alpha * (depth < before)
        solid = alpha >= 0.5
        if not solid.any():
            return
        rgb = shape.paint(place) if callable(shape.paint) else shape.paint
        old = self.rgb.take(at, 0)
        self.rgb[at] = old + alpha[:, None] * (shade[:, None] * rgb - old)
        buffer[at] = np.where(solid, depth, before)
        self.owner.reshape(-1)[at[solid]] = shape.owner

    def _pixels(self, low: np.ndarray, high: np.ndarray, span: Callable):
        """Returns shape, x and y of the pixels in rows low..high [n] of n shapes.

        `span` maps shapes and rows [r] to the first and last columns.
        """
        h, w = self.shape
        clip = lambda v, size: np.minimum(np.maximum(v, 0), size).astype(int)
        which, y = _runs(clip(low, h), clip(high + 1, h))
        left, right = span(which, y)
        row, x = _runs(clip(left, w), clip(right + 1, w))
        return which[row], x, y[row]

    def _layers(self, shapes, far, which, x, y, alpha, depth, shade, place) -> Iterator:
        """Yields for each shape its distance, the shape, its pixels and their values."""
        at = y * self.shape[1] + x
        alpha = np.minimum(np.maximum(alpha, 0), 1)
        shade = 0.52 + 0.55 * np.maximum(shade, 0)
        ends = np.searchsorted(which, np.arange(len(shapes) + 1)).tolist()
        for i, (shape, z) in enumerate(zip(shapes, far.tolist(), strict=True)):
            if ends[i] < ends[i + 1]:
                s = slice(ends[i], ends[i + 1])
                yield z, shape, at[s], alpha[s], depth[s], shade[s], place[..., s]

    def _limbs(self, limbs: list[Limb]) -> Iterator:
        if not limbs:
            return
        ends = np.array([(s.a, s.b) for s in limbs])
        radii = np.array([(s.radius_a, s.radius_b) for s in limbs])
        xy, z = self.project(ends), ends[..., 2]
        wide = radii * self.focal / z
        low = (xy - wide[..., None]).min(1) - 1
        high = (xy + wide[..., None]).max(1) + 1
        ax, ay, (dx, dy) = xy[:, 0, 0], xy[:, 0, 1], (xy[:, 1] - xy[:, 0]).T
        square = np.maximum(dx * dx + dy * dy, 1e-6)
        # Columns of a row: the box, and a band along the axis as wide as the thicker end.
        steep = np.where(np.abs(dy) < 1e-3, 1e-3, dy)
        half = (wide.max(1) + 1) * np.sqrt(square) / np.abs(steep)

        def span(i, y):
            middle = ax[i] + (y - ay[i]) * (dx / steep)[i]
            left = np.maximum(low[i, 0], middle - half[i])
            return left, np.minimum(high[i, 0], middle + half[i])

        which, column, row = self._pixels(low[:, 1], high[:, 1], span)
        pairs = [p for v in (wide, z, radii) for p in (v[:, 0], v[:, 1] - v[:, 0])]
        table = np.array([ax, ay, dx, dy, 1 / square, *pairs], np.float32)[:, which]
        dx, dy, scale, wide, widen, depth, deepen, thick, thicken = table[2:]
        x, y = np.array([column, row], np.float32) - table[:2]
        t = np.minimum(np.maximum((x * dx + y * dy) * scale, 0), 1)
        x, y, radius = x - t * dx, y - t * dy, wide + t * widen
        inside = 1 - (x * x + y * y) / (radius * radius)
        bulge = np.sqrt(np.maximum(inside, 0))
        depth = depth + t * deepen - bulge * (thick + t * thicken)
        light = self.light.astype(np.float32)
        shade = (x * light[0] + y * light[1]) / radius - bulge * light[2]
        alpha = 0.5 * inside * radius + 0.5
        seen = which, column, row, alpha, depth, shade, t
        yield from self._layers(limbs, z.mean(1), *seen)

    def _balls(self, balls: list[Ball]) -> Iterator:
        """Ray tracing: in units of the ball the ray is base + x * right + y * down."""
        if not balls:
            return
        center = np.array([s.center for s in balls])
        radii = np.array([s.radii for s in balls])
        to_unit = np.array([s.axes for s in balls]).swapaxes(1, 2) / radii[..., None]
        goal, z = (to_unit @ center[..., None])[..., 0], center[:, 2]
        base, xy = goal / z[:, None], self.project(center)
        right, down = to_unit[..., 0] / self.focal, to_unit[..., 1] / self.focal
        dot = lambda a, b: (a * b).sum(-1)
        # |goal x ray|^2 / |ray|^2 is the squared distance of the ray: visible below 1.
        over, under = np.cross(goal, right), np.cross(goal, down)
        form = xx, xy_, yy = dot(over, over), 2 * dot(over, under), dot(under, under)
        a, b = xx - dot(right, right), xy_ / 2 - dot(right, down)
        c, d, e = yy - dot(down, down), -dot(base, right), -dot(base, down)
        # The outline: a x^2 + 2 b x y + c y^2 + 2 d x + 2 e y = |base|^2.
        p, q, r = b * b - a * c, b * d - a * e, d * d + a * dot(base, base)
        a, p = np.maximum(a, 1e-9), np.minimum(p, -1e-9)
        half = np.sqrt(np.maximum(q * q - p * r, 0))
        low, high = xy[:, 1] + (half - q) / p - 1, xy[:, 1] - (half + q) / p + 1

        def span(i, y):
            y = y - xy[i, 1]
            middle = xy[i, 0] - (b[i] * y + d[i]) / a[i]
            half = np.sqrt(np.maximum((p[i] * y + 2 * q[i]) * y + r[i], 0)) / a[i] + 1
            return middle - half, middle + half

        which, column, row = self._pixels(low, high, span)
        soft = 0.5 * self.focal / z * radii.min(1)
        vectors = (base, right, down, goal, to_unit @ self.light, 1 / radii)
        table = [*xy.T, *form, soft, *np.concatenate(vectors, 1).T]
        table = np.array(table, np.float32)[:, which]
        x, y = np.array([column, row], np.float32) - table[:2]
        xx, xy_, yy, soft = table[2:6]
        base, right, down, goal, light, inverse = table[6:].reshape(6, 3, -1)
        ray = base + right * x + down * y
        square = (ray * ray).sum(0)
        inside = 1 - ((xx * x + xy_ * y) * x + yy * y * y) / square
        along = (ray * goal).sum(0) - np.sqrt(np.maximum(square * inside, 0))
        depth = along / square
        unit = ray * depth - goal
        normal = unit * inverse
        shade = (unit * light).sum(0) / np.sqrt((normal * normal).sum(0) + 1e-9)
        alpha = inside * soft + 0.5
        yield from self._layers(balls, z, which, column, row, alpha, depth, shade, unit)


def outline(mask: np.ndarray) -> list[np.ndarray]:
    """Returns polygons [p, 2] (pixel edges) around the components of a mask [h, w].

    Every fourth pixel edge is a vertex. COCO's polygons have no holes, so a slit of one
    pixel opens them.
    """
    mask = np.pad(mask, 1)
    wide, flat = mask.shape[1], mask.reshape(-1)
    # Edges are 4 * corner + direction: east, south, west, north, the mask on the right.
    step, inside = np.array([1, wide, -1, -wide]), flat[wide:-wide]
    end = flat.size - wide
    sides = ((-wide, 0), (1, 1), (wide, 1 + wide), (-1, wide))  # Neighbor, corner.
    edges = np.concatenate([
        4 * np.flatnonzero(inside > flat[wide + side : end + side])
        + 4 * (wide + corner) + direction
        for direction, (side, corner) in enumerate(sides)
    ])  # fmt: skip
    there = np.zeros(4 * flat.size, bool)
    there[edges] = True
    d = edges & 3
    corner = (edges >> 2) + step[d]
    right, ahead, left = ((corner << 2) + ((d + k) & 3) for k in (1, 0, 3))
    after = np.where(there[right], right, np.where(there[ahead], ahead, left))
    after = dict(zip(edges.tolist(), after.tolist(), strict=True))
    pieces, holes = [], []
    while after:
        edge, follows = after.popitem()
        loop = [edge]
        while follows != edge:
            loop.append(follows)
            follows = after.pop(follows)
        loop = np.array(loop)
        corners, d = loop >> 2, loop & 3
        (y, x), half = np.divmod(corners, wide), 0.5 * np.array([1, 0, -1, 0])
        # Twice the enclosed area, negative for a hole.
        size = 2 * (x * half[d - 1] - y * half[d]).sum()
        if size <= -40:
            holes.append(int(corners.min()) - wide)
        elif size > 0:
            polygon = np.stack([x + half[d], y + half[d - 1]], -1) - 1
            pieces.append(polygon[:: min(4, len(loop) // 4)])
    for above in holes:
        while flat[above]:
            flat[above] = False
            above -= wide
    return outline(mask[1:-1, 1:-1]) if holes else pieces


def colour(rng: np.random.Generator, dull: float = 0.0) -> np.ndarray:
    """Samples any color; `dull` 1 is gray."""
    hue, saturation, value = rng.random(3).tolist()
    rgb = colorsys.hsv_to_rgb(hue, saturation * (1 - dull), 0.12 + 0.88 * value)
    return np.float32(255) * np.array(rgb, np.float32)


def skin(rng: np.random.Generator) -> np.ndarray:
    """Samples a color of human skin."""
    light, dark = np.array([[245, 208, 180], [88, 56, 40]], np.float32)
    return light + np.float32(rng.beta(1, 1.4)) * (dark - light)


# Sky, cloud, plaster, sand, brick, wood, leaves, grass, asphalt, shade.
_SCENERY = ((150, 185, 215), (205, 210, 212), (200, 190, 172), (190, 165, 130),
            (140, 88, 70), (118, 88, 62), (62, 84, 48), (112, 130, 78),
            (105, 105, 108), (48, 48, 54))  # fmt: skip


def _muted(rng: np.random.Generator) -> np.ndarray:
    """Samples mostly colors of scenery or dull ones; rarely skin or bright colors."""
    kind = rng.random()
    if kind < 0.25:
        return skin(rng) if kind < 0.13 else colour(rng, 0.2)
    if kind < 0.5:
        return colour(rng, 0.7)
    scenery = np.array(_SCENERY[rng.integers(len(_SCENERY))], np.float32)
    hue = scenery * rng.uniform(0.7, 1.2) + rng.normal(0, 8, 3)
    return np.minimum(np.maximum(hue, 0), 255).astype(np.float32)


def _scatter(
    rng: np.random.Generator, image: Image.Image, count: SupportsIndex
) -> None:
    pen, size = ImageDraw.Draw(image), image.size
    for _ in range(count):
        (a, b), middle = rng.exponential(0.13, 2) * size[1] + 1, rng.random(2) * size
        fill, kind = tuple(_muted(rng).astype(int).tolist()), rng.integers(4)
        box = [*(middle - (a, b)).tolist(), *(middle + (a, b)).tolist()]
        if kind == 0:
            pen.ellipse(box, fill=fill)
        elif kind == 1:
            pen.rectangle(box, fill=fill)
        elif kind == 2:
            ends = box if a < b else [box[0], box[3], box[2], box[1]]
            pen.line(ends, fill=fill, width=int(size[1] * rng.uniform(0.008, 0.05)) + 1)
        else:
            corners = middle + rng.normal(0, 1, (rng.integers(3, 7), 2)) * (a, b)
            pen.polygon([tuple(c) for c in corners.tolist()], fill=fill)


def background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draws wall and ground with uneven light, blurred objects, and a few sharp ones."""
    w, h = size[0] // 4, size[1] // 4
    horizon = int(h * rng.uniform(0.2, 1.1))
    coarse = np.empty((h, w, 3), np.float32)
    coarse[:horizon], coarse[horizon:] = _muted(rng), _muted(rng)
    down = np.linspace(*rng.uniform(0.75, 1.2, 2), num=h, dtype=np.float32)
    across = np.linspace(*rng.uniform(0.8, 1.15, 2), num=w, dtype=np.float32)
    coarse *= down[:, None, None]
    coarse *= across[:, None]
    grain = rng.standard_normal((h, w, 1), np.float32)
    coarse += grain * np.float32(rng.uniform(0, 14))
    image = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8))
    _scatter(rng, image, rng.integers(5, 18))
    image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.4, 1.6)))
    image = image.resize(size, Image.Resampling.BILINEAR)
    _scatter(rng, image, rng.integers(5, 20))
    return np.asarray(image)


def clutter(rng: np.random.Generator, ray: np.ndarray, depth: float) -> list[tuple]:
    """Samples a pole, a bulky object or a plant on a ray at a depth."""
    kind, at, hue = rng.integers(3), ray * depth, _muted(rng)
    if kind == 0:
        lean, radius = rng.normal(0, 0.06) * depth, rng.uniform(0.008, 0.03) * depth
        end = np.array([lean, 2 * depth, 0])
        return [(at - end, at + end, radius, radius, hue)]
    if kind == 1:
        end = np.array([*rng.normal(0, 0.1, 2), 0]) * depth
        return [(at - end, at + end, *(rng.uniform(0.03, 0.11, 2) * depth), hue)]
    leaves = rng.normal(0, 1, (rng.integers(4, 10), 3)) * (0.16, 0.08, 0.03)
    tips, green = at + depth * (leaves - (0, 0.22, 0)), rng.uniform(0.5, 1.3)
    green = np.float32(green) * np.array([70, 140, 55], np.float32)
    return [(at, tip, 0.022 * depth, 0.006 * depth, green) for tip in tips]


def photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Adds exposure, noise and blur to float32 [h, w, 3] (modified); returns uint8."""
    gain, lift = rng.uniform((0.7, -15), (1.15, 25)).astype(np.float32)
    noise = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
    image *= gain
    image += lift
    image += noise * np.float32(rng.uniform(0, 0.14))
    np.clip(image, 0, 255, out=image)
    photo = Image.fromarray(image.astype(np.uint8))
    if rng.random() < 0.5:
        photo = photo.filter(ImageFilter.BoxBlur(rng.uniform(0.2, 0.7)))
    return np.asarray(photo)
