"""`triage join` and `triage fleet`: the options of the commands."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from flows.cli.terminal import console, print_line

Url = Annotated[str, typer.Argument(help="the fleet's server, e.g. http://192.168.1.20:4200")]
Pool = Annotated[str, typer.Option(metavar="NAME", help="the work pool; made if it is missing")]


def join(url: Url, pool: Pool = "fleet") -> None:
    """Check this machine, and let it work for the sweeps of a pool, until Ctrl-C."""
    from deployments.fleet import api_of

    api = api_of(url)
    os.environ["PREFECT_API_URL"] = api  # before Prefect is imported

    from deployments.fleet import enter
    from deployments.fleet import join as work
    from flows.cli.doctor_report import examine_worker
    from tasks.runtime.errors import BadInput
    from tasks.runtime.home import check_home

    check_home()
    enter(api, pool)
    if examine_worker(console):
        raise BadInput("This machine is not ready; see the errors above, and join again.")
    work(api, pool, lambda line: print_line(console, line))
