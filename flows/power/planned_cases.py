"""The cases of a grid as a plan reads them: prepared at most once, since to read, compare and split
them takes long.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tasks.corpus.prepare import dataset_folder, stored_or_temporary
from tasks.runtime.errors import SourceUnavailable
from tasks.runtime.home import home
from tasks.runtime.store import intact_manifest
from tasks.spec import Grid


class PlannedCases:
    """The prepared cases of a grid: those of the home, or others in a temporary folder, since a
    plan writes nothing. `planned_cases` makes them.
    """

    def __init__(self, grid: Grid, cleanup: contextlib.ExitStack) -> None:
        self.grid = grid
        self._cleanup = cleanup
        self._folder: Path | None = None
        self._answers = True

    def folder(self, also_embedded: bool = False) -> Path | None:
        """Their folder, which lasts as long as the plan. Raises BadInput for cases that cannot be
        used.

        None where their source does not answer, and for embedded cases that the home lacks, unless
        `also_embedded`: to write and compare them takes seconds, and their labels and groups are
        known without.
        """
        if self._folder is None and self._answers:
            try:
                self._folder = self._prepare(also_embedded)
            except SourceUnavailable:
                self._answers = False
        return self._folder

    def _prepare(self, also_embedded: bool) -> Path | None:
        source = self.grid.data, home(), self.grid.evaluation_sets
        is_embedded = self.grid.data.source == "embedded"
        if is_embedded and not also_embedded and not intact_manifest(dataset_folder(*source)):
            return None
        return self._cleanup.enter_context(stored_or_temporary(*source))


@contextlib.contextmanager
def planned_cases(grid: Grid, cases: PlannedCases | None = None) -> Iterator[PlannedCases]:
    """The cases of a whole plan, if there are any, else those of the block."""
    if cases is not None:
        yield cases
        return
    with contextlib.ExitStack() as cleanup:
        yield PlannedCases(grid, cleanup)
