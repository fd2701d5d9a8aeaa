"""Monte Carlo dropout (Gal & Ghahramani 2016): repeated passes with only the LoRA dropout modules switched on.

One pass is one sampled model: its instruction tokens are run once and shared by all cases of that pass. Blocks below
the first LoRA block have no dropout, so they come from the frozen prefix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from tasks.runtime.errors import TriageError
from tasks.scoring.uncertainty import passes_are_distinct
from tasks.spec import LABELS
from tasks.tuning.batches import TOKENS_AT_ONCE, Cases, make_batch, sorted_batches
from tasks.tuning.engine import label_terms, leading_past
from tasks.tuning.frozen_prefix import Prefix
from tasks.tuning.lora import Adapted

PASS_KEY = 1_000_003  # keeps the keys of scoring apart from those of training


def dropout_passes(
    adapted: Adapted, prefix: Prefix, cases: Cases, passes: int, seed: int, emit: Callable[[dict[str, Any]], None]
) -> np.ndarray:
    """Label probabilities of every case in every pass: (passes, cases, 3), float64.

    Raises TriageError if the passes are not distinct, which would mean that dropout was off.
    """
    out = np.zeros((passes, len(cases.encoded), len(LABELS)))
    batches = [make_batch(cases, chosen) for chosen in sorted_batches(cases, TOKENS_AT_ONCE)]
    for number in range(passes):
        key = (PASS_KEY, seed, number)
        past = leading_past(adapted, prefix, (*key, 0))
        for batch in batches:
            adapted.set_dropout([(*key, 1 + row.number) for row in batch.rows])
            p = mx.softmax(label_terms(adapted, prefix, cases, batch, past).label_logp, axis=-1)
            out[number, list(batch.cases)] = np.array(p, np.float64)
        emit({"event": "progress", "what": "dropout passes", "done": number + 1, "of": passes})
    adapted.set_dropout(None)
    if not passes_are_distinct(out):
        raise TriageError(
            "Monte Carlo dropout gave identical passes: dropout was not active, so nothing may be concluded."
        )
    return out
