"""Experiments: the leaderboard of a test set, whole, at a glance and as results land; how figures
differ on further evaluation sets, and between seeds; which evaluations belong to a study.
"""

from __future__ import annotations

import contextlib
import difflib
import glob
import statistics
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path

from flows.report.figures import (
    clock,
    counted,
    ed_recall_figure,
    figure,
    interval,
    is_number,
    listed_name,
    percent,
    random_mark,
    verdict,
)
from flows.report.gates import at_prevalence, figures_at
from flows.report.rules import by_common_rules, rules_note
from flows.report.table import ReportTable
from flows.report.typed_rows import (
    Board,
    Ids,
    Row,
    further_rows,
    grouped,
    leaderboard_rows,
    rows_of,
)
from tasks.landing import some_results_wait
from tasks.precisions import UNPACKED, reference_note
from tasks.runtime.errors import BadInput, TriageError
from tasks.runtime.home import home
from warehouse.connect import FILE, REBUILD, listed, quoted, warehouse_path

LEADERBOARD = (
    "Experiments on the test set, those first that pass the gates by their own rule, then by its ED "
    "recall; baselines at the foot. In brackets: 95 % intervals"
)


def by_test_set(board: Board) -> list[list[Row]]:
    """The rows of each test set, in their order: figures on other cases cannot be compared."""
    return list(grouped(board, lambda row: row.set_digest).values())


def named_sets(board: Board) -> list[tuple[str, list[Row]]]:
    """The rows of each test set behind its name in titles, which is empty where there is one set:
    `test set 3f2a1b (60 cases, 20 of them emergencies)`.
    """
    sets = by_test_set(board)
    if len(sets) == 1:
        return [("", sets[0])]

    return [
        (
            f"test set {rows[0].set_digest[:6]} ({rows[0].cases} cases, "
            f"{rows[0].emergencies} of them emergencies)",
            rows,
        )
        for rows in sets
    ]


def leaderboard(board: Board, prevalence: float | None = None) -> ReportTable:
    """One row per experiment, in the order of `board`, the rows of the view; all by the same rules.

    `prevalence` restates ED precision and F2 at another share of emergencies.
    """
    records = [
        {
            "experiment": listed_name(row),
            "accuracy": interval(row, "accuracy"),
            "ED recall": interval(row, "ed_recall"),
            "over-triage": interval(row, "over_triage"),
            "gates": _gates(row),
            **at_prevalence(row, prevalence, below=False),
            "macro-F1": figure(row.macro_f1),
            "stored MB": _megabytes(row),
            "test loss": figure(row.test_loss),
            "trained in": _trained_in(row),
        }
        for row in by_common_rules(board)
    ]
    table = ReportTable.of(LEADERBOARD, records, '"FROM leaderboard"')
    return table.noted(rules_note(board), *reference_notes(board))


def _gates(row: Row) -> str:
    """The verdict of the gates, which judge a model by its own rule; a baseline is no candidate."""
    return NONE if row.recipe_kind == "baseline" else verdict(row).replace("\n", " ")


def _megabytes(row: Row) -> str:
    return figure(row.stored_bytes / 1e6, digits=1) if row.stored_bytes else "-"


def _trained_in(row: Row) -> str:
    return clock(row.train_seconds) if is_number(row.train_seconds) else "-"


def reference_notes(board: Board) -> list[str]:
    """What does not follow from the references of `board` that were quantised before, each once."""
    unpacked = [row.precision for row in board if (row.precision or "").startswith(UNPACKED)]
    notes = [reference_note(precision) for precision in unpacked]
    return list(dict.fromkeys(note for note in notes if note))


NONE = "-"
ALL_RANDOM = "All weights are random: the figures show that every stage runs, no more."
# The columns that --prevalence restates stand among the first ones then.
RESTATED = ("experiment", "ED recall", "ED F2", "ED pre-\ncision", "gates")


def overview(board: Board, most: int, prevalence: float | None = None) -> ReportTable:
    """The first models and baselines of a test set's leaderboard, `most` of each; the title says
    on how many cases. The most important columns stand first, since a narrow terminal shows no
    others.

    `prevalence` restates ED precision and F2 at another share of emergencies.
    """
    trained, baselines = _parts(board)
    marked = not only_random_weights(board)
    records = []
    for row in by_common_rules([*trained[:most], *baselines[:most]]):
        precision, f2 = figures_at(row, prevalence)
        record = {
            "experiment": listed_name(row, marked),
            "accu-\nracy": figure(row.accuracy, digits=2),
            "ED recall": interval(row, "ed_recall", digits=2),
            "over-\ntriage": figure(row.over_triage, digits=2),
            "gates": _gates(row),
            "ED F2": figure(f2, digits=2),
            "macro-F1": figure(row.macro_f1, digits=2),
            "MB": _megabytes(row),
            "ED pre-\ncision": figure(precision, digits=2),
            "test\nloss": figure(row.test_loss, digits=2),
            "trained\nin": _trained_in(row),
        }
        first_columns = record if prevalence is None else RESTATED
        records.append({name: record[name] for name in dict.fromkeys((*first_columns, *record))})

    return ReportTable.of(_title(board, trained, prevalence), records)


def left_out(board: Board, most: int) -> str | None:
    """`and 50 more models`: what the table does not show; None where it shows everything."""
    counts = [
        counted(len(rows) - most, f"more {kind}")
        for rows, kind in zip(_parts(board), ("model", "baseline"), strict=True)
        if len(rows) > most
    ]
    return f"and {' and '.join(counts)}" if counts else None


def only_random_weights(board: Board) -> bool:
    """Whether no model of the board has real weights: one sentence says so then, instead of a mark
    behind every name.
    """
    weighted_rows = [row for row in board if row.precision is not None]
    return bool(weighted_rows) and all(row.random_weights for row in weighted_rows)


def _parts(board: Board) -> tuple[list[Row], list[Row]]:
    """Trained models, and baselines."""
    trained = [row for row in board if row.recipe_kind != "baseline"]
    return trained, [row for row in board if row.recipe_kind == "baseline"]


def _title(board: Board, trained: Sequence[Row], prevalence: float | None) -> str:
    """E.g. `18 trained models and 6 moved adapters, best first, ...`."""
    own = sum(row.is_trained for row in trained)
    kinds = {"trained model": own, "moved adapter": len(trained) - own}
    counts = [counted(count, kind) for kind, count in kinds.items() if count]
    row = next(iter(board))
    sentences = [
        f"{' and '.join(counts) or '0 trained models'}, those that pass the gates by their own "
        f"rule first, then baselines, on {row.cases} test cases, {row.emergencies} of them "
        "emergencies. In brackets: 95 % intervals."
    ]
    if prevalence is not None:
        sentences.append(f"ED precision and F2 are restated at {percent(prevalence)} ED.")
    notes = [rules_note(board), *reference_notes(board)]
    sentences += [f"{note[0].upper()}{note[1:]}." for note in notes]
    return " ".join(sentences)


_known: dict[Path, dict[str, Row]] = {}  # by warehouse and evaluation


def landed_results(evaluation_ids: Sequence[str]) -> list[Row]:
    """What landed experiments reached on the test set; empty if the warehouse cannot be read at the
    moment.

    What had landed before the first question of this process is read at once, and each result once:
    opening the warehouse takes longer than reading it.
    """
    if some_results_wait():
        return []

    results = _known.setdefault(warehouse_path(), {})
    if missing := [id for id in evaluation_ids if id not in results]:
        which = f"AND evaluation_id IN {listed(missing)}" if results else ""
        with contextlib.suppress(TriageError):  # a sweep need not stop for figures
            view = f"evaluation_summary WHERE evaluation_set = 'test' {which}"
            results.update({row.evaluation_id: row for row in rows_of(view)})

    return [results[id] for id in evaluation_ids if id in results]


SOURCES = "On further evaluation sets, source by source (never used for choosing)"
SEEDS = (
    "Spread between seeds of one experiment, ED by its own rule: mean, and below it the standard "
    "deviation"
)
# Of the spread between seeds; a difference between precisions has the first ones.
SEED_COLUMNS = (
    *("experiment", "seeds", "accuracy", "ED recall", "worst\nED recall"),
    *("ED precision", "ED F2", "passes,\nunsafe"),
)


def by_source(board: Board, prevalence: float | None = None, ids: Ids = None) -> ReportTable:
    """One row per experiment of `board` and evaluation set other than test.

    `ids`: the evaluations of the study. `prevalence` restates ED precision and F2
    at another share of emergencies.
    """
    records = [
        {
            "set": f"{row.evaluation_set}\n{row.cases} cases, {percent(row.ed_prevalence)} ED",
            "experiment": listed_name(row),
            "accuracy": interval(row, "accuracy", below=True),
            "macro F1": figure(row.macro_f1),
            "ED recall": interval(row, "ed_recall", below=True),
            **at_prevalence(row, prevalence, below=True),
            "over-triage": interval(row, "over_triage", below=True),
            "gates": _gates(row),
        }
        for row in by_common_rules(further_rows(board, ids))
    ]
    return ReportTable.of(SOURCES, records, '"FROM evaluation_summary"').noted(rules_note(board))


def seeds(board: Board, prevalence: float | None = None, ids: Ids = None) -> ReportTable:
    """Mean and standard deviation over seeds, where a grid has more than one.

    `prevalence` restates precision and F2 at another share of emergencies. `ids`: the evaluations
    of the study.
    """
    group_of = {row.evaluation_id: row.seed_group for row in rows_of("seed_group")}
    # What differs by its seed alone: the seed group, the set of cases and the precision say so.
    by_seeds = grouped(
        board, lambda row: (group_of[row.evaluation_id], row.set_digest, row.precision)
    )

    records = []
    for row in rows_of("seeds", only=ids):
        of_seeds = by_seeds.get((row.seed_group, row.set_digest, row.precision))
        if not of_seeds:
            continue
        # At the set's own prevalence, one for all seeds, or restated seed by seed.
        figures = [figures_at(of_seed, prevalence) for of_seed in of_seeds]
        share = of_seeds[0].ed_prevalence if prevalence is None else prevalence
        cells = (
            f"{row.base_model} {row.precision} {row.recipe}{random_mark(row)}",
            str(row.seeds),
            _spread(row.accuracy_mean, row.accuracy_sd),
            _spread(row.ed_recall_mean, row.ed_recall_sd),
            ed_recall_figure(row.ed_recall_worst),
            f"{_spread_of([precision for precision, _ in figures])}\nof {percent(share)} ED",
            _spread_of([f2 for _, f2 in figures]),
            f"{row.passes_gates}, {row.unsafe}",
        )
        records.append(dict(zip(SEED_COLUMNS, cells, strict=True)))

    shown = {(group, set_digest) for group, set_digest, _ in by_seeds}
    for row in rows_of("seed_differences", only=ids):
        if (row.seed_group, row.set_digest) not in shown:
            continue
        first_cells = (
            f"{row.base_model} {row.recipe}, 4 minus 8 bits{random_mark(row)}",
            str(row.seeds),
            _spread(row.accuracy_diff_mean, row.accuracy_diff_sd, sign=True),
            _spread(row.ed_recall_diff_mean, row.ed_recall_diff_sd, sign=True),
        )
        records.append(
            dict.fromkeys(SEED_COLUMNS, "") | dict(zip(SEED_COLUMNS, first_cells, strict=False))
        )

    return ReportTable.of(SEEDS, records, '"FROM seeds"')


def _spread_of(values: Sequence[float | None]) -> str:
    """Without a figure if a seed has no value: a mean over some of the seeds would flatter."""
    numbers = [value for value in values if is_number(value)]
    if len(numbers) < len(values):
        return _spread(None, None)
    return _spread(
        statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None
    )


def _spread(mean: float | None, sd: float | None, sign: bool = False) -> str:
    return f"{figure(mean, sign=sign)}\nsd {figure(sd)}"


EARLIER = "earlier"  # the study of results that no sweep names


def study_rows() -> list[Row]:
    """Every study, the one of the last sweep first."""
    return rows_of("study")


def find_study(name: str | None = None) -> Row | None:
    """The study of this name; without one, that of the last sweep, or None where there is none.

    Raises BadInput, with the nearest name or where its results are, for a study that is not there.
    """
    studies = study_rows()
    if name is None:
        return next(iter(studies), None)
    by_name = {row.study: row for row in studies}
    if name not in by_name:
        raise BadInput(_unknown(name, list(by_name)))
    return by_name[name]


def _unknown(name: str, studies: Collection[str]) -> str:
    path = warehouse_path()
    sentence = f"The warehouse {path} has no study {name!r}"
    # With the date, since the name may be the beginning of another, as `tuned` is of `tuned-best`.
    landed = f"sweep-{glob.escape(name)}-{'[0-9]' * 8}-*"
    if any((home() / "landing").glob(landed)):
        # The file that is filled where the command is typed outside a checkout.
        other = home() / FILE
        filled = other if other != path and other.is_file() else "the file that its sweep filled"
        return (
            f"{sentence}, but its results are in {home() / 'landing'}: `{REBUILD}` fills this file "
            f"again from there, or set TRIAGE_WAREHOUSE to {filled}."
        )
    if not studies:
        return f"{sentence}, and no other yet; run `triage sweep demo` first."

    nearest = difflib.get_close_matches(name, studies, n=1, cutoff=0.5)
    if nearest:
        return f"{sentence}; did you mean {nearest[0]}? triage warehouse studies lists them."
    return f"{sentence}; it has {', '.join(studies)}. Set TRIAGE_WAREHOUSE to read another file."


def evaluation_ids(study: str) -> list[str]:
    """evaluation_ids of the study of exactly this name."""
    clauses = f"study_member WHERE kind = 'evaluation' AND study = {quoted(study)}"
    return [row.id for row in rows_of(clauses)]


def evaluations_of_sweep(sweep: str) -> list[str]:
    """evaluation_ids that a sweep made or found."""
    clauses = f"sweep_member JOIN landed USING (id) WHERE sweep_id = {quoted(sweep)}"
    return [row.id for row in rows_of(f"{clauses} AND kind = 'evaluation'")]


def studies_table(rows: Sequence[Row]) -> ReportTable:
    """One row per study."""
    records = [
        {
            "study": row.study,
            "cases": NONE if row.dataset is None else f"{row.dataset} {row.dataset_digest}",
            "train": figure(row.train_cases, digits=0),
            "test": figure(row.test_cases, digits=0),
            "experiments": str(row.experiments),
            "evaluations": str(row.evaluations),
            "sweeps": str(row.sweeps),
            "first sweep": _minute(row.first_sweep),
            "last sweep": _minute(row.last_sweep),
        }
        for row in rows
    ]
    return ReportTable.of("Studies, the one of the last sweep first", records)


def _minute(time: datetime | None) -> str:
    return NONE if time is None else f"{time:%Y-%m-%d %H:%M}"


def side_by_side(first_study: Row, second_study: Row) -> ReportTable:
    """One row per experiment of either study, on the test set that each judged last.

    Differences have no interval here: only two evaluations of the same cases could be paired.
    """
    studies = (first_study.study, second_study.study)
    boards = []
    titles = []
    notes = []
    for study in studies:
        rows = next(iter(by_test_set(leaderboard_rows(evaluation_ids(study)))), [])
        notes.append(rules_note(rows) if rows else "")
        rows = by_common_rules(rows)
        boards.append({(row.cell_id, row.random_weights): row for row in rows})
        title = f"{study}: no finished experiment"
        if rows:
            dataset = f" of dataset {rows[0].dataset_digest}" if rows[0].dataset_digest else ""
            title = f"{study}: {rows[0].cases} test cases{dataset}"
        titles.append(title)

    records = []
    for key in boards[0] | boards[1]:
        pair = [board.get(key) for board in boards]
        figures = [_figures(row) for row in pair]
        record = {"experiment": next(listed_name(row) for row in pair if row is not None)}
        for name in figures[0]:
            record |= {f"{name}\n{studies[place]}": figures[place][name] for place in (0, 1)}
        records.append(record | {"the two": _relation(*pair)})

    return ReportTable.of("; ".join(titles), records, '"FROM leaderboard"').noted(*notes)


def _figures(row: Row | None) -> dict[str, str]:
    if row is None:
        return dict.fromkeys(("accuracy", "ED recall", "gates"), NONE)
    return {
        "accuracy": interval(row, "accuracy"),
        "ED recall": interval(row, "ed_recall"),
        "gates": _gates(row),
    }


def _relation(first: Row | None, second: Row | None) -> str:
    """Whether two rows may be compared, in a few words."""
    if first is None or second is None:
        return "in one study only"
    if first.evaluation_id == second.evaluation_id:
        return "one evaluation, in both"
    if first.set_digest != second.set_digest:
        return "on other cases: not comparable"
    if first.training_id == second.training_id:
        return "one training, judged otherwise"
    return "the same cases, other training"
