"""Uploads an export to the Hugging Face Hub: private unless told, and whole or not at all.

HF_TOKEN and HF_ENDPOINT have their usual meaning.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.bundle.bundle import BUNDLE_FILE, Bundle
from tasks.runtime.errors import BadInput, SourceUnavailable

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

NEW_FILES = {".gitattributes", "README.md"}  # that a new repository may hold


@dataclass(frozen=True)
class Target:
    """A Hub repository to push to, owner/name, and whether everybody may read it."""

    repo: str
    public: bool = False


def refuse_push(bundle: Bundle, target: Target, unsafe: bool) -> None:
    """Raise BadInput for a push that must not or cannot happen; asks the Hub nothing."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(target.repo)
    except HFValidationError:
        raise BadInput(
            f"{target.repo!r} cannot be a Hub repository; name one as owner/name."
        ) from None

    if "/" not in target.repo:
        raise BadInput(f"{target.repo!r} names no owner; name the repository as owner/name.")
    if bundle.warning and not unsafe:
        raise BadInput(f"{bundle.warning} To push it all the same, and marked so, add --unsafe.")
    if constants.is_offline_mode():
        raise BadInput("HF_HUB_OFFLINE is set, so nothing can be pushed; unset it.")
    if get_token() is None:
        raise BadInput(
            "There is no token of the Hub; set HF_TOKEN to one that may write, or log in with "
            "`hf auth login`."
        )


def push(folder: Path, target: Target, title: str) -> str:
    """Upload a folder as one commit; returns the address of the repository.

    Raises BadInput where a repository that is already there is public and `target` is not, or the
    reverse, or holds files that no export has put there, since those of an earlier one are removed.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with _sentences(folder, target):
        address = api.create_repo(target.repo, private=not target.public, exist_ok=True)
        # After it is made: `exist_ok` passes over one that is there, whatever that holds.
        _refuse_repository(api.model_info(target.repo), folder, target)
        api.upload_folder(
            repo_id=target.repo,
            folder_path=folder,
            commit_message=f"Add {title}",
            delete_patterns="*",  # what another export left there is no part of this one
        )

    return str(address)


def _refuse_repository(repository: ModelInfo, folder: Path, target: Target) -> None:
    consequence = f"so nothing was uploaded from {folder}"
    if not target.public and not repository.private:
        raise BadInput(
            f"{target.repo} is public already, {consequence}; name another repository, or add "
            "--public."
        )
    if target.public and repository.private:
        raise BadInput(
            f"{target.repo} is private already, {consequence}; make it public in its settings on "
            "the Hub, name another repository, or leave --public out."
        )

    names = {file.rfilename for file in repository.siblings or ()} - NEW_FILES
    if names and BUNDLE_FILE not in names:
        raise BadInput(
            f"{target.repo} holds files of something else ({min(names)}), {consequence}; name "
            "another repository, since a push takes the place of what is there."
        )


@contextmanager
def _sentences(folder: Path, target: Target) -> Iterator[None]:
    """Errors of the Hub as sentences, which say where the export is all the same."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    place = f"The export is in {folder}."
    try:
        yield
    except HfHubHTTPError as refused:
        status = refused.response.status_code
        if status in (401, 403):
            raise SourceUnavailable(
                f"The Hub does not let this token write to {target.repo} ({status}); check "
                f"HF_TOKEN and the owner. {place}",
                transient=False,
            ) from refused
        raise SourceUnavailable(f"The Hub answered with an error ({status}). {place}") from refused
    except (httpx.HTTPError, ConnectionError, RuntimeError) as broken:
        raise SourceUnavailable(
            f"The Hub cannot be reached ({type(broken).__name__}). {place}"
        ) from broken
