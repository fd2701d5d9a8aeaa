"""How experiments, evaluations and verdicts are named in tables."""

from __future__ import annotations

from typing import Protocol

from flows.report.figures import percent
from flows.report.typed_rows import EvaluationRow
from tasks.judging.gate_thresholds import ED_RECALL

RANDOM = " (random weights)"  # behind the name of whatever was measured with them
# Baselines without a language model. A recipe may be named `baseline` too, so the word is avoided.
BASELINES = {
    "always_gp": "always-GP\n(constant answer)",
    "always_ed": "always-ED\n(constant answer)",
    "tfidf_lr": "bag of words\n(TF-IDF, LR)",
}
CONSTANT_ANSWERS = ("always_gp", "always_ed")
UNTUNED = (
    "zero_shot"  # the recipe of an untuned model; a prompt that is not the default one follows
)


class Weighted(Protocol):
    """A row about something that may have random weights; None where it has no weights."""

    @property
    def random_weights(self) -> bool | None: ...


class Judged(Protocol):
    """A row with a verdict, and what the verdict rests on."""

    @property
    def verdict(self) -> str | None: ...
    @property
    def ed_prevalence(self) -> float | None: ...
    @property
    def ed_recall(self) -> float | None: ...


def experiment_name(row: EvaluationRow) -> str:
    """The name of a leaderboard row, on two lines."""
    if row.precision is None:
        return BASELINES.get(row.recipe, row.recipe)
    return (
        f"{row.base_model} {row.precision}\n{recipe_name(row.recipe, row.seed)}{random_mark(row)}"
    )


def listed_name(row: EvaluationRow, marked: bool = True) -> str:
    """The name of a leaderboard row on one line, as other commands take it.

    `marked`: it says where weights are random.
    """
    if row.precision is None:
        return BASELINES.get(row.recipe, row.recipe).replace("\n", " ")
    return f"{row.cell_id}{random_mark(row) if marked else ''}"


def recipe_name(recipe: str, seed: int) -> str:
    """A recipe with its seed, or the words for a model that was not tuned."""
    if recipe.split(" ")[0] != UNTUNED:
        return f"{recipe} s{seed}"
    prompt = recipe.removeprefix(UNTUNED).strip()
    return f"untuned (zero-shot, {prompt})" if prompt else "untuned (zero-shot)"


def on_cases(row: EvaluationRow) -> str:
    """The name of an evaluation: the experiment, and below it the cases that it was judged on."""
    set_name = "" if row.evaluation_set == "test" else f"{row.evaluation_set}: "
    return f"{listed_name(row)}\n{set_name}{row.cases} cases, {percent(row.ed_prevalence)} ED"


def random_mark(row: Weighted) -> str:
    """What stands behind the name of an experiment whose weights are random."""
    return RANDOM if row.random_weights else ""


def verdict(row: Judged) -> str:
    """The verdict of an evaluation, or why its set can give none: `unsafe` would be a finding."""
    if row.verdict != "unsafe" or row.ed_prevalence is None or 0 < row.ed_prevalence < 1:
        return str(row.verdict)
    if row.ed_prevalence == 0:
        return "not judged:\nno ED case"

    passes = row.ed_recall is not None and row.ed_recall >= ED_RECALL
    return "not judged:\nemergencies only" if passes else "unsafe"
