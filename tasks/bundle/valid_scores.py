"""Scores of trained models on `valid`, computed once, and what models are ranked by there.

A recipe's own validation value weighs cases as its loss does, so two recipes' cannot be compared;
these figures mean the same for every recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.bundle.bundle import Bundle, BundledModel, ModelGone, ValidJob
from tasks.bundle.decide import rule_labels
from tasks.corpus.manifest import DatasetManifest
from tasks.judging.decision_rules import recall_at_over_triage
from tasks.judging.metrics import confusion
from tasks.judging.point_metrics import metric_values
from tasks.judging.scores_folder import ScoredCase, probability_table, read_cases
from tasks.runtime.children import run_child
from tasks.runtime.errors import BadInput
from tasks.runtime.events import Emit
from tasks.runtime.store import intact_manifest
from tasks.spec import SCORES_VERSION, short_digest

VALID_FILE = "valid.jsonl"
Figure = Literal["ed-recall", "macro-f1"]


@dataclass(frozen=True)
class RankedBy:
    """The figure on `valid` that models are ranked by, higher is better.

    ed-recall: the highest ED recall of a threshold on p(ED) at an over-triage of at most
    `over_triage`: what a model can catch at a fixed load, whatever threshold its recipe has;
    macro-f1: of the decisions by the model's own rule, by which its test figures are, too.
    """

    figure: Figure
    over_triage: float

    @property
    def name(self) -> str:
        if self.figure == "macro-f1":
            return "macro-F1 by each recipe's own rule"
        return f"ED recall at over-triage {self.over_triage:g}"

    def value(self, bundle: Bundle, cases: list[ScoredCase]) -> float:
        """The figure of a model on its scored cases. Raises BadInput for ed-recall without an
        emergency, and for macro-f1 where the model's rule decides nothing.
        """
        p = probability_table(cases)
        labels = [case.label for case in cases]
        if self.figure == "ed-recall":
            if "ED" not in labels:
                raise BadInput(
                    "`valid` has no emergency, so there is no ED recall; give --by macro-f1."
                )
            return recall_at_over_triage(p, labels, self.over_triage)

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
        job = ValidJob(bundle=bundle, folder=model.folder, data=data, home=home, scores=scores)
        log = home / "logs" / f"valid-{bundle.model_id}"
        run_child("tasks.bundle.loaded_model:score_valid", job.model_dump(mode="json"), log, emit)

    return read_cases(scores / VALID_FILE)
