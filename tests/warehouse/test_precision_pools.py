"""A precision against its reference, averaged over the adapters that were judged at both."""

import pytest
from warehouse.comparison.precision_pools import precision_pools

from flows.report.pairs import pooled_over_adapters
from flows.report.typed_rows import leaderboard_rows
from tests.warehouse.rows import evaluation
from tests.warehouse.test_precisions import land, noisy
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query

UNPACKED = {"original_precision": "Q4_1", "weights_source": "package"}


def land_adapter(root, **values) -> None:
    """An adapter of 4 bits at bfloat16 and mxfp4, and its twin of 8 bits at bfloat16."""
    for number, trained in enumerate(("4bit", "8bit")):
        land(root, trained, noisy(number, 0.9), **values)
        land(root, "bf16", noisy(number + 2, 0.9), moved_from=trained, **values)
    land(root, "mxfp4", noisy(4, 0.5), moved_from="4bit", **values)


@pytest.fixture
def moved(tmp_path):
    """Adapters of both widths, beside a training at bfloat16."""
    land_adapter(tmp_path, **UNPACKED)
    land(tmp_path, "bf16", noisy(9, 0.2), **UNPACKED)
    load_all(tmp_path)


def test_figures_and_their_table_are_those_of_the_pairs_of_one_adapter(moved):
    pools = {(pool.adapter, pool.precision): pool for pool in precision_pools()}
    assert list(pools) == [("from 4bit", "4bit"), ("from 4bit", "mxfp4"), ("from 8bit", "8bit")]

    pair = query("FROM precision_comparison WHERE adapter = 'from 4bit' AND precision = 'mxfp4'").iloc[0]
    pool = pools["from 4bit", "mxfp4"]
    assert (pool.figures["accuracy"].pairs, pool.reference) == (1, "unpacked Q4_1")
    assert pool.bytes_ratio == pytest.approx(pair.bytes_ratio)
    for metric, row in pool.figures.items():
        assert row.value_4bit == pytest.approx(pair[metric], abs=1e-9), metric
        assert row.value_8bit == pytest.approx(pair[f"reference_{metric}"], abs=1e-9)
        assert row.difference == pytest.approx(pair[f"{metric}_diff"], abs=1e-9)
        assert pool.ranges[metric] == (pair[f"{metric}_diff"],) * 2
    assert pool.figures["accuracy"].low < pool.figures["accuracy"].difference < pool.figures["accuracy"].high

    of_study = precision_pools(["e-4bit", "e-bf16-from-4bit", "e-mxfp4-from-4bit", "e-bf16-from-8bit"])
    assert [(pool.adapter, pool.precision) for pool in of_study] == [("from 4bit", "4bit"), ("from 4bit", "mxfp4")]

    table = pooled_over_adapters(leaderboard_rows())
    assert [text.split("\n")[0] for text in table["precision"]] == [
        "smol 4bit r1 from 4bit", "smol mxfp4 r1 from 4bit", "smol 8bit r1 from 8bit",
    ]  # fmt: skip
    assert table["bytes"] == ["x0.28", "x0.27", "x0.53"]
    assert table["accuracy"][1].split("\n")[-1] == "inferior"
    assert "nothing follows about 8 bits or more" in table.title and table.query


def test_test_sets_and_recipes_have_pools_of_their_own_and_trainings_at_a_precision_have_none(tmp_path):
    """Of an adapter that knows nothing the pool has no figure."""
    land_adapter(tmp_path)
    for trained in ("4bit", "bf16-from-4bit"):
        other = evaluation(f"other-{trained}", f"t-{trained}", noisy(7, 0.9), groups=True, set_digest="other")
        write_landing(tmp_path, f"other-{trained}", "evaluation", other)
    land(tmp_path, "4bit", noisy(1, 0.0), arm="r2-", recipe="r2")
    land(tmp_path, "bf16", noisy(2, 0.0), moved_from="4bit", arm="r2-", recipe="r2")
    for number, name in enumerate(("bf16", "4bit")):
        land(tmp_path, name, noisy(number, 0.9), arm="r3-", recipe="r3")
    load_all(tmp_path)
    pools = precision_pools()
    assert sorted((pool.recipe, pool.set_digest, pool.precision, pool.figures["accuracy"].pairs) for pool in pools) == [
        ("r1", "other", "4bit", 1), ("r1", "set", "4bit", 1), ("r1", "set", "8bit", 1), ("r1", "set", "mxfp4", 1),
        ("r2", "set", "4bit", 0),
    ]  # fmt: skip
    assert len(query("FROM precision_comparison WHERE recipe = 'r3'")) == 1

    table = pooled_over_adapters(leaderboard_rows())
    (place,) = (i for i, text in enumerate(table["precision"]) if " r2 " in text)
    assert len(table) == 5 and table["adapters"][place] == "0\n1 left out"
    assert table["accuracy"][place].startswith("n/a") and " to " not in table["accuracy"][place]


def test_the_lowest_and_the_highest_adapter_stand_below_their_mean(tmp_path):
    """Those that are averaged: one that knows nothing at either precision has no part."""
    adapters = [(noisy(1, 0.9), noisy(2, 0.5)), (noisy(3, 0.9), noisy(4, 0.7)), (noisy(1, 0.0), noisy(2, 0.0))]
    for seed, (at_bf16, at_mxfp4) in enumerate(adapters):
        values = {"arm": f"s{seed}-", "seed": seed}
        land(tmp_path, "4bit", at_bf16, **values)
        land(tmp_path, "bf16", at_bf16, moved_from="4bit", **values)
        land(tmp_path, "mxfp4", at_mxfp4, moved_from="4bit", **values)
    load_all(tmp_path)

    lowest, highest = query("""
        SELECT min(accuracy_diff), max(accuracy_diff) FROM precision_comparison
        WHERE precision = 'mxfp4' AND seed < 2
    """).iloc[0]
    pool = precision_pools()[-1]
    assert pool.precision == "mxfp4"
    assert pool.figures["accuracy"].pairs == 2
    assert pool.ranges["accuracy"] == (lowest, highest) and lowest < highest

    table = pooled_over_adapters(leaderboard_rows())
    assert table["accuracy"][-1].split("\n")[-1] == f"{lowest:+.3f} to {highest:+.3f}"
