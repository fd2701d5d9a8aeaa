"""The model card of an export, and its example: rendered from the templates beside this file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from jinja2 import Environment, PackageLoader, StrictUndefined

from tasks.bundle.bundle import Bundle
from tasks.bundle.card_figures import CardFigures, CardMetric
from tasks.bundle.export_arguments import ExportAgreement, ExportResult
from tasks.bundle.gate_figure import gate_figure
from tasks.bundle.terms import Licensing, is_gemma
from tasks.models.manifest import VariantManifest
from tasks.spec import LABELS, BaseModelSpec, HubSource

HUB_LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit"}
NO_INTERVAL = "no interval: "  # notes of metrics begin with it
VARIANT_SUFFIXES = ("", "-it", "-Instruct")  # of repositories beside that of the base model


@dataclass(frozen=True)
class CardInput:
    """Everything that a card tells: the bundle, its figures, what the export measured, and where
    the weights came from.

    `model`: the base model as the grid listed it; `sizes`: bytes by part of the folder.
    """

    bundle: Bundle
    figures: CardFigures
    result: ExportResult
    licensing: Licensing
    variant: VariantManifest
    model: BaseModelSpec
    sizes: dict[str, int]


def render_card(card: CardInput) -> str:
    """README.md: YAML that the Hub reads, then the card."""
    return _template("model_card.md.jinja").render(
        card=card,
        bundle=card.bundle,
        figures=card.figures,
        metadata=yaml.safe_dump(metadata(card), sort_keys=False, allow_unicode=True, width=1000),
        is_gemma=is_gemma(card.bundle),
        written=_agreements(card.result),
        labels=LABELS,
    )


def render_example(bundle: Bundle, prompt: dict[str, Any]) -> str:
    """example.py, which needs stock mlx-lm alone. `prompt`: the entries of prompt.json."""
    costs = bundle.rule.costs
    matrix = [[costs[truth][answer] for answer in LABELS] for truth in LABELS] if costs else None
    return _template("example.py.jinja").render(
        bundle=bundle,
        chat="messages" in prompt,
        single_token=all(len(answer) == 1 for answer in prompt["answers"]),
        costs=matrix,
    )


def metadata(card: CardInput) -> dict[str, Any]:
    """The card's metadata as the Hub reads it, with the metrics in its `model-index`."""
    bundle = card.bundle
    entries: dict[str, Any] = _licence_entries(card)
    if repo := base_repository(card.model, card.variant):
        entries["base_model"] = repo

    return entries | {
        "library_name": "mlx",
        "pipeline_tag": "text-generation",
        "tags": ["mlx", "lora", "triage", bundle.precision, "research-only", *_unsafe_tag(bundle)],
        "model-index": [{"name": bundle.model_id, "results": [_results(card)]}],
    }


def base_repository(model: BaseModelSpec, variant: VariantManifest) -> str | None:
    """The Hub repository of the base model whose weights were used; None where none is known.

    A GGUF file of a package is named after its repository; the listed one may be its tuned sister.
    """
    source = variant.source.model_dump()
    if source["kind"] == "hub":
        return str(source["repo"])
    if source["kind"] != "package":
        return None

    file = Path(source["file"]).name.lower()
    for listed in (entry.repo for entry in model.sources if isinstance(entry, HubSource)):
        for suffix in VARIANT_SUFFIXES:
            repo = listed.removesuffix(suffix)
            if file.startswith(repo.partition("/")[2].lower()):
                return repo

    return None


def _licence_entries(card: CardInput) -> dict[str, Any]:
    if is_gemma(card.bundle):
        return {"license": "gemma", "license_link": card.licensing.link}

    licence = HUB_LICENCES.get(card.bundle.licence)
    return (
        {"license": licence}
        if licence
        else {"license": "other", "license_name": card.bundle.licence}
    )


def _unsafe_tag(bundle: Bundle) -> list[str]:
    return ["unsafe"] if bundle.warning else []


def _results(card: CardInput) -> dict[str, Any]:
    name = "embedded synthetic cases" if card.bundle.judged_on.synthetic else card.figures.data
    return {
        "task": {"type": "text-classification", "name": "triage into ED, GP or HOME"},
        "dataset": {"type": card.figures.data, "name": name, "split": "test"},
        "metrics": [
            _hub_metric(metric, card.bundle.rule.name)
            for metric in card.figures.metrics
            if metric.value is not None
        ],
    }


def _hub_metric(metric: CardMetric, rule: str) -> dict[str, Any]:
    interval = {"low": metric.low, "high": metric.high, "method": metric.method, "n": metric.n}
    return {
        "type": metric.hub_type,
        "name": f"{metric.name}, rule {rule}",
        "value": metric.value,
        "args": interval,
    }


def _agreements(result: ExportResult) -> list[tuple[str, ExportAgreement]]:
    """The models that were rewritten, in words, with how they agree with the trained one."""
    agreements = (("The fused weights", result.fused), ("`model.gguf` (float16)", result.gguf))
    return [(name, agreement) for name, agreement in agreements if agreement is not None]


def _template(name: str) -> Any:
    environment = Environment(
        loader=PackageLoader("tasks.bundle"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown and Python, no HTML
    )
    environment.filters["figure"] = _figure
    environment.filters["gate_figure"] = gate_figure
    environment.filters["megabytes"] = _megabytes

    return environment.get_template(name)


def _megabytes(count: float) -> str:
    """Bytes as `90.3 MB`; as `2.1 kB` where they would read 0.0 MB."""
    return f"{count / 1e6:.1f} MB" if count >= 5e4 else f"{count / 1e3:.1f} kB"


def _figure(metric: CardMetric) -> str:
    """A value with its interval, or why there is none."""
    if metric.value is None:
        return metric.note or "not available"
    if metric.low is None or metric.high is None:
        reason = (metric.note or metric.method).removeprefix(NO_INTERVAL)
        return f"{metric.value:.3f} ({NO_INTERVAL}{reason})"
    return f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]"
