"""The sections of a report in their order, and the reports that hold tables alone: on the terminal, and
as the Markdown of an artifact.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from flows.report import curves, models, precisions
from flows.report.answer import answer
from flows.report.figures import disclaimer
from flows.report.models import first_table
from flows.report.rows import Study, rows_of
from flows.report.table import Section, Table, as_markdown
from tasks.corpus.case import SETS
from tasks.spec import LABELS
from warehouse.connect import listed, snapshot

ENVIRONMENT = (
    *("triage_version", "engine_version", "mlx_version", "mlx_lm_version", "backend"),
    *("compute_path", "compute_dtype", "blas", "machine", "weights_source", "original_precision"),
)


def data_card(study: Study) -> Section:
    """The cases that the models learned from and were judged on: a line for each set."""
    digests = listed({row.dataset_digest for row in study.board if row.dataset_digest})
    rows = rows_of(f"dataset JOIN dataset_set USING (dataset_id) WHERE dataset_digest IN {digests}")
    places = {name: place for place, name in enumerate(SETS)}
    rows.sort(key=lambda row: (row.dataset_digest, places.get(row.name, len(SETS)), row.name))
    records = []
    findings: dict[str, None] = {}
    for row in rows:
        origin = "the project's own synthetic" if row.is_embedded else "the user's own"
        findings[
            f"Dataset {row.dataset} {row.dataset_digest}: {origin} cases, seed {row.seed}."
        ] = None
        record = {"set": row.name, "cases": str(row.cases)}
        for label in LABELS:
            count = getattr(row, f"{label.lower()}_cases")
            record[label] = f"{count} ({100 * count / (row.cases or 1):.1f} %)"
        records.append(record | {"groups": "-" if row.groups is None else str(row.groups)})
    return Section([Table("Sets", records)] if records else [], findings=list(findings))


def environment(study: Study) -> Section:
    """Versions and machines, a line for each environment, and commands."""
    trainings = listed({row.training_id for row in study.board})
    rows = rows_of(
        f"(SELECT {', '.join(ENVIRONMENT)}, count(*) AS trainings, sum(train_seconds) / 3600 AS hours "
        f"FROM experiment WHERE training_id IN {trainings} AND precision IS NOT NULL "
        "GROUP BY ALL ORDER BY ALL)"
    )
    records = [
        {
            column.replace("_", " "): f"{value:.2f}"
            if isinstance(value, float)
            else str(value or "-")
            for column, value in vars(row).items()
        }
        for row in rows
    ]
    name = "" if study.name is None else f" {study.name}"
    commands = [f"triage compare{name} --all", f"triage report{name}", "triage sql --list"]
    if study.grid:
        settings = "with the grid file and the --set values that the study had"
        commands.insert(0, f"triage sweep {study.grid}  # {settings}")
    return Section([Table("Environments", records)] if records else [], commands=commands)


SECTIONS: dict[str, Callable[[Study], Section]] = {
    "forest": precisions.forest,
    "baselines": models.baselines,
    "gates": models.gates,
    "frontier": precisions.frontier,
    "rules": models.rules,
    "confusion": models.confusion,
    "flips": precisions.flips,
    "reliability": curves.reliability,
    "decision-curves": curves.decision_curves,
    "calibration": curves.calibration,
    "risk-coverage": curves.review,
    "subgroups": models.subgroups,
    "other-sets": models.other_sets,
    "fidelity": precisions.fidelity,
    "learning": curves.learning,
    "data": data_card,
    "environment": environment,
}
# The sections that an option of `triage compare` asks for.
ASKED = {
    "models": ("baselines",),
    "pairs": ("forest",),
    "gates": ("gates",),
    "rules": ("rules", "confusion"),
    "calibration": ("calibration",),
    "review": ("risk-coverage",),
    "flips": ("flips",),
    "fidelity": ("fidelity", "frontier"),
}


def tables_of(studies: Sequence[Study], asked: Collection[str] | None = None) -> list[Table]:
    """The tables of a study on each of its test sets: of all sections, or of those that these options
    ask for.
    """
    ids = SECTIONS if asked is None else [id for name in asked for id in ASKED[name]]
    with snapshot():
        return [
            table.noted(study.set_name)
            for study in studies
            for id in ids
            for table in SECTIONS[id](study).tables
            if len(table)
        ]


def comparison_markdown(studies: Sequence[Study]) -> str:
    """What `triage sweep` prints, as Markdown: the answer, the models, and where the rest is."""
    if not studies:
        return "The warehouse holds no finished experiment yet."
    study = studies[0]
    parts = [f"**{answer(study).sentence}**", as_markdown(first_table(study, digits=0, brief=True))]
    if sets := ", ".join(one.set_name for one in studies[1:]):
        parts.append(f"Judged before, on other cases: {sets}.")
    parts.append(f"For more: `triage compare {study.name or ''} --all`, `triage report --open`.")
    parts.append(disclaimer({row.set_digest for one in studies for row in one.board}))
    return "\n\n".join(parts)
