"""The model card of an export: the report's tables about one evaluation, and what the Hub reads."""

from __future__ import annotations

import pytest
from huggingface_hub import ModelCard

from flows.report.card import model_card
from flows.report.models import gate_record, gate_rows
from tasks.bundle.bundle import ExportAgreement, Review
from tasks.bundle.from_evaluation import bundle_of_evaluation
from tasks.models.manifest import Origin, VariantManifest
from tasks.spec import BaseModelSpec
from tests.bundle.test_from_evaluation import home as home
from tests.warehouse.rows import FIVE, land_arm
from warehouse.load import load_all
from warehouse.query import query

VARIANT = VariantManifest.model_construct(
    source=Origin(kind="hub", repo="team/m"),
    weights_source="random weights",
    original_precision="bf16",
    bits_per_weight=4.5,
    stored_bytes=100,
)
MODEL = BaseModelSpec.model_validate(
    {"name": "m", "licence": "Apache-2.0", "sources": [{"kind": "random", "shape": "tiny-llama"}]}
)


@pytest.fixture
def card(home):
    """The card of the model that `e4` has judged, whose bundle a test may change."""
    baseline = {"recipe": "linear", "recipe_kind": "baseline", "base_model": "none", "cell_id": "linear"}
    land_arm(home / "landing", "linear", None, [(case[0], "ED", "ED") for case in FIVE], **baseline)
    load_all(home / "landing")
    bundle = bundle_of_evaluation(home, "e4").bundle

    def text(**changes) -> str:
        licensing = {"name": "Apache-2.0", "link": None, "texts": [], "notice": "Gemma is provided"}
        agreements = {"The fused weights": ExportAgreement(cases=60, largest=1e-5, decided_otherwise=0)}
        sizes = {"model": 90_300_000, "Notice": 120}
        return model_card(bundle.model_copy(update=changes), licensing, agreements, VARIANT, MODEL, sizes)

    return text


def test_the_card_has_the_tables_of_the_report_about_its_evaluation(card):
    text = card(licence="Apache-2.0")
    (recall,) = query(
        "FROM metric WHERE evaluation_id = 'e4' AND rule = 'target_recall' AND metric = 'ed_recall'"
    ).itertuples()
    assert "| metric | this model | linear model (words, characters) | cases | interval by |" in text
    assert f"| ED recall | {recall.value:.3f} [{recall.low:.3f}, {recall.high:.3f}] | 1.000 [" in text
    rows = gate_rows(["e4"])
    assert len(rows) == 3
    for row in rows:
        assert f"| {' | '.join(gate_record(row).values())} |" in text
    assert "| experiment | ED missed | aim |" in text and "| test | 5 | 2 (40.0 %) |" in text
    assert "The review flag of Monte Carlo dropout" in text and "The fused weights: on 60 cases" in text
    assert "| model | 90.3 MB |" in text and "| Notice | 0.1 kB |" in text
    found = ModelCard(text).data
    assert found.base_model == "team/m" and found.license == "apache-2.0"
    assert (found.pipeline_tag, found.base_model_relation) == ("text-classification", "adapter")
    (of_recall,) = (result for result in found.eval_results if result.metric_type == "recall")
    assert of_recall.metric_value == pytest.approx(recall.value)
    assert set(of_recall.metric_args) == {"low", "high", "method", "n"}


def test_the_card_says_what_binds_and_what_to_mind(card):
    for changes, words in (
        ({"random_weights": True}, "> **Do not use this model for patients.** This model has random weights"),
        ({"licence": "Gemma Terms of Use"}, "Gemma is provided"),
        ({"licence": "MIT"}, "license: mit"),
        ({"adapter": None}, "library_name: mlx\npipeline_tag: text-generation\nbase_model_relation: finetune\n"),
        ({}, "Synthetic messages, written by rules"),
        ({"review": Review(available=True, entropy_limit=0.3)}, "sets and a review flag: `triage predict"),
        ({"review": Review(available=False, entropy_limit=0.3)}, "sets: `triage predict"),
    ):
        assert words in card(**changes), changes
