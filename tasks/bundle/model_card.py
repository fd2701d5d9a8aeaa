"""The model card of an export with the figures that its evaluation has landed, its example, and the
terms under which it may be passed on; card and example from the templates beside this file.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from jinja2 import Environment, PackageLoader, StrictUndefined

from tasks.bundle.bundle import Bundle, ExportResult, gate_figure
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
FIGURES = ("value", "low", "high", "method", "n", "note")  # columns of a landed metric
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

Row = dict[str, Any]  # one landed row, by column


@dataclass(frozen=True)
class CardMetric:
    """A metric on the test set with its 95 % interval.

    `hub_type`: what the Hub calls it; `value` is None where `note` says why.
    """

    name: str
    hub_type: str
    value: float | None
    low: float | None
    high: float | None
    method: str
    n: int
    note: str | None


@dataclass(frozen=True)
class SetSize:
    """How many cases of a set have which label; `groups` is None where none has a group."""

    name: str
    cases: int
    labels: tuple[int, int, int]
    groups: int | None


@dataclass(frozen=True)
class CardFigures:
    """`metrics` under the model's own rule; `conformal_miss`: the share of emergencies that the
    conformal sets missed; `data`: name of the data set, and `sets`, which are empty where it was
    not described in this home.
    """

    metrics: tuple[CardMetric, ...]
    conformal_miss: CardMetric
    data: str
    sets: tuple[SetSize, ...]

    @property
    def rows(self) -> tuple[CardMetric, ...]:
        """Every figure of the card's table."""
        return (*self.metrics, self.conformal_miss)


@dataclass(frozen=True)
class Licensing:
    """The licence of a base model. `link`: where its text is; `texts`: files of it in the folder;
    `notice`: the content of the file Notice.
    """

    name: str
    link: str | None
    texts: tuple[str, ...]
    notice: str

    @property
    def missing(self) -> str | None:
        """What has to be added before the folder is passed on; None where nothing has to."""
        if self.name in SPDX or self.texts or self.link is None:
            return None
        return f"the text of the terms is not among the files: add a copy from {self.link}"


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
    rewritten = {
        "The fused weights": card.result.fused,
        "`model.gguf` (float16)": card.result.gguf,
    }
    return _template("model_card.md.jinja").render(
        card=card,
        bundle=card.bundle,
        figures=card.figures,
        metadata=yaml.safe_dump(metadata(card), sort_keys=False, allow_unicode=True, width=1000),
        is_gemma=is_gemma(card.bundle),
        written=[(name, agreed) for name, agreed in rewritten.items() if agreed is not None],
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
    entries: dict[str, Any] = {"license": "other", "license_name": bundle.licence}
    if is_gemma(bundle):
        entries = {"license": "gemma", "license_link": card.licensing.link}
    elif bundle.licence in HUB_LICENCES:
        entries = {"license": HUB_LICENCES[bundle.licence]}
    if repo := base_repository(card.model, card.variant):
        entries["base_model"] = repo

    metrics = [
        {
            "type": metric.hub_type,
            "name": f"{metric.name}, rule {bundle.rule.name}",
            "value": metric.value,
            "args": {
                "low": metric.low,
                "high": metric.high,
                "method": metric.method,
                "n": metric.n,
            },
        }
        for metric in card.figures.metrics
        if metric.value is not None
    ]
    data = card.figures.data
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


def _figure(metric: CardMetric) -> str:
    """A value with its interval, or why there is none."""
    if metric.value is None:
        return metric.note or "not available"
    if metric.low is None or metric.high is None:
        reason = (metric.note or metric.method).removeprefix(NO_INTERVAL)
        return f"{metric.value:.3f} ({NO_INTERVAL}{reason})"
    return f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]"


def card_figures(home: Path, bundle: Bundle) -> CardFigures:
    """The figures of the evaluation that judged the bundle's model."""
    folder = home / "landing" / bundle.judged_on.evaluation_id
    of_rule = {
        row["metric"]: row for row in _rows(folder, "metric") if row["rule"] == bundle.rule.name
    }
    data = home / "landing" / f"dataset-{bundle.judged_on.dataset_digest}"
    described = _rows(data, "dataset") if (data / "dataset.parquet").is_file() else []
    sets = _rows(data, "dataset_set") if described else []
    (conformal,) = _rows(folder, "conformal")
    learned_first = {name: place for place, name in enumerate(SETS)}

    return CardFigures(
        metrics=tuple(
            CardMetric(name, hub_type, *(of_rule[metric][column] for column in FIGURES))
            for metric, name, hub_type in METRICS
            if metric in of_rule
        ),
        conformal_miss=CardMetric(
            name="emergencies without ED in their conformal set",
            hub_type="conformal_miss_rate",
            value=conformal["ed_miss_rate"],
            low=conformal["miss_low"],
            high=conformal["miss_high"],
            method=conformal["miss_method"] or "none",
            n=conformal["ed_cases"] or 0,
            note=conformal["note"],
        ),
        data=described[0]["dataset"] if described else bundle.judged_on.dataset_digest,
        sets=tuple(
            SetSize(
                row["name"],
                row["cases"],
                (row["ed_cases"], row["gp_cases"], row["home_cases"]),
                row["groups"],
            )
            for row in sorted(sets, key=lambda row: learned_first.get(row["name"], len(SETS)))
        ),
    )


def _rows(folder: Path, table: str) -> list[Row]:
    import pyarrow.parquet as pq  # slow to import

    rows: list[Row] = pq.read_table(folder / f"{table}.parquet").to_pylist()
    return rows


def write_terms(bundle: Bundle, weights: Path, home: Path, folder: Path) -> Licensing:
    """Put the licence texts that came with the weights, and the notice, into `folder`."""
    variant = VariantManifest.read(weights)
    texts = _copy_texts(variant.source_digest, home, folder)
    link = bundle.terms or SPDX.get(bundle.licence)
    if is_gemma(bundle):
        lines = [f"{GEMMA}.", GEMMA_RESTRICTIONS]
    else:
        address = f" ({link})" if link else ""
        lines = [
            f"The base model {bundle.base_model} is under the licence {bundle.licence}{address}."
        ]
    notice = "\n\n".join([*lines, CHANGED]) + "\n"
    licensing = Licensing(bundle.licence, link, texts, notice)
    (folder / NOTICE_FILE).write_text(licensing.notice, encoding="utf-8")
    return licensing


def is_gemma(bundle: Bundle) -> bool:
    """Whether Google's terms for Gemma bind a model."""
    return "gemma" in bundle.licence.lower() or "gemma" in (bundle.terms or "")


def _copy_texts(source_digest: str, home: Path, folder: Path) -> tuple[str, ...]:
    """The licence texts of the source of the weights; their names in the folder."""
    sources = home / "sources"
    for source in sorted(sources.iterdir()) if sources.is_dir() else ():
        manifest = Manifest.read_if_complete(source)
        if manifest is not None and manifest.digest == source_digest:
            if not (source / LICENCES).is_dir():
                return ()
            shutil.copytree(source / LICENCES, folder / LICENCES)
            return tuple(
                path.relative_to(folder).as_posix()
                for path in sorted((folder / LICENCES).rglob("*"))
                if path.is_file()
            )

    return ()
