"""The Hub client against a local stand-in of the Hub: pinned, filtered, verified, resumable, and plain about failures."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from huggingface_hub import close_session

import tasks.inputs
from flows.selection import refuse_without_weights
from tasks.models.convert import run_quantize
from tasks.models.sources import fetch as fetching
from tasks.models.sources import hub_source
from tasks.models.sources.fetch import availabilities, fetch_base
from tasks.models.sources.hub_source import explain_hub_errors
from tasks.runtime import children, store
from tasks.runtime.errors import BadInput, SourceUnavailable, Stopped, TriageError
from tasks.runtime.events import Event, ProgressReport
from tasks.runtime.home import home
from tasks.spec import BaseModelSpec, HubSource
from tests.http_server import QuietHandler, http_server
from tests.models.fake_hub import COMMIT, REPO, FakeHub, reached
from tests.models.files import nothing_half_made

OTHER = {"kind": "random", "shape": "tiny-llama"}
INSTEAD = "set HF_HUB_OFFLINE=1 to use random weights of the shape tiny-llama, seed 0 in its place"


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> dict[str, bytes]:
    """The files of a whole small model in the Hugging Face layout, and some that nobody needs."""
    root = tmp_path_factory.mktemp("model")
    source = fetch_base(BaseModelSpec(name="t", licence="x", sources=(OTHER,)), root)
    conversion = Path(run_quantize({"source": str(source), "root": str(root)})["folder"])
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    kept_texts = {name: (conversion / name).read_bytes() for name in names}
    return kept_texts | {"pytorch_model.bin": b"pickle", "onnx/model.onnx": b"onnx", "README.md": b"# read me"}


@pytest.fixture
def hub(content, monkeypatch):
    """A Hub; what it answers is to be seen on a busy machine, too."""
    monkeypatch.setattr(fetching, "PROBE_SECONDS", 60.0)
    monkeypatch.setattr(hub_source, "CONNECT_SECONDS", 60.0)
    return FakeHub(dict(content))


def ask(hub: FakeHub | None, tmp_path: Path, action: str = "fetch", **changes) -> dict:
    """What came of fetching a model from a Hub, or of a probe."""
    own_values = ("repo", "revision", "mirror")
    source = {"kind": "hub", "repo": REPO} | {k: v for k, v in changes.items() if k in own_values}
    sources = (source, *changes.get("others", []))
    spec = BaseModelSpec(name="m", licence="x", sources=sources, **changes.get("options", {}))
    calls = []
    address = {"address": changes["address"]} if "address" in changes else {}
    with reached(hub, changes.get("cache", tmp_path / "hf"), changes.get("offline", False), **address):
        try:
            if action == "probe":
                return {"state": availabilities([spec], tmp_path / "root")["m"][0][1]}
            if action == "check":
                said: list[str] = []
                refuse_without_weights([spec], tmp_path / "root", said.append)
                return {"said": said}
            folder = fetch_base(spec, tmp_path / "root", progress=lambda *step: calls.append(step))
            return {"folder": str(folder), "progress": calls}
        except TriageError as error:
            return {"error": str(error), "type": type(error).__name__, "transient": error.transient}


def test_only_the_files_a_model_needs_are_fetched_at_the_commit_that_the_revision_names(hub, tmp_path, content):
    hub.files |= {"LICENSE": b"terms", "NOTICE.txt": b"note"}
    answer = ask(hub, tmp_path, revision="v1", options={"terms": "https://example.org/terms"})
    folder = Path(answer["folder"])
    manifest = store.verify(folder)
    licences = ["licences/LICENSE", "licences/NOTICE.txt"]
    needed = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(manifest["files"]) == sorted([*licences, *needed]) and manifest["terms"]["texts"] == licences
    assert "kept in `licences` beside them" in manifest["terms"]["notice"]
    assert manifest["source"] == {"kind": "hub", "repo": REPO, "revision": "v1", "commit": COMMIT}
    assert (manifest["original_precision"], manifest["weights_source"]) == ("bf16", f"Hub {REPO}@{COMMIT[:12]}")
    assert not [line for line in hub.requests if "pytorch_model" in line or "onnx" in line or "README" in line]
    fetched = [line for line in hub.requests if line.startswith("GET") and "/resolve/" in line]
    assert all(COMMIT in line for line in fetched if "config.json" not in line.split("/")[-1])
    assert [line for line in fetched if COMMIT in line]
    conversion = run_quantize({"source": str(folder), "root": str(tmp_path)})
    assert conversion["parameters"] == 197_184
    assert {repo for repo, _, _ in answer["progress"]} == {REPO}
    assert all(0 < done <= total for _, done, total in answer["progress"])
    assert max(done for _, done, _ in answer["progress"]) >= len(content["model.safetensors"])


def test_the_hubs_own_cache_serves_when_the_hub_does_not(hub, tmp_path):
    first = ask(hub, tmp_path)
    assert ask(None, tmp_path) == first | {"progress": []}, "a second fetch needs no Hub"
    for network in ({"offline": True}, {}):
        forget(tmp_path)
        again = ask(None, tmp_path, **network)
        assert again["folder"] == first["folder"]
        assert store.verify(Path(again["folder"]))["source"]["commit"] == COMMIT


def forget(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "root")


@pytest.mark.parametrize(("name", "offline"), [("model.safetensors", True), ("tokenizer.json", False)])
def test_a_part_of_a_model_in_the_hubs_cache_is_no_model_and_the_next_source_is_tried(hub, tmp_path, name, offline):
    ask(hub, tmp_path)
    forget(tmp_path)
    (link,) = (tmp_path / "hf").rglob(name)
    link.unlink()  # as where its download was never finished
    network = {"offline": offline}
    answer = ask(None, tmp_path, **network)
    assert answer["type"] == "SourceUnavailable" and "pickled" not in answer["error"]
    assert ("HF_HUB_OFFLINE is set" if offline else "the Hub cannot be reached") in answer["error"]
    assert "in the local Hub cache" not in ask(None, tmp_path, "probe", **network)["state"].replace("not in the", "")
    other = ask(None, tmp_path, others=[OTHER], **network)
    assert "random weights" in store.verify(Path(other["folder"]))["weights_source"]


def test_a_refusal_is_reported_even_where_the_hubs_cache_has_the_model_and_a_busy_hub_is_not(hub, tmp_path):
    folder = ask(hub, tmp_path)["folder"]
    for refusal, sentence in (("gated", "is gated"), ("refuses", "does not let you read team/model (403)")):
        forget(tmp_path)
        setattr(hub, refusal, 403)
        assert sentence in ask(hub, tmp_path)["error"]
        setattr(hub, refusal, None)

    forget(tmp_path)
    hub.fail_first["listing"] = 99
    assert ask(hub, tmp_path)["folder"] == folder


def test_transient_errors_are_distinguished_from_lasting_ones(hub, tmp_path):
    assert ask(None, tmp_path)["transient"] is True
    assert ask(hub, tmp_path, offline=True)["transient"] is False
    absent_source = {"kind": "folder", "path": str(tmp_path / "gone")}
    assert ask(hub, tmp_path, revision="v9", others=[absent_source])["transient"] is False
    assert ask(None, tmp_path, others=[absent_source])["transient"] is True, "one of the sources may come back"


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (RuntimeError("Data error:\n two lines."), SourceUnavailable, r"broke off \(Data error: two lines\)\.$"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), BadInput, "disk of the Hub's cache is full"),
        (RuntimeError(f"I/O error: no (os error {errno.EDQUOT})"), BadInput, "disk of the Hub's cache is full"),
        (RuntimeError("I/O error: no (os error 13)"), BadInput, "may not be written .Permission denied: .*; set HF_HOME"),
        (OSError(errno.EROFS, "no", "/locked/hub"), BadInput, "may not be written .*: /locked/hub.; set HF_HOME"),
        (TypeError("a list"), SourceUnavailable, "the server is not a Hub .TypeError.; check HF_ENDPOINT"),
    ],
)  # fmt: skip
def test_what_hf_xet_and_the_disk_raise_is_a_sentence(error, kind, message):
    with pytest.raises(kind, match=message) as caught, explain_hub_errors(HubSource(kind="hub", repo=REPO)):
        raise error
    assert caught.value.transient is (kind is SourceUnavailable)


def test_a_server_that_is_busy_at_first_is_asked_again(hub, tmp_path):
    for number, resource in enumerate(("HEAD model.safetensors", "model.safetensors", "config.json", "listing")):
        hub.fail_first[resource] = 2
        assert "folder" in ask(hub, tmp_path / str(number))


@pytest.mark.parametrize(("failure", "times"), [("reset", 2), ("timeout", 1)])
def test_a_request_that_fails_is_made_again_and_no_other_source_is_taken(failure, times, hub, tmp_path, monkeypatch):
    """For a moment, in a sweep's first look at the weights as in their download; a plan waits for nobody."""
    if failure == "timeout":
        monkeypatch.setattr(hub_source, "CONNECT_SECONDS", 3.0)
    hub.failure = failure
    hub.fail_first |= {"listing": times, "HEAD config.json": times}
    assert ask(hub, tmp_path, "check", others=[OTHER]) == {"said": []}
    folder = Path(ask(hub, tmp_path, others=[OTHER])["folder"])
    assert store.verify(folder)["weights_source"] == f"Hub {REPO}@{COMMIT[:12]}"
    looks = [request for request in hub.requests if request == f"HEAD /{REPO}/resolve/main/config.json"]
    listings = [request for request in hub.requests if request == f"GET /api/models/{REPO}/revision/main"]
    assert len(listings) == times + 1 and len(looks) == times + 3, hub.requests

    hub.fail_first["HEAD config.json"] = 99
    hub.requests.clear()
    forget(tmp_path)
    words = {"reset": "cannot be reached (Re", "timeout": "cannot be reached (ReadTimeout)"}
    assert words[failure] in ask(hub, tmp_path, "probe", cache=tmp_path / "other")["state"]
    assert len(hub.requests) == 1


def test_the_first_source_alone_is_taken_where_results_are_compared_unless_the_user_says_otherwise(hub, tmp_path):
    """What is stored stays in use."""
    strict = {"others": [OTHER], "options": {"any_weights": False}}
    instead = "random weights of the shape tiny-llama, seed 0"
    remedy = f"; try again once it answers, or add --any-weights to take {instead}: other weights"
    for broken, reason in ((None, "the Hub cannot be reached (ConnectError)"), (hub, "is gated: accept its licence")):
        hub.gated = 403
        for action in ("fetch", "check"):
            answer = ask(broken, tmp_path, action, **strict)
            assert answer["error"].startswith(f"No weights for m are available (Hub {REPO}@main: ")
            assert reason in answer["error"] and remedy in answer["error"]
        (line,) = ask(broken, tmp_path, "check", others=[OTHER])["said"]
        assert line.startswith(f"Weights of m come from {instead}, not from Hub {REPO}@main: ") and reason in line

    assert nothing_half_made(tmp_path / "root")
    hub.gated = None
    assert ask(hub, tmp_path, "check", **strict) == ask(hub, tmp_path, "check", others=[OTHER]) == {"said": []}
    assert f"Hub {REPO}" in store.verify(Path(ask(hub, tmp_path, **strict)["folder"]))["weights_source"]

    forget(tmp_path)
    stored_folder = ask(None, tmp_path, others=[OTHER], cache=tmp_path / "none")["folder"]
    assert ask(None, tmp_path, "check", **strict) == {"said": []}
    assert ask(None, tmp_path, **strict)["folder"] == stored_folder


def test_a_proxy_that_refuses_is_named_without_its_password_and_the_same_command_goes_on(hub, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with http_server(QuietHandler) as address:
        place = address.removeprefix("http://")
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret@{place}")
        close_session()  # its client has read the variables
        error = ask(None, tmp_path, address="https://hub.example.org")["error"]
    assert f"cannot be reached (ProxyError) through the proxy {place}; correct HTTPS_PROXY" in error
    assert "secret" not in error
    monkeypatch.delenv("HTTPS_PROXY")
    close_session()
    assert "folder" in ask(hub, tmp_path)


@pytest.mark.parametrize(
    ("name", "damage"),
    [*((name, "flip") for name in ("config.json", "model.safetensors")), ("model.safetensors", "short")],
)
def test_a_damaged_file_is_refused_and_fetched_again_from_the_same_source(hub, tmp_path, name, damage):
    hub.damage[name] = damage
    answer = ask(hub, tmp_path, others=[OTHER])
    assert answer["type"] == "SourceUnavailable" and "\n" not in answer["error"] and answer["transient"] is True
    assert (f"{name} was damaged on its way" if damage == "flip" else "broke off") in answer["error"]
    assert answer["error"].startswith(f"No weights for m from Hub {REPO}@main: ")
    assert nothing_half_made(tmp_path / "root")
    hub.damage.clear()
    outcome = store.verify(Path(ask(hub, tmp_path, others=[OTHER])["folder"]))
    assert outcome["weights_source"] == f"Hub {REPO}@{COMMIT[:12]}", "the next attempt starts from sound files"


def test_a_busy_hub_is_waited_for_and_not_replaced_by_another_source(hub, tmp_path):
    hub.refuses = 429
    answer = ask(hub, tmp_path, others=[OTHER])
    sentence = "the Hub answered with an error (429)"
    assert answer["transient"] is True and f"{sentence}; run the command" in answer["error"]
    assert INSTEAD in answer["error"] and not list((tmp_path / "root" / "sources").glob("m-*"))
    assert ask(hub, tmp_path, "probe")["state"] == sentence


@pytest.mark.parametrize(
    ("of_hub", "asked", "message"),
    [
        ({"gated": 403}, {}, "/team/model, and set HF_TOKEN to a token of that account"),
        ({"refuses": 401}, {}, "does not let you read team/model (401); check the token in HF_TOKEN"),
        ({}, {"revision": "v9"}, "team/model has no revision v9"),
        ({}, {"repo": "team/other"}, "there is no repository team/other, or it is private and HF_TOKEN is not set"),
    ],
)
def test_what_the_hub_refuses_says_what_to_do_to_a_plan_too_and_is_passed_over(hub, tmp_path, of_hub, asked, message):
    vars(hub).update(of_hub)
    answer = ask(hub, tmp_path, **asked)
    assert (answer["type"], answer["transient"]) == ("SourceUnavailable", False)
    assert message in answer["error"] and "\n" not in answer["error"] and nothing_half_made(tmp_path / "root")
    assert message in ask(hub, tmp_path, "probe", **asked)["state"]
    impossible = ask(hub, tmp_path, repo="team/a--b", others=[OTHER])
    assert impossible["type"] == "BadInput" and "team/a--b cannot be a Hub repository (" in impossible["error"]
    other = ask(hub, tmp_path, others=[OTHER], **asked)
    assert store.verify(Path(other["folder"]))["random_weights"] is True, "the next source is tried"


def test_an_open_mirror_is_named_only_if_the_user_allows_it(hub, tmp_path):
    hub.gated = 401
    assert "mirror" not in ask(hub, tmp_path, mirror="other/model")["error"]
    allowed = {"mirror": "other/model", "options": {"allow_mirror": True}}
    assert "or list its open mirror other/model as a source" in ask(hub, tmp_path, **allowed)["error"]
    assert "other/model" in ask(hub, tmp_path, "probe", **allowed)["state"]
    hub.gated = None
    assert ask(hub, tmp_path)["folder"] == ask(None, tmp_path, **allowed)["folder"], "it is no other source for that"


def test_a_download_ends_when_the_sweep_is_stopped(hub, tmp_path, monkeypatch):
    steps = []

    def stop(event: Event) -> None:
        if isinstance(event, ProgressReport):
            steps.append(event)
            children.stop_children()

    monkeypatch.setattr(tasks.inputs, "publisher", lambda title: stop)
    spec = BaseModelSpec(name="m", licence="x", sources=({"kind": "hub", "repo": REPO},))
    with reached(hub, tmp_path / "hf"), pytest.raises(Stopped):
        tasks.inputs.acquire.fn(spec)
    assert len(steps) == 1 and nothing_half_made(home())


def test_a_repository_that_is_no_model_is_refused_before_its_weights_are_fetched(hub, tmp_path):
    weights = hub.files.pop("model.safetensors")
    assert "team/model has no model*.safetensors weights; pickled weights" in ask(hub, tmp_path)["error"]
    hub.files |= {"model.safetensors": weights, "config.json": b'{"model_type": "mamba"}'}
    answer = ask(hub, tmp_path)
    assert (
        answer["type"] == "BadInput" and "is a model of the class 'mamba'; supported are llama and" in answer["error"]
    )
    assert not [line for line in hub.requests if "safetensors" in line]


def test_a_disk_that_is_too_small_is_a_sentence_before_any_download_and_what_is_cached_needs_no_room(hub, tmp_path):
    hub.claimed_size = 10**16
    answer = ask(hub, tmp_path)
    assert answer["type"] == "BadInput" and "free some space" in answer["error"]
    assert f"GB in {tmp_path}" in answer["error"] and "set HF_HOME" in answer["error"]
    assert not hub.sent

    hub.claimed_size = 0
    folder = ask(hub, tmp_path)["folder"]
    forget(tmp_path)
    hub.claimed_size = 10**16
    assert ask(hub, tmp_path)["folder"] == folder


def test_availability_is_reachable_here_or_out_of_reach(hub, tmp_path):
    assert ask(hub, tmp_path, "probe")["state"] == "reachable"
    assert [line.split()[0] for line in hub.requests] == ["HEAD"], "nothing is downloaded to find out"
    assert "the Hub cannot be reached" in ask(None, tmp_path, "probe")["state"]
    ask(hub, tmp_path)
    assert ask(None, tmp_path, "probe")["state"] == "here"
