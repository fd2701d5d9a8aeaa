"""What stands beside the weights of an export: the example, the base model's name on the Hub, and the
terms under which it may be passed on.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tasks.bundle.bundle import Bundle
from tasks.models.manifest import VariantManifest
from tasks.runtime.store import Manifest
from tasks.spec import LABELS, BaseModelSpec, HubSource

LICENCES = "licences"
VARIANT_SUFFIXES = ("", "-it", "-Instruct")  # of repositories beside that of the base model
SPDX = {"Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0"}
GEMMA = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at "
    "ai.google.dev/gemma/terms"
)
GEMMA_RESTRICTIONS = (
    "Whoever uses, changes or passes on these files must keep to the use restrictions of section "
    "3.2 of those terms and to the Gemma Prohibited Use Policy "
    "(ai.google.dev/gemma/prohibited_use_policy), and must pass both on, together with a copy of "
    "the terms and this notice, to whoever gets the files from them."
)
CHANGED = (
    "The files of this folder are modified: the weights were converted to MLX and stored at "
    "another precision, and an adapter was trained on them."
)


def render_example(bundle: Bundle, prompt: dict[str, Any]) -> str:
    """example.py, which needs stock mlx-lm alone. `prompt`: the entries of prompt.json."""
    costs = bundle.rule.costs
    environment = Environment(
        loader=PackageLoader("tasks.bundle"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Python, no HTML
    )
    return environment.get_template("example.py.jinja").render(
        bundle=bundle,
        chat="messages" in prompt,
        single_token=all(len(answer) == 1 for answer in prompt["answers"]),
        costs=[[costs[truth][label] for label in LABELS] for truth in LABELS] if costs else None,
    )


def write_terms(bundle: Bundle, weights: Path, home: Path, folder: Path) -> dict[str, Any]:
    """Put the licence texts that came with the weights, and the notice, into `folder`.

    Returns the `name` of the licence, the `link` to its text, the files `texts` and the content of
    the file Notice, `notice`; `missing`: what has to be added before the folder is passed on, None
    where nothing has to.
    """
    texts = _copy_texts(VariantManifest.read(weights).source_digest, home, folder)
    link = bundle.terms or SPDX.get(bundle.licence)
    missing = None
    if bundle.licence not in SPDX and not texts and link is not None:
        missing = f"the text of the terms is not among the files: add a copy from {link}"

    address = f" ({link})" if link else ""
    lines = [f"The base model {bundle.base_model} is under the licence {bundle.licence}{address}."]
    if is_gemma(bundle):
        lines = [f"{GEMMA}.", GEMMA_RESTRICTIONS]
    notice = "\n\n".join([*lines, CHANGED]) + "\n"
    (folder / "Notice").write_text(notice, encoding="utf-8")
    return {
        "name": bundle.licence,
        "link": link,
        "texts": texts,
        "notice": notice,
        "missing": missing,
    }


def is_gemma(bundle: Bundle) -> bool:
    """Whether Google's terms for Gemma bind a model."""
    return "gemma" in bundle.licence.lower() or "gemma" in (bundle.terms or "")


def base_repository(model: BaseModelSpec, variant: VariantManifest) -> str | None:
    """The Hub repository of the base model whose weights were used; None where none is known.

    A GGUF file of a package is named after its repository; the listed one may be its tuned sister.
    """
    source = variant.source.model_dump()
    if source["kind"] == "hub":
        return str(source["repo"])
    file = Path(source.get("file", "")).name.lower()
    listed = (entry.repo for entry in model.sources if isinstance(entry, HubSource))
    repositories = (repo.removesuffix(suffix) for repo in listed for suffix in VARIANT_SUFFIXES)
    names = ((repo, repo.partition("/")[2].lower()) for repo in repositories)
    return next((repo for repo, name in names if file.startswith(name)), None)


def _copy_texts(source_digest: str, home: Path, folder: Path) -> list[str]:
    """The licence texts of the source of the weights; their names in the folder."""
    sources = home / "sources"
    for source in sorted(sources.iterdir()) if sources.is_dir() else ():
        manifest = Manifest.read_if_complete(source)
        if manifest is not None and manifest.digest == source_digest:
            if not (source / LICENCES).is_dir():
                return []
            shutil.copytree(source / LICENCES, folder / LICENCES)
            texts = sorted(path for path in (folder / LICENCES).rglob("*") if path.is_file())
            return [path.relative_to(folder).as_posix() for path in texts]

    return []
