"""The model card of an export with the figures that its evaluation has landed, its example, and the
terms under which it may be passed on; card and example from the templates beside this file.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from jinja2 import Environment, PackageLoader, StrictUndefined

from tasks.bundle.bundle import Bundle, Catch, ExportAgreement, Row, gate_figure, landed_rows
from tasks.corpus.case import SETS
from tasks.models.manifest import VariantManifest
from tasks.runtime.store import Manifest
from tasks.spec import LABELS, BaseModelSpec, HubSource

HUB_LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit"}
NO_INTERVAL = "no interval: "  # notes of metrics begin with it
VARIANT_SUFFIXES = ("", "-it", "-Instruct")  # of repositories beside that of the base model
# Metrics of the card: the name of each in the warehouse, in words, and as the Hub knows it.
METRICS = (
    ("ed_recall", "ED recall (sensitivity)", "recall"),
    ("over_triage", "over-triage (share sent somewhere more urgent)", "over_triage"),
    ("under_triage", "under-triage (share sent somewhere less urgent)", "under_triage"),
    ("ed_precision", "ED precision", "precision"),
    ("ed_f2", "ED F2", "f2"),
    ("accuracy", "accuracy", "accuracy"),
    ("macro_f1", "macro F1", "f1"),
)
# Baselines beside the model, by the beginning of their evaluations' ids.
CONSTANT_ANSWERS = {"always_gp": "always GP", "always_ed": "always ED"}
BASELINES = CONSTANT_ANSWERS | {"linear": "linear model", "tfidf_lr": "bag of words"}
NOTICE_FILE = "Notice"
LICENCES = "licences"
SPDX = {"Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0"}
GEMMA = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at "
    "ai.google.dev/gemma/terms"
)
GEMMA_RESTRICTIONS = (
    "Whoever uses, changes or passes on these files must keep to the use restrictions of section "
    "3.2 of those terms and to the Gemma Prohibited Use Policy "
    "(ai.google.dev/gemma/prohibited_use_policy), and must pass both on, together with a copy of "
    "the terms and this notice, to whoever gets the files from them."
)
CHANGED = (
    "The files of this folder are modified: the weights were converted to MLX and stored at "
    "another precision, and an adapter was trained on them."
)


def render_card(
    bundle: Bundle,
    figures: dict[str, Any],
    licensing: dict[str, Any],
    agreements: dict[str, ExportAgreement],
    variant: VariantManifest,
    model: BaseModelSpec,
    sizes: dict[str, int],
) -> str:
    """README.md: YAML that the Hub reads, then the card.

    `agreements`: how what was written differs, by its name; `model`: the base model as the grid listed it; `sizes`: bytes
    by part of the folder.
    """
    metadata = _metadata(bundle, figures, licensing["link"], base_repository(model, variant))
    return _template("model_card.md.jinja").render(
        bundle=bundle,
        figures=figures,
        licensing=licensing,
        variant=variant,
        sizes=sizes,
        metadata=yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=1000),
        is_gemma=is_gemma(bundle),
        agreements=agreements,
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


def _metadata(
    bundle: Bundle, figures: dict[str, Any], terms: str | None, repository: str | None
) -> dict[str, Any]:
    """The card's metadata as the Hub reads it, with the metrics in its `model-index`."""
    entries: dict[str, Any] = {"license": "other", "license_name": bundle.licence}
    if is_gemma(bundle):
        entries = {"license": "gemma", "license_link": terms}
    elif bundle.licence in HUB_LICENCES:
        entries = {"license": HUB_LICENCES[bundle.licence]}
    if repository:
        entries["base_model"] = repository

    metrics = [
        {
            "type": metric["hub_type"],
            "name": f"{metric['name']}, rule {bundle.rule.name}",
            "value": metric["value"],
            "args": {name: metric[name] for name in ("low", "high", "method", "n")},
        }
        for metric in figures["metrics"]
        if metric["value"] is not None
    ]
    data = figures["data"]
    name = "embedded synthetic cases" if bundle.judged_on.synthetic else data
    results = {
        "task": {"type": "text-classification", "name": "triage into ED, GP or HOME"},
        "dataset": {"type": data, "name": name, "split": "test"},
        "metrics": metrics,
    }
    unsafe = ["unsafe"] if bundle.warning else []
    return entries | {
        "library_name": "mlx",
        "pipeline_tag": "text-generation",
        "tags": ["mlx", "lora", "triage", bundle.precision, "research-only", *unsafe],
        "model-index": [{"name": bundle.model_id, "results": [results]}],
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


def _figure(metric: Row) -> str:
    """A value with its interval, or why there is none."""
    value, low, high, note = (metric[name] for name in ("value", "low", "high", "note"))
    if value is None:
        return note or "not available"
    if low is None or high is None:
        reason = (note or metric["method"]).removeprefix(NO_INTERVAL)
        return f"{value:.3f} ({NO_INTERVAL}{reason})"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def card_figures(home: Path, bundle: Bundle) -> dict[str, Any]:
    """The figures of the evaluation that judged the bundle's model: landed `metrics` under the
    model's own rule, each with its `name` in words and its `hub_type`; `conformal_miss`, the share
    of emergencies that the conformal sets missed; `review`, what the review flag catches, or why
    there is none; `baselines`, the same metrics of each baseline that was judged on these cases, by
    its name in words; `data`, the name of the data set, and its landed `sets`, which are empty where
    it was not described in this home.
    """
    folder = home / "landing" / bundle.judged_on.evaluation_id
    of_rule = _metrics(folder, bundle.rule.name)
    metrics = [
        of_rule[metric] | {"name": name, "hub_type": hub_type}
        for metric, name, hub_type in METRICS
        if metric in of_rule
    ]
    (conformal,) = landed_rows(folder, "conformal")
    conformal_miss = {
        "name": "emergencies without ED in their conformal set",
        "value": conformal["ed_miss_rate"],
        "low": conformal["miss_low"],
        "high": conformal["miss_high"],
        "method": conformal["miss_method"] or "none",
        "n": conformal["ed_cases"] or 0,
        "note": conformal["note"],
    }
    figures = {
        "metrics": metrics,
        "conformal_miss": conformal_miss,
        "review": _review(bundle, folder),
        "baselines": _baselines(home, bundle),
    }

    data = home / "landing" / f"dataset-{bundle.judged_on.dataset_digest}"
    if not (data / "dataset.parquet").is_file():
        return figures | {"data": bundle.judged_on.dataset_digest, "sets": []}
    # The own sets in the order in which they are used, then the others.
    places = {name: place for place, name in enumerate(SETS)}
    sets = sorted(
        landed_rows(data, "dataset_set"), key=lambda row: places.get(row["name"], len(SETS))
    )
    return figures | {"data": landed_rows(data, "dataset")[0]["dataset"], "sets": sets}


def _review(bundle: Bundle, folder: Path) -> str:
    """What the review flag catches, by a landed evaluation, or why there is none."""
    flags = {row["score"]: Catch.of(row) for row in landed_rows(folder, "review_flag")}
    if flags and bundle.review.available:
        return flags["vote_entropy"].beside(flags["max_probability"])

    (evaluation,) = landed_rows(folder, "evaluation")
    reason = evaluation["mc_reason"] or "the primary rule gave no decision to judge the flag by"
    return bundle.review.why_not or f"not available: {reason}"


def _metrics(folder: Path, rule: str) -> dict[str, Row]:
    """The landed metrics of an evaluation under a rule, by name."""
    return {row["metric"]: row for row in landed_rows(folder, "metric") if row["rule"] == rule}


def _baselines(home: Path, bundle: Bundle) -> dict[str, dict[str, Row]]:
    """The metrics of baselines on the model's test cases by its rule, of each the latest.

    A constant answer has no scores to choose a threshold on, and decides alike by every rule.
    """
    untuned = f"{bundle.base_model}-{bundle.precision}-zero_shot"
    figures = {}
    for beginning, name in (BASELINES | {untuned: "the untuned model"}).items():
        judged = []
        for file in (home / "landing").glob(f"{beginning}-*/evaluation.parquet"):
            (evaluation,) = landed_rows(file.parent, "evaluation")
            if evaluation["set_digest"] == bundle.judged_on.test_digest:
                judged.append((evaluation["created_at"], file.parent))
        if judged:
            rule = "argmax" if beginning in CONSTANT_ANSWERS else bundle.rule.name
            figures[name] = _metrics(max(judged)[1], rule)
    return figures


def write_terms(bundle: Bundle, weights: Path, home: Path, folder: Path) -> dict[str, Any]:
    """Put the licence texts that came with the weights, and the notice, into `folder`.

    Returns the `name` of the licence, the `link` to its text, the files `texts` and the content of
    the file Notice, `notice`; `missing`: what has to be added before the folder is passed on, None
    where nothing has to.
    """
    variant = VariantManifest.read(weights)
    texts = _copy_texts(variant.source_digest, home, folder)
    link = bundle.terms or SPDX.get(bundle.licence)
    missing = None
    if bundle.licence not in SPDX and not texts and link is not None:
        missing = f"the text of the terms is not among the files: add a copy from {link}"

    address = f" ({link})" if link else ""
    lines = [f"The base model {bundle.base_model} is under the licence {bundle.licence}{address}."]
    if is_gemma(bundle):
        lines = [f"{GEMMA}.", GEMMA_RESTRICTIONS]
    notice = "\n\n".join([*lines, CHANGED]) + "\n"
    (folder / NOTICE_FILE).write_text(notice, encoding="utf-8")
    return {
        "name": bundle.licence,
        "link": link,
        "texts": texts,
        "notice": notice,
        "missing": missing,
    }


def is_gemma(bundle: Bundle) -> bool:
    """Whether Google's terms for Gemma bind a model."""
    return "gemma" in bundle.licence.lower() or "gemma" in (bundle.terms or "")


def _copy_texts(source_digest: str, home: Path, folder: Path) -> list[str]:
    """The licence texts of the source of the weights; their names in the folder."""
    sources = home / "sources"
    for source in sorted(sources.iterdir()) if sources.is_dir() else ():
        manifest = Manifest.read_if_complete(source)
        if manifest is not None and manifest.digest == source_digest:
            if not (source / LICENCES).is_dir():
                return []
            shutil.copytree(source / LICENCES, folder / LICENCES)
            texts = sorted(path for path in (folder / LICENCES).rglob("*") if path.is_file())
            return [path.relative_to(folder).as_posix() for path in texts]

    return []
