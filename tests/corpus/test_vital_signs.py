"""Vital signs in words: what is read as one, by which ranges, and that model and linear baseline read the same."""

import re
import subprocess
import sys
from dataclasses import replace

from tasks.corpus import vital_signs
from tasks.corpus.case import Case
from tasks.corpus.prompts import load_prompt
from tasks.corpus.vital_signs import with_vital_signs
from tasks.scoring.baselines import LINEAR, dataset_baseline_id, dataset_baseline_rows
from tasks.spec import PromptChoice, Scoring
from tests.scoring.test_linear import DATASET, write_sets

# From 16 years on NEWS2, of children PALS: each limit of a range, and the number beyond it, each with its meaning.
MEANINGS = (
    (
        "Adult. RR 8 (very low), RR 9 (slightly low), RR 11 (slightly low), RR 12 (normal), RR 20 (normal), "
        "RR 21 (high), RR 24 (high), RR 25 (very high)"
    ),
    (
        "I am 70. SpO2 91 % (very low), SpO2 92 % (low), SpO2 93 % (low), SpO2 94 % (slightly low), "
        "SpO2 95 % (slightly low), SpO2 96 % (normal)"
    ),
    (
        "BP 90/60 (very low), BP 91/60 (low), BP 100/60 (low), BP 101/60 (slightly low), BP 110/60 (slightly low), "
        "BP 111/60 (normal), BP 219/90 (normal), BP 220/90 (very high)"
    ),
    (
        "HR 40 (very low), HR 41 (slightly low), HR 50 (slightly low), HR 51 (normal), HR 90 (normal), "
        "HR 91 (slightly high), HR 110 (slightly high), HR 111 (high), HR 130 (high), HR 131 (very high)"
    ),
    (
        "T 35.0 (very low), T 35.1 (slightly low), T 36.0 (slightly low), T 36.1 (normal), T 38.0 (normal), "
        "T 38.1 (slightly high), T 39.0 (slightly high), T 39.1 (high)"
    ),
    (
        "9/12 F, RR 29 (low), RR 30 (normal), RR 53 (normal), RR 54 (high), HR 99 (low), HR 190 (normal), "
        "HR 191 (high), BP 69/40 (low), BP 70/40 (normal), T 39.1 (high)"
    ),
    "my daughter, 2. Pulse is 97 (low), pulse is 140 (normal), pulse is 141 (high)",
    ("our boy, 4 years old, breathing rate 28 (normal), 29 breaths a minute (high), BP 77/50 (low), BP 78/50 (normal)"),
    "He is 11 y/o, RR 25 (normal), RR 26 (high), HR 118 (normal), HR 119 (high), BP 89/60 (low)",
    "14M, RR 20 (normal), RR 21 (high), HR 100 (normal), HR 101 (high)",
    "The thermometer says 100.4 F (normal) and then 37.9; temperature is 104 F (high)",
    "The cuff shows 84 over 50 (very low), pulse 124 (high)",
    "The finger oximeter shows 88 % (very low)",
    "My baby has HR 150 and RR 40, and SpO2 97 % (normal)",
)


def test_each_vital_sign_has_its_meaning_behind_it():
    for text in MEANINGS:
        assert with_vital_signs(re.sub(r" \([a-z ]+\)", "", text)) == text


def test_what_is_no_reading_of_a_person_stays_as_it_is():
    for text in (
        "I have a cough, 7/10, since 12/03, and my pulse is calm.",
        "My blood pressure tablets are 90 mg. T 25.0, HR 900, RR 2, SpO2 12 %, BP 30/20.",
        "I am 40 weeks along and 120 over the moon.",
    ):
        assert with_vital_signs(text) == text


def test_the_model_the_copy_in_an_export_and_the_linear_baseline_read_the_same_words(tmp_path):
    text = "I am 30. SpO2 91 %."
    plain, in_words = (load_prompt(PromptChoice(vital_signs=choice)) for choice in (False, True))
    assert plain.digest == load_prompt().digest != in_words.digest
    assert in_words.messages(text)[-1]["content"] == "I am 30. SpO2 91 % (very low)."
    assert "SpO2 91 % (very low)." in in_words.plain_text(text) and text in plain.plain_text(text)
    copy = subprocess.run([sys.executable, vital_signs.__file__], input=f"{text}\n", capture_output=True, text=True)
    assert copy.stdout == f"{with_vital_signs(text)}\n"

    cases = [
        Case(f"{label}-{number}", f"I am 30. HR {number}.", label, f"{label}-{number}")
        for label, first in (("ED", 131), ("GP", 91), ("HOME", 51))
        for number in range(first, first + 10)
    ]
    for name in ("train", "valid", "calibration", "test"):
        write_sets(
            tmp_path,
            **{name: [replace(case, case_id=f"{name}-{case.case_id}", text=f"{case.text} {name}") for case in cases]},
        )
    columns = [
        [row["p_ed"] for row in rows["test"]["prediction"]]
        for rows in (
            dataset_baseline_rows(LINEAR, {"test": "id"}, Scoring(), tmp_path, DATASET, signs)
            for signs in (False, True)
        )
    ]
    assert columns[0] != columns[1]
    assert dataset_baseline_id(LINEAR, DATASET, True) != dataset_baseline_id(LINEAR, DATASET)
