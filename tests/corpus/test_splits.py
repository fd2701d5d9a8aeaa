"""Splits keep groups whole and labels balanced; leaks are found and named by id."""

import random
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.corpus.case import Case
from tasks.corpus.splits import check_apart, check_sets, limited, split_cases
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, EvaluationSet
from tests.corpus.test_near_copies import planted


def cases(count: int, groups: int | None = None) -> list[Case]:
    return [
        Case(f"c{i}", f"text number {i}", LABELS[i % 3], None if groups is None else f"g{i % groups}")
        for i in range(count)
    ]


def test_cases_are_split_by_share_label_by_label_and_by_the_seed_and_no_group_crosses_sets():
    sets = split_cases(cases(300), seed=1)
    sizes = {"train": 180, "valid": 30, "calibration": 30, "test": 60}
    assert {name: len(set_cases) for name, set_cases in sets.items()} == sizes
    for set_cases in sets.values():
        assert set(Counter(case.label for case in set_cases).values()) == {len(set_cases) // 3}

    sets = split_cases(cases(1000, groups=50), seed=1)
    check_sets(sets)
    assert sum(len(set_cases) for set_cases in sets.values()) == 1000
    assert 500 <= len(sets["train"]) <= 700 and len(sets["test"]) >= 120

    rows = [Case(f"c{i}", f"t{i}", "ED" if i % 4 == 0 else "GP", f"g{i % 25}") for i in range(400)]
    few = limited(rows, 40, seed=1)
    assert Counter(c.label for c in few) == {"ED": 10, "GP": 30} and len({c.group for c in few}) >= 20
    assert few == limited(rows, 40, seed=1) != limited(rows, 40, seed=2)

    rows = cases(200, groups=40)
    mixed = random.Random(3).sample(rows, len(rows))
    assert {c.case_id for c in split_cases(rows, 5)["test"]} == {c.case_id for c in split_cases(mixed, 5)["test"]}
    assert split_cases(rows, 5) != split_cases(rows, 6)


@settings(max_examples=20, deadline=None)
@given(
    labels=st.lists(st.sampled_from(LABELS), min_size=1, max_size=60),
    groups=st.integers(1, 20),
    limit=st.integers(3, 30),
)
def test_every_case_lands_once_and_a_limit_keeps_every_label(labels, groups, limit):
    rows = [Case(f"c{i}", f"t{i}", label, f"g{i % groups}") for i, label in enumerate(labels)]  # type: ignore[arg-type]
    sets = split_cases(rows, seed=0)
    assert sorted(c.case_id for cases in sets.values() for c in cases) == sorted(c.case_id for c in rows)
    check_sets(sets)
    few = limited(rows, limit, seed=0)
    assert len(few) == min(limit, len(rows)) and {c.label for c in few} == set(labels)


def test_a_text_or_group_or_id_in_two_sets_is_refused_by_id_without_the_text():
    one = Case("a", "Secret words", "ED", "g")
    with pytest.raises(
        BadInput, match=r"nearly it, is in two sets \(1\): case b of test and case a of train \(100%\); delete"
    ) as caught:
        check_sets({"train": [one], "test": [Case("b", "secret  words", "ED", "h")]})

    assert "ecret" not in str(caught.value)
    with pytest.raises(BadInput, match=r"same group is in two sets \(1\): case b of test and case a of train; keep"):
        check_sets({"train": [one], "test": [Case("b", "other", "ED", "g")]})
    with pytest.raises(BadInput, match=r"same id is in two sets \(1\): case a of test and case a of train; give"):
        check_sets({"train": [one], "test": [Case("a", "other", "ED", "h")]})


def test_near_copies_in_a_templated_table_stay_in_one_set_and_are_refused_in_two():
    texts, copies = planted()
    rows = [Case(f"c{i}", text, LABELS[i % 3]) for i, text in enumerate(texts)]
    sets = split_cases(rows, seed=1)
    set_of = {case.case_id: name for name, set_cases in sets.items() for case in set_cases}
    assert all(set_of[f"c{a}"] == set_of[f"c{b}"] for a, b in copies)
    assert all(len(set_cases) > 50 for set_cases in sets.values())

    first, second = min(copies)
    moved = {"train": [case for case in rows if case.case_id != f"c{second}"], "test": [rows[second]]}
    with pytest.raises(
        BadInput, match=f"nearly it, is in two sets .*case c{second} of test and case c{first} of train"
    ):
        check_sets(moved)


def test_a_group_written_in_several_ways_is_one_group():
    spellings = ("Condition {}", "condition  {}", "\uff23ondition {}")
    groups = [spellings[i // 36 % 3].format(i // 3 % 12) for i in range(360)]
    rows = [Case(f"c{i}", f"text number {i}", LABELS[i % 3], group) for i, group in enumerate(groups)]
    sets = split_cases(rows, seed=1)
    check_sets(sets)
    numbers = [{case.group.split()[-1] for case in set_cases if case.group} for set_cases in sets.values()]
    assert sum(map(len, numbers)) == 12
    mixed = random.Random(3).sample(rows, len(rows))
    assert {c.case_id for c in split_cases(mixed, 1)["test"]} == {c.case_id for c in sets["test"]}
    with pytest.raises(BadInput, match=r"same group is in two sets \(1\): case b of test and case a of train; keep"):
        check_sets({"train": [Case("a", "1", "ED", "Caf\u00e9 3")], "test": [Case("b", "2", "ED", "cafe\u0301  3")]})

    # What is drawn for a group of one spelling comes from its name as it is written.
    rows = [Case(f"c{i}", f"text number {i}", LABELS[i % 3], f"Grp {i % 40}") for i in range(400)]
    assert {case.group for case in split_cases(rows, 1)["valid"]} == {"Grp 13", "Grp 16", "Grp 36", "Grp 38"}


ENGLISH = "I've had chest pain since last night, it's getting worse, I can't lie down, my arm's numb and I'm sweating"
FRENCH = "J'ai très mal à la tête depuis hier, la fièvre a monté à trente-neuf et ça ne s'arrête pas même couché"
CHINESE = "昨天晚上开始胸口痛，左手发麻，而且一直出冷汗，现在喘不过气"
OTHER = "我儿子三天前开始咳嗽，没有发烧，吃得下东西，晚上睡得也还好"  # in a script without spaces
OUTSIDE = EvaluationSet(name="outside", source="outside.jsonl")


@pytest.mark.parametrize(
    ("text", "copy"),
    [
        (ENGLISH, ENGLISH.replace("'", "\u2019").replace(",", "\u2026").replace(" ", "\u00a0")),
        (FRENCH, unicodedata.normalize("NFD", FRENCH)),
        (CHINESE, CHINESE.replace("，", ", ")),
        ("胸口痛", "胸口痛。"),
        ("ปวดหัวมากตั้งแต่เมื่อคืนและมีไข้สูง", "ปวดหัวมาก ตั้งแต่เมื่อคืน และมีไข้สูง"),
    ],
)
def test_a_copy_with_other_signs_is_refused(text, copy):
    with pytest.raises(BadInput, match="The same text, .*case a of train"):
        check_sets({"train": [Case("a", text, "ED")], "test": [Case("b", copy, "ED")]})
    with pytest.raises(BadInput, match="outside"):
        check_apart([(OUTSIDE, [Case("b", copy, "ED")])], {"train": [Case("a", text, "ED")]})
    check_sets({"train": [Case("a", text, "ED")], "test": [Case("b", OTHER, "HOME")]})
    with pytest.raises(BadInput, match="not apart from train: The same group .*case b of outside and case a of train"):
        check_apart(
            [(OUTSIDE, [Case("b", OTHER, "ED", "condition  3")])], {"train": [Case("a", text, "ED", "Condition 3")]}
        )


def test_what_evaluation_sets_share_with_each_learned_set_is_refused_at_once():
    learned = {"train": [Case("a", ENGLISH, "ED")], "calibration": [Case("c", FRENCH, "ED", "g")]}
    ward = EvaluationSet(name="ward", source="ward.csv")
    of_ward = [Case("d", FRENCH, "ED"), Case("e", OTHER, "ED", "g")]
    with pytest.raises(BadInput) as refused:
        check_apart([(OUTSIDE, [Case("b", ENGLISH, "ED")]), (ward, of_ward)], learned)
    sentence = str(refused.value)
    start = "The evaluation sets outside (outside.jsonl) and ward (ward.csv) are not apart from train and calibration: "
    copies = (
        "(2): case b of outside and case a of train (100%); case d of ward and case c of calibration (100%); delete"
    )
    assert sentence.startswith(f"{start}The same text, or nearly it, is in two sets {copies}")
    assert "The same group is in two sets (1): case e of ward and case c of calibration; keep" in sentence
