"""The mean over adapters that were judged on several machines, from their published rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import fmean, stdev

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.warehouse.test_precisions import land, noisy
from tests.warehouse.test_studies import land_sweep
from warehouse.comparison.combined_pools import AT_MOST, JOINT, combined_pool
from warehouse.comparison.pooled import BETWEEN_SEEDS
from warehouse.comparison.precision_pools import RULE_OF
from warehouse.load import load_all
from warehouse.published import publish
from warehouse.published_precisions import SUMMARY, VIEW


def publish_from_a_machine(folder: Path, seed: int, right: float = 0.9) -> tuple[list[dict], dict]:
    """Publish a study's adapter of 4 bits that one machine trained; returns the adapters of 4 bits against 16, and the
    mean over them."""
    machine = folder.with_name(f"machine-{seed}")
    land(machine / "landing", "4bit", noisy(seed, right), seed=seed)
    land(machine / "landing", "bf16", noisy(seed + 1, right), moved_from="4bit", seed=seed)
    land_sweep(machine / "landing", "moved", ["t-4bit", "e-4bit", "t-bf16-from-4bit", "e-bf16-from-4bit"])
    load_all(machine / "landing", machine / "w.duckdb")
    publish("moved", folder, machine / "w.duckdb")

    (pool,) = pq.read_table(folder / f"{SUMMARY}.parquet").to_pylist()
    return pq.read_table(folder / f"{VIEW}.parquet").to_pylist(), pool


def test_adapters_of_other_machines_join_the_mean_with_a_band_that_is_too_wide_rather_than_too_narrow(tmp_path):
    folder = tmp_path / "published"
    _, alone = publish_from_a_machine(folder, 42)
    assert (alone["adapters"], alone["bands"]) == (1, JOINT)
    assert alone["accuracy_lowest"] == alone["accuracy_highest"] == pytest.approx(alone["accuracy_diff"])

    rows, pool = publish_from_a_machine(folder, 43)
    assert (len(rows), pool["adapters"], pool["bands"], pool["adapter"]) == (2, 2, AT_MOST, "from 4bit")
    for metric in RULE_OF:
        differences = [row[f"{metric}_diff"] for row in rows]
        assert pool[f"{metric}_diff"] == pytest.approx(fmean(differences))
        assert pool[f"{metric}_diff"] == pytest.approx(pool[metric] - pool[f"reference_{metric}"])
        assert pool[f"{metric}_seed_sd"] == pytest.approx(stdev(differences))
        assert [pool[f"{metric}_lowest"], pool[f"{metric}_highest"]] == sorted(differences)
        widths = [row[f"{metric}_high"] - row[f"{metric}_low"] for row in rows]
        assert pool[f"{metric}_high"] - pool[f"{metric}_low"] == pytest.approx(fmean(widths))

    assert publish_from_a_machine(folder, 43)[1] == pool, "the same adapter is none more"
    assert publish_from_a_machine(folder, 44)[1]["adapters"] == 3


def test_a_pool_that_an_earlier_version_published_leaves_the_others_their_columns(tmp_path):
    folder = tmp_path / "published"
    _, pool = publish_from_a_machine(folder, 42)
    path = folder / f"{SUMMARY}.parquet"
    earlier = {name: value for name, value in pool.items() if not name.endswith(("_lowest", "_highest"))}
    pq.write_table(pa.Table.from_pylist([earlier | {"base_model": "another"}, earlier]), path)

    publish("moved", folder, tmp_path / "machine-42" / "w.duckdb")
    another, again = pq.read_table(path).to_pylist()
    assert (another["base_model"], another["accuracy_lowest"]) == ("another", None) and again == pool


@pytest.mark.parametrize("other_seeds", [[], [43]])
def test_an_adapter_that_is_measured_again_replaces_its_figures_in_the_mean(tmp_path, other_seeds):
    folder = tmp_path / "published"
    for seed in [*other_seeds, 42]:
        _, first = publish_from_a_machine(folder, seed)

    shutil.rmtree(tmp_path / "machine-42")
    rows, pool = publish_from_a_machine(folder, 42, right=0.8)

    assert pool["adapters"] == first["adapters"] == len(rows)
    assert pool["accuracy"] == pytest.approx(fmean(row["accuracy"] for row in rows)) != first["accuracy"]


def test_an_adapter_that_knows_nothing_is_not_averaged(tmp_path):
    folder = tmp_path / "published"
    _, alone = publish_from_a_machine(folder, 42)
    rows, pool = publish_from_a_machine(folder, 43, right=0.0)
    assert sorted(row["is_informed"] for row in rows) == [False, True] and pool == alone
    assert combined_pool([row for row in rows if not row["is_informed"]]) is None


def test_an_adapter_beside_itself_has_its_own_interval_and_the_seeds_say_their_part(tmp_path):
    (row,), _ = publish_from_a_machine(tmp_path / "published", 42)
    twice = combined_pool([row, row | {"recipe": "another"}])
    assert twice is not None and twice["accuracy_seed_sd"] is None
    for metric in RULE_OF:
        for end in ("diff", "low", "high"):
            assert twice[f"{metric}_{end}"] == pytest.approx(row[f"{metric}_{end}"])

    worse = row | {"over_triage_diff": 0.2, "over_triage_low": 0.19, "over_triage_high": 0.21}
    assert combined_pool([worse, worse | {"recipe": "another"}])["over_triage_verdict"] == "inferior"
    better = worse | {"over_triage_diff": -0.2, "over_triage_low": -0.21, "over_triage_high": -0.19}
    assert combined_pool([worse, better])["over_triage_verdict"] == f"cannot conclude: {BETWEEN_SEEDS}"


def test_a_figure_that_one_adapter_lacks_has_no_mean(tmp_path):
    (row,), _ = publish_from_a_machine(tmp_path / "published", 42)
    pool = combined_pool([row, row | {"ed_recall_low": None, "ed_recall_diff": None, "bytes_ratio": None}])
    assert (pool["ed_recall_diff"], pool["ed_recall_verdict"], pool["bytes_ratio"]) == (None, "cannot conclude", None)
    assert (pool["ed_recall_lowest"], pool["ed_recall_highest"]) == (None, None)
