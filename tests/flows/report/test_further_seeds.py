"""A seed that is added to a study: what it changes in the estimate, and that no seed is lost or counted twice where it was
trained on another backend or by another version, or is there already."""

from __future__ import annotations

import re
import shutil
from datetime import datetime

import pytest

from flows.report.answer import answer
from flows.report.rows import studied
from tasks.runtime.home import home
from tests.flows.report.test_answer import land_baseline
from tests.flows.report.test_sections import at
from tests.warehouse.rows import assert_sound, land_arm
from tests.warehouse.test_precisions import noisy
from tests.warehouse.test_primary_claim import claimed
from tests.warehouse.test_studies import land_sweep
from warehouse.connect import snapshot
from warehouse.load import load_all
from warehouse.query import query_rows

CPU = {"backend": "cpu", "settings_digest": "cpu"}
METAL = {"backend": "metal", "settings_digest": "metal"}
ENGINE = {"engine_version": 2, "settings_digest": "engine", **{"backend": "cpu"}}
SHARES = {1: (0.9, 0.8), 2: (0.8, 0.9), 3: (0.85, 0.85), 4: (0.95, 0.7)}  # of right decisions at 4 and 8 bits
CLAIM = {"recipe": "r1", "figures": ["accuracy"], "seeds": [1, 2, 3], "sides": ["4bit", "8bit"], "margin": 0.02}
INTERVAL = r"points \[\S+, \S+\]"


def decided(seed, bits, name=""):
    return noisy(100 * seed + bits + len(name), SHARES[seed][bits == 8])


def land_seed(seed, name="", day=1, **trained):
    """A pair of trainings; returns its ids."""
    ids = []
    for bits in (4, 8):
        id = f"{bits}-{seed}{name}"
        cell = {"cell_id": f"smol-{bits}bit-r1-s{seed}", "seed": seed, "finished_at": datetime(2026, 2, day)}
        land_arm(home() / "landing", id, bits, decided(seed, bits, name), groups=True, **(CPU | cell | trained))
        ids += [f"t{id}", f"e{id}"]
    return ids


def difference(seeds, name=""):
    """4 minus 8 bits in accuracy, in points, as a sentence has it."""
    sides = [
        [sum(truth == argmax for truth, argmax, _ in decided(seed, bits, name)) / 120 for seed in seeds]
        for bits in (4, 8)
    ]
    return re.escape(f"{100 * (sum(sides[0]) - sum(sides[1])) / len(seeds):+.1f}")


@pytest.fixture(scope="module")
def three_seeds(tmp_path_factory):
    """A home with three seeds and a baseline, to be copied; the ids of the seeds."""
    folder = tmp_path_factory.mktemp("three")
    with at(folder):
        land_baseline(home() / "landing", 0.8)
        ids = [id for seed in (1, 2, 3) for id in land_seed(seed)]
        load_all(home() / "landing")
    return folder, ids


@pytest.fixture
def study(three_seeds):
    """Three seeds of one sweep, which may claim something about them; then adds the results of a later sweep."""
    folder, first = three_seeds
    shutil.copytree(folder, home())

    def add(*later, claim=None):
        columns = claimed(claim) if claim else {}
        land_sweep(home() / "landing", "study", first, **columns)
        land_sweep(home() / "landing", "study", later, day=2, **columns)
        load_all(home() / "landing")
        assert_sound()
        with snapshot():
            return answer(studied("study", only=[id for id in later if id.startswith("e")])[0]).sentence

    return add


def seeds_by_backend():
    statement = """
        SELECT coalesce(backend, '') || engine_version, count(DISTINCT p.seed), count(*)
        FROM pooled_pair AS p JOIN experiment AS x ON x.training_id = replace(evaluation_4bit, 'e', 't')
        GROUP BY ALL ORDER BY ALL
    """
    return query_rows(statement).rows


def test_a_further_seed_moves_the_estimate_and_the_sentence_says_from_where_to_where(study):
    sentence = study(*land_seed(4))
    moved = (
        rf"accuracy from {difference([1, 2, 3])} {INTERVAL} to {difference([1, 2, 3, 4])} \[\S+, \S+\], the verdict "
    )
    assert "With seed 4 the estimate moved: ED recall from " in sentence and re.search(moved, sentence), sentence
    assert "(smol r1, 4 seeds)" in sentence and seeds_by_backend() == [("cpu1", 4, 4)]


def test_a_claim_keeps_its_seeds_and_what_a_further_one_changes_follows_it(study):
    sentence = study(*land_seed(4), claim=CLAIM)
    assert re.match(rf".* in accuracy: {difference([1, 2, 3])} {INTERVAL}.*\(smol r1, 3 trainings a side,", sentence)
    moved = rf" With seed 4 the estimate moved: accuracy from {difference([1, 2, 3])} {INTERVAL} to {difference([1, 2, 3, 4])} "
    assert re.search(moved, sentence), sentence


@pytest.mark.parametrize(
    ("trained", "how", "pools", "claim"),
    [(METAL, "on metal, not cpu", "metal1", CLAIM), (ENGINE, "by engine version 2, not 1", "cpu2", None)],
    ids=["on a Mac, claimed", "by another engine version, without a claim"],
)
def test_a_seed_that_was_trained_otherwise_stands_by_itself_and_is_named(study, trained, how, pools, claim):
    sentence = study(*land_seed(4, "x", day=2, **trained), claim=claim)
    alone = rf"Seed 4 was trained {how}, and counted by itself: (ED recall .+; )?accuracy {difference([4], 'x')} "
    assert re.search(alone, sentence), sentence
    assert "With seed" not in sentence and ("Of both backends, 4 seeds: " in sentence) == (trained is METAL)
    assert seeds_by_backend() == sorted([("cpu1", 3, 3), (pools, 1, 1)])


def test_a_seed_that_is_there_already_takes_no_place_and_counts_once(study):
    """Its later training is the last of its experiment, and the estimate of the earlier three has all of them."""
    sentence = study(*land_seed(3, "x", day=2, **METAL))
    assert "Seed 3 was there already, and a seed counts once." in sentence and "Of both" not in sentence, sentence
    assert re.search(rf"{difference([1, 2, 3])} \S*\s?\[.*\(smol r1, 3 ", sentence), sentence
    assert [row[1:] for row in seeds_by_backend()] == [(3, 3), (1, 1)]


def test_a_sweep_of_a_seed_that_is_there_says_so_and_moves_nothing(study):
    sentence = study("t4-2", "e4-2", "t8-2", "e8-2")
    assert "Seed 2 was there already, and a seed counts once." in sentence and "moved" not in sentence
    assert "(smol r1, 3 seeds)" in sentence
