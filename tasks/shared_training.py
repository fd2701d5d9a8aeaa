"""Checkpoints, finished adapters and scores between this machine and the place that its fleet
shares, so that an experiment whose machine died goes on elsewhere.

    TRIAGE_SHARED/experiments/<training_id>         the adapter, its curve and its summary
    TRIAGE_SHARED/checkpoints/<training_id>         the newest checkpoint, until the training has ended
    TRIAGE_SHARED/scores/<scores_id>-<adapter>      what the adapter of this digest scored
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from tasks.runtime.errors import BrokenFolder, NotShared
from tasks.runtime.events import Emit, Note, StepWarning
from tasks.runtime.shared import SharedFolder
from tasks.runtime.store import intact_manifest, read_manifest, verify

EXPERIMENTS = "experiments"
CHECKPOINTS = "checkpoints"
SCORES = "scores"
LOOK_SECONDS = 5.0  # between two looks for a new checkpoint


@contextlib.contextmanager
def shared_training(shared: SharedFolder | None, folder: Path, emit: Emit) -> Iterator[None]:
    """Begin with what another machine has reached, and copy what this one reaches.

    `folder` is that of the training, which the block makes complete. Raises NotShared where its end
    cannot be copied; that a checkpoint cannot is a warning.
    """
    if shared is None:
        yield
        return

    bring_training(shared, folder, emit)
    with _mirrored(shared, folder, emit):
        yield

    if intact_manifest(folder) is not None:
        # In this order: until the adapter is there, the checkpoint is all that others have.
        shared.put(folder, f"{EXPERIMENTS}/{folder.name}")
        shared.remove(f"{CHECKPOINTS}/{folder.name}")


def bring_training(shared: SharedFolder, folder: Path, emit: Emit) -> None:
    """Bring the finished training from the shared place, or else its checkpoint if it is further
    than this machine's. A damaged one is left out, with a warning.
    """
    if intact_manifest(folder) is not None:
        return
    try:
        if shared.get(f"{EXPERIMENTS}/{folder.name}", folder):
            emit(Note(f"{folder.name} was trained on another machine, and is not trained again."))
            return
        shared_manifest = shared.manifest(f"{CHECKPOINTS}/{folder.name}")
        if shared_manifest is None or int(shared_manifest["update"]) <= _newest(folder)[0]:
            return
        update = int(shared_manifest["update"])
        shared.get(f"{CHECKPOINTS}/{folder.name}", folder / "checkpoint" / f"{update:07d}")
        emit(Note(f"Training goes on from update {update}, which another machine had reached."))
    except BrokenFolder as error:
        emit(StepWarning(f"What another machine reached is not used: {error}"))


@contextlib.contextmanager
def shared_scores(
    shared: SharedFolder | None, adapter: Path, folders: Iterable[Path], emit: Emit
) -> Iterator[list[Path]]:
    """The scores folders that the block has to make. Those that another machine has made with the
    same adapter are brought, and those that the block makes are copied.

    What cannot be brought or copied is a warning: it is only scored again.
    """
    missing = [folder for folder in folders if intact_manifest(folder, deep=True) is None]
    if shared is None or not missing:
        yield missing
        return

    # Two machines may have trained the same experiment, to adapters that differ in the last bits.
    of_adapter = verify(adapter, deep=False)["digest"][:12]
    names = {folder: f"{SCORES}/{folder.name}-{of_adapter}" for folder in missing}
    missing = [
        folder for folder in missing if not _bring_scores(shared, names[folder], folder, emit)
    ]
    yield missing

    try:
        for folder in missing:
            shared.put(folder, names[folder])
    except NotShared as error:
        emit(StepWarning(str(error)))


def _bring_scores(shared: SharedFolder, name: str, folder: Path, emit: Emit) -> bool:
    try:
        if not shared.get(name, folder):
            return False
    except (BrokenFolder, NotShared) as error:
        emit(StepWarning(f"Scores of another machine are not used: {error}"))
        return False

    emit(Note(f"{folder.name} was scored on another machine, and is not scored again."))
    return True


@contextlib.contextmanager
def _mirrored(shared: SharedFolder, folder: Path, emit: Emit) -> Iterator[None]:
    """Copy each new checkpoint while the block runs, in a thread: training does not wait for it."""
    end = threading.Event()

    def copy() -> None:
        copied_update = _newest(folder)[0]
        warned = False
        while not end.wait(LOOK_SECONDS):
            update, checkpoint = _newest(folder)
            if checkpoint is None or update <= copied_update:
                continue

            try:
                shared.replace(checkpoint, f"{CHECKPOINTS}/{folder.name}")
                copied_update = update
            except NotShared as error:
                if not warned and checkpoint.is_dir():
                    emit(StepWarning(str(error)))
                    warned = True
            except (BrokenFolder, OSError):  # a newer one has just taken its place
                continue

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()

    try:
        yield
    finally:
        end.set()
        thread.join()


def _newest(folder: Path) -> tuple[int, Path | None]:
    """The update of the newest checkpoint of a training, and its folder; (0, None) without one."""
    for path in sorted((folder / "checkpoint").glob("[0-9]*"), reverse=True):
        with contextlib.suppress(BrokenFolder):
            if read_manifest(path) is not None:
                return int(path.name), path
    return 0, None
