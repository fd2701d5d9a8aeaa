"""One case without a group among grouped ones is a group of its own, and subgroups keep their names: from the data folder to
gates and audits."""

import json

from tasks.baselines import baselines
from tasks.corpus.case import SETS, from_json
from tasks.corpus.prepare import CARD, prepare_dataset
from tasks.runtime.store import read_manifest
from tasks.spec import LABELS, Data, Scoring
from tests.warehouse.rows import assert_sound
from warehouse.query import query

ALONE = "test-40"
WORDS = ("chest pain", "old rash", "runny nose")


def test_a_case_without_a_group_leaves_the_intervals_clustered_and_subgroups_reach_the_warehouse(tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    bands = ["child"] * 30 + ["adult"] * 29 + [None]
    for name in SETS:
        rows = [
            {"id": f"{name}-{i}", "text": f"{WORDS[i % 3]} of {name} {i * 7}", "label": LABELS[i % 3],
             "age_band": bands[i], "group": None if f"{name}-{i}" == ALONE else f"{name}{i // 6}"}
            for i in range(60)
        ]  # fmt: skip
        (given / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    folder = prepare_dataset(Data(source=str(given), subgroup_columns=("age_band",)), tmp_path / "home")
    manifest = read_manifest(folder) or {}
    of_test = manifest["sets"]["test"]
    assert manifest["has_groups"] and of_test["has_groups"] and of_test["groups"] == 10
    cases = [from_json(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    assert [case.subgroup for case in cases[28:32]] == [{"age_band": "child"}] * 2 + [{"age_band": "adult"}] * 2
    assert cases[59].subgroup == {} and "subgroup from `age_band`" in (folder / CARD).read_text()
    baselines.fn(Scoring(), folder)
    assert_sound()

    landed = query("SELECT * FROM evaluation JOIN gate USING (evaluation_id) WHERE gate = 'ed_recall'")
    assert len(landed) == 3 and landed.has_groups.all() and landed.clustered_low.notna().all()
    assert not landed.note.fillna("").str.contains("independent").all()
    rows = query(f"SELECT case_id, case_group FROM prediction WHERE evaluation_id = '{landed.evaluation_id[0]}'")
    groups = rows.set_index("case_id").case_group
    assert groups.isna()[ALONE] and len(groups) == 60 and groups.nunique() == 10

    in_subgroups = query(
        "SELECT field, subgroup, n, count(*) AS evaluations FROM subgroup_metric WHERE metric = 'ed_recall' "
        "GROUP BY ALL ORDER BY subgroup"
    )
    assert in_subgroups.values.tolist() == [["age_band", "adult", 10, 3], ["age_band", "child", 10, 3]]
