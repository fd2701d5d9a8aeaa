"""`triage bench dropout`: its arithmetic against figures made by hand, its cases, and a whole run on a tiny model."""

import numpy as np
import pytest
from rich.console import Console

from flows.bench.dropout import Workload, bench_dropout
from flows.bench.dropout_figures import EngineMeasurement, agreement, task_times
from tasks.bench.dropout import CASE_TOKENS, _repeated, select_cases
from tasks.bench.jobs import DropoutJob
from tasks.corpus.encode import Encoded
from tasks.runtime.backend import backend
from tasks.runtime.errors import BadInput
from tasks.tuning.batches import make_cases
from tasks.tuning.sets import LoadedSet
from tests.tolerances import wheels_own_blas
from tests.tuning.tiny import SINGLE
from warehouse.query import query

STOCK = {"generate_stock"} & set(backend().compared_with)


def sampled(passes, seed, shift=0.0, stretch=1.0, rare=False):
    """What an engine returns of `passes` passes over 20 cases from one distribution, moved or stretched; or of cases
    whose probabilities are near 0 but for a rare pass."""
    drawn = shift + stretch * np.random.default_rng(seed).standard_normal((passes, 20, 3))
    probabilities = 1 / (1 + np.exp(6 - 3 * drawn)) if rare else 0.3 + 0.05 * drawn
    return EngineMeasurement(seconds=[1.0] * passes, cases=20, probabilities=probabilities.tolist())


def measured():
    return {
        "ours": EngineMeasurement(seconds=[2.0, 1.0, 3.0] * 16 + [2.0, 2.0], cases=20),
        "full": EngineMeasurement(seconds=[6.0, 5.0] * 5, cases=20),
        "generate": EngineMeasurement(seconds=[0.5] * 20, cases=20),
        "generate_stock": EngineMeasurement(seconds=[2.0] * 20, cases=20),
        "score_ours": EngineMeasurement(seconds=[4.0, 3.0, 5.0], cases=60),
        "score_full": EngineMeasurement(seconds=[10.0, 12.0], cases=60),
    }


def test_each_figure_is_of_the_whole_task_and_says_what_was_scaled():
    times = task_times(measured(), passes=50)
    assert (times["ours"].seconds, times["ours"].least, times["ours"].most) == (100.0, 50.0, 150.0)
    assert times["ours"].note == "50 passes" and times["ours"].times_slower is None
    assert (times["full"].seconds, times["full"].n) == (275.0, 10)
    assert times["full"].note == "scaled: 10 timed of 50 passes" and times["full"].times_slower == 2.75
    assert times["generate"].seconds == 500.0 and times["generate"].times_slower == 5.0
    assert times["generate_stock"].seconds == 2000.0 and times["generate_stock"].times_slower == 20.0
    assert times["generate"].note == times["generate_stock"].note == "scaled: 20 timed of 1000 generations"
    assert (times["score_ours"].seconds, times["score_full"].seconds) == (100.0, 275.0)
    assert times["score_full"].note == "scaled: 60 timed of 1500 cases" and times["score_full"].times_slower == 2.75


def test_a_whole_set_is_not_called_scaled():
    whole = measured()
    whole["score_ours"] = EngineMeasurement(seconds=[4.0, 3.0, 5.0], cases=1500)
    time = task_times(whole, 50)["score_ours"]
    assert time.note == "1500 cases" and time.seconds == 4.0


@pytest.mark.parametrize("rare", [False, True])
@pytest.mark.parametrize("passes", [(50, 50), (50, 6)])
def test_two_samples_of_one_distribution_agree_and_others_do_not(passes, rare):
    """Six passes tell less than fifty, and are not held to be closer."""
    first = sampled(passes[0], 1, rare=rare)
    near = agreement(first, sampled(passes[1], 2, rare=rare))
    assert near.mean_p > 0.05 and near.sd_p > 0.05
    assert agreement(first, sampled(passes[1], 2, shift=2.0, rare=rare)).mean_p <= 0.01
    assert agreement(first, sampled(passes[1], 2, stretch=4.0, rare=rare)).sd_p <= 0.01


def test_an_engine_stops_when_its_time_is_over_but_never_before_the_least():
    assert len(_repeated(lambda: None, most=7, least=2, seconds=60)) == 7
    assert len(_repeated(lambda: None, most=7, least=2, seconds=0)) == 2


def a_set(lengths):
    encoded = [Encoded(f"c{i:03}", i % 3, tuple(range(10, 10 + n)), False) for i, n in enumerate(lengths)]
    records = [{"case_id": e.case_id, "label": ("ED", "GP", "HOME")[i % 3]} for i, e in enumerate(encoded)]
    return LoadedSet(make_cases(SINGLE, encoded), tuple(records), 0)


def test_the_dropout_cases_are_those_of_about_a_hundred_tokens_and_the_scored_ones_a_sample_of_all():
    test = a_set([40, 99, 101, 60, 100, 118, 90, 30, 20])

    def selected(engine: str) -> list[int]:
        job = DropoutJob(
            engine=engine,
            variant="v",
            data="d",
            folder="f",
            layers=2,
            passes=3,
            cases=4,
            scored=6,
            repeats=1,
            seconds=1,
        )
        return select_cases(test, job)

    assert selected("ours") == [1, 2, 4, 6] and CASE_TOKENS == 100
    assert selected("full") == [1, 2, 4, 6]
    scored = selected("score_full")
    assert len(scored) == 6 and [sum(i % 3 == label for i in scored) for label in range(3)] == [2, 2, 2]


@pytest.mark.nightly
def test_a_whole_run_prints_and_lands_every_figure():
    """On one number of blocks: each engine is a process, and each process loads MLX."""
    console = Console(record=True, width=180)
    reports = bench_dropout(console, "tiny-llama", 4, [2], Workload(6, passes=30, scored=20, repeats=2, seconds=1))
    text = console.export_text()

    for report in reports:
        times = report.times
        measurements = report.measured
        assert set(times) == {"ours", "full", "generate", "score_ours", "score_full"} | STOCK
        assert all(f.seconds > 0 and f.least <= f.seconds <= f.most for f in times.values())
        assert report.agreement.mean_p > 0.01 and report.agreement.sd_p > 0.01, "both draw from one distribution"

        for engine in ("ours", "full"):
            assert np.asarray(measurements[engine].probabilities).std(axis=0).min() > 0, "dropout is on"

        assert (
            measurements["generate"].cases == len(measurements["generate"].seconds) == 6
            and measurements["score_full"].cases == 20
        )
        assert all(measurements[engine].device.blas == wheels_own_blas() for engine in STOCK), "as installed"
        tokens = measurements["ours"].tokens
        assert f"6 cases of {tokens.mean:.0f} tokens ({tokens.least} to {tokens.most})" in text

    assert "tiny-llama 4bit (random weights)" in text and "scaled: 6 timed of 180 generations" in text
    assert text.count("chance does as much") == 1 and "scaled: 20 timed of 1500 cases" in text
    landed = query("SELECT \"case\", metric, value FROM benchmark WHERE name = 'dropout' AND metric = 'times_slower'")
    assert len(landed) == 3 + len(STOCK) and (landed.value > 0).all()


def test_a_number_of_blocks_that_the_model_has_not_is_refused():
    with pytest.raises(BadInput, match="tiny-llama has 4 blocks"):
        bench_dropout(Console(), "tiny-llama", 4, [5], Workload(6, passes=3, scored=20, repeats=1, seconds=1))
