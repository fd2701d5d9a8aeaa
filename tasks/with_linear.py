"""Step: a trained model that decides together with the linear baseline, by the product of their label
probabilities and by rules of its own that are chosen on `calibration`. It lands as an experiment of
kind with_linear.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tasks.caching import as_cached, step
from tasks.corpus.manifest import DatasetManifest
from tasks.identity import scores_folder, scores_of
from tasks.judging.decision_rules import record_rules
from tasks.judging.evaluation_rows import Evaluation, judged_rows
from tasks.judging.point_metrics import Floats
from tasks.judging.scores_folder import (
    DropoutPasses,
    EvaluationScores,
    ScoredCase,
    probability_table,
    read_scores,
)
from tasks.landing import is_landed, land_together
from tasks.models.manifest import VariantManifest
from tasks.runtime.errors import BadInput
from tasks.scoring.baselines import (
    LINEAR,
    TARGET,
    cases_of,
    dataset_baseline_id,
    fitted_linear,
    joint,
)
from tasks.spec import LABELS, ExperimentSpec, evaluation_id, short_digest
from tasks.tuning.rows import TrainingOutcome, training_rows

KIND = "with_linear"


@step("with linear {spec.title}", retries=3, delay=2)
def with_linear(
    spec: ExperimentSpec,
    training: str,
    scores: str,
    variant: Path,
    data: Path,
    sets: Sequence[str] = (),
) -> list[str]:
    """evaluation_ids on test, then on the further `sets`; no model runs.

    `scores`: id of the model's own on test. Raises BadInput where `linear` cannot be fitted.
    """
    dataset = DatasetManifest.read(data)
    vital_signs = spec.prompt.vital_signs
    ingredients = {
        "training": training,
        "rules": scores,
        "linear": dataset_baseline_id(LINEAR, dataset, vital_signs),
    }
    cell = f"{spec.model.name}-{spec.precision.name}-{spec.recipe.name}-with-linear-s{spec.seed}"
    joined = f"{cell}-{short_digest(ingredients)}"
    ids = {name: scores_of(spec, joined, data, name) for name in ("test", *sets)}
    evaluations = list(map(evaluation_id, ids.values()))
    if is_landed(joined) and all(map(is_landed, evaluations)):
        return as_cached(evaluations, joined)

    linear = fitted_linear(data, vital_signs)
    if linear is None:
        raise BadInput(
            "train has one label only, or no word twice, so that no linear model can be fitted; "
            "leave out scoring.with_linear."
        )

    def of_linear(set_name: str) -> dict[str, Floats]:
        """Probabilities of a set's cases, by case id."""
        cases = cases_of(data, set_name)
        return {case.case_id: p for case, p in zip(cases, linear(cases), strict=True)}

    def together(scored: Sequence[ScoredCase], p_linear: dict[str, Floats]) -> list[ScoredCase]:
        """Scored cases with the probabilities of both, and without the model's likelihoods."""
        p = joint(probability_table(scored), np.array([p_linear[case.case_id] for case in scored]))
        return [
            replace(case, p=dict(zip(LABELS, row, strict=True)), label_loss=None, other_loss=None)
            for case, row in zip(scored, p.tolist(), strict=True)
        ]

    alone = {
        name: read_scores(scores_folder(spec, training, data, name)) for name in ("test", *sets)
    }
    # The rules are chosen before any other set is judged.
    calibration = together(alone["test"].calibration, of_linear("calibration"))
    rules = record_rules(
        probability_table(calibration),
        [case.label for case in calibration],
        dataset.digest_of("calibration"),
        target=spec.recipe.target_ed_recall or TARGET,
        costs=spec.scoring.cost_matrix,
        primary=spec.recipe.rule,
    )

    rows = {}
    for name, own in alone.items():
        now = datetime.now(UTC).isoformat()
        p_linear = of_linear(name)
        passes = None
        if own.passes is not None:
            of_passes = np.array([p_linear[case_id] for case_id in own.passes.case_ids])
            passes = DropoutPasses(own.passes.case_ids, joint(own.passes.p, of_passes))
        manifest = own.manifest.model_copy(
            update={"digest": "", "test_scored_at": now, "created": now}
        )
        judged = together(own.judged, p_linear)
        evaluation = Evaluation(
            ids[name], name, dataset.sets[name], spec.scoring, spec.recipe.rule, spec.seed
        )
        rows[name] = judged_rows(
            evaluation, EvaluationScores(calibration, judged, rules, manifest, passes)
        )

    weights = VariantManifest.read(variant)
    tables = training_rows(spec, joined, weights, dataset, TrainingOutcome())
    tables["experiment"][0] |= {
        "cell_id": cell,
        "recipe": f"{spec.recipe.name} with linear",
        "recipe_kind": KIND,
        "source_scores_id": scores,
        "finished_at": rows["test"]["evaluation"][0]["created_at"],
    }
    landings = [(evaluation_id(ids[name]), "evaluation", of_set) for name, of_set in rows.items()]
    land_together([(joined, "training", tables), *landings])

    return evaluations
