"""From the log-likelihoods of the three labels to decisions: the arithmetic of an evaluation, on the
parameters that it has chosen. And scores on `valid`, computed once, with the figures that models are
ranked by there.

A recipe's own validation value weighs cases as its loss does, so two recipes' cannot be compared;
the figures here mean the same for every recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax

from tasks.bundle.asking import Decision
from tasks.bundle.bundle import Bundle, BundledModel, ModelGone
from tasks.corpus.manifest import DatasetManifest
from tasks.judging.decision_rules import (
    VectorScaling,
    argmax_rule,
    conformal_sets,
    log_probabilities,
    min_cost_rule,
    recall_at_over_triage,
    threshold_rule,
)
from tasks.judging.metrics import confusion
from tasks.judging.point_metrics import Floats, metric_values
from tasks.judging.scores_folder import ScoredCase, probability_table, read_cases
from tasks.judging.uncertainty import summarise_passes
from tasks.runtime.children import run_child
from tasks.runtime.errors import BadInput
from tasks.runtime.events import Emit
from tasks.runtime.store import intact_manifest
from tasks.spec import LABELS, SCORES_VERSION, Label, short_digest

VALID_FILE = "valid.jsonl"
RankedBy = Literal["ed-recall", "macro-f1"]


def rule_labels(bundle: Bundle, p: Floats) -> Sequence[Label | None]:
    """What the bundle's rule decides on probabilities (cases, 3); None where it is not available."""
    rule = bundle.rule
    if not rule.is_available:
        return [None] * len(p)
    if rule.name == "target_recall" and rule.threshold is not None:
        return threshold_rule(p, rule.threshold)
    if rule.name == "min_cost" and bundle.scaling is not None and rule.costs is not None:
        scaling = VectorScaling(bundle.scaling.temperature, bundle.scaling.biases)
        return min_cost_rule(scaling.apply(log_probabilities(p)), rule.costs)
    if rule.offsets is not None:
        scaling = VectorScaling(rule.offsets.temperature, rule.offsets.biases)
        return argmax_rule(scaling.apply(log_probabilities(p)))

    return argmax_rule(p)


def decide(
    bundle: Bundle, log_likelihoods: ArrayLike, passes: ArrayLike | None = None
) -> list[Decision]:
    """Decisions on log P(label | prompt) of shape (cases, 3), order LABELS.

    `passes`: label probabilities of dropout passes (passes, cases, 3), for the review flag.
    """
    p = np.asarray(softmax(np.asarray(log_likelihoods, dtype=np.float64), axis=-1))
    votes: Sequence[dict[str, Any]] = [{}] * len(p)
    if passes is not None:
        votes = summarise_passes(np.asarray(passes), bundle.review.entropy_limit)

    sets = conformal_sets(p, bundle.conformal.cutoffs)
    return [
        Decision(
            label,
            (ed, gp, home),
            tuple(name for name, is_member in zip(LABELS, members, strict=True) if is_member),
            review=vote.get("review"),
            vote_entropy=vote.get("entropy_nats"),
            passes=vote.get("passes"),
        )
        for label, (ed, gp, home), members, vote in zip(
            rule_labels(bundle, p), p.tolist(), sets, votes, strict=True
        )
    ]


def figure_on_valid(
    bundle: Bundle, cases: list[ScoredCase], ranked_by: RankedBy, over_triage: float
) -> float:
    """The figure of a model on its scored cases, higher is better.

    ed-recall: the highest ED recall of a threshold on p(ED) at an over-triage of at most
    `over_triage`: what a model can catch at a fixed load, whatever threshold its recipe has;
    macro-f1: of the decisions by the model's own rule, by which its test figures are, too.

    Raises BadInput for ed-recall without an emergency, and for macro-f1 where the model's rule
    decides nothing.
    """
    p = probability_table(cases)
    labels = [case.label for case in cases]
    if ranked_by == "ed-recall":
        if "ED" not in labels:
            raise BadInput(
                "`valid` has no emergency, so there is no ED recall; give --by macro-f1."
            )
        return recall_at_over_triage(p, labels, over_triage)

    decisions = [label for label in rule_labels(bundle, p) if label is not None]
    if len(decisions) < len(labels):
        raise BadInput(
            f"{bundle.cell_id}: its rule {bundle.rule.name} is {bundle.rule.note}, so it "
            "decides nothing; give --by ed-recall, which needs no rule."
        )
    return float(metric_values(confusion(labels, decisions))["macro_f1"])


def data_folder(home: Path, dataset_digest: str) -> Path:
    """The folder of a data set of this home. Raises ModelGone where it was removed."""
    for folder in sorted((home / "data").glob(f"*-{dataset_digest}")):
        if intact_manifest(folder) is not None:
            return folder
    raise ModelGone(
        f"The data set {dataset_digest} is no longer in {home / 'data'}; run its sweep again."
    )


def valid_cases(home: Path, model: BundledModel, emit: Emit) -> list[ScoredCase]:
    """`valid` as a model of this home scores it; scored now if it was not before."""
    bundle = model.bundle
    data = data_folder(home, bundle.judged_on.dataset_digest)
    digest = DatasetManifest.read(data).digest_of("valid")
    ingredients = {"model": bundle.model_id, "valid": digest, "version": SCORES_VERSION}
    scores = home / "valid" / f"{bundle.model_id}-v{short_digest(ingredients)}"
    if intact_manifest(scores, deep=True) is None:
        args = {
            "model": model.model_dump(mode="json"),
            "data": str(data),
            "home": str(home),
            "scores": str(scores),
        }
        log = home / "logs" / f"valid-{bundle.model_id}"
        run_child("tasks.bundle.loaded_model:score_valid", args, log, emit)

    return read_cases(scores / VALID_FILE)
