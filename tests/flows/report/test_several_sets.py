"""A study whose test file changed: its models are judged on two test sets, and no line or table mixes the two."""

from __future__ import annotations

import io
from datetime import datetime

import pytest
from rich.console import Console

from flows import compare
from flows.cli.compare import print_study
from flows.html_report.page import section_of
from flows.html_report.study import reported_study
from flows.report.answer import NO_MODELS, NO_PAIR_HERE, answer
from flows.report.evidence import as_markdown, evidence
from flows.report.leaderboard import by_test_set, named_sets
from flows.report.pairs import NO_PAIR, pair_rows, pairs_on, summary_rows
from flows.report.typed_rows import leaderboard_rows
from tests.warehouse.rows import FIVE, evaluation, training
from tests.warehouse.test_precisions import land as land_precision
from tests.warehouse.test_studies import OTHER
from tests.warehouse.test_views import random_cases
from warehouse.landing import write_landing
from warehouse.load import load_all

CASES = random_cases(60, 1)
LATER = datetime(2026, 1, 5)
OLD, NEW = "abcdef-old", "fedcba-new"
OLD_NAME = "test set abcdef (5 cases, 2 of them emergencies)"
NEW_NAME = f"test set fedcba (60 cases, {sum(case[0] == 'ED' for case in CASES)} of them emergencies)"


def land_two_sets(root, again=(4, 8)):
    """Pairs of two seeds on the old cases; those of `again` are judged on the new ones, too, seed 42 alone."""
    for seed in (42, 43):
        for bits in (4, 8):
            id = f"t{bits}s{seed}"
            stored = 1000 * bits + (100 if (seed, bits) == (43, 4) else 0)  # a ratio of its own
            own_values = {"seed": seed, "cell_id": f"smol-{bits}bit-r1-s{seed}", "stored_bytes": stored}
            write_landing(root, id, "training", training(id, bits, **own_values))
            cases = OTHER if (seed, bits) == (43, 8) else FIVE
            write_landing(root, f"o{id}", "evaluation", evaluation(f"o{id}", id, cases, set_digest=OLD))

    for bits in again:
        rows = evaluation(f"n{bits}", f"t{bits}s42", CASES, set_digest=NEW, created_at=LATER)
        write_landing(root, f"n{bits}", "evaluation", rows)
    load_all(root)


@pytest.fixture(scope="module")
def warehouses(tmp_path_factory):
    """Both studies below, landed once: tests only read them."""
    folder = tmp_path_factory.mktemp("sets")
    for name, again in (("both", (4, 8)), ("one", (4,))):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRIAGE_HOME", str(folder / name))
            patch.setenv("TRIAGE_WAREHOUSE", str(folder / f"{name}.duckdb"))
            land_two_sets(folder / name / "landing", again)
    return folder


@pytest.fixture
def judged_again(warehouses, monkeypatch):
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(warehouses / "both.duckdb"))


def lines():
    return answer(leaderboard_rows(), pair_rows(), summary_rows())


def printed(sections=None) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    print_study(console, sections=sections)
    return console.file.getvalue().splitlines()


def test_the_answer_is_about_the_pairs_of_the_latest_cases_alone(judged_again):
    of_new = [f"n{bits}" for bits in (4, 8)]
    assert lines() == answer(leaderboard_rows(of_new), pair_rows(of_new), summary_rows())
    assert len(pair_rows()) == 3 and "smol r1, 1 seed" in lines()[1] and "smol r1, 2 seeds" not in "".join(lines())
    assert lines()[-1].startswith("4 bits take x0.50 of the bytes of 8. Gates: ")
    of_old = [f"ot{bits}s{seed}" for bits in (4, 8) for seed in (42, 43)]
    assert "smol r1, 2 seeds" in answer(leaderboard_rows(of_old), pair_rows(of_old), summary_rows())[1]


def test_untuned_pairs_on_the_latest_cases_take_no_pool_of_earlier_ones(tmp_path):
    land_two_sets(tmp_path, again=())
    for bits in (4, 8):
        rows = training(f"z{bits}", bits, recipe="zero_shot", recipe_kind="baseline", cell_id=f"zero-{bits}")
        write_landing(tmp_path, f"z{bits}", "training", rows)
        rows = evaluation(f"ez{bits}", f"z{bits}", CASES, set_digest=NEW, created_at=LATER)
        write_landing(tmp_path, f"ez{bits}", "evaluation", rows)
    load_all(tmp_path)
    board = leaderboard_rows()
    assert [pair.recipe for pair in pairs_on(by_test_set(board)[0], pair_rows())] == ["zero_shot"]
    assert lines()[0] == NO_MODELS


@pytest.mark.parametrize("sections", [(), None])
def test_each_test_set_has_its_own_headline_and_tables_of_pairs(sections, judged_again):
    text = "\n".join(printed(sections))
    of_new, of_old = (
        f"4 bits against 8 bits on {name}, {n}." for name, n in ((NEW_NAME, "1 pair"), (OLD_NAME, "2 pairs"))
    )
    assert 0 < text.index(of_new) < text.index(of_old) and "3 pairs" not in text
    new_part, old_part = text.partition(of_new)[2].partition(of_old)[::2]
    tables = [part.partition("Gates of the primary rule")[0] for part in (new_part, old_part)]
    assert ["s42" in table for table in tables] == [True, True]
    assert ["s43" in table for table in tables] == [False, True]
    first_board = text.partition(of_new)[0]
    assert NEW_NAME in first_board and OLD_NAME in first_board


def test_without_a_pair_on_the_latest_cases_answer_tables_and_report_say_so(warehouses, monkeypatch):
    """The new cases are judged at 4 bits alone."""
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(warehouses / "one.duckdb"))
    no_pair, gates = lines()
    assert no_pair == f"4 bits against 8 bits: {NO_PAIR_HERE}." and "both widths" in NO_PAIR_HERE
    assert gates.startswith("Gates:") and " of 1 trained model" in gates

    text = "\n".join(printed(()))
    assert f"4 bits against 8 bits on {NEW_NAME}: {NO_PAIR}." in text
    assert f"4 bits against 8 bits on {OLD_NAME}, 2 pairs." in text

    study = reported_study(None)
    assert study.sentences == lines()
    assert study.pairs == [] and section_of(study, "forest").missing


def test_with_one_test_set_nothing_names_it(tmp_path):
    land_two_sets(tmp_path, again=())
    board = leaderboard_rows()
    texts = [*printed(()), *printed(), as_markdown(board, pair_rows(), summary_rows())]
    assert named_sets(board) == [("", board)] and "abcdef" not in "\n".join(texts)
    assert "4 bits against 8 bits, 2 pairs." in texts


def test_the_artifact_has_a_leaderboard_and_pairs_for_each_test_set(judged_again):
    page = as_markdown(leaderboard_rows(), pair_rows(), summary_rows())
    rows = {
        "4 bits against 8 bits": (1, 1),
        "4 bits against 8 bits, training by training": (1, 2),
        "Leaderboard": (2, 4),
    }
    for heading, expected in rows.items():
        tables = [page.partition(f"# {heading}: {name}\n\n")[2].partition("\n\n")[0] for name in (NEW_NAME, OLD_NAME)]
        assert tuple(table.count("\n") - 1 for table in tables) == expected


def test_the_table_artifact_names_the_test_set_of_each_row(judged_again, monkeypatch):
    published = []
    monkeypatch.setattr(compare, "create_table_artifact", lambda table, **_: published.extend(table))
    monkeypatch.setattr(compare, "create_markdown_artifact", lambda **_: None)
    compare.publish_comparison([row.evaluation_id for row in leaderboard_rows()])
    assert [row["test set"] for row in published] == [NEW_NAME] * 2 + [OLD_NAME] * 4


def test_every_table_of_the_evidence_is_about_one_test_set(judged_again):
    tables = evidence(leaderboard_rows())
    assert all(table.title.endswith((NEW_NAME, OLD_NAME)) for table in tables)
    costs = [len(table) for table in tables if table.title.startswith("Training, and what it took")]
    assert costs == [2, 4], "rows of the new cases, then of the old ones"
    (seeds,) = (table for table in tables if table.title.startswith("Spread"))
    assert seeds.title.endswith(OLD_NAME), "the new cases have one seed"
    assert seeds["experiment"] == ["smol 4bit r1", "smol 8bit r1", "smol r1, 4 minus 8 bits"]


def test_precisions_stand_against_the_reference_of_their_own_test_set(tmp_path):
    land_precision(tmp_path, "bf16", CASES)
    land_precision(tmp_path, "mxfp4", CASES, moved_from="bf16")
    for id in ("bf16", "mxfp4-from-bf16"):
        rows = evaluation(f"n-{id}", f"t-{id}", CASES, groups=True, set_digest=NEW, created_at=LATER)
        write_landing(tmp_path, f"n-{id}", "evaluation", rows)
    load_all(tmp_path)

    tables = evidence(leaderboard_rows(), sections=["fidelity"])
    of_pairs = "Precisions against their reference, "
    for kind, rows in ((f"{of_pairs}the mean", 1), (f"{of_pairs}paired", 1), ("Bytes against", 3)):
        assert [len(table) for table in tables if table.title.startswith(kind)] == [rows] * 2, kind
