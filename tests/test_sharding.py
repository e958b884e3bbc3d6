"""Batches and states on four devices and on one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from pose_jax import sharding
from pose_jax.errors import ConfigError

needs_four = pytest.mark.skipif(jax.device_count() < 4, reason="needs four devices")


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh()


def batch(rows):
    return {
        "images": np.arange(rows * 6, dtype=np.uint8).reshape(rows, 2, 3),
        "row": np.arange(rows, dtype=np.int32),
        "epoch": np.int32(5),
        "labels": None,
    }


def test_the_mesh_has_one_automatic_axis_over_all_devices(mesh):
    assert mesh.axis_names == ("data",)
    assert mesh.axis_types == (AxisType.Auto,)
    assert mesh.size == jax.device_count()
    one = sharding.make_mesh(jax.devices()[:1])
    assert one.size == 1


@needs_four
def test_rows_are_split_and_scalars_are_everywhere(mesh):
    given = batch(8)
    put = sharding.put_batch(given, mesh)
    assert put["labels"] is None
    for name, leaf in given.items():
        if leaf is not None:
            np.testing.assert_array_equal(np.asarray(put[name]), leaf)
            assert put[name].dtype == leaf.dtype
    assert put["epoch"].is_fully_replicated
    shards = put["images"].addressable_shards
    assert len(shards) == mesh.size
    for shard in shards:
        assert shard.data.shape == (8 // mesh.size, 2, 3)
        np.testing.assert_array_equal(
            np.asarray(shard.data), given["images"][shard.index]
        )


@needs_four
def test_a_batch_that_does_not_divide_says_what_would(mesh):
    with pytest.raises(ConfigError, match=r"10 .* 4 devices: .* 8 or 12"):
        sharding.put_batch(batch(10), mesh)
    with pytest.raises(ConfigError, match=r"batch_size to 4, or"):
        sharding.put_batch(batch(3), mesh)
    sharding.put_batch(batch(3), sharding.make_mesh(jax.devices()[:1]))


@needs_four
def test_a_batch_is_rounded_up_to_the_devices(mesh):
    assert [sharding.multiple(n, mesh) for n in (1, 4, 5, 8)] == [4, 4, 8, 8]


def test_fetch_undoes_put(mesh):
    given = batch(8)
    del given["labels"]
    tree = {"split": sharding.put_batch(given, mesh), "whole": np.eye(3)[:2]}
    fetched = sharding.fetch(tree)
    for one, other in zip(jax.tree.leaves(fetched), jax.tree.leaves(tree), strict=True):
        assert isinstance(one, np.ndarray | np.generic)
        np.testing.assert_array_equal(one, np.asarray(other))


def test_put_replicated_takes_whole_trees_with_keys(mesh):
    tree = {"w": np.ones((3, 2), np.float32), "key": jax.random.key(0), "none": None}
    put = sharding.put_replicated(tree, mesh)
    assert put["w"].sharding == sharding.replicated(mesh)
    assert len(put["w"].addressable_shards) == mesh.size
    np.testing.assert_array_equal(
        jax.random.key_data(put["key"]), jax.random.key_data(tree["key"])
    )


@needs_four
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_jitted_mean_and_its_gradient_do_not_depend_on_the_devices(count):
    mesh = sharding.make_mesh(jax.devices()[:count])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 5)).astype(np.float32)
    w = rng.normal(size=(5, 3)).astype(np.float32)

    def loss(w, x):
        y = x @ w
        return jnp.mean((y - jnp.mean(y, 0, keepdims=True)) ** 2)  # as BatchNorm does

    grad = jax.jit(jax.grad(loss), out_shardings=sharding.replicated(mesh))(
        sharding.put_replicated(w, mesh), sharding.put_batch(x, mesh)
    )
    centred = (x - x.mean(0)).astype(np.float64)
    expected = 2 * centred.T @ centred @ w.astype(np.float64) / (8 * 3)
    np.testing.assert_allclose(np.asarray(grad), expected, rtol=1e-5, atol=1e-6)
    assert grad.is_fully_replicated


def test_nothing_moves_silently(mesh):
    given, tree = batch(8), {"w": np.ones(3, np.float32)}
    step = jax.jit(lambda tree, b: tree["w"].sum() + b["images"].sum())
    with jax.transfer_guard("disallow"):
        out = step(sharding.put_replicated(tree, mesh), sharding.put_batch(given, mesh))
        assert sharding.fetch(out).shape == ()


def test_the_summary_counts_devices(mesh):
    assert sharding.device_summary().startswith(f"{jax.device_count()} ")
    one = sharding.device_summary(sharding.make_mesh(jax.devices()[:1]))
    assert one.startswith("1 ")
    assert " device (" in one
    assert one.endswith("in 1 process")
    assert sharding.is_main_process()


def test_joining_no_others_is_explained():
    with pytest.raises(
        ConfigError, match="cannot connect to the other processes"
    ) as caught:
        sharding.initialize_distributed()
    assert "\n" not in str(caught.value)
