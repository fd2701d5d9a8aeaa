"""Flows and what people type. Prefect's settings are applied here, so before any module that
imports Prefect; and proxies of the user do not get what is for this machine, since Prefect's server
and its clients speak HTTP on 127.0.0.1.
"""

import contextlib
import os

from tasks.runtime.backend import is_mac
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home

# .local: a Mac on the same network, as in deployments/README.md
LOCAL = ("127.0.0.1", "localhost", ".local")
SCHEMES = ("http", "https")


def apply_settings() -> None:
    """Keep results with the study, and ask nobody for analytics. What the user has set stays."""
    # The commands that need a home say what is wrong with it.
    with contextlib.suppress(BadInput):
        os.environ.setdefault("PREFECT_RESULTS_LOCAL_STORAGE_PATH", str(home() / "results"))
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    # Prefect's default of 20 s is too short where the machine is busy.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    reach_this_machine_directly()


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


apply_settings()
