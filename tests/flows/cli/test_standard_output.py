"""Standard output that cannot be written: one sentence and exit code 2, whatever the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.cli.main import main
from flows.cli.predict import writing
from tasks.runtime.errors import BadInput
from tests.place import Place, one_sentence, with_empty_warehouse

FULL = Path("/dev/full")  # a device that has no room
NOT_FULL = (
    "triage: The disk is full: standard output could not be written; free some space and run the command again.\n"
)
UNFORESEEN = """
import flows.cli.main as main
@main.app.command()
def unforeseen() -> None:
    print("before")
    raise OSError(28, "No space left on device")  # on another file
main.main()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return with_empty_warehouse(tmp_path_factory.mktemp("small"))


def run(place: Place, command: tuple[str, ...], stdout: object, **environment: str):
    return subprocess.run(
        [sys.executable, *command],
        cwd=place.folder,
        env=place.environment | environment,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(not FULL.exists(), reason="this system has no full device")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "args",
    [
        ("sql", "SELECT 1"),
        ("sql", "SELECT 1", "--format", "csv"),
        ("status", "--json"),
        ("warehouse", "check"),
        ("--help",),
    ],
)
def test_a_full_standard_output_is_a_sentence(args, unbuffered, place):
    with FULL.open("w") as full:
        result = run(place, (*place.command, *args), full, PYTHONUNBUFFERED=unbuffered)
    assert (result.returncode, result.stderr) == (2, NOT_FULL)


@pytest.mark.skipif(not FULL.exists(), reason="this system has no full device")
def test_answers_of_predict_are_refused_in_the_same_words():
    with (
        FULL.open("w") as full,
        pytest.raises(BadInput, match=r"^The disk is full: standard output could not be written; "),
        writing(full, None),
    ):
        full.write("HOME")
        full.flush()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_another_refusal_of_standard_output_says_what_the_system_says(unbuffered, place):
    (place.folder / "out").touch()
    with (place.folder / "out").open() as for_reading:
        result = run(place, (*place.command, "status", "--json"), for_reading, PYTHONUNBUFFERED=unbuffered)
    assert result.returncode == 2 and one_sentence(result.stderr)
    assert "Standard output could not be written (Bad file descriptor); send it to a file" in result.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_character_that_standard_output_does_not_have_is_a_sentence(encoding, place):
    command = (*place.command, "sql", "SELECT 'a\u0142b' AS a", "--format", "csv")
    result = run(place, command, subprocess.PIPE, PYTHONIOENCODING=encoding)
    assert result.returncode == 2 and one_sentence(result.stderr)
    assert r"which has no '\u0142'; set PYTHONIOENCODING=utf-8" in result.stderr

    remedied = run(place, command, subprocess.PIPE, PYTHONIOENCODING="utf-8:backslashreplace")
    assert (remedied.returncode, remedied.stdout, remedied.stderr) == (0, "a\na\u0142b\n", "")


def test_a_reader_that_has_gone_ends_a_command_without_a_word(place):
    process = subprocess.Popen(
        [sys.executable, *place.command, "status", "--json"],
        cwd=place.folder,
        env=place.environment | {"PYTHONUNBUFFERED": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 1


def test_ctrl_c_during_a_long_wait_for_the_reader_of_the_end_is_an_interruption(monkeypatch, capsys):
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.cli.main.app", lambda standalone_mode: 0)
    monkeypatch.setattr("sys.stdout", SimpleNamespace(flush=interrupted))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130 and capsys.readouterr().err == "triage: Interrupted.\n"


def test_an_error_of_another_file_is_not_called_one_of_standard_output(place):
    result = run(place, ("-c", UNFORESEEN, "unforeseen"), subprocess.PIPE)
    assert result.returncode == 1 and "standard output" not in result.stderr
    assert result.stderr.endswith("OSError: [Errno 28] No space left on device\n") and "before" in result.stdout
