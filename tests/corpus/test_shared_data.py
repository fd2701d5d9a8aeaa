"""Three public sets in the folder `shared/data` beside the repository, where there is one: they pass the check as they are."""

from pathlib import Path

import pytest

from tasks.corpus.check import check_data
from tasks.corpus.prepare import prepare_dataset
from tasks.runtime.store import read_manifest
from tasks.spec import Data, EvaluationSet

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"
FILES = {"clinicaflow224": 224, "nursesim160": 160, "stcc_cases": 57}
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="there is no shared/data beside the repository")
LIMITS = {"train": 48, "valid": 12, "calibration": 24, "test": 24}


def test_the_public_sets_pass_the_check_and_stand_beside_the_embedded_cases(tmp_path):
    for name, cases in FILES.items():
        report = check_data(Data(source=str(FOLDER / f"{name}.jsonl")), (), {})
        assert not report.fails and report.sets[0].rows == cases

    evaluation_sets = [
        EvaluationSet(name=name.replace("_", "-"), source=str(FOLDER / f"{name}.jsonl")) for name in FILES
    ]
    data = Data.model_validate({"limits": LIMITS})
    assert not check_data(data, evaluation_sets, {}).fails
    manifest = read_manifest(prepare_dataset(data, tmp_path, evaluation_sets)) or {}
    matches = {name: manifest["sets"][name.replace("_", "-")] for name in FILES}
    assert {name: entry["cases"] for name, entry in matches.items()} == FILES
    assert all(entry["external"] for entry in matches.values())
