"""`triage bench search`: a finished search against the same trials,
each trained to its end in one go.

The trainings of the comparison have a folder of their own, with frozen prefixes of their own, so
that both sides pay for them. A benchmark that was stopped goes on; the seconds of a training that
it stopped are not known, so that training is repeated.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from flows.bench.shared import BenchmarkRows, land_benchmark, own_versions
from flows.cli.terminal import print_line
from flows.report.figures import clock, figure
from flows.report.table import ReportTable, print_table
from flows.search_setup import SearchSetup
from tasks.corpus.prepare import prepare_dataset
from tasks.models.model_folders import variant_folder
from tasks.models.sources.kinds import stored
from tasks.runtime.device import machine_name
from tasks.runtime.errors import Diverged, OutOfMemory
from tasks.runtime.files import write_atomic
from tasks.runtime.home import home
from tasks.runtime.processes import forked_steps, import_ahead
from tasks.runtime.store import intact_manifest
from tasks.search.storage import Storage
from tasks.search.train_trial import train_trial
from tasks.search.trial import Cost, Reached, Trial, best_of
from tasks.spec import canonical_json

DIGITS = 4
FAR = 0.01  # as far as a search may be from the best of its trials
SHARE = 0.4  # of the cost of all, as much as it may take
ADAPTER = "adapters.safetensors"


@dataclass(frozen=True)
class SearchComparison:
    """A search, and its trials trained to the end. Values are of the search's objective.

    `behind`: how far what was found is behind the best of all, 0 or more; `same`: how many of the
    search's finished trainings have, byte for byte, the adapter of the training in one go, of
    `finished`; `share_of_training`: of the seconds of the updates alone.
    """

    winner_value: float
    best: float
    behind: float
    cost: Cost
    share_of_training: float
    same: int
    finished: int

    @property
    def share_of_updates(self) -> float:
        return self.cost.updates / self.cost.all_updates

    @property
    def share_of_seconds(self) -> float:
        return self.cost.seconds / self.cost.all_seconds


def bench_search(console: Console, setup: SearchSetup) -> SearchComparison:
    """Train the trials of a finished search to their ends, then print and land the comparison."""
    trials = Storage(setup.folder, setup.space, setup.objective, setup.identity).trials()
    ends = _train_to_the_end(console, setup, trials)
    comparison = _compare(setup, trials, ends)
    print_table(console, _table(setup, trials, ends))
    print_line(console, _sentence(setup, comparison))
    _land(setup, comparison, len(trials))
    return comparison


def _train_to_the_end(
    console: Console, setup: SearchSetup, trials: Sequence[Trial]
) -> dict[int, Reached]:
    """What each trial is at its end, by its number; without those that fail."""
    grid = setup.selection.grid
    spec = setup.spec
    data = prepare_dataset(grid.data, home(), grid.evaluation_sets)
    source = stored(spec.model, home())
    assert source is not None, "the search has fetched it"
    variant = variant_folder(source, home(), spec.precision, grid.training.group_size)

    ends = {}
    with contextlib.ExitStack() as cleanup:
        # As in a search, so that a step takes as long to start.
        cleanup.enter_context(forked_steps("tasks.tuning.job", "tasks.scoring.job"))
        import_ahead()
        for trial in trials:
            with contextlib.suppress(Diverged, OutOfMemory):
                ends[trial.number] = _end_of(setup, trial, variant, data)
                value = figure(ends[trial.number].value, digits=DIGITS)
                print_line(console, f"trial {trial.number} at its end: {value}")

    return ends


def _end_of(setup: SearchSetup, trial: Trial, variant: Path, data: Path) -> Reached:
    folder = _folder(setup, trial)
    record = folder.with_suffix(".json")
    with contextlib.suppress(OSError, ValueError):
        if intact_manifest(folder):
            return Reached(**json.loads(record.read_text(encoding="utf-8")))

    shutil.rmtree(folder, ignore_errors=True)
    spec = setup.space.experiment(trial.values)
    iterations = setup.halving.rungs[-1]
    reached = train_trial(
        spec=spec,
        folder=folder,
        update=iterations,
        objective=setup.objective,
        variant=variant,
        data=data,
        home=folder.parent,
        emit=lambda event: None,
    )
    write_atomic(record, json.dumps(asdict(reached)))

    return reached


def _folder(setup: SearchSetup, trial: Trial) -> Path:
    return setup.folder / "to_the_end" / trial.training_id


def _compare(
    setup: SearchSetup, trials: Sequence[Trial], ends: dict[int, Reached]
) -> SearchComparison:
    winner = best_of(trials)
    assert winner is not None and winner.value is not None, "the search is finished"
    loss = setup.objective.loss
    best_value = min((end.value for end in ends.values()), key=loss)
    finished_trials = [trial for trial in trials if trial.state == "finished"]
    same = [
        trial for trial in finished_trials if _adapter(setup, trial) == _searched_adapter(trial)
    ]
    cost = Cost(
        updates=sum(trial.update for trial in trials),
        seconds=sum(trial.seconds for trial in trials),
        all_updates=sum(end.update for end in ends.values()),
        all_seconds=sum(end.seconds for end in ends.values()),
    )
    behind = max(0.0, loss(winner.value) - loss(best_value))
    share = _training(trial.rungs[-1] for trial in trials if trial.rungs) / _training(ends.values())

    return SearchComparison(
        winner.value, best_value, behind, cost, share, len(same), len(finished_trials)
    )


def _training(reached: Iterable[Reached]) -> float:
    """Seconds of the updates alone."""
    return sum(each.train_seconds for each in reached)


def _adapter(setup: SearchSetup, trial: Trial) -> bytes:
    return (_folder(setup, trial) / ADAPTER).read_bytes()


def _searched_adapter(trial: Trial) -> bytes:
    return (home() / "experiments" / trial.training_id / ADAPTER).read_bytes()


def _table(setup: SearchSetup, trials: Sequence[Trial], ends: dict[int, Reached]) -> ReportTable:
    ranked_trials = sorted(
        trials,
        key=lambda trial: (
            trial.number not in ends,
            setup.objective.loss(ends[trial.number].value) if trial.number in ends else 0.0,
        ),
    )
    return ReportTable.of(
        f"{setup.objective.name} on valid of {len(trials)} trials at their ends, the best first",
        [
            {
                "trial": str(trial.number),
                "at its end": figure(end.value if end else None, digits=DIGITS),
                "in the search": figure(trial.value, digits=DIGITS),
                "updates in the search": f"{trial.update} of {trial.iterations}",
            }
            for trial in ranked_trials
            for end in [ends.get(trial.number)]
        ],
    )


def _sentence(setup: SearchSetup, comparison: SearchComparison) -> str:
    cost = comparison.cost
    is_near = comparison.behind <= FAR
    is_cheap = comparison.share_of_seconds <= SHARE
    return (
        f"The search found {figure(comparison.winner_value, digits=DIGITS)}, the best of all is "
        f"{figure(comparison.best, digits=DIGITS)}: {figure(comparison.behind, digits=DIGITS)} "
        f"behind ({'within' if is_near else 'not within'} {FAR}). It took {cost.updates:,} of "
        f"{cost.all_updates:,} updates ({comparison.share_of_updates:.0%}) and "
        f"{clock(cost.seconds)} of {clock(cost.all_seconds)} ({comparison.share_of_seconds:.0%}, "
        f"{'at most' if is_cheap else 'more than'} {SHARE:.0%}), of which the updates alone "
        f"{comparison.share_of_training:.0%} of those of all. {comparison.same} of "
        f"{comparison.finished} finished trainings are, byte for byte, those in one go."
    )


def _land(setup: SearchSetup, comparison: SearchComparison, trials: int) -> None:
    """Land the figures as rows of the table `benchmark`."""
    now = datetime.now(UTC)
    run_id = f"search-{setup.space.grid.name}-{now:%Y%m%d-%H%M%S}"
    metrics = {
        "found": comparison.winner_value,
        "best": comparison.best,
        "behind": comparison.behind,
        "share_of_updates": comparison.share_of_updates,
        "share_of_seconds": comparison.share_of_seconds,
        "share_of_training_seconds": comparison.share_of_training,
        "seconds": comparison.cost.seconds,
        "seconds_to_the_end": comparison.cost.all_seconds,
    }
    rows: BenchmarkRows = [
        {
            "run_id": run_id,
            "created_at": now,
            "machine": machine_name(),
            "versions": canonical_json(own_versions()),
            "name": "search",
            "case": f"{setup.space.grid.name} {setup.spec.title}",
            "metric": metric,
            "value": value,
            "unit": "s" if metric.startswith("seconds") else None,
            "n": trials,
            "note": setup.objective.name,
        }
        for metric, value in metrics.items()
    ]
    land_benchmark(run_id, rows)
