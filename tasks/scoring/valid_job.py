"""What a search compares recipes by, as a child process runs it: an adapter, in training or
trained, and its ED recall or macro-F1 on `valid`.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from tasks.judging.recall_at_over_triage import recall_at_over_triage
from tasks.runtime.backend import backend
from tasks.runtime.errors import Diverged
from tasks.runtime.events import Emit
from tasks.runtime.manifest import Manifest
from tasks.scoring.arguments import ValidScoringJob
from tasks.tuning.lora import add_lora, load_weights
from tasks.tuning.memory import CACHE_BYTES
from tasks.tuning.prefix_store import PrefixStore, open_prefix
from tasks.tuning.scores import macro_f1_of, score_cases
from tasks.tuning.sets import load_set, load_template
from tasks.tuning.variant import load_variant


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run a ValidScoringJob; returns {"value": the ED recall, or the macro-F1}."""
    job = ValidScoringJob.model_validate(args)
    spec = job.experiment
    mx.set_cache_limit(CACHE_BYTES)
    stack = load_variant(job.variant, backend().compute_path)
    adapted = add_lora(stack, spec.recipe, spec.training, spec.seed)
    load_weights(adapted, job.adapter)

    template = load_template(job.variant, spec.prompt)
    loaded = load_set(job.data, "valid", template, spec.training.max_tokens)
    store = PrefixStore(job.home, Manifest.read(job.variant).digest)
    prefix = open_prefix(stack, loaded.cases, adapted.boundary, store, emit)
    scores = score_cases(adapted, prefix)
    p = scores.probabilities
    if not np.isfinite(p).all():
        raise Diverged(f"{spec.cell_id}: scores on valid are not finite.")

    if job.over_triage is None:
        return {"value": macro_f1_of(scores, prefix.cases)}

    labels = [record["label"] for record in loaded.records]
    return {"value": recall_at_over_triage(p, labels, job.over_triage)}
