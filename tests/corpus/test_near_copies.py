"""Nearly equal texts: the sketch agrees with plain sets of runs of words, also when it keeps only a part of them."""

import math
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.corpus import near_copies
from tasks.corpus.case import compared_digest, compared_text
from tasks.corpus.near_copies import Sketch


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def every_pair(texts: list[str], threshold: float) -> dict[tuple[int, int], float]:
    """By brute force: from the plain runs of words of every two texts."""
    runs = [{tuple(w[i : i + 4]) for i in range(max(1, len(w) - 3))} for w in map(words, texts)]
    column = {run: i for i, run in enumerate(set().union(*runs))}
    has_run = np.zeros((len(texts), len(column)))
    for row, text_runs in enumerate(runs):
        has_run[row, [column[run] for run in text_runs]] = 1

    in_common = has_run @ has_run.T
    size = has_run.sum(axis=1)
    index = in_common / (size[:, None] + size - in_common)
    found = np.argwhere(np.triu(index >= threshold, 1))
    return {(a, b): round(float(index[a, b]), 3) for a, b in found.tolist()}


SIX = ["ab", "cd", "ef", "gh", "ij", "kl"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.sampled_from(SIX), min_size=4, max_size=12), min_size=2, max_size=6))
def test_it_finds_what_sets_of_runs_find(texts):
    joined = [", ".join(text) for text in texts]
    sketch = Sketch()
    sketch.add(joined[:1])
    sketch.add(joined[1:])
    assert {(a, b): index for a, b, index in sketch.pairs(0.3)} == every_pair(joined, 0.3)


def story(rng: random.Random, length: int = 60) -> str:
    return " ".join(str(rng.randrange(5000)) for _ in range(length))


def test_a_part_of_the_runs_is_enough_to_find_copies_and_a_stock_phrase_makes_none(monkeypatch):
    monkeypatch.setattr(near_copies, "MOST_RUNS", 8000)
    rng = random.Random(1)
    texts = [story(rng, 150) for _ in range(400)]
    texts[399] = texts[7] + " and one more word"
    sketch = Sketch()
    for start in range(0, 400, 50):
        sketch.add(texts[start : start + 50])
    assert sketch.every > 1 and sketch.runs <= 8000
    assert [(a, b) for a, b, _ in sketch.pairs(0.8)] == [(7, 399)]

    monkeypatch.setattr(near_copies, "MOST_RUNS", 2000)
    phrase = "please help me as soon as you can since we are quite worried and have waited for a week without any word"
    rng = random.Random(5)
    sketch = Sketch.of([f"{phrase} {' '.join(str(rng.random())[2:] for _ in range(12))}" for _ in range(400)])
    assert sketch.every > 4 and sketch.pairs(0.8) == []


@pytest.mark.parametrize(("count", "compared"), [(51, None), (2000, 1000)])
def test_however_many_near_copies_are_chained_together_and_across_sides(count, compared, monkeypatch):
    if compared is not None:
        monkeypatch.setattr(near_copies, "MAX_CANDIDATES", compared)
    rng = random.Random(4)
    texts = [story(rng) for _ in range(30)]
    knee = "my knee has been sore since I fell on the stairs and it creaks when I bend it"
    copies = [f"{knee} {i}" for i in range(count)]
    sketch = Sketch.of([*texts, *copies])
    pairs = sketch.pairs(0.8)
    assert {a for a, *_ in pairs} | {b for _, b, _ in pairs} == set(range(30, 30 + count))
    assert {(30 + i, 31 + i) for i in range(count - 1)} <= {(a, b) for a, b, _ in pairs}
    assert len(pairs) == math.comb(count, 2) if compared is None else len(pairs) < 2 * count + compared
    sides = np.zeros(30 + count, dtype=int)
    sides[[40, 50]] = 1, 2
    crossing = {(a, b) for a, b, _ in sketch.pairs(0.8, sides)}
    assert crossing >= {(30, 40), (30, 50)} and {n for pair in crossing for n in pair} == set(range(30, 30 + count))
    assert all(sides[a] != sides[b] for a, b in crossing)


def templated(rng: random.Random, number: int, clauses: int, chosen: int, length: int) -> list[str]:
    """Different texts, each of some of a few clauses: nearly all their runs stand in many texts."""
    bank = [" ".join(str(rng.randrange(5000)) for _ in range(length)) for _ in range(clauses)]
    texts: dict[str, None] = {}
    while len(texts) < number:
        texts[" ".join(rng.sample(bank, chosen))] = None
    return list(texts)


def planted(number: int = 1500, copies: int = 60) -> tuple[list[str], set[tuple[int, int]]]:
    """A templated table, then copies of some texts of it with one more word, and the pairs these are."""
    rng = random.Random(6)
    texts = templated(rng, number, clauses=12, chosen=5, length=12)
    originals = rng.sample(range(number), copies)
    pairs = {(original, number + i) for i, original in enumerate(originals)}
    return texts + [f"{texts[original]} please" for original in originals], pairs


@pytest.mark.parametrize("bounds", [{"MAX_PAIRS": 100_000}, {"MAX_CANDIDATES": 500}, {"MAX_RETURNED": 100}], ids=str)
def test_copies_are_found_in_a_table_whose_runs_all_stand_in_many_texts(bounds, monkeypatch):
    for name, value in bounds.items():
        monkeypatch.setattr(near_copies, name, value)
    texts, copies = planted()
    pairs = Sketch.of(texts).pairs(0.8)
    assert copies <= {(a, b) for a, b, _ in pairs} and {(a, b) for a, b, _ in pairs[:60]} == copies
    assert pairs == sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))


@pytest.mark.parametrize(("threshold", "has_sides"), [(0.4, False), (0.8, True)])
def test_every_pair_of_a_templated_table_is_found_however_many_are_compared_at_once(threshold, has_sides, monkeypatch):
    if has_sides:
        monkeypatch.setattr(near_copies, "BLOCK_SIZE", 1000)
    rng = random.Random(7)
    texts = templated(rng, 500, clauses=9, chosen=4, length=6)
    texts += [f"{text} {rng.randrange(5000)}" for text in texts[:50]]
    texts += [text[: rng.randrange(20, 90)] for text in texts[:50]]
    sides = np.array([rng.randrange(3) for _ in texts])
    every = every_pair(texts, threshold)
    expected = {(a, b): index for (a, b), index in every.items() if not has_sides or sides[a] != sides[b]}
    pairs = Sketch.of(texts).pairs(threshold, sides if has_sides else None)
    assert {(a, b): index for a, b, index in pairs} == expected and len(pairs) == len(expected) > 20


def test_more_pairs_than_are_returned_or_fit_still_connect_all_that_are_similar(monkeypatch):
    with monkeypatch.context() as few:
        few.setattr(near_copies, "MAX_RETURNED", 100)
        clusters = [f"{' '.join(f'{name}{n}' for n in range(20))} {i}" for name in "abc" for i in range(30)]
        texts = [*clusters, "one two three four five six", "one two three four five six seven"]
        pairs = Sketch.of(texts).pairs(0.7)
    leader = list(range(len(texts)))
    for a, b, _ in pairs:
        leader = [leader[a] if of == leader[b] else of for of in leader]
    assert [leader.count(of) for of in dict.fromkeys(leader)] == [30, 30, 30, 2]
    assert len(pairs) < 100 + len(texts) and pairs[-1] == (90, 91, 0.75)

    monkeypatch.setattr(near_copies, "MAX_PAIRS", 100)
    texts = [f"{' '.join(f'w{n}' for n in range(20))} {i}" for i in range(40)]
    assert {(i, i + 1) for i in range(39)} <= {(a, b) for a, b, _ in Sketch.of(texts).pairs(0.8)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I\u2019ve a \u201cfever\u201d\u2026", "i ve a fever ..."),
        ("\u00c9tourdi\u00b7e", "\u00e9tourdi e"),
        ("\uff21\u210b \u338f", "ah kg"),
        ("faint\u00ading \u2764\ufe0f", "fainting"),
        ("\u80f8\u304c\u75db\u3044\u3002", "\u80f8 \u304c \u75db \u3044"),
        ("I've 38.5", "i've 38.5"),
    ],
)
def test_a_text_is_compared_without_what_typing_makes_of_it(text, expected):
    assert compared_text(text).split() == expected.split()
    assert compared_digest("\U0001f691") != compared_digest("\U0001f926"), "texts without letters stay apart"
