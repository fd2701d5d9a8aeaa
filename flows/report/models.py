"""Models and baselines each by itself: the leaderboard, gates, decision rules, confusion, subgroups,
other sets and seeds. A function a section, with its charts and tables.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from flows.report.figures import (
    ED_RECALL,
    cells,
    clock,
    counted,
    figure,
    gate_figure,
    heading,
    in_percent,
    listed_name,
    megabytes,
    metric_cell,
    on_cases,
    pair_name,
    percent,
    random_mark,
    verdict,
)
from flows.report.rows import (
    CONSTANT_ANSWERS,
    THRESHOLD,
    Board,
    Row,
    Study,
    by_common_rules,
    further_rows,
    grouped,
    interval_of,
    is_number,
    metrics_of,
    named_rows,
    only_random_weights,
    rows_of,
)
from flows.report.table import TITLES, Mark, Record, Section, Table, along
from tasks.precisions import UNPACKED, reference_note
from tasks.spec import LABELS
from warehouse.connect import listed

NONE = "-"
ARMS = (
    "from8bit: an adapter trained at 8 bits, threshold kept; from8bit-again: threshold, and offsets of "
    "the most probable label, chosen again on calibration"
)
NO_MODEL = "no language model"
RULES = {"argmax": "argmax", "target_recall": "target recall", "min_cost": "min cost"}
FALSE_NEGATIVES = "ed_false_negative_rate"  # the gate that holds below its threshold; 1 - recall
GATES = {"ed_recall": "ED recall", "ed_f2": "ED F2", FALSE_NEGATIVES: "ED false negatives"}
RULE_FIGURES = (
    "ed_recall",
    "ed_precision",
    "ed_f2",
    "over_triage",
    "under_triage",
    "macro_f1",
    "expected_cost",
    "cost_skill",
)

# --- All models and baselines -----------------------------------------------------------------------


def first_table(study: Study, digits: int = 1, brief: bool = False) -> Table:
    """The models of a study and the linear baseline, in percent, by the same rules; of moved adapters
    those that a claim is about, or all without one. `brief`: the title has the base model and the
    seed that all share.
    """
    board = [row for row in study.models if not row.is_baseline]
    if (claim := study.claim) is not None:
        claimed = claim.side, f"{claim.recipe} from {claim.reference}"
        board = [
            row
            for row in board
            if row.is_trained
            or row.recipe_kind == "with_linear"
            or (row.precision, row.recipe.removesuffix(" again")) == claimed
        ]
    own = sum(row.is_trained for row in board)
    moved = {(row.source_training_id, row.precision) for row in board if row.moved_rules}
    base_models = {row.base_model for row in board}
    seeds = {row.seed for row in board}
    prefix = f"{base_models.pop()}-" if brief and len(base_models) == 1 else ""
    suffix = f"-s{seeds.pop()}" if prefix and len(seeds) == 1 else ""
    if (baseline := study.baseline) is not None:
        board.append(baseline)
    marked = not only_random_weights(study.board)
    records = [
        {
            "model": listed_name(row, marked).removeprefix(prefix).removesuffix(suffix),
            "MB": _megabytes(row, digits),
            "ED recall\nthreshold": in_percent(row, "ed_recall", digits),
            "over-triage\nthreshold": in_percent(row, "over_triage", digits),
            "accuracy\nargmax": in_percent(row, "accuracy", digits),
            "gates": gates_of(row),
        }
        for row in board
    ]
    joined = sum(row.recipe_kind == "with_linear" for row in board)
    counts = [
        counted(own, "model"),
        *([counted(len(moved), "moved adapter")] if moved else []),
        *([f"{joined} together with the linear one"] if joined else []),
    ]
    row = study.board[0]
    title = f"{' and '.join(counts)} on {row.cases:,} test cases, {row.emergencies:,} of them emergencies"
    if study.set_name:
        title += f" ({study.set_name.partition(' (')[0]})"
    shared = f"names: {prefix}NAME{suffix}" if prefix else None
    notes = (
        "percent, with 95 % intervals",
        "threshold: each one's own, from calibration; argmax: the most probable label",
        "in the order of their gates, then of ED recall, by each one's own rule",
    )
    if brief:
        return Table(title, records, '"FROM leaderboard"').noted(shared, notes[0])
    return Table(title, records, '"FROM leaderboard"', notes).noted(ARMS if moved else None)


def _records(rows: Board) -> list[Record]:
    """One record per evaluation, all by the same rules."""
    return [
        {"experiment": on_cases(row)}
        | cells(row, "accuracy", "ed_recall", "over_triage")
        | {"gates": gates_of(row)}
        | cells(row, "ed_f2", "ed_precision", "macro_f1", "test_loss")
        | {"stored MB": _megabytes(row)}
        for row in rows
    ]


def leaderboard(study: Study) -> Table:
    """One row per experiment, in the order of the view."""
    share = study.prevalence
    restated = None if share is None else f"ED precision and F2 restated at {percent(share)} ED"
    precisions = {row.precision: None for row in study.board if row.precision}
    unpacked = [reference_note(name) for name in precisions if name.startswith(UNPACKED)]
    table = Table(TITLES["leaderboard"], _records(study.models), '"FROM leaderboard"')
    arms = ARMS if any(row.moved_rules for row in study.board) else None
    return table.noted(rules_note(study.board), arms, restated, *unpacked)


def rules_note(board: Board) -> str:
    """By which rules tables compare evaluations."""
    targets = sorted({row.target_ed_recall for row in board if is_number(row.target_ed_recall)})
    aims = " or ".join(f"{target:g}" for target in targets)
    return (
        "accuracy and macro-F1 by the most probable label; the figures of ED and over-triage by "
        "each one's threshold, chosen on calibration"
        + (f" for an ED recall of {aims}" if targets else "")
    )


def gates_of(row: Row) -> str:
    """The verdict of the gates, which judge a model by its own rule; a baseline is no candidate."""
    return NONE if row.is_baseline else verdict(row)


def _megabytes(row: Row, digits: int = 1) -> str:
    return megabytes(row.stored_bytes, digits) if row.stored_bytes else NONE


def baselines(study: Study) -> Section:
    """The leaderboard as forest plots: trained models beside constant answers, a linear model and
    untuned models, all by the same rules.
    """
    section = Section([leaderboard(study)])
    trained = {row.evaluation_id for row in study.board if row.is_trained}
    landed = named_rows("beats_constant", study.board_ids)
    if beats := [row for row in landed if row.evaluation_id in trained]:
        beating = sum(row.against_constant == "beats it" for row in beats)
        section.findings = [
            f"{beating} of {len(beats)} trained models beat the best constant answer in accuracy, "
            f"always-{beats[0].constant_answer} ({figure(beats[0].constant_accuracy)}), with the "
            "whole interval."
        ]

    for metric in ("accuracy", "ed_recall", "over_triage"):
        name = heading(metric)
        marks = [
            {"label": listed_name(row), "series": "baseline" if row.is_baseline else "trained"}
            | along("x", interval_of(row, metric))
            for row in study.models
        ]
        section.draw("dots", name, marks, axis={"title": name})
    return section


# --- Rows with their evaluations, and charts by model -----------------------------------------------


def series_of(row: Row) -> str:
    """What a mark's colour stands for."""
    return row.precision or NO_MODEL


def panel_name(row: Row) -> str:
    """What a model shares with those that differ in precision alone."""
    return listed_name(row) if row.precision is None else pair_name(row)


def panels(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows about models that differ in precision alone, below the name that these share."""
    yield from grouped(rows, lambda row: panel_name(row.evaluation)).items()


def about(rows: Sequence[Row], board: Sequence[Row], key: str = "evaluation_id") -> list[Row]:
    """The rows about evaluations of `board`, in its order, each with its `evaluation`."""
    by_key = grouped(rows, lambda row: getattr(row, key))
    return [
        Row(**vars(row) | {"evaluation": evaluation})
        for evaluation in board
        for row in by_key.get(getattr(evaluation, key), [])
    ]


# --- Gates ------------------------------------------------------------------------------------------


def gate_rows(evaluation_ids: Sequence[str]) -> list[Row]:
    """The gates of these evaluations, each with its bound for all models that were looked at."""
    return rows_of(
        "gate LEFT JOIN (SELECT evaluation_id, gate, bound_adjusted, models FROM gate_bounds) "
        f"USING (evaluation_id, gate) WHERE evaluation_id IN {listed(evaluation_ids)} "
        "ORDER BY evaluation_id, gate"
    )


def gate_record(row: Row) -> Record:
    """A gate as every table has it: state, count or value, bound, and the bound for all looks."""
    sign = "<=" if row.gate == FALSE_NEGATIVES else ">="
    record = {"gate": f"{GATES[row.gate]} {sign} {row.threshold:g}", "state": row.state}
    if row.state == "NOT AVAILABLE":
        record["state"] += f": {(row.note or '').removeprefix('not available: ')}"
    counts = "" if row.successes is None else f"{row.successes} of {row.n} = "
    adjusted = gate_figure(row.bound_adjusted, row.threshold)
    of_models = "" if adjusted == "n/a" else f" for {counted(row.models, 'model')}"
    return record | {
        "value": f"{counts}{gate_figure(row.value, row.threshold)}",
        "bound": gate_figure(row.bound, row.threshold),
        "bound for all looks": f"{adjusted}{of_models}",
        "bound by": "n/a" if row.method in (None, "none") else row.method.removesuffix(" 95 %"),
    }


def gate_table(evaluation_id: str) -> Table:
    """The gates of an evaluation with counts, bound and method, and notes on them."""
    rows = gate_rows([evaluation_id])
    notes = (f"{GATES[row.gate]} = {row.note}" for row in rows if row.note and is_number(row.value))
    return Table("Gates", [gate_record(row) for row in rows]).noted(*notes)


def gates(study: Study) -> Section:
    """A forest plot for each gate: value, the bound that PASS needs, and the bound for all looks.

    Baselines, which are no candidates, are left out: their gates are judged by the most probable
    label, not by a threshold.
    """
    judged = [
        row for row in (*study.board, *further_rows(study.board, study.ids)) if not row.is_baseline
    ]
    rows = about(gate_rows([row.evaluation_id for row in judged]), judged)
    records = [
        {"experiment": on_cases(row.evaluation), "by": RULES[row.evaluation.primary_rule]}
        | gate_record(row)
        for row in rows
    ]
    section = Section([Table(TITLES["gates"], records, "distance_to_gates", names=3)])
    on_test = [row for row in rows if row.evaluation.evaluation_set == "test"]
    for gate in ("ed_recall", "ed_f2"):  # the third one is 1 - recall: no further evidence
        of_gate = [row for row in on_test if row.gate == gate and is_number(row.value)]
        marks = [
            {"label": listed_name(row.evaluation), "series": series, "x": value}
            for row in of_gate
            for series, value in (
                ("value", row.value),
                ("bound", row.bound),
                ("all looks", row.bound_adjusted),
            )
        ]
        if of_gate:
            name, threshold = GATES[gate], of_gate[0].threshold
            passing = sum(row.state == "PASS" for row in of_gate)
            section.findings.append(f"{name} >= {threshold:g}: {passing} of {len(of_gate)} PASS.")
            section.draw("dots", name, marks, axis={"title": name}, lines=[threshold])
    return section


# --- Decision rules ---------------------------------------------------------------------------------


def rules(study: Study) -> Section:
    """A plane for each base model with a point for each rule; the figures of each rule."""
    metrics = metrics_of(study.board, RULE_FIGURES)
    base_models = list(dict.fromkeys(row.base_model for row in study.board if row.precision))
    records = []
    marks: dict[str, list[Mark]] = {base_model: [] for base_model in base_models}
    for row in study.board:
        for rule, words in RULES.items():
            of_rule = {name: metrics.get((row.evaluation_id, rule, name)) for name in RULE_FIGURES}
            marked = f"{words} *" if rule == row.primary_rule else words
            name = {"experiment": listed_name(row), "rule": marked}
            figures = {
                heading(metric): metric_cell(
                    of_rule[metric],
                    missing="n/a: this evaluation has no such rule",
                    digits=2 if "cost" in metric else 3,
                )
                for metric in RULE_FIGURES
            }
            records.append(name | figures)
            recall, over = of_rule["ed_recall"], of_rule["over_triage"]
            if recall is None or over is None or row.recipe in CONSTANT_ANSWERS:
                continue
            if is_number(recall.value) and is_number(over.value):
                mark = {"series": words, "kind": series_of(row)}
                mark |= along("x", interval_of(over)) | along("y", interval_of(recall))
                # The linear baseline is in the plane of every base model.
                for base_model in base_models if row.precision is None else [row.base_model]:
                    marks[base_model].append(mark)

    own_share = None if study.prevalence is None else "--prevalence does not apply"
    section = Section(
        [Table(TITLES["rules"], records, "rules_side_by_side", names=2).noted(own_share)],
        commands=['triage sql "FROM decision_rule"', "triage sql fixed_beforehand"],
    )
    x, y = {"title": "over-triage, share of all cases"}, {"title": "ED recall"}
    for base_model, of_model in marks.items():
        section.draw("points", base_model, of_model, x=x, y=y)
    return section


def confusion(study: Study) -> Section:
    """Matrices of each one's threshold, side by side of what differs in precision alone; a constant
    answer has none, and decides alike by every rule.
    """
    cells = study.rows_about("confusion_matrix")
    cases = {(row.evaluation_id, row.rule, row.label, row.decision): row.cases for row in cells}
    records = []
    charts: dict[str, list[Mark]] = {}
    for row in study.board:
        drawn_rule = "argmax" if row.recipe in CONSTANT_ANSWERS else THRESHOLD
        for truth in LABELS:
            record = {"experiment": listed_name(row), "truly": str(truth)}
            for rule, words in (("argmax", "argmax"), (THRESHOLD, "threshold")):
                # A rule that could not be applied has no cells.
                of_rule = {d: cases.get((row.evaluation_id, rule, truth, d)) for d in LABELS}
                for decision, count in of_rule.items():
                    record[f"{words}: {decision}"] = "n/a" if count is None else str(count)
                counts = [count for count in of_rule.values() if count is not None]
                if rule == drawn_rule and len(counts) == len(LABELS):
                    name = {"series": series_of(row), "label": str(truth)}
                    charts.setdefault(panel_name(row), []).extend(
                        name | {"decision": d, "cases": count, "share": count / (sum(counts) or 1)}
                        for d, count in zip(LABELS, counts, strict=True)
                    )
            records.append(record)

    section = Section([Table(TITLES["confusion"], records, "confusion", names=2)] if cases else [])
    for panel, marks in charts.items():
        section.draw("matrices", panel, marks, order=LABELS)
    return section


# --- Subgroups, other sets, seeds, cost -------------------------------------------------------------

MOST_MODELS = 6
LEAST = 10  # emergencies: of fewer, an interval spans nearly everything


def subgroups(study: Study) -> Section:
    """ED recall of subgroups: a panel for each of the first models of the leaderboard."""
    section = Section(
        commands=[
            "triage sql subgroup_metrics --param metric=ed_recall",
            "triage sql subgroup_gaps",
        ],
        values={"least": LEAST, "most": MOST_MODELS},
    )
    landed = named_rows("subgroup_metrics", study.board_ids, metric="ed_recall")
    rows = about([row for row in landed if is_number(row.value) and row.n >= LEAST], study.board)
    records = []
    for group in list(grouped(rows, lambda row: row.evaluation_id).values())[:MOST_MODELS]:
        evaluation = group[0].evaluation
        name = listed_name(evaluation)
        marks = [{"label": "all", "series": ""} | along("x", interval_of(evaluation, "ed_recall"))]
        for row in group:
            subgroup = f"{row.field}: {row.subgroup}"
            marks.append({"label": subgroup, "series": ""} | along("x", interval_of(row)))
            recall = {"emergencies": str(row.n), "ED recall": figure(*interval_of(row))}
            records.append({"experiment": name, "subgroup": subgroup} | recall)
        axis = {"title": "ED recall", "domain": (0, 1)}
        section.draw("dots", name, marks, axis=axis, lines=[ED_RECALL])
    if records:
        section.tables = [Table("ED recall by subgroup", records, "subgroup_gaps", names=2)]
    return section


def other_sets(study: Study) -> Section:
    """On evaluation sets other than test, and the spread between the seeds of one experiment."""
    further = by_common_rules(further_rows(study.board, study.ids), prevalence=study.prevalence)
    sources = Table(
        "On further evaluation sets, source by source (never used for choosing)",
        _records(further),
        '"FROM evaluation_summary"',
    )
    group_of = {row.evaluation_id: row.seed_group for row in study.rows_about("seed_group")}
    trained = [row for row in study.models if row.is_trained]
    # What differs by its seed alone: the seed group and the precision say so.
    by_seeds = grouped(trained, lambda row: (group_of[row.evaluation_id], row.precision))
    records = []
    for rows in by_seeds.values():
        if len(rows) < 2:
            continue
        first = rows[0]
        recalls = [row.ed_recall for row in rows if is_number(row.ed_recall)]
        verdicts = [row.verdict for row in rows]
        name = f"{first.base_model} {first.precision} {first.recipe}{random_mark(first)}"
        names = ("accuracy", "ed_recall", "ed_precision", "ed_f2", "over_triage")
        records.append(
            {"experiment": name, "seeds": str(len(rows))}
            | {heading(metric): _spread(rows, metric) for metric in names}
            | {"worst ED recall": figure(min(recalls, default=None), gate=ED_RECALL)}
            | {kind: str(verdicts.count(kind)) for kind in ("passes_gates", "unsafe")}
        )
    title = "Spread between seeds of one experiment: mean ± standard deviation"
    spread = Table(title, records, '"FROM seeds"')
    note = rules_note(study.board)
    return Section([table.noted(note) for table in (sources, spread) if len(table)])


def _spread(rows: Sequence[Row], name: str) -> str:
    """Without a figure if a seed has no value: a mean over some of the seeds would flatter."""
    values = [getattr(row, name) for row in rows]
    if not all(map(is_number, values)):
        return "n/a"
    return f"{figure(statistics.fmean(values))} ± {figure(statistics.stdev(values))}"


def cost(study: Study) -> Table:
    """Per experiment: losses, time, speed and memory of its training."""
    records = [
        {"experiment": listed_name(row)}
        | cells(row, "train_loss", "valid_loss")
        | {
            "trained in": clock(row.train_seconds) if is_number(row.train_seconds) else "n/a",
            "tokens/s": figure(row.tokens_per_second, digits=0),
            "weights MB": megabytes(row.weights_memory_bytes, digits=0),
            "peak MB": megabytes(row.peak_memory_bytes, digits=0),
        }
        | cells(row, "compute_path")
        for row in study.board
    ]
    return Table(TITLES["cost"], records, "training_cost")
