"""The Hub client against a local stand-in of the Hub: pinned, filtered, verified, resumable, and plain about failures."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.models.convert import run_convert
from tasks.models.sources import fetch_base
from tasks.runtime import store
from tasks.spec import BaseModelSpec
from tests.models.fake_hub import COMMIT, REPO, FakeHub, serve

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> dict[str, bytes]:
    """The files of a whole small model in the Hugging Face layout, and some that nobody needs."""
    root = tmp_path_factory.mktemp("model")
    spec = BaseModelSpec(name="t", licence="x", sources=({"kind": "random", "shape": "tiny-llama"},))
    made = Path(run_convert({"source": str(fetch_base(spec, root)), "root": str(root)})["folder"])
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    kept = {name: (made / name).read_bytes() for name in names}
    return kept | {"pytorch_model.bin": b"pickle", "onnx/model.onnx": b"onnx", "README.md": b"# read me"}


@pytest.fixture
def hub(content):
    return FakeHub(dict(content))


def ask(hub: FakeHub | None, tmp_path: Path, what: str = "fetch", **changes) -> dict:
    own = ("repo", "revision", "mirror")
    source = json.dumps({"kind": "hub", "repo": REPO} | {k: v for k, v in changes.items() if k in own})
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", **changes.get("env", {})}
    script = [sys.executable, "-m", "tests.models.fetch", what, str(tmp_path / "root"), source]
    script.append(json.dumps(changes.get("options", {})))

    def go(address: str) -> dict:
        environment["HF_ENDPOINT"] = address
        done = subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    if hub is None:
        return go("http://127.0.0.1:9")
    with serve(hub) as address:
        return go(address)


def test_only_the_files_a_model_needs_are_fetched_at_the_commit_that_the_revision_names(hub, tmp_path):
    folder = Path(ask(hub, tmp_path, revision="v1")["folder"])
    manifest = store.verify(folder)
    assert sorted(manifest["files"]) == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert manifest["source"] == {"kind": "hub", "repo": REPO, "revision": "v1", "commit": COMMIT}
    assert (manifest["original_precision"], manifest["weights_source"]) == ("bf16", f"Hub {REPO}@{COMMIT[:12]}")
    assert not [line for line in hub.asked if "pytorch_model" in line or "onnx" in line or "README" in line]
    fetched = [line for line in hub.asked if line.startswith("GET") and "/resolve/" in line]
    assert all(COMMIT in line for line in fetched if "config.json" not in line.split("/")[-1])
    assert [line for line in fetched if COMMIT in line]
    made = run_convert({"source": str(folder), "root": str(tmp_path)})
    assert made["parameters"] == 197_184


def test_a_second_fetch_needs_no_hub(hub, tmp_path):
    first = ask(hub, tmp_path)
    assert ask(None, tmp_path) == first | {"progress": []}


def test_the_hubs_own_cache_serves_when_the_hub_does_not(hub, tmp_path):
    first = ask(hub, tmp_path)
    shutil.rmtree(tmp_path / "root")
    again = ask(None, tmp_path, env={"HF_HUB_OFFLINE": "1"})
    assert again["folder"] == first["folder"]
    assert store.verify(Path(again["folder"]))["source"]["commit"] == COMMIT
    shutil.rmtree(tmp_path / "root")
    answer = ask(None, tmp_path)
    assert answer["folder"] == first["folder"], "a Hub out of reach is no obstacle either"


@pytest.mark.parametrize("what", ["model.safetensors", "config.json", "listing"])
def test_a_server_that_is_busy_at_first_is_asked_again(hub, tmp_path, what):
    hub.fail_first[what] = 2
    assert "folder" in ask(hub, tmp_path)


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_damaged_weights_are_refused_and_nothing_half_made_stays(hub, tmp_path, damage):
    hub.damage["model.safetensors"] = damage
    answer = ask(hub, tmp_path)
    assert answer["type"] == "SourceUnavailable" and "\n" not in answer["error"]
    assert not [p for p in (tmp_path / "root" / "sources").iterdir() if p.is_dir()]
    hub.damage.clear()
    assert "folder" in ask(hub, tmp_path), "the next attempt starts from sound files"


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_repository_says_what_to_do(hub, tmp_path, status):
    hub.gated = status
    error = ask(hub, tmp_path)["error"]
    assert "is gated: accept its licence on its Hub page and set HF_TOKEN" in error
    assert "is gated" in ask(hub, tmp_path, "probe")["state"]


def test_an_open_mirror_is_named_only_if_the_user_allows_it(hub, tmp_path):
    hub.gated = 401
    assert "mirror" not in ask(hub, tmp_path, mirror="other/model")["error"]
    allowed = {"mirror": "other/model", "options": {"allow_mirror": True}}
    assert "or list its open mirror other/model as a source" in ask(hub, tmp_path, **allowed)["error"]
    assert "other/model" in ask(hub, tmp_path, "probe", **allowed)["state"]
    hub.gated = None
    assert ask(hub, tmp_path)["folder"] == ask(None, tmp_path, **allowed)["folder"], "it is no other source for that"


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_the_hub_refuses_is_a_sentence_and_nothing_half_made_stays(hub, tmp_path, status):
    hub.refuses = status
    answer = ask(hub, tmp_path)
    assert answer["type"] == "SourceUnavailable" and "HF_TOKEN" in answer["error"] and "\n" not in answer["error"]
    assert not [p for p in (tmp_path / "root" / "sources").iterdir() if p.is_dir()]


def test_a_download_tells_how_far_it_is(hub, tmp_path, content):
    steps = ask(hub, tmp_path)["progress"]
    assert {what for what, _, _ in steps} == {REPO}
    assert all(0 < done <= total for _, done, total in steps)
    assert max(done for _, done, _ in steps) >= len(content["model.safetensors"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"revision": "v9"}, "team/model has no revision v9"),
        ({"repo": "team/other"}, "there is no repository team/other, or it is private and HF_TOKEN is not set"),
    ],
)
def test_what_is_not_there_is_named(hub, tmp_path, changes, message):
    assert message in ask(hub, tmp_path, **changes)["error"]
    assert message in ask(hub, tmp_path, "probe", **changes)["state"]


def test_a_repository_with_pickled_weights_only_is_refused_before_any_download(hub, tmp_path):
    hub.files.pop("model.safetensors")
    answer = ask(hub, tmp_path)
    assert answer["type"] == "BadInput" and "pickled weights" in answer["error"]
    assert not [line for line in hub.asked if "/resolve/" in line]


def test_a_model_class_we_do_not_know_is_refused_before_its_weights_are_fetched(hub, tmp_path):
    hub.files["config.json"] = b'{"model_type": "mamba"}'
    answer = ask(hub, tmp_path)
    assert "is a model of the class 'mamba'; supported are llama and gemma3_text" in answer["error"]
    assert not [line for line in hub.asked if "safetensors" in line]


def test_a_disk_that_is_too_small_is_a_sentence_before_any_download(hub, tmp_path):
    hub.claimed_size = 10**16
    answer = ask(hub, tmp_path)
    assert answer["type"] == "BadInput" and "free some space" in answer["error"]
    assert not [line for line in hub.asked if "/resolve/" in line]


def test_availability_tells_reachable_here_and_out_of_reach_in_seconds(hub, tmp_path):
    assert ask(hub, tmp_path, "probe")["state"] == "reachable"
    assert [line.split()[0] for line in hub.asked] == ["HEAD"], "nothing is downloaded to find out"
    start = time.monotonic()
    assert "the Hub cannot be reached" in ask(None, tmp_path, "probe")["state"]
    assert time.monotonic() - start < 10
    ask(hub, tmp_path)
    assert ask(None, tmp_path, "probe")["state"] == "here"
