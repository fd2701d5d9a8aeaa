"""Talks to a Prefect server by Prefect's own client: its version, and whether a sweep can use it.

Prefect is imported by the functions that need it: a sweep starts its temporary server while it
imports Prefect.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

from tasks.runtime.backend import is_mac
from tasks.runtime.errors import BadInput, Finding

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

HOST = "127.0.0.1"
SERVER_AUTH = "PREFECT_SERVER_API_AUTH_STRING"  # user:password, which a server asks for
ORIGINS = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"  # of the pages that a server answers
SECONDS = 3.0  # a server that takes longer to give its version does not answer
REQUEST_SECONDS = 20.0  # a server that is busy with runs may take longer than that
CONNECT_ATTEMPTS = 4  # the client's, of which each may take its part of the time


class NoAnswer(Exception):
    """A Prefect server does not answer, or not as one.

    `status`: the HTTP status, where a web server answered.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


def api_url(port: int) -> str:
    """The address of the API of a server on this machine."""
    return f"http://{HOST}:{port}/api"


def is_open(port: int) -> bool:
    """Whether a program listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((HOST, port)) == 0


@contextlib.contextmanager
def prefect_client(
    api: str, seconds: float | None = None, retries: int = 0
) -> Iterator[SyncPrefectClient]:
    """Prefect's client of the server at `api`, with credentials and certificates of the settings.

    Its requests fail after `seconds` (REQUEST_SECONDS) and are repeated `retries` times, which may
    take a minute. Raises NoAnswer.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    limit = seconds or REQUEST_SECONDS
    timeout = httpx.Timeout(limit, connect=limit / CONNECT_ATTEMPTS)

    try:
        with (
            temporary_settings({PREFECT_API_URL: api, PREFECT_CLIENT_MAX_RETRIES: retries}),
            get_client(sync_client=True, httpx_settings={"timeout": timeout}) as client,
        ):
            yield client
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        raise NoAnswer(f"status {status}", status) from error
    # A ValueError is an answer that is no JSON, or not one of Prefect's.
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise NoAnswer(str(error) or type(error).__name__) from error


def configured_api() -> str:
    """The address of the API that Prefect's settings name, e.g. PREFECT_API_URL.

    Raises BadInput if none is set.
    """
    from prefect.settings import PREFECT_API_URL

    api = PREFECT_API_URL.value()
    if not api:
        raise BadInput(
            "A work pool needs a Prefect server, and none is set; set PREFECT_API_URL to its "
            "address, e.g. http://192.168.1.20:4200/api."
        )

    return str(api)


@contextlib.contextmanager
def answering(api: str) -> Iterator[None]:
    """Turn NoAnswer into a sentence that says what to check."""
    try:
        yield
    except NoAnswer as error:
        if error.status in (401, 403):
            raise BadInput(
                f"The Prefect server at {api} refuses the request (status {error.status}); set "
                "PREFECT_API_AUTH_STRING to the user and password with which it was started."
            ) from error
        raise BadInput(
            f"No Prefect server answers at {api} ({error}); start one with `triage up`, or correct "
            f"the address{_privacy_of_a_mac(error)}."
        ) from error


def _privacy_of_a_mac(error: NoAnswer) -> str:
    """What else to check on a Mac: since macOS 15 it refuses the local network in these words to a
    program that nobody has allowed it, such as an agent of launchd.
    """
    if not is_mac() or "No route to host" not in str(error):
        return ""
    return (
        "; or macOS keeps this program from the local network: allow it under System Settings > "
        "Privacy & Security > Local Network, or run it from Terminal"
    )


def server_version(api: str) -> str:
    """Version of the Prefect server whose API is at `api`, e.g. http://127.0.0.1:4200/api.

    Raises NoAnswer, also if it takes longer than SECONDS.
    """
    with prefect_client(api, SECONDS) as client:
        return str(client.api_version())


def refuse_unusable_server() -> None:
    """Raise BadInput, with the remedy, where the configured server cannot be used."""
    for finding in check_prefect_server():
        if finding.level == "error":
            raise BadInput(
                f"The Prefect server cannot be used: {finding.detail}; {finding.remedy}."
            )


def check_prefect_server() -> list[Finding]:
    """Whether the server that PREFECT_API_URL or Prefect's other settings name can be used."""
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        detail = "no server is set (PREFECT_API_URL): a sweep starts its own while it runs"
        return [Finding("Prefect", "ok", detail)]

    try:
        version = server_version(url)
    except NoAnswer as error:
        if error.status is None:
            remedy = "start it with `triage up`, or unset PREFECT_API_URL to do without"
            remedy += _privacy_of_a_mac(error)
            return [Finding("Prefect", "error", f"no server answers at {url} ({error})", remedy)]
        detail = f"{url} does not give its version ({error})"
        remedy = "check its address and your credentials, if sweeps do not appear there"
        return [Finding("Prefect", "warning", detail, remedy)]

    own_version = metadata.version("prefect")
    if version == own_version:
        return [Finding("Prefect", "ok", f"server {version} at {url}")]

    detail = f"the server at {url} is {version}, this project's is {own_version}"
    remedy = (
        "stop that server and start one of this version with `triage up`, "
        f"or use Prefect {version} here"
    )
    return [Finding("Prefect", "error", detail, remedy)]
