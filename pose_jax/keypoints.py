"""Keypoint sets: what the k channels of a data set mean.

A set defines joint names, flip pairs, the skeleton to draw, and what its metrics need.
Sigmas (OKS fall-off per keypoint) exist only where they were measured; without them AP
is not computed. A set of your own comes with the data (`data.keypoint_sets`), or is a
`KeypointSet`, which validates itself.

k keypoints. Indices are 0-based.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

End = int | tuple[int, ...]
"""One end of a stick: a keypoint, or the mean of several."""

LIMBS = ("upper_arm", "lower_arm", "upper_leg", "lower_leg")
"""Names of arm and leg sticks, so that tables can leave out head and torso."""


@dataclasses.dataclass(frozen=True)
class KeypointSet:
    """Names and relations of k keypoints.

    Attributes:
      name: name of the set.
      names: k keypoint names.
      flip_pairs: (i, j) that are exchanged in a mirror image.
      skeleton: (i, j) to draw as a limb.
      sticks: limbs that PCP counts: (name, end, end); left and right share a name.
      torso: the opposing pair whose distance normalizes PDJ and PCK.
      upper_body: keypoints of the upper half, for half-body augmentation.
      sigmas: OKS sigma per keypoint (papers write k = 2 sigma), or None.
      joint_weights: loss weight per keypoint, or None for ones.

    Raises:
      ValueError: a length, an index or a pair does not fit.
    """

    name: str
    names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    skeleton: tuple[tuple[int, int], ...]
    sticks: tuple[tuple[str, End, End], ...] = ()
    torso: tuple[int, int] | None = None
    upper_body: tuple[int, ...] = ()
    sigmas: tuple[float, ...] | None = None
    joint_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        k = len(self.names)
        if not all(isinstance(n, str) and n for n in self.names):
            raise ValueError(f"{self.name}: every keypoint needs a name, a text.")
        if len(set(self.names)) != k:
            twice = next(n for n in self.names if self.names.count(n) > 1)
            raise ValueError(f"{self.name}: two keypoints have the name {twice!r}.")
        for what in ("flip_pairs", "skeleton"):
            for pair in getattr(self, what):
                if len(pair) != 2 or pair[0] == pair[1]:
                    raise ValueError(f"{self.name}: {what}: {pair} is no pair.")
        paired = [i for pair in self.flip_pairs for i in pair]
        if len(set(paired)) != len(paired):
            raise ValueError(f"{self.name}: a keypoint is in two flip pairs.")
        sticks = [
            i for _, a, b in self.sticks for e in (a, b) for i in np.atleast_1d(e)
        ]
        limbs = [i for pair in self.skeleton for i in pair]
        for what, indices in (
            ("flip_pairs", paired),
            ("skeleton", limbs),
            ("sticks", sticks),
            ("torso", self.torso or ()),
            ("upper_body", self.upper_body),
        ):
            for i in indices:
                if not 0 <= i < k:
                    raise ValueError(
                        f"{self.name}: {what} names keypoint {i}; there are {k}, 0 to "
                        f"{k - 1}."
                    )
        for what in ("sigmas", "joint_weights"):
            values = getattr(self, what)
            if values is None:
                continue
            if len(values) != k or not all(0 < value < np.inf for value in values):
                raise ValueError(
                    f"{self.name}: {what} needs {k} positive numbers, one per keypoint; "
                    f"got {len(values)}."
                )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def permutation(self) -> tuple[int, ...]:
        """[k]: the order of keypoints in a mirror image; its own inverse."""
        order = list(range(len(self)))
        for i, j in self.flip_pairs:
            order[i], order[j] = j, i
        return tuple(order)

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """Groups left and right: "wrist" to the indices of both, in order of `names`.

        Groups are pairs by name, without the word for the side (`mirrored`).
        """
        groups: dict[str, tuple[int, ...]] = {}
        for i, name in enumerate(self.names):
            bare = name
            if mirrored(name) in self.names and (side := _SIDE.search(name)):
                before, after = name[: side.start()], name[side.end() :]
                bare = (before.rstrip(_GAPS) if not after else before) + after
                bare = (bare if before else bare.lstrip(_GAPS)) or name
            groups[bare] = (*groups.get(bare, ()), i)
        return groups

    @property
    def one_sigma(self) -> float | None:
        """The sigma, if all keypoints have the same; it was not measured, so that metrics
        have it in their names."""
        return self.sigmas[0] if self.sigmas and len({*self.sigmas}) == 1 else None

    def select(self, names: Sequence[str], name: str) -> KeypointSet:
        """Returns some of the keypoints, in the order of `names`, and what relates them.

        Args:
          names: names of this set.
          name: name of the new set.
        """
        order = [self.names.index(each) for each in names]
        at = {old: new for new, old in enumerate(order)}

        def among(*groups: Any) -> tuple[Any, ...]:
            """Renumbers tuples of indices; drops those with an index that is left out."""
            return tuple(
                tuple(at[i] for i in group)
                for group in groups
                if all(i in at for i in group)
            )

        sticks = []
        for kind, *ends in self.sticks:
            new = among(*(np.atleast_1d(end).tolist() for end in ends))
            if len(new) == len(ends):
                sticks.append((kind, *(e if len(e) > 1 else e[0] for e in new)))
        each = lambda values: tuple(values[i] for i in order if values) or None
        return KeypointSet(
            name=name,
            names=tuple(names),
            flip_pairs=among(*self.flip_pairs),
            skeleton=among(*self.skeleton),
            sticks=tuple(sticks),
            torso=next(iter(among(self.torso)), None) if self.torso else None,
            upper_body=tuple(at[i] for i in self.upper_body if i in at),
            sigmas=each(self.sigmas),
            joint_weights=each(self.joint_weights),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, for manifests and metadata."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> KeypointSet:
        """The inverse of `to_json`; lists become tuples again."""
        return cls(**{name: _tuples(value) for name, value in values.items()})


_SIDE = re.compile(r"left|right|(?<![a-z])[lr](?![a-z])", re.IGNORECASE)
_GAPS = "_-. "
_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}


def side_of(name: str) -> str:
    """Returns the side that a keypoint's name says: "left", "right" or ""."""
    word = _SIDE.search(name)
    return {"l": "left", "r": "right"}[word[0][0].lower()] if word else ""


def mirrored(name: str) -> str | None:
    """Returns the name of the other side, or None: "left_ear" is "right_ear", "ear_L" is
    "ear_R". Single letters count between characters that are not letters."""
    word = _SIDE.search(name)
    if word is None:
        return None
    other = _OTHER[word[0].lower()]
    if word[0][0].isupper():
        other = other.upper() if word[0].isupper() else other.capitalize()
    return name[: word.start()] + other + name[word.end() :]


def pairs_by_name(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Returns the (left, right) keypoints that are pairs by their names (`mirrored`)."""
    at = {name: i for i, name in enumerate(names)}
    pairs = ((i, at.get(mirrored(n) or "")) for n, i in at.items())
    return tuple(
        (i, j) for i, j in pairs if j is not None and side_of(names[i]) == "left"
    )


def _tuples(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_tuples(item) for item in value)
    return value


def remap(
    points_xy: Float[Array, "*b k 2"],
    visibility: Shaped[Array, "*b k"],
    source: KeypointSet,
    target: KeypointSet,
) -> tuple[Float[Array, "*b t 2"], Shaped[Array, "*b t"]]:
    """Reorders keypoints to another set by name; missing ones become unlabeled.

    Args:
      points_xy: any frame.
      visibility: 0, 1, 2.
      source: the keypoint set of the input.
      target: the keypoint set of the output, with t keypoints.

    Returns:
      points and visibility in target's order: (0, 0) and 0 where source has no such name.

    Raises:
      ValueError: k is not source's, or no name is shared.
    """
    if points_xy.shape[-2] != len(source) or visibility.shape[-1] != len(source):
        raise ValueError(
            f"{source.name} has {len(source)} keypoints; got points "
            f"{points_xy.shape} and visibility {visibility.shape}."
        )
    at = {name: i for i, name in enumerate(source.names)}
    index = np.array([at.get(name, -1) for name in target.names])
    if (index < 0).all():
        raise ValueError(f"{source.name} and {target.name} share no keypoint name.")
    known = index >= 0
    points_xy = jnp.where(known[:, None], points_xy[..., index, :], 0)
    return points_xy, jnp.where(known, visibility[..., index], 0)


def matched(first: KeypointSet, second: KeypointSet) -> KeypointSet:
    """Returns the keypoints that two sets have by the same name, in the order of `first`.

    Sticks, torso, sigmas, skeleton and the upper body are those of `first`, or of `second`
    if `first` has none.
    """
    names = [name for name in first.names if name in second.names]
    label = f"{first.name} and {second.name}"
    chosen, other = first.select(names, label), second.select(names, label)
    rest = ("skeleton", "sticks", "torso", "upper_body", "sigmas", "joint_weights")
    return dataclasses.replace(
        chosen,
        **{field: getattr(chosen, field) or getattr(other, field) for field in rest},
    )


def swap(
    values: Shaped[Array, ...], keypoint_set: KeypointSet, *, axis: int
) -> Shaped[Array, ...]:
    """Exchanges left and right along the keypoint axis; it is its own inverse.

    Raises:
      ValueError: the axis does not have one entry per keypoint.
    """
    if values.shape[axis] != len(keypoint_set):
        raise ValueError(
            f"{keypoint_set.name} has {len(keypoint_set)} keypoints; axis {axis} of "
            f"{values.shape} has {values.shape[axis]}."
        )
    return jnp.take(values, np.array(keypoint_set.permutation), axis=axis)


COCO = KeypointSet(
    name="coco",
    names=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear",
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
        "left_wrist", "right_wrist", "left_hip", "right_hip",
        "left_knee", "right_knee", "left_ankle", "right_ankle",
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    skeleton=(
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6),
        (5, 7), (6, 8), (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4),
        (3, 5), (4, 6),
    ),
    sticks=(
        ("upper_arm", 5, 7), ("upper_arm", 6, 8),
        ("lower_arm", 7, 9), ("lower_arm", 8, 10),
        ("upper_leg", 11, 13), ("upper_leg", 12, 14),
        ("lower_leg", 13, 15), ("lower_leg", 14, 16),
        ("torso", (5, 6), (11, 12)),
    ),
    torso=(5, 12),
    upper_body=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072,
        0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
    ),
    joint_weights=(
        1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.2, 1.2,
        1.5, 1.5, 1.0, 1.0, 1.2, 1.2, 1.5, 1.5,
    ),
)  # fmt: skip
"""COCO's 17 body keypoints, as annotated in train2017 and val2017."""

_LIMBS_14 = (
    ("upper_arm", 8, 7), ("upper_arm", 9, 10),
    ("lower_arm", 7, 6), ("lower_arm", 10, 11),
    ("upper_leg", 2, 1), ("upper_leg", 3, 4),
    ("lower_leg", 1, 0), ("lower_leg", 4, 5),
)  # fmt: skip

LSP = KeypointSet(
    name="lsp",
    names=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle",
        "right_wrist", "right_elbow", "right_shoulder",
        "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
    ),
    flip_pairs=((0, 5), (1, 4), (2, 3), (6, 11), (7, 10), (8, 9)),
    skeleton=(
        (0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 8), (9, 10), (10, 11),
        (12, 13), (8, 12), (12, 9), (2, 3), (8, 2), (9, 3),
    ),
    sticks=(*_LIMBS_14, ("head", 12, 13), ("torso", (8, 9), (2, 3))),
    torso=(9, 2),
    upper_body=(6, 7, 8, 9, 10, 11, 12, 13),
)  # fmt: skip
"""Leeds Sports Pose and its extension: 14 joints. It has no measured sigmas."""

MPII = KeypointSet(
    name="mpii",
    names=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle",
        "pelvis", "thorax", "neck", "head_top",
        "right_wrist", "right_elbow", "right_shoulder",
        "left_shoulder", "left_elbow", "left_wrist",
    ),
    flip_pairs=((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
    skeleton=(
        (0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9),
        (8, 12), (12, 11), (11, 10), (8, 13), (13, 14), (14, 15),
    ),
    sticks=(
        ("upper_arm", 12, 11), ("upper_arm", 13, 14),
        ("lower_arm", 11, 10), ("lower_arm", 14, 15),
        ("upper_leg", 2, 1), ("upper_leg", 3, 4),
        ("lower_leg", 1, 0), ("lower_leg", 4, 5),
        ("head", 8, 9), ("torso", 6, 7),
    ),
    torso=(13, 2),
    upper_body=(7, 8, 9, 10, 11, 12, 13, 14, 15),
    joint_weights=(
        1.5, 1.2, 1.0, 1.0, 1.2, 1.5, 1.0, 1.0, 1.0, 1.0, 1.5, 1.2, 1.0, 1.0, 1.2, 1.5,
    ),
)  # fmt: skip
"""MPII Human Pose: 16 joints. "neck" is its "upper neck"."""

FLIC = KeypointSet(
    name="flic",
    names=(
        "left_shoulder", "left_elbow", "left_wrist",
        "right_shoulder", "right_elbow", "right_wrist",
        "left_hip", "right_hip", "left_eye", "right_eye", "nose",
    ),
    flip_pairs=((0, 3), (1, 4), (2, 5), (6, 7), (8, 9)),
    skeleton=(
        (0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (6, 7), (0, 6), (3, 7),
        (8, 10), (9, 10),
    ),
    sticks=(
        ("upper_arm", 0, 1), ("upper_arm", 3, 4),
        ("lower_arm", 1, 2), ("lower_arm", 4, 5),
        ("torso", (0, 3), (6, 7)),
    ),
    torso=(3, 6),
    upper_body=tuple(range(11)),
)  # fmt: skip
"""Frames Labeled In Cinema: the 11 upper-body keypoints that are filled."""

SETS = {s.name: s for s in (COCO, MPII, LSP, FLIC)}
"""The sets by name, for configs and manifests."""
