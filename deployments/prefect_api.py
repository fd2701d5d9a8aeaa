"""Asks a Prefect server: for its version, before one is used and to see whether one answers, and for what it holds."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from importlib import metadata
from typing import Any

from tasks.runtime.findings import Finding

SECONDS = 3.0


class NoVersion(Exception):
    """No Prefect server tells its version there. `status`: the HTTP status, where a web server answered."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


def server_version(url: str) -> str:
    """Version of the Prefect server whose API is at `url`, e.g. http://127.0.0.1:4200/api. Raises NoVersion."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/admin/version", timeout=SECONDS) as answer:
            return str(json.load(answer))
    except urllib.error.HTTPError as error:
        raise NoVersion(f"status {error.code}", error.code) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NoVersion(str(getattr(error, "reason", error))) from error


def post(url: str, body: dict[str, Any]) -> Any:
    """What a Prefect server answers to a request with a body. Raises OSError or HTTPException if it does not."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def check_prefect_server() -> list[Finding]:
    """The server that PREFECT_API_URL, or Prefect's own settings, name."""
    from prefect.settings import PREFECT_API_URL

    url, ours = PREFECT_API_URL.value(), metadata.version("prefect")
    if not url:
        return [
            Finding(
                "Prefect",
                "ok",
                "no server is set (PREFECT_API_URL): a sweep starts its own while it runs",
            )
        ]
    try:
        version = server_version(url)
    except NoVersion as error:
        if error.status is not None:
            remedy = "check its address and your credentials, if sweeps do not appear there"
            return [
                Finding("Prefect", "warning", f"{url} does not tell its version ({error})", remedy)
            ]
        remedy = "start it with `triage up`, or unset PREFECT_API_URL to do without"
        return [Finding("Prefect", "error", f"no server answers at {url} ({error})", remedy)]
    if version != ours:
        remedy = f"stop that server and start one of this version with `triage up`, or use Prefect {version} here"
        return [
            Finding(
                "Prefect",
                "error",
                f"the server at {url} is {version}, this project's is {ours}",
                remedy,
            )
        ]
    return [Finding("Prefect", "ok", f"server {version} at {url}")]
