"""What probabilities are worth: calibration, reliability near zero, decision curves, the review flag,
and learning curves. Models that differ in precision alone share a panel.
"""

from __future__ import annotations

from collections.abc import Sequence

from flows.report.figures import (
    cells,
    figure,
    heading,
    listed_name,
    metric_cell,
    percent,
    why_not,
)
from flows.report.models import about, cost, panels, series_of
from flows.report.rows import (
    Interval,
    Row,
    Study,
    grouped,
    interval_of,
    metrics_of,
    named_rows,
    rows_of,
)
from flows.report.table import TITLES, Mark, Record, Section, Table, along
from tasks.spec import ED_AUROC
from warehouse.connect import listed

MOST_POINTS = 40  # of a curve: more cannot be told apart on the page
SHOWN = 0.1  # the threshold on p(ED) of which the table speaks
# Metrics of p(ED) and of answers, which all stand under the argmax.
PROBABILITIES = (
    *("brier", "ed_brier", "ece", "ed_ece"),
    *(ED_AUROC, "ed_average_precision", "ed_calibration_slope", "ed_calibration_intercept"),
    *("format_compliance", "generation_agreement"),
)


def thinned(table: str, curve: str, order: str, where: str) -> list[Row]:
    """The rows of a table of curves: of each every so many points, and the last one, where it ends.

    `curve`: the columns that tell one from another; `order`: the column along it.
    """
    return rows_of(
        f"(FROM {table} WHERE {where} "
        f"WINDOW along AS (PARTITION BY {curve} ORDER BY {order}), whole AS (PARTITION BY {curve}) "
        "QUALIFY row_number() OVER along = count(*) OVER whole "
        f"OR row_number() OVER along % ceil(count(*) OVER whole / {MOST_POINTS})::BIGINT = 0 "
        f"ORDER BY {curve}, {order})"
    )


def _mark(row: Row, x: float, y: Interval, kind: str = "") -> Mark:
    """A point of a curve, with the band around it."""
    return {"series": series_of(row.evaluation), "kind": kind, "x": x, **along("y", y)}


def learning(study: Study) -> Section:
    """Training and validation loss by update, and what each training took."""
    section = Section([cost(study)], values={"points": MOST_POINTS})
    ids = listed({row.training_id for row in study.board})
    where = f"training_id IN {ids} AND loss IS NOT NULL"
    landed = thinned("training_curve", "training_id, split", "iteration", where)
    words = {"train": "training", "valid": "validation"}
    for title, group in panels(about(landed, study.board, key="training_id")):
        marks = [
            _mark(row, row.iteration, (row.loss, None, None), words[row.split]) for row in group
        ]
        section.draw("curves", title, marks, x={"title": "update"}, y={"title": "loss"})
    return section


# --- Probabilities ----------------------------------------------------------------------------------

BELOW = 0.1  # the highest bin that is drawn
LOWEST = -0.1  # below, a rule is worse than sending nobody by so much that the rest is not seen
MODEL = "by p(ED)"
EVERYBODY = "everybody to ED"


def calibration(study: Study) -> Section:
    """Likelihood, calibration, ranking, and whether a model writes one label; conformal sets."""
    metrics = metrics_of(study.scored, PROBABILITIES)
    records = []
    for row in study.scored:
        record = {"experiment": listed_name(row)} | cells(row, "test_loss", "perplexity")
        for name in PROBABILITIES:
            metric = metrics.get((row.evaluation_id, "argmax", name))
            record[heading(name)] = metric_cell(metric, missing="n/a: not measured")
        records.append(record)

    sets = []
    for row in about(study.rows_about("conformal"), study.scored):
        missed = why_not(row.note)
        if row.ed_missed is not None:
            share = figure(row.ed_miss_rate, row.miss_low, row.miss_high)
            missed = f"{row.ed_missed} of {row.ed_cases}: {share}"
        sets.append(
            {
                "experiment": listed_name(row.evaluation),
                "ED missed": missed,
                "aim": f"{percent(row.miss_rate)} at most",
                "abstains": figure(row.abstain_rate, row.abstain_low, row.abstain_high),
                "mind": row.note or "",
            }
        )
    tables = (
        Table(TITLES["probabilities"], records, '"FROM metric"'),
        Table(TITLES["conformal"], sets, "conformal_sets"),
    )
    return Section([table.noted("brackets: 95 % intervals") for table in tables if len(table)])


def reliability(study: Study) -> Section:
    """Where a model says "hardly an emergency", how many are emergencies."""
    section = Section(values={"below": BELOW})
    bins = named_rows("calibration_near_zero", study.board_ids, below=str(BELOW))
    rows = about(bins, study.scored)
    records = [
        {"experiment": listed_name(row.evaluation), "p(ED)": f"{row.low:g} to {row.high:g}"}
        | cells(row, "n", "mean_p_ed")
        | {"share of emergencies": figure(row.ed_share, row.share_low, row.share_high)}
        | cells(row, "calibration")
        for row in rows
    ]
    if records:
        section.tables = [Table("Bins of p(ED)", records, "calibration_near_zero", names=2)]
    for title, group in panels(rows):
        marks = [
            _mark(row, row.mean_p_ed, (row.ed_share, row.share_low, row.share_high))
            for row in group
        ]
        top = min(1, max(3 * BELOW, 2 * max(row.ed_share for row in group)))
        x = {"title": "mean p(ED) of a bin", "domain": (0, BELOW)}
        y = {"title": "share of emergencies", "domain": (0, top)}
        section.draw("points", title, marks, x=x, y=y, diagonal=BELOW)

    return section


def decision_curves(study: Study) -> Section:
    """The net benefit of sending cases to ED from a threshold on p(ED) on."""
    section = Section()
    rows = about(named_rows("decision_curve", study.board_ids), study.scored)
    if not rows:
        return section

    # Of each evaluation the row nearest to the threshold that the table shows.
    nearest = grouped(
        sorted(rows, key=lambda row: abs(row.threshold - SHOWN)), lambda row: row.evaluation_id
    )
    records = [
        {
            "experiment": listed_name(row.evaluation),
            "net benefit": figure(row.net_benefit, row.low, row.high),
            "over everybody to ED": figure(*interval_of(row, "over_always_ed"), sign=True),
            "verdict": row.verdict,
        }
        for row, *_ in nearest.values()
    ]
    title = f"Net benefit of ED from p(ED) {SHOWN:g} on (nobody: 0)"
    section.tables = [Table(title, records, "decision_curve")]

    beside = [row for row in rows if row.evaluation.recipe in ("linear", "tfidf_lr")]
    models = [row for row in rows if row.evaluation.precision is not None] or rows
    for title, group in panels(models):
        marks = [
            _mark(row, row.threshold, (row.net_benefit, row.low, row.high), MODEL)
            for row in [*group, *beside]
        ]
        # Everybody to ED does not depend on the model, only on the cases.
        everybody = {"series": EVERYBODY, "kind": EVERYBODY}
        always = {row.threshold: row.always_ed for row in group}
        marks += [everybody | {"x": x, "y": y} for x, y in always.items()]
        domain = (LOWEST, 1.1 * max(mark["y"] for mark in marks) + 0.01)
        x, y = {"title": "threshold on p(ED)"}, {"title": "net benefit", "domain": domain}
        section.draw("curves", title, marks, x=x, y=y, lines=[0])
    return section


# --- The review flag --------------------------------------------------------------------------------

VOTES = "vote_entropy"
ONE_PASS = "max_probability"
KINDS = {VOTES: "votes of the passes", ONE_PASS: "one pass"}
FLAG = (
    "score",
    "load",
    "missed ED caught",
    "wrong caught",
    "AURC",
    "AURC minus that of votes",
    "which is better",
)


def review(study: Study) -> Section:
    """The error rate of the cases that are not sent to review; what each score flags and catches."""
    flags = about(study.rows_about("review_flag", "evaluation_id, score DESC"), study.board)
    models = [row for row in study.board if not row.is_baseline]
    section = Section([flag_table(study, models, flags)] if models else [])
    of_curves = f"evaluation_id IN {listed(study.board_ids)} AND score IN {listed(KINDS)}"
    landed = thinned("risk_coverage", "evaluation_id, score", "kept", of_curves)
    landed.sort(key=lambda row: row.score, reverse=True)
    rows = about(landed, study.board)
    # One scale for all panels, on which good models are told apart too.
    highest = max((row.error_kept for row in rows), default=0)
    x = {"title": "share decided without review", "domain": (0, 1)}
    y = {"title": "share wrong", "domain": (0, min(1, 1.1 * highest + 0.01))}
    for title, group in panels(rows):
        marks = [
            _mark(row, row.coverage, (row.error_kept, None, None), KINDS[row.score])
            for row in group
        ]
        shown = {row.evaluation_id for row in group}
        top = [
            _mark(flag, 1 - flag.load, (flag.error_kept, None, None), KINDS[VOTES])
            for flag in flags
            if flag.score == VOTES and flag.evaluation_id in shown
        ]
        section.draw("curves", title, marks, x=x, y=y, top=top)

    return section


def words(name: str | None) -> str:
    return (name or "").replace("_", " ")


def flag_table(study: Study, models: Sequence[Row], flags: Sequence[Row]) -> Table:
    """Per model what each score flags and catches, or why none does."""
    judged = {row.evaluation_id: row for row in study.rows_about("evaluation")}
    of_model = grouped(flags, lambda flag: flag.evaluation_id)
    records = []
    for row in models:
        head = {"experiment": listed_name(row)}
        records += [head | _flag(flag) for flag in of_model.get(row.evaluation_id, [])]
        if row.evaluation_id not in of_model:
            why = judged[row.evaluation_id].mc_reason or "the primary rule gave no decision"
            records.append(head | dict.fromkeys(FLAG, "n/a") | {"score": "", "load": f"n/a: {why}"})

    samples = {
        f"{row.mc_passes} passes on {flag.cases} of {row.cases} cases"
        for flag in flags
        for row in [judged[flag.evaluation_id]]
    }
    return Table(TITLES["flags"], records, "review_load", names=2).noted(*sorted(samples))


def _flag(flag: Row) -> Record:
    """What a score flags and catches. Cases that tie at the cut count by the share of them that is
    flagged.
    """
    flagged = flag.cases * flag.load
    caught = flagged * (flag.error_flagged or 0)
    wrong = caught + (flag.cases - flagged) * (flag.error_kept or 0)
    missed, missed_caught = "no misses", flag.missed_ed * (flag.missed_ed_flagged or 0)
    if flag.missed_ed:
        share = figure(*interval_of(flag, "missed_ed_flagged"), digits=2)
        missed = f"{_count(missed_caught)} of {flag.missed_ed:,}: {share}"
    of_wrong = "none wrong"
    if round(wrong):
        share = figure(caught / wrong, flag.wrong_flagged_low, flag.wrong_flagged_high, digits=2)
        of_wrong = f"{_count(caught)} of {wrong:,.0f}: {share}"
    difference = figure(flag.aurc_difference, flag.difference_low, flag.difference_high, sign=True)
    texts = (
        words(flag.score),
        figure(flag.load),
        missed,
        of_wrong,
        figure(flag.aurc),
        "" if flag.score == VOTES else difference,
        words(flag.verdict),
    )
    return dict(zip(FLAG, texts, strict=True))


def _count(cases: float) -> str:
    return f"{cases:,.1f}".removesuffix(".0")
