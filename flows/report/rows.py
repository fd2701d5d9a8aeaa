"""Rows of the warehouse for reports, without pandas: evaluations by one rule for all, pairs, recipes,
and the studies that they belong to.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any, TypeGuard, TypeVar

from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.spec import ED_AUROC
from warehouse.connect import REBUILD, listed, quoted, warehouse_path
from warehouse.cookbook import named_query
from warehouse.query import Rows, query_rows

TRAINED = ("standard", "safety")
CONSTANT_ANSWERS = ("always_gp", "always_ed")
CHEAP_BASELINES = ("tfidf_lr", "linear")  # need no language model; the stronger one last
RANDOM = " (random weights)"  # behind the name of whatever was measured with them
EARLIER = "earlier"  # the study of results that no sweep names
# The rule by which tables show every model and baseline in a figure, so that all are compared alike.
THRESHOLD = "target_recall"
COMMON_RULES = {
    "accuracy": "argmax",
    "macro_f1": "argmax",
    "ed_recall": THRESHOLD,
    "ed_precision": THRESHOLD,
    "ed_f2": THRESHOLD,
    "over_triage": THRESHOLD,
    "under_triage": THRESHOLD,
    ED_AUROC: "argmax",
}
Kind = TypeVar("Kind")


class Row(SimpleNamespace):
    """A row of a table, a view or a query: its columns as attributes; None where there is no
    figure. In `leaderboard` and `evaluation_summary` it is an evaluation under its primary rule,
    whose `precision` is None for a baseline without a language model.
    """

    @property
    def emergencies(self) -> int:
        """Number of emergencies among its cases."""
        return round(self.cases * self.ed_prevalence)

    @property
    def is_trained(self) -> bool:
        """Whether it is the model of a training: no baseline, and no adapter moved from another
        precision, which would count a training more than once.
        """
        return self.recipe_kind in TRAINED

    @property
    def is_baseline(self) -> bool:
        return self.recipe_kind == "baseline"


Board = Collection[Row]  # evaluations in the leaderboard's order
Ids = Collection[str] | None  # of the evaluations that views show; None: of all
# A figure with the ends of its interval.
Interval = tuple[float | None, float | None, float | None]


def rows_of(clauses: str, only: Ids = None, **values: str | None) -> list[Row]:
    """Rows of `FROM <clauses>`, e.g. "gate WHERE n > 10".

    `only`: ids of evaluations; views show these, and no others. `values`: of the parameters, such as
    `$study`. Raises BadInput where there is no warehouse yet.
    """
    return _as_rows(query_rows(f"SELECT * FROM {clauses}", values, only=only))


def named_rows(name: str, only: Ids, **values: str) -> list[Row]:
    """What `triage sql NAME` answers about these evaluations; `values` are those of the query's
    parameters.
    """
    stored_query = named_query(name)
    statement = stored_query.sql.rstrip().removesuffix(";")
    return _as_rows(query_rows(statement, stored_query.values(values), only=only))


def _as_rows(result: Rows) -> list[Row]:
    return [Row(**dict(zip(result.columns, row, strict=True))) for row in result.rows]


def grouped(rows: Iterable[Kind], key: Callable[[Kind], Any]) -> dict[Any, list[Kind]]:
    """The rows of each key, in their order."""
    groups: dict[Any, list[Kind]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def is_number(value: float | None) -> TypeGuard[float]:
    """Whether there is a figure: neither NULL nor NaN."""
    return value is not None and not math.isnan(value)


def interval_of(row: Row, name: str = "") -> Interval:
    """A figure of a row with the ends of its interval; without a name, of a row about one figure."""
    if not name:
        return row.value, row.low, row.high
    return getattr(row, name), getattr(row, f"{name}_low"), getattr(row, f"{name}_high")


# --- Evaluations ------------------------------------------------------------------------------------


def leaderboard_rows(only: Ids = None) -> list[Row]:
    """The latest evaluation of each experiment on the test set, or those of `only`, in the
    leaderboard's order.
    """
    return rows_of("leaderboard", only)


def further_rows(board: Board, ids: Ids = None) -> list[Row]:
    """The latest evaluation of each training of `board` on each further evaluation set, by set and
    time. `ids`: of these evaluations alone, which are those of a study.
    """
    trainings = listed({row.training_id for row in board})
    clauses = (
        f"evaluation_summary WHERE evaluation_set <> 'test' AND training_id IN {trainings} "
        "QUALIFY row_number() OVER (PARTITION BY evaluation_set, training_id "
        "ORDER BY created_at DESC) = 1 ORDER BY evaluation_set, created_at, evaluation_id"
    )
    return rows_of(clauses, ids)


def metrics_of(board: Board, names: Collection[str]) -> dict[tuple[str, str, str], Row]:
    """Rows of `metric` with these names, by evaluation, rule and metric."""
    ids = listed({row.evaluation_id for row in board})
    rows = rows_of(f"metric WHERE metric IN {listed(names)} AND evaluation_id IN {ids}")
    return {(row.evaluation_id, row.rule, row.metric): row for row in rows}


def by_common_rules(
    board: Board, rule: str | None = None, prevalence: float | None = None
) -> list[Row]:
    """The evaluations with their figures by COMMON_RULES, or all by `rule`, and not each by its own.

    A constant answer has no scores to choose a threshold on, and decides alike by every rule.
    `prevalence` restates ED precision and F2 at another share of emergencies, without intervals.
    """
    metrics = metrics_of(board, COMMON_RULES)
    rows = []
    for row in board:
        figures: dict[str, Any] = {}
        for name, common_rule in COMMON_RULES.items():
            applied = "argmax" if row.recipe in CONSTANT_ANSWERS else rule or common_rule
            metric = metrics.get((row.evaluation_id, applied, name))
            for column, end in ((name, "value"), (f"{name}_low", "low"), (f"{name}_high", "high")):
                figures[column] = getattr(metric, end, None)
        by_rule = Row(**vars(row) | figures)
        rows.append(by_rule if prevalence is None else at_prevalence(by_rule, prevalence))
    return rows


def by_test_set(board: Board) -> list[list[Row]]:
    """The rows of each test set, in their order: figures on other cases cannot be compared."""
    return list(grouped(board, lambda row: row.set_digest).values())


def only_random_weights(board: Board) -> bool:
    """Whether no model of the board has real weights."""
    weighted_rows = [row for row in board if row.precision is not None]
    return bool(weighted_rows) and all(row.random_weights for row in weighted_rows)


# --- Another share of emergencies -------------------------------------------------------------------


def check_prevalence(prevalence: float | None) -> None:
    """Raise BadInput for a `--prevalence` that is no share."""
    if prevalence is not None and not 0 < prevalence < 1:
        raise BadInput(f"--prevalence must be between 0 and 1, e.g. 0.1 (got {prevalence:g}).")


def at_prevalence(row: Row, prevalence: float) -> Row:
    """The evaluation with ED precision and F2 at another prevalence, without their intervals."""
    precision, f2 = restated(row.ed_recall, row.ed_precision, row.ed_prevalence, prevalence)
    ends = dict.fromkeys(
        f"{name}_{end}" for name in ("ed_precision", "ed_f2") for end in ("low", "high")
    )
    return Row(**vars(row) | ends | {"ed_precision": precision, "ed_f2": f2})


def restated(
    recall: float | None, precision: float | None, prevalence: float, other: float
) -> tuple[float | None, float | None]:
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


# --- Studies ----------------------------------------------------------------------------------------


def study_rows() -> list[Row]:
    """Every study, the one of the last sweep first."""
    return rows_of("study")


def evaluation_ids(study: str) -> list[str]:
    """evaluation_ids of the study of exactly this name."""
    clauses = f"study_member WHERE kind = 'evaluation' AND study = {quoted(study)}"
    return [row.id for row in rows_of(clauses)]


def random_studies() -> set[str]:
    """The studies whose models all have random weights: they show that a path works, no more."""
    clauses = (
        "(SELECT study FROM study_member JOIN evaluation ON evaluation_id = id "
        "JOIN experiment USING (training_id) WHERE base_model <> 'none' GROUP BY study HAVING bool_and(random_weights))"
    )
    return {row.study for row in rows_of(clauses)}


def study_note(study: str, command: str) -> str | None:
    """A sentence that names this study and the others; `command` shows one of them. None for the
    only one.
    """
    random = random_studies()
    others = [
        f"{row.study}{RANDOM if row.study in random else ''}"
        for row in study_rows()
        if row.study != study
    ]
    return (
        f"This was the study {study}. Others: {', '.join(others)}; {command}." if others else None
    )


def find_study(name: str | None = None) -> Row | None:
    """The study of this name; without one, that of the last sweep, of models with real weights if
    there is one, or None where there is none.

    Raises BadInput, with the nearest name, for a study that is not there.
    """
    studies = study_rows()
    if name is None:
        random = random_studies()
        return next((row for row in studies if row.study not in random), next(iter(studies), None))
    by_name = {row.study: row for row in studies}
    if name not in by_name:
        nearest = difflib.get_close_matches(name, by_name, n=1, cutoff=0.5)
        known = (
            f"did you mean {nearest[0]}?" if nearest else f"it has {', '.join(by_name) or 'none'}."
        )
        raise BadInput(
            f"The warehouse {warehouse_path()} has no study {name!r}; {known} `{REBUILD}` fills it "
            f"from {home() / 'landing'}; TRIAGE_WAREHOUSE names another file."
        )
    return by_name[name]


class Sealed(BadInput):
    """The claim of a study is sealed: none of its models has a figure yet."""

    def __init__(self, claim: Row) -> None:
        super().__init__(
            f"The study {claim.study} is sealed, so no figure of its models is shown; `triage compare "
            f"{claim.study}` says how far it is."
        )
        self.claim = claim


def claims_of(study: str) -> list[Row]:
    """The row of primary_claim, if the study has one. Raises Sealed."""
    claims = rows_of(f"primary_claim WHERE study = {quoted(study)}")
    for claim in claims:
        if claim.sealed:
            raise Sealed(claim)
    return claims


@dataclass(frozen=True)
class Study:
    """A study on one test set: what every table and chart is made from.

    `name`: None where the warehouse knows no study, and everything is shown. `board`: its
    evaluations on the test set, in the leaderboard's order; `ids`: those on any set, None for all.
    `pairs` and `recipes`: rows of quantization_comparison and quantization_summary on the test set.
    `claim`: its row of primary_claim. `set_name`: the words for the test set where the study has
    several. `prevalence`: at which ED precision and F2 are restated.
    """

    name: str | None
    board: list[Row]
    ids: Ids = None
    pairs: Sequence[Row] = ()
    recipes: Sequence[Row] = ()
    claim: Row | None = None
    set_name: str = ""
    prevalence: float | None = None
    grid: str | None = None

    @cached_property
    def models(self) -> list[Row]:
        """The board by the rules that all share; trained models, moved adapters and baselines."""
        return by_common_rules(self.board, prevalence=self.prevalence)

    @property
    def board_ids(self) -> list[str]:
        return [row.evaluation_id for row in self.board]

    def rows_about(self, table: str, order: str = "") -> list[Row]:
        """The rows of a table or view about the evaluations of the board; `order`: their columns to
        sort by.
        """
        ordered = f" ORDER BY {order}" if order else ""
        return rows_of(f"{table} WHERE evaluation_id IN {listed(self.board_ids)}{ordered}")

    @cached_property
    def seed_groups(self) -> dict[str, str]:
        """The seed_group of each pair, by its evaluation at 4 bits."""
        ids = listed({pair.evaluation_4bit for pair in self.pairs})
        rows = rows_of(f"seed_group WHERE evaluation_id IN {ids}")
        return {row.evaluation_id: row.seed_group for row in rows}

    @property
    def scored(self) -> list[Row]:
        """The board without constant answers, which have no scores."""
        return [row for row in self.board if row.recipe not in CONSTANT_ANSWERS]

    @cached_property
    def baseline(self) -> Row | None:
        """The linear baseline on these cases, the study's own or whichever study fitted it, as in
        quantization_summary; of older studies the bag of words. At the prevalence of the cases, as what
        it stands beside.
        """
        rows = rows_of(
            f"evaluation_summary WHERE evaluation_set = 'test' AND set_digest = "
            f"{quoted(self.board[0].set_digest)} AND recipe IN {listed(CHEAP_BASELINES)} "
            "ORDER BY created_at, evaluation_id"
        )
        rows += [row for row in self.board if row.recipe in CHEAP_BASELINES]
        rows.sort(key=lambda row: CHEAP_BASELINES.index(row.recipe))
        return next(iter(by_common_rules(rows[-1:])), None)


def studied(
    name: str | None = None, prevalence: float | None = None, only: Ids = None
) -> list[Study]:
    """The study of this name on each of its test sets, the one judged last first; without a name,
    that of `find_study`, or everything where there is none. Empty where nothing has finished.

    `only`: these evaluations of the study alone, as those of one sweep; recipes are the study's.
    Raises BadInput for an unknown study and for a prevalence that is no share; Sealed.
    """
    check_prevalence(prevalence)
    # A sweep that was killed may have landed no study yet.
    known = only is None or any(row.study == name for row in study_rows())
    found = find_study(name) if known else None
    ids = evaluation_ids(found.study) if found else None
    claims = claims_of(found.study) if found else []
    shown_ids = ids if only is None else only
    boards = by_test_set(leaderboard_rows(shown_ids))
    if not boards and ids:  # all of it may be of the claim of another study
        for row in rows_of(f"sealed_evaluation WHERE evaluation_id IN {listed(ids)}"):
            claims_of(row.study)
    pairs = rows_of("quantization_comparison", shown_ids) if boards else []
    recipes = rows_of("quantization_summary", ids) if boards else []

    studies = []
    for board in boards:
        digest = board[0].set_digest
        set_name = (
            f"test set {digest[:6]} ({board[0].cases} cases, {board[0].emergencies} of them "
            "emergencies)"
        )
        one = Study(
            name=found.study if found else None,
            board=board,
            ids=shown_ids,
            pairs=[row for row in pairs if row.set_digest == digest],
            recipes=[row for row in recipes if row.set_digest == digest],
            claim=next(iter(claims), None),
            set_name=set_name if len(boards) > 1 else "",
            prevalence=prevalence,
            grid=found.grid if found else None,
        )
        studies.append(one)
    return studies
