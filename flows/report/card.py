"""The model card of an export: the report's tables about one evaluation as Markdown, in the words of
model_card.md.jinja, below metadata that the Hub reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml  # type: ignore[import-untyped]
from jinja2 import Environment, PackageLoader, StrictUndefined

from flows.report.curves import calibration, review
from flows.report.figures import BASELINES, UNTUNED, file_size, heading, listed_name, metric_cell
from flows.report.models import gate_table
from flows.report.rows import CONSTANT_ANSWERS, Row, Study, metrics_of, rows_of
from flows.report.sections import data_card
from flows.report.table import Table, markdown_rows
from tasks.bundle.bundle import Bundle, ExportAgreement
from tasks.bundle.terms import base_repository, is_gemma
from tasks.models.manifest import VariantManifest
from tasks.spec import CHOSEN_AGAIN, KEPT, LABELS, BaseModelSpec
from warehouse.connect import quoted, snapshot

THRESHOLD_KEPT = "threshold kept"  # the column of a moved adapter by the rule that it had
HUB_LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit"}
# Metrics of the card by their names in the warehouse, and as the Hub knows them.
METRICS = {
    "ed_recall": "recall",
    "over_triage": "over_triage",
    "under_triage": "under_triage",
    "ed_precision": "precision",
    "ed_f2": "f2",
    "accuracy": "accuracy",
    "macro_f1": "f1",
}


def model_card(
    bundle: Bundle,
    licensing: Mapping[str, Any],
    agreements: Mapping[str, ExportAgreement],
    variant: VariantManifest,
    model: BaseModelSpec,
    sizes: Mapping[str, int],
) -> str:
    """README.md of an export, with the figures of the evaluation that judged its model.

    `licensing`: of `write_terms`; `agreements`: how what was written differs, by its name; `model`:
    the base model as the grid listed it; `sizes`: bytes by part of the folder.
    """
    judged_on = bundle.judged_on
    with snapshot():
        rows = rows_of(
            f"evaluation_summary WHERE evaluation_set = 'test' AND set_digest = "
            f"{quoted(judged_on.test_digest)} ORDER BY created_at"
        )
        (evaluation,) = (row for row in rows if row.evaluation_id == judged_on.evaluation_id)
        evaluation.dataset_digest = judged_on.dataset_digest
        same = (bundle.base_model, bundle.precision)
        latest = {
            row.recipe: row
            for row in rows
            if row.is_baseline
            and (row.precision is None or (row.base_model, row.precision) == same)
        }
        baselines = [latest[recipe] for recipe in (*BASELINES, UNTUNED) if recipe in latest]
        if evaluation.moved_rules == CHOSEN_AGAIN:
            source = (evaluation.source_training_id, evaluation.precision, KEPT)
            baselines[:0] = [
                row
                for row in rows
                if (row.source_training_id, row.precision, row.moved_rules) == source
            ][-1:]
        metrics = metrics_of([evaluation, *baselines], METRICS)
        study = Study(None, [evaluation], ids=[evaluation.evaluation_id])
        tables = {
            "results": results(bundle, evaluation, baselines, metrics),
            "conformal": calibration(study).tables[-1],
            "gates": gate_table(evaluation.evaluation_id),
            "review": review(study).tables[0],
            "sets": next(iter(data_card(study).tables), None),
        }
        datasets = rows_of(f"dataset WHERE dataset_digest = {quoted(judged_on.dataset_digest)}")
    data = datasets[0].dataset if datasets else judged_on.dataset_digest

    of_model = {
        name: metrics.get((evaluation.evaluation_id, bundle.rule.name, name)) for name in METRICS
    }
    metadata = hub_metadata(bundle, of_model, data)
    if is_gemma(bundle):
        metadata |= {"license": "gemma", "license_link": licensing["link"]}
    if repository := base_repository(model, variant):
        metadata["base_model"] = repository
    environment = Environment(
        loader=PackageLoader("flows.report", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, no HTML
    )
    environment.filters |= {"rows": markdown_rows, "file_size": file_size}
    return environment.get_template("model_card.md.jinja").render(
        bundle=bundle,
        data=data,
        tables=tables,
        licensing=licensing,
        variant=variant,
        sizes=sizes,
        metadata=yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=1000),
        is_gemma=is_gemma(bundle),
        agreements=agreements,
        labels=LABELS,
    )


def results(
    bundle: Bundle,
    evaluation: Row,
    baselines: list[Row],
    metrics: Mapping[tuple[str, str, str], Row],
) -> Table:
    """A line for each metric: the model by its own rule beside baselines by the same one, each with
    its own threshold. A constant answer decides alike by every rule. A moved adapter stands beside
    itself with its threshold kept.
    """
    rule = bundle.rule.name
    records = []
    for name in METRICS:
        own = metrics.get((evaluation.evaluation_id, rule, name))
        if own is None:
            continue
        record = {"metric": heading(name), "this model": metric_cell(own)}
        for row in baselines:
            applied = "argmax" if row.recipe in CONSTANT_ANSWERS else rule
            metric = metrics.get((row.evaluation_id, applied, name))
            record[THRESHOLD_KEPT if row.moved_rules else listed_name(row)] = metric_cell(metric)
        why = own.method if own.low is not None else own.note or own.method
        records.append(record | {"cases": str(own.n), "interval by": why})
    return Table("Results", records)


def hub_metadata(bundle: Bundle, of_model: Mapping[str, Row | None], data: str) -> dict[str, Any]:
    """The card's metadata as the Hub reads it, with the metrics in its `model-index`."""
    licence: dict[str, Any] = {"license": "other", "license_name": bundle.licence}
    if bundle.licence in HUB_LICENCES:
        licence = {"license": HUB_LICENCES[bundle.licence]}
    metrics = [
        {
            "type": METRICS[name],
            "name": f"{heading(name)}, rule {bundle.rule.name}",
            "value": row.value,
            "args": {"low": row.low, "high": row.high, "method": row.method, "n": row.n},
        }
        for name, row in of_model.items()
        if row is not None and row.value is not None
    ]
    name = "embedded synthetic cases" if bundle.judged_on.synthetic else data
    judged = {
        "task": {"type": "text-classification", "name": "triage into ED, GP or HOME"},
        "dataset": {"type": data, "name": name, "split": "test"},
        "metrics": metrics,
    }
    unsafe = ["unsafe"] if bundle.warning else []
    # By the task the Hub shows `load("owner/name")`, or how to download what that cannot load.
    task, relation = (
        ("text-classification", "adapter") if bundle.adapter else ("text-generation", "finetune")
    )
    return licence | {
        "library_name": "mlx",
        "pipeline_tag": task,
        "base_model_relation": relation,
        "tags": ["mlx", "lora", "triage", bundle.precision, "research-only", *unsafe],
        "model-index": [{"name": bundle.model_id, "results": [judged]}],
    }
