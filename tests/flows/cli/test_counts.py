"""Sentences that count: one answer, two answers."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from flows.cli.results.studies_report import _sentence
from flows.cli.search import introduction, saved
from flows.cli.storage.warehouse import _merged
from flows.cli.storage.warehouse_check import print_check
from flows.report.figures import counted
from tests.search.spaces import space
from warehouse.forget import Forgotten
from warehouse.load import load_all

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


@ONE_AND_TWO
def test_rows_that_an_audit_finds(count, s, tmp_path, monkeypatch):
    load_all(tmp_path)
    monkeypatch.setattr("flows.cli.storage.warehouse_check.examine", lambda path: {"costs_agree": count})
    out = io.StringIO()
    assert not print_check(Console(file=out, width=200))
    assert f"Audit costs_agree: {count} row{s}. " in out.getvalue()


@pytest.mark.parametrize(
    ("count", "merged", "forgotten"),
    [
        (
            1,
            "1 landing folder was taken over and loaded; 1 was here",
            "1 result of the study a is forgotten, 1 that other ",
        ),
        (
            2,
            "2 landing folders were taken over and loaded; 2 were here",
            "2 results of the study a are forgotten, 2 that ",
        ),
    ],
)
def test_what_is_merged_and_what_is_forgotten(count, merged, forgotten):
    assert _merged(count, count).startswith(merged)
    sentence = _sentence(Forgotten("a", ("t",) * count, (), count), yes=True)
    assert sentence.startswith(forgotten) and f"hold too stay{'s' if count == 1 else ''}." in sentence
