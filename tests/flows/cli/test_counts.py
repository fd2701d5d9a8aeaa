"""Sentences that count: one answer, two answers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flows.cli.search import introduction, saved
from flows.report.figures import counted
from tests.search.spaces import space

ONE_AND_TWO = pytest.mark.parametrize(("count", "s"), [(1, ""), (2, "s")])


@ONE_AND_TWO
def test_a_count_stands_with_its_noun(count, s):
    assert counted(count, "more row") == f"{count} more row{s}"
    assert counted(1134, "case") == "1,134 cases" and counted(0, "case") == "0 cases"


@ONE_AND_TWO
def test_trials_and_hours_of_a_search(count, s):
    for limits, words in (
        ((count, None), f"{count} trial{s}"),
        ((None, count), f"{count} hour{s}"),
        ((count, count), f"at most {count} trial{s} in {count} hour{s}"),
        ((None, 0.5), "0.5 hours"),
    ):
        assert introduction(space(), *limits).startswith(f"Search smoke: {words} of tiny-llama ")
    trial = SimpleNamespace(update=4, seconds=1, state="paused", rungs=[SimpleNamespace(train_seconds=1)], iterations=8)
    assert saved([trial] * count).startswith(f"{count} trial{s} took ")
