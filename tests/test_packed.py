"""The numbers of a Mac's path without a Mac: packed bfloat16 on the CPU, in a pytest of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKED = {"TRIAGE_BACKEND": "cpu-packed"}
JOB = "tests/scoring/test_job.py::"
SOME = [
    f"{JOB}test_the_adapter_loads_in_stock_mlx_lm_and_gives_the_same_label_probabilities",
    f"{JOB}test_the_validation_loss_of_a_training_is_stocks_over_the_conversation_as_its_template_writes_it",
    f"{JOB}test_the_test_loss_its_perplexity_and_the_loss_of_each_case_are_stocks",
    f"{JOB}test_twenty_passes_give_twenty_distinct_probability_vectors",
    f"{JOB}test_the_untuned_model_scores_as_a_fresh_adapter_does_and_through_the_same_prefix",
]


def run_tests(*names: str) -> None:
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", *names]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | PACKED, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:]


def test_scores_losses_and_dropout_passes_of_packed_bfloat16_are_stocks():
    run_tests(*SOME)


@pytest.mark.nightly
@pytest.mark.timeout(3000)
def test_engine_and_scoring_pass_on_packed_bfloat16():
    run_tests("tests/tuning", "tests/scoring")
