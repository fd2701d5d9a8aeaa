"""`triage bench overhead`: what a sweep takes beyond its steps' own processes."""

import pytest
from rich.console import Console

from flows.bench.chaos.place import Study
from flows.bench.overhead import Overhead, bench_overhead
from tasks.runtime.errors import BadInput


def test_a_sweep_lands_how_long_it_and_its_steps_took(smoke):
    place, _ = smoke
    first = (
        "SELECT run_seconds, step_seconds FROM sweep ORDER BY started_at LIMIT 1"  # others may have been typed again
    )
    (times,) = place.query(first).to_dict("records")
    assert 0 < times["step_seconds"] < times["run_seconds"]


def test_what_the_steps_do_not_account_for_is_divided_by_the_experiments():
    records = Overhead(experiments=10, command=30.0, flow=25.0, steps=20.0, again=5.0).records
    assert {record["what"]: record["s per experiment"] for record in records} == {
        "the command, from its start to its end": "3.00",
        "the sweep, once Prefect has started": "2.50",
        "its steps' own processes": "2.00",
        "the sweep beyond its steps": "0.50",
        "the command beyond its steps": "1.00",
        "the finished sweep, typed again": "0.50",
    }


def test_a_folder_that_is_there_is_refused(tmp_path):
    with pytest.raises(BadInput, match="name a new folder"):
        bench_overhead(Console(), Study(1, 8), tmp_path)


@pytest.mark.nightly
def test_a_sweep_is_measured_and_typed_again(tmp_path):
    console = Console(record=True, width=100)
    bench_overhead(console, Study(experiments=2, iterations=8), tmp_path / "new")
    text = console.export_text()
    assert "2 experiments of the smoke grid" in text and "the finished sweep, typed again" in text
