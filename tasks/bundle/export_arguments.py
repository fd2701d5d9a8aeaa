"""Arguments and result of the job that makes an export: JSON between two processes.

They are here, and not beside the job, since the parent process must not load MLX.
"""

from __future__ import annotations

from pathlib import Path

from tasks.bundle.bundle import Bundle
from tasks.spec import Strict


class ExportJob(Strict):
    """Write into `folder` what needs a tokenizer or a model.

    `weights`: the model folder; `adapter`: the folder of the adapter and its config; `fuse`: write
    the fused model into `folder`/model; `gguf`: write `folder`/model.gguf.
    """

    bundle: Bundle
    weights: Path
    adapter: Path
    folder: Path
    fuse: bool = False
    gguf: bool = False


class ExportAgreement(Strict):
    """How a model that was written differs from the model as it was trained, in float32.

    On `cases` embedded cases of `valid`: `largest`, the largest difference of a label's
    probability; `decided_otherwise`, how many of them the bundle's rule decides otherwise.
    """

    cases: int
    largest: float
    decided_otherwise: int

    @property
    def differing_decisions(self) -> str:
        """How many decisions differ, in words."""
        if self.decided_otherwise == 1:
            return "1 decision differs"
        return f"{self.decided_otherwise} decisions differ"


class ExportResult(Strict):
    """What an ExportJob has measured; None for what it was not told to write."""

    fused: ExportAgreement | None = None
    gguf: ExportAgreement | None = None
