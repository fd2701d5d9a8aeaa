"""The Hub client against a local stand-in of the Hub: pinned, filtered, verified, resumable, and plain about failures."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from tasks.models.convert import run_convert
from tasks.models.sources.fetch import fetch_base
from tasks.models.sources.hub_source import explain_hub_errors
from tasks.runtime import store
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.spec import BaseModelSpec, HubSource
from tests.forked import run_forked
from tests.models.fake_hub import COMMIT, REPO, FakeHub, serve
from tests.models.files import FULL_DISK
from tests.models.programs import fetch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> dict[str, bytes]:
    """The files of a whole small model in the Hugging Face layout, and some that nobody needs."""
    root = tmp_path_factory.mktemp("model")
    spec = BaseModelSpec(name="t", licence="x", sources=({"kind": "random", "shape": "tiny-llama"},))
    conversion = Path(run_convert({"source": str(fetch_base(spec, root)), "root": str(root)})["folder"])
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    kept_texts = {name: (conversion / name).read_bytes() for name in names}
    return kept_texts | {"pytorch_model.bin": b"pickle", "onnx/model.onnx": b"onnx", "README.md": b"# read me"}


@pytest.fixture
def hub(content):
    return FakeHub(dict(content))


def own_cache(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "60"}


def ask(hub: FakeHub | None, tmp_path: Path, action: str = "fetch", **changes) -> dict:
    own_values = ("repo", "revision", "mirror")
    source_fields = {"kind": "hub", "repo": REPO} | {k: v for k, v in changes.items() if k in own_values}
    source = json.dumps([source_fields, *changes.get("others", [])])
    environment = own_cache(tmp_path) | changes.get("env", {})
    arguments = [action, str(tmp_path / "root"), source, json.dumps(changes.get("options", {}))]
    if "PYTHONPATH" in changes.get("env", {}):  # read when Python starts
        return run(hub, environment, "tests.models.programs.fetch", *arguments)

    with reached(hub) as address:
        return printed(run_forked(fetch.main, arguments, tmp_path, environment | {"HF_ENDPOINT": address}, 120))


def run(hub: FakeHub | None, environment: dict[str, str], module: str, *arguments: str) -> Any:
    """What a module prints as JSON, in a process of its own for which `hub` is the Hub."""
    script = [sys.executable, "-m", module, *arguments]
    with reached(hub) as address:
        settings = environment | {"HF_ENDPOINT": address}
        return printed(subprocess.run(script, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=120))


def reached(hub: FakeHub | None) -> AbstractContextManager[str]:
    """The address of the Hub; without one, where nobody answers."""
    return nullcontext("http://127.0.0.1:9") if hub is None else serve(hub)


def printed(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_only_the_files_a_model_needs_are_fetched_at_the_commit_that_the_revision_names(hub, tmp_path):
    folder = Path(ask(hub, tmp_path, revision="v1")["folder"])
    manifest = store.verify(folder)
    assert sorted(manifest["files"]) == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert manifest["source"] == {"kind": "hub", "repo": REPO, "revision": "v1", "commit": COMMIT}
    assert (manifest["original_precision"], manifest["weights_source"]) == ("bf16", f"Hub {REPO}@{COMMIT[:12]}")
    assert not [line for line in hub.requests if "pytorch_model" in line or "onnx" in line or "README" in line]
    fetched = [line for line in hub.requests if line.startswith("GET") and "/resolve/" in line]
    assert all(COMMIT in line for line in fetched if "config.json" not in line.split("/")[-1])
    assert [line for line in fetched if COMMIT in line]
    conversion = run_convert({"source": str(folder), "root": str(tmp_path)})
    assert conversion["parameters"] == 197_184


def test_licence_texts_of_a_repository_are_kept_where_the_notice_says(hub, tmp_path):
    hub.files |= {"LICENSE": b"terms", "NOTICE.txt": b"note"}
    folder = Path(ask(hub, tmp_path, options={"terms": "https://example.org/terms"})["folder"])
    terms = store.verify(folder)["terms"]
    assert terms["texts"] == ["licences/LICENSE", "licences/NOTICE.txt"]
    assert "kept in `licences` beside them" in terms["notice"]
    assert [(folder / name).read_bytes() for name in terms["texts"]] == [b"terms", b"note"]


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


def forget(tmp_path: Path) -> None:
    """Remove what was fetched, so that it is fetched again; the Hub's own cache stays."""
    shutil.rmtree(tmp_path / "root")


def lose(tmp_path: Path, name: str) -> None:
    """Take a file out of the Hub's cache, as where its download was never finished."""
    (link,) = (tmp_path / "hf").rglob(name)
    link.unlink()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("offline", [True, False])
def test_a_part_of_a_model_in_the_hubs_cache_is_no_model_and_the_next_source_is_tried(hub, tmp_path, name, offline):
    ask(hub, tmp_path)
    forget(tmp_path)
    lose(tmp_path, name)
    network = {"env": {"HF_HUB_OFFLINE": "1"} if offline else {}}
    answer = ask(None, tmp_path, **network)
    assert answer["type"] == "SourceUnavailable" and "pickled" not in answer["error"]
    assert ("HF_HUB_OFFLINE is set" if offline else "the Hub cannot be reached") in answer["error"]
    assert "in the local Hub cache" not in ask(None, tmp_path, "probe", **network)["state"].replace("not in the", "")
    other = {"kind": "random", "shape": "tiny-llama"}
    assert (
        "random weights"
        in store.verify(Path(ask(None, tmp_path, others=[other], **network)["folder"]))["weights_source"]
    )


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
    hub.fail_first["listing"] = 99
    busy = ask(hub, tmp_path)
    assert busy["transient"] is True and "the Hub answered with an error (503)" in busy["error"]
    hub.fail_first.clear()
    assert ask(hub, tmp_path, env={"HF_HUB_OFFLINE": "1"})["transient"] is False
    absent_source = {"kind": "folder", "path": str(tmp_path / "gone")}
    assert ask(hub, tmp_path, revision="v9", others=[absent_source])["transient"] is False
    assert ask(None, tmp_path, others=[absent_source])["transient"] is True, "one of the sources may come back"


def test_a_file_that_the_hub_is_too_busy_for_at_first_is_asked_for_again(hub, tmp_path):
    hub.fail_first["HEAD model.safetensors"] = 2
    assert "folder" in ask(hub, tmp_path)


def test_a_hub_that_stays_busy_says_so_to_a_plan(hub, tmp_path):
    hub.fail_first["HEAD config.json"] = 99
    assert ask(hub, tmp_path, "probe")["state"] == "the Hub answered with an error (503)"


def test_a_download_that_breaks_in_the_middle_is_taken_up_where_it_broke(hub, tmp_path):
    size = 24 * 2**20
    header = json.dumps({"w": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
    weights = len(header).to_bytes(8, "little") + header + bytes(range(256)) * (size // 256)
    hub.files["model.safetensors"] = weights
    hub.breaks["model.safetensors"] = 15 * 2**20
    folder = Path(ask(hub, tmp_path)["folder"])
    assert (folder / "model.safetensors").read_bytes() == weights
    whole_bytes = 10 * 2**20  # what was whole of the library's pieces of that size
    assert [step for step in hub.sent if step[0] == "model.safetensors"] == [
        ("model.safetensors", 0, 15 * 2**20), ("model.safetensors", whole_bytes, len(weights) - whole_bytes),
    ]  # fmt: skip


def test_what_hf_xet_raises_is_a_sentence():
    source = HubSource(kind="hub", repo=REPO)
    message = r"^the download from the Hub broke off \(Data error: two lines\)\.$"
    with pytest.raises(SourceUnavailable, match=message) as caught, explain_hub_errors(source):
        raise RuntimeError("Data error:\n two lines.")
    assert caught.value.transient
    with pytest.raises(BadInput, match="disk of the Hub's cache is full"), explain_hub_errors(source):
        raise RuntimeError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_hub_cache_that_may_not_be_written_names_hf_home(number):
    reason = rf"The Hub's cache may not be written \({os.strerror(number)}: /locked/hub\)"
    message = f"^{reason}; set HF_HOME to a folder that you may write to"
    with pytest.raises(BadInput, match=message), explain_hub_errors(HubSource(kind="hub", repo=REPO)):
        raise OSError(number, os.strerror(number), "/locked/hub")
    with pytest.raises(BadInput, match="set HF_HOME"), explain_hub_errors(HubSource(kind="hub", repo=REPO)):
        raise RuntimeError(f"I/O error: {os.strerror(number)} (os error {number})")


def test_a_hub_cache_that_cannot_be_made_is_no_reason_for_another_source(hub, tmp_path):
    (tmp_path / "hf").write_text("a file where the cache should be")
    answer = ask(hub, tmp_path, others=[OTHER])
    assert answer["type"] == "BadInput" and "set HF_HOME to a folder that you may write to" in answer["error"]
    assert not list((tmp_path / "root" / "sources").glob("m-*"))


@pytest.mark.parametrize("resource", ["model.safetensors", "config.json", "listing"])
def test_a_server_that_is_busy_at_first_is_asked_again(hub, tmp_path, resource):
    hub.fail_first[resource] = 2
    assert "folder" in ask(hub, tmp_path)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, "flip") for name in ("config.json", "tokenizer.json", "model.safetensors")),
        *(("model.safetensors", damage) for damage in ("truncate", "short")),
    ],
)
def test_a_damaged_file_is_refused_and_nothing_half_made_stays(hub, tmp_path, name, damage):
    hub.damage[name] = damage
    answer = ask(hub, tmp_path)
    assert answer["type"] == "SourceUnavailable" and "\n" not in answer["error"]
    flipped = f"{name} was damaged on its way"
    shorter = "a file arrived shorter than the Hub said, and the next"
    sentence = flipped if damage == "flip" else shorter
    assert sentence in answer["error"] and "cannot be reached" not in answer["error"] and answer["transient"] is True
    assert not [p for p in (tmp_path / "root" / "sources").iterdir() if p.is_dir()]
    hub.damage.clear()
    assert "folder" in ask(hub, tmp_path), "the next attempt starts from sound files"


OTHER = {"kind": "random", "shape": "tiny-llama"}
INSTEAD = "set HF_HUB_OFFLINE=1 to use random weights of the shape tiny-llama, seed 0 in its place"


def test_damaged_weights_are_fetched_again_from_the_same_source(hub, tmp_path):
    hub.damage["model.safetensors"] = "flip"
    answer = ask(hub, tmp_path, others=[OTHER])
    assert answer["type"] == "SourceUnavailable" and answer["transient"] is True, "the step is tried again"
    assert "model.safetensors was damaged on its way from the Hub, and the next attempt fetches it" in answer["error"]
    assert INSTEAD in answer["error"] and answer["error"].startswith(f"No weights for m from Hub {REPO}@main: ")
    hub.damage.clear()
    outcome = store.verify(Path(ask(hub, tmp_path, others=[OTHER])["folder"]))
    assert outcome["weights_source"] == f"Hub {REPO}@{COMMIT[:12]}"


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_waited_for_and_not_replaced_by_another_source(hub, tmp_path, status):
    hub.refuses = status
    answer = ask(hub, tmp_path, others=[OTHER])
    assert (
        answer["transient"] is True and f"the Hub answered with an error ({status}); run the command" in answer["error"]
    )
    assert INSTEAD in answer["error"] and not list((tmp_path / "root" / "sources").glob("m-*"))
    if status == 503:
        sentence = ask(hub, tmp_path, others=[OTHER], env={"HF_HUB_OFFLINE": "1"})
        assert store.verify(Path(sentence["folder"]))["random_weights"] is True, "as the sentence says"


@pytest.mark.parametrize("changes", [{"gated": 401}, {"revisions": set()}], ids=str)
def test_a_hub_that_does_not_give_the_model_is_passed_over(hub, tmp_path, changes):
    vars(hub).update(changes)
    assert store.verify(Path(ask(hub, tmp_path, others=[OTHER])["folder"]))["random_weights"] is True


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_repository_says_what_to_do(hub, tmp_path, status):
    hub.gated = status
    answer = ask(hub, tmp_path)
    error = answer["error"]
    assert answer["transient"] is False
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
    assert answer["transient"] is False
    assert not [p for p in (tmp_path / "root" / "sources").iterdir() if p.is_dir()]


def test_a_download_reports_its_progress(hub, tmp_path, content):
    steps = ask(hub, tmp_path)["progress"]
    assert {repo for repo, _, _ in steps} == {REPO}
    assert all(0 < result <= total for _, result, total in steps)
    assert max(result for _, result, _ in steps) >= len(content["model.safetensors"])


def test_the_progress_of_a_hub_download_knows_the_run_that_it_belongs_to(hub, tmp_path):
    hub.slow["model.safetensors"] = 0.5  # a bar that is done within its 0.1 seconds reports once, when it is closed
    steps = run(
        hub, own_cache(tmp_path), "tests.models.programs.acquire_in_context", REPO
    )  # its TRIAGE_HOME is this test's
    assert any(not in_main_thread for _, in_main_thread in steps), "huggingface_hub reports from threads of its own"
    assert {variable for variable, _ in steps} == {"seen"}


def test_a_download_ends_when_the_sweep_is_stopped(hub, tmp_path):
    hub.slow["model.safetensors"] = 0.5  # so that the bar reports before its end
    steps = run(hub, own_cache(tmp_path), "tests.models.programs.acquire_in_context", REPO, "stop")
    assert [variable for variable, _ in steps] == ["seen", "stopped"]
    assert not [path for path in (tmp_path / "home" / "sources").iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"revision": "v9"}, "team/model has no revision v9"),
        ({"repo": "team/other"}, "there is no repository team/other, or it is private and HF_TOKEN is not set"),
    ],
)
def test_what_is_not_there_is_named(hub, tmp_path, changes, message):
    answer = ask(hub, tmp_path, **changes)
    assert message in answer["error"] and answer["transient"] is False
    assert message in ask(hub, tmp_path, "probe", **changes)["state"]


def test_a_name_that_no_repository_can_have_is_the_users_to_correct(hub, tmp_path):
    answer = ask(hub, tmp_path, repo="team/a--b", others=[OTHER])
    assert answer["type"] == "BadInput" and "\n" not in answer["error"]
    assert answer["error"].startswith("team/a--b cannot be a Hub repository (") and "Cannot have --" in answer["error"]
    assert answer["error"].endswith("; correct `repo`.") and not hub.requests
    assert "cannot be a Hub repository" in ask(hub, tmp_path, "probe", repo="team/a--b")["state"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.safetensors", "team/model has no model*.safetensors weights; pickled weights"),
        ("config.json", "team/model has no config.json, without which"),
        ("tokenizer.json", "team/model has no tokenizer.json, without which"),
    ],
)
def test_a_repository_that_is_no_whole_model_is_refused_before_any_download(hub, tmp_path, name, message):
    hub.files.pop(name)
    answer = ask(hub, tmp_path)
    assert answer["type"] == "BadInput" and message in answer["error"]
    assert not [line for line in hub.requests if "/resolve/" in line]


def test_a_model_class_we_do_not_know_is_refused_before_its_weights_are_fetched(hub, tmp_path):
    hub.files["config.json"] = b'{"model_type": "mamba"}'
    answer = ask(hub, tmp_path)
    assert "is a model of the class 'mamba'; supported are llama and gemma3_text" in answer["error"]
    assert not [line for line in hub.requests if "safetensors" in line]


def test_a_disk_that_is_too_small_is_a_sentence_before_any_download(hub, tmp_path):
    hub.claimed_size = 10**16
    answer = ask(hub, tmp_path)
    assert answer["type"] == "BadInput" and "free some space" in answer["error"]
    assert f"GB in {tmp_path}" in answer["error"] and "set HF_HOME" in answer["error"]
    assert not hub.sent


def test_a_disk_that_becomes_full_during_a_download_is_a_sentence_and_no_reason_for_another_source(hub, tmp_path):
    answer = ask(hub, tmp_path, others=[OTHER], env={"PYTHONPATH": str(FULL_DISK)})
    sentence = "The disk of the Hub's cache is full; free some space or set HF_HOME."
    assert (answer["type"], answer["error"]) == ("BadInput", sentence)
    assert not [p for p in (tmp_path / "root" / "sources").iterdir() if p.is_dir()]


def test_files_that_are_in_the_hubs_cache_already_need_no_more_room(hub, tmp_path):
    folder = ask(hub, tmp_path)["folder"]
    forget(tmp_path)
    hub.claimed_size = 10**16
    assert ask(hub, tmp_path)["folder"] == folder


SHARED_MEMORY = Path("/dev/shm")


def free(path: Path) -> int:
    return shutil.disk_usage(path).free


@pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="no second disk")
def test_room_is_looked_for_on_the_disk_to_which_the_files_go(hub, tmp_path):
    if free(SHARED_MEMORY) > free(tmp_path) // 2:
        pytest.skip("the second disk has as much room as the first")
    hub.claimed_size = free(SHARED_MEMORY)
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as small:
        answer = ask(hub, tmp_path, env={"HF_HOME": small})
    assert answer["type"] == "BadInput" and f"GB in {small}" in answer["error"]


IMPORTED_LATE = """
import sys, threading
from pathlib import Path
from tasks.models.sources import fetch, hub_source
from tasks.spec import BaseModelSpec

fetch.PROBE_SECONDS = hub_source.CONNECT_SECONDS = 60.0

class Watch:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is not threading.main_thread():
            print(name)

sys.meta_path.insert(0, Watch())
spec = BaseModelSpec(name="m", licence="none", sources=({"kind": "hub", "repo": sys.argv[1]},))
print(fetch.availabilities([spec], Path(sys.argv[2]))[spec.name][0][1])
"""


def test_the_seconds_that_a_hub_has_to_answer_are_not_spent_on_imports(hub, tmp_path):
    with serve(hub) as address:
        result = subprocess.run(
            [sys.executable, "-c", IMPORTED_LATE, REPO, str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
            env=own_cache(tmp_path) | {"HF_ENDPOINT": address},
        )  # fmt: skip

    *late, state = result.stdout.splitlines()
    assert state == "reachable", result.stderr
    assert [name for name in late if name.startswith(("huggingface_hub", "httpx"))] == []


def test_availability_is_reachable_here_or_out_of_reach_within_seconds(hub, tmp_path):
    assert ask(hub, tmp_path, "probe")["state"] == "reachable"
    assert [line.split()[0] for line in hub.requests] == ["HEAD"], "nothing is downloaded to find out"
    start = time.monotonic()
    assert "the Hub cannot be reached" in ask(None, tmp_path, "probe")["state"]
    assert time.monotonic() - start < 60
    ask(hub, tmp_path)
    assert ask(None, tmp_path, "probe")["state"] == "here"
