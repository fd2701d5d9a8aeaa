"""Step: cases from their source to one prepared, split and sealed dataset folder."""

from collections.abc import Sequence
from pathlib import Path

from tasks.caching import as_cached, step
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.splits import check_examples
from tasks.runtime.home import home
from tasks.runtime.store import MANIFEST
from tasks.spec import Data, EvaluationSet, PromptChoice
from tasks.studies import land_dataset


@step("prepare {data.source}", delay=10)
def prepare(
    data: Data,
    evaluation_sets: Sequence[EvaluationSet] = (),
    prompts: Sequence[PromptChoice] = (),
) -> Path:
    """The dataset folder for the grid's `[data]` and `[[evaluation_set]]`, without the examples of
    its prompts.
    """
    # prepare_dataset does not say whether it built the folder; the time of its manifest does.
    before = _write_times()
    folder = prepare_dataset(data, home(), evaluation_sets)
    check_examples(folder, prompts)
    land_dataset(folder)
    was_there = before.get(folder) == _write_times()[folder]
    return as_cached(folder, folder.name) if was_there else folder


def _write_times() -> dict[Path, int]:
    """When the manifest of each data set was written."""
    manifests = (home() / "data").glob(f"*/{MANIFEST}")
    return {path.parent: path.stat().st_mtime_ns for path in manifests}
