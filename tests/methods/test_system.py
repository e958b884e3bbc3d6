"""A detector and a pose method as one function, against the two of them one by one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import methods, nms
from pose_jax import sharding as sharding_lib
from pose_jax.data import readers
from pose_jax.data import table as table_lib
from pose_jax.data.plan import InputConfig, Plan
from pose_jax.errors import ConfigError
from pose_jax.evaluation import predictor
from pose_jax.evaluation.predictor import Predictor
from pose_jax.keypoints import COCO, FLIC, LSP
from pose_jax.methods import system
from pose_jax.types import Boxes, ImageView, PersonView, Poses
from tests.made_up import MadeUp

SIZES = [(90, 70), (70, 90), (64, 64), (80, 60)]  # (w, h): two canvas sizes.
BUCKETS = ((96, 72), (72, 96))
CONFIG = InputConfig(batch_size=4, canvas_size=(96, 96), reader="numpy")
POSE = {
    "name": "dark",
    "model": {"name": "pocket", "options": {"width": 8, "blocks": (0, 0, 0)}},
    "input_size": (48, 64),
    "sigma": 1.5,
    "decoder": "dark",
}
DEEPPOSE = {
    "name": "deeppose",
    "model": {"name": "resnet_regression_18", "options": {"width": 8}},
    "input_size": (32, 32),
    "stages": 1,
}


class FixedDetector(MadeUp):
    """Finds, in an image, what `variables` hold for its number: [images, 6, 4 + 1]."""

    name = "fixed"
    outputs = "boxes"
    view = ImageView(size=(64, 96), buckets=BUCKETS, max_people=6)

    def predict(self, variables, inputs):
        boxes = variables["boxes"][inputs.row]
        return Boxes(
            boxes_xyxy=boxes[..., :4],
            scores=boxes[..., 4],
            valid=(boxes[..., 4] > 0) & inputs.valid[:, None],
            row=inputs.row,
        )


class Places(MadeUp):
    """Without a network: points at fixed places of the box, scores from the canvas."""

    name = "places"
    view = PersonView(size=(32, 32))

    def predict(self, variables, inputs):
        low, high = inputs.box_xyxy[:, None, :2], inputs.box_xyxy[:, None, 2:]
        center_xy = ((low + high) / 2)[:, 0].astype(jnp.int32)
        row = jnp.arange(len(center_xy))
        seen = inputs.images[row, center_xy[:, 1], center_xy[:, 0]].mean(-1) / 255
        scores = seen[:, None] * jnp.linspace(0.5, 1, 17)[None]
        return Poses(
            points_xy=low + variables["places"] * (high - low),
            keypoint_scores=scores,
            score=inputs.box_score * scores.max(-1),
            valid=inputs.valid,
            row=inputs.row,
        )


def random_network(method, seed=0):
    """Variables whose last layer is random too, so that maps differ."""
    variables = jax.device_get(jax.jit(method.phases[0].init)(jax.random.key(seed)))
    rng = np.random.default_rng(seed)
    return {
        method.phases[0].name: jax.tree.map(
            lambda leaf: (
                np.float32(leaf + rng.normal(0, 0.1, np.shape(leaf)))
                if np.ndim(leaf) == 4
                else np.asarray(leaf)
            ),
            variables,
        )
    }


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 255, (h // 6 + 1, w // 6 + 1, 3)) for w, h in SIZES]
    return [
        np.kron(c, np.ones((6, 6, 1)))[:h, :w].astype(np.uint8)
        for c, (w, h) in zip(coarse, SIZES, strict=True)
    ]


@pytest.fixture(scope="module")
def boxes():
    """[4, 6, 5]: five, three, none and six boxes; some nearly the same."""
    rng = np.random.default_rng(1)
    found = np.zeros((4, 6, 5), np.float32)
    for i, (count, (w, h)) in enumerate(zip((5, 3, 0, 6), SIZES, strict=True)):
        corner = rng.uniform(0, 25, (count, 2))
        found[i, :count] = np.concatenate(
            [
                corner,
                corner + rng.uniform(20, 35, (count, 2)),
                rng.uniform(0.1, 1, (count, 1)),
            ],
            axis=1,
        )
        assert (found[i, :, 2:4] <= (w, h)).all()
    found[0, 1, :4] = found[0, 0, :4] + 0.5  # The same person.
    found[3, 5, :4] = found[3, 2, :4] + (0, 0, 1, 1)
    return found


@pytest.fixture(scope="module")
def network():
    method = methods.build(POSE, COCO)
    return method, random_network(method)


@pytest.fixture(scope="module")
def pose():
    places = np.random.default_rng(2).uniform(0, 1, (1, 17, 2))
    return Places(keypoints=COCO), {"places": jnp.asarray(places, jnp.float32)}


def run(images, boxes, pose, **options):
    method, variables = pose
    found = predictor.System(
        FixedDetector(), {"boxes": jnp.asarray(boxes)}, method, variables,
        mesh=sharding_lib.make_mesh(jax.devices()[:1]), config=CONFIG, **options,
    )  # fmt: skip
    people = found(table_lib.from_boxes(images, None, keypoints=method.keypoints))
    return found, people


def one_by_one(images, boxes, pose, *, slots, box_nms, oks_nms, rescoring=None):
    """The same by loops on the host and `Predictor`, which is what `eval` uses."""
    method, variables = pose
    predictor = Predictor(method, sharding_lib.make_mesh(jax.devices()[:1]))
    everybody = []
    for image, its in zip(images, boxes, strict=True):
        its = its[its[:, 4] > 0]
        keep = np.zeros(len(its), bool)
        if len(its):
            keep = np.asarray(
                nms.box_nms(
                    jnp.asarray(its[:, :4]), jnp.asarray(its[:, 4]), threshold=box_nms
                )
            )
        its = its[keep]
        its = its[np.argsort(-its[:, 4], kind="stable")][:slots]
        if not len(its):
            everybody.append([])
            continue
        table = table_lib.from_boxes(
            [image], [its[:, :4]], [its[:, 4]], keypoints=method.keypoints
        )
        poses = predictor(variables, table, CONFIG, np.arange(len(its), dtype=np.int32))
        means = poses.keypoint_scores.mean(-1)
        score = {
            None: poses.score, "pose": means, "box": its[:, 4], "product": its[:, 4] * means
        }[rescoring]  # fmt: skip
        keep = np.ones(len(its), bool)
        if oks_nms is not None:
            areas = (its[:, 2:4] - its[:, :2]).prod(-1)
            keep = np.asarray(
                nms.oks_nms(
                    *map(jnp.asarray, (poses.points_xy, score, areas)),
                    method.keypoints.sigmas,
                    threshold=oks_nms,
                )
            )
        order = [i for i in np.argsort(-score, kind="stable") if keep[i]]
        everybody.append(
            [
                (poses.points_xy[i], poses.keypoint_scores[i], score[i], its[i])
                for i in order
            ]
        )
    return everybody


def test_equals_a_network_one_by_one(images, boxes, network):
    """Mapped over boxes and images, a method gives what it gives for a batch."""
    same_as_one_by_one(images, boxes, network, slots=6, box_nms=0.6, oks_nms=0.5)


@pytest.mark.parametrize(
    "options",
    [
        {"slots": 6, "box_nms": 0.6, "oks_nms": 0.5},
        {"slots": 2, "box_nms": 1.0, "oks_nms": None, "rescoring": "box"},
        {"slots": 9, "box_nms": 0.9, "oks_nms": 0.05, "rescoring": "product"},
    ],
)
def test_equals_its_parts_one_by_one(images, boxes, pose, options):
    same_as_one_by_one(images, boxes, pose, **options)


def same_as_one_by_one(images, boxes, pose, **options):
    found, people = run(images, boxes, pose, **options)
    wanted = one_by_one(images, boxes, pose, **options)
    assert sum(map(len, wanted)) >= 5  # Else it would say little.
    assert people.valid.sum(1).tolist() == [len(persons) for persons in wanted]
    for i, persons in enumerate(wanted):
        for slot, (points_xy, keypoint_scores, score, box) in enumerate(persons):
            assert people.valid[i, slot]
            np.testing.assert_allclose(people.points_xy[i, slot], points_xy, atol=0.02)
            np.testing.assert_allclose(
                people.keypoint_scores[i, slot], keypoint_scores, rtol=1e-4, atol=1e-6
            )
            np.testing.assert_allclose(
                people.score[i, slot], score, rtol=1e-4, atol=1e-6
            )
            np.testing.assert_array_equal(people.boxes_xyxy[i, slot], box[:4])
            assert people.box_scores[i, slot] == box[4]
    assert found.traces == len(BUCKETS)
    assert people.row.tolist() == [0, 1, 2, 3]


def test_thresholds_change_who_is_kept(images, boxes, pose):
    """So that the test above compares different things."""
    counts = {
        (box_nms, oks_nms): int(
            run(images, boxes, pose, box_nms=box_nms, oks_nms=oks_nms)[1].valid.sum()
        )
        for box_nms, oks_nms in ((1.0, None), (0.6, None), (1.0, 0.05))
    }
    assert counts[1.0, None] == 14
    assert counts[0.6, None] < 14 and counts[1.0, 0.05] < 14


def test_boxes_without_a_slot_are_counted_and_the_best_are_looked_at(
    images, boxes, pose
):
    _, people = run(images, boxes, pose, slots=2, box_nms=1.0, oks_nms=None)
    assert people.overflow.tolist() == [3, 1, 0, 4]
    for i in (0, 1, 3):
        best = np.sort(boxes[i, :, 4])[::-1][:2]
        np.testing.assert_array_equal(np.sort(people.box_scores[i])[::-1], best)
    _, people = run(images, boxes, pose, slots=32, box_nms=1.0, oks_nms=None)
    assert people.overflow.tolist() == [0, 0, 0, 0]


def test_what_is_in_empty_slots_is_finite_and_not_valid(images, boxes, pose):
    _, people = run(images, boxes, pose)
    assert not people.valid[2].any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(people))


def test_traced_once_a_bucket_whatever_is_in_the_images(images, boxes, pose):
    found, _ = run(images, boxes, pose)
    table = table_lib.from_boxes(images[::-1], None, keypoints=COCO)
    found(table)
    assert found.traces == len(BUCKETS)


def test_scores_of_a_method_without_keypoint_scores_are_the_boxes(images, boxes):
    method = methods.build(DEEPPOSE, LSP)
    _, people = run(images, boxes, (method, random_network(method)), oks_nms=None)
    assert people.valid.any()
    np.testing.assert_array_equal(
        people.score[people.valid], people.box_scores[people.valid]
    )


def test_rows_of_padding_hold_nobody(images, boxes, pose):
    method, variables = pose
    plan = Plan(
        table=table_lib.from_boxes(images[:1], None, keypoints=COCO),
        view=FixedDetector().view,
        config=dataclasses.replace(CONFIG, batch_size=2),
        rows=np.array([0], np.int32),
    )
    inputs = next(iter(readers.batches(plan))).inputs
    assert inputs.valid.tolist() == [True, False]
    people = system.find_people(FixedDetector(), method)(
        {"boxes": jnp.asarray(boxes)}, variables, inputs
    )
    assert people.valid[0].any() and not people.valid[1].any()
    assert people.overflow[1] == 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"slots": 0}, "slots must be at least 1; got 0"),
        ({"box_nms": 1.5}, "box_nms is an overlap"),
        ({"oks_nms": -0.1}, "oks_nms is an overlap"),
        ({"rescoring": "poses"}, "one of pose, box, product; got 'poses'"),
    ],
)
def test_options_that_cannot_be(pose, options, match):
    with pytest.raises(ConfigError, match=match):
        system.find_people(FixedDetector(), pose[0], **options)


def test_methods_in_each_others_place(pose):
    with pytest.raises(ConfigError, match="'places' is no detector"):
        system.find_people(pose[0], pose[0])
    with pytest.raises(ConfigError, match="'fixed' is a detector"):
        system.find_people(FixedDetector(), FixedDetector())


def test_oks_nms_needs_sigmas():
    method = methods.build(POSE, FLIC)
    with pytest.raises(ConfigError, match="needs sigmas; keypoint set 'flic' has none"):
        system.find_people(FixedDetector(), method)
    system.find_people(FixedDetector(), method, oks_nms=None)
