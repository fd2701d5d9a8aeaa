"""What `triage sweep --plan` says about time: the estimate by step, here and on other machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace

from rich.console import Console
from rich.table import Table

from flows.cli.terminal import print_line
from flows.plan import PlannedCell, work_left
from flows.plan_time import NOT_MEASURED, OTHERS, MachineSpeeds, Steps
from flows.report.figures import clock
from tasks.spec import ExperimentSpec, Grid

FEWER_CASES = 300  # of the dropout passes, which the plan offers
WORTH_SAYING = 0.05  # of the whole time


def print_time(
    console: Console, grid: Grid, cells: Sequence[PlannedCell], this_machine: MachineSpeeds
) -> None:
    """Print the estimate by step, if anything is left to do. `this_machine`: this machine."""
    if all(cell.scored for cell in cells):
        return

    work = work_left(grid, cells)
    console.print(_table(work, this_machine))

    fewer = [replace(cell, spec=_with_fewer_cases(cell.spec)) for cell in cells]
    saved = Steps(dropout=work.dropout - work_left(grid, fewer).dropout)
    seconds = saved.at(this_machine.speeds).total
    total = work.at(this_machine.speeds).total
    if seconds > WORTH_SAYING * total:
        line = f"time     --set scoring.mc_cases={FEWER_CASES} would save about {clock(seconds)}"
        print_line(console, f"{line} of {clock(total)}: dropout passes of fewer cases.")


def _table(work: Steps, this_machine: MachineSpeeds) -> Table:
    table = Table(title="About how long the rest takes", title_justify="left")
    for column in ("on", "preparing", "training", "scoring", "dropout passes", "all"):
        table.add_column(column, overflow="fold")

    for machine in (this_machine, *OTHERS):
        seconds = work.at(machine.speeds)
        table.add_row(machine.name, *map(clock, (*astuple(seconds), seconds.total)))

    for name in NOT_MEASURED:
        table.add_row(name, *["not measured"] * 5)
    return table


def _with_fewer_cases(spec: ExperimentSpec) -> ExperimentSpec:
    if spec.scoring.mc_cases != "all" and spec.scoring.mc_cases <= FEWER_CASES:
        return spec
    scoring = spec.scoring.model_copy(update={"mc_cases": FEWER_CASES})
    return spec.model_copy(update={"scoring": scoring})
