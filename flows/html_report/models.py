"""Sections about each model by itself: size, rules, confusion, subgroups, gates, and baselines."""

from __future__ import annotations

from flows.html_report.charts import Mark, axis_of, axis_of_shares, dots, matrices, points
from flows.html_report.study import (
    WORDS,
    ReportedStudy,
    Section,
    along,
    and_others,
    by_panel,
    full_name,
    in_order,
    interval,
    named_rows,
    one_each,
)
from flows.report.figures import (
    CONSTANT_ANSWERS,
    counted,
    ed_recall_figure,
    figure,
    gate_figure,
    is_number,
    random_mark,
    recipe_name,
)
from flows.report.gates import FALSE_NEGATIVES, NAMES, gates
from flows.report.leaderboard import leaderboard
from flows.report.rules import (
    RULES,
    THRESHOLD,
    by_common_rules,
    cheap_baseline,
    confusion,
    rules_note,
)
from flows.report.typed_rows import Row, grouped, metrics_named, rows_of
from tasks.spec import GATE_THRESHOLDS, LABELS
from warehouse.connect import listed

OWN = "own"  # the arm of the models that were trained at the precision at which they are judged
ED_RECALL = GATE_THRESHOLDS["ed_recall"]
APART = 1.02  # factor between two points of one size


def bytes_and_recall(study: ReportedStudy, section: Section) -> None:
    """A plane for each base model: the models of the view `frontier` by the rules that all share."""
    section.values = {"gate": ED_RECALL, "point": WORDS["frontier"]["trained"]}
    rows = frontier_rows(study)
    if not rows:
        return

    for base_model, group in grouped(rows, lambda row: row.base_model).items():
        marks = _spread_points(group)
        sizes = [mark["x"] for mark in marks]
        x = axis_of("stored size, MB", (0.8 * min(sizes), 1.25 * max(sizes)), log=True)
        y = axis_of_shares("ED recall", marks, "y", also=[1])
        kinds = list(dict.fromkeys(row.kind for row in group))
        names = in_order(row.precision for row in group)
        drawing = points(marks, x, y, names, kinds, lines=[ED_RECALL])
        texts = [_sized(row) for row in group]
        shows = f"Stored size against ED recall of {base_model}, gate {ED_RECALL:g}"
        section.show(base_model, shows, texts, drawing)

    best_row = max(rows, key=lambda row: row.ed_recall)
    ties = and_others([row.ed_recall for row in rows], best_row.ed_recall)
    section.findings.append(f"Highest ED recall: {_sized(best_row)}{ties}.")
    for is_moved, name in ((False, "trained models"), (True, "moved adapters")):
        arm = [row.evaluation for row in rows if row.is_moved == is_moved]
        reach = sum(row.ed_recall >= ED_RECALL for row in arm)
        hold = sum((row.ed_recall_low or 0) >= ED_RECALL for row in arm)
        if arm:
            section.findings.append(
                f"{reach} of {len(arm)} {name} reach the gate of {ED_RECALL:g} by their point, "
                f"{hold} with the whole interval."
            )

    if any(row.is_moved for row in rows):
        section.values["point"] = WORDS["frontier"]["trained_or_moved"]
    if baseline := cheap_baseline(by_common_rules(study.board)):
        section.findings.append(
            f"Without a language model, {full_name(baseline)}: ED recall {_recall(baseline)}, "
            f"over-triage {figure(*interval(baseline, 'over_triage'))}."
        )
    records = [
        {
            "model": row.model,
            "MB": f"{row.stored_bytes / 1e6:.1f}",
            "bits per weight": figure(row.bits_per_weight, digits=2),
            "ED recall": _recall(row.evaluation),
            "over-triage": figure(*interval(row.evaluation, "over_triage")),
            "macro-F1": figure(row.evaluation.macro_f1),
        }
        for row in rows
    ]
    section.tabulate("Bytes, ED recall, over-triage and macro-F1", records)


def frontier_rows(study: ReportedStudy) -> list[Row]:
    """One row per evaluation, in the order of the view: an adapter's own and its moved arm share
    that at its own precision, of which the own row stays. `kind` is what a point's shape stands for,
    `evaluation` has the figures by the rules that all share.
    """
    by_id = {
        row.evaluation_id: row for row in by_common_rules(study.board) if is_number(row.ed_recall)
    }
    landed = rows_of("frontier", only=study.ids)
    own_ids = {row.evaluation_id for row in landed if row.adapter == OWN}
    rows = []
    for row in landed:
        is_own = row.adapter == OWN
        if row.evaluation_id not in by_id or (row.evaluation_id in own_ids and not is_own):
            continue

        row.evaluation = by_id[row.evaluation_id]
        row.ed_recall = row.evaluation.ed_recall
        row.is_moved = not is_own and row.adapter != f"from {row.precision}"
        recipe = f"{row.recipe} {row.adapter}" if row.is_moved else row.recipe
        mark = random_mark(row)
        row.kind = f"{recipe}{mark}"
        row.model = f"{row.base_model} {row.precision} {recipe_name(recipe, row.seed)}{mark}"
        rows.append(row)

    return rows


def _spread_points(rows: list[Row]) -> list[Mark]:
    """A point for each model, those of one size a little apart, so that they can be told apart."""
    marks = []
    for size, group in grouped(rows, lambda row: row.stored_bytes).items():
        for place, row in enumerate(group):
            x = APART ** (place - (len(group) - 1) / 2) * size / 1e6
            mark = {"series": row.precision, "kind": row.kind, "x": x}
            marks.append(mark | along("y", interval(row.evaluation, "ed_recall")))
    return marks


def _sized(row: Row) -> str:
    return f"{row.model}, {row.stored_bytes / 1e6:.1f} MB: {_recall(row.evaluation)}"


def _recall(row: Row) -> str:
    return ed_recall_figure(*interval(row, "ed_recall"))


def confusion_matrices(study: ReportedStudy, section: Section) -> None:
    """Matrices of each one's threshold, side by side of what differs in precision alone; a constant
    answer has none, and decides alike by every rule.
    """
    board = by_common_rules(study.board)
    rule_of = {
        row.evaluation_id: "argmax" if row.recipe in CONSTANT_ANSWERS else THRESHOLD
        for row in board
    }
    cells = rows_of(
        f"confusion_matrix WHERE evaluation_id IN {listed(rule_of)} ORDER BY label, decision"
    )
    by_label = grouped(
        (cell for cell in cells if cell.rule == rule_of[cell.evaluation_id]),
        lambda cell: (cell.evaluation_id, cell.label),
    )
    rows = study.shown(
        [
            Row(evaluation_id=id, label=label, counts=[cell.cases for cell in of_label])
            for (id, label), of_label in by_label.items()
        ],
        board=board,
    )
    if not rows:
        return

    for title, group, names in by_panel(rows):
        marks = [
            {
                "series": row.series,
                "label": row.label,
                "decision": str(decision),
                "cases": count,
                "share": count / (sum(row.counts) or 1),
            }
            for row in group
            for decision, count in zip(LABELS, row.counts, strict=True)
        ]
        texts = [
            f"{row.series}: of the emergencies {row.counts[0]:.0f} sent to ED, "
            f"{row.counts[1]:.0f} to GP, {row.counts[2]:.0f} home"
            for row in group
            if row.label == "ED"
        ] or ["no emergency among the cases"]
        drawing = matrices(marks, names, LABELS)
        section.show(title, f"Confusion matrices of {title}", texts, drawing)

    judged_rows = [row.evaluation for row in one_each(rows)]
    section.findings = ends_of_recall(judged_rows)
    section.tables.append(confusion(judged_rows))


def ends_of_recall(evaluations: list[Row]) -> list[str]:
    """Which trained models send most and fewest emergencies to ED."""
    trained_rows = [row for row in evaluations if row.is_trained and row.ed_recall is not None]
    ranked_rows = sorted(trained_rows, key=lambda row: row.ed_recall)
    shares = [row.ed_recall for row in ranked_rows]
    if not shares:
        return []
    if len(shares) > 1 and shares[0] == shares[-1]:
        return [f"All trained models send the same share of emergencies to ED: {shares[0]:.3f}."]

    sentences = [
        f"{word} share of emergencies sent to ED by a trained model: "
        f"{full_name(row)}{and_others(shares, row.ed_recall)}, {_recall(row)}."
        for word, row in (("Highest", ranked_rows[-1]), ("Lowest", ranked_rows[0]))
    ]
    return sentences[: len(shares)]


def rules(study: ReportedStudy, section: Section) -> None:
    """A plane for each base model, with the cheap baseline in it; constant answers are in the table."""
    metrics = metrics_named(("ed_recall", "over_triage"))
    rows = [
        Row(evaluation_id=id, rule=rule, ed_recall=recall, over_triage=over)
        for id in study.ids
        for rule in RULES
        if (recall := metrics.get((id, rule, "ed_recall")))
        and (over := metrics.get((id, rule, "over_triage")))
        and is_number(recall.value)
        and is_number(over.value)
    ]
    rows = study.shown(rows)
    if not rows:
        return

    models = [row for row in rows if row.evaluation.precision is not None]
    cheap = cheap_baseline(study.board)
    beside = [row for row in rows if row.evaluation is cheap]
    for name, group in grouped(models, lambda row: row.evaluation.base_model).items():
        marks = [
            {"series": RULES[row.rule], "kind": row.series}
            | along("x", interval(row.over_triage))
            | along("y", interval(row.ed_recall))
            for row in [*group, *beside]
        ]
        x = axis_of_shares("over-triage, share of all cases", marks, "x")
        y = axis_of_shares("ED recall", marks, "y")
        kinds = in_order(mark["kind"] for mark in marks)
        drawing = points(marks, x, y, list(RULES.values()), kinds)
        texts = [_by_rule(row) for row in [*beside, *group]]
        section.show(name, f"ED recall against over-triage, {name}", texts, drawing)

    for rule in RULES:
        of_rule = [row for row in rows if row.rule == rule and row.evaluation.is_trained]
        if of_rule:
            best_row = max(of_rule, key=lambda row: row.ed_recall.value)
            section.findings.append(f"Highest ED recall of a trained model: {_by_rule(best_row)}.")
    records = [
        {
            "experiment": row.model,
            "rule": RULES[row.rule] + (" *" if row.rule == row.evaluation.primary_rule else ""),
            "ED recall": ed_recall_figure(*interval(row.ed_recall)),
            "over-triage": figure(*interval(row.over_triage)),
        }
        for row in rows
    ]
    section.tabulate("ED recall and over-triage by rule (* primary)", records)


def _by_rule(row: Row) -> str:
    return (
        f"{row.model} by {RULES[row.rule]}: ED recall "
        f"{ed_recall_figure(*interval(row.ed_recall))}, over-triage "
        f"{figure(*interval(row.over_triage))}"
    )


MOST_MODELS = 6
LEAST = 10  # emergencies: of fewer, an interval spans nearly everything


def subgroups(study: ReportedStudy, section: Section) -> None:
    """ED recall of subgroups: a panel for each of the first models of the leaderboard."""
    section.values = {"least": LEAST, "models": ""}
    landed = named_rows("subgroup_metrics", study.ids, metric="ed_recall")
    rows = study.shown(row for row in landed if is_number(row.value) and row.n >= LEAST)
    if not rows:
        return

    for row in rows:
        row.name = f"{row.field}: {row.subgroup}"
    section.commands = [
        "triage sql subgroup_metrics --param metric=ed_recall",
        "triage sql subgroup_gaps",
    ]
    models_rows = [row for row in rows if row.evaluation.recipe_kind != "baseline"]
    kind = "trained model" if models_rows else "baseline"
    by_model = grouped(models_rows or rows, lambda row: row.evaluation_id)
    models = counted(len(by_model), kind)
    if len(by_model) > MOST_MODELS:
        models = f"the first {MOST_MODELS} {kind}s of the leaderboard"
    section.values["models"] = models
    shown_groups = list(by_model.values())[:MOST_MODELS]
    for group in shown_groups:
        evaluation = group[0].evaluation
        marks = [{"label": "all", "series": ""} | along("x", interval(evaluation, "ed_recall"))]
        marks += [{"label": row.name, "series": ""} | along("x", interval(row)) for row in group]
        drawing = dots(marks, axis_of("ED recall", (0, 1)), [""], [ED_RECALL])
        name = group[0].model
        texts = [f"{row.name} {figure(*interval(row))}" for row in _lowest_first(group)]
        section.show(name, f"ED recall of {name} by subgroup, lowest first", texts, drawing)

    ranked_rows = _lowest_first(shown_groups[0])
    low = ranked_rows[0]
    high = ranked_rows[-1]
    section.findings.append(
        f"{low.model}: lowest in {low.name} ({low.n} emergencies), "
        f"{figure(*interval(low))}; highest in {high.name} ({high.n}), {figure(*interval(high))}; "
        f"over all {_recall(low.evaluation)}."
    )
    records = [
        {
            "experiment": row.model,
            "subgroup": row.name,
            "emergencies": str(row.n),
            "ED recall": figure(*interval(row)),
        }
        for group in shown_groups
        for row in group
    ]
    section.tabulate("ED recall by subgroup", records)


def _lowest_first(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row.value)


VALUES = ["value", "bound", "bound for all looks"]
GATES = """
    gate LEFT JOIN (SELECT evaluation_id, gate, bound_adjusted FROM gate_bounds)
    USING (evaluation_id, gate) WHERE isfinite(value)
"""


def safety_gates(study: ReportedStudy, section: Section) -> None:
    """A forest plot for each gate: value, the bound that PASS needs, and the bound for all looks."""
    trained_rows = [row for row in study.board if row.recipe_kind != "baseline"]
    rows = study.shown(rows_of(GATES), board=trained_rows)
    if not rows:
        return

    for gate, title in NAMES.items():
        of_gate = [row for row in rows if row.gate == gate]
        if gate == FALSE_NEGATIVES or not of_gate:
            continue

        marks = []
        for row in of_gate:
            values = (row.value, row.bound, row.bound_adjusted)
            for name, value in zip(VALUES, values, strict=True):
                marks.append({"label": row.two_lines, "series": name, "x": value})

        threshold = of_gate[0].threshold
        axis = axis_of_shares(title, marks, "x", also=[threshold])
        drawing = dots(marks, axis, VALUES, [threshold])
        texts = [f"{row.model} {_gate(row)}" for row in of_gate]
        section.show(title, f"Gate {title}, threshold {threshold:g}", texts, drawing)

        passing = sum(row.state == "PASS" for row in of_gate)
        best_row = max(of_gate, key=lambda row: row.value)
        section.findings.append(
            f"{title} >= {threshold:g}: {passing} of {len(of_gate)} PASS; highest "
            f"{best_row.model}: {_gate(best_row)}."
        )

    section.tables.append(gates(study.board, study.ids))


def _gate(row: Row) -> str:
    value = gate_figure(row.value, row.threshold)
    bound = f"bound {gate_figure(row.bound, row.threshold)}" if is_number(row.bound) else "no bound"
    return f"{row.state} ({value}, {bound})"


FIGURES = {"accuracy": "accuracy", "ed_recall": "ED recall", "over_triage": "over-triage"}


def baselines(study: ReportedStudy, section: Section) -> None:
    """The leaderboard as forest plots: trained models beside constant answers, a linear model and
    untuned models, all by the same rules.
    """
    section.values = {"rules": rules_note(study.board)}
    section.findings = _best_accuracy(study)
    section.tables.append(leaderboard(study.board))
    shown_rows = study.shown(by_common_rules(study.board))
    for row in shown_rows:
        row.kind = "baseline" if row.recipe_kind == "baseline" else "trained"
    for metric, name in FIGURES.items():
        rows = [row for row in shown_rows if getattr(row, metric) is not None]
        marks = [
            {"label": row.two_lines, "series": row.kind} | along("x", interval(row, metric))
            for row in rows
        ]
        names = sorted({mark["series"] for mark in marks}, reverse=True)
        drawing = dots(marks, axis_of_shares(name, marks, "x"), names)
        texts = [f"{row.model} {figure(*interval(row, metric))}" for row in rows]
        shows = f"{name[0].upper()}{name[1:]} of every model and baseline"
        section.show(name, shows, texts, drawing)


def _best_accuracy(study: ReportedStudy) -> list[str]:
    trained_rows = [row for row in study.board if row.is_trained]
    if not trained_rows:
        return ["This study has no trained model."]

    best_row = max(trained_rows, key=lambda row: row.accuracy or 0)
    ties = and_others([row.accuracy for row in trained_rows], best_row.accuracy)
    sentences = [
        f"Highest accuracy of a trained model: {full_name(best_row)}{ties}, "
        f"{figure(*interval(best_row, 'accuracy'))}."
    ]
    rows = study.shown(named_rows("beats_constant", study.ids), board=trained_rows)
    beating = sum(row.against_constant == "beats it" for row in rows)
    if rows:
        sentences.append(
            f"{beating} of {len(rows)} trained models beat the best constant answer in accuracy, "
            f"always-{rows[0].constant_answer} ({figure(rows[0].constant_accuracy)}), with the "
            "whole interval."
        )

    return sentences
