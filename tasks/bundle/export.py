"""Writes an export, a folder with everything that a trained model needs, complete or not there; and
uploads it to the Hugging Face Hub, private unless told. HF_TOKEN and HF_ENDPOINT have their usual
meaning.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.bundle.bundle import (
    BUNDLE_FILE,
    Bundle,
    BundledModel,
    ExportAgreement,
    Review,
    write_bundle,
)
from tasks.bundle.terms import base_repository, render_example, write_terms
from tasks.corpus import vital_signs
from tasks.models.manifest import VariantManifest
from tasks.models.sources.folder_source import check_room, describe
from tasks.runtime.children import run_child
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.runtime.files import file_digest
from tasks.runtime.store import (
    CHECKED,
    MANIFEST,
    SEAL,
    seal,
    temporary_folder,
    verify,
)
from tasks.spec import BaseModelSpec, FolderSource

WEIGHTS = "model"  # beside an adapter; fused ones are where the Hub looks for a model
ADAPTER = "adapters.safetensors"
LLAMA_CPP = "example.mjs"
FINDERS = ".DS_Store"  # what a Mac leaves in a folder that somebody looked into
# Of the stored bytes: a fused block is unpacked to float32, and a GGUF file holds float16.
ROOM = {"adapter": 1.1, "fused": 9.0, "gguf": 18.0}
# What was written: its size in bytes by part, the largest first; how written weights differ, by
# their name; and what has to be added before it is passed on, if anything.
Exported = tuple[dict[str, int], dict[str, ExportAgreement], str | None]
# The text of a card: of the bundle; its licensing, as `write_terms` returns it; how written weights
# differ; the manifest of the weights; the base model as the grid listed it; and bytes by part.
WriteCard = Callable[
    [
        Bundle,
        dict[str, Any],
        dict[str, ExportAgreement],
        VariantManifest,
        BaseModelSpec,
        dict[str, int],
    ],
    str,
]


def refuse_filled(folder: Path) -> None:
    """Raise BadInput unless `folder` is a new or an empty folder that can be written."""
    with _disk_errors(folder):
        is_new = not folder.exists() and not folder.is_symlink()
        is_empty = folder.is_dir() and {path.name for path in folder.iterdir()} <= {FINDERS}
        if not is_new and not is_empty:
            raise BadInput(f"{folder} is a file or not empty; name a new folder for the export.")


def export(
    model: BundledModel,
    home: Path,
    folder: Path,
    write_card: WriteCard,
    *,
    adapter: bool = False,
    gguf: bool = False,
) -> Exported:
    """Write the export of a model of this home into `folder`, which is new or empty: fused, with a
    GGUF file where `gguf` is true, or as an `adapter` beside its weights. Raises BadInput also where
    fused weights or a GGUF file would answer otherwise than the trained model.

    `write_card` gives the text of README.md: the reports, which know the figures, are above here.
    """
    with _disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        stored = VariantManifest.read(model.weights).stored_bytes
        required_bytes = int(stored * ROOM["adapter" if adapter else "gguf" if gguf else "fused"])
        check_room("The export", required_bytes, folder.parent, "name a folder")
        with temporary_folder(folder) as temporary:
            exported = _fill(model, home, temporary, write_card, adapter, gguf)
            # A rename may take the place of an empty folder, and of no other.
            (folder / FINDERS).unlink(missing_ok=True)
            temporary.replace(folder)
    return exported


def _fill(
    model: BundledModel, home: Path, folder: Path, write_card: WriteCard, adapter: bool, gguf: bool
) -> Exported:
    assert model.adapter is not None, "an experiment has an adapter"
    stored = json.loads((model.adapter.parent / "training.json").read_text(encoding="utf-8"))
    base_model = BaseModelSpec.model_validate(stored["spec"]["model"])
    weights = folder / WEIGHTS if adapter else folder
    if adapter:
        for name in (*verify(model.weights, deep=True)["files"], MANIFEST):
            target = weights / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model.weights / name, target)
        leave_out_path(weights)

    args = {
        "model": model.model_dump(mode="json"),
        "folder": str(folder),
        "base": _base(model, base_model, weights) if adapter else None,
        "gguf": gguf,
    }
    log = home / "logs" / f"export-{model.bundle.model_id}"
    agreements = {
        name: ExportAgreement.model_validate(measured)
        for name, measured in run_child("tasks.bundle.export_job:run", args, log).items()
    }
    (folder / CHECKED).unlink(missing_ok=True)  # this machine's
    # Paths begin at the folder of the export.
    moved: dict[str, Any] = {"weights": WEIGHTS, "adapter": ADAPTER}
    if adapter:
        moved["adapter_digest"] = file_digest(folder / ADAPTER)
    else:
        leave_out_path(weights)
        limit = model.bundle.review.entropy_limit
        review = Review(available=False, entropy_limit=limit, fused=True)
        moved = {"weights": ".", "adapter": None, "adapter_digest": None, "review": review}
    variant = VariantManifest.read(weights)
    bundle = model.bundle.model_copy(update=moved | {"weights_digest": variant.digest})
    write_bundle(bundle, folder)
    prompt = json.loads((folder / "prompt.json").read_text(encoding="utf-8"))
    (folder / "example.py").write_text(render_example(bundle, prompt), encoding="utf-8")
    if bundle.prompt.vital_signs:
        shutil.copyfile(vital_signs.__file__, folder / "vital_signs.py")
    if gguf:
        shutil.copyfile(Path(__file__).parent / "templates" / LLAMA_CPP, folder / LLAMA_CPP)

    licensing = write_terms(bundle, model.weights, home, folder)
    # Before the card is written, which lists them.
    sizes = {
        path.name: sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
        for path in folder.iterdir()
    }
    sizes = dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))
    card = write_card(bundle, licensing, agreements, variant, base_model, sizes)
    (folder / "README.md").write_text(card, encoding="utf-8")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{file_digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
    return sizes, agreements, licensing["missing"]


def _base(model: BundledModel, base_model: BaseModelSpec, weights: Path) -> dict[str, Any]:
    """What an adapter belongs to: its base model's repository and commit, None for weights that came
    another way, and where they came from, of a package its name and version; the precision; and name
    and digests of the weights beside it, of a moved adapter not those that it was trained on.
    """
    bundle = model.bundle
    variant = VariantManifest.read(weights)
    config = json.loads((weights / "config.json").read_text(encoding="utf-8"))
    return {
        "config": {
            "model": model.weights.name,
            "base_model_name_or_path": base_repository(base_model, variant) or bundle.base_model,
            "revision": variant.source.model_dump().get("commit"),
            "weights_source": variant.weights_source,
            "precision": {"name": bundle.precision} | config.get("quantization", {}),
        },
        "metadata": {
            "model_id": bundle.model_id,
            "precision": bundle.precision,
            "weights_digest": variant.digest,
            "tokenizer_digest": variant.tokenizer_digest,
            "source_digest": variant.source_digest,
        },
    }


def leave_out_path(weights: Path) -> None:
    """Name a base model's folder without where it lies, which concerns nobody that has the export."""
    manifest = verify(weights, deep=False)
    source = manifest["source"]
    if source["kind"] == "folder":
        named = FolderSource(kind="folder", path=Path(source["path"]).name)
        entries = {key: value for key, value in manifest.items() if key not in SEAL}
        entries |= {"source": source | {"path": named.path}, "weights_source": describe(named)}
        seal(weights, entries, list(manifest["files"]))


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(
            f"{folder} cannot be written ({error.strerror}); name another folder, or make room."
        ) from error


# --- The Hub ------------------------------------------------------------------------------------------

NEW_FILES = {".gitattributes", "README.md"}  # that a new repository may hold


def refuse_push(bundle: Bundle, repo: str, unsafe: bool) -> None:
    """Raise BadInput for a push to owner/name that must not or cannot happen; asks the Hub nothing."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repo)
        has_owner = "/" in repo
    except HFValidationError:
        has_owner = False
    if not has_owner:
        raise BadInput(f"{repo!r} cannot be a Hub repository; name one as owner/name.")
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
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # httpx2 from huggingface_hub 2 on

    api = HfApi()
    remains = f"The export is in {folder}."
    try:
        address = api.create_repo(repo, private=not public, exist_ok=True)
        # After it is made: `exist_ok` passes over one that is there, whatever that holds.
        repository = api.model_info(repo)
        # None is not known to be private.
        if public == bool(repository.private):
            state, remedy = ("private", "leave out") if public else ("public", "add")
            raise BadInput(
                f"{repo} is {state} already, so nothing was uploaded; name another repository, "
                f"change it in its settings on the Hub, or {remedy} --public. {remains}"
            )
        names = {file.rfilename for file in repository.siblings or ()} - NEW_FILES
        if names and BUNDLE_FILE not in names:
            raise BadInput(
                f"{repo} holds files of something else ({min(names)}), so nothing was uploaded; "
                f"name another repository, since a push takes the place of what is there. {remains}"
            )
        api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message=f"Add {title}",
            delete_patterns="*",  # what another export left there is no part of this one
        )
    except HfHubHTTPError as refused:
        status = refused.response.status_code
        if status in (401, 403):
            raise SourceUnavailable(
                f"The Hub does not let this token write to {repo} ({status}); check "
                f"HF_TOKEN and the owner. {remains}",
                transient=False,
            ) from refused
        raise SourceUnavailable(
            f"The Hub answered with an error ({status}). {remains}"
        ) from refused
    except (httpx.HTTPError, ConnectionError, RuntimeError) as broken:
        raise SourceUnavailable(
            f"The Hub cannot be reached ({type(broken).__name__}). {remains}"
        ) from broken
    return str(address)
