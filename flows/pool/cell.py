"""One cell of a sweep in a work pool, as the parameter of the run that computes it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from uuid import UUID

import psutil
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict

from deployments.pool_versions import code_digest
from tasks.progress import listening
from tasks.runtime.children import step_seconds
from tasks.runtime.errors import BadInput
from tasks.runtime.events import Event, ExperimentFailed

LEASE_SECONDS = 60.0  # after which a cell whose machine is gone may run elsewhere; 60 is the least
LANDED = "triage.landed"  # labels of a run: ids of results and of models, class of the error
MODELS = "triage.models"
ERROR = "triage.error"
RUN_SECONDS = "triage.run_seconds"  # of its process, until it labels itself
STEP_SECONDS = "triage.step_seconds"


class PooledCell(BaseModel):
    """What a machine needs to know of the sweep.

    `key`: names sweep and cell. `triage`: the digest of the sweep's code. `precisions`: those of
    the sweep's experiments on the same base model.
    """

    model_config = ConfigDict(frozen=True)

    cell: str
    key: str
    grid_digest: str
    triage: str
    precisions: list[str]

    def refuse_other(self, grid_digest: str) -> None:
        """Raise BadInput where this machine's code or grid is not that of the sweep."""
        if self.triage != code_digest():
            raise BadInput(
                f"This machine's triage is {code_digest()} and the sweep's is {self.triage}; bring "
                "both to one version, run `triage join` again, and then the sweep."
            )
        if self.grid_digest != grid_digest:
            raise BadInput(
                "The grid on this machine is not the one that the sweep began with: it was edited "
                "meanwhile, or another file is at its path here; run the sweep again."
            )


@contextlib.contextmanager
def leased(key: str) -> Iterator[None]:
    """Hold the lease of a cell, so that no two machines compute it at once; waits for it.

    A slot of a Prefect limit that is made for it, since a limit that does not exist is no limit.
    A machine that can no longer renew it, being cut off, goes on: its results are as good.
    """
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(key, 1)
    with concurrency(
        key, lease_duration=LEASE_SECONDS, strict=True, raise_on_lease_renewal_failure=False
    ):
        yield


def label_results(
    ids: Iterable[str] = (), models: Iterable[str] = (), error: Exception | None = None
) -> None:
    """Note on the current run what has landed and how long it took,
    for the sweep that waits for it.
    """
    # Every label each time: the server merges them, and an earlier attempt may have left its error.
    labels: dict[str, bool | int | float | str] = {
        LANDED: " ".join(ids),
        MODELS: " ".join(models),
        ERROR: type(error).__name__ if error else "",
        RUN_SECONDS: time.time() - psutil.Process().create_time(),
        STEP_SECONDS: step_seconds(),
    }
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(UUID(str(flow_run.id)), labels)


@contextlib.contextmanager
def noted_errors() -> Iterator[list[Exception]]:
    """The errors of the experiments that fail while the block runs."""
    errors: list[Exception] = []

    def on_event(title: str, event: Event) -> None:
        if isinstance(event, ExperimentFailed):
            errors.append(event.error)

    with listening(on_event):
        yield errors
