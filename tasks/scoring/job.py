"""The scoring steps as a child process runs them: a model and a dataset in; sealed scores folders, or
the figure by which a search compares recipes, out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tasks.judging.decision_rules import recall_at_over_triage
from tasks.runtime.backend import backend
from tasks.runtime.device import report_device
from tasks.runtime.errors import Diverged
from tasks.runtime.events import Emit
from tasks.runtime.store import Manifest, verify
from tasks.scoring.arguments import ScoringJob, UntunedScoringJob, ValidScoringJob
from tasks.scoring.baselines import TARGET
from tasks.scoring.scorer import UNTUNED, Scorer, score_sets
from tasks.spec import ExperimentSpec
from tasks.tuning.activations import PrefixStore, open_prefix
from tasks.tuning.data import load_set, load_template
from tasks.tuning.forward import score_cases
from tasks.tuning.lora import Adapted, add_lora, load_variant, load_weights
from tasks.tuning.memory import CACHE_BYTES
from tasks.tuning.model import Stack


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run a ScoringJob.

    Without rules it scores calibration, chooses the rules on it, scores test, then runs the dropout
    passes.
    """
    job = ScoringJob.model_validate(args)
    spec = job.experiment
    verify(job.adapter, deep=True)
    scorer = Scorer(
        name=spec.cell_id,
        adapted=_load_adapted(job.variant, spec, job.adapter / "adapters.safetensors"),
        template=load_template(job.variant, spec.prompt),
        prefixes=_prefixes(job.home, job.variant),
        scoring=spec.scoring,
        max_tokens=spec.training.max_tokens,
        dropout=spec.recipe.dropout,
        seed=spec.seed,
        # A recipe without a target is also judged at the baselines', so that all can be compared
        # at equal recall.
        target=spec.recipe.target_ed_recall or TARGET,
        data=job.data,
        emit=emit,
        moved=job.rules_from is not None,
    )
    score_sets(scorer, job.sets, job.rules_from)
    return {}


def run_untuned(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run an UntunedScoringJob, zero-shot.

    The model starts from the frozen prefix that its recipes share, and has no adapter: a fresh one
    would add exactly nothing.
    """
    job = UntunedScoringJob.model_validate(args)
    # This job runs before the first training, and is slow wherever that will be.
    report_device(emit)
    stack = _load(job.variant)
    scorer = Scorer(
        name=UNTUNED,
        adapted=Adapted(stack, (), max(stack.depth - job.training.num_layers, 0), 0),
        template=load_template(job.variant, job.prompt),
        prefixes=_prefixes(job.home, job.variant),
        scoring=job.scoring,
        max_tokens=job.training.max_tokens,
        dropout=0.0,
        seed=0,
        target=TARGET,
        data=job.data,
        emit=emit,
    )
    score_sets(scorer, {"test": job.scores})
    score_sets(scorer, job.sets, rules_from=job.scores)
    return {}


def run_valid(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run a ValidScoringJob; returns {"value": the ED recall}."""
    job = ValidScoringJob.model_validate(args)
    spec = job.experiment
    adapted = _load_adapted(job.variant, spec, job.adapter)
    template = load_template(job.variant, spec.prompt)
    loaded = load_set(job.data, "valid", template, spec.training.max_tokens)
    prefixes = _prefixes(job.home, job.variant)
    prefix = open_prefix(adapted.stack, loaded.cases, adapted.boundary, prefixes, emit)
    scores = score_cases(adapted, prefix)
    if not np.isfinite(scores.probabilities).all():
        raise Diverged(f"{spec.cell_id}: scores on valid are not finite.")

    labels = [record["label"] for record in loaded.records]
    return {"value": recall_at_over_triage(scores.probabilities, labels, job.over_triage)}


def _load(variant: Path) -> Stack:
    mx.set_cache_limit(CACHE_BYTES)
    return load_variant(variant, backend().compute_path)


def _load_adapted(variant: Path, spec: ExperimentSpec, adapter: Path) -> Adapted:
    """A variant with the adapter in the file `adapter`."""
    adapted = add_lora(_load(variant), spec.recipe, spec.training, spec.seed)
    load_weights(adapted, adapter)
    return adapted


def _prefixes(home: Path, variant: Path) -> PrefixStore:
    return PrefixStore(home, Manifest.read(variant).digest)
