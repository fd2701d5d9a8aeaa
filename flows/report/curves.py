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
    random_mark,
    why_not,
)
from flows.report.models import about, cost, first_of_each, panels, series_of
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
from tasks.bundle.bundle import Catch
from tasks.judging.point_metrics import ED_AUROC
from warehouse.connect import listed

MOST_POINTS = 40  # of a curve: more cannot be told apart on the page
SHOWN = 0.1  # the threshold on p(ED) of which sentences speak
NOT_MEASURED = "n/a: not measured"
# Metrics of p(ED) and of answers; all stand under the argmax.
PROBABILITY = ("brier", "ed_brier", "ece", "ed_ece")
DISCRIMINATION = (
    ED_AUROC,
    "ed_average_precision",
    "ed_calibration_slope",
    "ed_calibration_intercept",
)
ANSWERS = ("format_compliance", "generation_agreement")

# --- Learning ---------------------------------------------------------------------------------------

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


def learning(study: Study) -> Section:
    """Training and validation loss by update, and what each training took."""
    section = Section([cost(study)], values={"points": MOST_POINTS})
    ids = listed({row.training_id for row in study.board})
    landed = rows_of(LEARNING.format(ids=ids, most=MOST_POINTS))
    rows = about(landed, study.board, key="training_id")
    for row in rows:
        row.split = {"train": "training", "valid": "validation"}.get(row.split, row.split)
    for title, group in panels(rows):
        marks = [_mark(row, row.iteration, (row.loss, None, None), row.split) for row in group]
        section.draw("curves", title, marks, x={"title": "update"}, y={"title": "loss"})
    return section


def _mark(row: Row, x: float, y: Interval, kind: str = "") -> Mark:
    """A point of a curve, with the band around it."""
    return {"series": series_of(row.evaluation), "kind": kind, "x": x, **along("y", y)}


# --- Probabilities ----------------------------------------------------------------------------------

BELOW = 0.1  # the highest bin that is drawn
LOWEST = -0.1  # below, a rule is worse than sending nobody by so much that the rest is not seen
MODEL = "by p(ED)"
EVERYBODY = "everybody to ED"


def calibration(study: Study) -> Section:
    """Likelihood, Brier scores and ECE; ranking; conformal sets, and whether a model writes one label."""
    metrics = metrics_of(study.scored, [*PROBABILITY, *DISCRIMINATION, *ANSWERS])

    def of_argmax(row: Row, names: Sequence[str]) -> Record:
        """Metrics with their intervals, or why there are none."""
        found = {name: metrics.get((row.evaluation_id, "argmax", name)) for name in names}
        return {
            heading(name): metric_cell(metric, missing=NOT_MEASURED)
            for name, metric in found.items()
        }

    trust, worth, answers = [], [], []
    for row in study.scored:
        head = {"experiment": listed_name(row)}
        trust.append(head | cells(row, "test_loss", "perplexity") | of_argmax(row, PROBABILITY))
        worth.append(head | of_argmax(row, DISCRIMINATION))
        answers.append(head | of_argmax(row, ANSWERS))
    sets = []
    for row in about(study.rows_about("conformal"), study.scored):
        missed = why_not(row.note)
        if row.ed_missed is not None:
            share = figure(row.ed_miss_rate, row.miss_low, row.miss_high)
            missed = f"{row.ed_missed} of {row.ed_cases}: {share}"
        abstains = figure(row.abstain_rate, row.abstain_low, row.abstain_high)
        record = {"experiment": listed_name(row.evaluation), "ED missed": missed}
        record |= {"aim": f"{percent(row.miss_rate)} at most", "abstains": abstains}
        sets.append(record | {"mind": row.note or ""})

    titles = {
        "Can the probabilities be trusted? Likelihood and calibration on the test set": trust,
        "What is p(ED) worth? Slope 1 and intercept 0: calibrated; slope below 1: too sure": worth,
        "Conformal sets (at most so many emergencies missed on average)": sets,
        "Answers as the model writes them: one label, and the one that it scores": answers,
    }
    queries = ('"FROM metric"', '"FROM metric"', "conformal_sets", '"FROM metric"')
    return Section(
        [
            Table(title, records, query).noted("brackets: 95 % intervals")
            for (title, records), query in zip(titles.items(), queries, strict=True)
            if records
        ]
    )


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
        section.draw("curves", title, marks, x=x, y=y, diagonal=BELOW)

    lowest = [row for row in first_of_each(rows) if row.evaluation.is_trained]
    too_sure = sum(row.calibration == "too sure that it is none" for row in lowest)
    if lowest:
        section.findings = [
            f"{too_sure} of {len(lowest)} trained models are too sure in their lowest bin, interval "
            "included."
        ]
    return section


def decision_curves(study: Study) -> Section:
    """The net benefit of sending cases to ED from a threshold on p(ED) on."""
    section = Section(absent="earlier" if study.scored else "missing")
    rows = about(named_rows("decision_curve", study.board_ids), study.scored)
    if not rows:
        return section

    # Of each evaluation the row nearest to the threshold of which sentences speak.
    at_shown = first_of_each(sorted(rows, key=lambda row: abs(row.threshold - SHOWN)))
    better = sum(row.verdict == "better than both" for row in at_shown)
    section.findings = [
        f"At the threshold {SHOWN:g}, {better} of {len(at_shown)} are better than sending everybody "
        "and than sending nobody, intervals included."
    ]
    records = [
        {
            "experiment": listed_name(row.evaluation),
            "net benefit": figure(row.net_benefit, row.low, row.high),
            "over everybody to ED": figure(*interval_of(row, "over_always_ed"), sign=True),
            "verdict": row.verdict,
        }
        for row in at_shown
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
# Every so many points, and the last one, where all cases are kept.
RISKS = """(
    FROM risk_coverage
    WHERE evaluation_id IN {ids} AND score IN ('vote_entropy', 'max_probability')
    WINDOW curve AS (PARTITION BY evaluation_id, score)
    QUALIFY kept % ceil(count(*) OVER curve / {most})::BIGINT = 0 OR kept = count(*) OVER curve
    ORDER BY evaluation_id, score DESC, kept
)"""
OF_FLAG = (
    "missed ED caught",
    "wrong caught",
    "AURC",
    "AURC minus that of votes",
    "which is better",
)


def review(study: Study) -> Section:
    """The error rate of the cases that are not sent to review; what each score flags and catches."""
    flags = about(study.rows_about("review_flag", "evaluation_id, score DESC"), study.board)
    section = Section([_flags(study, flags)] if any(not r.is_baseline for r in study.board) else [])
    landed = rows_of(RISKS.format(ids=listed(study.board_ids), most=MOST_POINTS))
    rows = about(landed, study.board)
    # One scale for all panels, on which good models are told apart too.
    highest = max((row.error_kept for row in rows), default=0)
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
        x = {"title": "share decided without review", "domain": (0, 1)}
        section.draw("curves", title, marks, x=x, y=y, top=top)

    verdicts = [
        (flag.verdict or "cannot tell").replace("_", " ")
        for flag in flags
        if flag.score == ONE_PASS
    ]
    if verdicts:
        counts = ", ".join(f"{name} in {verdicts.count(name)}" for name in dict.fromkeys(verdicts))
        section.findings = [
            f"Which order finds errors better, votes or one pass ({len(verdicts)} models): {counts}."
        ]
    return section


def _flags(study: Study, flags: Sequence[Row]) -> Table:
    """Per model what each score flags and catches, or why none does; then the models of a base model
    and recipe together, which may share cases: counts without intervals.
    """
    judged = {row.evaluation_id: row for row in study.rows_about("evaluation")}
    of_model = grouped(flags, lambda flag: flag.evaluation_id)
    of_recipe: dict[tuple[str, str], list[Row]] = {}
    records = []
    for row in study.board:
        if row.is_baseline:
            continue
        head = {"experiment": listed_name(row)}
        for flag in of_model.get(row.evaluation_id, []):
            score = flag.score.replace("_", " ")
            recipe = f"{row.base_model} {row.recipe}{random_mark(row)}"
            of_recipe.setdefault((recipe, score), []).append(flag)
            records.append(head | {"score": score} | _flag(flag))
        if row.evaluation_id not in of_model:
            dropout = judged[row.evaluation_id]
            reason = dropout.mc_reason
            if dropout.mc_status == "available":
                reason = "the primary rule gave no decision to judge the flag by"
            why = {"score": "", "load": f"n/a: {reason or 'not available'}"}
            records.append(head | why | dict.fromkeys(OF_FLAG, "n/a"))

    for (name, score), of_score in of_recipe.items():
        if len(of_score) > 1:
            caught = Catch.together(vars(flag) for flag in of_score)
            together = {"experiment": f"{name}, {len(of_score)} models together", "score": score}
            together["load"] = figure(caught.flagged / caught.cases)
            texts = (caught.of_missed, caught.of_wrong, "", "", "")
            records.append(together | dict(zip(OF_FLAG, texts, strict=True)))

    table = Table(TITLES["flags"], records, "review_load", names=2)
    passes = {
        (judged[f.evaluation_id].mc_passes, f.cases, judged[f.evaluation_id].cases) for f in flags
    }
    return table.noted(
        *(f"{passes} passes on {of} of {cases} cases" for passes, of, cases in sorted(passes))
    )


def _flag(flag: Row) -> Record:
    caught = Catch.of(vars(flag))
    missed = figure(*interval_of(flag, "missed_ed_flagged"), digits=2)
    wrong_share = caught.wrong_caught / caught.wrong if round(caught.wrong) else None
    wrong = figure(wrong_share, flag.wrong_flagged_low, flag.wrong_flagged_high, digits=2)
    difference = figure(flag.aurc_difference, flag.difference_low, flag.difference_high, sign=True)
    texts = (
        f"{caught.of_missed}: {missed}" if caught.missed else "no misses",
        f"{caught.of_wrong}: {wrong}" if wrong_share is not None else "none wrong",
        figure(flag.aurc),
        "" if flag.score == VOTES else difference,
        (flag.verdict or "").replace("_", " "),
    )
    return {"load": figure(flag.load)} | dict(zip(OF_FLAG, texts, strict=True))
