"""Writes an export, a folder with everything that a trained model needs, complete or not there; and
uploads it to the Hugging Face Hub, private unless told. HF_TOKEN and HF_ENDPOINT have their usual
meaning.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.bundle.bundle import (
    BUNDLE_FILE,
    Bundle,
    BundledModel,
    ExportJob,
    ExportResult,
    Review,
    write_bundle,
)
from tasks.bundle.model_card import card_figures, render_card, render_example, write_terms
from tasks.corpus.prompts import Template
from tasks.models.manifest import VariantManifest
from tasks.models.sources.folder_source import check_room, describe
from tasks.runtime.children import run_child
from tasks.runtime.errors import BadInput, SourceUnavailable, is_disk_full
from tasks.runtime.store import (
    MANIFEST,
    SEAL,
    Manifest,
    seal,
    temporary_folder,
    verify,
)
from tasks.spec import LABELS, BaseModelSpec, FolderSource

WEIGHTS = "model"
ADAPTER_FILES = ("adapters.safetensors", "adapter_config.json")
CARD = "README.md"
EXAMPLE = "example.py"
PROMPT_FILE = "prompt.json"
_TEXT = "\x00"  # stands for the patient's text, which holds none
# Of the stored bytes: a fused block is unpacked to float32, and a GGUF file to float16, of which a
# fused model is written first.
ROOM = {"plain": 1.1, "fuse": 9.0, "gguf": 18.0}


@dataclass(frozen=True)
class Exported:
    """A folder that was written: its size in bytes by part; what was measured; and what has to be
    added before it is passed on, if anything.
    """

    folder: Path
    sizes: dict[str, int]
    result: ExportResult
    missing_terms: str | None


def refuse_filled(folder: Path) -> None:
    """Raise BadInput unless `folder` is a new or an empty folder that can be written."""
    with _disk_errors(folder):
        is_new = not folder.exists() and not folder.is_symlink()
        if is_new or (folder.is_dir() and not any(folder.iterdir())):
            return

    problem = "is not empty" if folder.is_dir() else "is a file"
    raise BadInput(f"{folder} {problem}; name a new folder for the export.")


def export(
    model: BundledModel,
    home: Path,
    folder: Path,
    *,
    fuse: bool = False,
    gguf: bool = False,
) -> Exported:
    """Write the export of a model of this home into `folder`, which is new or empty. Raises BadInput
    also where fused weights or a GGUF file would answer otherwise than the trained model.
    """
    folder = folder.resolve()
    refuse_filled(folder)
    with _disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        stored = VariantManifest.read(model.weights).stored_bytes
        required_bytes = int(stored * ROOM["gguf" if gguf else "fuse" if fuse else "plain"])
        check_room("The export", required_bytes, folder.parent, "name a folder")
        with temporary_folder(folder) as temporary:
            exported = _fill(model, home, temporary, fuse, gguf)
            # A rename may take the place of an empty folder, and of no other.
            temporary.replace(folder)

    return replace(exported, folder=folder)


def _fill(model: BundledModel, home: Path, folder: Path, fuse: bool, gguf: bool) -> Exported:
    assert model.adapter is not None, "an experiment has an adapter"
    training = model.adapter.parent
    if not fuse:
        for name in (*verify(model.weights, deep=False)["files"], MANIFEST):
            target = folder / WEIGHTS / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model.weights / name, target)
        for name in ADAPTER_FILES:
            shutil.copyfile(training / name, folder / name)

    job = ExportJob(
        bundle=model.bundle,
        weights=model.weights,
        adapter=training,
        folder=folder,
        fuse=fuse,
        gguf=gguf,
    )
    log = home / "logs" / f"export-{model.bundle.model_id}"
    measured = run_child("tasks.bundle.export_job:run", job.model_dump(mode="json"), log)
    result = ExportResult.model_validate(measured)
    _leave_out_path(folder / WEIGHTS)

    # Paths begin at the folder of the export.
    moved: dict[str, Any] = {
        "weights": WEIGHTS,
        "weights_digest": Manifest.read(folder / WEIGHTS).digest,
        "adapter": ADAPTER_FILES[0],
    }
    if fuse:
        limit = model.bundle.review.entropy_limit
        review = Review(available=False, entropy_limit=limit, fused=True)
        moved |= {"adapter": None, "adapter_digest": None, "review": review}
    bundle = model.bundle.model_copy(update=moved)
    write_bundle(bundle, folder)
    example = render_example(bundle, read_prompt(folder))
    (folder / EXAMPLE).write_text(example, encoding="utf-8")

    licensing = write_terms(bundle, model.weights, home, folder)
    # Bytes by the first name, the largest first; before the card is written, which lists them.
    sizes = {
        path.name: sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
        for path in folder.iterdir()
    }
    sizes = dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))
    stored = json.loads((training / "training.json").read_text(encoding="utf-8"))
    card = render_card(
        bundle,
        card_figures(home, bundle),
        licensing,
        result,
        VariantManifest.read(folder / WEIGHTS),
        BaseModelSpec.model_validate(stored["spec"]["model"]),
        sizes,
    )
    (folder / CARD).write_text(card, encoding="utf-8")
    seal(folder, {"model_id": bundle.model_id, "result": result.model_dump(mode="json")})

    return Exported(folder, sizes, result, licensing["missing"])


def _leave_out_path(weights: Path) -> None:
    """Name a base model's folder without where it lies, which concerns nobody that has the export."""
    manifest = verify(weights, deep=False)
    source = manifest["source"]
    if source["kind"] != "folder":
        return

    named = FolderSource(kind="folder", path=Path(source["path"]).name)
    entries = {key: value for key, value in manifest.items() if key not in SEAL}
    entries |= {"source": source | {"path": named.path}, "weights_source": describe(named)}
    seal(weights, entries, list(manifest["files"]))


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise BadInput(
                f"The disk is full: {folder} was not written; free some space and try again."
            ) from error
        in_the_way = error.errno in (errno.ENOTDIR, errno.EEXIST)
        problem = "a file is where a folder should be" if in_the_way else error.strerror
        raise BadInput(f"{folder} cannot be written ({problem}); name another folder.") from error


def write_prompt(template: Template, max_tokens: int, folder: Path) -> None:
    """Write prompt.json: what a program needs to ask the model as it was asked in training.

    `answers`: the tokens of each label's word, order LABELS. With a chat template, `messages` come
    before the patient's; without one the prompt is `before`, the text, `after`.
    """
    entries: dict[str, Any] = {
        "labels": list(LABELS),
        "words": [template.prompt.answer(label) for label in LABELS],
        "answers": [
            list(tokens[:length])
            for tokens, length in zip(template.completions, template.label_lengths, strict=True)
        ],
        "max_tokens": max_tokens,
    }
    if template.chat:
        entries["messages"] = template.prompt.messages(_TEXT)[:-1]
    else:
        entries["before"], _, entries["after"] = template.prompt.plain_text(_TEXT).partition(_TEXT)

    text = json.dumps(entries, indent=1, ensure_ascii=False)
    (folder / PROMPT_FILE).write_text(f"{text}\n", encoding="utf-8")


def read_prompt(folder: Path) -> dict[str, Any]:
    """The entries of prompt.json."""
    entries: dict[str, Any] = json.loads((folder / PROMPT_FILE).read_text(encoding="utf-8"))
    return entries


NEW_FILES = {".gitattributes", "README.md"}  # that a new repository may hold


def refuse_push(bundle: Bundle, repo: str, unsafe: bool) -> None:
    """Raise BadInput for a push to owner/name that must not or cannot happen; asks the Hub nothing."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise BadInput(f"{repo!r} cannot be a Hub repository; name one as owner/name.") from None

    if "/" not in repo:
        raise BadInput(f"{repo!r} names no owner; name the repository as owner/name.")
    if bundle.warning and not unsafe:
        raise BadInput(f"{bundle.warning} To push it all the same, and marked so, add --unsafe.")
    if constants.is_offline_mode():
        raise BadInput("HF_HUB_OFFLINE is set, so nothing can be pushed; unset it.")
    if get_token() is None:
        raise BadInput(
            "There is no token of the Hub; set HF_TOKEN to one that may write, or log in with "
            "`hf auth login`."
        )


def push(folder: Path, repo: str, public: bool, title: str) -> str:
    """Upload a folder as one commit; returns the address of the repository. Raises BadInput where a
    repository is there that is not as private as told, or holds what no export has put there.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with _sentences(folder, repo):
        address = api.create_repo(repo, private=not public, exist_ok=True)
        # After it is made: `exist_ok` passes over one that is there, whatever that holds.
        repository = api.model_info(repo)
        consequence = f"so nothing was uploaded from {folder}"
        if not public and not repository.private:
            raise BadInput(
                f"{repo} is public already, {consequence}; name another repository, or add "
                "--public."
            )
        if public and repository.private:
            raise BadInput(
                f"{repo} is private already, {consequence}; make it public in its settings "
                "on the Hub, name another repository, or leave --public out."
            )

        names = {file.rfilename for file in repository.siblings or ()} - NEW_FILES
        if names and BUNDLE_FILE not in names:
            raise BadInput(
                f"{repo} holds files of something else ({min(names)}), {consequence}; name "
                "another repository, since a push takes the place of what is there."
            )

        api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message=f"Add {title}",
            delete_patterns="*",  # what another export left there is no part of this one
        )

    return str(address)


@contextmanager
def _sentences(folder: Path, repo: str) -> Iterator[None]:
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
                f"The Hub does not let this token write to {repo} ({status}); check "
                f"HF_TOKEN and the owner. {place}",
                transient=False,
            ) from refused
        raise SourceUnavailable(f"The Hub answered with an error ({status}). {place}") from refused
    except (httpx.HTTPError, ConnectionError, RuntimeError) as broken:
        raise SourceUnavailable(
            f"The Hub cannot be reached ({type(broken).__name__}). {place}"
        ) from broken
