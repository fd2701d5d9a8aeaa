"""A training's summary to the rows that the warehouse keeps."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tasks.corpus.case import SETS
from tasks.corpus.prompts import load_prompt
from tasks.models.manifest import VariantManifest
from tasks.runtime.device import backend, compute_dtype, compute_path, versions
from tasks.spec import ENGINE_VERSION, ExperimentSpec, short_digest

Rows = list[dict[str, Any]]
DIVERGED = "diverged.json"  # summary and curve of a training up to the update at which it diverged
MEASURED = (
    "trainable_parameters", "train_loss", "valid_loss", "best_iteration", "last_iteration", "train_seconds",
    "tokens_per_second", "weights_memory_bytes", "peak_memory_bytes", "peak_rss_bytes", "micro_batch", "shortened_cases",
    "padding_share", "cache_memory_bytes", "memory_budget_bytes", "checkpointed_blocks",
)  # fmt: skip


def training_rows(
    spec: ExperimentSpec, training_id: str, variant: VariantManifest, dataset: dict[str, Any], summary: dict[str, Any],
    folder: Path, error: tuple[str, str] | None = None,
) -> dict[str, Rows]:  # fmt: skip
    """Landing rows of one training. `dataset`: its manifest; `error` (status, sentence) where it did not finish,
    with an empty `summary` unless it diverged: then with what was reached (see `diverged_summary`)."""
    device = summary.get("device", {})
    row = {
        "training_id": training_id, "cell_id": spec.cell_id, **_settings(spec), **weights_columns(variant),
        "settings_digest": settings_digest(spec, dataset), "source_training_id": None,
        "dataset_digest": dataset_digest(dataset), "status": error[0] if error else "completed",
        "error": error[1] if error else None, "compute_path": compute_path(), "backend": backend(),
        "compute_dtype": compute_dtype(), "blas": device.get("blas"), "gflops": device.get("gflops"),
        "machine": device.get("machine"), "triage_version": metadata.version("triage-sweep"),
        "mlx_version": versions()["mlx"], "mlx_lm_version": versions()["mlx-lm"], "engine_version": ENGINE_VERSION,
        **{key: summary.get(key) for key in MEASURED},
        "started_at": _utc(summary.get("started_at")), "finished_at": _utc(summary.get("finished_at")),
    }  # fmt: skip
    curve = (
        json.loads((folder / (DIVERGED if error else "training.json")).read_text())["curve"]
        if summary
        else []
    )
    # a curve of an earlier version has no other_loss
    points = [{"training_id": training_id, "other_loss": None, **point} for point in curve]
    return {"experiment": [row], "training_curve": points}


def diverged_summary(folder: Path) -> dict[str, Any]:
    """How far a training had come when it diverged: its memory, its speed and its last values; empty if not recorded."""
    try:
        return dict(json.loads((folder / DIVERGED).read_text(encoding="utf-8"))["summary"])
    except (OSError, ValueError, KeyError):
        return {}


def variant_row(variant_id: str, variant: VariantManifest) -> Rows:
    """Landing row of a variant."""
    return [
        {
            "variant_id": variant_id,
            "base_model": variant.base_model,
            "bits": variant.bits,
            "group_size": variant.group_size,
            **weights_columns(variant),
            "licence": variant.licence,
            "parameters": variant.parameters,
            "embedding_bytes": variant.bytes_by_part["embedding"],
            "projection_bytes": variant.bytes_by_part["projections"],
            "norm_bytes": variant.bytes_by_part["norms"],
            "terms": variant.terms.at if variant.terms else None,
            "terms_shown_at": _utc(variant.terms.shown) if variant.terms else None,
        }
    ]


def weights_columns(variant: VariantManifest) -> dict[str, Any]:
    """The columns of experiments and variants that say which weights were used."""
    return {
        "weights_source": variant.weights_source,
        "source_digest": variant.fetched_file_digest,
        "original_precision": variant.original_precision,
        "random_weights": variant.random_weights,
        "weights_digest": variant.digest,
        "stored_bytes": variant.stored_bytes,
        "bits_per_weight": variant.bits_per_weight,
    }


def dataset_digest(dataset: dict[str, Any]) -> str:
    """Digest of a dataset's four sets, from its manifest: a further evaluation set makes it no other dataset."""
    return short_digest({name: dataset["sets"][name]["digest"] for name in SETS})


def settings_digest(spec: ExperimentSpec, dataset: dict[str, Any]) -> str:
    """Digest of all that decides a training except its weights, bits and seed. `dataset`: its manifest.

    Experiments of one digest, recipe name and base model may be compared; these and the rest have columns of their own.
    """
    return short_digest(
        {
            # how it is judged decides no training; equal_pair looks at the target and the rule of each evaluation
            "recipe": spec.recipe.model_dump(mode="json", exclude={"name", "target_ed_recall", "primary_rule"}),
            "training": spec.training.model_dump(mode="json", exclude={"memory"}),  # it never changes results
            "sets": {name: dataset["sets"][name]["digest"] for name in ("train", "valid")},
            "prompt": load_prompt().digest, "engine": ENGINE_VERSION, "versions": versions(),
            "backend": backend(), "compute_dtype": compute_dtype(),
        }
    )  # fmt: skip


def _settings(spec: ExperimentSpec) -> dict[str, Any]:
    recipe = spec.recipe
    return {
        "base_model": spec.model.name, "bits": spec.bits, "recipe": recipe.name, "recipe_kind": recipe.kind,
        "seed": spec.seed, "group_size": spec.training.group_size, "num_layers": spec.training.num_layers,
        "learning_rate": recipe.learning_rate, "batch_size": recipe.batch_size, "rank": recipe.rank,
        "scale": recipe.scale, "peft_alpha": recipe.peft_alpha, "dropout": recipe.dropout,
        "iterations": recipe.iterations, "target_ed_recall": recipe.target_ed_recall, "cost_weight": recipe.cost_weight,
        "has_cost_matrix": recipe.cost_matrix is not None, "has_class_weights": recipe.class_weights is not None,
    }  # fmt: skip


def _utc(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None) if text else None
