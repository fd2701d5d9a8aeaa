"""Sections of curves, in which models that differ in precision alone share a panel: learning curves,
reliability near zero, decision curves, and risk and coverage with the review flag.
"""

from __future__ import annotations

from typing import Any

from flows.html_report.charts import Mark, axis_of, curves
from flows.html_report.study import (
    Interval,
    ReportedStudy,
    Section,
    along,
    by_panel,
    full_name,
    in_order,
    named_rows,
    one_each,
)
from flows.report.figures import counted, figure, random_mark
from flows.report.gates import review
from flows.report.rules import THRESHOLDS, cheap_baseline, with_probabilities
from flows.report.typed_rows import Row, grouped, rows_of
from tasks.bundle.bundle import Catch
from warehouse.connect import listed

MOST_POINTS = 40  # of a curve: more cannot be told apart on the page
SPLITS = {"train": "training", "valid": "validation"}
# Every so many points, and the last one, where the curve ends.
LEARNING = """(
    FROM training_curve
    WHERE training_id IN {ids} AND loss IS NOT NULL
    WINDOW
        updates AS (PARTITION BY training_id, split ORDER BY iteration),
        whole AS (PARTITION BY training_id, split)
    QUALIFY row_number() OVER updates = count(*) OVER whole
        OR (row_number() OVER updates - 1) % ceil(count(*) OVER whole / {most})::BIGINT = 0
    ORDER BY training_id, split, iteration
)"""


def learning(study: ReportedStudy, section: Section) -> None:
    """Training and validation loss by update."""
    section.values = {"points": MOST_POINTS}
    ids = listed({row.training_id for row in study.board})
    landed = rows_of(LEARNING.format(ids=ids, most=MOST_POINTS))
    rows = study.shown(landed, key="training_id")
    if not rows:
        return

    for row in rows:
        row.split = SPLITS.get(row.split, row.split)
    for title, group, names in by_panel(rows):
        marks = [_mark(row, row.iteration, (row.loss, None, None), row.split) for row in group]
        kinds = list(dict.fromkeys(row.split for row in group))
        drawing = curves(marks, axis_of("update"), axis_of("loss"), names, kinds)
        texts = [_losses(row.evaluation) for row in one_each(group)]
        section.show(title, f"Learning curves of {title}", texts, drawing)

    section.findings = lowest_losses([row.evaluation for row in one_each(rows)])
    records = [
        {
            "training": row.model,
            "split": row.split,
            "update": str(row.iteration),
            "loss": figure(row.loss),
        }
        for row in rows
    ]
    section.tabulate("Loss by update", records)


def lowest_losses(evaluations: list[Row]) -> list[str]:
    """The lowest value of each recipe: another recipe's objective is another one."""
    judged_rows = [row for row in evaluations if row.valid_loss is not None]
    by_recipe = grouped(judged_rows, lambda row: row.recipe)
    return [
        f"Lowest validation value of {recipe} (its own objective, one run, no interval): "
        f"{_losses(min(group, key=lambda row: row.valid_loss))}."
        for recipe, group in by_recipe.items()
    ]


def _losses(row: Row) -> str:
    return (
        f"{full_name(row)}: training loss {figure(row.train_loss)}, validation loss "
        f"{figure(row.valid_loss)}"
    )


def _mark(row: Row, x: float, y: Interval, kind: str = "") -> Mark:
    """A point of a curve, with the band around it."""
    return {"series": row.series, "kind": kind, "x": x, **along("y", y)}


BELOW = 0.1  # the highest bin that is drawn


def reliability(study: ReportedStudy, section: Section) -> None:
    """Where a model says "hardly an emergency", how many are emergencies."""
    section.values = {"below": BELOW}
    bins = named_rows("calibration_near_zero", study.ids, below=str(BELOW))
    rows = study.shown(bins, board=with_probabilities(study.board))
    if not rows:
        return

    for title, group, names in by_panel(rows):
        marks = [_mark(row, row.mean_p_ed, _emergencies(row)) for row in group]
        highest = max(row.ed_share for row in group)
        x = axis_of("mean p(ED) of a bin", (0, BELOW))
        y = axis_of("share of emergencies", (0, min(1, max(3 * BELOW, 2 * highest))))
        texts = [f"{row.series}: {_bin(row)}" for row in one_each(group)]
        drawing = curves(marks, x, y, names, diagonal=BELOW)
        section.show(title, f"Reliability near zero of {title}", texts, drawing)

    lowest_bins = [row for row in one_each(rows) if row.evaluation.is_trained]
    sure_bins = [row for row in lowest_bins if row.calibration == "too sure that it is none"]
    if lowest_bins:
        section.findings.append(
            f"{len(sure_bins)} of {len(lowest_bins)} trained models are too sure in their lowest "
            "bin, interval included."
        )
    if sure_bins:
        clearest = max(sure_bins, key=lambda row: row.share_low or 0)
        section.findings.append(f"The clearest of them, {clearest.model}: {_bin(clearest)}.")

    records = [
        {
            "experiment": row.model,
            "p(ED)": f"{row.low:g} to {row.high:g}",
            "cases": str(row.n),
            "mean p(ED)": figure(row.mean_p_ed, digits=4),
            "share of emergencies": figure(*_emergencies(row)),
            "": row.calibration,
        }
        for row in rows
    ]
    section.tabulate("Bins of p(ED)", records)


def _emergencies(row: Row) -> Interval:
    return row.ed_share, row.share_low, row.share_high


def _bin(row: Row) -> str:
    share = figure(*_emergencies(row))
    return f"of {row.n} cases with mean p(ED) {figure(row.mean_p_ed)}, {share} are emergencies"


MODEL = "by p(ED)"
EVERYBODY = "everybody to ED"
SHOWN = THRESHOLDS[-1]  # the threshold of which the sentences speak
LOWEST = -0.1  # below, a rule is worse than sending nobody by so much that the rest is not seen


def decision_curve(study: ReportedStudy, section: Section) -> None:
    """The net benefit of sending cases to ED from a threshold on p(ED) on."""
    scored_rows = with_probabilities(study.board)
    section.absent = "earlier" if scored_rows else "missing"
    rows = study.shown(named_rows("decision_curve", study.ids), board=scored_rows)
    if not rows:
        return

    cheap = cheap_baseline(study.board)
    beside = [row for row in rows if row.evaluation is cheap]
    models = [row for row in rows if row.evaluation is not cheap] or rows
    for title, group, names in by_panel(models):
        marks = [_mark(row, row.threshold, _benefit(row), MODEL) for row in [*group, *beside]]
        # Everybody to ED does not depend on the model, only on the cases.
        everybody = {"series": EVERYBODY, "kind": EVERYBODY}
        always = {row.threshold: row.always_ed for row in group}
        marks += [everybody | {"x": x, "y": y} for x, y in always.items()]
        highest = max(mark["y"] for mark in marks)
        y = axis_of("net benefit", (LOWEST, 1.1 * highest + 0.01))
        x = axis_of("threshold on p(ED)")
        series = in_order([*names, *(row.series for row in beside)])
        drawing = curves(marks, x, y, [*series, EVERYBODY], [MODEL, EVERYBODY], lines=[0])
        texts = [f"{row.series} {figure(*_benefit(row))}" for row in _spoken_of([*group, *beside])]
        shows = f"Decision curves of {title}. Net benefit at threshold {SHOWN:g}"
        section.show(title, shows, texts, drawing)

    at = _spoken_of(rows)
    better = sum(row.verdict == "better than both" for row in at)
    best_row = max(at, key=lambda row: row.net_benefit)
    section.findings.append(
        f"At the threshold {SHOWN:g}, {better} of {len(at)} are better than sending everybody and "
        f"than sending nobody, intervals included; the highest: {best_row.model}, "
        f"{figure(*_benefit(best_row))}."
    )
    records = [
        {
            "experiment": row.model,
            "threshold": f"{row.threshold:g}",
            "net benefit": figure(*_benefit(row)),
            "everybody to ED": figure(row.always_ed),
            "": row.verdict,
        }
        for row in rows
    ]
    section.tabulate("Net benefit by threshold", records)


def _benefit(row: Row) -> Interval:
    return row.net_benefit, row.low, row.high


def _spoken_of(rows: list[Row]) -> list[Row]:
    """Of each evaluation the row nearest to the threshold of which the sentences speak."""
    return one_each(sorted(rows, key=lambda row: abs(row.threshold - SHOWN)))


VOTES = "vote_entropy"
ONE_PASS = "max_probability"
KINDS = {VOTES: "votes of the passes", ONE_PASS: "one pass"}
# Every so many points, and the last one, where all cases are kept.
RISKS = """(
    FROM risk_coverage
    WHERE evaluation_id IN {ids} AND score IN ('vote_entropy', 'max_probability')
    WINDOW curve AS (PARTITION BY evaluation_id, score)
    QUALIFY kept % ceil(count(*) OVER curve / {most})::BIGINT = 0 OR kept = count(*) OVER curve
    ORDER BY evaluation_id, score, kept
)"""


def risk_coverage(study: ReportedStudy, section: Section) -> None:
    """The error rate of the cases that are not sent to review, with the review flag."""
    rows = study.shown(rows_of(RISKS.format(ids=listed(study.ids), most=MOST_POINTS)))
    if not rows:
        return

    shown_flags = study.shown(rows_of("review_flag"))
    flags = {(row.evaluation_id, row.score): row for row in shown_flags}
    # One scale for all panels, on which good models are told apart too.
    wrong = axis_of("share wrong", (0, min(1, 1.1 * max(row.error_kept for row in rows) + 0.01)))
    coverage = axis_of("share decided without review", (0, 1))
    for title, group, names in by_panel(rows):
        marks = [
            _mark(row, row.coverage, (row.error_kept, None, None), KINDS[row.score])
            for row in group
        ]
        top = [
            _mark(flag, 1 - flag.load, (flag.error_kept, None, None))
            for flag in shown_flags
            if flag.panel == title and flag.score == VOTES
        ]
        drawing = curves(marks, coverage, wrong, names, list(KINDS.values()), top=top)
        texts = [f"{row.series}: {_flag(row, flags)}" for row in one_each(group)]
        section.show(title, f"Risk and coverage of {title}", texts, drawing)

    section.tables.append(review([row.evaluation for row in one_each(rows)]))
    verdicts = [
        (flag.verdict or "cannot tell").replace("_", " ")
        for flag in shown_flags
        if flag.score == ONE_PASS
    ]
    if verdicts:
        counts = ", ".join(f"{name} in {verdicts.count(name)}" for name in dict.fromkeys(verdicts))
        section.findings = [
            f"Which order finds errors better, votes or one pass ({len(verdicts)} models): {counts}.",
            _together(shown_flags),
        ]


def _together(flags: list[Row]) -> str:
    """What the flags of the first recipe catch, all its models of one base model together."""
    first = flags[0].evaluation
    name = (first.base_model, first.recipe, first.random_weights)
    of_score: dict[str, list[dict[str, Any]]] = {VOTES: [], ONE_PASS: []}
    for flag in flags:
        model = flag.evaluation
        if (model.base_model, model.recipe, model.random_weights) == name and flag.score in KINDS:
            of_score[flag.score].append(vars(flag))

    models = counted(len(of_score[VOTES]), "model")
    caught = Catch.together(of_score[VOTES]).beside(Catch.together(of_score[ONE_PASS]))
    return f"{first.base_model} {first.recipe}{random_mark(first)}, {models}: {caught}."


def _flag(row: Row, flags: dict[tuple[str, str], Row]) -> str:
    """What the review flag of an evaluation catches, and how one pass differs from it."""
    flag = flags.get((row.evaluation_id, VOTES))
    if flag is None:
        return "no review flag"

    other = flags[row.evaluation_id, ONE_PASS]
    area = figure(other.aurc_difference, other.difference_low, other.difference_high, sign=True)
    sentence = Catch.of(vars(flag)).beside(Catch.of(vars(other)))
    return f"{sentence}; in area, one pass minus votes {area}"
