"""DARK as a method: from canvases to poses in the image frame and back to targets."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import keypoints, methods, models
from pose_jax.errors import ConfigError
from pose_jax.types import Batch, Inputs, PersonLabels

SECTION = {
    "name": "dark",
    "model": {"name": "pocket"},
    "input_size": (96, 128),
    "sigma": 1.5,
}
W, H = 160, 144  # Canvas.


def make_batch(b=4, seed=0):
    """Smooth random canvases with a person in the middle of each."""
    rng = np.random.default_rng(seed)
    box = np.array([40.0, 20.0, 110.0, 120.0], np.float32)
    points = rng.uniform(box[:2], box[2:], (b, 17, 2)).astype(np.float32)
    inputs = Inputs(
        images=rng.integers(0, 255, (b, H, W, 3), np.uint8),
        canvas_to_image=np.tile(
            np.array([[1, 0, 0], [0, 1, 0]], np.float32), (b, 1, 1)
        ),
        box_xyxy=np.tile(box, (b, 1)),
        box_score=np.linspace(0.5, 1, b).astype(np.float32),
        valid=np.ones(b, bool),
        row=np.arange(b, dtype=np.int32),
    )
    labels = PersonLabels(
        points_xy=points,
        visibility=rng.integers(0, 3, (b, 17)).astype(np.int32),
        area=np.full(b, 5000, np.float32),
        others_xy=np.zeros((b, 0, 17, 2), np.float32),
        others_visibility=np.zeros((b, 0, 17), np.int32),
    )
    return Batch(inputs, labels, np.int32(0))


def build(**changes):
    return methods.build({**SECTION, **changes}, keypoints.COCO)


@pytest.fixture(scope="module")
def weights():
    method = build()
    return {"pose": jax.jit(method.phases[0].init)(jax.random.key(0))}


@pytest.mark.parametrize("alignment", ["stride", "aligned"])
@pytest.mark.parametrize("encoding", ["unbiased", "biased"])
def test_a_network_that_answers_its_targets_gives_the_labels_back(
    monkeypatch, alignment, encoding
):
    """prepare -> targets -> decode -> image frame is the identity on the labels."""
    batch = make_batch()

    class Perfect:
        """Answers with the maps it was told to."""

        maps = None

        def init(self, key, images, train):
            return {"params": {}}

        def apply(self, variables, images, train):
            return jnp.asarray(Perfect.maps)

    monkeypatch.setattr(models, "build", lambda *args, **kwargs: Perfect())
    method = build(alignment=alignment, encoding=encoding)
    phase = method.phases[0]
    example = jax.jit(phase.prepare)({}, batch, None)
    Perfect.maps = phase.preview(example)["targets"]
    poses = jax.jit(method.predict)(
        {"pose": {"params": {}, "batch_stats": {}}}, batch.inputs
    )
    poses = jax.device_get(poses)
    seen = batch.labels.visibility > 0
    error = np.linalg.norm(poses.points_xy - batch.labels.points_xy, axis=-1)
    # One input pixel is 1.04 image pixels, one heatmap pixel four of them; rounding to
    # the heatmap loses up to half of that per axis.
    limit = 0.05 if encoding == "unbiased" else 0.5 * np.sqrt(2) * 4 * 1.05
    assert error[seen].max() < limit
    if encoding == "biased":
        assert np.median(error[seen]) > 0.5
    np.testing.assert_allclose(poses.score, batch.inputs.box_score, rtol=0.1)


def test_an_untrained_network_predicts_inside_the_padded_box(weights):
    batch = make_batch()
    poses = jax.device_get(jax.jit(build().predict)(weights, batch.inputs))
    assert poses.points_xy.shape == (4, 17, 2)
    assert np.isfinite(poses.points_xy).all()
    center = np.array([75.0, 70.0])
    half = 0.625 * np.array([75.0, 100.0])
    assert (np.abs(poses.points_xy - center) <= half + 5).all()


def test_training_moves_labels_with_the_pixels():
    """A bright dot on a keypoint stays on it through every augmentation."""
    batch = make_batch(b=16)
    images = np.zeros((16, H, W, 3), np.uint8)
    at = np.round(batch.labels.points_xy[:, 9]).astype(int)
    for i, (x, y) in enumerate(at):
        images[i, y, x] = 255
        images[i, y, [x - 1, x + 1]] = images[i, [y - 1, y + 1], x] = 120
    points = batch.labels.points_xy.copy()
    points[:, 9] = at
    # Its mirror partner lies on it too, so that a flip's swap does not matter here.
    points[:, 10] = at
    batch = Batch(
        dataclasses.replace(batch.inputs, images=images),
        dataclasses.replace(
            batch.labels, points_xy=points, visibility=np.full((16, 17), 2, np.int32)
        ),
        np.int32(3),
    )
    method = build(augment={"flip": 0.5, "scale": 0.2, "rotation": 30.0})
    prepare = jax.jit(method.phases[0].prepare)
    example = prepare({}, batch, jax.random.key(1))
    shown = method.phases[0].preview(example)["input"]
    example = jax.device_get(example)
    y, x = np.mgrid[:128, :96]
    light = np.asarray(shown).sum(-1)
    mass = light.sum((1, 2))
    found = np.stack([(light * x).sum((1, 2)), (light * y).sum((1, 2))], -1)
    inside = (example.points_xy[:, 9] > 3) & (example.points_xy[:, 9] < [92, 124])
    inside = inside.all(-1) & (mass > 0)
    assert inside.sum() >= 8
    error = found[inside] / mass[inside, None] - example.points_xy[inside, 9]
    assert np.abs(error).max() < 0.4
    plain = prepare({}, batch, None)
    assert not np.allclose(plain.points_xy, example.points_xy)


def test_a_flipped_row_swaps_left_and_right():
    batch = make_batch(b=32)
    method = build(augment={"flip": 0.5})
    prepare = jax.jit(method.phases[0].prepare)
    plain = jax.device_get(prepare({}, batch, None))
    drawn = jax.device_get(prepare({}, batch, jax.random.key(0)))
    flipped = ~np.isclose(drawn.points_xy, plain.points_xy, atol=1e-2).all((1, 2))
    assert 6 < flipped.sum() < 26
    order = list(keypoints.COCO.permutation)
    np.testing.assert_array_equal(
        drawn.visibility[flipped], plain.visibility[flipped][:, order]
    )
    mirrored = plain.points_xy[flipped][:, order] * [-1, 1] + [95, 0]
    np.testing.assert_allclose(drawn.points_xy[flipped], mirrored, atol=1e-3)
    np.testing.assert_allclose(
        drawn.images[flipped], plain.images[flipped][:, :, ::-1], atol=0.01
    )


def test_the_plain_flip_test_commutes_with_mirroring_when_aligned(weights):
    """Exact for "aligned": mirroring the image mirrors the answer."""
    method = build(alignment="aligned", flip_test="plain", decoder="argmax")
    inspect = jax.jit(method.inspect)
    batch = make_batch(b=2)
    box = np.tile(np.array([0, 0, W - 1, H - 1], np.float32), (2, 1))
    inputs = dataclasses.replace(batch.inputs, box_xyxy=box)
    mirrored = dataclasses.replace(inputs, images=inputs.images[:, :, ::-1].copy())
    a = np.asarray(inspect(weights, inputs)["heatmaps"])
    b = np.asarray(inspect(weights, mirrored)["heatmaps"])
    order = list(keypoints.COCO.permutation)
    np.testing.assert_allclose(a, b[:, :, ::-1][..., order], atol=1e-4)


def test_the_loss_ignores_padding_and_unlabelled_keypoints(weights):
    method = build()
    phase = method.phases[0]
    batch = make_batch()
    params = weights["pose"]["params"]
    state = {"batch_stats": weights["pose"]["batch_stats"]}
    prepare, loss = jax.jit(phase.prepare), jax.jit(phase.loss)

    def value(batch):
        example = prepare({}, batch, None)
        return float(loss(params, state, example, jax.random.key(0))[0])

    moved = batch.labels.points_xy.copy()
    moved[batch.labels.visibility == 0] = np.nan
    nan = dataclasses.replace(
        batch, labels=dataclasses.replace(batch.labels, points_xy=moved)
    )
    assert value(nan) == pytest.approx(value(batch), rel=1e-6)
    padded = dataclasses.replace(
        batch,
        inputs=dataclasses.replace(
            batch.inputs, valid=np.array([True, True, True, False])
        ),
    )
    sums = loss(params, state, prepare({}, padded, None), jax.random.key(0))[1][1]
    assert float(sums["loss"].weight) == 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"decoder": "drak"}, "'dark'"),
        ({"sigmaa": 1.0}, "sigma"),
        ({"name": "drak"}, "'dark'"),
        ({"model": {"name": "pocked"}}, "pocket"),
        ({"input_size": (96,)}, "input_size"),
    ],
)
def test_a_misspelt_option_names_the_nearest(changes, says):
    with pytest.raises(ConfigError, match=says):
        build(**changes)


def test_joint_weights_are_refused_where_the_set_has_none():
    with pytest.raises(ConfigError, match="lsp"):
        methods.build({**SECTION, "joint_weights": True}, keypoints.LSP)


def example_and_loss(monkeypatch, maps, **changes):
    """The example of one person and the loss of a network that answers `maps`."""

    class Fixed:
        def init(self, key, images, train):
            return {"params": {}}

        def apply(self, variables, images, train, mutable, rngs):
            return (maps + variables["params"],), {}

    monkeypatch.setattr(models, "build", lambda *args, **kwargs: Fixed())
    phase = build(**changes).phases[0]
    batch = make_batch(b=2)
    batch.labels.visibility[:] = 2
    example = jax.jit(phase.prepare)({}, batch, None)
    key = jax.random.key(0)
    return jax.value_and_grad(
        lambda params: phase.loss(params, {"batch_stats": {}}, example, key)[0]
    )(jnp.zeros((2, 32, 24, 17)))


@pytest.mark.slow
def test_hard_keypoint_mining_counts_the_hardest_alone(monkeypatch):
    """Far channels dominate; the gradient of the others is zero."""
    far = jnp.zeros((2, 32, 24, 17)).at[..., 3].set(5.0).at[..., 9].set(7.0)
    every, _ = example_and_loss(monkeypatch, far)
    two, gradient = example_and_loss(monkeypatch, far, ohkm=2)
    one, _ = example_and_loss(monkeypatch, far, ohkm=1)
    touched = np.flatnonzero(np.abs(np.asarray(gradient)).sum((0, 1, 2)))
    assert touched.tolist() == [3, 9]
    assert one > two > every
    # The mean over 17 holds the two hardest, and little else.
    assert float(every) == pytest.approx(2 * float(two) / 17, rel=0.05)
    same, _ = example_and_loss(monkeypatch, far, ohkm=17)
    assert float(same) == pytest.approx(float(every), rel=1e-6)


def test_joint_weights_scale_the_loss_of_their_keypoints(monkeypatch):
    only = jnp.zeros((2, 32, 24, 17)).at[..., 9].set(50.0)  # left wrist: 1.5
    plain, _ = example_and_loss(monkeypatch, only)
    weighted, _ = example_and_loss(monkeypatch, only, joint_weights=True)
    factor = keypoints.COCO.joint_weights[9] ** 2  # On output and target, as published.
    assert factor == 2.25
    assert float(weighted / plain) == pytest.approx(factor, rel=1e-2)


def test_more_hard_keypoints_than_there_are_is_refused():
    with pytest.raises(ConfigError, match="ohkm must be 0 to 17"):
        build(ohkm=18)


def test_an_input_size_that_the_network_refuses_is_a_config_error():
    section = {"name": "dark", "model": {"name": "pocket"}, "input_size": (90, 128)}
    method = methods.build(section, keypoints.COCO)
    with pytest.raises(ConfigError, match=r"input_size \(90, 128\).*divisible by 16"):
        jax.eval_shape(method.phases[0].init, jax.random.key(0))


def test_a_network_of_coordinates_is_refused():
    section = {**SECTION, "model": {"name": "deeppose"}}
    with pytest.raises(ConfigError, match=r"gives coordinates, .* method 'deeppose'"):
        methods.build(section, keypoints.COCO)
