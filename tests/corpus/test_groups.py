"""One case without a group among grouped ones: it is a group of its own, from the data folder to gates and audits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.baselines import baselines
from tasks.corpus.case import SETS, from_json
from tasks.corpus.prepare import CARD, prepare_dataset
from tasks.runtime.store import read_manifest
from tasks.spec import LABELS, Data, Scoring
from tests.warehouse.rows import assert_sound
from warehouse.query import query

ALONE = "test-40"
WORDS = ("chest pain", "old rash", "runny nose")


@pytest.fixture
def given(tmp_path: Path):
    """Writes a folder of four sets of sixty cases, each with what `more` says of its set and number; gives its source."""

    def write(more: Callable[[str, int], dict[str, Any]]) -> str:
        (tmp_path / "given").mkdir()
        for name in SETS:
            rows = [
                {"id": f"{name}-{i}", "text": f"{WORDS[i % 3]} of {name} {i * 7}", "label": LABELS[i % 3]}
                | more(name, i)
                for i in range(60)
            ]
            (tmp_path / "given" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / "given")

    return write


@pytest.mark.parametrize("none", [False, True], ids=["one case without a group", "no group"])
def test_a_single_case_without_a_group_leaves_the_intervals_clustered(none, given, tmp_path):
    source = given(lambda name, i: {} if none or f"{name}-{i}" == ALONE else {"group": f"{name}{i // 6}"})
    folder = prepare_dataset(Data(source=source), tmp_path / "home")
    manifest = read_manifest(folder) or {}
    assert manifest["has_groups"] != none and manifest["sets"]["test"]["has_groups"] != none
    assert manifest["sets"]["test"]["groups"] == (0 if none else 10)
    baselines.fn(Scoring(), folder)
    assert_sound()

    landed = query("SELECT * FROM evaluation JOIN gate USING (evaluation_id) WHERE gate = 'ed_recall'")
    assert len(landed) == 3 and set(landed.has_groups) == {not none}
    assert landed.clustered_low.notna().tolist() == [not none] * 3
    assert landed.note.fillna("").str.contains("independent").all() == none
    rows = query(f"SELECT case_id, case_group FROM prediction WHERE evaluation_id = '{landed.evaluation_id[0]}'")
    groups = rows.set_index("case_id").case_group
    assert groups.isna()[ALONE] and len(groups) == 60 and groups.nunique() == (0 if none else 10)


def test_subgroups_of_own_cases_reach_the_stored_cases_and_the_warehouse(given, tmp_path):
    bands = ["child"] * 30 + ["adult"] * 29 + [None]
    data = Data(source=given(lambda name, i: {"age_band": bands[i]}), subgroup_columns=("age_band",))
    folder = prepare_dataset(data, tmp_path / "home")
    cases = [from_json(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    assert [case.subgroup for case in cases[28:32]] == [{"age_band": "child"}] * 2 + [{"age_band": "adult"}] * 2
    assert cases[59].subgroup == {} and "subgroup from `age_band`" in (folder / CARD).read_text()
    baselines.fn(Scoring(), folder)
    assert_sound()

    landed = query(
        "SELECT field, subgroup, n, count(*) AS evaluations FROM subgroup_metric WHERE metric = 'ed_recall' "
        "GROUP BY ALL ORDER BY subgroup"
    )
    assert landed.values.tolist() == [["age_band", "adult", 10, 3], ["age_band", "child", 10, 3]]
