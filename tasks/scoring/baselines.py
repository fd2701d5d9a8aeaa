"""Baselines: what any model must beat. Constant answers, a bag of words, and (elsewhere) the untuned base model.

They are experiments of their own kind, `baseline`, and are judged by the very code that judges models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tasks.corpus.case import exact_digest
from tasks.judging.choose_rules import RuleRecord, record_rules
from tasks.judging.evaluation_rows import Judging, Rows, judged_rows
from tasks.judging.point_metrics import Floats
from tasks.judging.scores_folder import Scored, scored_cases
from tasks.runtime.store import read_lines
from tasks.spec import LABELS, SCORING_VERSION, Scoring, short_digest

CONSTANT = {"always_gp": "GP", "always_ed": "ED"}
BAG_OF_WORDS = "tfidf_lr"
ZERO_SHOT = "zero_shot"
OF_A_DATASET = (*CONSTANT, BAG_OF_WORDS)
TARGET = 0.95  # ED recall of their target_recall rule: the gate's
PENALTIES = (
    1.0,
    10.0,
    100.0,
)  # inverse L2 strengths; the one with the best log-likelihood on `valid` is taken
NO_PASSES = "not available: a baseline has no dropout"


def dataset_baseline_id(name: str, dataset: dict[str, Any]) -> str:
    """training_id of a baseline that needs no language model."""
    sets = {key: dataset["sets"][key]["digest"] for key in ("train", "valid")}
    return f"{name}-{short_digest({'name': name, 'sklearn': metadata.version('scikit-learn'), **sets})}"


def zero_shot_id(
    variant: dict[str, Any], prompt: str, versions: dict[str, str], compute_dtype: str
) -> str:
    """training_id of an untuned variant. `variant`: its manifest, `prompt`: the template's digest."""
    made_of = {"variant": variant["digest"], "tokenizer": variant["tokenizer_digest"], "prompt": prompt,
               "versions": versions, "compute_dtype": compute_dtype}  # fmt: skip
    return f"{variant['base_model']}-{variant['bits']}bit-{ZERO_SHOT}-{short_digest(made_of)}"


def baseline_evaluation_id(
    training_id: str,
    scoring: Scoring,
    dataset: dict[str, Any],
    max_tokens: int = 0,
    judged: str = "test",
) -> str:
    """evaluation_id of a baseline on a dataset's test set, or on another set; `max_tokens` where a tokenizer may
    shorten cases."""
    sets = {
        "calibration": dataset["sets"]["calibration"]["digest"],
        "test": dataset["sets"][judged]["digest"],
    }
    named = {} if judged == "test" else {"name": judged}
    made_of = {
        **sets,
        **named,
        "scoring": _used(scoring),
        "version": SCORING_VERSION,
        "max_tokens": max_tokens,
    }
    return f"{training_id}-e{short_digest(made_of)}"


def _used(scoring: Scoring) -> dict[str, Any]:
    return scoring.model_dump(
        mode="json", include={"cost_matrix", "conformal_miss_rate", "generated_cases"}
    )


def baseline_judging(
    training_id: str,
    evaluation_id: str,
    scoring: Scoring,
    dataset: dict[str, Any],
    seed: int,
    judged: str = "test",
) -> Judging:
    """How every baseline is judged: argmax is gated, the other rules stand beside it."""
    own = dataset["sets"][judged]
    return Judging(
        evaluation_id,
        training_id,
        own["digest"],
        own["has_groups"],
        "argmax",
        scoring,
        seed,
        judged,
    )


def dataset_baseline_rows(
    name: str, evaluation_ids: dict[str, str], scoring: Scoring, data: Path, dataset: dict[str, Any]
) -> dict[str, dict[str, Rows]]:
    """Landing rows, by evaluated set, of one of OF_A_DATASET; `evaluation_ids` names each set's. It is fitted once."""
    fitted_on = ("train", "valid", "calibration")
    sets = {key: read_lines(data / f"{key}.jsonl") for key in (*fitted_on, *evaluation_ids)}
    model = _constant(CONSTANT[name]) if name in CONSTANT else bag_of_words(sets)
    training, digest = dataset_baseline_id(name, dataset), dataset["sets"]["calibration"]["digest"]
    rules, calibration = _chosen(model, sets["calibration"], scoring, digest)
    return {
        judged: judged_rows(
            baseline_judging(training, evaluation, scoring, dataset, 0, judged),
            _scored(model, sets[judged], rules, calibration),
        )
        for judged, evaluation in evaluation_ids.items()
    }


@dataclass(frozen=True)
class Model:
    """Lines of cases to probabilities (cases, 3) in the order LABELS. `constant`: one answer for all cases."""

    predict: Callable[[Rows], Floats]
    constant: bool = False


def _constant(label: str) -> Model:
    return Model(
        lambda rows: np.tile(np.eye(3)[LABELS.index(label)], (len(rows), 1)), constant=True
    )


def bag_of_words(sets: dict[str, Rows]) -> Model:
    """Words and pairs of words by TF-IDF, and a logistic regression on them, fitted on `train`, chosen on `valid`."""
    from sklearn.feature_extraction.text import (
        TfidfVectorizer,
    )  # slow to import, and needed once per dataset
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts, labels = [r["text"] for r in sets["train"]], [r["label"] for r in sets["train"]]
    if len(set(labels)) == 1:  # nothing to tell apart
        return _constant(labels[0])
    models = [
        make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            LogisticRegression(C=c, max_iter=1000),
        )
        for c in PENALTIES
    ]
    for model in models:
        model.fit(texts, labels)
    best = min(models, key=lambda model: _loss(_predicted(model, sets["valid"]), sets["valid"]))
    return Model(lambda rows: _predicted(best, rows))


def _predicted(model: Any, rows: Rows) -> Floats:
    """Probabilities (cases, 3) in the order LABELS; 0 for a label that `train` lacks."""
    found = model.predict_proba([r["text"] for r in rows])
    p = np.zeros((len(rows), len(LABELS)))
    p[:, [LABELS.index(label) for label in model.classes_]] = found
    return p


def _loss(p: Floats, rows: Rows) -> float:
    truth = [LABELS.index(r["label"]) for r in rows]
    return float(-np.log(np.maximum(p[np.arange(len(rows)), truth], 1e-12)).mean())


def _chosen(model: Model, rows: Rows, scoring: Scoring, digest: str) -> tuple[RuleRecord, Rows]:
    """The rules, chosen on the calibration cases before any other is scored. `digest`: of that set."""
    calibration = scored_lines(rows, model.predict(rows))
    chosen = record_rules(
        scored_cases(calibration),
        digest,
        target=TARGET,
        costs=scoring.cost_matrix,
        constant=model.constant,
    )
    return chosen, calibration


def _scored(model: Model, rows: Rows, rules: RuleRecord, calibration: Rows) -> Scored:
    began = datetime.now(UTC)
    test = scored_lines(rows, model.predict(rows))
    manifest = {
        "mc_status": NO_PASSES, "score_seconds": None, "mc_seconds": None, "test_scored_at": began.isoformat(),
        "shortened_cases": 0,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    return Scored(calibration, test, rules, manifest)


def scored_lines(rows: Rows, p: Floats) -> Rows:
    """Lines as those of a scores folder, without likelihoods: these are no language models."""
    return [
        {
            "case_id": r["case_id"], "label": r["label"], "group": r.get("group"), "subgroup": r.get("subgroup") or {},
            "case_digest": exact_digest(r["text"]),
            "p": dict(zip(LABELS, values.tolist(), strict=True)), "label_loss": None, "other_loss": None, "tokens": 0,
        }
        for r, values in zip(rows, p, strict=True)
    ]  # fmt: skip
