"""What all machines of a work pool have in common: the backend, and
the versions that decide results.

The first machine that joins a pool notes its own in a Prefect variable of the server. A pool of two
backends or versions would compare figures that differ for reasons other than the precision.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from functools import cache
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.runtime.backend import backend, versions
from tasks.runtime.shared import shared_folder

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PACKAGES = ("flows", "tasks", "warehouse", "deployments")
SOURCES = (".py", ".sql", ".toml")
Versions = dict[str, str]  # value by name: backend, triage, prefect, mlx, mlx-lm


@cache
def code_digest() -> str:
    """Twelve hexadecimal digits of this project's sources as they are installed here."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        root = Path(str(files(package)))
        for path in sorted(root.rglob("*")):
            if path.suffix in SOURCES and path.is_file():
                digest.update(f"{package}/{path.relative_to(root).as_posix()}".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())

    return digest.hexdigest()[:12]


def versions_here() -> Versions:
    """Those of this machine, and the folder that it shares. Raises BadInput where MLX is not
    installed, and NotShared.
    """
    own_versions = {"triage": code_digest(), "prefect": metadata.version("prefect")}
    if (shared := shared_folder()) is not None:
        own_versions["shared folder"] = shared.identity()
    return {"backend": backend().name, **own_versions, **versions()}


def read_versions(client: SyncPrefectClient, pool: str) -> Versions | None:
    """What the machines of a pool have noted; None if none has joined it yet."""
    variable = client.read_variable_by_name(_variable(pool))
    if variable is None or not isinstance(variable.value, dict):
        return None
    return {str(name): str(value) for name, value in variable.value.items()}


def first_versions(client: SyncPrefectClient, pool: str, local_versions: Versions) -> Versions:
    """What the machines of a pool have noted, which is `local_versions` if this machine is
    the first; two may come at once.
    """
    from prefect.client.schemas.actions import VariableCreate
    from prefect.exceptions import ObjectAlreadyExists

    noted = read_versions(client, pool)
    if noted is None:
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_variable(VariableCreate(name=_variable(pool), value=dict(local_versions)))
        noted = read_versions(client, pool)

    return noted or local_versions


def replace_versions(client: SyncPrefectClient, pool: str, local_versions: Versions) -> None:
    """Note the versions of a pool again, which no other machine serves any more."""
    from prefect.client.schemas.actions import VariableUpdate

    client.update_variable(VariableUpdate(name=_variable(pool), value=dict(local_versions)))


def differences(local_versions: Versions, of_pool: Versions) -> str:
    """In words what differs, e.g. `backend cpu here and metal there`; empty if nothing does."""
    names = [
        name
        for name in {**of_pool, **local_versions}
        if local_versions.get(name) != of_pool.get(name)
    ]
    parts = [
        f"{n} {local_versions.get(n, 'none')} here and {of_pool.get(n, 'none')} there"
        for n in names
    ]
    return ", ".join(parts)


def _variable(pool: str) -> str:
    return f"triage_pool_{re.sub('[^a-z0-9_]', '_', pool.lower())}"
