"""A push to the Hub: private unless told, whole, marked, and plain about what stands in its way."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import httpx

from tasks.bundle.bundle import Rule, read_bundle, write_bundle
from tasks.bundle.export import push as upload
from tasks.bundle.export import refuse_push
from tasks.runtime.errors import BadInput, SourceUnavailable
from tests.bundle.test_decide import bundle

REPO = "team/model"
ADDRESS = f"https://hub.invalid/{REPO}"


class Hub:
    """What `HfApi` does for a push. `raises`: in the place of the first answer."""

    def __init__(self) -> None:
        self.private: bool | None = None  # until the repository is made
        self.files: dict[str, bytes] = {}
        self.messages: list[str] = []
        self.raises: Exception | None = None

    def create_repo(self, repo: str, private: bool, exist_ok: bool) -> str:
        if self.raises is not None:
            raise self.raises
        assert repo == REPO and exist_ok
        self.private = private if self.private is None else self.private
        return ADDRESS

    def model_info(self, repo: str) -> SimpleNamespace:
        siblings = [SimpleNamespace(rfilename=name) for name in self.files]
        return SimpleNamespace(private=self.private, siblings=siblings)

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str, delete_patterns: str) -> None:
        assert (repo_id, delete_patterns) == (REPO, "*")
        self.messages.append(commit_message)
        self.files = content(folder_path)


@pytest.fixture
def hub(monkeypatch) -> Hub:
    fake_hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: fake_hub)
    return fake_hub


@pytest.fixture
def exported(tmp_path) -> Path:
    folder = tmp_path / "exported"
    (folder / "model").mkdir(parents=True)
    write_bundle(bundle(Rule(name="argmax"), verdict="passes_gates", gates=(), weights="model"), folder)
    (folder / "README.md").write_text("# A model\n")
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def push(exported, hub, monkeypatch):
    def pushed(token: str | None = "hf_good", repo: str = REPO, public: bool = False, unsafe: bool = False) -> str:
        monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
        refuse_push(read_bundle(exported).bundle, repo, unsafe)
        return upload(exported, repo, public, "a model")

    return pushed


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("public", [False, True])
def test_every_file_is_pushed_in_one_commit_and_a_second_push_takes_the_place_of_the_first(exported, hub, push, public):
    assert push(public=public) == ADDRESS and hub.private is not public
    assert hub.files == content(exported) and hub.messages == ["Add a model"]
    (exported / "README.md").rename(exported / "other.md")
    push(public=public)
    assert hub.files == content(exported), "what the first one had and the second has not is gone"


@pytest.mark.parametrize(
    ("private", "message"),
    [
        (False, "team/model is public already, so nothing was uploaded; .* or add --public"),
        (True, "team/model is private already, so nothing was .* settings .* leave out --public"),
    ],
)
def test_nothing_goes_into_a_repository_that_is_public_or_private_otherwise_than_told(hub, push, private, message):
    hub.private = private
    with pytest.raises(BadInput, match=message):
        push(public=private)
    assert not hub.files


def test_a_repository_that_is_not_known_to_be_private_gets_nothing(hub, push, monkeypatch):
    monkeypatch.setattr(hub, "model_info", lambda repo: SimpleNamespace(private=None, siblings=[]))
    with pytest.raises(BadInput, match="nothing was uploaded"):
        push()
    assert not hub.messages


def test_what_others_keep_in_a_repository_is_not_removed(exported, hub, push):
    hub.files = {".gitattributes": b"a", "README.md": b"b", "weights.bin": b"c"}
    with pytest.raises(BadInput, match=r"holds files of something else \(weights\.bin\), so nothing was uploaded"):
        push()
    assert not hub.messages

    del hub.files["weights.bin"]
    push()
    assert hub.files == content(exported)


@pytest.mark.parametrize(
    ("bundled", "reason"),
    [({"verdict": "unsafe"}, "unsafe by its gates: ED recall 0.900"), ({"random_weights": True}, "random weights")],
)
def test_an_unsafe_model_is_pushed_only_if_told(exported, push, bundled, reason):
    write_bundle(bundle(Rule(name="argmax"), weights="model", **bundled), exported)
    with pytest.raises(BadInput, match=f"{reason}.*--unsafe"):
        push()
    assert push(unsafe=True) == ADDRESS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token": None}, "^There is no token of the Hub; set HF_TOKEN"),
        ({"repo": "model"}, "^'model' cannot be a Hub repository"),
        ({"repo": "team/a--b"}, "^'team/a--b' cannot be a Hub repository"),
        ({}, "HF_HUB_OFFLINE is set"),
    ],
)
def test_what_stands_in_the_way_is_a_sentence_before_the_hub_is_asked(hub, push, options, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", not options)
    with pytest.raises(BadInput, match=message):
        push(**options)
    assert hub.private is None


@pytest.mark.parametrize("status", [403, 400, None])
def test_a_refusal_of_the_hub_is_a_sentence_that_says_where_the_export_is(exported, hub, push, status):
    message = f"answered with an error \\({status}\\)"
    if status in (401, 403):
        message = f"does not let this token write to team/model \\({status}\\)"
    hub.raises = httpx.ConnectError("refused")
    if status is None:
        message = r"The Hub cannot be reached \(ConnectError\)"
    else:
        response = httpx.Response(status, request=httpx.Request("POST", ADDRESS))
        hub.raises = HfHubHTTPError("no", response=response)

    with pytest.raises(SourceUnavailable, match=f"{message}.*{exported}") as caught:
        push()
    assert caught.value.transient is (status not in (401, 403))
