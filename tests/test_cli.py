"""The command line: verbs, mistakes, exit codes; and info, doctor, data show."""

import importlib
import importlib.metadata
import json
import re
import resource
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import pose_jax
from pose_jax import cli, doctor, info, keypoints, methods, models
from pose_jax.cli import options as cli_options
from pose_jax.errors import ConfigError, InputError
from pose_jax.models import cost, ops
from pose_jax.runs import model as model_lib
from tests.made_up import MadeUpDetector

ROOT = Path(__file__).resolve().parent.parent
DEMO = str(ROOT / "configs" / "demo.py")


@pytest.fixture
def stub(monkeypatch):
    """stub("predict", predict_run=f) puts a module in the place of pose_jax.predict."""

    def put(name, **functions):
        module = types.SimpleNamespace(**functions)
        package, _, attribute = f"pose_jax.{name}".rpartition(".")
        monkeypatch.setitem(sys.modules, f"pose_jax.{name}", module)
        package = importlib.import_module(package)
        monkeypatch.setattr(package, attribute, module, raising=False)

    return put


def _error(capsys, *words):
    """Runs a command line that must fail; returns its exit code and its one line."""
    code = cli.main(words)
    out, err = capsys.readouterr()
    assert err.startswith("pose-jax: error: ") and err.count("\n") == 1, err
    assert out == ""
    return code, err


# ------------------------------------------------------------------ verbs and mistakes


def test_help_names_every_verb_and_version_is_the_package_s(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out for verb in cli.VERBS)
    assert cli.main([]) == 2
    capsys.readouterr()
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"pose-jax {pose_jax.__version__}\n"


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help_of_its_own(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*verb.split(), "--help"])
    assert stopped.value.code == 0
    assert f"usage: pose-jax {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("trian", "'train'"),
        ("evl --run x", "'eval'"),
        ("data", "data synth, data show"),
        ("data shw --out x", "'data show'"),
        ("train --runn x", "Did you mean '--run'?"),
        ("train --cofnig=x", "Did you mean '--config'?"),
        ("predict --box b.json", "Did you mean '--boxes'?"),
        ("eval", "--run"),
        ("train --config", "--config"),
        ("doctor --config.a=1", "unknown option --config.a"),
        ("data synth --out x --size 3x", "WIDTHxHEIGHT"),
        ("data synth --out x --n many", "--n"),
        ("eval --run r stray", "stray"),
        ("data check", "give either ROOT or --config"),
        ("data check --config c.py --split x", "others with ROOT"),
        ("data check r --format cocoo", "--format"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_nearest(line, meant, capsys):
    code, err = _error(capsys, *line.split())
    assert code == 2
    assert meant in err


def test_overrides_are_parted_from_everything_else():
    words = (
        "--config c.py --config.a.b=1 --run r --config.c 2 --config.d=-3 x --config.e"
    )
    rest, overrides = cli_options.split_overrides(words.split())
    assert rest == ["--config", "c.py", "--run", "r", "x"]
    assert overrides == [
        "--config.a.b=1",
        "--config.c",
        "2",
        "--config.d=-3",
        "--config.e",
    ]


def test_train_gets_the_config_with_its_overrides(stub):
    calls = []
    stub("training.train", train=lambda config, run: calls.append((config, run)))
    words = ["train", "--config", DEMO, "--config.optimizer.lr=5e-4"]
    assert cli.main([*words, "--config.train.steps", "7", "--run", "r"]) == 0
    ((config, run),) = calls
    assert (config.optimizer.lr, config.train.steps, run) == (5e-4, 7, Path("r"))


def test_eval_and_predict_pass_on_what_is_said(stub, tmp_path):
    calls = []

    def record(*args, **kwargs):
        calls.append((args, kwargs))
        return 1

    stub("evaluation.evaluate", evaluate_run=record, described=lambda *_: "")
    stub("predict", predict_run=record)
    assert cli.main("eval --run r --decoder argmax,dark --boxes b.json".split()) == 0
    assert cli.main("eval --run r --flip shift --nms oks".split()) == 0
    assert cli.main("predict --run r a.jpg b.png --boxes b.json --out o".split()) == 1
    assert cli.main("predict a.jpg --run r".split()) == 1
    found = "predict a.jpg --run r --detector d --slots 4 --oks-nms 0.5 --box-nms 0.7"
    assert cli.main([*found.split(), "--rescoring", "box"]) == 1
    run = (Path("r"),)
    images = [Path("a.jpg"), Path("b.png")]
    said = {"decoders": (), "flips": (), "data": None, "boxes": "gt"}
    said |= {"split": None, "nms": None, "nms_threshold": None}
    said |= {"annotations": None, "out": None, "format": None}
    said |= {"match_keypoints": False}
    assert calls == [
        (run, {**said, "decoders": ("argmax", "dark"), "boxes": "b.json"}),
        (run, {**said, "flips": ("shift",), "nms": "oks"}),
        (
            (*run, images),
            {"boxes": Path("b.json"), "out": Path("o"), "detector": None},
        ),
        (
            (*run, images[:1]),
            {"boxes": None, "out": Path("r/predictions"), "detector": None},
        ),
        (
            (*run, images[:1]),
            {
                "boxes": None,
                "out": Path("r/predictions"),
                "detector": Path("d"),
                "slots": 4,
                "oks_nms": 0.5,
                "box_nms": 0.7,
                "rescoring": "box",
            },
        ),
    ]


@pytest.mark.parametrize(
    ("error", "code"), [(InputError("broken file"), 1), (ConfigError("bad key"), 2)]
)
def test_what_the_user_can_mend_is_one_line(error, code, stub, capsys):
    def fail(*args, **kwargs):
        raise error

    stub("evaluation.evaluate", evaluate_run=fail)
    assert _error(capsys, "eval", "--run", "r") == (code, f"pose-jax: error: {error}\n")


def test_an_interruption_is_one_line_and_a_bug_keeps_its_traceback(stub, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    def fail(*args, **kwargs):
        raise ValueError("a bug")

    stub("evaluation.evaluate", evaluate_run=interrupt)
    assert cli.main(["eval", "--run", "r"]) == 130
    assert capsys.readouterr().err.count("\n") == 1

    class Deaf:
        def __del__(self):  # Where Python ignores exceptions.
            raise KeyboardInterrupt

    def go_on(*args, **kwargs):
        Deaf()
        time.sleep(20)

    stub("evaluation.evaluate", evaluate_run=go_on)
    # As in a new process: earlier tests may have left libraries' handlers.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert cli.main(["eval", "--run", "r"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "pose-jax: interrupted\n"
    stub("evaluation.evaluate", evaluate_run=fail)
    with pytest.raises(ValueError, match="a bug"):
        cli.main(["eval", "--run", "r"])


# -------------------------------------------------------------------- what is imported

_TELL = (
    "import sys; from pose_jax.cli import main; code = main(sys.argv[1:]); "
    "print('loaded', *{'jax', 'flax', 'tensorflow', 'matplotlib'} & set(sys.modules)); "
    "sys.exit(code)"
)


def _tell(*words):
    """The answer of a fresh process, and which of the heavy modules it has loaded."""
    answer = subprocess.run(
        [sys.executable, "-c", _TELL, *words],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return answer, set(answer.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["trian"]])
def test_help_version_and_typos_load_nothing_heavy(words):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    _, loaded = _tell(*words)
    assert loaded == set()
    # Time of the processor, so that a busy machine does not fail the test.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("--config.train.steps=abc", "an int"),
        ("--config.method.sigma.x=1", "sigma"),
    ],
)
def test_a_wrong_override_is_refused_before_jax_is_loaded(override, meant, tmp_path):
    run = tmp_path / "run"
    words = ["train", "--config", DEMO, override, "--run", str(run)]
    answer, loaded = _tell(*words)
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.count("\n") == 1 and meant in answer.stderr
    assert loaded == set() and not run.exists()


@pytest.mark.parametrize(
    ("override", "meant"),
    [("--config.optimizer.lrr=1", "'lr'"), ("--config.optimzer.lr=1", "'optimizer'")],
)
def test_a_misspelt_override_is_refused_before_tensorflow_is_loaded(
    override, meant, tmp_path
):
    run = tmp_path / "run"
    words = ["train", "--config", DEMO, override, "--run", str(run)]
    answer, loaded = _tell(*words)
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.count("\n") == 1 and meant in answer.stderr
    assert "tensorflow" not in loaded and not run.exists()


def test_a_key_that_nothing_reads_is_refused_before_tensorflow_is_loaded(tmp_path):
    config = tmp_path / "typo.py"
    text = Path(DEMO).read_text().replace('"warmup_steps"', '"warmpu_steps"')
    config.write_text(text)
    assert "warmpu" in text
    words = ["train", "--config", str(config), "--run", str(tmp_path / "run")]
    answer, loaded = _tell(*words)
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.count("\n") == 1
    assert "warmpu_steps" in answer.stderr and "'warmup_steps'" in answer.stderr
    assert "tensorflow" not in loaded


# -------------------------------------------------------------------------------- info


def test_multiply_adds_are_those_of_the_definition():
    def zeros(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    def conv(x, kernel):
        return ops.conv(x, kernel, stride=2, padding=1)

    def rows(x):
        return jax.lax.scan(lambda carry, row: (carry, row @ row), 0.0, x)

    # Output 4 x 6 of an 8 x 12 map; 3 x 3 taps; 5 channels to 7.
    args = zeros(2, 8, 12, 5), zeros(3, 3, 5, 7)
    macs = 2 * 4 * 6 * 9 * 5 * 7
    assert cost.multiply_adds(conv, *args) == (macs, macs)
    assert cost.multiply_adds(jax.jit(conv), *args) == (macs, macs)
    assert cost.multiply_adds(jnp.matmul, zeros(4, 8, 3), zeros(3, 5)) == (480, 480)
    assert cost.multiply_adds(rows, zeros(6, 9)) == (54, 54)
    # Every input pixel meets every tap once; papers charge four times that.
    args = zeros(1, 4, 6, 5), zeros(4, 4, 5, 7)
    macs = 4 * 6 * 16 * 5 * 7
    assert cost.multiply_adds(ops.conv_transpose, *args) == (macs, 4 * macs)


def test_the_cost_of_simple_baseline_is_the_published_one():
    """ResNet-50 at 256 x 192: 34.0 M parameters, 5.43 G multiply-adds, "8.9 GFLOPs"."""
    model = models.build("simple_baseline_50", 17)
    images = jnp.zeros((1, 256, 192, 3))

    def init(key):
        return model.init(key, images, train=True)

    true, charged = cost.multiply_adds(init, jax.random.key(0))
    assert round(true / 1e9, 2) == 5.43
    assert charged / 2**30 == pytest.approx(8.9, abs=0.1)
    pixels = 8 * 6  # Of the encoder's last map; three deconvolutions double it.
    deconvs = 16 * 256 * pixels * (2048 + 4 * 256 + 16 * 256)
    assert charged - true == 3 * deconvs


@pytest.fixture
def finished_run(tmp_path):
    """A run directory with a model of the demo config and no weights to speak of."""
    from pose_jax import config as config_lib

    config = json.loads(config_lib.to_json(config_lib.load(DEMO)))
    manifest = {
        "method": config["method"],
        "keypoints": keypoints.COCO.to_json(),
        "input": config["input"],
        "data": config["data"]["eval"],
        "scores": {"AP@gt_boxes": 0.8125},
        "train_data": {"name": "coco train2017", "fingerprint": "0123456789abcdef"},
        "versions": {"pose_jax": "0.1.0"},
    }
    model_lib.save_model(tmp_path / "model", {"pose": {"params": {}}}, manifest)
    return tmp_path


def test_info_of_a_run_says_its_model_cost_data_and_scores(finished_run, capsys):
    assert cli.main(["info", str(finished_run)]) == 0
    out = capsys.readouterr().out
    for word in (
        "pocket", "128x96", "coco, 17", "parameters", "multiply-adds",
        "0123456789abcdef", "AP@gt_boxes", "0.8125",
    ):  # fmt: skip
        assert word in out, out


def test_info_of_a_config_works_without_its_data(capsys):
    assert cli.main(["info", f"{DEMO}:smoke"]) == 0
    out = capsys.readouterr().out
    assert "pocket" in out and "data train" in out


def test_info_of_a_config_without_its_data_counts_the_keypoints_of_their_kind(capsys):
    """Parameters of HRNet-W32 with MPII's 16 keypoints."""
    file = Path(__file__).parents[1] / "configs/dark/mpii_hrnet_w32_256x256.py"
    assert cli.main(["info", str(file)]) == 0
    out = capsys.readouterr().out
    assert "mpii, 16" in out and "28,536,080 parameters" in out


def test_info_of_neither_is_refused(tmp_path, capsys):
    code, err = _error(capsys, "info", str(tmp_path))
    assert code == 1 and "neither a run" in err
    code, err = _error(capsys, "info", str(tmp_path / "none.py"))
    assert code == 2 and "no such config file" in err


# ------------------------------------------------------------------------------ doctor


@pytest.fixture
def packages(monkeypatch):
    """packages(numpy="2.0") lets pose_jax require numpy 2.0 and nothing else."""

    def require(**floors):
        found = [f"{name}>={floor}" for name, floor in floors.items()]
        found.append('tensorflow-cpu>=99; sys_platform == "linux" and extra == "data"')
        monkeypatch.setattr(importlib.metadata, "requires", lambda name: found)

    monkeypatch.delenv("POSE_JAX_DATA", raising=False)
    return require


def test_doctor_is_content_where_everything_is_there(packages, capsys):
    packages(numpy="2.0", jax="0.10")
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"ok        numpy {np.__version__}" in out
    assert "JAX device" in out and "CPU cores" in out and "GB free" in out
    assert out.endswith("all checks passed\n")


@pytest.mark.parametrize(
    ("floors", "line"),
    [
        ({"numpy": "99.1"}, "old       numpy"),
        ({"nonesuch-package": "1.0"}, "missing   nonesuch-package"),
    ],
)
def test_doctor_says_what_is_wrong_with_a_remedy(floors, line, packages, capsys):
    packages(**floors)
    assert doctor.doctor() == 1
    (found,) = [
        li for li in capsys.readouterr().out.splitlines() if li.startswith(line)
    ]
    ((name, floor),) = floors.items()
    assert f"-> pip install -U '{name}>={floor}'" in found


def test_doctor_tells_a_checkout_that_is_not_installed(monkeypatch, capsys):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    assert doctor.doctor() == 1
    assert "missing   pose_jax is not installed  -> pip" in capsys.readouterr().out


def test_doctor_looks_at_data_folders(packages, monkeypatch, tmp_path, capsys):
    packages(numpy="2.0")
    coco = tmp_path / "all" / "coco"
    for folder in ("annotations", "train2017"):
        (coco / folder).mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (coco / "annotations" / f"person_keypoints_{split}.json").write_text("{}")
    (coco / "train2017" / "1.jpg").touch()
    (tmp_path / "all" / "other").mkdir()
    monkeypatch.setenv("POSE_JAX_DATA", str(tmp_path / "all"))
    assert doctor.doctor() == 0
    out = capsys.readouterr().out
    assert "COCO train2017, 1 image files" in out
    assert "val2017: labels only" in out
    assert doctor.doctor([tmp_path / "all" / "other"]) == 1
    assert doctor.doctor([tmp_path / "nowhere"]) == 1
    monkeypatch.setenv("POSE_JAX_DATA", str(tmp_path / "gone"))
    assert doctor.doctor() == 1


def test_versions_compare_by_number():
    assert doctor.version_tuple("0.10.2rc1") == (0, 10, 2)
    assert doctor.version_tuple("0.9") < doctor.version_tuple("0.10")


# ------------------------------------------------------------------------ data on disk


def test_synth_and_show_make_data_and_a_picture_of_them(tmp_path, capsys):
    data, picture = str(tmp_path / "people"), tmp_path / "sheet.png"
    synth = ["data", "synth", "--n", "4", "--val", "1", "--out", data]
    assert cli.main([*synth, "--size", "160x128"]) == 0
    words = ["data", "show", "--config", DEMO]
    words += ["--config.input.batch_size=4", "--config.input.reader=numpy"]
    words += [f"--config.data.{split}.root={data}" for split in ("train", "eval")]
    assert cli.main([*words, "--rows", "5", "--out", str(picture)]) == 0
    pixels = np.asarray(Image.open(picture))
    assert pixels.shape[0] > 2 * 96 and pixels.shape[1] > 4 * 2 * 64
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 1000
    assert "5 training inputs" in capsys.readouterr().out


def test_info_of_a_detector_says_its_inputs_by_bucket(tmp_path, monkeypatch, capsys):
    """Variables are 8 x 3 boxes of four numbers, and scores."""
    monkeypatch.setitem(methods.METHODS, "made_up_detector", MadeUpDetector)
    source = {"name": "coco", "root": "nowhere", "split": "val2017"}
    config = {
        "method": {"name": "made_up_detector", "model": {"name": "faster_rcnn_pocket"}},
        "data": {"train": source, "eval": source},
        "input": {"batch_size": 2},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "train": {"steps": 1},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = info.info(tmp_path)
    assert found["phases"] == {"detector": {"parameters": 8 * 3 * 5}}
    assert {canvas: of["input"] for canvas, of in found["inputs"].items()} == {
        "256x320": "256x320", "320x256": "320x256"
    }  # fmt: skip
    text = info.text(found)
    assert re.search(r"^canvas 256x320 +input 256x320, 0 G", text, re.MULTILINE)
    assert "none: predicts boxes" in text


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ({"lsp": {}, "lsp_extended": {}}, "lsp, 14"),
        ({"ours": {"name": "lsp"}, "theirs": {"name": "lsp"}}, "lsp, 14"),
        ({"ours": {"name": "coco", "options": {"keypoints": "mpii"}}}, "mpii, 16"),
        ({"ours": {"name": "coco", "options": {"keypoints": "else"}}}, "unknown"),
        ({"lsp": {}, "mpii": {}}, "unknown"),
        ({"lsp": {}, "store": {"name": "prepared"}}, "unknown"),
    ],
)
def test_info_of_joined_data_that_are_not_there_guesses_no_keypoints(sources, words):
    source = {"name": "joined", "root": "nowhere", "split": "train"}
    source["options"] = {"sources": sources}
    config = {
        "method": {
            "name": "dark",
            "model": {"name": "pocket", "options": {"width": 8, "blocks": (0, 0, 0)}},
            "input_size": (64, 64),
        },
        "data": {
            "train": source,
            "eval": {**source, "name": "prepared", "options": {}},
        },
        "input": {"batch_size": 2},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "train": {"steps": 1},
    }
    found = info._of_config(config)
    assert found["keypoints"].startswith(words)
    assert "not readable" in found["data"]["train"]


def test_a_pipe_that_is_closed_early_is_no_mistake(run_python):
    """`pose-jax VERB | head -1`."""
    done = run_python(
        "import os, subprocess, sys; read, write = os.pipe(); os.close(read)\n"
        "words = [sys.executable, '-m', 'pose_jax', '--help']\n"
        "sys.exit(subprocess.call(words, stdout=write))"
    )
    assert (done.returncode, done.stderr) == (0, "")
