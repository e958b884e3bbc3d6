"""States and models come back bit for bit; what is broken says so; nothing is lost."""

import dataclasses
import errno
import functools
import math
import random
import re
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pose_jax import sharding
from pose_jax.errors import ConfigError, InputError
from pose_jax.runs import model as model_lib
from pose_jax.runs import states
from pose_jax.runs.model import merge_params
from pose_jax.runs.states import Checkpoints
from pose_jax.trees import compare_trees


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["step", "params", "opt_state", "ema", "empty"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class State:
    step: jax.Array
    params: dict
    opt_state: object
    ema: dict
    empty: jax.Array


def make_state(seed=0, width=3):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(4, width)).astype(np.float32)
    w[0, 0], w[1, 0], w[2, 0] = np.nan, -0.0, np.inf
    params = {
        "conv.0": {"kernel": jnp.asarray(w), "bias": jnp.zeros(width, jnp.bfloat16)},
        "head": {"kernel": jnp.asarray(rng.normal(size=(width, 2)), jnp.float32)},
    }
    tx = optax.MultiSteps(optax.adam(1e-3), 2).gradient_transformation()
    return State(
        step=jnp.int32(seed),
        params=params,
        opt_state=tx.init(params),
        ema={},
        empty=jnp.zeros((0, 3)),
    )


def assert_same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert one.dtype == other.dtype and one.shape == other.shape
        assert one.tobytes() == other.tobytes()


def test_a_state_comes_back_bit_for_bit(tmp_path):
    state = make_state(7)
    with Checkpoints(tmp_path / "pose") as store:
        assert store.latest_step() is None and store.best_step() is None
        store.save(7, state)
        assert store.latest_step() == 7
        assert_same_bits(store.restore(jax.eval_shape(lambda: state)), state)
    with Checkpoints(tmp_path / "pose") as store:
        assert_same_bits(store.restore(state, 7), state)


def test_a_saved_state_may_be_donated_at_once(tmp_path):
    state = {"w": jnp.arange(200_000.0)}
    expected = np.asarray(state["w"]).copy()
    step = jax.jit(lambda s: {"w": s["w"] * 0 - 1}, donate_argnums=0)
    with Checkpoints(tmp_path) as store:
        store.save(1, state)
        for _ in range(3):
            state = step(state)
        jax.block_until_ready(state)
        found = store.restore({"w": jax.ShapeDtypeStruct((200_000,), jnp.float32)})
    np.testing.assert_array_equal(found["w"], expected)


@pytest.mark.skipif(jax.device_count() < 4, reason="needs four devices")
def test_a_state_of_four_devices_comes_back_on_one(tmp_path):
    four = sharding.make_mesh()
    one = sharding.make_mesh(jax.devices()[:1])
    state = make_state(1)
    with Checkpoints(tmp_path) as store:
        store.save(1, sharding.put_replicated(state, four))
        found = sharding.put_replicated(store.restore(state), one)
    assert_same_bits(found, state)
    assert len(found.step.addressable_shards) == 1


@pytest.mark.parametrize(
    ("mode", "scores", "kept"),
    [
        ("max", [0.9, 0.8, 0.7, 0.6], [1, 3, 4]),  # falling: the newest stay
        ("max", [0.1, 0.2, 0.3, 0.4], [3, 4]),
        ("max", [0.1, 0.9, 0.3, 0.2], [2, 3, 4]),
        ("min", [0.9, 0.1, 0.3, 0.2], [2, 3, 4]),
        ("max", [0.5, math.nan, 0.3, math.nan], [1, 3, 4]),
        ("max", [None, 0.9, None, None], [2, 3, 4]),
        ("max", [None, None, None, None], [3, 4]),
    ],
)
def test_the_latest_and_the_best_are_kept(tmp_path, mode, scores, kept):
    def open_store():
        return Checkpoints(tmp_path, keep_latest=2, best_metric="AP", best_mode=mode)

    with open_store() as store:
        for step, score in enumerate(scores, start=1):
            store.save(step, {"w": np.full(2, step)})
            if score is not None:
                store.record(step, {"AP": score, "AR": 0.0})
    sign = {"max": 1, "min": -1}[mode]
    ranked = [
        (-math.inf if math.isnan(s) else sign * s, step)
        for step, s in enumerate(scores, start=1)
        if s is not None
    ]
    with open_store() as store:
        assert store.steps() == kept
        assert store.latest_step() == 4
        best = store.best_step()
        assert best == (max(ranked)[1] if ranked else None)
        if best is not None:
            found = store.restore({"w": np.zeros(2, int)}, best)
            np.testing.assert_array_equal(found["w"], best)


def test_without_a_metric_only_the_latest_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep_latest=1) as store:
        for step in (10, 20, 30):
            store.save(step, {"w": np.ones(1)})
            store.record(step, {"AP": 1.0})
        assert store.steps() == [30]
        assert store.best_step() is None


def test_a_misspelt_best_metric_is_found_at_the_first_evaluation(tmp_path):
    with Checkpoints(tmp_path, best_metric="AP5O") as store:
        store.save(1, {"w": np.ones(1)})
        with pytest.raises(ConfigError, match=r"'AP5O'\. Did you mean 'AP50'"):
            store.record(1, {"AP": 0.1, "AP50": 0.2, "time": 1})


def test_a_step_is_replaced_by_a_later_run_and_not_by_the_same(tmp_path):
    for value in (1, 2):
        with Checkpoints(tmp_path) as store:
            store.save(5, {"w": np.full(2, value)})
            store.save(5, {"w": np.full(2, 10 * value)})
    with Checkpoints(tmp_path) as store:
        np.testing.assert_array_equal(store.restore({"w": np.zeros(2, int)})["w"], 2)


def test_half_written_checkpoints_are_not_picked_and_not_counted(tmp_path):
    state = make_state(1)
    with Checkpoints(tmp_path, keep_latest=2) as store:
        store.save(1, state)
        store.save(2, state)
    (tmp_path / "9").mkdir()  # empty
    shutil.copytree(tmp_path / "2", tmp_path / "8")
    shutil.rmtree(tmp_path / "8" / "state")
    shutil.copytree(tmp_path / "2", tmp_path / "7")
    (tmp_path / "7" / "_CHECKPOINT_METADATA").unlink()
    shutil.copytree(tmp_path / "2", tmp_path / "6.orbax-checkpoint-tmp")
    with Checkpoints(tmp_path, keep_latest=2) as store:
        assert store.steps() == [1, 2]
        assert_same_bits(store.restore(state), state)
        store.save(9, state)
        assert store.steps() == [2, 9]


def test_what_was_saved_before_an_exception_is_kept(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with Checkpoints(tmp_path) as store:
            store.save(1, {"w": np.full(3_000_000, 1)})
            raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_killed_process_leaves_whole_checkpoints_only(tmp_path, run_python):
    code = f"""
import os
import numpy as np
from pose_jax.runs.states import Checkpoints
store = Checkpoints({str(tmp_path)!r})
store.save(1, {{"w": np.full(3_000_000, 1)}})
store.wait()
store.save(2, {{"w": np.full(3_000_000, 2)}})
os._exit(9)
"""
    assert run_python(code).returncode == 9
    with Checkpoints(tmp_path) as store:
        latest = store.latest_step()
        assert latest in (1, 2)  # 2 if the disk was faster than the kill
        found = store.restore({"w": np.zeros(3_000_000, int)})
        np.testing.assert_array_equal(found["w"], latest)


def test_a_full_disk_is_one_line_and_the_last_good_checkpoint_stays(
    tmp_path, monkeypatch
):
    with Checkpoints(tmp_path) as store:
        store.save(1, make_state(1))
        store.wait()
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
        with pytest.raises(InputError, match=r"No space left .* is step 1\..*again"):
            store.save(2, make_state(2))
        assert store.steps() == [1]
        assert_same_bits(store.restore(make_state(0)), make_state(1))


def test_a_reader_of_another_runs_checkpoints_changes_nothing(tmp_path):
    with Checkpoints(tmp_path) as store:
        store.save(3, make_state(3))
    half = tmp_path / "7"
    half.mkdir()
    with Checkpoints(tmp_path, read_only=True) as store:
        assert store.steps() == [3] and half.exists()
        assert_same_bits(store.restore(make_state(0)), make_state(3))
    assert states.whole_steps(tmp_path) == [3]


def test_another_tree_is_refused_with_the_paths_that_differ(tmp_path):
    state = make_state(1, width=3)
    with Checkpoints(tmp_path) as store:
        with pytest.raises(InputError, match="no checkpoint"):
            store.restore(state)
        store.save(4, state)
        with pytest.raises(InputError, match=r"no checkpoint 5; existing steps: 4\."):
            store.restore(state, 5)
        with pytest.raises(InputError) as caught:
            store.restore(make_state(1, width=5))
        message = str(caught.value)
        assert "\n" not in message and "more" in message
        assert re.search(r"expected (\w+)\[5\], found \1\[3\]", message)
        other = dataclasses.replace(state, ema={"w": np.ones(1, np.float32)})
        with pytest.raises(InputError, match=r"ema/w: expected float32\[1\], found no"):
            store.restore(other)


# --------------------------------------------------------------------- finished models

VARIABLES = {
    "stage_1": {
        "params": {"conv": {"kernel": np.arange(24, dtype=np.float32).reshape(2, 12)}},
        "batch_stats": {},
        "constants": {"mean": np.array([np.nan, -0.0]), "count": np.int32(3)},
    },
    "stage_2": {"params": {"w": jnp.ones((2, 2), jnp.float16)}, "batch_stats": {}},
}


def test_a_model_comes_back_bit_for_bit(tmp_path):
    manifest = {"method": {"name": "dark"}, "scores": {"AP": 0.5}, "é": [1, None]}
    model_lib.save_model(tmp_path / "run" / "model", VARIABLES, manifest)
    variables, found = model_lib.load_model(tmp_path / "run" / "model")
    assert found == manifest == model_lib.load_manifest(tmp_path / "run" / "model")
    assert_same_bits(variables, jax.device_get(VARIABLES))
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["model"]


def test_a_model_is_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "model"
    model_lib.save_model(path, {"a": {"w": np.ones(2)}}, {"n": 1})
    model_lib.save_model(path, {"b": {"v": np.ones(3)}}, {"n": 2})
    variables, manifest = model_lib.load_model(path)
    assert manifest == {"n": 2} and list(variables) == ["b"]

    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(model_lib.safetensors.numpy, "save_file", die)
    with pytest.raises(KeyboardInterrupt):
        model_lib.save_model(path, {"c": {"w": np.ones(2)}}, {"n": 3})
    monkeypatch.undo()
    assert model_lib.load_model(path)[1] == {"n": 2}
    path.rename(tmp_path / "model.old")  # killed between the two renames
    assert model_lib.load_model(path)[1] == {"n": 2}
    model_lib.save_model(path, {"d": {"w": np.ones(2)}}, {"n": 4})
    assert model_lib.load_model(path)[1] == {"n": 4}
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("stop", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_model_that_could_not_be_written(
    tmp_path, monkeypatch, stop
):
    def save_file(members, path):
        path.write_bytes(b"half")
        raise stop

    monkeypatch.setattr(model_lib.safetensors.numpy, "save_file", save_file)
    wanted = InputError if isinstance(stop, OSError) else KeyboardInterrupt
    with pytest.raises(wanted, match=r"run/model.*free some space|^$"):
        model_lib.save_model(tmp_path / "run/model", {"a": np.ones(2)}, {})
    assert list(tmp_path.iterdir()) == []


def test_an_absent_or_damaged_model_says_what_to_do(tmp_path):
    path = tmp_path / "model"
    with pytest.raises(InputError, match="no model found"):
        model_lib.load_model(path)
    model_lib.save_model(path, VARIABLES, {"n": 1})
    file = path / "model.safetensors"
    whole = file.read_bytes()
    middle = whole.index(np.arange(24, dtype=np.float32).tobytes()) + 40
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for broken in (whole[: len(whole) // 2], flipped, b"", b"not a model"):
        file.write_bytes(broken)
        with pytest.raises(
            InputError, match=r"model\.safetensors cannot be read"
        ) as caught:
            model_lib.load_model(path)
        assert "\n" not in str(caught.value)
        assert model_lib.load_manifest(path) == {"n": 1}
    file.unlink()
    with pytest.raises(InputError, match=r"model\.safetensors cannot be read"):
        model_lib.load_model(path)
    for broken in ("{", "[]"):
        (path / "manifest.json").write_text(broken)
        with pytest.raises(InputError, match=r"manifest\.json cannot be read"):
            model_lib.load_manifest(path)


def test_an_older_model_is_read(tmp_path):
    """A zip archive of arrays, and a manifest without digests."""
    expected = {k: v for k, v in VARIABLES.items() if k == "stage_1"}
    members = {
        "stage_1/params/conv/kernel": expected["stage_1"]["params"]["conv"]["kernel"],
        "stage_1/batch_stats/": np.zeros(0),
        **{
            f"stage_1/constants/{k}": v
            for k, v in expected["stage_1"]["constants"].items()
        },
    }
    np.savez(tmp_path / "variables.npz", **members)
    (tmp_path / "manifest.json").write_text('{"n": 1}')
    variables, manifest = model_lib.load_model(tmp_path)
    assert manifest == {"n": 1}
    assert_same_bits(variables, expected)
    np.savez(tmp_path / "variables.npz", w=np.array([object()], dtype=object))
    with pytest.raises(InputError, match="cannot be read"):  # It cannot run code.
        model_lib.load_model(tmp_path)


def test_values_that_a_model_cannot_hold_are_refused(tmp_path):
    with pytest.raises(ValueError, match="complex64"):
        model_lib.save_model(tmp_path / "m", {"w": jnp.ones(1, jnp.complex64)}, {})
    with pytest.raises(ValueError, match="'/'"):
        model_lib.save_model(tmp_path / "m", {"a/b": np.ones(1)}, {})
    assert not (tmp_path / "m").exists()


# ----------------------------------------------------------------------------- damage


def flips(folder, count, seed):
    """Flips one random bit of a random file at a time, small files as often as large."""
    rng = random.Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for _ in range(count):
        file = rng.choice([f for f in files if f.stat().st_size])
        whole = file.read_bytes()
        broken, at = bytearray(whole), rng.randrange(8 * len(whole))
        broken[at // 8] ^= 1 << at % 8
        file.write_bytes(broken)
        yield f"{file.relative_to(folder)}, bit {at}"
        file.write_bytes(whole)


def test_a_flipped_bit_of_a_model_is_noticed_or_changes_nothing(tmp_path):
    manifest = {"method": {"name": "dark"}, "scores": {"AP": 0.5}, "data": {"root": ""}}
    path, noticed = tmp_path / "model", 0
    model_lib.save_model(path, VARIABLES, manifest)
    for where in flips(path, 30, seed=0):
        try:
            variables, found = model_lib.load_model(path)
        except InputError as error:
            assert "cannot be read" in str(error) and "\n" not in str(error)
            noticed += 1
        else:
            assert found == manifest, where
            assert_same_bits(variables, jax.device_get(VARIABLES))
    assert noticed >= 20


def test_a_flipped_bit_of_a_state_is_noticed_and_the_one_before_is_used(
    tmp_path, caplog, monkeypatch
):
    folder, noticed, printed = tmp_path / "pose", 0, []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    with Checkpoints(folder) as store:
        store.save(1, make_state(1))
        store.save(2, make_state(2))
        store.record(2, {"AP": 0.25})
    for where in flips(folder / "2", 20, seed=0):
        caplog.clear()
        with Checkpoints(folder, read_only=True) as store:
            found = store.restore(make_state(0))
            step = int(found.step)
            assert_same_bits(found, make_state(step))
        said = [m for m in caplog.messages if "2 is damaged (" in m]
        assert len(said) == (step == 1), where
        noticed += step == 1
    assert noticed >= 3 and not printed
    file = tmp_path / "pose.json"
    whole = file.read_text()
    for broken in (
        whole.replace("0.25", "0.75"),
        whole.replace("metr", "netr"),
        "{",
        "",
    ):
        file.write_text(broken)
        with Checkpoints(folder, read_only=True) as store:
            assert store.metrics(2) is None
    file.write_text('{"2": {"AP": 0.25}}')  # Of an older run.
    with Checkpoints(folder, read_only=True) as store:
        assert store.metrics(2) == {"AP": 0.25}


def test_a_damaged_state_does_not_push_out_a_good_one(tmp_path):
    with Checkpoints(tmp_path, keep_latest=2) as store:
        store.save(1, make_state(1))
        store.save(5, make_state(5))
    metadata = tmp_path / "5" / "_CHECKPOINT_METADATA"
    metadata.write_text(metadata.read_text().replace("float32", "float64", 1))
    with Checkpoints(tmp_path, keep_latest=2) as store:
        assert int(store.restore(make_state(0)).step) == 1
        assert store.steps() == [1]
        store.save(3, make_state(3))
        assert store.steps() == [1, 3]
    with Checkpoints(tmp_path) as store:
        assert store.steps() == [1, 3]
    for step in (1, 3):
        (tmp_path / str(step) / "_CHECKPOINT_METADATA").write_text("{")
    with Checkpoints(tmp_path) as store:
        with pytest.raises(InputError, match=r"3 is damaged .*no other.*delete"):
            store.restore(make_state(0))
    assert states.whole_steps(tmp_path) == [1, 3]


def test_a_state_that_is_set_aside_is_not_restored(tmp_path):
    with Checkpoints(tmp_path) as store:
        store.save(1, make_state(1))
        store.save(2, make_state(2))
        assert store.set_aside(2, "diverged") == tmp_path / "2.diverged"
        assert store.set_aside(3, "diverged") is None
        assert int(store.restore(make_state(0)).step) == 1
    with Checkpoints(tmp_path) as store:
        assert store.steps() == [1]


@pytest.mark.parametrize("name", ["lr [1e-3]", "back\\slash", "all*", "what?"])
def test_a_run_may_have_any_name(tmp_path, name):
    folder = tmp_path / name / "pose"
    for step in (1, 2):
        with Checkpoints(folder) as store:
            store.save(step, make_state(step))
    with Checkpoints(folder, read_only=True) as store:
        assert store.steps() == [1, 2]
        assert_same_bits(store.restore(make_state(0)), make_state(2))
    assert [path.name for path in tmp_path.iterdir()] == [name]


# ----------------------------------------------------------------------- other weights


def own_and_loaded():
    own = {
        "params": {"body": {"w": np.zeros((2, 2), np.float32)}, "neck": np.zeros(1)},
        "head": {"kernel": np.zeros((2, 17))},
    }
    loaded = {
        "params": {"body": {"w": np.ones((2, 2), np.float64)}, "tail": np.ones(1)},
        "head": {"kernel": np.ones((2, 14))},
    }
    return own, loaded


def test_merging_takes_what_fits_and_reports_the_rest():
    own, loaded = own_and_loaded()
    merged, report = merge_params(own, loaded)
    assert jax.tree.structure(merged) == jax.tree.structure(own)
    assert compare_trees(own, merged) == []  # shapes and dtypes are our own
    np.testing.assert_array_equal(merged["params"]["body"]["w"], 1)
    np.testing.assert_array_equal(merged["params"]["neck"], 0)
    np.testing.assert_array_equal(merged["head"]["kernel"], 0)
    assert report.loaded == ("params/body/w",)
    assert report.skipped == ("head/kernel",)
    assert report.new == ("params/neck",)
    assert report.unused == ("params/tail",)
    assert str(report) == (
        "loaded 1 arrays, skipped 1 (head/kernel), new 1 (params/neck), "
        "unused 1 (params/tail)"
    )


def test_merging_refuses_what_cannot_be_meant():
    own, loaded = own_and_loaded()
    with pytest.raises(
        ConfigError, match=r"head/kernel: \[2, 14\] for \[2, 17\].*init_"
    ):
        merge_params(own, loaded, skip=())
    with pytest.raises(ConfigError, match=r"'heads' matches no variable.*'head'"):
        merge_params(own, loaded, skip=("heads",))
    with pytest.raises(ConfigError, match="no variable of this model"):
        merge_params(own, {"other": np.ones(1)})
    with pytest.raises(ConfigError, match="no variable of this model"):
        merge_params(own, loaded, skip=("head", "params"))


def test_reading_a_model_does_not_load_orbax(run_python):
    code = "import sys, pose_jax.runs.states; print('orbax' in sys.modules)"
    out = run_python(code)
    assert out.stdout.strip() == "False", out.stderr
