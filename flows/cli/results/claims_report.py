"""What `triage claims` prints: each sentence with its verdict, figure, and the rows behind it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from flows.cli.terminal import print_line
from flows.cli.waiting import load_what_waits
from flows.report.figures import counted
from tasks.runtime.errors import Locked
from warehouse.claims import (
    NO_ROW,
    NOT_MEASURED,
    ClaimMeasurement,
    MeasuredClaim,
    measure,
    read_claims,
    store,
)
from warehouse.health import bring_up_to_date
from warehouse.published import ROOT, figures
from warehouse.query import query_rows

MOST_ROWS = 6
RANDOM_MODELS = (
    "Models with random weights, such as those of `triage sweep smoke`, have no rows here: no "
    "claim is about them."
)


def print_claims(console: Console, file: Path | None = None) -> None:
    """Print every claim as this warehouse measures it, and keep that in the table `claim`; then
    whether the READMEs' tables agree with the published rows.

    `file`: claims of the user's own, which are not kept. Raises BadInput.
    """
    claims = read_claims(file)
    load_what_waits()
    bring_up_to_date()

    results = measure(claims)
    without_rows = [result for result in results if result.note == NO_ROW]
    for result in results:
        if result not in without_rows:
            _print_claim(console, result)
    if without_rows:
        print_line(console, _unmeasured(without_rows, len(results)))
    if file is not None:
        return

    if _has_random_models() and not all(result.measurements for result in results):
        print_line(console, RANDOM_MODELS)

    with contextlib.suppress(Locked):  # another program reads: the table keeps what it has
        store(results)

    if (ROOT / "flows" / "README.md").is_file() and (ROOT / "README.md").is_file():
        _print_figures(console)


def _has_random_models() -> bool:
    return bool(query_rows("FROM experiment WHERE random_weights LIMIT 1").rows)


def _unmeasured(without_rows: Sequence[MeasuredClaim], count: int) -> str:
    """One sentence about all claims that this warehouse has no row for."""
    names = ", ".join(result.claim.name for result in without_rows)
    claims = counted(count, "claim")
    return f"{NOT_MEASURED}, no rows: {len(without_rows)} of {claims} ({names})."


def _print_claim(console: Console, result: MeasuredClaim) -> None:
    print_line(console, f"{result.verdict}: {result.claim.sentence}", style="bold")
    if result.note:
        print_line(console, f"  {result.note}")

    for row in result.measurements[:MOST_ROWS]:
        print_line(console, f"  {_row(row)}")

    if len(result.measurements) > MOST_ROWS:
        more = len(result.measurements) - MOST_ROWS
        query = f"FROM claim WHERE claim = '{result.claim.name}'"
        print_line(console, f'  {counted(more, "more row")}: triage sql "{query}"')


def _row(row: ClaimMeasurement) -> str:
    """`0.53 [0.51, 0.55]: supported (base_model smollm2-135m)`"""
    figure = "no figure" if row.value is None else f"{row.value:.4g}"
    if row.low is not None and row.high is not None and row.low != row.high:
        figure += f" [{row.low:.4g}, {row.high:.4g}]"
    about = ", ".join(f"{name} {value}" for name, value in row.further.items())
    return f"{figure}: {row.verdict}{f' ({about})' if about else ''}"


def _print_figures(console: Console) -> None:
    published_figures = figures()
    differing = [figure for figure in published_figures if not figure.agrees]
    agree = len(published_figures) - len(differing)
    print_line(
        console,
        f"READMEs: {agree} of {len(published_figures)} figures agree with warehouse/published.",
    )
    for figure in differing:
        print_line(
            console, f"  {figure.where}: shows {figure.shown}, published is {figure.expected}"
        )
