"""Claims: what a figure and its interval say about a sentence, and what a bad one leads to."""

from __future__ import annotations

import pytest
from rich.console import Console

from flows.cli.results.claims_report import print_claims
from tasks.runtime.errors import BadInput
from tests.place import Place, one_sentence
from tests.warehouse.rows import full, land_pair, training
from warehouse.claims import Claim, measure, read_claims, store
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query_rows


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A pair of experiments, and the sizes of a variant at both precisions."""
    folder = tmp_path_factory.mktemp("claims")
    place = Place(folder / "place")
    place.home.mkdir(parents=True)
    land_pair(folder / "landing")

    for bits, size in ((4, 53), (8, 100)):
        row = full("variant", variant_id=f"v{bits}", base_model="smol", bits=bits, precision=f"{bits}bit",
                   random_weights=False, stored_bytes=size, weights_source="hub")  # fmt: skip
        write_landing(folder / "landing", f"v{bits}", "variant", {"variant": [row]})

    load_all(folder / "landing", place.warehouse)
    return place


def verdict(value, low, high, condition=None):
    sql = f"SELECT {value} AS value, {low} AS low, {high} AS high, 'x' AS model"
    (one,) = measure([Claim("c", "A sentence.", 0.4, 0.6, sql, condition)])
    return one.verdict


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ((0.5, 0.45, 0.55), "supported"),
        ((0.5, 0.4, 0.6), "supported"),
        ((0.5, "NULL", "NULL"), "supported"),
        ((0.5, 0.3, 0.55), "cannot conclude"),
        ((0.7, 0.55, 0.8), "cannot conclude"),
        ((0.7, 0.65, 0.8), "refuted"),
        ((0.2, "NULL", "NULL"), "refuted"),
        (("NULL", "NULL", "NULL"), "cannot conclude"),
        ((0.5, 0.45, 0.55, "value > 0.4"), "cannot conclude"),
        ((0.5, 0.45, 0.55, "value > 1"), "supported"),
    ],
)
def test_a_sentence_is_supported_or_refuted_by_the_whole_interval_alone(figures, expected, place, monkeypatch):
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(place.warehouse))
    assert verdict(*figures) == expected


def test_a_claim_whose_query_fails_or_has_no_row_is_not_measured_and_the_others_are(place, monkeypatch):
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(place.warehouse))
    queries = {
        "broken": "SELECT nonsense FROM nowhere",
        "written": "DELETE FROM experiment",
        "shapeless": "SELECT 1 AS value",
        "words": "SELECT 'much' AS value, NULL AS low, NULL AS high",
        "empty": "SELECT 1 AS value, 1 AS low, 1 AS high WHERE false",
        "sound": "SELECT 0.5 AS value, 0.5 AS low, 0.5 AS high",
    }
    measured = measure([Claim(name, "A sentence.", 0, 1, sql) for name, sql in queries.items()])
    assert [one.verdict for one in measured] == ["not measured here"] * 5 + ["supported"]
    assert all(one.note.startswith("its query failed: ") for one in measured[:4])
    assert not any("failed: The query failed" in (one.note or "") for one in measured)
    assert measured[4].note == "this warehouse has no row for it"
    store(measured)
    kept_rows = query_rows("SELECT claim, verdict, value FROM claim ORDER BY claim").rows
    assert ("sound", "supported", 0.5) in kept_rows and ("empty", "not measured here", None) in kept_rows


def test_every_published_claim_has_a_query_that_runs(place, monkeypatch):
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(place.warehouse))
    measured = {one.claim.name: one for one in measure(read_claims())}
    assert [one.note for one in measured.values() if one.note and "failed" in one.note] == []
    assert measured["half_the_size"].verdict == "supported"
    assert measured["half_the_size"].measurements[0].value == 0.53
    assert measured["sixty_experiments"].verdict == "cannot conclude"
    assert measured["smollm2_360m_at_4_bits"].verdict == "not measured here"


def published_claim(name: str, table: str, rows: str) -> str:
    """The verdict on a published claim where a view of the warehouse shows these rows."""
    (claim,) = (claim for claim in read_claims() if claim.name == name)
    (measured,) = measure([claim], lambda statement: query_rows(f"WITH {table} AS ({rows}) {statement}"))
    assert measured.note is None, measured.note
    return measured.verdict


@pytest.mark.parametrize(
    ("seed_high", "expected"), [(0.012, "supported"), (0.014, "cannot conclude"), (None, "supported")]
)
def test_a_relative_loss_is_judged_by_the_wider_of_both_intervals(seed_high, expected, place, monkeypatch):
    """2 % of an accuracy of 0.64 is 1.28 points, less than the 2 points of the verdict that is stored."""
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(place.warehouse))
    high = "NULL::DOUBLE" if seed_high is None else seed_high
    rows = f"""
        SELECT 'all' AS base_model, 'argmax' AS rule, 'accuracy' AS metric, false AS random_weights,
            'test' AS evaluation_set, 0.0 AS difference, -0.009 AS low, 0.009 AS high,
            -{high} AS seed_low, {high} AS seed_high, 0.64 AS value_8bit, 8 AS pairs, 0 AS pairs_left_out,
            'd' AS dataset, 'not inferior' AS verdict
    """
    assert published_claim("accuracy_loss_relative", "quantization_summary", rows) == expected


@pytest.mark.parametrize(("cells", "expected"), [(22, "cannot conclude"), (60, "supported"), (64, "cannot conclude")])
def test_more_experiments_than_a_study_has_refute_nothing(cells, expected, place, monkeypatch):
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(place.warehouse))
    rows = f"SELECT range::VARCHAR AS cell_id, 'standard' AS recipe_kind, false AS random_weights FROM range({cells})"
    assert published_claim("sixty_experiments", "leaderboard", rows) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[claim", "is not TOML"),
        ('[[claim]]\nname = "a"', "Claim a needs the key"),
        ('[[claim]]\nname = "a"\nsize = 1', "Claim a has an unknown key 'size'"),
        ('[[claim]]\nname = "a"\nsentence = "b"\nsql = "c"\nbetween = 3', "between is a range of two numbers"),
        ('[[claim]]\nname = "a"\nsentence = "b"\nsql = "c"\nbetween = [0, 1]\n' * 2, "Two claims have the name 'a'"),
    ],
)
def test_a_file_of_claims_that_is_wrong_is_a_sentence(text, sentence, tmp_path):
    (tmp_path / "claims.toml").write_text(text)
    with pytest.raises(BadInput, match=sentence):
        read_claims(tmp_path / "claims.toml")


def test_the_command_prints_verdicts_with_the_rows_behind_them(place):
    result = place.ask("claims")
    assert result.returncode == 0 and result.stderr == ""
    assert (
        "supported: Models at 4 bits take about half" in result.stdout
        and "  0.53: supported (base_model smol)" in result.stdout
    )
    assert "figures agree with warehouse/published." in result.stdout
    assert "random weights" not in result.stdout
    missing = place.ask("claims", "--file", "nowhere.toml")
    assert missing.returncode == 2 and one_sentence(missing.stderr)


def test_claims_without_a_row_are_one_sentence_with_their_names(place, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(place.warehouse))
    queries = {
        "sizes": "SELECT 0.5 AS value, 0.5 AS low, 0.5 AS high",
        "no_row": "SELECT 1 AS value, 1 AS low, 1 AS high WHERE false",
        "no_table": "FROM nowhere",
        "none_either": "SELECT 1 AS value, 1 AS low, 1 AS high WHERE false",
    }
    tables = [
        f'[[claim]]\nname = "{name}"\nsentence = "About {name}."\nsql = "{sql}"\nbetween = [0, 1]\n'
        for name, sql in queries.items()
    ]
    (tmp_path / "claims.toml").write_text("".join(tables))
    console = Console(width=200)
    with console.capture() as capture:
        print_claims(console, tmp_path / "claims.toml")

    lines = capture.get().splitlines()
    assert lines[0] == "supported: About sizes."
    assert lines[2] == "not measured here: About no_table." and "its query failed: " in lines[3]
    assert lines[-1] == "not measured here, no rows: 2 of 4 claims (no_row, none_either)."
    assert not [line for line in lines if "About no_row" in line]


def test_the_command_says_that_models_with_random_weights_count_for_no_claim(place, tmp_path):
    rest = place.copy(tmp_path / "random")
    write_landing(tmp_path / "landing", "t-random", "training", training("t-random", 4, random_weights=True))
    load_all(tmp_path / "landing", rest.warehouse)
    assert (
        "Models with random weights, such as those of `triage sweep smoke`, have no rows here"
        in rest.ask("claims").stdout
    )
