"""4 minus 8 bits, pair by pair and pooled, with the margin of two points."""

from __future__ import annotations

from collections.abc import Iterator

from flows.html_report.marks import Axis, Dot, dots
from flows.html_report.study import (
    Panel,
    ReportedStudy,
    Section,
    chart_labels,
    number,
    one_line,
    panel_name,
    some,
)
from flows.report.answer import AUROC, METRICS, points
from flows.report.figures import counted, is_number, random_mark, recipe_name
from flows.report.pairs import headline, quantization
from flows.report.typed_rows import Row
from warehouse.comparison.pooled import ALL
from warehouse.comparison.resampling import MARGIN

PAIR = "a pair"
POOLED = "pooled pairs"
MARGIN_POINTS = 100 * MARGIN
READING = (
    "Each dot is a pair of models that differ in precision alone: 4 bits minus 8 bits, in points "
    f"of a hundred, with its 95 % interval. The shaded range is the margin of {MARGIN_POINTS:g} "
    "points: 4 bits are not inferior where the whole interval lies to the right of its left edge. "
    "On top, the pairs of trained models of which at least one beats the best constant answer are "
    "pooled, as many as it says. Over cases, the band holds for all pooled figures at once; over "
    "trainings, the interval follows from the spread between seeds of one recipe, which no other "
    "interval here contains. A pooled verdict needs both."
)
MISSING = (
    "No pair of otherwise equal 4-bit and 8-bit experiments has finished on these cases. A sweep "
    "at both widths gives one, e.g. triage sweep demo."
)


def forest(study: ReportedStudy) -> Section:
    """The forest plots of accuracy, ED recall and the AUROC of emergencies."""
    heading = "4 bits minus 8 bits"
    if not study.pairs:
        return Section("forest", heading, missing=MISSING)
    shown = (*(metric[:3] for metric in METRICS), (*AUROC[:2], "ED AUROC"))
    panels = [panel for metric in shown for panel in _panel(study, *metric)]
    findings = [headline(study.pairs)]
    return Section("forest", heading, READING, findings, panels, [quantization(study.pairs)])


def _panel(study: ReportedStudy, metric: str, rule: str, name: str) -> Iterator[Panel]:
    pooled = list(_pooled(study, metric, rule))
    rows = [*pooled, *_dots(study.pairs, metric)]
    rows = [row for row in rows if row.value is not None]
    if not rows:
        return

    texts = [f"{one_line(row.label)} {_interval(row)}" for row in rows]
    names = [POOLED, PAIR] if pooled else [PAIR]
    axis = Axis(f"{name}: 4 minus 8 bits, points")
    drawing = dots(rows, axis, names, [0, -MARGIN_POINTS], (-MARGIN_POINTS, MARGIN_POINTS))
    alt = f"Forest plot of {name}, 4 minus 8 bits in points: {some(texts)}."
    yield Panel(panel_name("forest", metric), name, alt, drawing)


def _pooled(study: ReportedStudy, metric: str, rule: str) -> Iterator[Dot]:
    """The pooled figures of the shown cases, over all base models: each over cases, and over
    trainings.
    """
    digests = {row.set_digest for row in study.board}
    for pool in study.pools:
        row = pool.figures.get((ALL, rule, metric))
        is_shown = pool.evaluation_set == "test" and pool.set_digest in digests
        if is_shown and row is not None and is_number(row.difference):
            pairs = counted(row.pairs, "pair")
            mark = random_mark(pool)
            over_cases = _in_points(row.difference, row.low, row.high)
            yield Dot(f"{pairs} pooled,\nover cases{mark}", POOLED, *over_cases)
            # Needs two seeds of a recipe.
            if is_number(row.seed_low):
                over_trainings = _in_points(row.difference, row.seed_low, row.seed_high)
                yield Dot(f"{pairs} pooled,\nover trainings{mark}", POOLED, *over_trainings)


def _dots(pairs: list[Row], metric: str) -> list[Dot]:
    names = [
        f"{pair.base_model}\n{recipe_name(pair.recipe, pair.seed)}{random_mark(pair)}"
        for pair in pairs
    ]
    labels = chart_labels(names)
    return [
        Dot(labels[name], PAIR, *_difference(pair, metric))
        for name, pair in zip(names, pairs, strict=True)
    ]


def _difference(pair: Row, metric: str) -> tuple[float | None, float | None, float | None]:
    """A difference of a pair in points, with its interval."""
    names = (f"{metric}_diff", f"{metric}_low", f"{metric}_high")
    return _in_points(*(getattr(pair, name) for name in names))


def _in_points(*values: float | None) -> tuple[float | None, float | None, float | None]:
    value, low, high = (None if number(v) is None else 100 * float(v or 0) for v in values)
    return value, low, high


def _interval(row: Dot) -> str:
    assert row.value is not None
    text = points(row.value / 100)
    if row.low is None or row.high is None:
        return text
    return f"{text} [{points(row.low / 100)}, {points(row.high / 100)}]"
