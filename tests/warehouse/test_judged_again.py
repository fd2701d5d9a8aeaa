"""Stored scores that a later version judged again: views show that evaluation alone, tables keep both."""

import json
import shutil

import pytest

from tests.warehouse.rows import COSTS, FIVE, assert_sound, evaluation, training
from tests.warehouse.test_studies import land_sweep
from warehouse.connect import writing
from warehouse.fill import note_judgings
from warehouse.forget import forget
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query
from warehouse.rebuild import rebuild

EARLIER = 6  # of which the scores have the id of the evaluation
OTHER = [("ED", "GP", "ED"), *FIVE[1:]]
MOVED = {"recipe": "r1 from 4bit", "recipe_kind": "moved_adapter", "cell_id": "smol-8bit-r1-from4bit-s42"}
SECOND_ORDER = json.dumps({truth: dict(reversed(COSTS[truth].items())) for truth in reversed(COSTS)})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two pairs and an adapter moved to 8 bits, all judged at version 6. The scores of the first pair, and those of the
    moved adapter, were judged again, in a study of their own; of the second pair only the 4-bit side."""
    root = tmp_path_factory.mktemp("judged") / "landing"
    for recipe in ("r1", "r2"):
        for bits in (4, 8):
            id = f"{recipe}-{bits}"
            named = {"recipe": recipe, "cell_id": f"smol-{bits}bit-{recipe}-s42"}
            write_landing(root, id, "training", training(id, bits, **named))
            write_landing(root, f"{id}-old", "evaluation", evaluation(f"{id}-old", id, OTHER, scoring_version=EARLIER))

    moved = training("m-8", 8, source_training_id="r1-4", source_scores_id="r1-4-old", **MOVED)
    write_landing(root, "m-8", "training", moved)
    prices = {"cost_matrix": SECOND_ORDER}
    write_landing(root, "m-8-old", "evaluation", evaluation("m-8-old", "m-8", scoring_version=EARLIER, **prices))
    land_sweep(root, "before", [f"{id}-old" for id in ("r1-4", "r1-8", "r2-4", "r2-8", "m-8")], day=1)

    for id in ("r1-4", "r1-8", "r2-4", "m-8"):
        rows = evaluation(f"{id}-new", id, scores_id=f"{id}-old", **(prices if id == "m-8" else {}))
        write_landing(root, f"{id}-new", "evaluation", rows)

    land_sweep(root, "after", [f"{id}-new" for id in ("r1-4", "r1-8", "r2-4", "m-8")], day=2)
    load_all(root, root.parent / "w.duckdb")
    return root.parent / "w.duckdb"


def ids(place, sql):
    return sorted(query(sql, database=place).iloc[:, 0])


def test_every_view_shows_the_latest_judging_of_the_same_scores_once(place):
    output = ["m-8-new", "r1-4-new", "r1-8-new", "r2-4-new", "r2-8-old"]
    for view in ("leaderboard", "evaluation_summary", "(SELECT DISTINCT evaluation_id FROM gate_bounds)"):
        assert ids(place, f"SELECT evaluation_id FROM {view}") == output, view
    assert ids(place, "SELECT DISTINCT models FROM gate_bounds") == [5]
    assert len(ids(place, "SELECT evaluation_id FROM evaluation")) == 9
    again = query("FROM judged_again ORDER BY 1", database=place).values.tolist()
    assert again == [[f"{id}-old", f"{id}-new"] for id in ("m-8", "r1-4", "r1-8", "r2-4")]

    sql = "SELECT recipe, evaluation_4bit, evaluation_8bit FROM quantization_comparison ORDER BY 1"
    pairs = query(sql, database=place).values.tolist()
    assert pairs == [["r1", "r1-4-new", "r1-8-new"], ["r2", "r2-4-old", "r2-8-old"]], "until both are judged again"
    assert ids(place, "SELECT DISTINCT evaluation_4bit FROM pair_metric") == ["r1-4-new", "r2-4-old"]


def test_a_study_of_before_shows_what_its_scores_were_judged_as_last(place):
    board = "SELECT evaluation_id FROM leaderboard_of(evaluations_of('{}'))"
    assert ids(place, board.format("before")) == ["m-8-new", "r1-4-new", "r1-8-new", "r2-4-new", "r2-8-old"]
    assert ids(place, board.format("after")) == ["m-8-new", "r1-4-new", "r1-8-new", "r2-4-new"]
    studies = query("SELECT study, evaluations FROM study ORDER BY study", database=place)
    assert studies.values.tolist() == [["after", 4], ["before", 5]]


def test_a_moved_adapter_is_compared_with_the_scores_whose_rules_judge_it_however_its_costs_are_written(place):
    flips = "SELECT evaluation_before || ' ' || evaluation_after FROM {} WHERE change LIKE 'adapter moved%'"
    assert ids(place, flips.format("flips")) == ["r1-4-new m-8-new"]
    only = "flips_of(['r1-4-new', 'm-8-new', 'r1-4-old', 'm-8-old'])"
    assert ids(place, flips.format(only)) == ["r1-4-new m-8-new"]


def test_rows_of_before_compare_prices_as_numbers_and_not_as_text(tmp_path):
    dearer = json.dumps(COSTS | {"ED": {"ED": 1, "GP": 50, "HOME": 100}})
    for name, matrix, outcome in (("order", SECOND_ORDER, 1), ("price", dearer, 0)):
        root = tmp_path / name
        write_landing(root, "t4", "training", training("t4", 4))
        write_landing(root, "e4", "evaluation", evaluation("e4", "t4", scoring_version=EARLIER))
        write_landing(root, "m8", "training", training("m8", 8, source_training_id="t4", **MOVED))
        write_landing(root, "em8", "evaluation", evaluation("em8", "m8", scoring_version=EARLIER, cost_matrix=matrix))
        load_all(root, tmp_path / f"{name}.duckdb")
        assert len(query("FROM flips", database=tmp_path / f"{name}.duckdb")) == outcome, name


def test_what_is_forgotten_gives_its_place_back(place, tmp_path):
    copy = tmp_path / "w.duckdb"
    landing = tmp_path / "landing"
    shutil.copy(place, copy)
    forget("before", landing, copy)
    assert ids(copy, "SELECT evaluation_id FROM evaluation") == ["m-8-new", "r1-4-new", "r1-8-new", "r2-4-new"]
    assert query("FROM judged_again", database=copy).empty
    shutil.copy(place, copy)

    with writing(copy) as con:
        con.execute("DELETE FROM evaluation WHERE evaluation_id = 'm-8-new'")
        note_judgings(con)

    assert "m-8-old" in ids(copy, "SELECT evaluation_id FROM evaluation_summary")


def test_audits_pass_and_a_rebuild_gives_the_same(place):
    assert_sound(place)
    before = ids(place, "SELECT evaluation_id || scores_id FROM evaluation")
    rebuild(place.parent / "landing", place)
    assert ids(place, "SELECT evaluation_id || scores_id FROM evaluation") == before
