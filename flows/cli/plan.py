"""What `triage sweep --plan` prints: what would run, from where the weights come, time and disk, and
what the seeds and the test set can conclude.
"""

from __future__ import annotations

import shutil
from collections import Counter

from rich.console import Console

from deployments.interruptions import interrupted_by_signals
from flows.cli.terminal import print_line
from flows.plan import (
    estimated_bytes,
    plan_cells,
    planned_cases,
    set_sizes,
    this_machine,
    trained_elsewhere,
    work_left,
)
from flows.power import print_power
from flows.report.figures import RANDOM, clock, counted
from flows.report.table import Table, print_table
from flows.selection import Selection
from tasks.models.manifest import has_random_weights
from tasks.models.sources.fetch import availabilities, is_offered, remedy, stored, unpinned
from tasks.runtime.backend import backend
from tasks.runtime.home import existing_home, home
from tasks.spec import BaseModelSpec, short_digest
from tasks.tuning.memory import DiskSpace

MOST_ROWS = 20  # experiments on a terminal


def print_plan(console: Console, selection: Selection) -> None:
    """Print the state of each experiment, the sources of weights, and estimates of time and disk."""

    def say(text: str, style: str | None = None) -> None:
        print_line(console, text, style)

    # A closed terminal must leave no texts behind.
    with interrupted_by_signals(), planned_cases(selection) as cases:
        machine, speeds = this_machine()
        sizes = set_sizes(selection.grid, cases)
        cells = plan_cells(selection, cases, speeds)
        marks = {model.name: RANDOM for model in selection.models if _is_random(model)}
        records = [
            {
                "experiment": f"{cell.spec.cell_id}{marks.get(cell.spec.model.name, '')}",
                "state": cell.state,
                "about": clock(cell.seconds) if cell.seconds else "",
            }
            for cell in cells
        ]
        shown = records[:MOST_ROWS] if console.is_terminal else records
        print_table(console, Table(f"Grid {selection.grid.name}", shown), whole=True)
        if hidden := len(records) - len(shown):
            say(f"and {hidden} more; all of them: the same command, followed by | cat")

        sources = availabilities(selection.models, home())
        for name, source_states in sources.items():
            for source, state in source_states:
                say(f"weights  {name}: {source}: {state}")
        for model in selection.models:
            for note in unpinned(model):
                say(f"weights  {model.name}: {note}")

        counts = ", ".join(f"{name} {count:,}" for name, count in sizes.items())
        is_guess = cases is None and selection.grid.data.source != "embedded"
        say(f"cases    {counts}{' (not counted yet)' if is_guess else ''}")

        states = Counter(cell.state for cell in cells)
        to_train = states["to train"]
        operations, cache_bytes, cache_saves = work_left(selection, cells, sizes)
        seconds = operations.at(speeds)
        mark = f" on {backend().name} (experimental)" if backend().experimental else ""
        say(
            f"{counted(len(cells), 'experiment')}, {len(cells) - to_train} trained, {to_train} to "
            f"train, {states['to score']} to score: about {clock(seconds.total)}{mark}, "
            f"about {estimated_bytes(selection) / 1e9:.1f} GB of disk "
            f"({shutil.disk_usage(existing_home()).free / 1e9:.0f} GB free)."
        )
        if states["done"] < len(cells):
            say(
                f"time     preparing {clock(seconds.preparing)}, training {clock(seconds.training)}, "
                f"scoring {clock(seconds.scoring)}, dropout passes {clock(seconds.dropout)}, on this "
                f"machine ({machine})"
            )
            space = DiskSpace.of(home() / "prefixes")
            if cache_bytes > space.budget:
                lack = space.lack("not enough room", cache_bytes, cache_saves)
                say(f"prefixes {lack}", "yellow")
            elif cache_bytes:
                say(
                    f"prefixes about {cache_bytes / 1e9:.2f} GB for what frozen blocks compute, of "
                    f"a budget of {space.budget / 1e9:.2f} GB ({space.used / 1e9:.2f} GB in use)"
                )

        claim, registration = selection.grid.primary_claim, selection.grid.registration
        if claim and registration:
            seeds = ", ".join(map(str, claim.seeds or ()))
            threshold = ""
            if claim.sides[0] not in {precision.name for precision in selection.grid.compared}:
                rules = {"both": "kept and chosen again"}.get(claim.threshold, claim.threshold)
                threshold = f", threshold {rules.replace('_', ' ')}"
            if claim.further_seeds:
                seeds += f" ({', '.join(map(str, claim.further_seeds))} may join)"
            holm = " by Holm" if claim.adjust == "holm" else ""
            say(
                f"primary  {claim.base_model} {claim.recipe}, {' against '.join(claim.sides)}{threshold}, seeds "
                f"{seeds}: {' and '.join(claim.figures)}{holm}, margin {claim.margin:g}; it lands when "
                f"the sweep starts, as {short_digest(registration)}"
            )
        print_power(console, selection, cases)

        if repeated := trained_elsewhere(selection):
            say(repeated, "yellow")

        # Last of all, since a sweep could not train these.
        needed_models = {cell.spec.model.name for cell in cells if not cell.trained}
        count = None if selection.grid.any_weights else 1  # of a model's sources
        missing = [
            model
            for model in selection.models
            if model.name in sources.keys() & needed_models
            and not any(is_offered(state) for _, state in sources[model.name][:count])
        ]
        if missing:
            names = ", ".join(model.name for model in missing)
            problem = "No source of {} answers" if count is None else "The first source of {} fails"
            say(f"{problem.format(names)} now: {remedy(missing[0])}", "yellow")


def _is_random(model: BaseModelSpec) -> bool:
    """Whether the weights on this machine, or else all that the sources offer, are random."""
    if folder := stored(model, home()):
        return has_random_weights(folder)
    return all(source.kind == "random" for source in model.sources)
