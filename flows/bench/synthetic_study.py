"""A made-up study for `triage bench warehouse`: seeded scores, judged
and landed as those of a sweep.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from flows.bench.synthetic_scores import SyntheticCases
from tasks.grids.grid import known_models, load_grid
from tasks.judging.decision_rules import record_rules
from tasks.judging.evaluation_rows import judged_rows
from tasks.judging.scores_folder import Evaluation, EvaluationScores, ScoresManifest, set_scores
from tasks.landing import Rows, whole_row
from tasks.spec import ExperimentSpec, experiments, short_digest
from tasks.tuning.training_rows import cell_columns
from warehouse.landing import write_landing

GRID = "paper"
STARTED = datetime(2026, 1, 1)


@dataclass(frozen=True)
class SyntheticStudy:
    """The first `count` experiments of the grid `paper`, as pairs of
    4 and 8 bits, on `cases` cases.
    """

    count: int
    cases: int

    @property
    def specs(self) -> list[ExperimentSpec]:
        grid = load_grid(GRID)
        all_specs = experiments(grid, known_models(grid))
        by_pair = sorted(
            all_specs, key=lambda spec: (spec.model.name, spec.recipe.name, spec.bits or 0)
        )
        return by_pair[: self.count]

    def land(self, root: Path) -> None:
        """Write the landing folders of a sweep of this study."""
        ids: list[str] = []
        for number, spec in enumerate(self.specs):
            ids += self.land_experiment(root, spec, number)
        self._land_dataset(root)
        self._land_sweep(root, ids)

    def land_experiment(
        self, root: Path, spec: ExperimentSpec, number: int, dropout: bool = True
    ) -> tuple[str, str]:
        """Write the landing folders of experiment `number`; returns the ids of training and
        evaluation.
        """
        training = f"{spec.cell_id}-{short_digest({'number': number})}"
        evaluation = f"{training}-e{short_digest({'cases': self.cases})}"
        finished_at = STARTED + timedelta(minutes=number)
        row = whole_row(
            "experiment", {"training_id": training, **_training_columns(spec, finished_at)}
        )
        curve = [
            {
                **whole_row("training_curve", {"training_id": training}),
                "iteration": 50 * step,
                "split": "train",
                "loss": 1.0 / step,
            }
            for step in range(1, 1 + (spec.recipe.iterations or 0) // 50)
        ]
        rows = self._evaluation_rows(spec, training, evaluation, number, dropout)
        write_landing(root, training, "training", {"experiment": [row], "training_curve": curve})
        write_landing(root, evaluation, "evaluation", rows)

        return training, evaluation

    def _evaluation_rows(
        self, spec: ExperimentSpec, training: str, id: str, number: int, dropout: bool
    ) -> Rows:
        random = np.random.default_rng(number)
        # One seed for all experiments: pairs need the same cases.
        cases = SyntheticCases.drawn("test", self.cases, seed=1)
        calibration = SyntheticCases.drawn("calibration", self.cases, seed=2).scored(random)
        costs = spec.scoring.cost_matrix
        rules = record_rules(
            set_scores(calibration),
            "calibration",
            target=spec.recipe.target_ed_recall or 0.95,
            costs=costs,
        )
        moment = datetime.now(UTC).isoformat()
        manifest = ScoresManifest(
            digest="",
            score_seconds=1.0,
            mc_seconds=1.0,
            mc_status="available" if dropout else "not available: dropout is 0",
            test_scored_at=moment,
            shortened_cases=0,
            created=moment,
        )
        passes = cases.passes(random) if dropout else None
        scores = EvaluationScores(calibration, cases.scored(random), rules, manifest, passes)
        evaluation = Evaluation(
            id, f"scores-{id}", training, "cases", True, spec.recipe.rule, spec.scoring, spec.seed
        )

        return judged_rows(evaluation, scores)

    def _land_dataset(self, root: Path) -> None:
        sizes = dict.fromkeys(("train", "valid", "calibration", "test"), self.cases)
        row = {
            "dataset_id": "dataset-synthetic",
            "dataset_digest": "dataset",
            "dataset": "synthetic",
            "sets_digest": "sets",
            "is_embedded": False,
            "seed": 1,
            **{f"{name}_cases": size for name, size in sizes.items()},
            "further_sets": 0,
            "created_at": STARTED,
        }
        digests = {"test": "cases"}
        sets = [
            {
                "dataset_id": "dataset-synthetic",
                "name": name,
                "set_digest": digests.get(name, name),
                "cases": size,
                "ed_cases": 0,
                "gp_cases": 0,
                "home_cases": size,
                "groups": None,
                "is_further": False,
            }
            for name, size in sizes.items()
        ]
        write_landing(root, "dataset-synthetic", "dataset", {"dataset": [row], "dataset_set": sets})

    def _land_sweep(self, root: Path, ids: list[str]) -> None:
        sweep = {
            "sweep_id": "sweep-synthetic",
            "study": "synthetic",
            "grid": GRID,
            "grid_digest": "grid",
            "dataset_digest": "dataset",
            "experiments": self.count,
            "failures": 0,
            "started_at": STARTED,
            "finished_at": STARTED + timedelta(days=1),
            "run_seconds": 86400.0,
            "step_seconds": 86000.0,
        }
        members = [{"sweep_id": "sweep-synthetic", "id": id} for id in ids]
        write_landing(root, "sweep-synthetic", "sweep", {"sweep": [sweep], "sweep_member": members})


def _training_columns(spec: ExperimentSpec, finished_at: datetime) -> dict[str, Any]:
    bits = spec.bits or 16
    return {
        "cell_id": spec.cell_id,
        **cell_columns(spec),
        "weights_source": "synthetic",
        "original_precision": "bf16",
        "random_weights": False,
        "settings_digest": short_digest({"recipe": spec.recipe.name}),
        "dataset_digest": "dataset",
        "status": "completed",
        "compute_path": "packed",
        "machine": "synthetic",
        "engine_version": 1,
        "stored_bytes": 20_000_000 * bits,
        "bits_per_weight": bits + 0.5,
        "train_loss": 0.5,
        "valid_loss": 0.6,
        "train_seconds": 600.0,
        "tokens_per_second": 1000.0,
        "weights_memory_bytes": 20_000_000 * bits,
        "peak_memory_bytes": 40_000_000 * bits,
        "started_at": finished_at - timedelta(minutes=10),
        "finished_at": finished_at,
    }
