"""Work pool and deployments on a Prefect server, where they are not there yet; what a person changed in the UI stays.

Prefect replaces all schedules of a deployment that is deployed with schedules: one that was paused in the UI would run
again, and one that was added there would be gone. So they are given to a new deployment only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from deployments.worker_names import refuse_other_workers
from tasks.runtime.errors import BadInput
from tasks.runtime.store import home, write_atomic

POOL = "triage"
FILE = Path(str(files("deployments"))) / "prefect.yaml"


def set_up(api: str, environment: dict[str, str]) -> None:
    """Create the pool and the deployments on the server at `api`. Raises BadInput with where to read what failed, or
    with the workers of others that serve the pool."""
    if not _is_there(f"{api}/work_pools/{POOL}"):
        _prefect(["work-pool", "create", POOL, "--type", "process"], environment)
    refuse_other_workers(api, POOL)
    _prefect(["deploy", "--all", "--prefect-file", str(_deployments(api))], environment)


def _deployments(api: str) -> Path:
    """The file to deploy: `prefect.yaml`, or a copy without the schedules of deployments that the server has."""
    wanted: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    known = [d for d in wanted["deployments"] if _is_there(f"{api}/deployments/name/{_name(d)}")]
    if not known:
        return FILE
    for deployment in known:
        deployment.pop("schedules", None)
    copy = home() / "prefect.yaml"
    write_atomic(copy, json.dumps(wanted, indent=1))  # JSON is YAML
    return copy


def _name(deployment: dict[str, Any]) -> str:
    """As Prefect names it: flow/deployment, e.g. `sweep/local`."""
    return f"{deployment['entrypoint'].rpartition('.')[2]}/{deployment['name']}"


def _is_there(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=20):
            return True
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return False
        raise BadInput(
            f"The Prefect server answered with an error ({error.code}) to {url}; look at its log."
        ) from error
    except OSError as error:
        raise BadInput(
            f"The Prefect server does not answer to {url} ({type(error).__name__}); look at its log."
        ) from error


def _prefect(arguments: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        log = home() / "logs" / "prefect-setup.log"
        write_atomic(log, done.stdout + done.stderr)
        raise BadInput(f"`prefect {' '.join(arguments[:2])}` failed; what it said is in {log}.")
