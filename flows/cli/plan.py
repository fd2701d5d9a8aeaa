"""What `triage sweep --plan` prints: what would run, from where the weights come, time and disk, and
what the seeds and the test set can conclude.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from deployments.interruptions import interrupted_by_signals
from flows.cli.terminal import print_line
from flows.plan import (
    PlannedCell,
    Steps,
    estimated_bytes,
    plan_cells,
    planned_cases,
    set_sizes,
    this_machine,
    work_left,
)
from flows.power import print_power
from flows.report.figures import RANDOM, clock, counted
from flows.selection import Selection
from tasks.models.manifest import has_random_weights
from tasks.models.sources.fetch import availabilities, is_offered, stored, unpinned
from tasks.runtime.backend import backend
from tasks.runtime.home import existing_home, home
from tasks.spec import BaseModelSpec
from tasks.tuning.memory import DiskSpace

MOST_ROWS = 20  # experiments on a terminal, beyond which it has a row for each variant
FEWER_CASES = 300  # of the dropout passes, which the plan offers
WORTH_SAYING = 0.05  # of the whole time


def print_plan(console: Console, selection: Selection) -> None:
    """Print the state of each experiment, the sources of weights, and estimates of time and disk."""
    # A closed terminal must leave no texts behind.
    with interrupted_by_signals(), planned_cases(selection) as cases:
        machine, speeds = this_machine()
        sizes = set_sizes(selection.grid, cases)
        cells = plan_cells(selection, cases, speeds)
        console.print(_cells(selection, cells, console.is_terminal))

        sources = availabilities(selection.models, home())
        for name, source_states in sources.items():
            for source, state in source_states:
                print_line(console, f"weights  {name}: {source}: {state}")
        for model in selection.models:
            for note in unpinned(model):
                print_line(console, f"weights  {model.name}: {note}")

        counts = ", ".join(f"{name} {count:,}" for name, count in sizes.items())
        is_guess = cases is None and selection.grid.data.source != "embedded"
        print_line(console, f"cases    {counts}{' (not counted yet)' if is_guess else ''}")
        for line in _time_and_disk(selection, cells, sizes, machine, speeds):
            style = "yellow" if "not enough room" in line else None
            print_line(console, line, style)
        if claim := selection.grid.primary_claim:
            print_line(
                console,
                f"primary  {claim.base_model} {claim.recipe}, {' against '.join(claim.sides)}, seeds "
                f"{', '.join(map(str, claim.seeds or ()))}: {' and '.join(claim.figures)}, margin "
                f"{claim.margin:g}; it lands when the sweep starts, as {claim.digest}",
            )
        print_power(console, selection, cases)

        # Last of all, since a sweep could not train these.
        needed_models = {cell.spec.model.name for cell in cells if not cell.trained}
        missing = [
            name
            for name in sources.keys() & needed_models
            if not any(is_offered(state) for _, state in sources[name])
        ]
        if missing:
            print_line(
                console,
                f"No source of {', '.join(sorted(missing))} answers now: try again, connect to a "
                "network, or list a source with kind = 'folder' in the grid.",
                style="yellow",
            )


def _cells(selection: Selection, cells: Sequence[PlannedCell], is_terminal: bool) -> Table:
    """A row for each experiment, or for each variant where a terminal has no room for them."""
    by_variant = is_terminal and len(cells) > MOST_ROWS
    marks = {model.name: RANDOM for model in selection.models if _is_random(model)}
    rows: dict[str, list[PlannedCell]] = {}
    for cell in cells:
        spec = cell.spec
        name = f"{spec.model.name} {spec.precision.name}" if by_variant else spec.cell_id
        rows.setdefault(name + marks.get(spec.model.name, ""), []).append(cell)

    title = f"Grid {selection.grid.name}"
    if by_variant:
        title += "; a row for each experiment stands in a file or a pipe"
    table = Table(title=title, title_justify="left")
    for column in ("variant" if by_variant else "experiment", "state", "about"):
        table.add_column(column, overflow="fold", no_wrap=column == "about")

    for name, part in rows.items():
        counts = Counter(cell.state for cell in part)
        states = [f"{count} {state}" if by_variant else state for state, count in counts.items()]
        seconds = sum(cell.seconds for cell in part)
        table.add_row(name, ", ".join(states), clock(seconds) if seconds else "")

    return table


def _is_random(model: BaseModelSpec) -> bool:
    """Whether the weights on this machine, or else all that the sources offer, are random."""
    if folder := stored(model, home()):
        return has_random_weights(folder)
    return all(source.kind == "random" for source in model.sources)


def _time_and_disk(
    selection: Selection,
    cells: Sequence[PlannedCell],
    sizes: dict[str, int],
    machine: str,
    speeds: Steps,
) -> Iterator[str]:
    states = Counter(cell.state for cell in cells)
    to_train = states["to train"]
    operations, cache_bytes, cache_saves = work_left(selection, cells, sizes)
    seconds = operations.at(speeds)
    mark = f" on {backend().name} (experimental)" if backend().experimental else ""
    yield (
        f"{counted(len(cells), 'experiment')}, {len(cells) - to_train} trained, {to_train} to train, "
        f"{states['to score']} to score: about {clock(seconds.total)}{mark}, "
        f"about {estimated_bytes(selection) / 1e9:.1f} GB of disk "
        f"({shutil.disk_usage(existing_home()).free / 1e9:.0f} GB free)."
    )
    if states["done"] == len(cells):
        return

    yield (
        f"time     preparing {clock(seconds.preparing)}, training {clock(seconds.training)}, "
        f"scoring {clock(seconds.scoring)}, dropout passes {clock(seconds.dropout)}, on this "
        f"machine ({machine})"
    )
    mc_cases = selection.grid.scoring.mc_cases
    dropped = sizes["test"] if mc_cases == "all" else min(mc_cases, sizes["test"])
    saved = seconds.dropout * (1 - FEWER_CASES / max(dropped, 1))
    if saved > WORTH_SAYING * seconds.total:
        yield (
            f"time     --set scoring.mc_cases={FEWER_CASES} would save about {clock(saved)} of "
            f"{clock(seconds.total)}: dropout passes of fewer cases."
        )

    space = DiskSpace.of(home() / "prefixes")
    if cache_bytes > space.budget:
        yield f"prefixes {space.lack('not enough room', cache_bytes, cache_saves)}"
    elif cache_bytes:
        yield (
            f"prefixes about {cache_bytes / 1e9:.2f} GB for what frozen blocks compute, of a "
            f"budget of {space.budget / 1e9:.2f} GB ({space.used / 1e9:.2f} GB in use)"
        )
