"""The terms under which an exported model may be passed on, and the files that they ask for."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tasks.bundle.bundle import Bundle
from tasks.models.manifest import VariantManifest
from tasks.runtime.store import Manifest

NOTICE_FILE = "Notice"
LICENCES = "licences"
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


@dataclass(frozen=True)
class Licensing:
    """The licence of a base model. `link`: where its text is; `texts`: files of it in the folder;
    `notice`: the content of the file Notice.
    """

    name: str
    link: str | None
    texts: tuple[str, ...]
    notice: str

    @property
    def missing(self) -> str | None:
        """What has to be added before the folder is passed on; None where nothing has to."""
        if self.name in SPDX or self.texts or self.link is None:
            return None
        return f"the text of the terms is not among the files: add a copy from {self.link}"


def write_terms(bundle: Bundle, weights: Path, home: Path, folder: Path) -> Licensing:
    """Put the licence texts that came with the weights, and the notice, into `folder`."""
    variant = VariantManifest.read(weights)
    texts = _copy_texts(variant.source_digest, home, folder)
    link = bundle.terms or SPDX.get(bundle.licence)
    licensing = Licensing(bundle.licence, link, texts, _notice(bundle, link))
    (folder / NOTICE_FILE).write_text(licensing.notice, encoding="utf-8")
    return licensing


def is_gemma(bundle: Bundle) -> bool:
    """Whether Google's terms for Gemma bind a model."""
    return "gemma" in bundle.licence.lower() or "gemma" in (bundle.terms or "")


def _notice(bundle: Bundle, link: str | None) -> str:
    if is_gemma(bundle):
        lines = [f"{GEMMA}.", GEMMA_RESTRICTIONS]
    else:
        address = f" ({link})" if link else ""
        lines = [
            f"The base model {bundle.base_model} is under the licence {bundle.licence}{address}."
        ]
    return "\n\n".join([*lines, CHANGED]) + "\n"


def _copy_texts(source_digest: str, home: Path, folder: Path) -> tuple[str, ...]:
    """The licence texts of the source of the weights; their names in the folder."""
    sources = home / "sources"
    for source in sorted(sources.iterdir()) if sources.is_dir() else ():
        manifest = Manifest.read_if_complete(source)
        if manifest is not None and manifest.digest == source_digest:
            if not (source / LICENCES).is_dir():
                return ()
            shutil.copytree(source / LICENCES, folder / LICENCES)
            return tuple(
                path.relative_to(folder).as_posix()
                for path in sorted((folder / LICENCES).rglob("*"))
                if path.is_file()
            )

    return ()
