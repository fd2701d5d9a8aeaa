"""How experiments, evaluations and verdicts are named in tables."""

from __future__ import annotations

from typing import Any

from flows.report.figures import is_missing, percent

RANDOM = " (random weights)"  # behind the name of whatever was measured with them
NOT_A_DEVICE = (
    "Research software, not a medical device; synthetic cases are no evidence about patients."
)


def experiment_name(r: Any) -> str:
    """The name of a leaderboard row, on two lines."""
    if r.base_model == "none":
        return f"{r.recipe}\nbaseline"
    seed = "" if r.recipe_kind == "baseline" else f" s{r.seed}"
    return f"{r.base_model} {int(r.bits)}bit\n{r.recipe}{seed}{random_mark(r)}"


def on_cases(r: Any) -> str:
    """The name of an evaluation: the experiment, and below it the cases that it was judged on."""
    named = "" if r.evaluation_set == "test" else f"{r.evaluation_set}: "
    return f"{experiment_name(r)}\n{named}{r.cases} cases, {percent(r.ed_prevalence)} ED"


def random_mark(r: Any) -> str:
    """What stands behind the name of an experiment whose weights are random."""
    return RANDOM if not is_missing(r.random_weights) and r.random_weights else ""


def verdict(r: Any) -> str:
    """The verdict of a row of evaluation_summary, or why its set could give none: `unsafe` would be a finding."""
    if r.verdict != "unsafe" or 0 < r.ed_prevalence < 1:
        return str(r.verdict)
    if r.ed_prevalence == 0:
        return "not judged:\nno ED case"
    from tasks.judging.gates import ED_RECALL  # SciPy comes with it, and few sets need this

    return "not judged:\nemergencies only" if r.ed_recall >= ED_RECALL else "unsafe"
