"""Proxies of the user, which must not get what is for this machine: Prefect's server and its clients
speak HTTP on 127.0.0.1.
"""

from __future__ import annotations

import os

from tasks.runtime.backend import is_mac

LOCAL = (
    "127.0.0.1",
    "localhost",
    ".local",
)  # .local: a Mac on the same network, as in deployments/README.md
SCHEMES = ("http", "https")


def reach_this_machine_directly() -> None:
    """Except this machine and its network from the proxies of the environment, if there are any.

    A Mac's proxies are in its system settings, from which httpx, and so Prefect, takes no
    exceptions: they are named in the environment, since a variable hides those settings.
    """
    if not is_mac() and not any(name.lower().endswith("_proxy") for name in os.environ):
        return

    from urllib.request import getproxies

    proxies = getproxies()
    if not any(proxies.get(scheme) or proxies.get("all") for scheme in SCHEMES):
        return

    for scheme in SCHEMES:
        if scheme in proxies:
            os.environ.setdefault(f"{scheme}_proxy", proxies[scheme])

    exceptions = [name.strip() for name in proxies.get("no", "").split(",") if name.strip()]
    if "*" in exceptions:
        return

    all_exceptions = ",".join(dict.fromkeys([*exceptions, *LOCAL]))
    os.environ["no_proxy"] = all_exceptions
    os.environ["NO_PROXY"] = all_exceptions
