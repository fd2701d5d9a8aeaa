"""The test set of a study before anything is prepared: how many cases of which label in which group."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tasks.corpus.case import Case, from_json
from tasks.corpus.prepare import dataset_folder, stored_or_temporary
from tasks.corpus.splits import limited
from tasks.corpus.vignettes.generator import planned_labels
from tasks.judging.paired_cells import PlannedSet
from tasks.runtime.errors import SourceUnavailable
from tasks.runtime.store import complete, home
from tasks.spec import LABELS, Data, Grid


def planned_set(grid: Grid) -> PlannedSet | None:
    """The grid's test set; None where its source does not answer.

    Raises BadInput for cases that cannot be used.
    """
    with contextlib.suppress(SourceUnavailable), prepared(grid) as folder:
        if folder is not None:
            return _counted(_stored_cases(folder / "test.jsonl"))
        return _counted(_embedded_cases(grid.data))
    return None


@contextlib.contextmanager
def prepared(grid: Grid, also_embedded: bool = False) -> Iterator[Path | None]:
    """The grid's prepared cases: those of the home, or others in a temporary folder, since a plan
    writes nothing.

    None for embedded cases that the home lacks, unless `also_embedded`: to write and compare them
    takes seconds, and their labels and groups are known without.
    """
    source = grid.data, home(), grid.evaluation_sets
    if (
        grid.data.source == "embedded"
        and not also_embedded
        and not complete(dataset_folder(*source))
    ):
        yield None
    else:
        with stored_or_temporary(*source) as folder:
            yield folder


def _stored_cases(path: Path) -> list[Case]:
    with path.open(encoding="utf-8") as lines:
        return [from_json(line) for line in lines]


def _embedded_cases(data: Data) -> list[Case]:
    """Cases without their texts. Within limits the cases of each label are exact, and which groups
    they are of nearly so.
    """
    labels = planned_labels("test", data.seed, data.shares, data.sizes)
    cases = [
        Case(f"test-{number}", f"test-{number}", label, problem)
        for number, (problem, label) in enumerate(labels)
    ]
    return limited(cases, data.limits.get("test", len(cases)), data.seed)


def _counted(cases: list[Case]) -> PlannedSet:
    truth = np.array([LABELS.index(case.label) for case in cases], dtype=np.int64)
    return PlannedSet.of(truth, [case.group for case in cases], [case.case_id for case in cases])
