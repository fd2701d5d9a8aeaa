"""What `triage sweep --plan` says about time: the estimate by step, here and on other machines."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from flows.cli.terminal import print_line
from flows.plan import PlannedCell
from flows.plan_time import OTHERS, Machine, Steps, all_operations, assumed_speeds
from flows.report.figures import clock
from tasks.runtime.backend import backend
from tasks.spec import ExperimentSpec

FEWER_CASES = 300  # of the dropout passes, which the plan offers
WORTH_SAYING = 0.05  # of the whole time


def print_time(console: Console, cells: Sequence[PlannedCell], here: Machine | None) -> None:
    """Print the estimate by step. `here`: this machine as it was measured, None if it was not."""
    left = [cell for cell in cells if not cell.scored]
    if not left:
        return
    specs = [cell.spec for cell in left]
    trained = [cell.trained for cell in left]
    work = all_operations(specs, trained)
    assumed = Machine(f"this machine, not measured: assumed for {backend().name}", assumed_speeds())
    console.print(_table(work, here or assumed))

    saved = (
        work.dropout - all_operations([_with_fewer_cases(spec) for spec in specs], trained).dropout
    )
    speeds = (here or assumed).speeds or assumed_speeds()
    seconds = Steps(dropout=saved).at(speeds).total
    if seconds > WORTH_SAYING * work.at(speeds).total:
        line = f"time     --set scoring.mc_cases={FEWER_CASES} would save about {clock(seconds)}"
        print_line(
            console, f"{line} of {clock(work.at(speeds).total)}: dropout passes of fewer cases."
        )


def _table(work: Steps, here: Machine) -> Table:
    table = Table(title="About how long the rest takes", title_justify="left")
    for column in ("on", "preparing", "training", "scoring", "dropout passes", "all"):
        table.add_column(column, overflow="fold")
    for machine in (here, *OTHERS):
        if machine.speeds is None:
            table.add_row(machine.name, *["not measured"] * 5)
            continue
        seconds = work.at(machine.speeds)
        parts = (
            seconds.preparing,
            seconds.training,
            seconds.scoring,
            seconds.dropout,
            seconds.total,
        )
        table.add_row(machine.name, *map(clock, parts))
    return table


def _with_fewer_cases(spec: ExperimentSpec) -> ExperimentSpec:
    if spec.scoring.mc_cases != "all" and spec.scoring.mc_cases <= FEWER_CASES:
        return spec
    scoring = spec.scoring.model_copy(update={"mc_cases": FEWER_CASES})
    return spec.model_copy(update={"scoring": scoring})
