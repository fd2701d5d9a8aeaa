"""Why an experiment that a user names is not among the finished ones, if anything is known of it."""

from __future__ import annotations

from dataclasses import dataclass

from flows.report.typed_rows import typed_rows
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from warehouse.connect import quoted


@dataclass(frozen=True)
class _Failed:
    """A row of `experiment` that did not finish."""

    cell_id: str
    status: str
    error: str | None


def why_unfinished(experiment: str) -> BadInput | None:
    """The sentence for an experiment that failed or was interrupted, named by the beginning
    of its id; None for any other.
    """
    is_it = f"starts_with(training_id, {quoted(experiment)})"
    failed_runs = typed_rows(_Failed, f"experiment WHERE {is_it} AND status <> 'completed'")
    if failed_runs:
        last = failed_runs[-1]
        reason = " ".join((last.error or "no reason is known").split()).rstrip(".")
        return BadInput(
            f"{last.cell_id} has {last.status} and holds no model ({reason}); run its sweep again."
        )

    folder = home() / "experiments"
    unfinished_trainings = sorted(
        path.name for path in folder.glob("*/") if path.name.startswith(experiment)
    )
    if unfinished_trainings:
        return BadInput(f"{unfinished_trainings[0]} is not finished yet; run its sweep to the end.")

    return None
