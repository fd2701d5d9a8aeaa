"""Splits keep groups whole and labels balanced; leaks are found and named by id."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.corpus.case import SETS, Case
from tasks.corpus.near_copies import near_duplicates
from tasks.corpus.splits import check_sets, limited, split_cases
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS


def cases(count: int, groups: int | None = None) -> list[Case]:
    return [
        Case(f"c{i}", f"text number {i}", LABELS[i % 3], None if groups is None else f"g{i % groups}")
        for i in range(count)
    ]


def test_ungrouped_cases_are_split_by_share_label_by_label() -> None:
    sets = split_cases(cases(300), seed=1)
    assert {name: len(set_cases) for name, set_cases in sets.items()} == {
        "train": 180,
        "valid": 30,
        "calibration": 30,
        "test": 60,
    }
    for set_cases in sets.values():
        assert set(Counter(case.label for case in set_cases).values()) == {len(set_cases) // 3}


def test_no_group_crosses_sets_and_sizes_stay_near_the_shares() -> None:
    sets = split_cases(cases(1000, groups=50), seed=1)
    check_sets(sets)
    assert sum(len(set_cases) for set_cases in sets.values()) == 1000
    assert 500 <= len(sets["train"]) <= 700 and len(sets["test"]) >= 120


def test_a_split_depends_on_the_seed_and_not_on_the_order() -> None:
    rows = cases(200, groups=40)
    mixed = random.Random(3).sample(rows, len(rows))
    assert {c.case_id for c in split_cases(rows, 5)["test"]} == {c.case_id for c in split_cases(mixed, 5)["test"]}
    assert split_cases(rows, 5) != split_cases(rows, 6)


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.sampled_from(LABELS), min_size=1, max_size=60),
    groups=st.integers(1, 20),
    limit=st.integers(3, 30),
)
def test_every_case_lands_once_and_a_limit_keeps_every_label(labels: list[str], groups: int, limit: int) -> None:
    rows = [Case(f"c{i}", f"t{i}", label, f"g{i % groups}") for i, label in enumerate(labels)]  # type: ignore[arg-type]
    sets = split_cases(rows, seed=0)
    assert sorted(c.case_id for cases in sets.values() for c in cases) == sorted(c.case_id for c in rows)
    check_sets(sets)
    few = limited(rows, limit, seed=0)
    assert len(few) == min(limit, len(rows)) and {c.label for c in few} == set(labels)


def test_a_limit_keeps_the_label_shares_and_as_many_groups_as_it_can() -> None:
    rows = [Case(f"c{i}", f"t{i}", "ED" if i % 4 == 0 else "GP", f"g{i % 25}") for i in range(400)]
    few = limited(rows, 40, seed=1)
    assert Counter(c.label for c in few) == {"ED": 10, "GP": 30}
    assert len({c.group for c in few}) >= 20
    assert few == limited(rows, 40, seed=1) != limited(rows, 40, seed=2)


def test_a_text_or_group_or_id_in_two_sets_is_refused_by_id_without_the_text() -> None:
    one = Case("a", "Secret words", "ED", "g")
    with pytest.raises(BadInput, match="Case b in test has the same text as case a in train") as caught:
        check_sets({"train": [one], "test": [Case("b", "secret  words", "ED", "h")]})

    assert "ecret" not in str(caught.value)
    with pytest.raises(BadInput, match="Case b in test is of the same group as case a in train"):
        check_sets({"train": [one], "test": [Case("b", "other", "ED", "g")]})
    with pytest.raises(BadInput, match="The id a stands in train and in test"):
        check_sets({"train": [one], "test": [Case("a", "other", "ED", "h")]})


def test_near_copies_across_sets_are_found_and_others_are_not() -> None:
    text = "I have had a sore knee for three days and it hurts on the stairs but not at night"
    near = text.replace("three", "four")
    sets = {name: [Case(f"{name}1", f"{name} " * 9, "GP")] for name in SETS}
    sets["train"].append(Case("x", text, "GP"))
    sets["test"].append(Case("y", near, "GP"))
    assert [(p.case_a, p.case_b) for p in near_duplicates(sets, threshold=0.4)] == [("x", "y")]
    assert near_duplicates(sets, threshold=0.9) == []
