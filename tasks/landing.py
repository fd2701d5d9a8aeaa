"""What lands: rows of variants, experiments and failures; datasets; and which results a sweep made or
found, so that they belong to its study. Without Prefect.

Another program may hold the warehouse: then what has landed waits, and the sweep goes on.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from tasks.corpus.case import SETS
from tasks.corpus.manifest import DatasetManifest
from tasks.identity import INGREDIENTS, experiment_folder
from tasks.models.manifest import VariantManifest
from tasks.runtime.children import step_seconds
from tasks.runtime.errors import BadInput, BrokenFolder, Locked
from tasks.runtime.events import Event, Note, StepWarning
from tasks.runtime.files import write_atomic
from tasks.runtime.home import home
from tasks.runtime.locks import locked
from tasks.runtime.shared import (
    FAILED,
    SharedFolder,
    bring_adapter,
    fetch,
    share,
    share_adapter,
    shared_folder,
)
from tasks.runtime.store import intact_manifest
from tasks.spec import ExperimentSpec, Grid, canonical_json, short_digest, training_of
from tasks.tuning.rows import TrainingOutcome, sets_digest, training_rows, variant_row
from warehouse.connect import WAITING, check_place, loading_waits, reading, warehouse_path
from warehouse.landing import landed_status as status_of
from warehouse.landing import landing_folders, write_landing
from warehouse.load import (
    FIRST_SECONDS,
    LAST_SECONDS,
    load_all,
    load_or_wait,
    load_waiting,
    waiting_sentence,
)
from warehouse.schema import Kind
from warehouse.schema import tables as known_tables

EVERY_SECONDS = 30.0  # between two landings of a sweep that is running
LANDING_SECONDS = 60.0  # twice as long as a landing waits for the warehouse
_said = threading.Event()  # that loading waits: once, not for each landing

Rows = dict[str, list[dict[str, Any]]]


def land_variant(folder: Path) -> None:
    """Record the exact sizes of a model folder, quantised or not, as soon as it is there."""
    row = variant_row(folder.name, VariantManifest.read(folder))
    land_rows(folder.name, "variant", {"variant": row})


def land_failure(spec: ExperimentSpec, variant: Path, data: Path, error: Exception) -> str:
    """Record that an experiment did not finish, with the sentence that says why, and how far it
    came if it diverged; returns its training_id.
    """
    folder = experiment_folder(spec, variant, data)
    if intact_manifest(folder) and landed_status(folder.name) == "completed":
        # An evaluation failed: the training and its other evaluations are not affected.
        return folder.name

    weights = VariantManifest.read(variant)
    outcome = TrainingOutcome.of_failure(folder, error)
    rows = training_rows(spec, folder.name, weights, DatasetManifest.read(data), outcome)
    land_rows(folder.name, "training", rows)

    return folder.name


def landed_status(training: str) -> str | None:
    """None where nothing has landed, or nothing that can be read: another sweep may be replacing
    it.
    """
    return status_of(_landing() / training) if is_landed(training) else None


def refill_warehouse() -> dict[str, str]:
    """Bring the warehouse up to date with everything that has landed: it may be new, older than the
    code, or deleted.

    Returns why folders were refused, by id. The steps that write them do so again. Raises BadInput
    where no warehouse can be.
    """
    check_place(warehouse_path())
    if not _landing().is_dir():
        return {}

    try:
        return load_all(_landing(), wait=FIRST_SECONDS).refused
    except Locked as error:
        (_landing() / WAITING).touch()
        _say_once(error)
        return {}


def load_the_rest() -> str | None:
    """Load what waits, at the end of a sweep; None, or the sentence that says why it still does."""
    error = load_waiting(_landing(), wait=LAST_SECONDS)
    return None if error is None else waiting_sentence(error)


def some_results_wait() -> bool:
    """Whether something has landed that another program keeps out of the warehouse."""
    return loading_waits(_landing())


def _landing() -> Path:
    return home() / "landing"


def _load(*folders: Path) -> None:
    """Load landing folders, or leave them for later where another program holds the warehouse.

    Raises BrokenFolder if a folder does not match its manifest.
    """
    error = load_or_wait(folders)
    if error is not None:
        _say_once(error)
    elif not some_results_wait():
        _said.clear()


def _say_once(error: Locked) -> None:
    if not _said.is_set():
        _said.set()
        _publish("loading", StepWarning(waiting_sentence(error)))


def _publish(title: str, event: Event) -> None:
    from tasks.progress import publisher  # Prefect comes with it

    publisher(title)(event)


def absent_from_warehouse(ids: Collection[str]) -> list[str]:
    """Which of these ids the warehouse does not hold, in their order; what waits to be loaded is
    not missing.
    """
    if some_results_wait():
        return [id for id in ids if not intact_manifest(_landing() / id)]
    if not warehouse_path().is_file():
        return list(ids)
    with reading() as con:
        landed_ids = {id for (id,) in con.execute("SELECT id FROM landed").fetchall()}
    return [id for id in ids if id not in landed_ids]


def land_rows(id: str, kind: Kind, tables: Rows) -> None:
    """Write the rows of `id` to its landing folder and load that, now or later. Raises Locked if
    another sweep lands this id for too long.
    """
    land_together([(id, kind, tables)])


def land_together(landings: Sequence[tuple[str, Kind, Rows]]) -> None:
    """`land_rows` for each of these in turn, but the warehouse is opened once."""
    with contextlib.ExitStack() as locks:
        for id, _, _ in landings:
            locks.enter_context(locked(_landing() / id, LANDING_SECONDS))
        _load(*(write_landing(_landing(), id, kind, rows) for id, kind, rows in landings))

    # Without the locks: where another machine's version counts, _share takes one again.
    for id, _, _ in landings:
        _share(id)


def _share(id: str, look: bool = True) -> None:
    """Copy a landing folder, and the adapter of a training, to the place that machines share, where
    one is named; see `share` for `look`.

    Where another machine's version is there first, that one stays, and takes the place of ours.
    Raises NotShared.
    """
    shared = shared_folder()
    if shared is None:
        return

    status = status_of(_landing() / id)
    if look and status == "completed":
        share_adapter(shared, home() / "experiments" / id)
    if not share(shared, _landing() / id, status not in (None, "completed"), look):
        with locked(_landing() / id, LANDING_SECONDS):
            fetch(shared, id, _landing())
        _load(_landing() / id)
        _publish(id, Note(f"{id} landed from another machine first: its figures stay."))


def share_the_rest() -> None:
    """Copy what landed while the shared place could not be used, or before one was named."""
    if shared_folder() is not None and _landing().is_dir():
        for folder in landing_folders(_landing()):
            _share(folder.name, look=False)  # at hundreds of folders, which may take seconds each


def take_over(ids: Sequence[str], data: Path) -> None:
    """Bring what other machines have landed from the shared place, and load it: evaluations come
    with what they evaluate, and completed trainings with their adapters, which learned from the
    cases in `data`. Raises NotShared, and BrokenFolder for what is damaged there.
    """
    shared = shared_folder()
    if shared is None:
        return

    _bring(shared, ids)
    manifests = {id: intact_manifest(_landing() / id) or {} for id in ids}
    evaluations = [id for id in ids if manifests[id].get("kind") == "evaluation"]
    trainings = sorted(set(map(training_of, evaluations)) - set(ids))
    _bring(shared, trainings)

    folders = [_landing() / id for id in [*trainings, *ids]]
    local_folders = [folder for folder in folders if intact_manifest(folder)]
    if local_folders:
        _load(*local_folders)

    for id in [*trainings, *ids]:
        folder = home() / "experiments" / id
        if _is_completed_training(id) and bring_adapter(shared, folder, partial(_publish, id)):
            # By which the adapter is known when the cases are forgotten.
            sets = DatasetManifest.read(data).sets
            digests = {name: sets[name].digest for name in ("train", "valid")}
            write_atomic(folder / INGREDIENTS, json.dumps(digests, indent=1))


def _bring(shared: SharedFolder, ids: Iterable[str]) -> None:
    """Bring landing folders; of a training that completed nowhere, what it landed when it failed."""
    for id in ids:
        if not fetch(shared, id, _landing()) and not _is_completed_training(id):
            fetch(shared, id, _landing(), FAILED)


def _is_completed_training(id: str) -> bool:
    return status_of(_landing() / id) == "completed"


def is_landed(id: str) -> bool:
    """Whether the warehouse holds a content id, or will, and its folder is intact: it need not be
    computed again.

    A folder that the warehouse lacks is loaded. One that is damaged, or that it refuses, has not
    landed, and is written again. What another machine has landed is brought here.
    """
    try:
        if not (_landing() / id).is_dir() and (shared := shared_folder()) is not None:
            fetch(shared, id, _landing())
        _load(_landing() / id)  # which checks the digests of its files first
    except (BadInput, BrokenFolder, OSError):  # or another sweep is replacing it
        return False

    # It may have landed before a shared place was named.
    _share(id)
    return True


def whole_row(table: str, values: dict[str, Any]) -> dict[str, Any]:
    """A landing row with every column of a table, NULL where nothing is given."""
    return {**dict.fromkeys(known_tables()[table].names), **values}


def land_look(study: str, **columns: object) -> None:
    """Record that figures of a study are looked at now: a row of `look` with these further columns."""
    looked_at = datetime.now(UTC).replace(tzinfo=None)
    id = f"look-{study}-{looked_at:%Y%m%d-%H%M%S}-{uuid4().hex[:6]}"
    row = whole_row("look", {"look_id": id, "looked_at": looked_at, "study": study, **columns})
    land_rows(id, "look", {"look": [row]})


def land_dataset(data: Path) -> None:
    """Record a prepared dataset, once: its digest, and the sizes and digests of its sets."""
    dataset = DatasetManifest.read(data)
    id = f"dataset-{dataset.dataset_digest}"
    if is_landed(id):
        return

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
    land_rows(id, "dataset", {"dataset": [row], "dataset_set": sets})


def grid_digest(grid: Grid) -> str:
    """Digest of everything that a grid says, its overrides applied."""
    return short_digest(grid.model_dump(mode="json"))


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
        claim = grid.registration
        row = {
            "sweep_id": self.id,
            "study": grid.name,
            "grid": grid.name,
            "grid_digest": grid_digest(grid),
            "experiments": experiments,
            "started_at": started_at,
            "primary_claim": claim and canonical_json(claim),
            "primary_digest": claim and short_digest(claim),
        }
        self._row = whole_row("sweep", row)

    @property
    def ids(self) -> list[str]:
        """What it has made or found so far."""
        return sorted(self._ids)

    def begin(self) -> None:
        """Land the sweep before it evaluates anything: its primary claim is then fixed."""
        land_rows(self.id, "sweep", self._rows())

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

    def finish(self, failures: int, elsewhere: Sequence[tuple[float, float]] | None = None) -> None:
        """Land everything, with the end of the sweep.

        `elsewhere`: where its runs were processes of their own, the seconds of each, and of the
        processes of its steps.
        """
        if elsewhere is None:
            run_seconds = time.monotonic() - self._started
            elsewhere = [(run_seconds, step_seconds() - self._steps_before)]

        self._row |= {
            "failures": failures,
            "finished_at": datetime.now(UTC).replace(tzinfo=None),
            "run_seconds": sum(of_run for of_run, _ in elsewhere),
            "step_seconds": sum(of_steps for _, of_steps in elsewhere),
        }
        land_rows(self.id, "sweep", self._rows())

    def keep(self) -> None:
        """Write what is noted, for the next command to load: an interrupted sweep has little time."""
        if self._ids:
            with locked(_landing() / self.id, LANDING_SECONDS):
                write_landing(_landing(), self.id, "sweep", self._rows())
            (_landing() / WAITING).touch()

    def _rows(self) -> Rows:
        members = [{"sweep_id": self.id, "id": id} for id in sorted(self._ids)]
        return {"sweep": [self._row], "sweep_member": members}
