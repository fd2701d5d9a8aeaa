"""Figures, names and verdicts as every table and chart has them, and the note below a comparison."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from flows.report.rows import RANDOM as RANDOM
from flows.report.rows import Row, interval_of, is_number, rows_of
from tasks.bundle.bundle import NOT_A_DEVICE, SYNTHETIC
from tasks.bundle.bundle import gate_figure as gate_figure
from tasks.corpus.manifest import embedded_digests
from tasks.runtime.home import home
from tasks.spec import EMBEDDED_EVALUATION_SETS, GATE_THRESHOLDS
from warehouse.connect import listed, warehouse_path

ED_RECALL = GATE_THRESHOLDS["ed_recall"]


def figure(
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    digits: int = 3,
    sign: bool = False,
    gate: float | None = None,
) -> str:
    """A figure with its 95 % interval, `0.912 [0.871, 0.944]`, or the figure alone; `n/a` if there
    is none.

    `gate`: a number has more digits where `digits` would round it to this threshold or beyond.
    """
    form = f"{'+' if sign else ''}.{digits}f"
    texts = [
        f"{number:{form}}" if gate is None else gate_figure(number, gate, digits)
        for number in (value, low, high)
        if is_number(number)
    ]
    if not is_number(value):
        return "n/a"
    if len(texts) < 3:
        return texts[0]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def interval(row: Row, name: str, digits: int = 3) -> str:
    """The `figure` of the column `name` of a row with its interval, e.g. `ed_recall_low`."""
    gate = ED_RECALL if name == "ed_recall" else None
    return figure(*interval_of(row, name), digits=digits, gate=gate)


def in_percent(row: Row, name: str, digits: int) -> str:
    """The same in percent, as short as a narrow terminal needs it: `93 [86, 97]`."""
    values = [100 * value if is_number(value) else None for value in interval_of(row, name)]
    text = figure(*values, digits=digits, gate=100 * ED_RECALL if name == "ed_recall" else None)
    return text if digits else text.replace(", ", ",")


def cells(row: Row, *columns: str, digits: int = 3) -> dict[str, str]:
    """Columns of a row below their headings: a figure with its interval, a count, a time or words.

    Beside `accuracy_diff`, a difference, `accuracy_low` and `accuracy_high` are its interval.
    """
    record = {}
    for column in columns:
        stem = column.removesuffix("_diff")
        value = getattr(row, column)
        ends = (getattr(row, f"{stem}_{end}", None) for end in ("low", "high"))
        match value:
            case float():
                gate = ED_RECALL if column == "ed_recall" else None
                text = figure(value, *ends, digits=digits, sign=stem != column, gate=gate)
            case datetime():
                text = f"{value:%Y-%m-%d %H:%M:%S}"
            case _:
                text = "n/a" if value is None else str(value).replace("_", " ")
        record[heading(stem)] = text
    return record


def heading(column: str) -> str:
    """The heading of a column: `ED recall` for ed_recall."""
    words = HEADINGS.get(column, column.replace("_", " "))
    return f"ED{words[2:]}" if words.startswith("ed ") else words


def in_points(row: Row, unit: str = "") -> str:
    """The difference of a row in points of a hundred with its interval, `-0.5 [-3.5, +2.5]`, or
    alone; `n/a` if there is none; -0.01 is not 0. `unit`: stands behind the difference.
    """

    def points(share: float) -> str:
        rounded = f"{100 * share:+.1f}"
        return rounded if float(rounded) or not share else f"{100 * share:+.1g}"

    if not is_number(row.difference):
        return "n/a"
    text = f"{points(row.difference)}{unit}"
    if is_number(row.low) and is_number(row.high):
        text += f" [{points(row.low)}, {points(row.high)}]"
    return text


def why_not(note: str | None) -> str:
    """A landed note in a figure's place, e.g. `n/a: no ED case in this set`."""
    return f"n/a: {note.removeprefix('not available: ')}" if note else "n/a"


def metric_cell(metric: Row | None, missing: str = "n/a", digits: int = 3) -> str:
    """A row of the table `metric` as a figure with its interval, or why there is none; `missing`:
    where there is no such row.
    """
    if metric is None:
        return missing
    if not is_number(metric.value):
        return why_not(metric.note)
    return figure(metric.value, metric.low, metric.high, digits=digits)


def clock(seconds: float) -> str:
    """Seconds as people read them: 45 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def p_value(p: float) -> str:
    """A p value as it is printed: `p 0.012`, or `p < 0.001`."""
    return f"p {p:.3f}" if p >= 0.0005 else "p < 0.001"


def percent(share: float) -> str:
    """A share in three digits, so that neither 0.5 % nor 2.5 % is rounded to a whole one."""
    return f"{100 * share:.3g}%"


def counted(count: int, noun: str) -> str:
    """A count with its noun: `1 case`, `1,134 cases`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def file_size(count: int) -> str:
    """Bytes as `90.3 MB`, or as `2.1 kB` below a megabyte."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def megabytes(count: float | None, digits: int = 1) -> str:
    return f"{count / 1e6:.{digits}f}" if is_number(count) else "n/a"


HEADINGS = {
    "macro_f1": "macro-F1",
    "ed_f2": "ED F2",
    "over_triage": "over-triage",
    "under_triage": "under-triage",
    "ed_auroc": "ED AUROC",
    "mean_p_ed": "mean p(ED)",
    "brier": "Brier",
    "ed_brier": "Brier of ED",
    "ece": "ECE",
    "ed_ece": "ECE of ED",
}
# Baselines without a language model. A recipe may be named `baseline` too, so the word is avoided.
BASELINES = {
    "always_gp": "always-GP (constant answer)",
    "always_ed": "always-ED (constant answer)",
    "linear": "linear model (words, characters)",
    "tfidf_lr": "bag of words (TF-IDF, LR)",
}
UNTUNED = (
    "zero_shot"  # the recipe of an untuned model; a prompt that is not the default one follows
)


def listed_name(row: Row, marked: bool = True) -> str:
    """The name of a leaderboard row, as other commands take it. `marked`: it says where weights are
    random.
    """
    if row.precision is None:
        return BASELINES.get(row.recipe, row.recipe)
    return f"{row.cell_id}{random_mark(row) if marked else ''}"


def recipe_name(recipe: str, seed: int) -> str:
    """A recipe with its seed, or the words for a model that was not tuned."""
    if recipe.split(" ")[0] != UNTUNED:
        return f"{recipe} s{seed}"
    prompt = recipe.removeprefix(UNTUNED)
    return f"untuned (zero-shot){prompt}"


def pair_name(row: Row) -> str:
    """The name of what differs in precision alone: base model, recipe and seed."""
    return f"{row.base_model} {recipe_name(row.recipe, row.seed)}{random_mark(row)}"


def on_cases(row: Row) -> str:
    """The name of an evaluation; on a further set with its cases."""
    if row.evaluation_set == "test":
        return listed_name(row)
    cases = f"{row.cases} cases, {percent(row.ed_prevalence)} ED"
    return f"{listed_name(row)} on {row.evaluation_set} ({cases})"


def random_mark(row: Any) -> str:
    """What stands behind the name of an experiment whose weights are random."""
    return RANDOM if row.random_weights else ""


def verdict(row: Any) -> str:
    """The verdict of an evaluation, or why its set can give none: `unsafe` would be a finding."""
    if row.verdict != "unsafe" or row.ed_prevalence is None or 0 < row.ed_prevalence < 1:
        return str(row.verdict)
    if row.ed_prevalence == 0:
        return "not judged: no ED case"

    passes = row.ed_recall is not None and row.ed_recall >= ED_RECALL
    return "not judged: emergencies only" if passes else "unsafe"


def disclaimer(set_digests: Collection[str]) -> str:
    """One sentence about evaluations on these sets, some of which may hold embedded cases, by the
    data of this home or by the warehouse.
    """
    is_synthetic = bool(set(set_digests) & embedded_digests(home()))
    if not is_synthetic and warehouse_path().exists():
        # Results may come from another home, and a home's data may be removed. A further set is
        # known by its name alone, since what a row says is about the four own sets.
        is_synthetic = bool(
            rows_of(
                "dataset_set JOIN dataset USING (dataset_id) WHERE "
                f"set_digest IN {listed(set_digests)} AND "
                f"if(is_further, name IN {listed(EMBEDDED_EVALUATION_SETS)}, is_embedded)"
            )
        )
    return f"{NOT_A_DEVICE}; {SYNTHETIC}." if is_synthetic else f"{NOT_A_DEVICE}."
