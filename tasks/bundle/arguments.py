"""What a command sends to the child process that answers: built without MLX."""

from __future__ import annotations

from pathlib import Path

from tasks.bundle.bundle import Bundle, BundledModel
from tasks.spec import Strict


class PredictJob(Strict):
    """Answer texts with a model, until there are no more.

    `folder`: where the bundle's relative paths begin; `passes`: dropout passes of each text for the
    review flag, None for none.
    """

    bundle: Bundle
    folder: Path
    passes: int | None = None

    @property
    def model(self) -> BundledModel:
        return BundledModel(self.bundle, self.folder)


class ValidJob(Strict):
    """Score a model on the set `valid` of a data set folder, into the folder `scores`.

    `home`: where frozen prefixes are stored.
    """

    bundle: Bundle
    folder: Path
    data: Path
    home: Path
    scores: Path

    @property
    def model(self) -> BundledModel:
        return BundledModel(self.bundle, self.folder)
