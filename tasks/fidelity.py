"""Step: what quantisation alone changes, per base model, against the most exact weights that are to be had."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import task

from tasks.caching import is_transient
from tasks.corpus.prompts import load_prompt
from tasks.landing import is_landed, land_rows, whole_row
from tasks.models.convert import base_folder
from tasks.progress import follow
from tasks.runtime.child import run_child
from tasks.runtime.device import versions
from tasks.runtime.store import home, verify
from tasks.spec import SCORING_VERSION, Scoring, Training, short_digest
from tasks.tuning.training_rows import dataset_digest


@task(
    task_run_name="fidelity {model[name]}", retries=2, retry_delay_seconds=5, retry_condition_fn=is_transient,
)  # fmt: skip
def fidelity(
    model: dict[str, Any],
    source: str,
    scoring: dict[str, Any],
    training: dict[str, Any],
    variants: list[str],
    data: str,
) -> list[str]:
    """fidelity_ids of a base model's variants on a sample of the test cases; each is measured and landed once."""
    reference, dataset = base_folder(Path(source), home()), verify(Path(data), deep=False)
    known = verify(reference, deep=False)
    settings = Scoring.model_validate(scoring), Training.model_validate(training)
    manifests = {folder: verify(Path(folder), deep=False) for folder in variants}
    ids = {
        folder: _id(manifest, known, dataset, *settings) for folder, manifest in manifests.items()
    }
    waiting = {str(manifests[f]["bits"]): f for f in variants if not is_landed(ids[f])}
    if waiting:
        args = {"reference": str(reference), "variants": waiting, "cases": settings[0].fidelity_cases, "training": training,
                "data": data, "home": str(home())}  # fmt: skip
        # Another sweep may measure the same model in other ways at once, and must not read what this one orders.
        log = (
            home()
            / "logs"
            / f"fidelity-{model['name']}-{short_digest({'ids': [ids[f] for f in waiting.values()]})}"
        )
        found = run_child(
            "tasks.scoring.fidelity_job:run", args, log, follow(f"fidelity {model['name']}")
        )
        for bits, folder in waiting.items():
            shared = {
                "fidelity_id": ids[folder], "base_model": model["name"], "bits": int(bits),
                "reference_precision": known["original_precision"], "random_weights": known["random_weights"],
                "variant_digest": manifests[folder]["digest"], "reference_digest": known["digest"],
                "dataset_digest": dataset_digest(dataset), "set_cases": found["set_cases"],
                "created_at": datetime.now(UTC).replace(tzinfo=None),
            }  # fmt: skip
            rows = [
                whole_row("fidelity", {**shared, "distribution": distribution, **figures})
                for distribution, figures in found["figures"][bits].items()
            ]
            land_rows(ids[folder], "fidelity", {"fidelity": rows})
    return list(ids.values())


def _id(
    variant: dict[str, Any],
    reference: dict[str, Any],
    dataset: dict[str, Any],
    scoring: Scoring,
    training: Training,
) -> str:
    made_of = {
        "variant": variant["digest"], "reference": reference["digest"], "test": dataset["sets"]["test"]["digest"],
        "cases": scoring.fidelity_cases, "max_tokens": training.max_tokens, "prompt": load_prompt().digest,
        "versions": versions(), "scoring": SCORING_VERSION,
    }  # fmt: skip
    return f"fidelity-{variant['base_model']}-{variant['bits']}bit-{short_digest(made_of)}"
