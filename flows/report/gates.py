"""Gates of every experiment, the review flag, and precision at another share of emergencies."""

from __future__ import annotations

from collections.abc import Sequence

from flows.report.figures import (
    clock,
    counted,
    figure,
    gate_figure,
    interval,
    is_number,
    listed_name,
    megabytes,
    on_cases,
    percent,
    random_mark,
    stacked,
    verdict,
    why_not,
)
from flows.report.table import ReportTable
from flows.report.typed_rows import Board, Ids, Row, further_rows, grouped, rows_of
from tasks.bundle.bundle import Catch
from tasks.runtime.errors import BadInput

GATES = (
    "Gates of the primary rule, on each evaluation set: state, count or value, "
    "and the 95 % bound that PASS needs; adjusted: the bound that holds for all models looked at "
    "on these cases"
)
STANDARD = (
    "Training, and what it took (validation: the recipe's own objective; MB of MLX on its machine; "
    "n/a: not trained, or no language model)"
)
FALSE_NEGATIVES = "ed_false_negative_rate"  # the gate that holds below its threshold; 1 - recall
NO_FIGURES = ("n/a",) * 4  # value, bound, adjusted bound and method of a gate that was not judged
NAMES = {"ed_recall": "ED recall", "ed_f2": "ED F2", FALSE_NEGATIVES: "ED false negatives"}


def looks() -> dict[tuple[str, str], Row]:
    """The looks behind each gate of a trained model, by evaluation and gate."""
    return {(row.evaluation_id, row.gate): row for row in rows_of("gate_bounds")}


def adjusted(look: Row | None) -> str:
    """`0.844 for 60 models`; empty where no model was trained, so that none was picked."""
    if look is None:
        return ""
    bound = gate_figure(look.bound_adjusted, look.threshold)
    return f"{bound} for {counted(look.models, 'model')}"


def gates(board: Board, ids: Ids = None) -> ReportTable:
    """One row per evaluation of the models of `board`, the test set first: verdict and the three
    gates. `ids`: the evaluations of the study. Baselines, which are no candidates, are left out:
    their gates are judged by the most probable label, not by a threshold.
    """
    rows = rows_of("gate")
    gate_rows = {(row.evaluation_id, row.gate): row for row in rows}
    limits = {row.gate: row.threshold for row in rows}
    looked = looks()

    records = []
    for evaluation in [*board, *further_rows(board, ids)]:
        if evaluation.recipe_kind == "baseline":
            continue
        record = {
            "experiment": on_cases(evaluation),
            "verdict": verdict(evaluation).replace("\n", " "),
            "by": evaluation.primary_rule.replace("_", " "),
        }
        for gate, words in NAMES.items():
            sign = "<=" if gate == FALSE_NEGATIVES else ">="
            titles = (f"{sign} {limits.get(gate, 0):g}", "value", "bound", "adjusted", "by")
            key = (evaluation.evaluation_id, gate)
            cells = _gate(gate_rows.get(key), looked.get(key))
            record |= {f"{words}\n{title}": cell for title, cell in zip(titles, cells, strict=True)}
        records.append(record)

    return ReportTable.of(GATES, records, "distance_to_gates")


def _gate(row: Row | None, look: Row | None) -> tuple[str, ...]:
    """State, value, bound, the bound for all models and how bounds are computed."""
    if row is None:
        return "n/a: not judged", *NO_FIGURES
    if row.state == "NOT AVAILABLE":
        return f"{row.state}: {why_not(row.note)}", *NO_FIGURES

    counts = "" if row.successes is None else f"{row.successes} of {row.n} = "
    is_adjusted = look is not None and is_number(look.bound_adjusted)
    return (
        row.state,
        f"{counts}{gate_figure(row.value, row.threshold)}",
        gate_figure(row.bound, row.threshold),
        adjusted(look) if is_adjusted else "n/a",
        "n/a" if row.method in (None, "none") else row.method.removesuffix(" 95 %"),
    )


def standard(board: Board) -> ReportTable:
    """Per experiment: losses, time, speed and memory of its training."""
    records = [
        {
            "experiment": listed_name(row),
            "train\nloss": figure(row.train_loss),
            "valid.\nloss": figure(row.valid_loss),
            "trained\nin": clock(row.train_seconds) if is_number(row.train_seconds) else "n/a",
            "tokens/s": figure(row.tokens_per_second, digits=0),
            "weights\nMB": megabytes(row.weights_memory_bytes),
            "peak\nMB": megabytes(row.peak_memory_bytes),
            "arithmetic": row.compute_path.replace("_", " ") if row.compute_path else "n/a",
        }
        for row in board
    ]
    return ReportTable.of(STANDARD, records, "training_cost")


# ED precision and F2; None where a set or a rule gives no such figure.
Restated = tuple[float | None, float | None]


def prevalence_note(prevalence: float | None, restates: bool = False) -> str:
    """What the title of a table says about another prevalence: whether it restates precision and F2
    or is not changed by it.
    """
    if prevalence is None:
        return ""
    restated_words = f"precision and F2 restated at {percent(prevalence)} ED"
    return restated_words if restates else "--prevalence does not apply"


def at_prevalence(row: Row, prevalence: float | None, below: bool) -> dict[str, str]:
    """The cells `ED F2` and `ED precision`, with their prevalence: the set's own, or restated.

    `below`: on two lines.
    """
    precision, f2 = figures_at(row, prevalence)
    share = row.ed_prevalence if prevalence is None else prevalence
    # The interval is that of the F2 at the prevalence of the set.
    return {
        "ED F2": interval(row, "ed_f2", below=below) if prevalence is None else figure(f2),
        "ED precision": f"{figure(precision)}{chr(10) if below else ' '}of {percent(share)} ED",
    }


def figures_at(row: Row, prevalence: float | None) -> Restated:
    """ED precision and F2 of a row: those of its set, or restated at another prevalence."""
    if prevalence is None:
        return row.ed_precision, row.ed_f2
    return restated(row.ed_recall, row.ed_precision, row.ed_prevalence, prevalence)


def check_prevalence(prevalence: float | None) -> None:
    """Raise BadInput for a `--prevalence` that is no share."""
    if prevalence is not None and not 0 < prevalence < 1:
        raise BadInput(f"--prevalence must be between 0 and 1, e.g. 0.1 (got {prevalence:g}).")


def restated(
    recall: float | None, precision: float | None, prevalence: float, other: float
) -> Restated:
    """ED precision and F2 at the prevalence `other`, with the same recall and rate of false alarms
    (Bayes).

    None where they are not available: no emergency or nothing else in the set; precision where
    nothing is decided ED.
    """
    if not is_number(recall) or not 0 < prevalence < 1:
        return None, None
    if not is_number(precision):  # nothing is decided ED
        return None, 0.0
    if not precision:  # only wrongly: no hit at any prevalence
        return 0.0, 0.0

    # False alarms per case that is no emergency.
    alarms = prevalence * recall * (1 - precision) / precision / (1 - prevalence)
    hits = other * recall
    false = (1 - other) * alarms
    return hits / (hits + false), 5 * hits / (4 * other + hits + false)


REVIEW = (
    "The review flag of Monte Carlo dropout against scores of one pass at equal load; a random flag "
    "catches its load of the primary rule's errors; cases that tie at the cut count in part"
)
# Figures of a score, beside its name and its load.
OF_FLAG = (
    "missed ED\ncaught",
    "wrong\ncaught",
    "AURC",
    "AURC minus\nthat of votes",
    "which\nis better",
)


def review(board: Board) -> ReportTable:
    """Per experiment that was trained: what each score flags and catches, or why none does; then
    the models of a base model and recipe together.
    """
    flags = grouped(rows_of("review_flag ORDER BY score DESC"), lambda flag: flag.evaluation_id)
    dropout = {row.evaluation_id: row for row in rows_of("evaluation")}

    records = []
    of_recipe: dict[str, list[list[Row]]] = {}
    for row in board:
        if row.recipe_kind == "baseline":
            continue
        of_row, judged = flags.get(row.evaluation_id, []), dropout[row.evaluation_id]
        basis = f"{judged.cases} cases"
        if of_row:
            basis = f"{of_row[0].cases} of {judged.cases} cases, {judged.mc_passes} passes"
            name = f"{row.base_model} {row.recipe}{random_mark(row)}"
            of_recipe.setdefault(name, []).append(of_row)
        lines = [_flag(flag) for flag in of_row] or [_no_flag(judged)]
        records.append(stacked({"experiment": f"{listed_name(row)}\n{basis}"}, lines))

    for name, models in of_recipe.items():
        if len(models) > 1:
            lines = [_flags_together(flags) for flags in zip(*models, strict=True)]
            records.append(stacked({"experiment": f"{name}\n{len(models)} models together"}, lines))

    return ReportTable.of(REVIEW, records, "review_load")


def _flag(flag: Row) -> dict[str, str]:
    caught = Catch.of(vars(flag))
    missed = figure(
        flag.missed_ed_flagged, flag.missed_ed_flagged_low, flag.missed_ed_flagged_high, digits=2
    )
    wrong_share = caught.wrong_caught / caught.wrong if round(caught.wrong) else None
    wrong = figure(wrong_share, flag.wrong_flagged_low, flag.wrong_flagged_high, digits=2)
    difference = figure(flag.aurc_difference, flag.difference_low, flag.difference_high, sign=True)
    cells = (
        f"{caught.of_missed}: {missed}" if caught.missed else "no misses",
        f"{caught.of_wrong}: {wrong}" if wrong_share is not None else "none wrong",
        figure(flag.aurc),
        "" if flag.score == "vote_entropy" else difference,
        (flag.verdict or "").replace("_", " "),
    )
    score = {"score": flag.score.replace("_", " "), "load": figure(flag.load)}
    return score | dict(zip(OF_FLAG, cells, strict=True))


def _flags_together(flags: Sequence[Row]) -> dict[str, str]:
    """The flags by one score of several models, which may share cases: counts without intervals."""
    caught = Catch.together(vars(flag) for flag in flags)
    score = {"score": flags[0].score.replace("_", " ")}
    score["load"] = figure(caught.flagged / caught.cases)
    cells = (caught.of_missed, caught.of_wrong, "", "", "")
    return score | dict(zip(OF_FLAG, cells, strict=True))


def _no_flag(dropout: Row) -> dict[str, str]:
    """Without dropout there is no flag, and without the primary rule's decisions nothing to judge
    it by.
    """
    reason = dropout.mc_reason
    if dropout.mc_status == "available":
        reason = "the primary rule gave no decision to judge the flag by"
    sentence = f"not available: {reason}" if reason else "not available"
    return {"score": "", "load": sentence} | dict.fromkeys(OF_FLAG, "n/a")
