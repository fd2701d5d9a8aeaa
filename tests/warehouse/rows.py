"""Small landing rows, complete in every column, for the tests of the warehouse."""

import json
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from tasks.judging.decision_rules import judge_conformal
from tasks.judging.gates import judge_gates
from tasks.judging.intervals import UnitDraws
from tasks.judging.metrics import metric_table
from tasks.judging.point_metrics import label_codes
from tasks.judging.score_metrics import ClassScores, decision_curve, net_benefits, reliability_rows, score_metrics
from tasks.spec import SCORING_VERSION
from warehouse import health
from warehouse.connect import reading, writing
from warehouse.landing import write_landing
from warehouse.load import load_all, load_landings
from warehouse.schema import sql_files, tables

COSTS = {
    "ED": {"ED": 1, "GP": 100, "HOME": 100},
    "GP": {"ED": 2, "GP": 1, "HOME": 10},
    "HOME": {"ED": 2, "GP": 3, "HOME": 1},
}
PROBABILITIES = {"ED": (0.8, 0.1, 0.1), "GP": (0.1, 0.8, 0.1), "HOME": (0.1, 0.1, 0.8)}
FIVE = [("ED", "ED", "ED"), ("ED", "GP", "ED"), ("GP", "GP", "GP"), ("GP", "GP", "ED"), ("HOME", "HOME", "HOME")]


def full(table: str, **values: Any) -> dict[str, Any]:
    """A row with every column of the table, None where nothing is given."""
    return {**dict.fromkeys(tables()[table].names), **values}


def training(id: str, bits: int | None = 4, day: int = 1, **values: Any) -> dict[str, list[dict[str, Any]]]:
    width = bits or 16
    base = {
        "cell_id": f"smol-{bits}bit-r1-s42", "base_model": "smol", "recipe": "r1", "recipe_kind": "standard", "seed": 42,
        "status": "completed", "bits": bits, "precision": bits and f"{bits}bit", "stored_bytes": 1000 * width,
        "bits_per_weight": width + 0.5, "machine": "m1",
        "compute_path": "packed", "learning_rate": 1e-4, "dataset_digest": "data", "engine_version": 1,
        "peak_memory_bytes": 100 * width, "train_seconds": 10.0 * width, "finished_at": datetime(2026, 1, day),
        "weights_source": "hub", "original_precision": "bf16", "random_weights": False,
    }  # fmt: skip
    curve = [full("training_curve", training_id=id, iteration=i, split="train", loss=1.0 / i) for i in (1, 2)]

    return {"experiment": [full("experiment", training_id=id, **(base | values))], "training_curve": curve}


@cache
def judged(cases: tuple[tuple[str, str, str], ...], groups: bool) -> dict[str, list[dict[str, Any]]]:
    """What follows from the cases of an evaluation, for any id; made once, since most tests have the same few cases."""
    labels, argmax, decisions = ([case[i] for case in cases] for i in range(3))
    ps = [PROBABILITIES[a] for a in argmax]
    named = [f"group {i // 2}" for i in range(len(cases))] if groups else None
    gates, verdict = judge_gates(labels, decisions, named)
    p = np.array(ps)
    truth = label_codes(labels)
    draws = UnitDraws.of(np.column_stack([p, truth]), named, seed=0, resamples=50)
    curve = decision_curve(p[:, 0], (truth == 0).astype(np.int64), draws)
    (of_ed,), resampled = score_metrics([ClassScores("ED", p, truth, np.arange(len(p)))], draws, curve)
    right = sum(a == b for a, b in zip(labels, argmax, strict=True))
    rows = {
        "evaluation": [{"accuracy": right / len(cases), "verdict": verdict, "ed_prevalence": labels.count("ED") / len(cases)}],
        "prediction": [
            dict(
                case_id=f"c{i:05}", case_group=named[i] if named else None,
                label=labels[i], argmax=argmax[i], decision=decisions[i], target_recall=decisions[i], nll=0.1 * (i % 7),
                **dict(zip(("p_ed", "p_gp", "p_home"), PROBABILITIES[argmax[i]], strict=True)),
            )
            for i in range(len(cases))
        ],
        "metric": [
            {"rule": rule, **row}
            for rule, chosen in (("argmax", argmax), ("target_recall", decisions))
            for row in [*metric_table(labels, chosen, named, COSTS, resamples=50), *(of_ed if rule == "argmax" else ())]
        ],
        "decision_rule": [
            {
                "rule": rule, "calibration_digest": "calibration", "note": note,
                "chosen_at": datetime(2026, 1, 2, 1), "test_scored_at": datetime(2026, 1, 2, 2),
            }
            for rule, note in (("argmax", None), ("target_recall", "by hand"), ("min_cost", "not available: by hand"))
        ],
        "reliability": reliability_rows(labels, [p[0] for p in ps]),
        "net_benefit": net_benefits(curve, resampled, draws),
        "conformal": [judge_conformal((ps, labels), (ps, labels), 0.05)],
        "gate": gates,
    }  # fmt: skip
    return {table: [full(table, **row) for row in made] for table, made in rows.items()}


def evaluation(
    id: str,
    training_id: str,
    cases: list[tuple[str, str, str]] = FIVE,
    groups: bool = False,
    target: float | None = None,
    **values: Any,
) -> dict[str, list[dict[str, Any]]]:
    """`cases`: label, argmax, decision of each, by a threshold that was chosen for `target`. Metrics and gates are those of
    tasks/scoring."""
    base = {
        "scores_id": id, "training_id": training_id, "evaluation_set": "test", "set_digest": "set", "cases": len(cases),
        "has_groups": groups, "primary_rule": "target_recall", "scoring_version": SCORING_VERSION,
        "created_at": datetime(2026, 1, 2), "loss": 0.5, "mc_status": "not available", "mc_reason": "dropout is 0",
        "cost_matrix": json.dumps(COSTS),
    }  # fmt: skip
    made = judged(tuple(map(tuple, cases)), groups)
    rows = {table: [row | {"evaluation_id": id} for row in of_table] for table, of_table in made.items()}
    rows["evaluation"][0] |= base | values
    for rule in rows["decision_rule"]:
        rule["target"] = target if rule["rule"] == "target_recall" else None
    return rows


def land_arm(
    root: Path,
    id: str,
    bits: int | None = 4,
    cases: list[Any] = FIVE,
    groups: bool = False,
    on: str = "set",
    of_evaluation: dict[str, Any] | None = None,
    **values: Any,
) -> None:
    """A training `tID`, and its evaluation `eID` on the test set `on`."""
    write_landing(root, f"t{id}", "training", training(f"t{id}", bits, **values))
    rows = evaluation(f"e{id}", f"t{id}", cases, groups, **{"set_digest": on, **(of_evaluation or {})})
    write_landing(root, f"e{id}", "evaluation", rows)


def land_pair(
    root: Path, four: list[Any] = FIVE, eight: list[Any] = FIVE, groups: bool = False, name: str = "", **values: Any
) -> None:
    """A 4-bit and an 8-bit experiment, alike but for bits and decisions; with a name it is another cell."""
    for bits, cases in ((4, four), (8, eight)):
        cell = {"cell_id": f"{bits}{name}"} if name else {}
        land_arm(root, f"{bits}{name}", bits, cases, groups, **(cell | values))


def load_pair(root: Path, *args: Any, **values: Any) -> None:
    """`land_pair`, and its landing folders loaded."""
    land_pair(root, *args, **values)
    load_all(root)


def land_trainings(root: Path, *rows: tuple[str, int, dict[str, Any]]) -> None:
    """Trainings with their ids, the hours at which they were loaded, and further values."""
    for id, _, values in rows:
        write_landing(root, id, "training", training(id, **values))
    load_all(root)
    with writing() as con:
        for id, hour, _ in rows:
            con.execute("UPDATE landed SET loaded_at = ? WHERE id = ?", [datetime(2026, 1, 1, hour), id])


def assert_sound(database: Path | None = None) -> None:
    """No audit finds a row in a warehouse."""
    with reading(database) as con:
        assert {audit: rows for audit, rows in health.run_audits(con).items() if rows} == {}


def load_landing(folder: Path, database: Path | None = None) -> bool:
    """Load one landing folder; False if exactly this content is loaded already."""
    return bool(load_landings([folder], database))


def offending_rows(con: duckdb.DuckDBPyConnection, audit: str) -> int:
    """How many rows one audit finds."""
    computed = {
        "duplicate_keys": health._duplicate_keys,
        "metrics_are_reproduced": health.wrong_metrics,
        "pairs_are_reproduced": health.wrong_pairs,
        "pools_are_reproduced": health.wrong_pools,
    }
    if audit in computed:
        return len(computed[audit](con))
    return len(con.execute(dict(sql_files("audits"))[audit]).fetchall())
