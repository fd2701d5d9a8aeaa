"""The tables behind the comparison: flips, fidelity of quantisation, the review flag, calibration, seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from flows.by_source import SOURCES, by_source
from flows.tables import chosen, experiment_name, figure, random_mark
from warehouse.query import query

FLIPS = "Decisions that flip with the precision (primary rule); harmless: from one wrong decision to another that costs no more"
FIDELITY = "What quantisation alone changes, before any training: KL divergence to the reference, in nats"
REVIEW = "The review flag of Monte Carlo dropout against scores of one pass at equal load; errors of the primary rule"
TRUST = "Can the probabilities be trusted? Calibration, conformal sets, and answers as written"
SEEDS = "Spread between seeds of one experiment"


def evidence(cells: list[str] | None = None) -> list[tuple[str, pd.DataFrame]]:
    """Titles and tables, those without rows left out. `cells` keeps only these experiments and their baselines."""
    board = chosen(query("SELECT * FROM leaderboard"), cells)
    made = [
        (SOURCES, by_source(board)),
        (TRUST, trust(board)),
        (REVIEW, review(board)),
        (FLIPS, flips(board)),
        (FIDELITY, fidelity(board)),
        (SEEDS, seeds(board)),
    ]
    return [(title, frame) for title, frame in made if len(frame)]


def trust(board: pd.DataFrame) -> pd.DataFrame:
    """Per experiment with likelihoods or learned scores: likelihood, Brier score, ECE, conformal sets, format."""
    names = "('ece', 'ed_ece', 'brier', 'ed_brier', 'format_compliance', 'generation_agreement')"
    found = query(f"SELECT * FROM metric WHERE rule = 'argmax' AND metric IN {names}").set_index(
        ["evaluation_id", "metric"]
    )
    conformal = query("FROM conformal").set_index("evaluation_id")
    rows = []
    for r in board[~board.recipe.isin(("always_gp", "always_ed"))].itertuples():
        rows.append(
            {
                "experiment": experiment_name(r),
                "NLL, perplexity": f"{figure(r.test_loss)}\n{figure(r.perplexity, digits=2)}",
                "Brier": _metric(found, r.evaluation_id, "brier"),
                "Brier of ED": _metric(found, r.evaluation_id, "ed_brier"),
                "ECE": _metric(found, r.evaluation_id, "ece"), "ECE of ED": _metric(found, r.evaluation_id, "ed_ece"),
                "conformal: ED missed, abstains": _conformal(conformal, r.evaluation_id),
                "writes one label": _metric(found, r.evaluation_id, "format_compliance"),
                "writes what it scores": _metric(found, r.evaluation_id, "generation_agreement"),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _metric(found: pd.DataFrame, evaluation_id: Any, name: str) -> str:
    if (evaluation_id, name) not in found.index:
        return "n/a"
    m: Any = found.loc[(evaluation_id, name)]
    if pd.isna(m["value"]):
        return "n/a" if "needs 300" not in str(m["note"]) else f"n/a: {m['n']} cases"
    return figure(m["value"], m["low"], m["high"])


def _conformal(found: pd.DataFrame, evaluation_id: Any) -> str:
    if evaluation_id not in found.index:
        return "n/a"
    c: Any = found.loc[evaluation_id]
    missed = "n/a" if pd.isna(c["ed_missed"]) else f"{int(c['ed_missed'])} of {int(c['ed_cases'])}"
    return f"{missed}, {c['abstain_rate']:.0%}\n(at most {c['miss_rate']:.0%} expected)"


def review(board: pd.DataFrame) -> pd.DataFrame:
    """Per experiment with dropout: what each score flags at the load of the vote entropy's flag."""
    frame = query(
        "SELECT f.*, mc_passes, e.cases AS set_cases FROM review_flag AS f JOIN evaluation AS e USING (evaluation_id)"
    )
    rows = []
    for r in board.itertuples():
        own: list[Any] = list(
            frame[frame.evaluation_id == r.evaluation_id].sort_values("score", ascending=False).itertuples()
        )
        if not own:
            continue
        rows.append(
            {
                "experiment": f"{experiment_name(r)}\n{own[0].cases} of {own[0].set_cases} cases",
                "score": _each(own, lambda f: str(f.score).replace("_", " ")), "load": _each(own, lambda f: figure(f.load)),
                "AURC": _each(own, lambda f: figure(f.aurc)), "error among kept": _each(own, lambda f: figure(f.error_kept)),
                "missed EDs flagged": _each(own, lambda f: _share_of(f.missed_ed_flagged, f.missed_ed)),
                "AURC minus that of votes": _each(own, _difference), "which is better": _each(own, _verdict),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _each(rows: list[Any], show: Callable[[Any], str]) -> str:
    return "\n".join(show(row) for row in rows)


def _difference(f: Any) -> str:
    return (
        ""
        if pd.isna(f.aurc_difference)
        else figure(f.aurc_difference, f.difference_low, f.difference_high, sign=True).replace("\n", ", ")
    )


def _verdict(f: Any) -> str:
    return "" if pd.isna(f.verdict) else str(f.verdict).replace("_", " ")


def _share_of(share: Any, count: Any) -> str:
    return "none missed" if not count else f"{figure(share, digits=2)} of {int(count)}"


def flips(board: pd.DataFrame) -> pd.DataFrame:
    """Per pair: decisions lost and gained, their cost, and how many the review flag caught."""
    known = set(board.evaluation_id)
    rows = [
        {
            "pair": f"{r.base_model}\n{r.recipe} s{r.seed}", "change": r.change, "flips": f"{r.flips} of {r.cases}",
            "right to wrong": r.correct_to_wrong, "wrong to right": r.wrong_to_correct,
            "ED lost": f"{r.ed_lost} of {r.ed_cases}", "ED gained": r.ed_gained, "harmless": figure(r.harmless, digits=0),
            "cost": figure(r.flip_cost, digits=0, sign=True), "flagged": _flagged(r),
        }
        for r in query("FROM flips").itertuples()
        if {r.evaluation_before, r.evaluation_after} <= known
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _flagged(r: Any) -> str:
    if not r.dropout_cases:
        return "no dropout"
    return f"{r.flips_flagged} of {r.flips_flagged + r.flips_not_flagged}\n({r.dropout_cases} cases with dropout)"


def fidelity(board: pd.DataFrame) -> pd.DataFrame:
    """Per variant and distribution; the latest measurement of each."""
    frame = query("FROM fidelity ORDER BY base_model, bits, distribution DESC, fidelity_id")
    frame = frame[frame.base_model.isin(board.base_model)].drop_duplicates(
        ["base_model", "bits", "distribution"], keep="last"
    )
    rows = [
        {
            "variant": f"{r.base_model} {r.bits}bit\nagainst {r.reference_precision}",
            "KL over": f"{r.distribution}\n{r.cases} of {r.set_cases} cases",
            **{name: figure(getattr(r, column), digits=5) for name, column in KL.items()},
            "same top": figure(r.same_top1), "perplexity ratio": figure(r.perplexity_ratio, digits=4),
        }
        for r in frame.itertuples()
    ]  # fmt: skip
    return pd.DataFrame(rows)


KL = {
    "mean": "kl_mean",
    "median": "kl_median",
    "95 %": "kl_p95",
    "99 %": "kl_p99",
    "99.9 %": "kl_p999",
    "max": "kl_max",
}


def seeds(board: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds, where a grid has more than one."""
    rows = [
        {
            "experiment": f"{r.base_model} {r.bits}bit\n{r.recipe}{random_mark(r)}", "seeds": r.seeds,
            "accuracy": _spread(r.accuracy_mean, r.accuracy_sd), "ED recall": _spread(r.ed_recall_mean, r.ed_recall_sd),
            "worst ED recall": figure(r.ed_recall_worst), "ED F2": _spread(r.ed_f2_mean, r.ed_f2_sd),
            "passes, unsafe": f"{r.passes_gates}, {r.unsafe}",
        }
        for r in _of(board, "seeds")
    ]  # fmt: skip
    pairs = [
        {
            "experiment": f"{r.base_model} 4 minus 8 bits\n{r.recipe}{random_mark(r)}", "seeds": r.seeds,
            "accuracy": _spread(r.accuracy_diff_mean, r.accuracy_diff_sd, True),
            "ED recall": _spread(r.ed_recall_diff_mean, r.ed_recall_diff_sd, True), "worst ED recall": "", "ED F2": "",
            "passes, unsafe": "",
        }
        for r in _of(board, "seed_differences")
    ]  # fmt: skip
    return pd.DataFrame(rows + pairs)


def _of(board: pd.DataFrame, view: str) -> list[Any]:
    """Rows of a view of base models and sets that are those of the board."""
    frame = query(f"FROM {view}")
    own = frame.set_digest.isin(board.set_digest) & frame.base_model.isin(board.base_model)
    return list(frame[own].itertuples())


def _spread(mean: Any, sd: Any, sign: bool = False) -> str:
    return f"{figure(mean, sign=sign)}\nsd {figure(sd)}"
