"""What is refused before anything starts: cases that cannot be used, and weights that are not
available.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from flows.selection import Selection
from tasks.corpus.apart import check_examples
from tasks.corpus.prepare import prepare_dataset
from tasks.models.sources.available import availabilities, is_offered, is_unanswered
from tasks.models.sources.kinds import stored
from tasks.runtime.builds import refuse_unusable_build
from tasks.runtime.errors import SourceUnavailable
from tasks.runtime.home import home
from tasks.runtime.temporary import remove_all_abandoned
from tasks.spec import BaseModelSpec, PromptChoice


def check(selection: Selection, prompts: Iterable[PromptChoice] | None = None) -> Path:
    """Prepare the cases, which is quick, and ask whether the weights are available.

    Returns the folder of the cases. `prompts`: those whose examples must stand in no set, by
    default those of the selection.

    What killed sweeps left half-built is removed first.

    A sweep that can do a part of its work does that part. Raises BadInput for cases that cannot be
    used or for MLX as it is installed here, or SourceUnavailable if no base model of the selection
    is available.
    """
    refuse_unusable_build()
    data = check_cases(selection, prompts)
    refuse_without_weights(selection.models, home())
    return data


def check_cases(selection: Selection, prompts: Iterable[PromptChoice] | None = None) -> Path:
    """The part of `check` that a machine needs which computes nothing itself: no weights."""
    remove_all_abandoned(home())
    grid = selection.grid
    data = prepare_dataset(grid.data, home(), grid.evaluation_sets)
    check_examples(data, selection.prompts if prompts is None else prompts)
    return data


def refuse_without_weights(models: list[BaseModelSpec], root: Path) -> None:
    """Raise SourceUnavailable, with the reasons, if each source of every model says that it cannot
    give the weights.
    """
    if any(stored(model, root) for model in models):
        return

    answers = availabilities(models, root)
    states = [state for sources in answers.values() for _, state in sources]
    if any(is_offered(state) or is_unanswered(state) for state in states):
        return

    reasons = [
        f"{name}: {source}: {state}"
        for name, sources in answers.items()
        for source, state in sources
    ]
    raise SourceUnavailable(
        f"No weights are available ({'; '.join(reasons)}); connect to a network, or list a source "
        "with kind = 'folder' in the grid."
    )
