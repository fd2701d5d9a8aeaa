"""How far a running training is, as another program reads it from the training's folder."""

from __future__ import annotations

from tasks.runtime.events import ProgressReport, TrainingReport, ValidationReport
from tasks.runtime.locks import is_locked, locked
from tasks.tuning.rows import FILE, Reported, reporting_to

TRAINING = TrainingReport(
    iteration=40, split="train", iterations=120, loss=0.5, tokens_per_second=800.0, seconds_left=300.0
)
VALIDATION = ValidationReport(iteration=40, split="valid", loss=0.9, always_ed=False)


def test_the_last_reports_of_a_running_training_can_be_read_and_a_stopped_or_earlier_ones_cannot(tmp_path):
    events = []
    emit = reporting_to(tmp_path / "t", events.append)
    emit(ProgressReport("frozen prefix", 1, 2))

    with locked(tmp_path / "t"):
        assert Reported.of_running(tmp_path / "t") is None
        emit(TRAINING)
        emit(VALIDATION)
        expected = Reported(iteration=40, iterations=120, loss=0.5, validation=0.9, seconds_left=300.0)
        assert Reported.of_running(tmp_path / "t") == expected
        (tmp_path / "t" / FILE).write_text("{")
        assert Reported.of_running(tmp_path / "t") is None, "a damaged file is no reason to fail"

    assert not is_locked(tmp_path / "t") and Reported.of_running(tmp_path / "t") is None
    assert len(events) == 3, "the display gets every event"
    reporting_to(tmp_path / "t", events.append)
    assert not (tmp_path / "t" / FILE).exists()
