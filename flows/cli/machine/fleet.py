"""`triage join` and `triage fleet`: the options of the commands."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.table import Table

from flows.cli.terminal import console, print_line
from flows.report.figures import clock

Url = Annotated[str, typer.Argument(help="the fleet's server, e.g. http://192.168.1.20:4200")]
Pool = Annotated[str, typer.Option(metavar="NAME", help="the work pool; made if it is missing")]


Install = Annotated[
    bool, typer.Option("--install", help="write a unit file that joins at every start, and stop")
]


def join(url: Url, pool: Pool = "fleet", install: Install = False) -> None:
    """Check this machine, and let it work for the sweeps of a pool, until Ctrl-C."""
    from deployments.fleet import api_of

    api = api_of(url)
    os.environ["PREFECT_API_URL"] = api  # before Prefect is imported

    from deployments.fleet import enter
    from deployments.fleet import join as work
    from flows.cli.doctor import examine_worker
    from tasks.runtime.errors import BadInput
    from tasks.runtime.home import check_home

    check_home()
    enter(api, pool)
    if examine_worker(console):
        raise BadInput("This machine is not ready; see the errors above, and join again.")
    if install:
        from deployments.fleet_units import install as write_unit

        unit = write_unit(api, pool)
        print_line(console, f"Written to {unit.path}; start it with: {'; '.join(unit.commands)}")
        return

    work(api, pool, lambda line: print_line(console, line))


def fleet() -> None:
    """Show the machines of the work pools: what they do, and when they were last heard of."""
    from deployments.fleet_status import machines
    from deployments.prefect_api import configured_api

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for column in ("pool", "machine", "state", "last heartbeat", "runs"):
        table.add_column(column, overflow="fold")

    fleet_machines = machines(configured_api())
    for machine in fleet_machines:
        heard = "" if machine.seconds is None else f"{clock(machine.seconds)} ago"
        state = "online" if machine.is_online else "offline"
        style = None if machine.is_online else "dim"
        table.add_row(
            machine.pool, machine.host, state, heard, ", ".join(machine.runs), style=style
        )

    if not fleet_machines:
        print_line(console, "No machine has joined a pool; type `triage join URL` on one.")
        return

    console.print(table)
