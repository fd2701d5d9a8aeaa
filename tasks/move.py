"""Step: the same adapter, judged by the same rules, at another precision: only the frozen weights
differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task

from tasks.caching import as_cached, is_transient
from tasks.corpus.manifest import DatasetManifest
from tasks.identity import scores_of
from tasks.judging.evaluation_rows import evaluation_rows
from tasks.landing import Landing, Rows, is_landed, land_together
from tasks.models.manifest import VariantManifest
from tasks.precisions import Precision
from tasks.progress import publisher
from tasks.runtime.home import home
from tasks.runtime.run_step import run_step
from tasks.runtime.store import intact_manifest
from tasks.scoring.arguments import ScoringJob, SetsScoringJob
from tasks.spec import ExperimentSpec, Strict, evaluation_id, short_digest
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
    scores: str,
    precision: Precision,
    variant: Path,
    data: Path,
    sets: Sequence[str] = (),
    at_most: float | None = None,
) -> list[str]:
    """evaluation_ids of a trained adapter on the variant of another precision: on test, then on the
    further `sets`; lands as an experiment of kind moved_adapter.

    `scores`: id of the adapter's own, whose threshold and scaling are used here too. Chosen again,
    they would compensate the very shift that is to be seen. `at_most`: seconds that an
    attempt may take on test, and on the further sets.
    """
    weights = VariantManifest.read(variant)
    move = _Move(spec, training, scores, precision, variant, data, at_most)
    moved_id = move.training_id(weights)
    folders = {
        name: home() / "moved" / scores_of(spec, moved_id, data, name) for name in ("test", *sets)
    }
    ids = {name: evaluation_id(folder.name) for name, folder in folders.items()}
    if is_landed(moved_id) and all(is_landed(id) for id in ids.values()):
        return as_cached(list(ids.values()), moved_id)

    move.score(folders)

    dataset = DatasetManifest.read(data)
    rows = {
        name: evaluation_rows(spec, moved_id, folder, dataset, name, is_moved=True)
        for name, folder in folders.items()
    }
    training_tables = move.experiment(moved_id, weights, dataset, rows["test"])
    evaluation_landings = [
        Landing(ids[name], "evaluation", evaluated) for name, evaluated in rows.items()
    ]
    land_together([Landing(moved_id, "training", training_tables), *evaluation_landings])

    return list(ids.values())


@dataclass(frozen=True)
class _Move:
    """A trained adapter, its scores on test, and the variant on which it is scored."""

    spec: ExperimentSpec
    training: str
    scores: str
    precision: Precision
    variant: Path
    data: Path
    at_most: float | None

    @property
    def cell(self) -> str:
        recipe = f"{self.spec.recipe.name}-from{self.spec.precision.name}"
        return f"{self.spec.model.name}-{self.precision.name}-{recipe}-s{self.spec.seed}"

    def training_id(self, weights: VariantManifest) -> str:
        """The id of the moved adapter as an experiment of its own."""
        ingredients: dict[str, Any] = {
            "training": self.training,
            "variant": weights.digest,
            "rules": self.scores,
        }
        if self.spec.recipe.dropout > 0 and not self.spec.scoring.moved_passes:
            ingredients["passes"] = False
        return f"{self.cell}-{short_digest(ingredients)}"

    def score(self, folders: dict[str, Path]) -> None:
        """Score the sets whose folders are not complete: test first,
        since the others use its rules.
        """
        adapter = home() / "experiments" / self.training
        job: dict[str, Any] = {
            "experiment": self.spec,
            "variant": self.variant,
            "data": self.data,
            "home": home(),
            "adapter": adapter,
        }
        test = folders["test"]
        if intact_manifest(test, deep=True) is None:
            rules_from = adapter / "scores" / self.scores
            self._run("run", ScoringJob(**job, scores=test, rules_from=rules_from), test.name)

        unscored = {
            name: folder
            for name, folder in folders.items()
            if name != "test" and intact_manifest(folder, deep=True) is None
        }
        if unscored:
            sets = SetsScoringJob(**job, sets=unscored, rules_from=test)
            # A log of its own for other sets: `forget` reads in it what was made of which data set.
            names = short_digest({name: folder.name for name, folder in folders.items()})
            self._run("run_sets", sets, f"sets-{test.name}-{names}")

    def _run(self, function: str, job: Strict, name: str) -> None:
        run_step(
            f"tasks.scoring.job:{function}",
            job.model_dump(mode="json"),
            home() / "logs" / f"move-{name}",
            publisher(f"move {self.cell}"),
            at_most=self.at_most,
        )

    def experiment(
        self, moved_id: str, weights: VariantManifest, dataset: DatasetManifest, evaluated: Rows
    ) -> Rows:
        """Landing rows of the moved adapter, which takes the place of a training."""
        on_variant = self.spec.model_copy(update={"precision": self.precision})
        rows: Rows = training_rows(on_variant, moved_id, weights, dataset, TrainingOutcome())
        rows["experiment"][0] |= {
            "cell_id": self.cell,
            "recipe": f"{self.spec.recipe.name} from {self.spec.precision.name}",
            "recipe_kind": "moved_adapter",
            "source_training_id": self.training,
            "source_scores_id": self.scores,
            "finished_at": evaluated["evaluation"][0]["created_at"],
        }

        return rows
