"""`triage bench warehouse`: a made-up warehouse is one that the audits pass, and its scratch folder goes."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from typer.testing import CliRunner

from flows.bench import warehouse as bench
from flows.bench.study_copies import copy_study
from flows.bench.synthetic_study import SyntheticStudy
from flows.bench.warehouse import BenchFigure, StudySize, bench_warehouse
from flows.cli.main import app
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from warehouse.connect import reading, writing
from warehouse.health import run_audits
from warehouse.load import load_all
from warehouse.query import query_rows


def test_copies_of_a_study_are_studies_of_their_own_on_which_every_audit_passes(tmp_path):
    SyntheticStudy(4, 40).land(tmp_path / "landing")
    assert load_all(tmp_path / "landing", tmp_path / "w.duckdb").refused == {}
    with writing(tmp_path / "w.duckdb") as con:
        assert list(copy_study(con, 2)) == [1, 2]

    def count(sql: str) -> object:
        return query_rows(f"SELECT count(*) {sql}", database=tmp_path / "w.duckdb").rows[0][0]

    assert (count("FROM study"), count("FROM prediction")) == (3, 3 * 4 * 40)
    assert (count("FROM quantization_comparison"), count("FROM equal_pair")) == (6, 6)
    assert count("FROM quantization_comparison WHERE accuracy_verdict IS NULL") == 0

    with reading(tmp_path / "w.duckdb") as con:
        assert not any(run_audits(con).values())


def test_the_command_prints_the_answer_first_and_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr(bench, "REPEATS", 1)
    report = [BenchFigure("triage report, processor time", 9, "s", 20), BenchFigure("its file", 3, "MB", 6)]
    monkeypatch.setattr(bench, "_report", lambda place: report)  # takes seconds; below
    output = io.StringIO()
    figures = bench_warehouse(Console(file=output, width=100), StudySize(2, 30))
    assert [figure.name for figure in figures] == [
        "quantization_comparison",
        "quantization_summary",
        "triage compare, processor time",
        "triage report, processor time",
        "its file",
        "one more experiment loaded",
        "one more experiment loaded, processor time",
        "file",
    ]
    assert all(figure.value > 0 for figure in figures)
    first = output.getvalue().splitlines()[0]
    assert first.startswith(("Every aim is reached: ", "1 of 5 aims", "2 of 5 aims", "3 of 5 aims"))
    assert "(aim: under 150 ms)" in first and "(aim: under 2.00 s)" in first
    assert list((home() / "bench").iterdir()) == []


@pytest.mark.nightly
def test_the_report_of_a_made_up_study_is_measured(tmp_path):
    SyntheticStudy(2, 30).land(tmp_path / "landing")
    load_all(tmp_path / "landing", tmp_path / bench.FILE)
    seconds, size = bench._report(tmp_path)
    assert seconds.value > 0.5 and 0.1 < size.value < 6


def test_an_aim_that_is_missed_is_counted():
    output = io.StringIO()
    figures = [BenchFigure("one", 151, "ms", 150), BenchFigure("two", 1, "s", 2), BenchFigure("three", 7, "MB", None)]
    bench._print(Console(file=output, width=200), StudySize(60, 1500), figures)
    assert output.getvalue().startswith("1 of 2 aims are missed: one 151 ms (aim: under 150 ms); two 1.00 s (aim:")


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        (StudySize(0, 1500), "give an even number"),
        (StudySize(7, 1500), "give an even number"),
        (StudySize(60, 3), "too few; give at least 30"),
        (StudySize(10**6, 2000), "2,000,000,000 predictions; 100,000,000 are the most"),
    ],
)
def test_a_size_that_cannot_be_made_is_a_sentence(size, sentence):
    with pytest.raises(BadInput, match=sentence):
        size.check()


def test_the_disk_must_have_room(monkeypatch):
    usage = bench.shutil.disk_usage(home().parent)
    monkeypatch.setattr(bench.shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    with pytest.raises(BadInput, match="no room for 9.0 MB|no room for 0.0 GB"):
        StudySize(60, 1500).check()


def test_the_command_line_says_it_too():
    result = CliRunner().invoke(app, ["bench", "warehouse", "--experiments", "3"])
    assert result.exit_code != 0


def test_studies_are_of_up_to_sixty_experiments():
    sizes = [(StudySize(n, 30).in_a_study, StudySize(n, 30).is_one_study) for n in (2, 60, 62, 120, 10_000)]
    assert sizes == [(2, True), (60, True), (2, False), (60, False), (50, False)]
