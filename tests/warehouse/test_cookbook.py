import re
from datetime import datetime

import pytest

from tasks.runtime.errors import BadInput
from tests.warehouse.rows import FIVE, evaluation, full, land_arm, land_pair, training
from tests.warehouse.test_studies import land_sweep
from warehouse.cookbook import assignments, cookbook, is_name, named_query, typed_value
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query_rows
from warehouse.schema import sql_files

WORSE = [("ED", "GP", "HOME"), *FIVE[1:]]  # one emergency more is sent home


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two pairs, of which one is worse at 4 bits, and a training that diverged."""
    folder = tmp_path_factory.mktemp("study")
    land_pair(folder / "landing", WORSE, [("ED", "ED", "ED"), *FIVE[1:]])
    failed = training("failed", cell_id="smol-4bit-r2-s1", recipe="r2", status="diverged", error="NaN")
    write_landing(folder / "landing", "failed", "training", failed)
    land_pair(folder / "landing", name="b", recipe="r3")
    load_all(folder / "landing", folder / "w.duckdb")
    return folder / "w.duckdb"


def answer(study, name: str, /, **values: str) -> list[dict[str, object]]:
    named = named_query(name)
    result = query_rows(named.sql, named.values(values), database=study)
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows]


def test_each_question_says_what_it_answers_and_runs_with_its_defaults(study):
    questions = cookbook()
    assert len(questions) >= 20 and len({named.explanation for named in questions}) == len(questions)
    assert {named.name for named in questions} == {file.name for file in sql_files("queries")}
    for named in questions:
        assert re.fullmatch(r"[A-Z].{20,100}\?", named.explanation), named.name
        declared = {parameter.name for parameter in named.parameters}
        assert declared == set(re.findall(r"\$(\w+)", re.sub("--.*", "", named.sql))), named.name
        assert len(declared) == named.sql.count("-- $"), f"{named.name}: a parameter line that cannot be read"
        assert "ORDER BY" in named.sql and is_name(named.name), named.name
        answer(study, named.name)
    assert not is_name("FROM leaderboard") and not is_name("SELECT 1;") and not is_name("")


def test_the_questions_of_a_comparison_are_answered(study):
    assert [row["recipe"] for row in answer(study, "gains_from_8_bits")] == ["r1", "r3"]
    pairs = answer(study, "four_bits_against_eight")
    assert [row["recipe"] for row in pairs] == ["r1", "r3"] and len(pairs[0]) == 7
    assert answer(study, "four_bits_against_eight", study="earlier") == pairs
    (flip,) = answer(study, "flipped_cases")
    columns = ("case_id", "at_8bit", "at_4bit", "effect")
    assert [flip[name] for name in columns] == ["c00000", "ED", "HOME", "right at 8 bits only"]
    assert [row["case_id"] for row in answer(study, "emergencies_sent_home")] == ["c00000"]
    failed = [(row["cell_id"], row["error"]) for row in answer(study, "unfinished_trainings")]
    assert failed == [("smol-4bit-r2-s1", "NaN")]
    curves = answer(study, "learning_curves", first="t4b", second="t8b")
    assert {row["training_id"] for row in curves} == {"t4b", "t8b"} and len(curves) == 4
    (hardest,) = answer(study, "hardest_cases", top="1")
    assert (hardest["case_id"], hardest["wrong"], hardest["models"]) == ("c00001", 4, 4)
    assert answer(study, "changed_since", since="2026-01-02")
    for name, values in (("four_bits_against_eight", {"study": "other"}), ("flipped_cases", {"label": "GP"}),
                         ("changed_since", {"since": "2027-01-01"})):  # fmt: skip
        assert answer(study, name, **values) == [], name


def test_missed_emergencies_are_counted_at_both_precisions_of_a_recipe(tmp_path):
    def missing(*cases: int):
        return [("ED", "ED", "GP" if i in cases else "ED") for i in range(4)]

    for seed, four, eight in ((42, (0, 1), (0, 2)), (43, (0,), (0,))):
        land_pair(tmp_path, missing(*four), missing(*eight), name=f"-{seed}", seed=seed)
    land_arm(tmp_path, "lone", 4, missing(3), recipe="lone", cell_id="lone")
    load_all(tmp_path, tmp_path / "w.duckdb")
    columns = ("missed_at", "case_id", "missed_4bit", "models_4bit", "missed_8bit", "models_8bit")
    rows = answer(tmp_path / "w.duckdb", "missed_at_both_precisions")
    assert [tuple(row[name] for name in columns) for row in rows] == [
        ("both", "c00000", 2, 2, 2, 2), ("4 bits alone", "c00001", 1, 2, 0, 2), ("8 bits alone", "c00002", 0, 2, 1, 2),
    ]  # fmt: skip
    assert answer(tmp_path / "w.duckdb", "missed_at_both_precisions", recipe="lone") == []


def test_thresholds_and_costs_are_those_of_a_count_by_hand(study):
    def at(name: str, **values: str) -> dict[object, dict[str, object]]:
        return {row["precision"]: row for row in answer(study, name, **values) if row["recipe"] == "r1"}

    # p(ED) of the two emergencies at 8 bits: 0.8 and 0.1, the lowest there is; every case is sent to ED.
    all_found = at("over_triage_of_recall", recall="1")["8bit"]
    assert all_found["threshold"] == 0.1 and all_found["others_sent_to_ed"] == 1
    half = at("over_triage_of_recall", recall="0.5")["8bit"]
    assert (half["ed_recall"], half["over_triage_to_ed"]) == (0.5, 0.0)
    # FIVE at 8 bits: ED ED, ED ED, GP GP, GP ED, HOME HOME = 1 + 1 + 1 + 2 + 1.
    costs = {precision: row["cost_of_a_case"] for precision, row in at("cost_by_matrix").items()}
    assert costs == {"8bit": 6 / 5, "4bit": (100 + 5) / 5}


def two_studies(folder, sets, share_cases=False):
    """Two studies of one cell under other settings, on the test sets `sets`, whose ids all count from 1: the 4-bit model
    of the first misses c00000, that of the second does not. `share_cases`: both sets have the same ones.
    """
    for day, (study, four, of_set) in enumerate(zip(("first", "second"), (WORSE, FIVE), sets, strict=True), 1):
        for bits, cases in ((4, four), (8, FIVE)):
            name = f"{study}-{bits}"
            values = {"settings_digest": study, "dataset_digest": of_set, "cell_id": f"smol-{bits}bit-r1-s42"}
            write_landing(folder / "landing", name, "training", training(name, bits, day=day, **values))
            rows = evaluation(f"e-{name}", name, cases, set_digest=of_set)
            for row in rows["prediction"]:
                row["case_digest"] = f"{'' if share_cases else of_set} {row['case_id']}"
            write_landing(folder / "landing", f"e-{name}", "evaluation", rows)
        land_sweep(folder / "landing", study, [f"e-{study}-4", f"e-{study}-8"], day=day)

    load_all(folder / "landing", folder / "w.duckdb")
    return folder / "w.duckdb"


def test_cases_of_two_test_sets_are_two_cases_whatever_their_ids(tmp_path):
    on_two_sets = two_studies(tmp_path, ("one", "two"))
    for question in ("missed_by_every_model", "emergencies_sent_home"):
        assert [row["case_id"] for row in answer(on_two_sets, question)] == ["c00000"]
    hardest = answer(on_two_sets, "hardest_cases", top="20")
    assert len(hardest) == 10 and {row["models"] for row in hardest} == {2}
    assert [row["accuracy_gain"] for row in answer(on_two_sets, "gains_from_8_bits")] == [pytest.approx(0.2), 0.0]
    for study, difference in (("first", -0.5), ("second", 0.0)):
        (row,) = answer(on_two_sets, "four_bits_against_eight", study=study)
        assert row["ed_recall_diff"] == difference, "a later study of the same cell hides none"


def test_a_case_of_two_test_sets_has_one_answer_of_each_model_the_latest(tmp_path):
    sharing = two_studies(tmp_path, ("one", "two"), share_cases=True)
    assert answer(sharing, "missed_by_every_model") == [], "the 4-bit model that finished last finds c00000"
    assert answer(sharing, "emergencies_sent_home") == []
    earlier = query_rows("SELECT evaluation_id FROM case_answer", database=sharing, only=["e-first-4"])
    assert earlier.rows == [("e-first-4",)] * 5, "a later answer that is not asked for hides none"
    hardest = answer(sharing, "hardest_cases", top="20")
    assert len(hardest) == 5 and {row["models"] for row in hardest} == {2}


def test_a_training_that_is_judged_on_two_test_sets_has_one_curve_and_two_thresholds(tmp_path):
    for name, day in (("t4", 1), ("u4", 2)):
        write_landing(tmp_path, name, "training", training(name, 4, day=day, cell_id=f"smol-{name}"))
        for of_set, cases in (("one", FIVE), ("two", WORSE)):
            rows = evaluation(f"e-{name}-{of_set}", name, cases, set_digest=of_set)
            for row in rows["prediction"]:
                row |= {"p_ed": 1.0, "p_gp": 0.0, "p_home": 0.0}
            write_landing(tmp_path, f"e-{name}-{of_set}", "evaluation", rows)

    load_all(tmp_path, tmp_path / "w.duckdb")
    for values in ({}, {"first": "t4", "second": "u4"}):
        rows = answer(tmp_path / "w.duckdb", "learning_curves", **values)
        curves = {(row["training_id"], row["split"], row["iteration"]) for row in rows}
        assert len(curves) == len(rows) == 4 and {training_id for training_id, *_ in curves} == {"t4", "u4"}
    thresholds = answer(tmp_path / "w.duckdb", "over_triage_of_recall")
    assert len(thresholds) == 2 * 2, "a constant answer has one on each"


def test_a_size_is_compared_with_8_bits_of_the_same_weights_and_groups(tmp_path):
    """NULL: neither of two has groups of this size."""
    shares = {
        ("4bit", 32, False, 90): 90 / 160, ("8bit", 32, False, 160): 1.0, ("4bit", 64, False, 80): 80 / 150,
        ("8bit", 64, False, 150): 1.0, ("nvfp4", 16, False, 85): None, ("bf16", None, False, 270): None,
        ("8bit", 64, True, 1000): 1.0, ("mxfp4", 32, True, 500): 0.5,
    }  # fmt: skip
    for precision, group_size, is_random, stored_bytes in shares:
        id = f"{precision}-{group_size}-{is_random}"
        row = full(
            "variant", variant_id=id, base_model="smol", precision=precision, group_size=group_size, licence="none",
            random_weights=is_random, stored_bytes=stored_bytes, weights_source="random" if is_random else "hub",
        )  # fmt: skip
        write_landing(tmp_path / "landing", id, "variant", {"variant": [row]})
    load_all(tmp_path / "landing", tmp_path / "w.duckdb")
    against = {row["stored_bytes"]: row["against_8bit"] for row in answer(tmp_path / "w.duckdb", "stored_sizes")}
    assert against == {key[-1]: share for key, share in shares.items()}


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("missed_by_every_modle", {}, "no query named 'missed_by_every_modle'; did you mean missed_by_every_model"),
        ("missed_by_every_model", {"bits": "8"}, "has no parameter 'bits'; it has precision."),
        ("hardest_cases", {"top": "four"}, "--param top=four: top is a whole number, or NULL."),
        ("missed_by_every_model", {"precision": "5bit"}, "the warehouse has no precision '5bit'; it has 4bit, 8bit."),
        ("changed_since", {"since": "yesterday"}, "since is a date or time such as 2026-01-31, or NULL."),
    ],
)
def test_a_wrong_name_or_value_is_a_sentence(name, values, sentence, study, monkeypatch):
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(study))
    with pytest.raises(BadInput, match=re.escape(sentence)) as caught:
        named_query(name).check_values(named_query(name).values(values))
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_values_are_what_they_look_like_and_dashes_are_as_good_as_underscores(study, monkeypatch):
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(study))
    assert [typed_value(text) for text in ("4", "0.5", "null", "4bit", "")] == [4, 0.5, None, "4bit", ""]
    assert assignments(["bits=4", "$where=a=b"]) == {"bits": "4", "where": "a=b"}
    assert named_query("Learning-Curves").name == "learning_curves"
    named_query("missed_by_every_model").check_values({"precision": "8bit"})
    for since, moment in (("2026-01-31T00:00+02:00", datetime(2026, 1, 30, 22)), ("2026-02-03", datetime(2026, 2, 3))):
        assert named_query("changed_since").values({"since": since}) == {"since": moment}
    for wrong in (["bits"], ["=4"], ["a b=4"], ["bits=4", "bits=8"]):
        with pytest.raises(BadInput, match="^--param "):
            assignments(wrong)
