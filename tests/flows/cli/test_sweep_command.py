"""`triage sweep`: exit code 1 where an experiment failed, a sentence where the user must fix something, Prefect's
temporary server, and what is printed at the end: the answer first, a line an experiment, and where the rest is."""

import io
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from prefect.states import Completed, Failed
from rich.console import Console

from deployments import server as temporary_server
from deployments.interruptions import kept_awake
from deployments.server import api_url, prefect_client
from deployments.up import up
from flows.cli import sweep as run
from flows.cli.main import app
from flows.cli.sweep import NOTHING, print_results
from flows.selection import select
from tasks.grids.grid import GRIDS, load_grid
from tasks.progress import listeners, publish
from tasks.runtime.errors import BadInput, Diverged, LostChild, SourceUnavailable, TriageError
from tasks.runtime.events import ExperimentFailed
from tasks.runtime.home import home
from tasks.spec import canonical_json, short_digest
from tests.flows.test_kill import has_gone
from tests.http_server import version_server
from tests.models.fake_hub import reached
from tests.place import Place, refusal, shown, wait_until
from tests.warehouse.rows import land_arm
from tests.warehouse.test_precisions import noisy
from tests.warehouse.test_studies import land_sweep
from warehouse.load import load_all


@pytest.fixture
def ends_with(monkeypatch):
    """Runs a sweep of which only the flow is replaced: by one whose experiments fail with the given errors."""
    import flows.sweep

    def run_it(*errors: Exception, console=None, grid="smoke", overrides=None) -> int:
        def flow(*args, **kwargs):
            for error in errors:
                publish("land x", ExperimentFailed(str(error), error))
            failures = " | ".join(f"x: {error}" for error in errors)
            return Failed(message=f"Some of 8: {failures}") if errors else Completed(message="all")

        monkeypatch.setattr(flows.sweep, "sweep", flow)
        monkeypatch.setattr(run, "start_temporary_server", lambda say, lost: None)
        return run.run_sweep(console or Console(quiet=True), select(grid, overrides), grid, overrides)

    return run_it


def test_a_failed_experiment_is_exit_code_one_and_what_the_user_must_fix_is_printed_once(ends_with):
    assert ends_with() == 0 and listeners == []
    for errors in ([Diverged("a")], [LostChild("a"), BadInput("b")], [RuntimeError("a")]):
        console = Console(file=io.StringIO(), width=80)
        assert ends_with(*errors, console=console) == 1
        lines = console.file.getvalue().splitlines()
        assert lines[-len(errors) - 1] == "Not everything finished. Some of 8:"
        assert lines[-len(errors) :] == [f"x: {error}" for error in errors]
    with pytest.raises(BadInput, match=r"^The disk is full\.$"):
        ends_with(*[BadInput("The disk is full.")] * 60)
    with pytest.raises(BadInput, match=r"^A\. B\.$"):
        ends_with(BadInput("A."), SourceUnavailable("B."), BadInput("A."))


HUB_FIRST = """
[[base_model]]
name = "tiny-llama"
licence = "none"
sources = [{ kind = "hub", repo = "nobody/tiny" }, { kind = "random", shape = "tiny-llama" }]
"""


def test_a_sweep_says_in_its_first_line_that_it_takes_other_weights_and_one_that_is_compared_stops(
    ends_with, tmp_path, monkeypatch
):
    smoke = (GRIDS / "smoke.toml").read_text()
    grid = tmp_path / "compared.toml"
    grid.write_text(smoke.replace("bits =", "any_weights = false\nbits =").replace(', "tiny-gemma3"', "") + HUB_FIRST)
    asked = []
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="0"):
        patch.setattr(run, "run_sweep", lambda *args: asked.append(args[3]) or 0)
        app(["sweep", str(grid), "--any-weights"], standalone_mode=False)

    console = Console(file=io.StringIO(), width=200)
    with reached(None, tmp_path):
        with pytest.raises(SourceUnavailable, match="Hub nobody/tiny@main: the Hub cannot .* add --any-weights to"):
            ends_with(console=console, grid=str(grid))
        assert console.file.getvalue() == "", "it stops before anything else"
        assert ends_with(console=console, grid=str(grid), overrides=asked[0]) == 0
    first, second, *_ = console.file.getvalue().splitlines()
    source = "random weights of the shape tiny-llama, seed 0"
    reason = "the Hub cannot be reached (ConnectError)"
    assert first == f"Weights of tiny-llama come from {source}, not from Hub nobody/tiny@main: {reason}."
    assert second.startswith("Sweep smoke: 4 experiments.")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 40 KiB; made where the tests may mount one."""
    folder = tmp_path / "place" / "home"
    folder.mkdir(parents=True)
    result = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(folder)], capture_output=True)
    if result.returncode != 0:
        pytest.skip("no right to mount a file system")
    yield Place(tmp_path / "place")
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_a_full_disk_and_a_home_that_may_not_be_written_to_are_sentences_and_nothing_half_made_stays(small_disk):
    assert refusal(small_disk.ask("sweep", "smoke")).startswith("triage: The disk is full: ")
    assert [p for p in small_disk.home.rglob("*") if p.is_file()] == []
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk.home)], check=True)
    assert "Read-only file system" in refusal(small_disk.ask("sweep", "smoke"))


# A shell's background job, as which these tests may run, ignores Ctrl-C, and so would the program.
LEAVES_SLOWLY = """
import contextlib, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from rich.console import Console
from flows.cli.sweep import EarlyExit
from deployments import interruptions
from tasks.runtime.children import run_child
from tasks.runtime.errors import TriageError

def step():
    with contextlib.suppress(TriageError):  # whose traceback could be printed before the sentence
        run_child("tests.runtime.programs.steps:name_itself", {}, Path(sys.argv[1]), lambda event: print(event.message))

interruptions.LEAVE_SECONDS = 100
with EarlyExit(Console(quiet=True)).interruptible():
    try:
        threading.Thread(target=step, daemon=True).start()
        time.sleep(200)
    except KeyboardInterrupt:
        print("leaving")
        time.sleep(200)
"""


def test_a_ctrl_c_while_the_first_interruption_takes_its_time_ends_everything_at_once(tmp_path):
    command = [sys.executable, "-u", "-c", LEAVES_SLOWLY, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "leaving\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130 and process.stderr.read().startswith("triage: Interrupted. Finished work")

    assert has_gone(child, 10)


@pytest.mark.parametrize("name", ["profiles.toml", ".env", "prefect.toml", "pyproject.toml"])
def test_prefect_is_asked_for_a_server_wherever_one_may_be_configured(name, tmp_path, monkeypatch):
    """The answer of a whole sweep, for a profile, is in test_cli.py."""
    for variable in temporary_server.NAMES_A_SERVER:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.delitem(sys.modules, "prefect.context")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert not temporary_server._may_be_configured()
    (tmp_path / name).write_text("[project]\n")
    assert temporary_server._may_be_configured() == (name != "pyproject.toml")
    (tmp_path / name).write_text('[tool.prefect.api]\nurl = "http://127.0.0.1:4200/api"\n')
    assert temporary_server._may_be_configured()


ANSWERS: list[str] = []  # the command of a server on the socket that it is given


class Started:
    """Prefect's server, of which only the process is replaced: by ones of the given commands, one at each start."""

    def __init__(self, commands):
        self.commands = commands
        self.processes = []
        self.sentences = []
        self.lost = threading.Event()
        self.server = temporary_server.Server(dict(os.environ), self.sentences.append, self.lost.set)

    def start_process(self, arguments, environment, log, descriptors):
        (number,) = descriptors
        command = self.commands.pop(0) or version_server("3.9.1", number)
        self.processes.append(subprocess.Popen(command, pass_fds=[number]))
        return self.processes[-1]

    def wait_until_said(self, beginning):
        wait_until(lambda: any(sentence.startswith(beginning) for sentence in self.sentences))
        assert any(sentence.startswith(beginning) for sentence in self.sentences), self.sentences


@pytest.fixture
def start_server(monkeypatch):
    def start(*commands: list[str]) -> Started:
        started = Started(list(commands))
        monkeypatch.setattr(temporary_server, "start_bound", started.start_process)
        monkeypatch.setattr(temporary_server, "POLL_SECONDS", 0.1)
        ends.append(started.server.end)
        started.server.start()
        return started

    ends: list = []
    yield start
    for end in ends:
        end()


FAILS = [sys.executable, "-c", "raise SystemExit(3)"]


def test_a_server_that_ends_at_once_twice_is_one_sentence(start_server, monkeypatch):
    monkeypatch.setattr("deployments.server.SECONDS", 0.5)
    with pytest.raises(TriageError, match=r"did not start \(it ended with code 3\).*Run the same command again"):
        start_server(FAILS, FAILS).server.wait(60)
    with pytest.raises(TriageError, match=r"did not start \(it does not answer\)"):
        start_server(["sleep", "100"]).server.wait(0.2)


def test_a_server_that_ends_at_once_is_started_again_and_one_that_is_ended_is_not(start_server):
    started = start_server(["false"], ANSWERS)
    started.server.wait(60)
    assert len(started.processes) == 2
    started.sentences.clear()
    started.server.end()
    assert started.processes[-1].poll() is not None
    time.sleep(0.5)
    assert started.sentences == [] and not started.lost.is_set()


def test_another_server_is_started_whenever_one_ends_and_requests_wait_for_it(start_server):
    started = start_server(ANSWERS, FAILS, ANSWERS, FAILS, FAILS)
    started.server.wait(60)
    port = started.server.port
    started.processes[-1].kill()
    started.wait_until_said("Prefect's server is gone (it ended with code -9)")
    with prefect_client(api_url(port), 60.0) as client:
        assert client.api_version() == "3.9.1", "the request came before the server"
    started.wait_until_said("Prefect's server runs again")
    assert started.server.port == port and not started.lost.is_set()
    started.processes[-1].kill()
    assert started.lost.wait(60) and started.commands == [], "a sweep is told that none can be started any more"


@pytest.fixture
def caffeinate(monkeypatch, tmp_path):
    """A Mac, as far as its name and its `caffeinate` go; the file that holds the arguments, while it runs."""
    note = tmp_path / "awake"
    program = tmp_path / "bin" / "caffeinate"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ntrap "rm {note}; exit" TERM\necho "$@" > {note}\nwhile :; do sleep 0.05; done\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("deployments.interruptions.is_mac", lambda: True)
    return note


def content_soon(path):
    wait_until(lambda: path.exists() and path.read_text())
    return path.read_text()


def test_a_mac_is_kept_awake_while_a_sweep_runs_or_prefects_ui_is_offered_and_no_longer(
    caffeinate, ends_with, monkeypatch
):
    arguments = []
    monkeypatch.setattr(run, "check", lambda selection, say: arguments.append(content_soon(caffeinate)))
    assert ends_with() == 0 and not caffeinate.exists()
    monkeypatch.setattr("deployments.up._run", lambda *_: arguments.append(content_soon(caffeinate)))
    up(1, print)
    assert arguments == [f"-i -w {os.getpid()}\n"] * 2 and not caffeinate.exists()
    monkeypatch.setattr("deployments.interruptions.is_mac", lambda: False)
    with kept_awake():
        time.sleep(0.2)
    assert not caffeinate.exists()


# --- What is printed at the end ------------------------------------------------------------------


@pytest.fixture
def demo_ids():
    """Evaluations as a demo lands them: both widths, and 8 bits moved to mxfp4, where the adapter misses every other
    emergency until its threshold is chosen again, with the demo's own claim."""
    ids = []
    landing = home() / "landing"

    def land(name, cases, precision=None, **values):
        values = {"cell_id": f"smollm2-135m-{name}-s42", "base_model": "smollm2-135m"} | values
        bits = int(precision[0]) if precision in ("4bit", "8bit") else None
        land_arm(landing, f"-{name}", bits, cases, groups=True, precision=precision, **values)
        ids.append(f"e-{name}")

    for width in (4, 8):
        own = noisy(width, 0.8, 240)
        land(f"{width}bit-quick", own, f"{width}bit", recipe="quick", recipe_kind="standard")
    moved = [(truth, label, "GP" if i % 2 else decision) for i, (truth, label, decision) in enumerate(own)]
    of = {"recipe_kind": "moved_adapter", "source_training_id": "t-8bit-quick"}
    land("mxfp4-quick-from8bit", moved, "mxfp4", recipe="quick from 8bit", moved_rules="kept", **of)
    again = {"recipe": "quick from 8bit again", "moved_rules": "chosen_again"}
    land("mxfp4-quick-from8bit-again", own, "mxfp4", **again, **of)
    land("linear", noisy(5, 0.8, 240), recipe="linear", recipe_kind="baseline", base_model="none")

    claim = load_grid("demo").registration
    columns = {"primary_claim": canonical_json(claim), "primary_digest": short_digest(claim)}
    land_sweep(landing, "demo", ids, **columns)
    load_all(landing)
    return ids


def test_the_demo_ends_with_4_against_8_bits_then_its_claim_and_a_table_of_eight_lines_at_most(demo_ids):
    assert shown(print_results, "demo", ["no such evaluation"], width=80).splitlines() == [NOTHING]
    lines = shown(print_results, "demo", demo_ids, width=80, is_terminal=True).splitlines()
    text = " ".join(lines)
    assert "triage compare demo --all, triage gates smollm2-135m-" in text
    assert len(lines) <= 25 and max(map(len, lines)) <= 80
    beginnings = ("Cannot tell whether 4 bits miss", "8-bit adapters moved to mxfp4, threshold kept, miss more ")
    assert [text.index(words) > 0 for words in beginnings] == [False, True]
    assert "nothing follows about others). " in text and "hey, threshold chosen again, " in text
    *models, last = [line.split()[0] for line in lines if line.count("[") == 3]
    moved = [f"mxfp4-quick-from8bit{again}" for again in ("", "-again")]
    assert sorted(models) == ["4bit-quick", "8bit-quick", *moved]
    assert last == "linear" and "names: smollm2-135m-NAME-s42" in text
