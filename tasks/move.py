"""Step: the same adapter, judged by the same rules, at another precision: only the frozen weights
differ.
"""

from pathlib import Path

from prefect import task

from tasks.caching import is_transient
from tasks.corpus.manifest import DatasetManifest
from tasks.identity import evaluation_of
from tasks.judging.evaluation_rows import evaluation_rows
from tasks.landing import Rows, is_landed, land_rows
from tasks.models.manifest import VariantManifest
from tasks.precisions import Precision
from tasks.progress import publisher
from tasks.runtime.child import run_child
from tasks.runtime.store import complete, home
from tasks.scoring.arguments import ScoringJob
from tasks.spec import ExperimentSpec, short_digest
from tasks.tuning.training_rows import TrainingOutcome, training_rows


@task(
    task_run_name="move {spec.model.name} {spec.precision.name} {spec.recipe.name} to {precision.name}",
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=is_transient,
)
def move_adapter(
    spec: ExperimentSpec,
    training: str,
    evaluation: str,
    precision: Precision,
    variant: Path,
    data: Path,
) -> str:
    """evaluation_id of a trained adapter scored on the variant of another precision; lands as an
    experiment of kind moved_adapter.

    `evaluation`: the adapter's evaluation, whose threshold and scaling are used here too. Chosen
    again, they would compensate the very shift that is to be seen.
    """
    weights = VariantManifest.read(variant)
    dataset = DatasetManifest.read(data)
    recipe = f"{spec.recipe.name}-from{spec.precision.name}"
    cell = f"{spec.model.name}-{precision.name}-{recipe}-s{spec.seed}"
    ingredients = {"training": training, "variant": weights.digest, "rules": evaluation}
    moved = f"{cell}-{short_digest(ingredients)}"
    moved_evaluation = evaluation_of(spec, moved, data)
    if is_landed(moved) and is_landed(moved_evaluation):
        return moved_evaluation

    scores = home() / "moved" / moved_evaluation
    if complete(scores, deep=True) is None:
        folder = home() / "experiments" / training
        job = ScoringJob(
            experiment=spec,
            variant=variant,
            data=data,
            home=home(),
            adapter=folder,
            scores=scores,
            rules_from=folder / "scores" / evaluation,
        )
        log = home() / "logs" / f"move-{scores.name}"
        emit = publisher(f"move {cell}")
        run_child("tasks.scoring.job:run", job.model_dump(mode="json"), log, emit)

    evaluated = evaluation_rows(spec, moved, moved_evaluation, scores, dataset)
    on_variant = spec.model_copy(update={"precision": precision})
    experiment: Rows = training_rows(on_variant, moved, weights, dataset, TrainingOutcome())
    experiment["experiment"][0] |= {
        "cell_id": cell,
        "recipe": f"{spec.recipe.name} from {spec.precision.name}",
        "recipe_kind": "moved_adapter",
        "source_training_id": training,
        "finished_at": evaluated["evaluation"][0]["created_at"],
    }
    land_rows(moved, "training", experiment)
    land_rows(moved_evaluation, "evaluation", evaluated)
    return moved_evaluation
