"""People and predictions that tests make up: no images to read, no network."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from pose_jax import keypoints, models
from pose_jax.data.table import Table
from pose_jax.keypoints import KeypointSet
from pose_jax.methods.topdown import ModelConfig
from pose_jax.runs import digests
from pose_jax.types import Boxes, ImageView, Mean, Phase, Poses


def edit_manifest(run, **sections):
    """Overlays sections of RUN/model/manifest.json, which has a digest of itself."""
    path = run / "model" / "manifest.json"
    manifest = digests.opened(json.loads(path.read_text()))
    for name, values in sections.items():
        manifest[name] |= values
    path.write_text(json.dumps(digests.sealed(manifest)))


def make_table(n=6, keypoint_set=keypoints.COCO, seed=0, **changes) -> Table:
    """People of 100 x 200 pixels, two an image, all keypoints labelled."""
    rng = np.random.default_rng(seed)
    k, images = len(keypoint_set), (n + 1) // 2
    corner = rng.uniform(0, 200, (n, 2))
    points = corner[:, None] + rng.uniform(0, 1, (n, k, 2)) * (100, 200)
    columns = {
        "name": "made up",
        "keypoints": keypoint_set,
        "images": tuple(np.zeros((400, 400, 3), np.uint8) for _ in range(images)),
        "image_ids": np.arange(images) + 10,
        "image_sizes": np.full((images, 2), 400, np.int32),
        "image": (np.arange(n) // 2).astype(np.int32),
        "ids": np.arange(n) + 1,
        "boxes_xyxy": np.concatenate([corner, corner + (100, 200)], -1),
        "box_scores": np.ones(n),
        "points_xy": points,
        "visibility": np.full((n, k), 2, np.int32),
        "areas": np.full(n, 10_000.0),
        "crowd": np.zeros(n, bool),
    }
    return Table(**{**columns, **changes})


def make_poses(table: Table, moved=0.0, rows=None) -> Poses:
    rows = np.arange(len(table), dtype=np.int32) if rows is None else rows
    k = len(table.keypoints)
    return Poses(
        points_xy=(table.points_xy[rows] + moved).astype(np.float32),
        keypoint_scores=np.full((len(rows), k), 0.5, np.float32),
        score=np.linspace(1, 0.5, len(rows), dtype=np.float32),
        valid=np.ones(len(rows), bool),
        row=rows,
    )


def detections(table: Table, rows, scores) -> Table:
    """The same boxes as from a detector, `rows` of them, some twice."""
    return dataclasses.replace(
        table,
        image=table.image[rows],
        ids=np.zeros(len(rows), np.int64),
        boxes_xyxy=table.boxes_xyxy[rows],
        box_scores=np.asarray(scores, float),
        points_xy=table.points_xy[rows],
        visibility=np.zeros((len(rows), 17), np.int32),
        areas=table.areas[rows],
        crowd=np.zeros(len(rows), bool),
        box_source="detections",
        labelled=False,
        truth=table,
    )


def register_network(
    monkeypatch, name: str, make: Callable, *, outputs: str, stride: int | None = None
) -> None:
    """Puts a network of a test's own into `models.MODELS`, for one test."""
    network = models.Network(outputs=outputs, stride=stride, make=make)
    monkeypatch.setitem(models.MODELS, name, network)


# A detector whose weights are its answers: boxes and scores of each image by its number.
# It sees nothing, and learns by heart; whatever is about boxes can be tested with it.


_NETWORK = ModelConfig("faster_rcnn_pocket")  # Never built.


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
    name: str
    images: int = 8
    slots: int = 3
    size: tuple[int, int] = (320, 320)
    buckets: tuple[tuple[int, int], ...] = ((320, 256), (256, 320))
    model: ModelConfig = _NETWORK


def answers(config: DetectorConfig) -> dict:
    """Variables without an answer: boxes without extent, of score 0."""
    shape = (config.images, config.slots)
    params = {"boxes": np.zeros((*shape, 4), np.float32)}
    params["scores"] = np.zeros(shape, np.float32)
    return {"params": params, "batch_stats": {}}


@dataclasses.dataclass(frozen=True, eq=False)
class MadeUp:
    """What every method has, of one that learns nothing and shows nothing."""

    config: Any = None
    keypoints: KeypointSet | None = None

    name: ClassVar = "made_up"
    outputs: ClassVar = "nothing"
    phases: ClassVar = ()
    decoders: ClassVar = {}
    panels: ClassVar = ()

    def inspect(self, variables, inputs):
        return {}


@dataclasses.dataclass(frozen=True, eq=False)
class MadeUpDetector(MadeUp):
    """Put into `methods.METHODS` by a test."""

    name: ClassVar = "made_up_detector"
    Config: ClassVar = DetectorConfig
    outputs: ClassVar = "boxes"

    def __post_init__(self):
        object.__setattr__(self, "keypoints", None)

    @property
    def view(self):
        return ImageView(self.config.size, self.config.buckets, max_people=4)

    @property
    def phases(self):
        return (Phase("detector", self.init, self.prepare, self.loss, self.preview),)

    def init(self, key):
        return jax.tree.map(jnp.asarray, answers(self.config))

    def prepare(self, variables, batch, key):
        slots = slice(self.config.slots)
        return {
            "input": batch.inputs.images / 255.0,
            "boxes_xyxy": batch.labels.people_xyxy[:, slots],
            "kind": batch.labels.people_kind[:, slots],
            "row": batch.inputs.row,
        }

    def loss(self, params, state, example, key):
        row, kind = example["row"], example["kind"]
        wrong = jnp.square(params["boxes"][row] - example["boxes_xyxy"]).sum(-1)
        unsure = jnp.square(params["scores"][row] - (kind == 1))
        total = jnp.sum(wrong * (kind == 1) + unsure)
        return total, (state, {"loss": Mean(total, jnp.asarray(1.0))})

    def preview(self, example):
        return example

    def predict(self, variables, inputs):
        params = variables["detector"]["params"]
        scores = params["scores"][inputs.row]
        return Boxes(params["boxes"][inputs.row], scores, scores > 0, inputs.row)

    def inspect(self, variables, inputs):
        return {"input": inputs.images / 255.0}


def right_answers(table: Table, slots=3) -> dict:
    """The variables that find everybody of a table, with scores from 0.9 down."""
    config = DetectorConfig("made_up_detector", len(table.images), slots)
    variables = answers(config)
    for image in range(len(table.images)):
        rows = table.people_of_image(image)
        rows = rows[~table.crowd[rows]][:slots]
        variables["params"]["boxes"][image, : len(rows)] = table.boxes_xyxy[rows]
        scores = 0.9 - 0.01 * np.arange(len(rows))
        variables["params"]["scores"][image, : len(rows)] = scores
    return variables
