"""What a search compares safety recipes by, as a child process runs it: an adapter, in training or
trained, and its ED recall on `valid`.
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
from tasks.tuning.engine import score_cases
from tasks.tuning.frozen_prefix import open_prefix
from tasks.tuning.lora import add_lora, load_variant, load_weights
from tasks.tuning.memory import CACHE_BYTES
from tasks.tuning.sets import load_set, load_template


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run a ValidScoringJob; returns {"ed_recall": the recall}."""
    job = ValidScoringJob.model_validate(args)
    spec = job.experiment
    mx.set_cache_limit(CACHE_BYTES)
    stack = load_variant(job.variant, backend().compute_path)
    adapted = add_lora(stack, spec.recipe, spec.training, spec.seed)
    load_weights(adapted, job.adapter)

    template = load_template(job.variant, spec.prompt)
    loaded = load_set(job.data, "valid", template, spec.training.max_tokens)
    digest = Manifest.read(job.variant).digest
    prefix = open_prefix(stack, loaded.cases, adapted.boundary, job.home, digest, emit)
    p = score_cases(adapted, prefix).probabilities
    if not np.isfinite(p).all():
        raise Diverged(f"{spec.cell_id}: scores on valid are not finite.")

    labels = [record["label"] for record in loaded.records]
    return {"ed_recall": recall_at_over_triage(p, labels, job.over_triage)}
