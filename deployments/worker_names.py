"""Workers of a Prefect server by name: ours tells the TRIAGE_HOME that it works in, so that no two homes share a pool.

In one pool, runs would land in the home whose worker happens to take them. The name ends in an id that is kept in the
home: two machines may have it at the same path, and a laptop's host name changes with its network.
"""

from __future__ import annotations

import re
import secrets
import socket

from deployments.prefect_api import post
from tasks.runtime.errors import BadInput
from tasks.runtime.store import home, write_atomic

_NAME = re.compile(r"triage-(?P<host>.+)-(?P<home>[0-9a-f]{12})")


def worker_name() -> str:
    return f"triage-{socket.gethostname()}-{_home_id()}"


def refuse_other_workers(api: str, pool: str) -> None:
    """Raise BadInput if a worker that is not of this TRIAGE_HOME serves `pool` on the server at `api`."""
    if others := other_workers(api, pool):
        raise BadInput(
            f"Runs of this TRIAGE_HOME could land in another one, since the work pool {pool} of {api} is served by "
            f"{', '.join(others)}; choose another port with --port, or stop that worker and wait two minutes."
        )


def other_workers(api: str, pool: str) -> list[str]:
    """Names of the workers that serve `pool` now, or did some 90 seconds ago, and are not of this TRIAGE_HOME."""
    workers = post(f"{api}/work_pools/{pool}/workers/filter", {})
    return [w["name"] for w in workers if w["status"] == "ONLINE" and not _is_ours(w["name"])]


def is_elsewhere(worker: str, others: list[str]) -> bool:
    """Whether what a worker took is surely not of this machine: it is one of the `others`, which serve the pool now, or
    has the name of another home on another machine. Other names tell nothing."""
    parts = _NAME.fullmatch(worker)
    return worker in others or (
        parts is not None and not _is_ours(worker) and parts["host"] != socket.gethostname()
    )


def _is_ours(worker: str) -> bool:
    parts = _NAME.fullmatch(worker)
    return parts is not None and parts["home"] == _home_id()


def _home_id() -> str:
    """Twelve hexadecimal digits of this TRIAGE_HOME, drawn when they are first asked for."""
    file = home() / "home-id"
    if not file.exists():
        write_atomic(file, secrets.token_hex(6))
    return file.read_text(encoding="utf-8")
