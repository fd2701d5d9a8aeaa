"""Step: the same adapter, judged by the same rules, on the other bit width: only the frozen weights differ."""

from pathlib import Path
from typing import Any

from prefect import task

from tasks.caching import is_transient
from tasks.identity import evaluation_of
from tasks.judging.evaluation_rows import evaluation_rows
from tasks.landing import is_landed, land_rows
from tasks.progress import follow
from tasks.runtime.child import run_child
from tasks.runtime.store import complete, home, verify
from tasks.spec import ExperimentSpec, short_digest
from tasks.tuning.training_rows import training_rows


@task(
    task_run_name="move {experiment[model][name]} {experiment[bits]}bit {experiment[recipe][name]} to {bits}bit",
    retries=2, retry_delay_seconds=5, retry_condition_fn=is_transient,
)  # fmt: skip
def move_adapter(
    experiment: dict[str, Any], training: str, evaluation: str, bits: int, variant: str, data: str
) -> str:
    """evaluation_id of a trained adapter scored on the variant with `bits`; lands as an experiment of its own kind.

    `evaluation`: the adapter's own, whose threshold and scaling serve here too. Chosen anew, they would make up for the
    very shift that is to be seen.
    """
    spec = ExperimentSpec.model_validate(experiment)
    weights, dataset = verify(Path(variant), deep=False), verify(Path(data), deep=False)
    cell = f"{spec.model.name}-{bits}bit-{spec.recipe.name}-from{spec.bits}bit-s{spec.seed}"
    moved = f"{cell}-{short_digest({'training': training, 'variant': weights['digest'], 'rules': evaluation})}"
    landed = evaluation_of(spec, moved, data)
    if is_landed(landed):
        return landed
    scores, folder = home() / "moved" / landed, home() / "experiments" / training
    if complete(scores, deep=True) is None:
        args = {"experiment": experiment, "variant": variant, "data": data, "home": str(home()),
                "folder": str(folder), "scores": str(scores), "chosen": str(folder / "scores" / evaluation)}  # fmt: skip
        run_child(
            "tasks.scoring.job:run",
            args,
            home() / "logs" / f"move-{scores.name}",
            follow(f"move {cell}"),
        )
    rows = evaluation_rows(spec, moved, landed, scores, dataset)
    own = training_rows(spec.model_copy(update={"bits": bits}), moved, weights, dataset, {}, scores)
    own["experiment"][0] |= {
        "cell_id": cell, "recipe": f"{spec.recipe.name} from {spec.bits}bit", "recipe_kind": "moved_adapter",
        "source_training_id": training, "finished_at": rows["evaluation"][0]["created_at"],
    }  # fmt: skip
    land_rows(moved, "training", own)
    land_rows(landed, "evaluation", rows)
    return landed
