"""What lands beside results: the datasets, and which results a sweep made or found, so that they
belong to its study.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from tasks.corpus.case import SETS
from tasks.corpus.manifest import DatasetManifest
from tasks.landing import Rows, is_landed, keep_rows, land_rows, whole_row
from tasks.runtime.children import step_seconds
from tasks.spec import Grid, short_digest
from tasks.tuning.rows import sets_digest

EVERY_SECONDS = 30.0  # between two landings of a sweep that goes on


def dataset_id(dataset: DatasetManifest) -> str:
    """The id under which a dataset lands."""
    return f"dataset-{dataset.dataset_digest}"


def land_dataset(data: Path) -> None:
    """Record a prepared dataset, once: its digest, and the sizes and digests of its sets."""
    dataset = DatasetManifest.read(data)
    if not is_landed(dataset_id(dataset)):
        land_rows(dataset_id(dataset), "dataset", dataset_rows(dataset))


def dataset_rows(dataset: DatasetManifest) -> Rows:
    """Landing rows of a dataset and its sets."""
    id = dataset_id(dataset)
    further = dataset.sets.keys() - set(SETS)
    row = {
        "dataset_id": id,
        "dataset_digest": dataset.dataset_digest,
        "dataset": dataset.name,
        "sets_digest": sets_digest(dataset),
        "is_embedded": dataset.is_embedded,
        "seed": dataset.seed,
        **{f"{name}_cases": dataset.sets[name].cases for name in SETS},
        "further_sets": len(further),
        "created_at": dataset.created or None,
    }
    sets = [
        {
            "dataset_id": id,
            "name": name,
            "set_digest": entry.digest,
            "cases": entry.cases,
            "ed_cases": entry.labels.get("ED", 0),
            "gp_cases": entry.labels.get("GP", 0),
            "home_cases": entry.labels.get("HOME", 0),
            "groups": entry.groups if entry.has_groups else None,
            "is_further": name in further,
        }
        for name, entry in dataset.sets.items()
    ]
    return {"dataset": [row], "dataset_set": sets}


def grid_digest(grid: Grid) -> str:
    """Digest of everything that a grid says, its overrides applied."""
    return short_digest(grid.model_dump(mode="json"))


@dataclass(frozen=True)
class RunTime:
    """Seconds of a run, and of the processes of its steps."""

    run_seconds: float
    step_seconds: float


class SweepRecord:
    """A sweep that is running: what it has made or found so far. It lands as it goes on, so that a
    sweep that is killed has what it finished in its study.
    """

    def __init__(self, grid: Grid, experiments: int) -> None:
        started_at = datetime.now(UTC).replace(tzinfo=None)
        self.id = f"sweep-{grid.name}-{started_at:%Y%m%d-%H%M%S}-{uuid4().hex[:6]}"
        self._ids: set[str] = set()
        self._landed_at = self._started = time.monotonic()
        self._steps_before = step_seconds()
        row = {
            "sweep_id": self.id,
            "study": grid.name,
            "grid": grid.name,
            "grid_digest": grid_digest(grid),
            "experiments": experiments,
            "started_at": started_at,
        }
        self._row = whole_row("sweep", row)

    @property
    def ids(self) -> list[str]:
        """What it has made or found so far."""
        return sorted(self._ids)

    def use(self, data: Path) -> None:
        """Note the dataset that it runs on."""
        if self._row["dataset_digest"] is None:
            self._row["dataset_digest"] = DatasetManifest.read(data).dataset_digest

    def add(self, ids: Iterable[str]) -> None:
        """Note results, and land what is noted unless that was done a moment ago."""
        self._ids.update(ids)
        if time.monotonic() - self._landed_at > EVERY_SECONDS:
            land_rows(self.id, "sweep", self._rows())
            self._landed_at = time.monotonic()

    def finish(self, failures: int, elsewhere: Sequence[RunTime] | None = None) -> None:
        """Land everything, with the end of the sweep.

        `elsewhere`: the times of its runs where those were processes of their own.
        """
        if elsewhere is None:
            run_seconds = time.monotonic() - self._started
            elsewhere = [RunTime(run_seconds, step_seconds() - self._steps_before)]

        self._row |= {
            "failures": failures,
            "finished_at": datetime.now(UTC).replace(tzinfo=None),
            "run_seconds": sum(run.run_seconds for run in elsewhere),
            "step_seconds": sum(run.step_seconds for run in elsewhere),
        }
        land_rows(self.id, "sweep", self._rows())

    def keep(self) -> None:
        """Write what is noted, for the next command to load: an interrupted sweep has little time."""
        if self._ids:
            keep_rows(self.id, "sweep", self._rows())

    def _rows(self) -> Rows:
        members = [{"sweep_id": self.id, "id": id} for id in sorted(self._ids)]
        return {"sweep": [self._row], "sweep_member": members}
