"""Where a step's events go: the Prefect log, a progress artifact if a server keeps one, and the
listeners.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from tasks.runtime.events import (
    Device,
    Emit,
    Event,
    Note,
    ProgressReport,
    StepWarning,
    TrainingReport,
    ValidationReport,
)

ARTIFACT_SECONDS = 5.0
REQUEST_SECONDS = 2.0
listeners: list[Callable[[str, Event], None]] = []


@contextlib.contextmanager
def listening(on_event: Callable[[str, Event], None]) -> Iterator[None]:
    """Give every event to `on_event`, too, while the block runs."""
    listeners.append(on_event)
    try:
        yield
    finally:
        listeners.remove(on_event)


def publish(title: str, event: Event) -> None:
    """Give an event of the step `title` to every listener (the terminal display registers itself)."""
    for listener in listeners:
        listener(title, event)


def publisher(title: str, stays: bool = False) -> Emit:
    """An `emit` for the step `title`: to the listeners, the Prefect log and a progress artifact, which
    may stay once it is full.
    """
    artifact = ProgressArtifact(title, stays)

    def emit(event: Event) -> None:
        publish(title, event)
        _log(title, event)
        match event:
            case TrainingReport():
                artifact.show(100 * event.iteration / event.iterations)
            case ProgressReport() if event.of:
                artifact.show(100 * event.done / event.of)

    return emit


class ProgressArtifact:
    """A progress bar in the Prefect UI, updated at most every ARTIFACT_SECONDS.

    Unless it `stays`, it is removed once it is full: of a sweep's artifacts all but the results would
    be bars of finished steps. That of a step that fails stays where it was. A step waits no longer
    than REQUEST_SECONDS for a server that does not answer, as that of a machine that is cut off.
    """

    def __init__(self, title: str, stays: bool = False) -> None:
        self.title = title
        self.stays = stays
        # Prefect's artifact keys hold lower-case letters, digits and dashes only.
        self.key = "".join(c if c.isalnum() else "-" for c in title.lower()).strip("-")
        self.id: UUID | None = None
        self.updated = 0.0
        self._request: threading.Thread | None = None
        self._one_at_a_time = threading.Lock()

    def show(self, percent: float) -> None:
        waits = self._request is not None and self._request.is_alive()
        if percent < 100 and (waits or time.monotonic() - self.updated < ARTIFACT_SECONDS):
            return

        self.updated = time.monotonic()
        context = contextvars.copy_context()  # Prefect's, of the run
        self._request = threading.Thread(
            target=context.run, args=(self._send, percent), daemon=True
        )
        self._request.start()
        self._request.join(REQUEST_SECONDS)

    def _send(self, percent: float) -> None:
        # A picture of the progress is no reason to lose the training that it shows.
        with self._one_at_a_time, contextlib.suppress(Exception):
            is_removed = percent >= 100 and not self.stays
            if self.id is None and not is_removed:
                created: Any = create_progress_artifact(
                    progress=percent, key=self.key, description=self.title
                )
                self.id = created
            elif self.id is not None and is_removed:
                id = self.id
                self.id = None
                with get_client(sync_client=True) as client:
                    client.delete_artifact(id)
            elif self.id is not None:
                update_progress_artifact(artifact_id=self.id, progress=percent)


def _log(title: str, event: Event) -> None:
    try:
        logger = get_run_logger()
    except MissingContextError:
        return
    match event:
        case StepWarning():
            logger.warning(event.message)
        case Note():
            logger.info(event.message)
        case TrainingReport():
            logger.info(
                f"{title}: iteration {event.iteration} of {event.iterations}, loss {event.loss:.4f}, "
                f"{event.tokens_per_second:.0f} tokens/s, {event.seconds_left:.0f} s left"
            )
        case ValidationReport():
            logger.info(
                f"{title}: validation {event.loss:.4f}, share ED {event.ed_share:.2f}, "
                f"specificity {event.specificity}"
            )
            if event.always_ed:
                logger.warning(f"{title}: always_ed, specificity is below 5 %")
        case Device():
            logger.info(f"{title}: {event.backend}, {event.products}, {event.gflops:.0f} GFLOP/s")
