"""Figures, names and verdicts as every table prints them, and the note below every comparison."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import partial
from typing import Any, TypeGuard

from flows.report.typed_rows import Row, rows_of
from tasks.bundle.bundle import NOT_A_DEVICE, SYNTHETIC
from tasks.bundle.bundle import gate_figure as gate_figure
from tasks.corpus.manifest import embedded_digests
from tasks.runtime.home import home
from tasks.spec import EMBEDDED_EVALUATION_SETS, GATE_THRESHOLDS
from warehouse.connect import listed, warehouse_path


def is_number(value: float | None) -> TypeGuard[float]:
    """Whether there is a figure: neither NULL nor NaN."""
    return value is not None and not math.isnan(value)


def figure(
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    digits: int = 3,
    sign: bool = False,
    below: bool = False,
    gate: float | None = None,
) -> str:
    """A figure with its 95 % interval, `0.912 [0.871, 0.944]`, or the figure alone; `n/a` if there
    is none.

    `below` puts the interval on a second line, for tables with many columns. `gate`: a number has
    more digits where `digits` would round it to this threshold or beyond.
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
    return f"{texts[0]}{chr(10) if below else ' '}[{texts[1]}, {texts[2]}]"


ed_recall_figure = partial(figure, gate=GATE_THRESHOLDS["ed_recall"])


def interval(row: Row, name: str, digits: int = 3, below: bool = False) -> str:
    """The `figure` of the column `name` of a row with its interval, e.g. `ed_recall_low`."""
    gate = GATE_THRESHOLDS["ed_recall"] if name == "ed_recall" else None
    numbers = (getattr(row, column) for column in (name, f"{name}_low", f"{name}_high"))
    return figure(*numbers, digits=digits, below=below, gate=gate)


def difference(row: Row, name: str) -> str:
    """The difference of a pair in the figure `name`, its interval below it."""
    numbers = (getattr(row, f"{name}_{part}") for part in ("diff", "low", "high"))
    return figure(*numbers, sign=True, below=True)


def points(difference: float) -> str:
    """A difference of shares in points of a hundred, with its sign: -0.4; -0.01 is not 0."""
    rounded = f"{100 * difference:+.1f}"
    return rounded if float(rounded) or not difference else f"{100 * difference:+.1g}"


def in_points(
    difference: float | None, low: float | None, high: float | None, unit: str = ""
) -> str:
    """A difference of shares with its interval, `-0.5 [-3.5, +2.5]`, or alone; `n/a` if there is none.

    `unit`: stands behind the difference.
    """
    if not is_number(difference):
        return "n/a"
    if not (is_number(low) and is_number(high)):
        return f"{points(difference)}{unit}"
    return f"{points(difference)}{unit} [{points(low)}, {points(high)}]"


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


def stacked(head: dict[str, str], records: list[dict[str, str]]) -> dict[str, str]:
    """One row of a table from several records, one below the other; `head`'s cells stand once.

    Where a cell has several lines, the other columns of that record wait for it.
    """
    columns: dict[str, list[str]] = {name: [] for record in records[:1] for name in record}
    for record in records:
        lines = {name: text.split("\n") for name, text in record.items()}
        height = max(len(cell) for cell in lines.values())
        for name, cell in lines.items():
            columns[name] += cell + [""] * (height - len(cell))
    return head | {name: "\n".join(lines).rstrip("\n") for name, lines in columns.items()}


def clock(seconds: float) -> str:
    """Seconds as people read them: 45 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def percent(share: float) -> str:
    """A share in three digits, so that neither 0.5 % nor 2.5 % is rounded to a whole one."""
    return f"{100 * share:.3g}%"


def counted(count: int, noun: str) -> str:
    """A count with its noun: `1 case`, `1,134 cases`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def file_size(count: int) -> str:
    """Bytes as `90.3 MB`, or as `2.1 kB` below a megabyte."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def megabytes(count: float | None) -> str:
    return f"{count / 1e6:.0f}" if is_number(count) else "n/a"


RANDOM = " (random weights)"  # behind the name of whatever was measured with them
# Baselines without a language model. A recipe may be named `baseline` too, so the word is avoided.
BASELINES = {
    "always_gp": "always-GP\n(constant answer)",
    "always_ed": "always-ED\n(constant answer)",
    "linear": "linear model\n(words, characters)",
    "tfidf_lr": "bag of words\n(TF-IDF, LR)",
}
CONSTANT_ANSWERS = ("always_gp", "always_ed")
UNTUNED = (
    "zero_shot"  # the recipe of an untuned model; a prompt that is not the default one follows
)


def baseline_name(row: Row) -> str:
    """The name of a baseline without a language model, on one line."""
    return BASELINES.get(row.recipe, row.recipe).replace("\n", " ")


def experiment_name(row: Row) -> str:
    """The name of a leaderboard row, on two lines."""
    if row.precision is None:
        return BASELINES.get(row.recipe, row.recipe)
    return (
        f"{row.base_model} {row.precision}\n{recipe_name(row.recipe, row.seed)}{random_mark(row)}"
    )


def listed_name(row: Row, marked: bool = True) -> str:
    """The name of a leaderboard row on one line, as other commands take it.

    `marked`: it says where weights are random.
    """
    if row.precision is None:
        return baseline_name(row)
    return f"{row.cell_id}{random_mark(row) if marked else ''}"


def recipe_name(recipe: str, seed: int) -> str:
    """A recipe with its seed, or the words for a model that was not tuned."""
    if recipe.split(" ")[0] != UNTUNED:
        return f"{recipe} s{seed}"
    prompt = recipe.removeprefix(UNTUNED).strip()
    return f"untuned (zero-shot, {prompt})" if prompt else "untuned (zero-shot)"


def pair_name(row: Row, marked: bool = True) -> str:
    """The name of what differs in precision alone: base model, recipe and seed.

    `marked`: it says where weights are random.
    """
    name = f"{row.base_model} {recipe_name(row.recipe, row.seed)}"
    return f"{name}{random_mark(row)}" if marked else name


def on_cases(row: Row) -> str:
    """The name of an evaluation: the experiment, and below it the cases that it was judged on."""
    set_name = "" if row.evaluation_set == "test" else f"{row.evaluation_set}: "
    return f"{listed_name(row)}\n{set_name}{row.cases} cases, {percent(row.ed_prevalence)} ED"


def random_mark(row: Any) -> str:
    """What stands behind the name of an experiment whose weights are random."""
    return RANDOM if row.random_weights else ""


def verdict(row: Any) -> str:
    """The verdict of an evaluation, or why its set can give none: `unsafe` would be a finding."""
    if row.verdict != "unsafe" or row.ed_prevalence is None or 0 < row.ed_prevalence < 1:
        return str(row.verdict)
    if row.ed_prevalence == 0:
        return "not judged:\nno ED case"

    passes = row.ed_recall is not None and row.ed_recall >= GATE_THRESHOLDS["ed_recall"]
    return "not judged:\nemergencies only" if passes else "unsafe"


def disclaimer(set_digests: Collection[str]) -> str:
    """One sentence about evaluations on these sets; it speaks of synthetic cases only where some
    are embedded ones, by the data of this home or by the warehouse.
    """
    judged = set(set_digests)
    is_synthetic = bool(judged & embedded_digests(home()))
    if not is_synthetic and warehouse_path().exists():
        # Results may come from another home, and a home's data may be removed. A further set is
        # known by its name alone, since what a row says is about the four own sets.
        is_synthetic = bool(
            rows_of(
                "dataset_set JOIN dataset USING (dataset_id) WHERE "
                f"set_digest IN {listed(judged)} AND "
                f"if(is_further, name IN {listed(EMBEDDED_EVALUATION_SETS)}, is_embedded)"
            )
        )
    return f"{NOT_A_DEVICE}; {SYNTHETIC}." if is_synthetic else f"{NOT_A_DEVICE}."
