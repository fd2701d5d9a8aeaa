"""Step: what quantisation alone changes, per base model, against the most exact weights available."""

from datetime import UTC, datetime
from pathlib import Path

from tasks.caching import as_cached, run_job, step
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prompts import load_prompt
from tasks.landing import is_landed, land_rows, whole_row
from tasks.models.manifest import VariantManifest, base_folder
from tasks.progress import publisher
from tasks.runtime.backend import versions
from tasks.runtime.home import home
from tasks.scoring.arguments import FidelityJob
from tasks.spec import SCORES_VERSION, BaseModelSpec, Grid, short_digest


@step("fidelity {model.name}")
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
    folders = [folder for folder in variants if folder != reference_folder]
    weights = {folder: VariantManifest.read(folder) for folder in folders}
    ids = {
        folder: fidelity_id(variant, reference, dataset, grid)
        for folder, variant in weights.items()
    }

    unlanded = {folder: id for folder, id in ids.items() if not is_landed(id)}
    if not unlanded:
        return as_cached(list(ids.values()), ", ".join(ids.values()))

    job = FidelityJob(
        reference=reference_folder,
        variants={weights[folder].precision_name: folder for folder in unlanded},
        cases=grid.scoring.fidelity_cases,
        training=grid.training,
        prompt=grid.prompt,
        data=data,
        home=home(),
    )
    # A log of these measurements alone: another sweep may measure the same model in other ways.
    name = f"fidelity-{model.name}-{short_digest({'ids': list(unlanded.values())})}"
    emit = publisher(f"fidelity {model.name}")
    measurement = run_job("tasks.scoring.fidelity_job:run", job, name, emit, at_most)

    for folder, id in unlanded.items():
        variant = weights[folder]
        shared = {
            "fidelity_id": id,
            "base_model": variant.base_model,
            "bits": variant.bits,
            "precision": variant.precision_name,
            "reference_precision": reference.original_precision,
            "random_weights": reference.random_weights,
            "variant_digest": variant.digest,
            "reference_digest": reference.digest,
            "dataset_digest": dataset.dataset_digest,
            "set_cases": measurement["set_cases"],
            "created_at": datetime.now(UTC).replace(tzinfo=None),
        }
        rows = [
            whole_row("fidelity", {**shared, "distribution": distribution, **columns})
            for distribution, columns in measurement["figures"][variant.precision_name].items()
        ]
        land_rows(id, "fidelity", {"fidelity": rows})

    return list(ids.values())


def fidelity_id(
    variant: VariantManifest, reference: VariantManifest, dataset: DatasetManifest, grid: Grid
) -> str:
    """The id of the measurement of a variant against its reference."""
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
    return f"fidelity-{variant.base_model}-{variant.precision_name}-{short_digest(ingredients)}"
