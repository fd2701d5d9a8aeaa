"""Baselines that any model must beat: constant answers and a linear model, fitted here, and the untuned
base model (`job.py`). The same code judges them as models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import numpy as np

from tasks.corpus.case import Case, exact_digest
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.vital_signs import VERSION as VITAL_SIGNS_VERSION
from tasks.corpus.vital_signs import with_vital_signs
from tasks.judging.decision_rules import record_rules
from tasks.judging.evaluation_rows import Evaluation, judged_rows
from tasks.judging.point_metrics import Floats, Rows
from tasks.judging.scores_folder import (
    EvaluationScores,
    ScoredCase,
    ScoresManifest,
    probability_table,
)
from tasks.models.manifest import VariantManifest
from tasks.runtime.backend import Backend
from tasks.runtime.files import read_lines
from tasks.spec import GATE_THRESHOLDS, LABELS, SCORES_VERSION, Label, Scoring, short_digest

CONSTANT: dict[str, Label] = {"always_gp": "GP", "always_ed": "ED"}
LINEAR = "linear"
ZERO_SHOT = "zero_shot"
OF_A_DATASET = (*CONSTANT, LINEAR)
TARGET = GATE_THRESHOLDS["ed_recall"]  # ED recall of their target_recall rule
NO_PASSES = "not available: a baseline has no dropout"


def dataset_baseline_id(name: str, dataset: DatasetManifest, vital_signs: bool = False) -> str:
    """training_id of a baseline that needs no language model. `vital_signs`: see `linear`."""
    ingredients = {
        "name": name,
        "sklearn": metadata.version("scikit-learn"),
        "train": dataset.digest_of("train"),
        "valid": dataset.digest_of("valid"),
    }
    if name == LINEAR:  # whose probabilities are fitted there
        ingredients["calibration"] = dataset.digest_of("calibration")
        if vital_signs:
            ingredients["vital_signs"] = str(VITAL_SIGNS_VERSION)
    return f"{name}-{short_digest(ingredients)}"


def zero_shot_id(
    variant: VariantManifest, prompt: str, versions: dict[str, str], backend: Backend
) -> str:
    """training_id of an untuned variant. `prompt`: the template's digest."""
    ingredients = {
        "variant": variant.digest,
        "tokenizer": variant.tokenizer_digest,
        "prompt": prompt,
        "versions": versions,
        "compute_dtype": backend.compute_dtype,
        **backend.id_ingredients,
    }
    cell = f"{variant.base_model}-{variant.precision_name}-{ZERO_SHOT}"
    return f"{cell}-{short_digest(ingredients)}"


def baseline_scores_id(
    training_id: str,
    scoring: Scoring,
    dataset: DatasetManifest,
    max_tokens: int = 0,
    judged: str = "test",
) -> str:
    """scores_id of a baseline on the set `judged`; `max_tokens`: where a tokenizer shortens cases."""
    # Settings of dropout passes change nothing: a baseline has none.
    used_settings = {"cost_matrix", "conformal_miss_rate", "generated_cases"}
    ingredients = {
        "calibration": dataset.digest_of("calibration"),
        "test": dataset.digest_of(judged),
        "scoring": scoring.model_dump(mode="json", include=used_settings),
        "version": SCORES_VERSION,
        "max_tokens": max_tokens,
    }
    if judged != "test":
        ingredients["name"] = judged

    return f"{training_id}-e{short_digest(ingredients)}"


def cases_of(data: Path, set_name: str) -> list[Case]:
    """The cases of a set of a dataset folder."""
    return [Case(**line) for line in read_lines(data / f"{set_name}.jsonl")]


@lru_cache(maxsize=1)
def fitted_linear(data: Path, vital_signs: bool) -> Callable[[Sequence[Case]], Floats] | None:
    """`linear`, fitted on a dataset folder: label probabilities (cases, 3) of cases. None where there
    is nothing to tell cases apart by. `vital_signs`: it reads them in words.
    """
    # scikit-learn is slow to import, and needed once per dataset.
    from tasks.scoring.linear import LinearModel

    def read(cases: Sequence[Case]) -> Sequence[Case]:
        """The cases as `linear` reads them."""
        if not vital_signs:
            return cases
        return [replace(case, text=with_vital_signs(case.text)) for case in cases]

    # Read before the try: a damaged file is a ValueError too.
    fitted_on = [cases_of(data, set_name) for set_name in ("train", "valid", "calibration")]
    try:
        linear = LinearModel(*map(read, fitted_on))
    except ValueError:
        return None
    return lambda cases: linear.predict(read(cases))


def joint(p: Floats, of_linear: Floats) -> Floats:
    """The product of label probabilities (..., cases, 3) with those of `linear` (cases, 3)."""
    product = p * of_linear
    return np.asarray(product / product.sum(axis=-1, keepdims=True))


def dataset_baseline_rows(
    name: str,
    scores_ids: dict[str, str],
    scoring: Scoring,
    data: Path,
    dataset: DatasetManifest,
    vital_signs: bool = False,
) -> dict[str, dict[str, Rows]]:
    """Landing rows of one of OF_A_DATASET, by set; `scores_ids`: the id of the scores on each;
    `vital_signs`: whether `linear` reads them in words.
    """
    answer = CONSTANT.get(name)
    linear = None
    if answer is None:
        linear = fitted_linear(data, vital_signs)
        if linear is None:
            counts = Counter(case.label for case in cases_of(data, "train"))
            most_frequent: Label = max(LABELS, key=lambda label: counts[label])
            answer = most_frequent
    of_answer = [float(label == answer) for label in LABELS]

    def scored(set_name: str) -> list[ScoredCase]:
        """The cases of a set with their probabilities, and without likelihoods."""
        cases = cases_of(data, set_name)
        p = np.tile(of_answer, (len(cases), 1)) if linear is None else linear(cases)
        return [
            ScoredCase(
                case_id=case.case_id,
                label=case.label,
                group=case.group,
                subgroup=case.subgroup or {},
                case_digest=exact_digest(case.text),
                p=dict(zip(LABELS, row.tolist(), strict=True)),
            )
            for case, row in zip(cases, p, strict=True)
        ]

    # The rules are chosen before any other set is scored.
    calibration = scored("calibration")
    rules = record_rules(
        probability_table(calibration),
        [case.label for case in calibration],
        dataset.digest_of("calibration"),
        target=TARGET,
        costs=scoring.cost_matrix,
        constant=linear is None,
    )

    rows = {}
    for set_name, scores_id in scores_ids.items():
        began = datetime.now(UTC)
        judged_set = scored(set_name)
        # As reading a scores folder would give them.
        manifest = ScoresManifest(
            digest="",
            score_seconds=None,
            mc_seconds=None,
            mc_status=NO_PASSES,
            test_scored_at=began.isoformat(),
            shortened_cases=0,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        scores = EvaluationScores(calibration, judged_set, rules, manifest)
        evaluation = Evaluation(scores_id, set_name, dataset.sets[set_name], scoring)
        rows[set_name] = judged_rows(evaluation, scores)

    return rows
