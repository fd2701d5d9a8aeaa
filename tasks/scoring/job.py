"""The scoring step as a child process runs it: a trained adapter and a dataset in, one sealed folder of scores out."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tasks.runtime.device import compute_path
from tasks.runtime.store import build_folder, verify
from tasks.scoring.mc_dropout import dropout_passes
from tasks.scoring.sample import stratified_sample
from tasks.spec import LABELS, ExperimentSpec
from tasks.tuning.engine import Scores, score_cases
from tasks.tuning.frozen_prefix import open_prefix
from tasks.tuning.job import CACHE_BYTES
from tasks.tuning.lora import Adapted, add_lora, load_variant, load_weights
from tasks.tuning.sets import LoadedSet, load_set, load_template

Emit = Callable[[dict[str, Any]], None]


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Score calibration and test, then the dropout passes; returns timings.

    `args`: experiment (JSON), variant, data, home, folder (the trained adapter), scores (folder to make).
    The scores folder holds calibration.jsonl and test.jsonl (no patient text) and passes.npy (T, N, 3) + passes.json.
    """
    spec = ExperimentSpec.model_validate(args["experiment"])
    folder, variant = Path(args["folder"]), Path(args["variant"])
    verify(folder, deep=True)
    mx.set_cache_limit(CACHE_BYTES)
    stack = load_variant(variant, compute_path())
    adapted = add_lora(stack, spec.recipe, spec.training, spec.seed)
    load_weights(adapted, folder / "adapters.safetensors")

    def build(temporary: Path) -> dict[str, Any]:
        return _score_all(spec, adapted, variant, args, temporary, emit)

    manifest = build_folder(Path(args["scores"]), build)
    return {key: manifest[key] for key in ("score_seconds", "mc_seconds", "mc_status")}


def _score_all(
    spec: ExperimentSpec, adapted: Adapted, variant: Path, args: dict[str, Any], out: Path, emit: Emit
) -> dict[str, Any]:
    template, digest = load_template(variant), verify(variant, deep=False)["digest"]
    data, home = Path(args["data"]), Path(args["home"])
    started = time.perf_counter()
    for name in ("calibration", "test"):
        loaded = load_set(data, name, template, spec.training.max_tokens)
        prefix = open_prefix(adapted.stack, loaded.cases, adapted.boundary, home, digest, emit)
        _write_scores(out / f"{name}.jsonl", loaded, score_cases(adapted, prefix, loaded.cases))
        emit({"event": "progress", "what": f"scored {name}", "done": len(loaded.records), "of": len(loaded.records)})
    scored = time.perf_counter()
    status = _passes(spec, adapted, loaded, template, data, home, digest, out, emit)
    return {"score_seconds": scored - started, "mc_seconds": time.perf_counter() - scored, "mc_status": status}


def _passes(
    spec: ExperimentSpec, adapted: Adapted, test: LoadedSet, template: Any, data: Path, home: Path, digest: str,
    out: Path, emit: Emit,
) -> str:  # fmt: skip
    if spec.recipe.dropout == 0:
        return "not available: the recipe has dropout 0, so every pass would be the same"
    sample = stratified_sample(
        [r["case_id"] for r in test.records], [r["label"] for r in test.records], spec.scoring.mc_cases
    )
    chosen = load_set(data, "test", template, spec.training.max_tokens, set(sample))
    # The same rows in another order: the whole test set's stored prefix would do, but a sample's own is small.
    prefix = open_prefix(adapted.stack, chosen.cases, adapted.boundary, home, digest, emit)
    passes = dropout_passes(adapted, prefix, chosen.cases, spec.scoring.passes, spec.seed, emit)
    np.save(out / "passes.npy", passes, allow_pickle=False)
    (out / "passes.json").write_text(json.dumps([r["case_id"] for r in chosen.records]))
    return "available"


def _write_scores(path: Path, loaded: LoadedSet, scores: Scores) -> None:
    probabilities = scores.probabilities
    with path.open("w", encoding="utf-8") as handle:
        for i, record in enumerate(loaded.records):
            row = next(r for r in loaded.cases.rows_of([i]) if r.is_truth)
            handle.write(
                json.dumps(
                    {
                        "case_id": record["case_id"], "label": record["label"], "group": record.get("group"),
                        "case_digest": hashlib.sha256(record["text"].encode()).hexdigest(),
                        "p": dict(zip(LABELS, probabilities[i].tolist(), strict=True)),
                        "label_loss": float(scores.label_loss[i]), "other_loss": float(scores.other_loss[i]),
                        "tokens": len(row.targets), "label_mass": float(np.exp(scores.label_logp[i].astype(float)).sum()),
                    }
                )
                + "\n"
            )  # fmt: skip
