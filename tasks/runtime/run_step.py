"""Runs the child process of a step, again if it is lost: a kill from outside uses
up no retry of the step's task.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.runtime.children import Arguments, run_child
from tasks.runtime.errors import LostChild, TookTooLong
from tasks.runtime.events import Emit, StepWarning

LOSSES = 3  # in a row, without progress between them, after which the step fails


def run_step(
    function: str,
    args: Arguments,
    folder: Path,
    on_event: Emit,
    at_most: float | None = None,
    *,
    memory_budget: int | None = None,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """`run_child`, run again with a warning where the child was lost, LOSSES times.

    Where `progress()`, such as the newest checkpoint, has changed since the last loss, the count
    starts over. Raises what `run_child` raises; a child that took longer than `at_most` seconds is
    not run again here.
    """
    losses = 0
    last_progress = progress()
    while True:
        try:
            return run_child(
                function, args, folder, on_event, memory_budget=memory_budget, at_most=at_most
            )
        # Before LostChild, which it is too.
        except TookTooLong:
            raise
        except LostChild as error:
            new_progress = progress()
            losses = losses + 1 if new_progress == last_progress else 1
            last_progress = new_progress
            if losses > LOSSES:
                raise
            on_event(StepWarning(f"{error} It is started again."))
