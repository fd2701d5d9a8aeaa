"""Every command, query, path and link in the READMEs works, and a README that lists files lists all of its folder."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from flows.cli.init import write_examples
from flows.cli.main import app
from flows.plan import assumed_speeds
from tests.place import ROOT, Place
from warehouse.query import query

FOLDERS = ("flows", "tasks", "deployments", "warehouse", ".github")
# The log of changes names what has gone.
PAGES = sorted(path for top in FOLDERS for path in (ROOT / top).rglob("*.md") if path.name != "CHANGELOG.md")
READMES = [ROOT / "README.md", *PAGES]
PROGRAMS = re.compile("triage|uv|pip|curl|xcode-select|apt-get|python|prefect|pre-commit|pytest|cd|export")

# Commands that do not run here, by how they begin, and the reason. A sweep runs with --plan, the others as they are.
EXCEPTIONS = {
    "curl -LsSf https://astral.sh/uv/install.sh": "needs the internet; run below with another `curl`",
    "xcode-select --install": "needs a Mac",
    "pip install uv": "needs the package index; the continuous integration begins with it",
    "uv sync": "needs the package index",
    "uv tool install pre-commit": "needs the package index",
    "pre-commit install": "changes the checkout; its hooks are the commands of tests/test_quality.py",
    "apt-get install": "needs root, and only Linux without MKL needs it",
    "uv run pytest": "is this test suite",
    "uv run ruff": "runs in tests/test_quality.py",
    "uv run mypy": "runs in tests/test_quality.py",
    "uv run python -m tests.bench.": "measures for minutes; tests/bench/test_benchmarks.py runs smaller ones",
    "uv run prefect deployment run": "needs a server with deployments; tests/flows/test_up.py runs them",
    "uv run python -m tests.published.": "writes into the checkout; tests/published compares what it wrote",
    "triage --install-completion": "writes into the configuration of the user's shell",
    "export PREFECT_": "sets a variable of the shell",
    "cd study": "moves within the shell; the commands run in that folder",
}
# Only parsed here (with --help, which still refuses an unknown option), and the reason.
PARSED = {
    "triage warehouse rebuild": "replaces the warehouse that tests share; tests/flows/cli/test_warehouse.py runs it",
    "triage warehouse forget": "removes results that tests share; tests/flows/cli/test_warehouse.py runs it",
    "triage warehouse merge": "needs another machine's folders; tests/warehouse/test_merge.py has them",
    "triage warehouse studies A B": "needs two studies; tests/flows/cli/test_warehouse.py has them",
    "triage report": "draws charts for seconds; tests/flows/report runs it",
    "triage search": "trains for a minute or more; tests/flows/test_search.py runs it",
    "triage best": "scores every model; tests/flows/test_best.py runs it",
    "triage predict": "reads standard input; tests/flows/test_predict.py gives it some",
    "triage export": "needs a trained model; tests/flows/test_export.py runs it",
    "triage data card": "reads every case for seconds; tests/corpus/test_check.py runs it",
    "triage data forget": "removes what tests share; tests/flows/cli/test_forget.py runs it",
    "triage serve": "serves until it is stopped; tests/flows/serve starts it",
    "triage up": "serves until it is stopped; tests/flows/test_up.py starts it",
    "triage doctor": "measures this machine and asks networks; tests/flows/cli/test_doctor.py",
    "uv run python -m tests": "takes minutes, or needs the models' weights; tests/bench runs smaller ones",
}
# Commands that a sentence names without their arguments, so that only their form is checked.
NAMES = ("triage sql", "triage init", "triage data check", "triage warehouse")
# What a reader puts in place of a name in capitals.
PLACEHOLDERS = {
    "EXPERIMENT": "tiny-llama-4bit-balanced_safe-s42",
    "DIR": "another",
    "NAME": "tiny-llama",
    "STUDY": "smoke",
    "GRID": "smoke",
}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(readme: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def code_spans(readme: Path) -> list[str]:
    """Texts between backquotes outside fenced blocks, on one line each."""
    prose = re.sub(r"^```.*?^```$", "", readme.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def commands(readme: Path) -> list[str]:
    """The shell commands that a README shows, in `sh` blocks and between backquotes, one by one."""
    lines = [line for block in blocks(readme, "sh") for line in block.splitlines()]
    parts = [part.strip() for line in [*lines, *code_spans(readme)] for part in line.split("&&")]
    parts = [part.removeprefix("~/.local/bin/") for part in parts]
    return [re.sub("^uv run triage", "triage", part) for part in parts if is_command(part)]


def is_command(text: str) -> bool:
    """A program of PROGRAMS with arguments; `triage` alone, or `uv run` in a sentence, is a name."""
    words = text.split()
    return len(words) > 1 and PROGRAMS.fullmatch(words[0]) and text not in ("uv run", "uv run triage")


COMMANDS = sorted({command for readme in READMES for command in commands(readme)})
RUN = [command for command in COMMANDS if not command.startswith(tuple(EXCEPTIONS))]
QUERIES = [
    pytest.param(sql, id=f"{named(readme)}-{number}")
    for readme in READMES
    for number, sql in enumerate(blocks(readme, "sql"))
]


@pytest.fixture(scope="module")
def study(smoke, tmp_path_factory) -> tuple[Place, Path]:
    """The finished smoke sweep, and a folder as `triage init` writes it, in which the commands are typed."""
    folder = tmp_path_factory.mktemp("readme") / "study"
    write_examples(folder)
    return smoke[0], folder


@pytest.mark.parametrize("command", RUN)
def test_a_command_of_a_readme_runs(command, study, monkeypatch, capsys):
    place, folder = study
    plan = "flows.cli.plan"
    monkeypatch.setattr(f"{plan}.availabilities", lambda models, home: {})  # asks networks
    monkeypatch.setattr(f"{plan}.this_machine", lambda: ("", assumed_speeds()))  # so does this
    place.use(monkeypatch)
    monkeypatch.chdir(folder)
    shutil.rmtree("another", ignore_errors=True)
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command)[1:]]
    if words[0] == "sweep":
        words.append("--plan")
    if command.startswith(tuple(PARSED)) or command in NAMES:
        words.append("--help")

    code = app(words, standalone_mode=False)

    assert not code and capsys.readouterr().out.strip()


def test_no_exception_is_for_a_command_that_no_readme_shows():
    reasons = [*EXCEPTIONS, *PARSED]
    assert [start for start in reasons if not any(command.startswith(start) for command in COMMANDS)] == []


@pytest.mark.parametrize("sql", QUERIES)
def test_a_query_of_a_readme_runs(sql, smoke):
    assert len(query(sql, database=smoke[0].warehouse).columns)


def test_the_first_commands_of_the_readme_need_neither_pip_nor_a_uv_that_the_shell_finds(tmp_path):
    """As on a fresh Mac: uv's installer is another here, which installs where the real one does."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "mkdir", "chmod", "cat"):
        (tools / name).symlink_to(str(shutil.which(name)))
    installer = "mkdir -p ~/.local/bin; echo '#!/bin/sh\necho uv $@' > ~/.local/bin/uv; chmod +x ~/.local/bin/uv"
    (tools / "curl").write_text(
        f"#!{tools}/sh\ntest $2 = https://astral.sh/uv/install.sh && cat <<'E'\n{installer}\nE\n"
    )
    (tools / "curl").chmod(0o755)
    environment = {"PATH": str(tools), "HOME": str(tmp_path)}
    script = blocks(ROOT / "README.md", "sh")[0]
    result = subprocess.run(["sh", "-ec", script], env=environment, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("uv run triage sweep demo\nuv run pytest\n", "")


def test_the_workflow_computes_on_each_macos_and_runs_only_what_there_is():
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    numbers, metal = (workflow["jobs"][name] for name in ("numbers", "metal"))
    assert numbers["runs-on"] == "${{ matrix.os }}" and numbers["env"]["UV_PYTHON"] == "${{ matrix.python }}"
    assert [job["env"]["TRIAGE_BACKEND"] for job in (numbers, metal)] == ["cpu", "metal"]
    assert metal["steps"][-1]["with"]["path"] in metal["steps"][-2]["run"], "the report is kept"

    steps = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    tested = [word for step in steps for word in step.split() if word.startswith("tests/")]
    assert {"tests/tuning", "tests/scoring"} <= {*tested} and all((ROOT / path).exists() for path in tested)
    assert "curl -LsSf https://astral.sh/uv/install.sh | sh" in steps


def test_the_readme_has_the_test_command_of_the_continuous_integration():
    command = "pip install uv && uv run pytest"
    places = ("README.md", ".ci/run", ".github/workflows/tests.yml")
    assert [name for name in places if command not in (ROOT / name).read_text(encoding="utf-8")] == []


# A path between backquotes: a folder (`views/`) or a file with the ending of a source.
A_PATH = re.compile(r"[\w.-]+(/[\w.-]+)*(/|\.(py|sql|toml|yaml|yml|json|md|csv))|\.ci/run")
# Files and folders of a reader, of a home or of a model.
ELSEWHERE = re.compile(
    r"\.triage/.*|flows/cli/NAME\.py|(data|sources|models|prefixes|experiments|landing|logs|prefect|reports|searches|valid|model|licences|machines)/"
    r"|my_\w+\.(csv|toml)|clinic_cases\.jsonl"
    r"|mac\.json|manifest\.json|ingredients\.json|best\.toml|training\.json|(bundle|prompt|adapter_config|config)\.json|example\.(py|mjs)|tokenizer\.json|grid\.toml|.*NN_\w+\.sql"
)


def wrong_paths(readme: Path) -> list[str]:
    paths = [span for span in code_spans(readme) if A_PATH.fullmatch(span) and not ELSEWHERE.fullmatch(span)]
    inside = [folder for folder in readme.parent.glob("*/") if not (folder / "README.md").exists()]
    places = (ROOT, readme.parent, readme.parent / "knowledge", *inside)
    return [path for path in paths if not any((place / path).exists() for place in places)]


def wrong_links(readme: Path) -> list[str]:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", readme.read_text(encoding="utf-8")) if "://" not in link]
    return [link for link in links if not leads_somewhere(readme, link)]


def leads_somewhere(readme: Path, link: str) -> bool:
    """The file exists and, after a #, has such a heading."""
    path, _, anchor = link.partition("#")
    target = readme.parent / path if path else readme
    if not target.is_file():
        return False

    headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
    return not anchor or anchor in [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


def not_for_zsh(readme: Path) -> list[str]:
    """The shell of a Mac takes a # within a line for an argument, and an unquoted bracket for a pattern of files."""
    lines = [line for block in blocks(readme, "sh") for line in block.splitlines()]
    unquoted = [re.sub(r"'[^']*'|\"[^\"]*\"", "", line) for line in lines]
    return [line for line in unquoted if re.search(r"#|[\[?*]", line)]


def files_left_out(readme: Path) -> list[str]:
    """Of a README that lists the files of its folder: another one leaves that to the files' first lines."""
    if readme.name != "README.md" or readme.parent == ROOT:
        return []
    text = readme.read_text(encoding="utf-8")
    files = [path.name for path in readme.parent.glob("*.py") if not path.name.startswith("__")]
    missing = [name for name in files if f"`{name}`" not in text]
    return missing if len(missing) < len(files) else []


@pytest.mark.parametrize("problems", [wrong_paths, wrong_links, not_for_zsh, files_left_out], ids=lambda f: f.__name__)
def test_paths_links_commands_and_files_of_every_readme_are_right(problems):
    assert {named(readme): found for readme in READMES if (found := problems(readme))} == {}


def test_readmes_are_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 750
    others = [page for page in PAGES if page.name == "README.md" and page.parent.name != "grids"]
    assert [named(page) for page in others if len(page.read_text(encoding="utf-8").splitlines()) > 120] == []
