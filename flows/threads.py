"""The threads of a sweep: one for the steps that use the accelerator, and two beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner

# Prefect's own default has no bound: all trainings of a grid would run at once.
ONE_AT_A_TIME: Any = ThreadPoolTaskRunner(max_workers=1)  # of a flow: the accelerator's thread


@dataclass(frozen=True)
class ThreadsBeside:
    """Task runners of one thread each, for steps that need no accelerator.

    Weights are fetched while another model trains. Baselines and landings do not wait for a slow
    download, and so have a thread of their own.
    """

    downloads: Any
    results: Any


@contextmanager
def threads_beside() -> Iterator[ThreadsBeside]:
    """The threads, until the block has ended and their last step with it."""
    # Copies, since a task runner that was started cannot be started a second time.
    with ONE_AT_A_TIME.duplicate() as downloads, ONE_AT_A_TIME.duplicate() as results:
        yield ThreadsBeside(downloads, results)
