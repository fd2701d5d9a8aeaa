"""Step: what quantisation alone changes, per base model, against the most exact weights available."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import task

from tasks.caching import as_cached, is_transient
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prompts import load_prompt
from tasks.landing import is_landed, land_rows, whole_row
from tasks.models.manifest import VariantManifest
from tasks.models.model_folders import base_folder
from tasks.progress import publisher
from tasks.runtime.backend import versions
from tasks.runtime.home import home
from tasks.runtime.run_step import run_step
from tasks.scoring.arguments import FidelityJob
from tasks.spec import SCORES_VERSION, BaseModelSpec, Grid, short_digest

Figures = dict[str, dict[str, Any]]  # columns of the table `fidelity` by distribution


@dataclass(frozen=True)
class VariantComparison:
    """A variant and the reference that it is compared with: their manifests, and the id of the
    measurement.
    """

    fidelity_id: str
    folder: Path
    variant: VariantManifest
    reference: VariantManifest

    @property
    def precision(self) -> str:
        return self.variant.precision_name


@task(
    task_run_name="fidelity {model.name}",
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=is_transient,
)
def fidelity(
    model: BaseModelSpec,
    source: Path,
    grid: Grid,
    variants: list[Path],
    data: Path,
    at_most: float | None = None,
) -> list[str]:
    """fidelity_ids of a base model's variants on a sample of the test cases; each is measured and
    landed once, in at most `at_most` seconds an attempt. The reference is not compared with itself.
    """
    dataset = DatasetManifest.read(data)
    reference_folder = base_folder(source, home())
    reference = VariantManifest.read(reference_folder)
    comparisons = [
        _comparison(folder, reference, dataset, grid)
        for folder in variants
        if folder != reference_folder
    ]

    unlanded = [comparison for comparison in comparisons if not is_landed(comparison.fidelity_id)]
    if unlanded:
        job = FidelityJob(
            reference=reference_folder,
            variants={comparison.precision: comparison.folder for comparison in unlanded},
            cases=grid.scoring.fidelity_cases,
            training=grid.training,
            prompt=grid.prompt,
            data=data,
            home=home(),
        )
        emit = publisher(f"fidelity {model.name}")
        measurement = run_step(
            "tasks.scoring.fidelity_job:run",
            job.model_dump(mode="json"),
            _log_folder(model, unlanded),
            emit,
            at_most=at_most,
        )

        for comparison in unlanded:
            _land(
                comparison,
                measurement["figures"][comparison.precision],
                measurement["set_cases"],
                dataset,
            )

    ids = [comparison.fidelity_id for comparison in comparisons]
    return ids if unlanded else as_cached(ids, ", ".join(ids))


def _log_folder(model: BaseModelSpec, comparisons: list[VariantComparison]) -> Path:
    """A folder of these measurements alone: another sweep may measure the same model in other ways
    at once.
    """
    ids = [comparison.fidelity_id for comparison in comparisons]
    return home() / "logs" / f"fidelity-{model.name}-{short_digest({'ids': ids})}"


def _land(
    comparison: VariantComparison, figures: Figures, set_cases: int, dataset: DatasetManifest
) -> None:
    shared = {
        "fidelity_id": comparison.fidelity_id,
        "base_model": comparison.variant.base_model,
        "bits": comparison.variant.bits,
        "precision": comparison.precision,
        "reference_precision": comparison.reference.original_precision,
        "random_weights": comparison.reference.random_weights,
        "variant_digest": comparison.variant.digest,
        "reference_digest": comparison.reference.digest,
        "dataset_digest": dataset.dataset_digest,
        "set_cases": set_cases,
        "created_at": datetime.now(UTC).replace(tzinfo=None),
    }
    rows = [
        whole_row("fidelity", {**shared, "distribution": distribution, **columns})
        for distribution, columns in figures.items()
    ]
    land_rows(comparison.fidelity_id, "fidelity", {"fidelity": rows})


def _comparison(
    folder: Path, reference: VariantManifest, dataset: DatasetManifest, grid: Grid
) -> VariantComparison:
    variant = VariantManifest.read(folder)
    ingredients = {
        "variant": variant.digest,
        "reference": reference.digest,
        "test": dataset.digest_of("test"),
        "cases": grid.scoring.fidelity_cases,
        "max_tokens": grid.training.max_tokens,
        "prompt": load_prompt(grid.prompt).digest,
        "versions": versions(),
        "scoring": SCORES_VERSION,
    }
    name = f"fidelity-{variant.base_model}-{variant.precision_name}-{short_digest(ingredients)}"

    return VariantComparison(name, folder, variant, reference)
