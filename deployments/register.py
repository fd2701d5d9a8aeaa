"""Registers the work pool and the deployments of `prefect.yaml` on a Prefect server.

Changes made in the UI stay. Prefect replaces all schedules of a deployment that is deployed with
schedules: one that was paused in the UI would run again, and one that was added there would be
gone. So only a new deployment gets the schedules of the file.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from deployments.prefect_api import prefect_client
from deployments.worker_names import refuse_other_workers
from deployments.workers import POOL
from tasks.runtime.errors import BadInput
from tasks.runtime.files import write_atomic
from tasks.runtime.home import home

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

FILE = Path(str(files("deployments"))) / "prefect.yaml"


def register(api: str, environment: dict[str, str]) -> None:
    """Create the pool and the deployments on the server at `api`.

    Raises BadInput with the log of what failed, or if workers of another TRIAGE_HOME serve the
    pool; NoAnswer.
    """
    with prefect_client(api) as client:
        if not _exists(client.read_work_pool, POOL):
            _run_prefect(["work-pool", "create", POOL, "--type", "process"], environment)
        # Before there are deployments, whose runs a worker of another home would take.
        refuse_other_workers(client, POOL)
        file = _deployments(client)
    _run_prefect(["deploy", "--all", "--prefect-file", str(file)], environment)


def _deployments(client: SyncPrefectClient) -> Path:
    """The file to deploy: `prefect.yaml`, or a copy without schedules of existing deployments."""
    definition: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    existing = [
        deployment
        for deployment in definition["deployments"]
        if _exists(client.read_deployment_by_name, _full_name(deployment))
    ]
    if not existing:
        return FILE

    for deployment in existing:
        deployment.pop("schedules", None)

    copy = home() / "prefect.yaml"
    write_atomic(copy, json.dumps(definition, indent=1))  # JSON is YAML
    return copy


def _full_name(deployment: dict[str, str]) -> str:
    """The name that Prefect gives: flow/deployment, e.g. `sweep/local`."""
    return f"{deployment['entrypoint'].rpartition('.')[2]}/{deployment['name']}"


def _exists(read: Callable[[str], object], name: str) -> bool:
    from prefect.exceptions import ObjectNotFound

    try:
        read(name)
    except ObjectNotFound:
        return False
    return True


def _run_prefect(arguments: list[str], environment: dict[str, str]) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    if process.returncode:
        log = home() / "logs" / "prefect-setup.log"
        write_atomic(log, process.stdout + process.stderr)
        raise BadInput(f"`prefect {' '.join(arguments[:2])}` failed; its output is in {log}.")
