"""`triage gates` and restated prevalence, on a small warehouse."""

from __future__ import annotations

import hashlib
import io
import json
from datetime import datetime

import pytest
from rich.console import Console

from flows.bench_corpus import _models
from flows.gates import find_evaluations, print_gates
from flows.tables import leaderboard, restated
from tasks.runtime.errors import BadInput
from tests.warehouse.rows import FIVE, evaluation, land_pair, training
from warehouse.landing import write_landing
from warehouse.load import load_all


def printed(*args) -> str:
    out = io.StringIO()
    print_gates(Console(file=out, width=200), *args)
    return out.getvalue()


@pytest.fixture
def landed(tmp_path):
    rows = evaluation("e4", "t4", [*FIVE, ("ED", "GP", "GP"), ("ED", "HOME", "HOME")])
    for i, row in enumerate(rows["prediction"]):
        row["case_digest"] = hashlib.sha256(f"message {i}".encode()).hexdigest()
    write_landing(tmp_path, "t4", "training", training("t4"))
    write_landing(tmp_path, "e4", "evaluation", rows)
    load_all(tmp_path)


def test_gates_show_counts_bound_method_and_the_missed_cases_by_id_alone(landed):
    text = printed("smol-4bit-r1-s42", None, None)
    assert "2 of 4" in text and "FAIL" in text and "Clopper-Pearson" in text and "unsafe" in text
    assert "Missed emergencies: 2" in text and "c00005" in text and "c00006" in text and "message" not in text


def test_texts_come_from_the_users_own_file_only(landed, tmp_path):
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"id": 1, "words": " message 5 "}) + "\n")
    text = printed("t4", own, None)
    assert "message 5" in text and "its text is not in that file" in text and "message 6" not in text


def test_what_is_not_there_or_not_one_experiment_is_a_sentence(landed, tmp_path):
    with pytest.raises(BadInput, match="no finished experiment 'other'"):
        find_evaluations("other")
    with pytest.raises(BadInput, match="no share"):
        printed("t4", None, 1.5)
    land_pair(tmp_path / "more")
    load_all(tmp_path / "more")
    with pytest.raises(BadInput, match="beginning of 2 experiments"):
        find_evaluations("t")


def test_a_later_run_on_random_weights_stands_beside_the_real_model_and_says_what_it_is(landed, tmp_path):
    write_landing(tmp_path, "r4", "training", training("r4", day=9, random_weights=True))
    write_landing(tmp_path, "er4", "evaluation", evaluation("er4", "r4"))
    load_all(tmp_path)
    assert [e.evaluation_id for e in find_evaluations("smol-4bit-r1-s42")] == ["e4", "er4"]
    text = printed("smol-4bit-r1-s42", None, None)
    assert "s42 on test" in text and "s42 (random weights) on test" in text


def test_the_corpus_benchmark_shows_random_weights_beside_the_real_model(landed, tmp_path):
    write_landing(tmp_path, "r4", "training", training("r4", day=9, random_weights=True))
    write_landing(tmp_path, "er4", "evaluation", evaluation("er4", "r4", created_at=datetime(2026, 3, 1)))
    load_all(tmp_path)
    names = [name for name, _ in _models("set", "set")]
    assert len(names) == 2 and ["random weights" in name for name in names] == [False, True]


@pytest.mark.parametrize("other", [0.1, 0.27, 0.6])
def test_restated_figures_are_those_of_a_set_with_that_prevalence(other):
    """1,000 cases at the other prevalence, with the same recall and the same rate of false alarms."""
    hits, ed, alarms, rest = 45, 54, 30, 146
    precision, f2 = restated(hits / ed, hits / (hits + alarms), ed / (ed + rest), other)
    tp, fp, fn = 1000 * other * hits / ed, 1000 * (1 - other) * alarms / rest, 1000 * other * (1 - hits / ed)
    assert precision == pytest.approx(tp / (tp + fp)) and f2 == pytest.approx(5 * tp / (5 * tp + 4 * fn + fp))


def test_without_a_precision_nothing_is_restated_and_the_leaderboard_names_the_share(landed):
    assert restated(0.0, None, 0.2, 0.1) == (None, None)
    assert "of 57% ED" in leaderboard()["ED precision"][0] and "of 10% ED" in leaderboard(None, 0.1)["ED precision"][0]
