"""What a study claims: landed with its sweep before any result, and whether it was made or changed after results."""

import hashlib
import json
from datetime import datetime

import pyarrow.parquet as pq

from tasks.grids.grid import load_grid
from tasks.landing import SweepRecord
from tasks.runtime.home import home
from tasks.runtime.store import seal
from tests.warehouse.rows import assert_sound, evaluation, training
from tests.warehouse.test_studies import land_sweep
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query

A, B = {"margin": 0.02}, {"margin": 0.05}
# Study: the claims of its sweeps by day, the day of its evaluation and the recipe's kind; then the margin that counts, the
# day on which it was registered, and whether results existed.
STUDIES = {
    "before": ({1: A}, 2, "standard", (0.02, 1, False)),
    "again": ({1: A, 3: A}, 2, "standard", (0.02, 1, False)),
    "changed": ({1: A, 3: B}, 2, "standard", (0.05, 3, True)),
    "changed_in_time": ({1: A, 2: B}, 3, "standard", (0.05, 2, False)),
    "there_and_back": ({1: A, 3: B, 4: A}, 2, "standard", (0.02, 4, True)),
    "made_late": ({1: None, 3: A}, 2, "standard", (0.02, 3, True)),
    "left_out_later": ({1: A, 3: None}, 2, "standard", (0.02, 1, False)),
    "of_another_study": ({3: A}, 2, "safety", (0.02, 3, True)),
    "moved_adapter": ({3: A}, 2, "moved_adapter", (0.02, 3, True)),
    "baselines_alone": ({3: A}, 2, "baseline", (0.02, 3, False)),
    "same_second": ({3: A}, 3, "standard", (0.02, 3, False)),
    "none": ({1: None, 3: None}, 2, "standard", None),
}


def claimed(claim):
    """Columns of a sweep: those of a claim about `tuned`."""
    whole = {"recipe": "tuned", "base_model": "smol", "figures": ["ed_f2"], "seeds": [1, 2], "sides": ["mxfp4", "8bit"]}
    text = json.dumps(whole | claim)
    return {"primary_claim": text, "primary_digest": hashlib.sha256(text.encode()).hexdigest()[:12]}


def as_an_earlier_version(folder):
    """A sweep's landing folder without the columns of claims."""
    path = folder / "sweep.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["primary_claim", "primary_digest"]), path)
    (folder / "manifest.json").unlink()
    seal(folder, {"kind": "sweep", "id": folder.name})


def test_each_study_has_its_claim_when_it_was_registered_and_whether_results_existed():
    landing = home() / "landing"
    for study, (sweeps, day, kind, _) in STUDIES.items():
        trained = training(f"t-{study}", cell_id=study, recipe_kind=kind)
        write_landing(landing, f"t-{study}", "training", trained)
        judged = evaluation(f"e-{study}", f"t-{study}", created_at=datetime(2026, 3, day))
        write_landing(landing, f"e-{study}", "evaluation", judged)
        for started, claim in sweeps.items():
            land_sweep(landing, study, [f"e-{study}"], started, **(claimed(claim) if claim else {}))
            if claim is None:
                as_an_earlier_version(landing / f"sweep-{study}-{started}")

    assert load_all(landing).refused == {}
    rows = query("FROM primary_claim").to_dict("records")
    assert {row["study"]: (row["margin"], row["registered_at"].day, row["changed_after_results"]) for row in rows} == {
        study: expected for study, (*_, expected) in STUDIES.items() if expected
    }
    (row,) = (row for row in rows if row["study"] == "there_and_back")
    assert (row["sweep_id"], row["base_model"], row["recipe"]) == ("sweep-there_and_back-4", "smol", "tuned")
    assert (row["side"], row["reference"]) == ("mxfp4", "8bit")
    assert (list(row["figures"]), list(row["seeds"])) == (["ed_f2"], [1, 2])
    assert row["digest"] == claimed(A)["primary_digest"] and row["threshold"] == "kept", "as claims of before are meant"
    assert_sound()


def test_a_sweep_lands_its_claim_when_it_begins_and_the_same_grid_claims_the_same_again():
    overrides = ["seeds=[42, 43]", "primary.recipe=baseline", "primary.base_model=tiny-llama"]
    grid = load_grid("smoke", overrides)
    records = [SweepRecord(grid, experiments=2) for _ in range(2)]
    records[0].begin()
    (first,) = query("FROM primary_claim").to_dict("records")
    records[1].begin()
    records[1].finish(failures=0)
    (second,) = query("FROM primary_claim").to_dict("records")
    assert (first["sweep_id"], second["sweep_id"]) == tuple(record.id for record in records)
    assert second["registered_at"] == first["registered_at"]

    (sweep,) = query(f"FROM sweep WHERE sweep_id = '{first['sweep_id']}'").to_dict("records")
    assert first["registered_at"] == sweep["started_at"]
    assert first["digest"] == hashlib.sha256(sweep["primary_claim"].encode()).hexdigest()[:12]
    landed = json.loads(sweep["primary_claim"])
    assert landed == grid.registration and landed.pop("settings")["recipe"]["iterations"] == grid.recipes[0].iterations
    assert landed == {
        "recipe": "baseline", "base_model": "tiny-llama", "figures": ["accuracy", "ed_recall"], "margin": 0.02,
        "seeds": [42, 43], "sides": ["4bit", "8bit"],
    }  # fmt: skip

    SweepRecord(load_grid("smoke"), experiments=2).begin()
    kept = query("SELECT sweep_id FROM primary_claim").sweep_id.tolist()
    assert kept == [second["sweep_id"]], "a claim is not taken back by leaving it out"
