"""`triage` itself: bad input, standard output that cannot be written, Ctrl-C, and which libraries a command loads."""

import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import typer

from flows.cli.main import COMMANDS, app, main
from tests.place import ROOT, Place, one_sentence, patiently, process_environments, refusal, unmeasured, without_server
from tests.search.spaces import grid_text
from tests.warehouse.rows import land_arm
from warehouse.load import load_all

HEAD = "text,label\n"
GOOD = "".join(
    f"{text} number {i},{label}\n"
    for label, text in (("ED", "crushing pain"), ("GP", "an itch"), ("HOME", "a cold"))
    for i in range(12)
)
FAR_AWAY = """
[[base_model]]
name = "far-away"
licence = "none"
[[base_model.sources]]
kind = "hub"
repo = "nobody/far-away"
"""
# What is typed, and what the sentence must hold.
TYPED = {
    "unknown grid": (
        ["sweep", "demoo"],
        ["no grid 'demoo'", "demo, paper, registered, smoke, study, study_gemma, tuned"],
    ),
    "bits are numbers": (["sweep", "smoke", "--bits", "abc"], ["--bits", "integer"]),
    "unknown option": (["sweep", "smoke", "--modle", "x"], ["--modle"]),
    "memory": (["sweep", "demo", "--memory", "-4GB", "--plan"], ["training.memory", "'-4GB' is not a number of bytes"]),
    "unquoted path": (["data", "check", "my", "cases.csv"], ["(cases.csv)", "quotes", "path with spaces"]),
    "unquoted query": (["sql", "FROM", "leaderboard"], ["(leaderboard)", "quotes around a query"]),
    "text as arguments": (["predict", "x", "-", "my", "wombat"], ["A text is not given as an argument: write - and"]),
    "a word too many": (["compare", "a", "b"], ["(b)", "see triage compare -h"]),
    "unknown command": (["frobnicate"], ["No such command 'frobnicate'; see triage -h"]),
    "missing argument": (["warehouse", "forget"], ["Missing argument 'study'; see triage warehouse forget -h"]),
    "no such choice": (["best", "--by", "size"], ["'--by': 'size' is not one of 'ed-recall', 'macro-f1'"]),
    "other label": (["data", "check", "a.csv", "--label", "ED=HOME"], ["'ED' to HOME", "remove one of the two"]),
    "revision": (["data", "check", "a.csv", "--revision", "v1"], ["revision (--revision) is for datasets on the Hub"]),
    "long name": (["init", "n" * 300], ["cannot be written (File name too long)", "choose another folder"]),
    "select before a sweep": (["sql", "SELECT 1"], ["no warehouse yet", "triage sweep demo"]),
    "brackets are shown": (["sweep", "smoke", "--set", "seeds=[x]"], ['seeds = "[x]" is not allowed']),
}
# The content of the file a.csv, and what the sentence of a sweep of it must hold.
DATA = {
    "missing column": (b"words,label\nhello,ED\n", ["a.csv, line 2", "'text'", "'words', 'label'"]),
    "unknown label": ((HEAD + GOOD + "a fall,MAYBE\n").encode(), ["a.csv, line 38", "'maybe' (1)", '"maybe" = "?"']),
    "contradiction": ((HEAD + GOOD + "a cold number 3,ED\n").encode(), ["a.csv, line 38", "labelled ED", "line 29"]),
    "not text": (b"\x00\x01\x02", ["a.csv, line 1"]),
    "no such file": (None, ["a.csv", "correct the path"]),
}


@pytest.fixture
def refused(own_home, tmp_path, monkeypatch, capsys):
    """The sentence with which a command is refused, typed in a folder of its own; no file is half written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flows.cli.sweep.EarlyExit.start_server", lambda early_exit: None)

    def type_it(*args: str) -> str:
        files = set(tmp_path.rglob("*"))
        monkeypatch.setattr(sys, "argv", ["triage", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (2, "") and one_sentence(err), err
        assert [path for path in set(tmp_path.rglob("*")) - files if path.is_file() and path.suffix != ".lock"] == []
        return err

    return type_it


@pytest.mark.parametrize("name", TYPED | DATA)
def test_bad_input_is_one_sentence_and_exit_code_two_and_nothing_is_half_written(name, refused):
    args, parts = TYPED.get(name) or (
        ["sweep", "smoke", "--set", f"data.source={Path('a.csv').resolve()}"],
        DATA[name][1],
    )
    content = DATA.get(name, (None,))[0]
    if content is not None:
        Path("a.csv").write_bytes(content)
    sentence = refused(*args)
    assert [part for part in parts if part not in sentence] == []
    assert "wombat" not in sentence, "words that may be a patient's are not repeated"


def test_cases_that_are_refused_while_a_server_starts_leave_neither(place):
    place.folder.mkdir()
    (place.folder / "a.csv").write_bytes(DATA["missing column"][0])
    place.home.mkdir()  # it is not copied
    result = place.run("sweep", "smoke", "--set", "data.source=a.csv")
    assert refusal(result)
    assert [path for path in place.home.rglob("*") if path.is_file()] == []
    environments = [environment for _, environment in process_environments()]
    assert str(place.home) not in str(environments), "no server of it is left"


def test_without_network_and_package_the_reasons_come_within_seconds(place, port):
    place.folder.mkdir()
    grid = place.folder / "far.toml"
    grid.write_text(grid_text("", FAR_AWAY).replace("tiny-llama", "far-away"))
    hub = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(place.folder / "hf")}
    sentence = refusal(place.ask("sweep", str(grid), program=partial(patiently, without_server), **hub))
    assert "No weights are available (far-away: Hub nobody/far-away@main: the Hub cannot be reached" in sentence
    assert not (place.home / "experiments").exists() and not (place.home / "sources").exists()


def test_a_server_that_does_not_answer_is_a_sentence_before_anything_is_done(place, port):
    """Where a profile names it; for a variable see test_doctor.py."""
    url = f"http://127.0.0.1:{port}/api"
    profile = place.folder / "own" / "profiles.toml"
    profile.parent.mkdir(parents=True)
    profile.write_text(f'active = "own"\n[profiles.own]\nPREFECT_API_URL = "{url}"\n')
    sentence = refusal(place.ask("sweep", "smoke", "--limit", "1", PREFECT_HOME=str(profile.parent)))
    assert f"No Prefect server answers at {url}" in sentence and "unset PREFECT_API_URL" in sentence
    assert not (place.home / "experiments").exists() and not place.warehouse.exists()


def test_the_paper_plan_lists_sixty_cells_before_any_download(place, port):
    dead = f"http://127.0.0.1:{port}"
    networks = {"HF_ENDPOINT": dead, "PIP_INDEX_URL": f"{dead}/simple", "HF_HOME": str(place.folder / "hf")}
    result = place.ask("sweep", "paper", "--plan", program=unmeasured, **networks)
    assert (result.returncode, result.stderr) == (0, "")
    ids = [word for word in result.stdout.split() if word.endswith("-s42")]
    assert len(ids) == len(set(ids)) == 60 and "60 experiments, 0 trained, 60 to train" in result.stdout
    for name in ("smollm2-135m", "smollm2-360m", "gemma-3-270m"):
        assert f"weights  {name}: Hub " in result.stdout
    assert not place.home.exists(), "a plan writes nothing"
    status = place.ask("status")
    assert (status.returncode, status.stdout) == (0, "Nothing has run yet. Next: triage sweep demo\n")


@pytest.mark.parametrize("home", ["file", "file/deeper", "h" * 300])
def test_a_home_that_cannot_be_one_is_a_sentence(home, refused, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("a file")
    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / home))
    assert "TRIAGE_HOME" in refused("sweep", "smoke")


def test_help_lists_every_command_with_the_first_sentence_of_its_own_help(place):
    listed = " ".join(place.run("--help", COLUMNS="300").stdout.replace("│", "").split())
    group = typer.main.get_command(app)
    for name, line in COMMANDS.items():
        command = group.resolve_command(typer.Context(group), [name])[1]
        assert f" {name} {line}" in listed and " ".join(command.help.split()).startswith(line)


# --- Standard output that cannot be written ------------------------------------------------------

FULL = Path("/dev/full")  # a device that has no room


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A place whose warehouse holds one evaluation."""
    place = Place(tmp_path_factory.mktemp("small") / "place")
    land_arm(place.home / "landing", "4")
    load_all(place.home / "landing", place.warehouse)
    return place


def written(place: Place, command: tuple[str, ...], stdout: object, **environment: str) -> tuple[int, str | None, str]:
    result = subprocess.run(
        [sys.executable, *command], cwd=place.folder, env=place.environment | environment,
        stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    return result.returncode, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("args", "unbuffered"), [(("sql", "SELECT 1", "--format", "csv"), ""), (("status", "--json"), "1")]
)
def test_a_standard_output_that_takes_nothing_is_a_sentence(args, unbuffered, small):
    if not FULL.exists():
        pytest.skip("this system has no full device")
    with FULL.open("w") as out:
        code, _, err = written(small, (*small.command, *args), out, PYTHONUNBUFFERED=unbuffered)
    assert code == 2 and one_sentence(err)
    assert err.startswith("triage: The disk is full: standard output could not be written; free some space")


def test_a_character_that_standard_output_does_not_have_is_a_sentence(small):
    command = (*small.command, "sql", "SELECT 'a\u0142b' AS a", "--format", "csv")
    code, _, err = written(small, command, subprocess.PIPE, PYTHONIOENCODING="latin-1")
    assert code == 2 and one_sentence(err) and r"which has no '\u0142'; set PYTHONIOENCODING=utf-8" in err


def test_a_reader_that_has_gone_ends_a_command_without_a_word(small):
    reader, stdout = os.pipe()
    os.close(reader)
    with os.fdopen(stdout, "w") as pipe:
        answer = written(small, (*small.command, "status", "--json"), pipe, PYTHONUNBUFFERED="")
    assert answer == (1, None, "")


# --- Ctrl-C --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("module", "arguments"), [("typer", ["--help"]), ("pydantic", ["sweep", "smoke", "--plan"])])
def test_ctrl_c_while_modules_are_imported_is_a_sentence(module, arguments, tmp_path):
    interrupts = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    (tmp_path / f"{module}.py").write_text(interrupts)
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    result = subprocess.run(
        [sys.executable, "-P", "-c", "from flows.cli.start import main; main()", *arguments],
        env=os.environ | {"PYTHONPATH": path}, cwd=tmp_path, capture_output=True, text=True, timeout=50,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert (result.returncode, result.stderr.strip(), result.stdout) == (130, "triage: Interrupted.", "")


# --- Which libraries a command loads, on a warehouse with results in it ---------------------------

NEVER = {"prefect", "scipy", "pandas", "mlx", "mlx_lm", "transformers", "fastapi", "uvicorn", "prometheus_client"}
HEAVY = NEVER | {"duckdb", "pydantic", "numpy", "pyarrow"}
LOADED = """
import json, sys
from flows.cli.main import main
for line in sys.argv.pop().splitlines():
    sys.argv[1:] = line.split("|")
    print("# triage", line, flush=True)
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, line
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize(
    ("commands", "not_loaded"),
    [
        (["--help", "-h", "--version"], HEAVY),
        (["sweep|-h", "data|check|-h", "doctor|-h"], NEVER),
        (["sql|FROM leaderboard", "status", "gates|t4", "compare", "compare|--all"], NEVER),
    ],
)
def test_commands_that_answer_at_once_load_only_what_they_need(commands, not_loaded, small):
    place = Place(small.folder, ("-c", LOADED), is_new=True)
    result = place.run("\n".join(commands), DO_NOT_TRACK="0", PREFECT_SERVER_ANALYTICS_ENABLED="true")
    assert (result.returncode, result.stderr) == (0, "")
    *outputs, last = re.split("^# triage .*$", result.stdout, flags=re.MULTILINE)[1:]
    *last_lines, modules = last.splitlines()
    assert all(output.strip() for output in [*outputs, "".join(last_lines)])
    assert set(json.loads(modules)) & not_loaded == set()
    assert not place.prefect_home.exists(), "Prefect was not started, so it wrote no notice"


def test_a_shell_can_complete_the_commands(small):
    place = Place(small.folder, ("-c", "import sys; sys.argv[0] = 'triage'; from flows.cli.main import main; main()"))
    result = place.run(_TRIAGE_COMPLETE="complete_bash", COMP_WORDS="triage s", COMP_CWORD="1")
    assert result.stdout.split() == ["sweep", "search", "status", "serve", "sql"] and result.stderr == ""
