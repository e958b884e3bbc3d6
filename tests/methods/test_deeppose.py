"""DeepPose as a method: the cascade's arithmetic, and what its stages learn from."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import keypoints, methods
from pose_jax.errors import ConfigError
from pose_jax.types import Batch, Inputs, PersonLabels
from tests.made_up import register_network

W, H = 160, 144  # Canvas.
SET = keypoints.LSP
K = len(SET)
SHOULDER, HIP = SET.torso


class Fixed(nn.Module):
    """Answers the same to every image: its parameters."""

    num_keypoints: int
    norm: str = "batch"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images, train=False):
        answer = self.param("answer", nn.initializers.zeros, (self.num_keypoints, 2))
        output = jnp.tile(answer[None], (len(images), 1, 1))
        return (output,) if train else output


class Brightest(nn.Module):
    """Says of every joint that it is in the middle of what is bright in the image."""

    num_keypoints: int
    norm: str = "batch"
    dtype: str = "float32"
    aligned: bool = False

    @nn.compact
    def __call__(self, images, train=False):
        self.param("unused", nn.initializers.zeros, (1,))
        _, h, w, _ = images.shape
        light = images.sum(-1) - images.sum(-1).min((1, 2), keepdims=True)
        x = (light.sum(1) * jnp.arange(w)[None]).sum(1)
        y = (light.sum(2) * jnp.arange(h)[None]).sum(1)
        last = jnp.array([[w, h]]) - self.aligned  # Half of it is the middle.
        xy = jnp.stack([x, y], -1) / light.sum((1, 2))[:, None] / last - 0.5
        output = jnp.tile(xy[:, None], (1, self.num_keypoints, 1))
        return (output,) if train else output


@pytest.fixture(autouse=True)
def fixed(monkeypatch):
    for name, network in {"fixed": Fixed, "brightest": Brightest}.items():
        register_network(monkeypatch, name, network, outputs="coordinates")


def build(**changes):
    section = {
        "name": "deeppose",
        "model": {"name": "fixed"},
        "input_size": (40, 32),
        "stages": 3,
        "sigma": 1.5,
    }
    decoder = changes.pop("decoder", None)
    return methods.build(section | changes, SET, decoder=decoder)


def weights(*answers):
    """Of stages that give these answers, [k, 2] each."""
    return {
        f"stage_{i}": {
            "params": {"answer": jnp.asarray(a, jnp.float32)},
            "batch_stats": {},
        }
        for i, a in enumerate(answers, 1)
    }


def make_batch(b=6, seed=0):
    rng = np.random.default_rng(seed)
    box = np.array([40.0, 20.0, 110.0, 120.0], np.float32)
    points = rng.uniform(box[:2], box[2:], (b, K, 2)).astype(np.float32)
    inputs = Inputs(
        images=rng.integers(0, 255, (b, H, W, 3), np.uint8),
        canvas_to_image=np.tile(np.eye(2, 3, dtype=np.float32), (b, 1, 1)),
        box_xyxy=np.tile(box, (b, 1)),
        box_score=rng.uniform(0.5, 1, b).astype(np.float32),
        valid=np.ones(b, bool),
        row=np.arange(b, dtype=np.int32),
    )
    labels = PersonLabels(
        points_xy=points,
        visibility=np.full((b, K), 2, np.int32),
        area=np.ones(b, np.float32),
        others_xy=np.zeros((b, 0, K, 2), np.float32),
        others_visibility=np.zeros((b, 0, K), np.int32),
    )
    return Batch(inputs=inputs, labels=labels, epoch=np.int32(0))


def diameter(points):
    return np.linalg.norm(points[..., SHOULDER, :] - points[..., HIP, :], axis=-1)


def test_three_stages_are_the_papers_equations():
    """y1 = N^-1(psi; b0); then y + sigma diam(y) psi, and not the centre once more."""
    rng = np.random.default_rng(1)
    answers = rng.uniform(-0.4, 0.4, (3, K, 2))
    batch = make_batch()
    x0, y0, x1, y1 = np.float64(batch.inputs.box_xyxy).T[..., None, None]
    center = np.concatenate([(x0 + x1) / 2, (y0 + y1) / 2], -1)
    size = np.concatenate([x1 - x0, y1 - y0], -1)
    pose = center + size * answers[0]
    expected = [pose]
    for answer in answers[1:]:
        pose = pose + 1.5 * diameter(pose)[:, None, None] * answer
        expected.append(pose)
    for stage, pose in enumerate(expected, 1):
        method = build(decoder=f"stage_{stage}")
        found = jax.jit(method.predict)(weights(*answers), batch.inputs)
        np.testing.assert_allclose(found.points_xy, pose, atol=1e-3)
        np.testing.assert_array_equal(found.keypoint_scores, 1)
        np.testing.assert_array_equal(found.score, batch.inputs.box_score)
    # With the weights of two stages only, as while the third is trained.
    found = jax.jit(build().predict)(weights(*answers[:2]), batch.inputs)
    np.testing.assert_allclose(found.points_xy, expected[1], atol=1e-3)


@pytest.mark.parametrize("alignment", ["stride", "aligned"])
def test_the_flip_test_moves_nothing_that_is_seen_in_both_images(alignment):
    """To the pixel, in stages 1 and 2; and it averages, names exchanged."""
    batch = make_batch()
    images = np.zeros((6, H, W, 3), np.uint8)
    spots = np.array([[62, 50], [75, 60], [90, 80], [70, 90], [80, 40], [66, 66]])
    for i, (x, y) in enumerate(spots):
        images[i, y - 1 : y + 2, x - 1 : x + 2] = 255
    inputs = dataclasses.replace(batch.inputs, images=images)
    model = {"name": "brightest", "options": {"aligned": alignment == "aligned"}}
    options = {"model": model, "alignment": alignment, "stages": 2}
    nothing = {"params": {"unused": jnp.zeros(1)}, "batch_stats": {}}
    stages = {"stage_1": nothing, "stage_2": nothing}
    once, twice = (
        jax.jit(build(flip_test=test, **options).predict)(stages, inputs).points_xy
        for test in ("none", "plain")
    )
    # The spot is found, to a pixel of the input, and to the same pixel.
    np.testing.assert_allclose(once, np.tile(spots[:, None], (1, K, 1)), atol=2.5)
    np.testing.assert_allclose(twice, once, atol=1e-3)

    answer = np.random.default_rng(0).uniform(-0.4, 0.4, (K, 2))
    other = answer[list(SET.permutation)] * [-1, 1] - [1 / 40, 0]
    both = 0.5 * (answer + other)
    found, expected = (
        jax.jit(build(stages=1, flip_test=test).predict)(weights(a), batch.inputs)
        for test, a in (("plain", answer), ("none", both))
    )
    np.testing.assert_allclose(found.points_xy, expected.points_xy, atol=1e-4)


def test_a_torso_without_length_still_has_squares():
    answers = np.zeros((2, K, 2))
    answers[1] = 0.5  # All joints at one place; then half a square further.
    batch = make_batch()
    found = jax.jit(build(stages=2).predict)(weights(*answers), batch.inputs)
    moved = 0.5 * 1.5 * 0.1 * 100  # The least diameter: a tenth of the longer side.
    expected = np.tile([75 + moved, 70 + moved], (6, K, 1))
    np.testing.assert_allclose(found.points_xy, expected, atol=1e-4)


def constants(mean, covariance):
    return {
        "mean": jnp.asarray(mean, jnp.float32),
        "root": jnp.linalg.cholesky(jnp.asarray(covariance, jnp.float32)),
    }


def prepared(method, batch, key, mean=None, covariance=None, stage=2):
    mean = np.zeros((K, 2)) if mean is None else mean
    covariance = (
        np.tile(0.01 * np.eye(2), (K, 1, 1)) if covariance is None else covariance
    )
    name = f"stage_{stage}"
    variables = {name: {"constants": constants(mean, covariance)}}
    phase = method.phases[stage - 1]
    return jax.device_get(jax.jit(phase.prepare)(variables, batch, key))


def test_a_later_stage_learns_minus_delta_over_its_square():
    """Without spread, delta is the mean: the label is -mean / sigma, in every row."""
    mean = np.random.default_rng(2).uniform(-0.3, 0.3, (K, 2))
    batch = make_batch(32)
    example = prepared(
        build(), batch, jax.random.key(0), mean, np.tile(1e-12 * np.eye(2), (K, 1, 1))
    )
    joint = example.weight.argmax(1)
    assert (example.weight.sum(1) == 1).all() and len(set(joint)) > K / 2
    labels = example.labels[np.arange(32), joint]
    np.testing.assert_allclose(labels, -mean[joint] / 1.5, atol=2e-4)


def test_squares_are_moved_as_the_stage_before_errs():
    mean = np.tile([0.1, -0.2], (K, 1))
    covariance = np.tile([[0.04, 0.01], [0.01, 0.02]], (K, 1, 1))
    batch = make_batch(512)
    example = prepared(build(), batch, jax.random.key(1), mean, covariance)
    joint = example.weight.argmax(1)
    delta = -1.5 * example.labels[np.arange(512), joint]
    np.testing.assert_allclose(delta.mean(0), mean[0], atol=0.03)
    np.testing.assert_allclose(np.cov(delta.T), covariance[0], atol=0.008)
    counts = np.bincount(joint, minlength=K)
    assert counts.min() > 512 / K / 3  # Uniformly over the joints.


def test_unlabelled_joints_and_people_without_torso_teach_nothing():
    batch = make_batch(64)
    batch.labels.visibility[:, 3:] = 0
    batch.labels.points_xy[:, 3:] = np.nan
    batch.labels.visibility[:32, [SHOULDER, HIP]] = 2
    batch.labels.points_xy[:32, [SHOULDER, HIP]] = [[60, 40], [80, 90]]
    batch.labels.visibility[0] = 0
    example = prepared(build(), batch, jax.random.key(0))
    assert example.valid.tolist() == [False] + 31 * [True] + 32 * [False]
    joint = example.weight.argmax(1)[1:32]
    assert set(joint) <= {0, 1, 2, SHOULDER, HIP}
    assert np.isfinite(example.images).all() and np.isfinite(example.labels).all()


def test_all_joints_inside_of_a_square_may_be_learnt():
    batch = make_batch(32)
    batch.labels.visibility[:, 4] = 0
    own = prepared(build(), batch, jax.random.key(0))
    example = prepared(build(inside=0.25), batch, jax.random.key(0))
    np.testing.assert_array_equal(own.images, example.images)
    inside = (np.abs(example.labels) < 0.5).all(-1) & (np.arange(K) != 4)
    expected = np.where(own.weight == 1, 1, 0.25 * inside)
    np.testing.assert_array_equal(example.weight, expected)
    assert (own.weight == 1).sum() == own.weight.sum() == 32
    assert (example.weight > 0).sum() > 64
    np.testing.assert_array_equal(example.visibility > 0, expected > 0)
    # All labels are of the same square: the joints lie in it as in the image.
    true_xy = batch.labels.points_xy
    side = 1.5 * np.maximum(diameter(true_xy), 10)  # A tenth of the longer side.
    apart = (true_xy - true_xy[:, :1]) / side[:, None, None]
    found = example.labels - example.labels[:, :1]
    keep = np.arange(K) != 4
    np.testing.assert_allclose(found[:, keep], apart[:, keep], atol=1e-3)


def test_a_later_stage_may_start_where_the_one_before_ended():
    assert [p.starts_from for p in build().phases] == [None] * 3
    starts = [p.starts_from for p in build(start="before").phases]
    assert starts == [None, "stage_1", "stage_2"]


def test_a_mirrored_square_shows_the_partner_and_the_pixels_move_along():
    """A bright dot at a joint is at the label, flipped or not."""
    batch = make_batch(24)
    images = np.zeros((24, H, W, 3), np.uint8)
    points = np.round(batch.labels.points_xy)
    points[:, SHOULDER], points[:, HIP] = [60, 40], [84, 72]  # diam 40
    for i, (x, y) in enumerate(points[:, 6].astype(int)):
        images[i, y - 1 : y + 2, x - 1 : x + 2] = 255
    batch.labels.points_xy[:] = points
    batch.labels.visibility[:] = 0
    batch.labels.visibility[:, [6, SHOULDER, HIP]] = 2
    batch.inputs.images[:] = images
    method = build(augment={"flip": 0.5}, sigma=1.0)
    example = prepared(method, batch, jax.random.key(3))
    joint = example.weight.argmax(1)
    partner = dict((*SET.flip_pairs, *(pair[::-1] for pair in SET.flip_pairs)))[6]
    seen = set()
    for image, label, j in zip(example.images, example.labels, joint, strict=True):
        x, y = label[j] * (40, 32) + (20, 16)
        if j not in (6, partner) or not (3 < x < 36 and 3 < y < 28):
            continue
        bright = image.sum(-1) - image.sum(-1).min()
        rows, columns = np.mgrid[:32, :40]
        at = [(bright * grid).sum() / bright.sum() for grid in (columns, rows)]
        np.testing.assert_allclose(at, (x, y), atol=0.6)
        seen.add(int(j))
    assert seen == {6, partner}


def test_statistics_are_mean_and_covariance_of_the_errors_in_diameters():
    rng = np.random.default_rng(4)
    answer = rng.uniform(-0.3, 0.3, (K, 2))
    batches = [make_batch(6, seed) for seed in (0, 1)]
    batches[0].labels.visibility[0, 4] = 0
    batches[0].labels.points_xy[0, 4] = np.nan
    batches[1].inputs.valid[5] = False
    batches[1].labels.visibility[2, HIP] = 0
    statistics = build().phases[1].statistics
    measure = jax.jit(statistics.measure)
    sums = [measure(weights(answer), batch) for batch in batches]
    found = statistics.finish(jax.tree.map(jnp.add, *sums))
    pose = np.array([75, 70]) + np.array([70, 100]) * answer
    errors = [[] for _ in range(K)]
    for batch in batches:
        labels = batch.labels
        for i in range(6):
            if not batch.inputs.valid[i] or not labels.visibility[i, HIP]:
                continue
            for k in range(K):
                if labels.visibility[i, k]:
                    error = pose[k] - labels.points_xy[i, k]
                    diam = max(diameter(labels.points_xy[i]), 10)
                    errors[k].append(error / diam)
    assert [len(e) for e in errors] == found["count"].tolist()
    for k in range(K):
        np.testing.assert_allclose(
            found["mean"][k], np.mean(errors[k], 0), rtol=1e-4, atol=1e-5
        )
        expected = np.cov(np.transpose(errors[k]), bias=True)
        np.testing.assert_allclose(
            found["covariance"][k], expected, rtol=0.01, atol=1e-3
        )
        root = np.asarray(found["root"][k])
        np.testing.assert_allclose(root @ root.T, found["covariance"][k], rtol=1e-4)


@pytest.mark.slow
def test_a_held_out_fifth_is_measured_on_and_not_learnt_from():
    batch = make_batch(20)
    held_out = np.arange(20) % 5 == 4
    method = build(statistics={"on": "held_out"})
    first = jax.jit(method.phases[0].prepare)({}, batch, jax.random.key(0))
    np.testing.assert_array_equal(first.valid, ~held_out)
    example = prepared(method, batch, jax.random.key(0))
    np.testing.assert_array_equal(example.valid, ~held_out)
    measure = jax.jit(method.phases[1].statistics.measure)
    sums = measure(weights(np.zeros((K, 2))), batch)
    np.testing.assert_array_equal(sums["count"], held_out.sum())


@pytest.mark.parametrize("kind", ["squared", "smooth_l1"])
def test_the_loss_sums_over_labelled_joints_and_averages_over_rows(kind):
    """(2): sum over joints of squared distances in units of the box."""
    batch = make_batch(4)
    batch.labels.visibility[0, 5:] = 0
    batch.labels.points_xy[0, 5:] = np.nan
    batch.inputs.valid[3] = False
    phase = build(loss=kind).phases[0]
    example = jax.jit(phase.prepare)({}, batch, None)
    answer = np.random.default_rng(0).uniform(-0.5, 0.5, (K, 2))
    total, (_, sums) = jax.jit(phase.loss)(
        {"answer": jnp.asarray(answer, jnp.float32)},
        {"batch_stats": {}},
        example,
        jax.random.key(0),
    )
    rows = []
    for i in range(3):
        labelled = batch.labels.visibility[i] > 0
        true = (batch.labels.points_xy[i] - (75, 70)) / (70, 100)
        error = np.abs(answer - true)[labelled]
        if kind == "squared":
            rows.append((error**2).sum())
        else:
            rows.append(np.where(error < 1, error**2 / 2, error - 0.5).sum())
    assert float(total) == pytest.approx(np.mean(rows), rel=1e-4)
    assert float(sums["loss"].weight) == 3


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"decoder": "stage_4"}, "'stage_1', 'stage_2', 'stage_3'"),
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"model": {"name": "hrnet_w32"}}, "gives heatmaps, .* method 'dark'"),
        ({"stages": 0}, "stages must be positive"),
        ({"statistics": {"on": "test"}}, "held_out"),
    ],
)
def test_what_cannot_be_is_one_line(changes, says):
    with pytest.raises(ConfigError, match=says) as caught:
        build(**changes)
    assert "\n" not in str(caught.value)


def test_a_set_without_torso_has_no_cascade():
    bare = keypoints.KeypointSet(
        name="bare", names=("a", "b"), flip_pairs=((0, 1),), skeleton=((0, 1),)
    )
    section = {"name": "deeppose", "model": {"name": "fixed"}, "stages": 2}
    with pytest.raises(ConfigError, match="no torso"):
        methods.build(section, bare)
    assert len(methods.build(section | {"stages": 1}, bare).phases) == 1
