"""The manifest of a sealed folder, parsed once into a frozen class.

A subclass per kind of folder names what it needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.runtime.errors import BrokenFolder
from tasks.runtime.store import MANIFEST, intact_manifest, verify


class Manifest(BaseModel):
    """What every manifest holds: `digest`, the digest of the folder's content.

    Keys that no field names are ignored.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    digest: str

    @classmethod
    def read(cls, folder: Path, deep: bool = False) -> Self:
        """Verify `folder` (see `store.verify` for `deep`) and return its manifest.

        Raises BrokenFolder if the folder is incomplete or damaged, or if its manifest lacks a field
        of this class.
        """
        return cls.parse(verify(folder, deep=deep), folder)

    @classmethod
    def read_if_complete(cls, folder: Path, deep: bool = False) -> Self | None:
        """The manifest of a complete and intact folder, else None.

        Raises BrokenFolder if it lacks a field.
        """
        manifest = intact_manifest(folder, deep=deep)
        return None if manifest is None else cls.parse(manifest, folder)

    @classmethod
    def parse(cls, values: dict[str, Any], folder: Path) -> Self:
        """This class from the JSON of a manifest that is already verified.

        `folder` is named in the error.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(str(part) for part in problem["loc"])
            raise BrokenFolder(
                f"{folder / MANIFEST}: {key}: {problem['msg']}; delete the folder to rebuild it."
            ) from error
