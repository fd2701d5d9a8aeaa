"""The training step seen from outside: runs the child, and halves the micro-batch when memory runs out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from tasks.runtime.child import run_child
from tasks.runtime.device import total_memory
from tasks.runtime.errors import OutOfMemory
from tasks.runtime.events import Emit, StepWarning
from tasks.runtime.store import complete
from tasks.spec import ExperimentSpec
from tasks.tuning.memory import Choice, after_out_of_memory, budget

JOB = "tasks.tuning.job:run"


def train_experiment(
    spec: ExperimentSpec,
    folder: Path,
    variant: Path,
    data: Path,
    home: Path,
    on_event: Emit,
) -> str:
    """Train into `folder` unless it is complete, and return the training id (the folder's name).

    A child that is killed while it holds nearly all that it may take is out of memory: it is tried again with less, until
    nothing smaller is left.
    """
    most = min(budget(spec), total_memory())
    choice: Choice | None = None
    while complete(folder, deep=True) is None:
        args = {
            "experiment": spec.model_dump(mode="json"), "training_id": folder.name, "variant": str(variant),
            "data": str(data), "home": str(home), "folder": str(folder), "choice": choice and asdict(choice),
        }  # fmt: skip
        try:
            run_child(JOB, args, folder, on_event, memory_budget=most)
        except OutOfMemory:
            if (choice := after_out_of_memory(choice, folder)) is None:
                raise
            how = " and checkpointed blocks" if choice.checkpointing else ""
            message = f"Out of memory: trying again with micro-batch {choice.micro_batch}{how}."
            on_event(StepWarning(message))
    return folder.name
