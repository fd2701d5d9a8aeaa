"""A push to a local stand-in of the Hub: private unless told, whole, marked, and plain about what stands in its way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.bundle.bundle import Rule, read_bundle, write_bundle
from tasks.bundle.export import push as upload
from tasks.bundle.export import refuse_push
from tasks.runtime.errors import BadInput, SourceUnavailable
from tests.bundle.taking_hub import TakingHub, serve
from tests.bundle.test_decide import bundle

REPO = "team/model"


@pytest.fixture
def hub() -> TakingHub:
    return TakingHub()


@pytest.fixture
def exported(tmp_path) -> Path:
    folder = tmp_path / "exported"
    (folder / "model").mkdir(parents=True)
    write_bundle(bundle(Rule(name="argmax"), verdict="passes_gates", gates=(), weights="model"), folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlibrary_name: mlx\n---\n# A model\n")
    (folder / "model" / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    return folder


@pytest.fixture
def push(exported, hub, monkeypatch):
    """Push the folder to `hub`; settings that huggingface_hub reads where a process starts are set where it keeps them."""
    from huggingface_hub import constants

    def pushed(token: str | None = "hf_good", repo: str = REPO, public: bool = False, unsafe: bool = False) -> str:
        monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
        monkeypatch.setenv("HF_TOKEN", token or "")
        refuse_push(read_bundle(exported).bundle, repo, unsafe)
        return upload(exported, repo, public, "a model")

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with serve(hub) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        yield pushed


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("public", [False, True])
def test_every_file_is_pushed_in_one_commit_and_a_second_push_takes_the_place_of_the_first(exported, hub, push, public):
    assert push(public=public).endswith(REPO) and hub.private == {REPO: not public}
    assert hub.files[REPO] == content(exported) and hub.messages == ["Add a model"]
    assert list(hub.large.values()) == [(exported / "model" / "model.safetensors").read_bytes()], "as a large file"
    (exported / "README.md").rename(exported / "other.md")
    push(public=public)
    assert hub.files[REPO] == content(exported), "what the first one had and the second has not is gone"


@pytest.mark.parametrize(
    ("private", "message"),
    [
        (False, "team/model is public already, so nothing was uploaded from .* or add --public"),
        (True, "team/model is private already, so nothing was .* settings .* leave --public out"),
    ],
)
def test_nothing_goes_into_a_repository_that_is_public_or_private_otherwise_than_told(hub, push, private, message):
    hub.private[REPO] = private
    with pytest.raises(BadInput, match=message):
        push(public=private)
    assert not hub.files and not hub.large


def test_what_others_keep_in_a_repository_is_not_removed(exported, hub, push):
    hub.private[REPO] = True
    others = {".gitattributes": b"a", "README.md": b"b", "weights.bin": b"c"}
    hub.files[REPO] = dict(others)
    message = r"team/model holds files of something else \(weights\.bin\), so nothing was uploaded"
    with pytest.raises(BadInput, match=message):
        push()
    assert hub.files[REPO] == others and not hub.large

    del hub.files[REPO]["weights.bin"]
    push()
    assert hub.files[REPO].keys() - {".gitattributes"} == content(exported).keys()


@pytest.mark.parametrize(
    ("bundled", "reason"),
    [({"verdict": "unsafe"}, "unsafe by its gates: ED recall 0.900"), ({"random_weights": True}, "random weights")],
)
def test_an_unsafe_model_is_pushed_only_if_told(exported, hub, push, bundled, reason):
    write_bundle(bundle(Rule(name="argmax"), weights="model", **bundled), exported)
    with pytest.raises(BadInput, match=f"{reason}.*--unsafe"):
        push()
    assert not hub.requests, "nothing was asked of the Hub"
    assert push(unsafe=True).endswith(REPO)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token": None}, "^There is no token of the Hub; set HF_TOKEN"),
        ({"repo": "model"}, "^'model' names no owner"),
        ({"repo": "team/a--b"}, "^'team/a--b' cannot be a Hub repository"),
        ({}, "HF_HUB_OFFLINE is set"),
    ],
)
def test_what_stands_in_the_way_is_a_sentence_before_the_hub_is_asked(hub, push, options, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", not options)
    with pytest.raises(BadInput, match=message):
        push(**options)
    assert not hub.requests


@pytest.mark.parametrize("status", [401, 403, 400, None])
def test_a_refusal_of_the_hub_is_a_sentence_that_says_where_the_export_is(exported, hub, push, status, monkeypatch):
    hub.refuses = status
    message = f"answered with an error \\({status}\\)"
    if status in (401, 403):
        message = f"does not let this token write to team/model \\({status}\\)"
    if status is None:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
        message = r"The Hub cannot be reached \(ConnectError\)"
    with pytest.raises(SourceUnavailable, match=f"{message}.*{exported}") as caught:
        push()
    assert caught.value.transient is (status not in (401, 403))
