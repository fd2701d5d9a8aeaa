"""The scoring step as a child process runs it: a model and a dataset in, sealed scores folders out."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from tasks.runtime.backend import backend
from tasks.runtime.events import Emit
from tasks.runtime.manifest import Manifest
from tasks.runtime.probe import report_device
from tasks.runtime.store import build_folder, verify
from tasks.scoring.arguments import ScoringJob, SetsScoringJob, UntunedScoringJob
from tasks.scoring.baselines import TARGET
from tasks.scoring.scorer import UNTUNED, Scorer, score_all, score_sets
from tasks.tuning.lora import Adapted, add_lora, load_weights
from tasks.tuning.memory import CACHE_BYTES
from tasks.tuning.prefix_store import PrefixStore
from tasks.tuning.sets import load_template
from tasks.tuning.variant import load_variant

TIMES = ("score_seconds", "mc_seconds", "mc_status")


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run a ScoringJob; returns the timings of its scores folder.

    Scores calibration, chooses the rules on it, scores test, then runs the dropout passes.
    """
    job = ScoringJob.model_validate(args)
    scorer = _trained_scorer(job, emit)
    manifest = build_folder(job.scores, lambda folder: score_all(scorer, folder, job.rules_from))
    return {key: manifest[key] for key in TIMES}


def run_sets(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run a SetsScoringJob; returns the names of its sets."""
    job = SetsScoringJob.model_validate(args)
    score_sets(_trained_scorer(job, emit), job.sets, job.rules_from)
    return {"sets": sorted(job.sets), "training": job.adapter.name}


def run_untuned(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run an UntunedScoringJob, zero-shot; returns the timings of its scores folder.

    The model starts from the frozen prefix that its recipes share.
    """
    job = UntunedScoringJob.model_validate(args)
    # This job runs before the first training, and is slow wherever that will be.
    report_device(emit)
    scorer = _untuned_scorer(job, emit)
    manifest = build_folder(job.scores, lambda folder: score_all(scorer, folder))
    score_sets(scorer, job.sets, rules_from=job.scores)
    return {key: manifest[key] for key in TIMES}


def _trained_scorer(job: ScoringJob | SetsScoringJob, emit: Emit) -> Scorer:
    """A variant with the adapter that an experiment trained."""
    spec = job.experiment
    verify(job.adapter, deep=True)
    mx.set_cache_limit(CACHE_BYTES)
    stack = load_variant(job.variant, backend().compute_path)
    adapted = add_lora(stack, spec.recipe, spec.training, spec.seed)
    load_weights(adapted, job.adapter / "adapters.safetensors")

    return Scorer(
        name=spec.cell_id,
        adapted=adapted,
        template=load_template(job.variant, spec.prompt),
        prefixes=PrefixStore(job.home, Manifest.read(job.variant).digest),
        scoring=spec.scoring,
        max_tokens=spec.training.max_tokens,
        dropout=spec.recipe.dropout,
        seed=spec.seed,
        # A recipe without a target is also judged at the baselines', so that all can be compared
        # at equal recall.
        target=spec.recipe.target_ed_recall or TARGET,
        data=job.data,
        emit=emit,
        moved=isinstance(job, ScoringJob) and job.rules_from is not None,
    )


def _untuned_scorer(job: UntunedScoringJob, emit: Emit) -> Scorer:
    """A variant without an adapter: a fresh one would add exactly nothing."""
    mx.set_cache_limit(CACHE_BYTES)
    stack = load_variant(job.variant, backend().compute_path)
    boundary = max(stack.depth - job.training.num_layers, 0)
    return Scorer(
        name=UNTUNED,
        adapted=Adapted(stack, (), boundary, 0),
        template=load_template(job.variant, job.prompt),
        prefixes=PrefixStore(job.home, Manifest.read(job.variant).digest),
        scoring=job.scoring,
        max_tokens=job.training.max_tokens,
        dropout=0.0,
        seed=0,
        target=TARGET,
        data=job.data,
        emit=emit,
    )
