"""`triage join`: this machine works for a Prefect work pool until it is interrupted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING

from deployments.awake import kept_awake
from deployments.interruptions import ignore_interruptions, interrupted_by_signals
from deployments.lost_runs import end_runs, queue_lost_runs
from deployments.pool_names import check_pool_name
from deployments.pool_versions import differences, first_versions, replace_versions, versions_here
from deployments.prefect_api import (
    REQUEST_SECONDS,
    NoAnswer,
    answering,
    prefect_client,
    server_version,
)
from deployments.started_processes import end_leftovers
from deployments.worker_names import online_workers, worker_name
from deployments.workers import JOIN, POOL, Queue, Worker, worker_environment
from tasks.runtime.errors import BadInput, Locked
from tasks.runtime.home import home
from tasks.runtime.locks import locked
from tasks.runtime.store import remove_all_abandoned

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

POLL_SECONDS = 1.0
Say = Callable[[str], None]


def api_of(url: str) -> str:
    """The address of the API of the server at `url`, e.g. http://192.168.1.20:4200.

    Raises BadInput if it is no address.
    """
    if not url.startswith(("http://", "https://")):
        raise BadInput(f"{url!r} is no address of a server; give e.g. http://192.168.1.20:4200.")
    return url.rstrip("/").removesuffix("/api") + "/api"


def enter(api: str, pool: str) -> None:
    """Make the pool if it is missing, and note or compare its versions.

    Raises BadInput for a name that no pool can have, and where the server or the pool has other
    versions than this machine, or cannot be used.
    """
    check_pool_name(pool)
    if pool == POOL:
        raise BadInput(f"The work pool {POOL} is that of `triage up`; choose another --pool.")
    with answering(api):
        _refuse_other_server(api)
        with prefect_client(api, retries=5) as client:
            _make_pool(client, pool)
            local_versions = versions_here()
            unequal = differences(local_versions, first_versions(client, pool, local_versions))
            # The versions of a pool that nobody else serves any more bind nobody.
            if unequal and _other_workers(client, pool):
                raise BadInput(
                    f"This machine cannot join the work pool {pool}: {unequal}; bring both to one "
                    "version, or choose another --pool."
                )

            if unequal:
                replace_versions(client, pool, local_versions)


def join(api: str, pool: str, say: Say) -> None:
    """Enter the pool and work for it. What runs at an interruption goes on elsewhere.

    Raises BadInput as `enter`, and where this home works for the pool already.
    """
    enter(api, pool)
    try:
        with interrupted_by_signals(), locked(home() / f"join-{pool}"), kept_awake():
            _work(api, pool, say)
    except Locked:
        raise BadInput(
            f"This TRIAGE_HOME works for the pool {pool} already; stop that `triage join` first."
        ) from None
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # the terminal may be gone
            say("Left the pool. What was running here goes on with another machine.")


def _work(api: str, pool: str, say: Say) -> None:
    # The flow runs of a worker are processes of their own, which outlive it.
    if end_leftovers(home(), JOIN):
        end_runs(api, home())

    remove_all_abandoned(home())
    worker = Worker(Queue(None, limit=1, pool=pool), api, worker_environment(api), say)
    say(f"Works for the pool {pool} of {api}. Leave it with Ctrl-C.")

    try:
        while True:
            try:
                worker.keep()
            except NoAnswer:  # the worker, too, waits for the server
                time.sleep(POLL_SECONDS)
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        ignore_interruptions()
        # The worker first, or it would take again what is queued below; then the runs, since a run
        # counts as lost only when its process is gone.
        worker.kill()
        end_runs(api, home())
        with contextlib.suppress(NoAnswer):
            queue_lost_runs(api, pool, None)
        raise
    finally:
        worker.close()


def _refuse_other_server(api: str) -> None:
    version = server_version(api, REQUEST_SECONDS)
    own_version = metadata.version("prefect")
    if version != own_version:
        raise BadInput(
            f"The server at {api} is Prefect {version}, and this machine has {own_version}; "
            "install one version on all machines."
        )


def _make_pool(client: SyncPrefectClient, pool: str) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    # As `prefect work-pool create` does: through the API alone the template would be empty.
    template = ProcessWorker.get_default_base_job_template()
    with contextlib.suppress(ObjectAlreadyExists):
        client.create_work_pool(
            WorkPoolCreate(name=pool, type="process", base_job_template=template)
        )


def _other_workers(client: SyncPrefectClient, pool: str) -> list[str]:
    """Names of the other workers that serve the pool now."""
    return [name for name in online_workers(client, pool) if name != worker_name()]
