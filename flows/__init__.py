"""Flows and what people type. Prefect's settings are applied here, so before any module that
imports Prefect.
"""

import contextlib
import os

from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.runtime.proxies import reach_this_machine_directly


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


apply_settings()
