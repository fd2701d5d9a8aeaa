"""The rows of a search that the warehouse keeps: one per trial."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tasks.search.trial import Trial, best_of
from tasks.spec import ExperimentSpec, canonical_json, short_digest
from tasks.tuning.training_rows import cell_columns


@dataclass(frozen=True)
class SearchedCell:
    """What the trials of a search have in common. `identity`: everything that decides them."""

    grid: str
    spec: ExperimentSpec
    identity: Mapping[str, Any]

    @property
    def search_id(self) -> str:
        """Grid, cell and the digest of everything that decides the trials."""
        return f"{self.grid}-{self.spec.cell_id}-s{short_digest(dict(self.identity))}"


def trial_rows(cell: SearchedCell, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Landing rows of the table `trial`."""
    best_trial = best_of(trials)
    return [
        {
            "search_id": cell.search_id,
            "number": trial.number,
            "training_id": trial.training_id,
            "grid": cell.grid,
            **cell_columns(cell.spec),
            "settings": canonical_json(dict(trial.values)),
            "objective": trial.objective.name,
            "higher_is_better": trial.objective.is_higher_better,
            "state": trial.state,
            "is_best": best_trial is not None and trial.number == best_trial.number,
            "value": trial.value,
            "valid_loss": trial.rungs[-1].validation if trial.rungs else None,
            "updates": trial.update,
            "iterations": trial.iterations,
            "rungs": json.dumps([asdict(rung) for rung in trial.rungs]),
            "seconds": trial.seconds,
            "train_seconds": trial.rungs[-1].train_seconds if trial.rungs else None,
            "error": trial.error,
        }
        for trial in trials
    ]
