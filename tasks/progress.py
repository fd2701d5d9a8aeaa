"""Where a step's events go: the Prefect log, a progress artifact when a server keeps one, and whoever listens here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

Event = dict[str, Any]
ARTIFACT_SECONDS = 5.0
listeners: list[Callable[[str, Event], None]] = []


def tell(title: str, event: Event) -> None:
    """Give an event of the step `title` to every listener (the terminal display registers itself)."""
    for listener in listeners:
        listener(title, event)


def follow(title: str) -> Callable[[Event], None]:
    """An `on_event` callback for a step's child process."""
    artifact: UUID | None = None
    updated = 0.0

    def on_event(event: Event) -> None:
        nonlocal artifact, updated
        tell(title, event)
        _log(title, event)
        share = _share(event)
        if share is None or (share < 100 and time.monotonic() - updated < ARTIFACT_SECONDS):
            return
        updated = time.monotonic()
        with contextlib.suppress(
            Exception
        ):  # a picture of the progress; no reason to lose the training it shows
            if artifact is None:
                artifact = create_progress_artifact(
                    progress=share, key=artifact_key(title), description=title
                )  # type: ignore[assignment]
            else:
                update_progress_artifact(artifact_id=artifact, progress=share)

    return on_event


def artifact_key(title: str) -> str:
    """Prefect's artifact keys hold lower-case letters, digits and dashes only."""
    return "".join(c if c.isalnum() else "-" for c in title.lower()).strip("-")


def _share(event: Event) -> float | None:
    if event["event"] == "train":
        return float(100 * event["iteration"] / event["iterations"])
    if event["event"] == "progress" and event["of"]:
        return float(100 * event["done"] / event["of"])
    return None


def _log(title: str, event: Event) -> None:
    try:
        logger = get_run_logger()
    except MissingContextError:
        return
    kind = event["event"]
    if kind == "warning":
        logger.warning(event["message"])
    elif kind == "note":
        logger.info(event["message"])
    elif kind == "train":
        logger.info(
            "%s: iteration %d of %d, loss %.4f, %.0f tokens/s, %.0f s left", title, event["iteration"],
            event["iterations"], event["loss"], event["tokens_per_second"], event["seconds_left"],
        )  # fmt: skip
    elif kind == "valid":
        logger.info(
            "%s: validation %.4f, share ED %.2f, specificity %s",
            title,
            event["loss"],
            event["ed_share"],
            event["specificity"],
        )
        if event["always_ed"]:
            logger.warning("%s: always_ed, specificity is below 5 %%", title)
    elif kind == "device":
        logger.info(
            "%s: %s, BLAS %s, %.0f GFLOP/s", title, event["backend"], event["blas"], event["gflops"]
        )
