"""`triage compare`: the answer and a line a model by default, parts of the evidence by name, all of it with --all, rows as
JSON; on a terminal as many rows as it has room for, and what it leaves out."""

import json

import pytest

from flows.cli.compare import print_study
from flows.report.answer import answer
from flows.report.rows import studied
from flows.report.sections import ASKED
from tests.place import Place, shown
from tests.warehouse.rows import FIVE, land_arm
from warehouse.load import load_all

SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Three pairs, of which the second loses an emergency at 4 bits, the linear baseline and a constant answer."""
    folder = tmp_path_factory.mktemp("compare")
    place = Place(folder / "place")
    place.home.mkdir(parents=True)
    for seed, bits in ((seed, bits) for seed in SEEDS for bits in (4, 8)):
        cell = f"smollm2-135m-{bits}bit-quick-s{seed}"
        values = {"cell_id": cell, "seed": seed, "recipe": "quick", "base_model": "smollm2-135m"}
        cases = [("ED", "GP", "GP"), *FIVE[1:]] if (bits, seed) == (4, 2) else FIVE
        land_arm(folder / "landing", cell, bits, cases, **values)
    for name in ("linear", "always_ed"):
        values = {"cell_id": name, "base_model": "none", "recipe": name, "recipe_kind": "baseline"}
        land_arm(folder / "landing", name, None, [(case[0], "ED", "ED") for case in FIVE], **values)
    load_all(folder / "landing", place.warehouse)
    return place


@pytest.fixture
def landed(place, own_home, monkeypatch):
    place.use(monkeypatch)


def printed(width: int = 80, **options) -> list[str]:
    return shown(print_study, width=width, is_terminal=True, **options).splitlines()


def models(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("smollm2-135m-")]


def test_one_screen_of_80_columns_holds_the_answer_and_a_line_a_model_and_all_tables_come_with_all_details(landed):
    lines, found = printed(), answer(studied()[0])
    assert len(lines) <= 25 and max(map(len, lines)) <= 80
    assert " ".join(lines).startswith(found.sentence)
    assert len(models(lines)) == 2 * len(SEEDS)
    assert all(line.split()[-1] in ("unsafe", "provisional") and line.count("[") == 3 for line in models(lines))
    last = max(lines.index(line) for line in models(lines))
    assert lines[last + 1].startswith("linear model (words,") and lines[last + 1].endswith(" -")
    assert "always-ED" not in " ".join(lines), "constant answers are among --models"
    assert "triage compare earlier --all" in " ".join(lines[-5:])

    titles = ["4 minus 8 bits in points", "Gates of the primary rule", "Confusion matrices", "Training, and what",
              "Decisions that flip", "Experiments on the test set"]  # fmt: skip
    for asked, wanted in ((["gates", "flips"], {titles[1], titles[4]}), (None, set(titles[:4]))):
        lines = printed(200, asked=asked)
        shown_titles = {title for title in titles if any(line.startswith(title) for line in lines)}
        assert shown_titles >= wanted and (asked is None or shown_titles == wanted)
        assert (found.details[-1] in lines) == (asked is None)


def test_the_command_takes_every_option_and_gives_all_rows_as_json(place):
    options = [f"--{name}" for name in ASKED]
    result = place.ask("compare", *options, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    (one,) = found["test_sets"]
    assert found["study"] == "earlier" and len(one["models"]) == 8 and len(one["pairs"]) == 3
    accuracies = {row["cell_id"]: row["accuracy"] for row in one["models"]}
    assert accuracies == {row.cell_id: row.accuracy for row in place.query("FROM leaderboard").itertuples()}
    assert {row["seeds"] for row in one["recipes"]} == {3}

    refused = place.ask("compare", "--prevalence", "3")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "triage: --prevalence must be between 0 and 1, e.g. 0.1 (got 3).\n"
