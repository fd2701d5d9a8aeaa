"""Bad input through the real command: exit code 2, one sentence on standard error, nothing half-made."""

import os
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import typer

from flows.cli.main import COMMANDS, app
from flows.experiment import experiment
from flows.sweep import sweep
from tasks.grids.grid import GRIDS
from tests.place import PATIENT, Place, one_sentence, process_environments, without_server

HEAD = "text,label\n"
GOOD = "".join(
    f"{text} number {i},{label}\n"
    for label, text in (("ED", "crushing pain"), ("GP", "an itch"), ("HOME", "a cold"))
    for i in range(12)
)
HUB_ONLY = """
name = "far"
models = ["far-away"]
bits = [4]
[[base_model]]
name = "far-away"
licence = "none"
[[base_model.sources]]
kind = "hub"
repo = "nobody/far-away"
[[recipe]]
name = "r"
kind = "standard"
learning_rate = 1e-3
batch_size = 4
rank = 4
scale = 20
dropout = 0.0
iterations = 2
"""
# What is typed, and what the sentence must hold. FILE stands for the bad file, which each case may write.
GRID = {
    "unknown grid": (["sweep", "demoo"], ["no grid 'demoo'", "demo, paper, smoke, study, study_gemma, tuned"]),
    "unknown key": (["sweep", "smoke", "--set", "training.layers=3"], ["--set training.layers=3", "num_layers"]),
    "unknown model": (["sweep", "smoke", "--model", "gpt"], ["--model gpt", "smollm2-135m"]),
    "unknown recipe": (["sweep", "smoke", "--recipe", "best"], ["no recipe best", "balanced_safe"]),
    "unknown bits": (["sweep", "smoke", "--bits", "5"], ["no bits 5", "4, 8"]),
    "bits are numbers": (["sweep", "smoke", "--bits", "abc"], ["--bits", "integer"]),
    "unknown option": (["sweep", "smoke", "--modle", "x"], ["--modle"]),
    "unfit group size": (
        ["sweep", "demo", "--set", "training.group_size=128", "--plan"],
        ["training.group_size = 128 does not fit smollm2-135m", "rows of 576 values", "Choose 64 or 32"],
    ),
    "nothing to do": (["sweep", "smoke", "--limit", "0"], ["--limit 0"]),
    "no form": (["sweep", "smoke", "--set", "layers"], ["not of the form key=value"]),
    "memory": (
        ["sweep", "demo", "--memory", "-4GB", "--plan"],
        ["triage: --memory: '-4GB' is not a number of bytes such"],
    ),
    "unquoted path": (
        ["data", "check", "my", "cases.csv"],
        ["(cases.csv); put quotes around a path with spaces"],
    ),
    "unquoted query": (["sql", "FROM", "leaderboard"], ["(leaderboard); put quotes around the whole query"]),
    "text as arguments": (
        ["predict", "x", "-", "my", "wombat"],
        ["A text is not given as an argument: write - and give it on standard input, or name a file with --file."],
    ),
    "a word too many": (["compare", "a", "b"], ["argument (b); it is triage compare [OPTIONS] [study]"]),
    "a long word and one too many": (["status", "a" * 300, "b"], ["it is triage status [OPTIONS]"]),
    "a command that left": (
        ["forget", "clinic", "--yes"],
        ["triage forget has left: triage data forget DATA does it."],
    ),
    "two words of it": (["cache", "explain", "a"], ["triage cache explain has left: ingredients.json"]),
    "unknown command": (["frobnicate"], ["No such command 'frobnicate'; see triage -h"]),
    "missing argument": (["warehouse", "forget"], ["Missing argument 'study'; see triage warehouse forget -h"]),
    "no such choice": (["best", "--by", "size"], ["'--by': 'size' is not one of 'ed-recall', 'macro-f1'"]),
    "folder as grid": (["sweep", ".", "--plan"], ["'.' is a folder where a grid is expected"]),
    "plan of no cases": (
        ["sweep", "smoke", "--plan", "--set", "data.source=nowhere.csv"],
        ["There is no file or folder 'nowhere.csv'", "correct the path"],
    ),
    "plan of an address": (
        ["sweep", "smoke", "--plan", "--set", "data.source=https://example.org/a.csv"],
        ["Addresses are not read; download it first"],
    ),
    "other label": (["data", "check", "a.csv", "--label", "ED=HOME"], ["maps 'ED' to HOME", "the label ED itself"]),
    "label twice": (["data", "check", "a.csv", "--label", "x=ED", "--label", "x=GP"], ["maps 'x' to ED and to GP"]),
    "revision": (["data", "check", "a.csv", "--revision", "v1"], ["revision (--revision) is for datasets on the Hub"]),
    "long name": (["init", "n" * 300], ["cannot be written (File name too long)", "choose another folder"]),
    "brackets are shown": (["sweep", "smoke", "--set", "seeds=[x]"], ['seeds = "[x]" is not allowed']),
}
DATA = {
    "missing column": (b"words,label\nhello,ED\n", ["FILE, line 2", "no column 'text'", "'words', 'label'"]),
    "unknown label": ((HEAD + GOOD + "a fall,MAYBE\n").encode(), ["FILE, line 38", "'MAYBE'", "[data.labels]"]),
    "empty text": ((HEAD + GOOD + "  ,ED\n").encode(), ["FILE, line 38", "empty"]),
    "no label": ((HEAD + "a fall,\n").encode(), ["FILE, line 2", "no label"]),
    "contradiction": ((HEAD + GOOD + "a cold number 3,ED\n").encode(), ["FILE, line 38", "labelled ED", "line 29", "HOME"]),
    "not text": (b"\x00\x01\x02", ["FILE, line 1", "NUL"]),
    "not UTF-8": (b"text,label\ncaf\xe9,ED\n", ["FILE, line 2", "UTF-8"]),
    "empty": (b"", ["FILE is empty"]),
    "only a head": (HEAD.encode(), ["FILE holds no cases"]),
    "one class": ((HEAD + "".join(f"pain {i},ED\n" for i in range(30))).encode(), ["FILE", "no case labelled GP"]),
    "too few fields": ((HEAD + "a fall\n").encode(), ["FILE, line 2", "1 field where the header has"]),
}  # fmt: skip
EARLY = {
    "select": (["sql", "SELECT 1"], ["no warehouse yet", "triage sweep demo"]),
    "compare": (["compare"], ["no warehouse yet", "triage sweep demo"]),
}

# A sweep starts Prefect's server while it reads the cases, which takes most of the time until it refuses them.
WITH_SERVER = ("missing column", "no such file")


def answer(folder, name, args):
    """What the command says: as it is, or, of the many files of cases, without the server."""
    place = Place(folder, is_new=True)
    if name in WITH_SERVER:
        return place.run(*args)
    return place.ask(*args) if name in GRID | EARLY else place.ask(*args, program=without_server)


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Every command above, each in a folder of its own, two at a time."""
    root = tmp_path_factory.mktemp("bad")
    commands: dict[str, list[str]] = {}
    for name, (args, _) in (GRID | EARLY).items():
        commands[name] = args

    for name, (content, _) in DATA.items():
        path = root / f"{name}.csv"
        path.write_bytes(content)
        commands[name] = ["sweep", "smoke", "--set", f"data.source={path}"]

    commands["no such file"] = ["sweep", "smoke", "--set", f"data.source={root / 'nowhere.csv'}"]
    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(lambda item: answer(root / item[0].replace(" ", "-"), *item), commands.items())
    return root, dict(zip(commands, runs, strict=True))


@pytest.mark.parametrize("name", [*GRID, *EARLY, *DATA])
def test_bad_input_is_one_sentence_and_exit_code_two(name, answers):
    root, runs = answers
    parts = (GRID | EARLY | DATA)[name][1]
    assert one_sentence(runs[name].stderr), runs[name].stderr
    assert [p for p in parts if p.replace("FILE", str(root / f"{name}.csv")) not in runs[name].stderr] == []
    assert (runs[name].returncode, runs[name].stdout) == (2, "")


def test_words_that_may_be_a_patients_are_not_repeated(answers):
    assert "wombat" not in answers[1]["text as arguments"].stderr


@pytest.mark.parametrize("name", [*GRID, *EARLY, *DATA, "no such file"])
def test_after_bad_input_nothing_is_half_written(name, answers):
    home = answers[0] / name.replace(" ", "-") / "home"
    assert [p for p in home.rglob("*") if p.is_file()] == [] if home.exists() else True


def test_an_unreadable_file_is_named_with_the_reason(answers):
    root, runs = answers
    assert one_sentence(runs["no such file"].stderr) and runs["no such file"].returncode == 2
    assert f"{root / 'nowhere.csv'} cannot be read (No such file" in runs["no such file"].stderr


def test_a_mistake_in_a_users_own_grid_names_its_line(place):
    place.folder.mkdir()
    grid = place.folder / "mine.toml"
    grid.write_text(HUB_ONLY.replace("rank = 4", "rank = 0"))
    result = place.ask("sweep", str(grid))
    line = grid.read_text().split("rank")[0].count("\n") + 1
    assert result.returncode == 2 and f"mine.toml, line {line}: recipe[1].rank = 0" in result.stderr


def test_a_bad_row_of_a_parquet_file_is_named(place):
    place.folder.mkdir()
    path = place.folder / "cases.parquet"
    pd.DataFrame({"text": ["a", "b"], "label": ["ED", "sometimes"]}).to_parquet(path)
    result = place.ask("sweep", "smoke", "--set", f"data.source={path}", program=without_server)
    assert result.returncode == 2 and one_sentence(result.stderr) and f"{path}, row 2" in result.stderr


@pytest.fixture
def closed_port():
    """A port on which nobody listens, and which nobody else gets meanwhile."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]


def test_without_network_and_package_the_reasons_come_within_seconds(place, closed_port):
    place.folder.mkdir()
    grid = place.folder / "far.toml"
    grid.write_text(HUB_ONLY)
    place.command = ("-c", PATIENT + "from flows.cli.main import main; main()")
    result = place.run(
        "sweep", str(grid), HF_ENDPOINT=f"http://127.0.0.1:{closed_port}", HF_HOME=str(place.folder / "hf")
    )
    assert result.returncode == 2 and one_sentence(result.stderr), result.stderr
    assert "No weights are available (far-away: Hub nobody/far-away@main: the Hub cannot be reached" in result.stderr
    assert not (place.home / "experiments").exists() and not (place.home / "sources").exists()


def test_a_server_that_does_not_answer_is_a_sentence_before_anything_is_done(place, closed_port):
    url = f"http://127.0.0.1:{closed_port}/api"
    place.is_new = True
    result = place.run("sweep", "smoke", "--limit", "1", PREFECT_API_URL=url)
    assert result.returncode == 2 and one_sentence(result.stderr), result.stderr
    assert f"no server answers at {url}" in result.stderr and "unset PREFECT_API_URL" in result.stderr
    assert not (place.home / "experiments").exists() and not place.warehouse.exists()


def test_the_paper_plan_lists_sixty_cells_before_any_download(place, closed_port):
    dead = f"http://127.0.0.1:{closed_port}"
    result = place.run(
        "sweep", "paper", "--plan", HF_ENDPOINT=dead, PIP_INDEX_URL=f"{dead}/simple", HF_HOME=str(place.folder / "hf")
    )
    assert result.returncode == 0 and result.stderr == ""
    ids = [word for word in result.stdout.split() if word.endswith("-s42")]
    assert len(ids) == len(set(ids)) == 60 and "60 experiments, 0 trained, 60 to train" in result.stdout

    for name in ("smollm2-135m", "smollm2-360m", "gemma-3-270m"):
        assert f"weights  {name}: Hub " in result.stdout

    assert not place.home.exists(), "a plan writes nothing"


def test_status_before_any_sweep_says_what_to_type(place):
    result = place.ask("status")
    assert result.returncode == 0 and result.stdout == "Nothing has run yet. Next: triage sweep demo\n"


@pytest.mark.parametrize("blocked", ["file", "file below", "too long"])
def test_a_home_that_cannot_be_one_is_a_sentence(blocked, place):
    place.folder.mkdir()
    (place.folder / "home").write_text("a file")
    home = {"file": place.home, "file below": place.home / "deeper", "too long": place.folder / ("h" * 300)}[blocked]
    result = place.run("sweep", "smoke", TRIAGE_HOME=str(home))
    assert result.returncode == 2 and one_sentence(result.stderr) and "TRIAGE_HOME" in result.stderr, result.stderr
    environments = [environment for _, environment in process_environments()]
    assert str(home) not in str(environments), "no server of it is left"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_that_may_not_be_written_is_a_sentence(place):
    place.home.mkdir(parents=True)
    place.home.chmod(0o500)
    result = place.run("sweep", "smoke")
    assert result.returncode == 2 and one_sentence(result.stderr)


def test_wherever_a_grid_is_asked_for_all_built_in_ones_are_named(place):
    names = {path.stem for path in GRIDS.glob("*.toml")}
    form = [flow.parameters.properties["grid"]["description"] for flow in (sweep, experiment)]
    for text in (place.ask("sweep", "--help").stdout, *form):
        assert names - set(re.findall(r"\w+", text)) == set()


def test_help_lists_every_command_with_the_first_sentence_of_its_own_help(place):
    listed = " ".join(place.run("--help", COLUMNS="300").stdout.replace("│", "").split())
    group = typer.main.get_command(app)
    for name, line in COMMANDS.items():
        command = group.resolve_command(typer.Context(group), [name])[1]
        assert f" {name} {line}" in listed and " ".join(command.help.split()).startswith(line)
