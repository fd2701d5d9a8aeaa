"""A made-up study for tests: scores drawn with a fixed seed, judged and landed as those of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from scipy.special import softmax

from tasks.corpus.manifest import SetEntry
from tasks.grids.grid import known_models, load_grid
from tasks.judging.decision_rules import record_rules
from tasks.judging.evaluation_rows import Evaluation, judged_rows
from tasks.judging.scores_folder import DropoutPasses, EvaluationScores, ScoredCase, ScoresManifest, probability_table
from tasks.spec import LABELS, ExperimentSpec, evaluation_id, experiments, short_digest
from tasks.tuning.rows import cell_columns
from tests.warehouse.rows import full, training
from warehouse.landing import write_landing

GRID = "paper"
SETS = ("train", "valid", "calibration", "test")
STARTED = datetime(2026, 1, 1)
SHARES = (0.2, 0.45, 0.35)  # of the labels
CASES_IN_GROUP = 15
PASSES = 10
# In logits.
SIGNAL = 3.0
CASE_NOISE = 1.0
MODEL_NOISE = 0.5
PASS_NOISE = 0.7


@dataclass(frozen=True)
class SyntheticStudy:
    """The first `count` experiments of the grid `paper`, as pairs of 4 and 8 bits, on `cases` cases."""

    count: int
    cases: int

    @property
    def specs(self) -> list[ExperimentSpec]:
        grid = load_grid(GRID)
        all_specs = experiments(grid, known_models(grid))
        by_pair = sorted(all_specs, key=lambda spec: (spec.model.name, spec.recipe.name, spec.bits or 0))
        return by_pair[: self.count]

    def land(self, root: Path) -> None:
        """Write the landing folders of a sweep of this study."""
        ids: list[str] = []
        for number, spec in enumerate(self.specs):
            ids += self.land_experiment(root, spec, number)

        sizes = {f"{name}_cases": self.cases for name in SETS}
        dataset = full(
            "dataset", dataset_id="synthetic", dataset_digest="dataset", dataset="synthetic",
            sets_digest="sets", is_embedded=False, seed=1, further_sets=0, created_at=STARTED, **sizes,
        )  # fmt: skip
        sets = [
            full(
                "dataset_set", dataset_id="synthetic", name=name, set_digest=name, cases=self.cases,
                ed_cases=0, gp_cases=0, home_cases=self.cases, is_further=False,
            )
            for name in SETS
        ]  # fmt: skip
        write_landing(root, "synthetic", "dataset", {"dataset": [dataset], "dataset_set": sets})

        sweep = full(
            "sweep", sweep_id="sweep-synthetic", study="synthetic", grid=GRID, grid_digest="grid",
            dataset_digest="dataset", experiments=self.count, failures=0, started_at=STARTED,
            finished_at=STARTED + timedelta(days=1), run_seconds=86400.0, step_seconds=86000.0,
        )  # fmt: skip
        members = [full("sweep_member", sweep_id="sweep-synthetic", id=id) for id in ids]
        write_landing(root, "sweep-synthetic", "sweep", {"sweep": [sweep], "sweep_member": members})

    def land_experiment(self, root: Path, spec: ExperimentSpec, number: int) -> tuple[str, str]:
        """Write the landing folders of experiment `number`; returns the ids of training and evaluation."""
        id = f"{spec.cell_id}-{short_digest({'number': number})}"
        scores_id = f"{id}-e{short_digest({'cases': self.cases})}"
        bits = spec.bits or 16
        values = cell_columns(spec) | {
            "cell_id": spec.cell_id,
            "settings_digest": short_digest({"recipe": spec.recipe.name}),
            "dataset_digest": "dataset",
            "stored_bytes": 20_000_000 * bits,
            "weights_memory_bytes": 20_000_000 * bits,
            "peak_memory_bytes": 40_000_000 * bits,
            "finished_at": STARTED + timedelta(minutes=number),
        }
        write_landing(root, id, "training", training(id, **values))

        random = np.random.default_rng(number)
        # One seed for all experiments: pairs need the same cases.
        calibration, _ = self._scored("calibration", 2, random)
        test, passes = self._scored("test", 1, random)
        rules = record_rules(
            probability_table(calibration),
            [case.label for case in calibration],
            "calibration",
            target=spec.recipe.target_ed_recall or 0.95,
            costs=spec.scoring.cost_matrix,
        )
        moment = datetime.now(UTC).isoformat()
        manifest = ScoresManifest(
            digest="", score_seconds=1.0, mc_seconds=1.0, mc_status="available",
            test_scored_at=moment, shortened_cases=0, created=moment,
        )  # fmt: skip
        scores = EvaluationScores(calibration, test, rules, manifest, passes)
        entry = SetEntry(cases=self.cases, digest="test", labels={}, has_groups=True)
        judged = Evaluation(scores_id, "test", entry, spec.scoring, spec.recipe.rule, spec.seed)
        write_landing(root, evaluation_id(scores_id), "evaluation", judged_rows(judged, scores))
        return id, evaluation_id(scores_id)

    def _scored(self, name: str, seed: int, random: np.random.Generator) -> tuple[list[ScoredCase], DropoutPasses]:
        """A set of cases, which all models share, as one model scores it."""
        cases = np.random.default_rng(seed)
        labels = cases.choice(len(LABELS), size=self.cases, p=SHARES)
        logits = SIGNAL * np.eye(len(LABELS))[labels]
        logits = logits + cases.normal(0, CASE_NOISE, logits.shape)
        logits = logits + random.normal(0, MODEL_NOISE, logits.shape)
        scored = [
            ScoredCase(
                case_id=f"{name}-{place:06}",
                label=LABELS[label],
                group=f"condition {place // CASES_IN_GROUP}",
                case_digest=short_digest({"set": name, "case": place}),
                p=dict(zip(LABELS, map(float, row), strict=True)),
                label_loss=float(-np.log(row[label])),
                other_loss=0.01,
                tokens=2,
            )
            for place, (label, row) in enumerate(zip(labels, softmax(logits, axis=-1), strict=True))
        ]
        noise = random.normal(0, PASS_NOISE, (PASSES, *logits.shape))
        ids = [case.case_id for case in scored]
        return scored, DropoutPasses(ids, softmax(logits + noise, axis=-1))
