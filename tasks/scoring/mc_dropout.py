"""Monte Carlo dropout (Gal and Ghahramani, 2016): repeated passes with the LoRA dropout modules on.

One pass is one sampled model: its instruction tokens are run once and shared by all cases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import mlx.core as mx
import numpy as np

from tasks.judging.uncertainty import passes_are_distinct
from tasks.runtime.backend import backend
from tasks.runtime.errors import TriageError
from tasks.runtime.events import Emit, ProgressReport
from tasks.spec import LABELS
from tasks.tuning.activations import Prefix
from tasks.tuning.data import TOKENS_AT_ONCE, Batch, Key, make_batch, sorted_batches
from tasks.tuning.lora import Adapted
from tasks.tuning.model import SharedPast, side_by_side
from tasks.tuning.step import label_terms, leading_past

PASS_KEY = 1_000_003  # keeps the dropout keys of scoring apart from those of training
Job = tuple[int, list[SharedPast | None], Batch]  # the number of a pass, its instruction, its cases


def dropout_passes(
    adapted: Adapted,
    prefix: Prefix,
    case_numbers: Sequence[int],
    passes: int,
    seed: int,
    emit: Emit,
    kept: Mapping[int, tuple[np.ndarray, np.ndarray]] = MappingProxyType({}),
    keep: Callable[[int, np.ndarray, np.ndarray], object] = lambda number, log_p, p: None,
) -> np.ndarray:
    """Label probabilities of these cases in every pass: (passes, cases, 3), float64.

    A case's masks follow from its position in the whole set, so that a larger sample repeats the
    figures of a smaller one. `keep` gets each pass as it ends: its number, log P (float32) and P,
    both (cases, 3). A pass that is `kept` is not run again. Raises TriageError if two passes are
    the same.
    """
    cases = prefix.cases
    log_p = np.zeros((passes, len(case_numbers), len(LABELS)), np.float32)
    p = np.zeros(log_p.shape)
    position = {number: i for i, number in enumerate(case_numbers)}
    batches = [
        make_batch(cases, numbers)
        for numbers in sorted_batches(cases, TOKENS_AT_ONCE, case_numbers)
    ]

    for number, values in kept.items():
        log_p[number], p[number] = values

    def key_of(number: int, place: int) -> Key:
        return (PASS_KEY, seed, number, place)

    def jobs_of(number: int) -> list[Job]:
        # 0 is the instruction's place in a key; those of cases begin at 1.
        past = leading_past(adapted, prefix, key_of(number, 0))
        # On a GPU the host would wait for the last batch of the pass before.
        if not backend().on_gpu:
            mx.eval([block.arrays() for block in past if block])
        return [(number, past, batch) for batch in batches]

    def label_probabilities(job: Job) -> tuple[mx.array, mx.array]:
        """log P of a batch's labels and their P, (cases, 3), under the masks of one pass."""
        number, past, batch = job
        # One mask per case, also where each label is a row: a pass is one model for all labels.
        keys = [key_of(number, 1 + row.number // cases.per_case) for row in batch.rows]
        scored = max(row.label_length for row in batch.rows)
        masks = adapted.draw_masks(keys, batch.length - cases.leading, scored)
        adapted.set_dropout(keys, masks=masks)
        batch_log_p = label_terms(adapted, prefix, batch, past).label_logp
        adapted.set_dropout(None)
        return batch_log_p, mx.softmax(batch_log_p, axis=-1)

    lists = (jobs_of(number) for number in range(passes) if number not in kept)
    for (number, _, batch), (batch_log_p, batch_p) in side_by_side(lists, label_probabilities):
        positions = [position[case] for case in batch.cases]
        log_p[number, positions] = np.array(batch_log_p)
        p[number, positions] = np.array(batch_p, np.float64)
        if batch is batches[-1]:
            keep(number, log_p[number], p[number])
            emit(ProgressReport("dropout passes", number + 1, passes))

    if not passes_are_distinct(log_p):
        raise TriageError(
            "Monte Carlo dropout gave identical passes: dropout was not active, "
            "so nothing may be concluded."
        )
    return p
