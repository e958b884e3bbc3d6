"""Exported decoders: equal to the functions, without pose_jax too, whole or refused."""

import errno
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import pose_jax
from pose_jax import cli, export, methods
from pose_jax.codecs import gaussian
from pose_jax.errors import InputError
from pose_jax.keypoints import COCO
from pose_jax.methods import dark
from pose_jax.runs import model as model_lib

OPTIONS = {
    "argmax": {},
    "shift": {},
    "shift_second": {},
    "dark": {},
    "dark_paper": {"sigma": 1.5, "kernel_size": 5},
    "dark_unmodulated": {},
}
METHOD = {
    "name": "dark",
    "model": {"name": "pocket"},
    "input_size": [64, 96],
    "sigma": 1.25,
    "decoder": "dark_paper",
    "alignment": "aligned",
    "flip_test": "plain",
}


VOTES = {
    "name": "multipose",
    "model": {"name": "multipose_pocket"},
    "input_size": [65, 81],
}


@pytest.fixture(scope="module", autouse=True)
def open_sizes():
    """Open sizes are no numbers, which the checks of types in all tests insist on."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


def make_run(run, method=METHOD, **more):
    """A run as far as an export reads it: it needs no weights."""
    manifest = {"method": method, "keypoints": COCO.to_json(), **more}
    model_lib.save_model(run / "model", {"pose": {"params": {}}}, manifest)
    return run


def direct(decoder, options):
    """The function that was exported, jitted."""
    config = types.SimpleNamespace(**{"sigma": None, "kernel_size": None, **options})
    return jax.jit(lambda maps: dark.DECODERS[decoder](config, maps))


def some_maps(b, h, w, k, seed):
    """Noise, blobs under noise, and maps of one value, with ties, with NaN."""
    rng = np.random.default_rng(seed)
    points_xy = jnp.asarray(rng.uniform(-1, np.array([w, h]), (b, k, 2)), jnp.float32)
    maps = np.array(gaussian.encode(points_xy, size=(w, h), sigma=1.5))
    maps += 0.05 * rng.normal(size=maps.shape).astype(np.float32)
    maps[-1, :, :, 0] = rng.random((h, w))
    maps[-1, :, :, 1] = 0
    maps[-1, 2::3, 1::4, 1] = 0.5
    maps[0, 1, 1, 1] = np.nan
    maps[0, :, :, 0] = b
    return maps


def check_equal(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """One export of each decoder: {name: folder}."""
    root = tmp_path_factory.mktemp("exports")
    for decoder, options in OPTIONS.items():
        name = None if decoder == "dark" else decoder  # The default.
        export.export_decoder(root / decoder, decoder=name, **options)
    return {decoder: root / decoder for decoder in OPTIONS}


@pytest.fixture(scope="module")
def argmax(exports):
    return export.load(exports["argmax"])


@pytest.fixture
def copied(exports, tmp_path):
    """An export of its own, to be spoilt."""
    return shutil.copytree(exports["argmax"], tmp_path / "copied")


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


# ------------------------------------------------------------------------ what it says


def test_every_decoder_has_its_export_here():
    assert set(OPTIONS) == set(dark.DECODERS) == set(methods.heatmap_decoders())


@pytest.mark.parametrize("decoder", OPTIONS)
def test_an_export_equals_the_function_on_maps_of_any_size(exports, decoder):
    decode = export.load(exports[decoder])
    assert decode.difference <= 1e-5
    expected = direct(decoder, OPTIONS[decoder])
    for seed, shape in enumerate([(3, 21, 16, 4), (1, 4, 9, 2)]):
        maps = some_maps(*shape, seed)
        points_xy, scores = decode(maps)
        assert points_xy.shape == (shape[0], shape[3], 2) and scores.shape == shape[::3]
        check_equal((points_xy, scores), expected(maps))


def test_the_stored_maps_are_of_two_sizes_and_finite(exports):
    for folder in exports.values():
        with np.load(folder / "check.npz") as stored:
            assert {stored[f"heatmaps_{i}"].shape[1:3] for i in (0, 1)} == {
                (32, 24), (5, 7),
            }  # fmt: skip
            assert all(np.isfinite(stored[name]).all() for name in stored)
            assert stored["points_xy_0"].shape == (5, 4, 2)


def test_rounding_does_not_move_the_stored_points(exports):
    """What another platform may round otherwise stays far below the tolerance."""
    rng = np.random.default_rng(0)
    decode = export.load(exports["dark_paper"])
    with np.load(exports["dark_paper"] / "check.npz") as stored:
        maps, before = stored["heatmaps_0"], stored["points_xy_0"]
    near = maps * (1 + 3e-7 * rng.uniform(-1, 1, maps.shape))
    near[-1] = maps[-1]  # Ties would no longer be.
    assert np.abs(decode(near)[0] - before).max() < 2e-5


def test_one_artefact_is_for_all_platforms_and_names_no_folder(exports):
    for folder in exports.values():
        content = (folder / "decoder.jax_export").read_bytes()
        found = jax.export.deserialize(bytearray(content))
        assert found.platforms == export.PLATFORMS == ("cpu", "cuda", "tpu")
        assert str(found.in_avals) == "(ShapedArray(float32[b,h,w,k]),)"
        root = Path(__file__).parents[2]
        assert str(root).encode() not in content
        assert len(content) < 60_000


def test_the_manifest_says_what_it_is(exports):
    found = manifest_of(exports["dark"])
    assert (found["decoder"], found["sigma"], found["kernel_size"]) == (
        "dark",
        None,
        11,  # What the function takes where neither is given.
    )
    assert found["input"] == {"heatmaps": "float32[b,h,w,k]"}
    assert found["output"] == {
        "points_xy": "float32[b,k,2]",
        "scores": "float32[b,k]",
    }
    assert found["platforms"] == ["cpu", "cuda", "tpu"]
    assert "points are (x, y) in heatmap pixels with integer centers" in found["frame"]
    assert found["versions"] == {
        "pose_jax": pose_jax.__version__,
        "jax": jax.__version__,
    }
    assert found["calling_convention_version"] >= 9
    assert "6 months" in found["compatibility"]
    assert found["keypoints"] is None and found["to_input"]["input_size"] is None
    assert set(found["to_input"]["points_xy"]) == {"stride", "aligned", "half_pixel"}
    assert set(found["sha256"]) == {"decoder.jax_export", "check.npz"}
    assert len(found["usage"]) == 3
    found = manifest_of(exports["argmax"])
    assert (found["sigma"], found["kernel_size"], found["blur"]) == (None, None, None)
    found = manifest_of(exports["dark_paper"])
    assert (found["sigma"], found["kernel_size"]) == (1.5, 5)


def test_arrays_of_all_floating_types_are_read(argmax):
    maps = some_maps(2, 5, 8, 3, 0)
    points_xy, scores = argmax(maps)
    for given in (
        jnp.asarray(maps),
        maps.astype(np.float64),
        np.asfortranarray(maps),
        maps.tolist(),
    ):
        check_equal(argmax(given), (points_xy, scores))
    check_equal(jax.jit(argmax)(maps), (points_xy, scores))
    half = maps.astype(np.float16)
    check_equal(argmax(half), argmax(half.astype(np.float32)))
    points_xy, scores = argmax(jnp.asarray(maps, jnp.bfloat16))
    assert points_xy.dtype == scores.dtype == jnp.float32
    points_xy, scores = argmax(maps[:0])
    assert points_xy.shape == (0, 3, 2) and scores.shape == (0, 3)


@pytest.mark.parametrize(
    ("maps", "meant"),
    [
        (np.zeros((1, 4, 5, 2), np.int32), "floating point; got int32"),
        (np.zeros((1, 4, 5, 2), bool), "floating point; got bool"),
        (np.zeros((4, 5, 2)), r"\[b, h, w, k\].*\(4, 5, 2\)"),
        (np.zeros((1, 0, 5, 2)), "non-empty"),
    ],
)
def test_what_are_no_heatmaps_is_refused(argmax, maps, meant):
    with pytest.raises(ValueError, match=meant):
        argmax(maps)


_STRANGER = """
import json, sys
import numpy as np
sys.modules["pose_jax"] = None  # An import of it fails.
stored = np.load("check.npz")
heatmaps = stored["heatmaps_0"]
for line in json.load(open("manifest.json"))["usage"]:
    exec(line)
assert np.abs(points_xy - stored["points_xy_0"]).max() <= 1e-4
assert np.abs(scores - stored["scores_0"]).max() == 0
print(*{name.split(".")[0] for name in sys.modules} & {"pose_jax", "flax"})
"""


@pytest.mark.parametrize("decoder", ["shift", "dark"])
def test_it_runs_where_pose_jax_is_not(exports, decoder):
    answer = subprocess.run(
        [sys.executable, "-I", "-c", _STRANGER],
        cwd=exports[decoder], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == "pose_jax\n"  # The None that was put there.


# ---------------------------------------------------------------------- where it is from


def test_sigma_and_keypoints_come_from_the_run(tmp_path, capsys):
    run, out = make_run(tmp_path / "run"), tmp_path / "deep" / "out"
    words = ["export", "--part", "decoder", "--run", str(run), "--out", str(out)]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "decoder dark_paper, sigma 1.25, " in printed
    assert printed.endswith("maximum difference 0\n")
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]
    found = manifest_of(out)
    assert (found["decoder"], found["sigma"]) == ("dark_paper", 1.25)
    assert found["keypoints"] == {"name": "coco", "names": list(COCO.names)}
    assert found["to_input"]["alignment"] == "aligned"
    assert found["to_input"]["input_size"] == [64, 96]
    assert "(W - 1) / (w - 1)" in found["to_input"]["points_xy"]
    assert found["heatmaps"] == "the network's output"
    assert found["flip_test"] == "plain"
    maps = some_maps(3, 21, 16, 4, 0)
    expected = gaussian.decode_dark(jnp.asarray(maps), sigma=1.25, variant="paper")
    check_equal(export.load(out)(maps), expected)


def test_a_run_may_be_read_out_otherwise(tmp_path):
    method = {**METHOD, "loss": "cross_entropy", "alignment": "stride"}
    run, out = make_run(tmp_path / "run", method), tmp_path / "out"
    out.mkdir()  # An empty folder may be there.
    export.export_decoder(out, decoder="argmax", run=run)
    found = manifest_of(out)
    assert (found["decoder"], found["sigma"]) == ("argmax", None)
    assert found["heatmaps"] == "the sigmoid of the network's output"
    assert found["to_input"]["points_xy"] == "(x * W / w, y * H / h)"


def test_a_decoder_of_heatmaps_alone_is_exported_of_any_method(tmp_path):
    """MultiPose's "argmax": its other decoders take offsets too."""
    run, out = make_run(tmp_path / "run", VOTES), tmp_path / "out"
    export.export_decoder(out, decoder="argmax", run=run)
    found = manifest_of(out)
    assert (found["decoder"], found["sigma"]) == ("argmax", None)
    assert found["to_input"]["alignment"] == "aligned"
    assert found["to_input"]["input_size"] == [65, 81]
    assert found["heatmaps"] == "the sigmoid of the network's heatmaps"
    maps = jnp.asarray(some_maps(3, 21, 16, 4, 0))
    check_equal(export.load(out)(maps), gaussian.decode_argmax(maps))


# ------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("line", "code", "meant"),
    [
        ("--decoder drak", 2, "Did you mean 'dark'?"),
        ("--run RUN --decoder drak", 2, "Did you mean 'dark'?"),
        ("--decoder argmax --sigma 2", 2, "--sigma: not used by decoder 'argmax'"),
        (
            "--decoder dark_unmodulated --sigma 2 --kernel-size 5",
            2,
            "--sigma and --kernel-size: not used by decoder 'dark_unmodulated'",
        ),
        ("--sigma 0", 2, "--sigma must be in (0, 16]"),
        ("--sigma nan", 2, "--sigma must be in (0, 16]"),
        ("--sigma 1e6", 2, "in (0, 16]"),
        ("--kernel-size 4", 2, "--kernel-size must be an odd number"),
        ("--kernel-size 1001", 2, "from 1 to 95"),
        ("--sigma much", 2, "--sigma"),
        ("--run RUN --sigma 2", 2, "not both"),
        ("--format tflite", 2, "--format: without --run a decoder is exported"),
        ("--run NONE", 1, "no model found"),
        ("--run OTHER", 2, "of method 'deeppose'"),
        ("--run VOTES", 2, "decoder 'hough' of method"),
        ("--run DETECTOR", 2, "is a detector and has no decoders"),
        ("--run OTHER --decoder argmax", 2, "there are ['stage_1'"),
        ("--run BACKBONE", 2, "a backbone without a head"),
        ("--run WIDE", 2, "method.sigma must be in (0, 16]"),
        ("--out RUN", 2, "already exists"),
        ("--out FILE/out", 1, "FILE: Not a directory): give another --out"),
        ("--kernelsize 3", 2, "--kernel-size"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path, capsys, line, code, meant):
    make_run(tmp_path / "RUN")
    make_run(tmp_path / "OTHER", {"name": "deeppose", "model": {"name": "deeppose"}})
    make_run(tmp_path / "VOTES", VOTES)
    detector = {"name": "detector", "model": {"name": "faster_rcnn_pocket"}}
    make_run(tmp_path / "DETECTOR", detector, keypoints=None)
    make_run(tmp_path / "BACKBONE", converted={"part": "backbone"})
    make_run(tmp_path / "WIDE", {**METHOD, "sigma": 100.0})
    (tmp_path / "FILE").touch()
    before = sorted(tmp_path.rglob("*"))
    words = [
        str(tmp_path / word) if word.split("/")[0].isupper() else word
        for word in line.split()
    ]
    if "FILE" in line:
        words += ["--decoder", "argmax"]
    if "--out" not in words:
        words += ["--out", str(tmp_path / "out")]
    if "--run" in words:
        words += ["--part", "decoder"]
    assert cli.main(["export", *words]) == code
    out, err = capsys.readouterr()
    assert err.startswith("pose-jax: error: ") and err.count("\n") == 1, err
    assert meant in err and out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, capsys):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    words = ["export", "--decoder", "argmax", "--out", str(tmp_path / "out")]
    assert cli.main(words) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "No space left on device" in err
    assert list(tmp_path.iterdir()) == []


def test_an_artefact_that_answers_otherwise_is_not_kept(tmp_path, monkeypatch):
    answers = export.decoder._check_file
    monkeypatch.setattr(
        export.decoder,
        "_check_file",
        lambda decode: answers(lambda m: (decode(m)[0] + 1, m[:, 0, 0])),
    )
    with pytest.raises(InputError, match="self-check failed"):
        export.export_decoder(tmp_path / "out", decoder="argmax")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------- damage


def spoil(file, how):
    content = file.read_bytes()
    middle = len(content) // 2
    if how == "missing":
        file.unlink()
    elif how == "a folder":
        file.unlink()
        file.mkdir()
    elif how == "truncated":
        file.write_bytes(content[:middle])
    elif how == "empty":
        file.write_bytes(b"")
    else:
        changed = bytes([content[middle] ^ 0x80])
        file.write_bytes(content[:middle] + changed + content[middle + 1 :])


def refused(folder):
    """The one line that `load` answers with."""
    with pytest.raises(InputError) as error:
        export.load(folder)
    (line,) = str(error.value).splitlines()
    assert error.value.exit_code == 1
    return line


@pytest.mark.parametrize(
    "how", ["missing", "a folder", "truncated", "empty", "changed"]
)
@pytest.mark.parametrize("name", ["decoder.jax_export", "check.npz", "manifest.json"])
def test_a_damaged_file_is_one_line_with_its_remedy(copied, name, how):
    spoil(copied / name, how)
    line = refused(copied)
    assert line.startswith(f"{copied / name} cannot be used (")
    assert "copy the complete folder again" in line


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": "pose_jax decoder 1"}'])
def test_a_manifest_of_something_else_is_refused(copied, text):
    (copied / "manifest.json").write_text(text)
    assert refused(copied).startswith(f"{copied / 'manifest.json'} cannot be used (")


def test_no_export_and_a_run_are_refused(tmp_path):
    assert "no exported decoder found" in refused(tmp_path / "none")
    assert "cannot be used" in refused(make_run(tmp_path / "run") / "model")


def replace(folder, name, content):
    """Puts another file there, and its checksum in the manifest."""
    (folder / name).write_bytes(content)
    manifest = manifest_of(folder)
    manifest["sha256"][name] = export.decoder.sha256(content)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def foreign():
    """Another function's artefact: of one vector."""
    exported = jax.export.export(jax.jit(jnp.sin))(jnp.zeros(3))
    return bytes(exported.serialize())


@pytest.mark.parametrize("content", [b"", b"not an artefact at all", foreign])
def test_a_foreign_artefact_is_refused(copied, content):
    replace(copied, "decoder.jax_export", content() if callable(content) else content)
    line = refused(copied)
    assert f"does not run with jax {jax.__version__} on cpu (" in line
    assert "export the decoder again" in line


def test_the_artefact_of_another_decoder_is_told_by_its_answers(copied, exports):
    content = (exports["dark"] / "decoder.jax_export").read_bytes()
    replace(copied, "decoder.jax_export", content)
    assert "self-check failed: outputs for check.npz" in refused(copied)
