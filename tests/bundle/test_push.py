"""A push to a local stand-in of the Hub: private unless told, whole, marked, and plain about what stands in its way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tasks.bundle.bundle import Rule, write_bundle
from tests.bundle.programs import push_folder
from tests.bundle.taking_hub import TakingHub, serve
from tests.bundle.test_decide import bundle
from tests.forked import run_forked

REPO = "team/model"


@pytest.fixture
def hub() -> TakingHub:
    return TakingHub()


@pytest.fixture
def exported(tmp_path) -> Path:
    folder = tmp_path / "exported"
    (folder / "model").mkdir(parents=True)
    write_bundle(bundle(Rule(name="argmax"), verdict="passes_gates", gates=()), folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlibrary_name: mlx\n---\n# A model\n")
    (folder / "model" / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    return folder


def push(
    folder: Path, hub: TakingHub, tmp_path: Path, token: str | None = "hf_good", env=(), **options
) -> dict[str, str]:
    """What the program printed, with `hub` as the Hub."""
    own = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    ours = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | own | dict(env)
    with serve(hub) as address:
        settings = ours | {"HF_ENDPOINT": address} | ({"HF_TOKEN": token} if token else {})
        arguments = [str(folder), json.dumps({"repo": REPO} | options)]
        done = run_forked(push_folder.main, arguments, tmp_path, settings, 120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_file_is_pushed_in_one_commit_into_a_private_repository(exported, hub, tmp_path):
    done = push(exported, hub, tmp_path)
    assert done["address"].endswith(REPO) and hub.private == {REPO: True}
    assert hub.files[REPO] == content(exported) and hub.messages == ["Add a model"]
    assert list(hub.large.values()) == [(exported / "model" / "model.safetensors").read_bytes()], "as a large file"


def test_public_is_said_and_a_second_push_takes_the_place_of_the_first(exported, hub, tmp_path):
    push(exported, hub, tmp_path, public=True)
    assert hub.private == {REPO: False}
    (exported / "README.md").rename(exported / "other.md")
    push(exported, hub, tmp_path, public=True)
    assert hub.files[REPO] == content(exported), "what the first one had and the second has not is gone"


def test_nothing_goes_into_a_repository_that_is_public_already_unless_told(exported, hub, tmp_path):
    hub.private[REPO] = False
    error = push(exported, hub, tmp_path)["error"]
    assert error.startswith("team/model is public already, so nothing was uploaded from") and "--public" in error
    assert not hub.files and not hub.large


@pytest.mark.parametrize(
    ("bundled", "reason"),
    [({"verdict": "unsafe"}, "unsafe by its gates: ED recall 0.900"), ({"random_weights": True}, "random weights")],
)
def test_an_unsafe_model_is_pushed_only_if_told(exported, hub, tmp_path, bundled, reason):
    write_bundle(bundle(Rule(name="argmax"), **bundled), exported)
    error = push(exported, hub, tmp_path)["error"]
    assert reason in error and "--unsafe" in error and not hub.asked, "nothing was asked of the Hub"
    assert "address" in push(exported, hub, tmp_path, unsafe=True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"token": None}, "There is no token of the Hub; set HF_TOKEN"),
        ({"repo": "model"}, "'model' names no owner"),
        ({"repo": "team/a--b"}, "'team/a--b' cannot be a Hub repository"),
        ({"env": {"HF_HUB_OFFLINE": "1"}}, "HF_HUB_OFFLINE is set"),
    ],
)
def test_what_stands_in_the_way_is_a_sentence_before_the_hub_is_asked(exported, hub, tmp_path, options, told):
    done = push(exported, hub, tmp_path, **options)
    assert done["type"] == "BadInput" and done["error"].startswith(told) and not hub.asked


@pytest.mark.parametrize(
    ("status", "told"),
    [(401, "does not let this token write to team/model (401)"), (403, "(403)"), (400, "answered with an error (400)")],
)
def test_a_refusal_of_the_hub_is_a_sentence_that_says_where_the_export_is(exported, hub, tmp_path, status, told):
    hub.refuses = status
    error = push(exported, hub, tmp_path)["error"]
    assert told in error and error.endswith(f"The export is in {exported}.")


def test_a_hub_out_of_reach_is_a_sentence(exported, tmp_path):
    own = {"HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_good", "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = run_forked(
        push_folder.main, [str(exported), json.dumps({"repo": REPO})], tmp_path, {**os.environ, **own}, 120
    )
    assert "The Hub cannot be reached (ConnectError)" in json.loads(done.stdout)["error"]
