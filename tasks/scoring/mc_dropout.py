"""Monte Carlo dropout (Gal & Ghahramani 2016): repeated passes with only the LoRA dropout modules switched on.

One pass is one sampled model: its instruction tokens are run once and shared by all cases of that pass. Blocks below
the first LoRA block have no dropout, so they come from the frozen prefix.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from tasks.judging.uncertainty import passes_are_distinct
from tasks.runtime.errors import TriageError
from tasks.runtime.events import Emit, ProgressReport
from tasks.spec import LABELS
from tasks.tuning.architecture import SharedPast
from tasks.tuning.batches import TOKENS_AT_ONCE, Batch, make_batch, sorted_batches
from tasks.tuning.engine import label_terms, leading_past
from tasks.tuning.frozen_prefix import Prefix
from tasks.tuning.lora import Adapted
from tasks.tuning.streams import side_by_side

PASS_KEY = 1_000_003  # keeps the keys of scoring apart from those of training


def dropout_passes(
    adapted: Adapted, prefix: Prefix, chosen: Sequence[int], passes: int, seed: int,
    emit: Emit,
) -> np.ndarray:  # fmt: skip
    """Label probabilities of the chosen cases of a set in every pass: (passes, chosen, 3), float64.

    A case's masks follow from its place in the whole set, so that a larger sample repeats a smaller one's figures.
    Raises TriageError if two passes are the same, which would mean that dropout was off, or a mask used twice.
    """
    cases = prefix.cases
    out = np.zeros((passes, len(chosen), len(LABELS)))
    logs = np.zeros(out.shape, np.float32)
    place = {case: i for i, case in enumerate(chosen)}
    batches = [make_batch(cases, some) for some in sorted_batches(cases, TOKENS_AT_ONCE, chosen)]
    for number in range(passes):
        key = (PASS_KEY, seed, number)
        past = leading_past(adapted, prefix, (*key, 0))
        mx.eval([p.arrays() for p in past if p])

        def log_p_of(
            batch: Batch, key: tuple[int, ...] = key, past: list[SharedPast | None] = past
        ) -> mx.array:
            # one mask a case, also where each label is a row of its own: a pass is one model for all three of them
            adapted.set_dropout([(*key, 1 + row.number // cases.per_case) for row in batch.rows])
            return label_terms(adapted, prefix, batch, past).label_logp

        for batch, log_p in side_by_side(batches, log_p_of):
            places = [place[c] for c in batch.cases]
            logs[number, places] = np.array(log_p)
            out[number, places] = np.array(mx.softmax(log_p, axis=-1), np.float64)
        emit(ProgressReport("dropout passes", number + 1, passes))
    adapted.set_dropout(None)
    if not passes_are_distinct(logs):
        raise TriageError(
            "Monte Carlo dropout gave identical passes: dropout was not active, so nothing may be concluded."
        )
    return out
