"""`triage status`: results beside the states, and failed runs only while nothing replaced them."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

from rich.console import Console

from flows.cli.status import print_status, status, watch_status
from tasks.runtime.events import TrainingReport
from tasks.runtime.home import home
from tasks.runtime.locks import locked
from tasks.tuning.rows import reporting_to
from tests.place import shown
from tests.warehouse.rows import land_arm, land_trainings
from warehouse.load import load_all


def printed(everything: bool = False) -> str:
    return shown(print_status, everything)


def rows(text: str) -> list[list[str]]:
    """The cells of the table's rows, which two spaces part; a title and the head are above them."""
    lines = text.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("experiment"))
    return [re.split(r"\s{2,}", line.strip()) for line in lines[head + 1 :] if "not listed" not in line]


def names(text: str) -> list[str]:
    return [cells[0] for cells in rows(text)]


def test_trainings_of_one_cell_keep_what_tells_them_apart(tmp_path):
    ids = [f"tiny-4bit-safe-s42-{digit * 12}" for digit in "ab"]
    land_trainings(tmp_path, *((id, number, {"cell_id": "tiny-4bit-safe-s42"}) for number, id in enumerate(ids)))
    assert sorted(names(printed())) == ids


def test_a_failed_run_is_left_out_once_other_settings_of_its_own_cell_have_landed(tmp_path):
    failed = ("old", 1, {"status": "failed", "error": "The disk was full."})
    land_trainings(tmp_path, failed, ("of-another-cell", 2, {"bits": 8}))
    assert sorted(names(printed())) == ["of-another-cell", "old"]
    land_trainings(tmp_path, ("new", 3, {}))
    text = printed()
    assert sorted(names(text)) == ["new", "of-another-cell"]
    assert "1 failed run of earlier settings not listed: triage status --all" in text
    assert sorted(names(printed(everything=True))) == ["new", "of-another-cell", "old"]
    land_trainings(tmp_path, ("newest", 4, {"status": "diverged", "error": "NaN."}))
    assert sorted(names(printed())) == ["new", "newest", "of-another-cell"], "the last failure stands"


def test_json_has_an_object_per_experiment_and_the_report_of_a_running_training(tmp_path, capsys, monkeypatch):
    land_arm(tmp_path, "4")
    load_all(tmp_path)
    running = home() / "experiments" / "running"
    running.mkdir(parents=True)
    report = TrainingReport(iteration=4, split="train", iterations=9, loss=0.5, tokens_per_second=8.0, seconds_left=3.0)
    reporting_to(running, lambda event: None)(report)

    (running / "spec.json").write_text(json.dumps({"args": {"variant": "random"}}))
    monkeypatch.setattr("flows.cli.status.has_random_weights", lambda folder: folder == Path("random"))

    with locked(running):
        status(as_json=True)
        assert "4 of 9, loss 0.500, 3 s left" in printed()

    (cells,) = (row for row in rows(printed()) if row[0] == "t4")
    assert cells[1] == "completed"
    assert cells[2].startswith("1.00 [") and cells[2].endswith("] of 2 ED"), "of its emergencies, not of its 5 cases"
    local, landed = json.loads(capsys.readouterr().out)
    assert local["training"] == "running" and local["running"]["iteration"] == 4 and local["gates"] is None
    assert local["random_weights"] is True
    assert landed["experiment"] == "t4" and landed["warehouse"] == "completed" and landed["ed_recall"] == 1.0
    assert landed["test_cases"] == 5 and landed["random_weights"] is False
    assert "not finished" in printed(), "its process has ended"


def test_json_calls_unsafe_what_the_table_calls_unsafe_and_nothing_else(tmp_path, capsys):
    cases = {
        "not judged: no ED case": ("GP", "GP", "GP"),
        "not judged: emergencies only": ("ED", "ED", "ED"),
        "unsafe": ("ED", "GP", "GP"),
    }
    for number, case in enumerate(cases.values()):
        land_arm(tmp_path, str(number), cases=[case] * 5, cell_id=f"cell{number}")
    load_all(tmp_path)
    status(as_json=True)
    in_json = {line["experiment"]: line["gates"] for line in json.loads(capsys.readouterr().out)}
    assert in_json == dict(zip(("t0", "t1", "t2"), cases, strict=True))
    assert in_json == {name: gates for name, *_, gates in rows(printed())}


def test_a_watched_table_shows_what_runs_first(tmp_path, monkeypatch):
    land_trainings(tmp_path, ("a", 0, {}), ("b", 1, {}))
    running = home() / "experiments" / "c"
    running.mkdir(parents=True)
    report = TrainingReport(iteration=4, split="train", iterations=9, loss=0.5, tokens_per_second=8.0, seconds_left=3.0)
    reporting_to(running, lambda event: None)(report)

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    console = Console(file=io.StringIO(), width=100, height=40, force_terminal=True, color_system=None)
    with locked(running):
        watch_status(console, show_all=False, as_json=False)
    lines = [line for line in console.file.getvalue().splitlines() if line[:2] in ("a ", "b ", "c ")]
    assert [line[0] for line in lines[:3]] == ["c", "a", "b"]
