"""`triage doctor`: every finding names the remedy, and only errors fail."""

import contextlib
import io
import json
import os
import platform
import re
import socket
import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.console import Console

from deployments.server import start_temporary_server
from flows import selection
from flows.cli import doctor as checks
from flows.cli.doctor import examine_machine, run_check
from flows.cli.main import app
from flows.selection import select
from tasks.runtime.backend import os_version
from tasks.runtime.errors import BadInput, Locked, SourceUnavailable, TriageError
from tasks.runtime.events import ProgressReport
from tasks.runtime.files import file_digest
from tasks.runtime.home import home
from tasks.runtime.locks import ACCELERATOR
from tests.http_server import http_server, replying
from tests.place import ROOT, patiently, without_mlx
from warehouse.connect import warehouse_path, writing
from warehouse.rebuild import current

LATE = "the package index did not answer in time"
NO_NETWORK = {"HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1"}


def levels(findings):
    return [finding.level for finding in findings]


def answers(*states):
    return lambda specs, root: {f"model-{i}": list(sources) for i, sources in enumerate(states)}


@pytest.fixture
def somebody(tmp_path, monkeypatch):
    """A user with a name, a folder and a secret; what of this machine's must be in no report."""
    folder = tmp_path / "jane roe"
    folder.mkdir()
    secrets = {"HOME": str(folder), "USER": "janeroe", "LOGNAME": "janeroe", "API_TOKEN": "s3cr3t-value"}
    for name, value in (secrets | {"TRIAGE_HOME": str(folder / "studies")}).items():
        monkeypatch.setenv(name, value)
    return [*secrets.values(), str(tmp_path), str(ROOT), "jane", "studies", socket.gethostname(), platform.node()]


def leaked(secrets, text):
    """Those that are whole words of a text: many a Mac is called `Mac`, and `Mac14,2` is a model."""
    return [secret for secret in secrets if secret and re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", text)]


def test_a_sound_machine_has_no_error_and_the_selftest_writes_a_report_to_send_in(monkeypatch, somebody, tmp_path):
    monkeypatch.setattr(checks, "availabilities", answers([("Hub a/b", "reachable")]))
    # A process of its own would load the libraries again; real widths, and each further model, take seconds.
    monkeypatch.setattr(checks, "run_child", lambda name, args, log, show=None: resolve_name(name)(args, show))
    package = "tasks.bench.selftest"
    for name, few in {
        "run.MODELS": ("tiny-llama",), "run.BITS": (4,), "engine.WIDE": {}, "engine.resumed_error": lambda one: 0.0,
        "kernels.ROWS": (1, 9), "timings.CHANGES": {"num_hidden_layers": 2, "vocab_size": 512}, "timings.BITS": (4,),
        "timings.TRAINED_BLOCKS": 1, "timings.STEP": (2, 16), "timings.SCORED": (2, 16), "timings.SLOWEST": 100.0,
        "timings.SLOWED_DOWN": {"cpu": 100.0}, "timings.SUSTAINED_SECONDS": {"cpu": 0.1},
    }.items():  # fmt: skip
        monkeypatch.setattr(f"{package}.{name}", few)
    monkeypatch.setenv(ACCELERATOR, "gpu")  # held by the child, for whose own children it must not be taken
    out = io.StringIO()
    path = tmp_path / "report.json"
    assert examine_machine(Console(file=out, width=200), selftest=True, path=path) == 0
    for words in ("0 errors", "GFLOP/s", "weights model-0: Hub a/b: reachable", f"Written to {path}"):
        assert words in out.getvalue()
    assert not list(home().glob("doctor-*.json"))

    assert os.environ[ACCELERATOR] == ""
    report = json.loads(path.read_text())
    assert {check["name"].rpartition(": ")[2] for check in report["checks"]} >= {
        "packed against dequantised", "fidelity of packed weights",
        "loss and gradients against stock mlx-lm", "head in blocks", "checkpointed blocks", "fused against unfused",
        "dropout passes, batched against one by one", "updates, repeated", "a training killed and resumed",
        "seconds of a step", "footprint of a 256 MB array",
    }  # fmt: skip
    assert len(report["findings"]) > len(report["checks"]) > 20
    errors = [check for check in report["checks"] if check["level"] == "error"]
    assert all(check["ok"] and 0 <= check["value"] <= check["limit"] and check["seconds"] >= 0 for check in errors)
    assert set(report["timings"]["4bit"]) == {"step", "stock_step", "scoring_pass", "dropout_pass"}
    assert report["timings"]["sustained"]["step_seconds"] and report["backend"]["name"] and report["wheels"]["mlx"]
    assert (
        report["conditions"]["before"].keys()
        == report["conditions"]["after"].keys()
        >= {"low_power_mode", "swap_bytes"}
    )
    assert report["versions"]["mlx"] == metadata.version("mlx") and report["versions"]["Python"]
    assert report["machine"]["chip"] and report["machine"]["memory_bytes"] > 0
    assert report["machine"]["system"].startswith(platform.system().replace("Darwin", "macOS"))
    assert leaked(somebody, path.read_text()) == []


CHECK = {
    "name": "footprint", "limit": 0.2, "unit": "of its bytes", "level": "warning", "remedy": "", "ok": True, "value": 0.1,
    "seconds": 0.0, "error": "",
}  # fmt: skip


def test_a_selftest_that_ends_is_an_error_and_its_report_holds_what_was_measured_without_folders(monkeypatch, somebody):
    def broken(function, args, log, show):
        show(ProgressReport("wired memory limit", 1, 57))
        (Path(args["folder"]) / "measured.json").write_text(json.dumps({"checks": [CHECK], "timings": {}}))
        raise TriageError(f"The step failed: RuntimeError: no kernel {args['folder']}. Its log is {log}/child.log.")

    monkeypatch.setattr(checks, "run_child", broken)
    monkeypatch.setattr(checks, "_findings", lambda: [])
    assert examine_machine(Console(file=io.StringIO(), width=200), selftest=True) == 1
    (path,) = home().glob("doctor-*.json")
    text = path.read_text()
    report = json.loads(text)
    assert "no kernel" in report["error"] and report["last_check"] == "wired memory limit"
    assert [check["name"] for check in report["checks"]] == ["footprint"]
    assert leaked(somebody, text) == []


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text("mine")
    for options, words in (
        (["--json", "new.json"], "give --selftest too"),
        *((["--selftest", "--json", path], "name a new file") for path in (".", "mine.json", "no/such/file.json")),
    ):
        with pytest.raises(BadInput, match=words):
            app(["doctor", *options], standalone_mode=False)
    assert (tmp_path / "mine.json").read_text() == "mine" and {p.name for p in tmp_path.iterdir()} == {"mine.json"}


def test_an_error_gives_exit_code_1_without_a_traceback_and_the_parent_never_loads_mlx(place):
    place.folder.mkdir()
    (place.folder / "file").write_text("")
    environment = NO_NETWORK | {"TRIAGE_HOME": str(place.folder / "file" / "home")}
    result = place.ask("doctor", program=partial(patiently, without_mlx), **environment)
    assert result.returncode == 1 and result.stderr == "", result.stderr
    hub = "weights smollm2-360m: Hub HuggingFaceTB/SmolLM2-360M-Instruct@a10cc1512eab: HF_HUB_OFFLINE is set"
    assert "set TRIAGE_HOME to another folder" in result.stdout and hub in result.stdout


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([[("Hub", "reachable"), ("package", "no")]], ["ok"]),
        ([[("Hub", "cannot be reached"), ("package", "reachable")]], ["ok"]),
        ([[("Hub", "cannot be reached")], [("Hub", "in the local Hub cache")]], ["warning", "ok"]),
        ([[("Hub", "cannot be reached")], [("Hub", "is gated")]], ["error", "error"]),
        ([[("Hub", "no answer within 5 s")], [("package", LATE)]], ["warning", "warning"]),
    ],
)
def test_weights_are_an_error_only_if_no_model_can_be_had_at_all(monkeypatch, states, expected):
    monkeypatch.setattr(checks, "availabilities", answers(*states))
    findings = checks.weights()
    assert levels(findings) == expected
    assert all(bool(finding.remedy) == (finding.level != "ok") for finding in findings)


def test_a_sweep_tries_a_source_that_did_not_answer_in_time_and_not_one_that_says_no(monkeypatch):
    models = select("smoke").models[:1]
    gated = ("Hub", "is gated")

    def try_sources(*sources):
        monkeypatch.setattr(selection, "availabilities", lambda *args, **options: {models[0].name: list(sources)})
        selection.refuse_without_weights(models, home(), print)

    for late in ("no answer within 15 s", LATE):
        try_sources(gated, ("package", late))
    with pytest.raises(SourceUnavailable, match="Hub: is gated"):
        try_sources(gated)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, json.dumps(metadata.version("prefect")), None),
        (404, "", None),
        (200, '"2.0.0"', r"is of version 2\.0\.0, and this project uses"),
        (200, "<html>", "No Prefect server answers"),
        (401, "", "status 401"),
    ],
)
def test_the_prefect_server_must_be_of_this_version(status, body, words, patient):
    """Prefect Cloud gives none. What the doctor calls an error, a sweep refuses."""
    with http_server(replying(body, status, "/api/admin/version")) as address:
        url = f"{address}/api"
        with temporary_settings({PREFECT_API_URL: url}):
            (finding,) = run_check("Prefect", checks.prefect)
            with pytest.raises(BadInput, match=words) if words else contextlib.nullcontext():
                assert start_temporary_server(print, lambda: None) is None
    assert finding.level == ("error" if words else "ok") and url in finding.detail


def test_a_port_without_a_server_is_an_error_no_server_and_no_warehouse_are_well_and_a_warehouse_is_only_looked_at(
    port,
):
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
        (finding,) = run_check("Prefect", checks.prefect)
    assert finding.level == "error" and "triage up" in finding.detail and "unset PREFECT_API_URL" in finding.detail
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert levels(checks.prefect()) == levels(checks.warehouse()) == ["ok"]
    assert not warehouse_path().exists()
    with current():
        pass

    before = file_digest(warehouse_path())
    (finding,) = checks.warehouse()
    assert finding.level == "ok" and "audits pass" in finding.detail
    with writing() as con:
        con.execute("DELETE FROM schema_migrations WHERE version = (SELECT max(version) FROM schema_migrations)")

    changed = file_digest(warehouse_path())
    assert before != changed, "a digest that never changes would prove nothing"
    (finding,) = checks.warehouse()
    assert finding.level == "warning" and "of another version" in finding.detail
    assert changed == file_digest(warehouse_path())


def test_a_failing_audit_and_a_foreign_file_are_errors_with_a_remedy_and_a_warehouse_in_use_a_warning():
    with current() as con:
        con.execute(
            "INSERT INTO prediction (evaluation_id, case_id, label, p_ed, p_gp, p_home, nll, argmax, decision) "
            "VALUES ('nowhere', 'case', 'ED', 0.9, 0.9, 0.9, 0.1, 'ED', 'ED')"
        )

    (finding,) = checks.warehouse()
    assert finding.level == "error" and "probabilities_sum_to_one (1 row)" in finding.detail
    assert str(home() / "landing") in finding.remedy
    warehouse_path().write_text("no database")
    (finding,) = run_check("warehouse", checks.warehouse)
    assert finding.level == "error" and "cannot be opened as a warehouse" in finding.detail

    def locked():
        raise Locked("It is in use by python (process 7); close it there.")

    (finding,) = run_check("warehouse", locked)
    assert finding.level == "warning" and "process 7" in finding.detail


@pytest.mark.parametrize(("memory", "disk", "level"), [(16e9, 1e12, "ok"), (4e9, 2e9, "warning"), (1e9, 5e8, "error")])
def test_little_memory_and_little_disk_are_reported_before_a_study_fills_it(monkeypatch, memory, disk, level):
    monkeypatch.setattr(checks, "total_memory", lambda: memory)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: SimpleNamespace(free=disk))
    (finding,) = checks.disk()
    assert [finding.level] == levels(checks.machine()) == [level] and bool(finding.remedy) == (level != "ok")


def test_a_mac_with_a_python_for_intel_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(checks, "chip", lambda: "Apple M4")
    monkeypatch.setattr(checks, "total_memory", lambda: 16e9)
    (finding,) = checks.machine()
    assert finding.level == "error" and "--python cpython-3.13-macos-aarch64" in finding.remedy


def test_a_library_of_the_wrong_version_is_an_error_of_this_project_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name, needs, version, level in (
        ("other", "no-such-thing", ">=1", "warning"),
        ("triage-sweep", "mlx", "<0.1", "error"),
    ):
        info = tmp_path / f"{name.replace('-', '_')}-9.dist-info"
        info.mkdir()
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: 9\nRequires-Dist: {needs}{version}\n"
        (info / "METADATA").write_text(head)
        findings = checks.libraries()
        assert levels(findings) == ["ok", level] and needs in findings[1].detail


def test_a_folder_that_a_mac_uploads_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "disk" / "Documents").mkdir(parents=True)
    (tmp_path / "Documents").symlink_to(tmp_path / "disk" / "Documents")
    monkeypatch.setenv("HOME", str(tmp_path))
    for home_folder, warehouse_folder, on_mac, variables in (
        ("Documents/study", "study", True, ["TRIAGE_HOME"]),
        ("Library/CloudStorage/Drive", "Desktop", True, ["TRIAGE_HOME", "TRIAGE_WAREHOUSE"]),
        ("study", "study", True, []),
        ("Documents/study", "Documents/study", False, []),
    ):
        monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / home_folder / ".triage"))
        monkeypatch.setenv("TRIAGE_WAREHOUSE", str(tmp_path / warehouse_folder / "w.duckdb"))
        monkeypatch.setattr(checks, "is_mac", lambda on_mac=on_mac: on_mac)
        findings = checks.uploads()
        assert levels(findings) == ["warning"] * len(variables)
        for variable, finding in zip(variables, findings, strict=True):
            assert variable in finding.remedy and "iCloud" in finding.detail


def test_the_version_of_macos_is_its_own_whatever_python_was_built_for(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    for reported, shown in (("16.2", "macOS 26.2"), ("15.5", "macOS 15.5"), ("26.1", "macOS 26.1")):
        monkeypatch.setattr(platform, "mac_ver", lambda reported=reported: (reported, ("", "", ""), "arm64"))
        assert os_version() == shown


@pytest.mark.parametrize(("backend", "levels"), [("cpu", ("warning", "ok")), ("metal", ("ok", "error"))])
def test_slow_products_have_the_remedy_of_the_probe_and_metal_that_cannot_be_used_is_an_error(
    backend, levels, monkeypatch
):
    device = {
        "backend": backend, "compute_path": "packed", "compute_dtype": "bfloat16", "blas": "reference", "gflops": 5,
        "threads": 2, "machine": "m",
    }  # fmt: skip
    warning = "Slow: install one with `pip install mkl`." if backend == "cpu" else None
    probe = {
        "device": device,
        "warning": warning,
        "gpu": False,
        "unused": {"libmkl_rt.so.3": 105.2, "libblis.so": None},
    }
    monkeypatch.setattr(checks, "run_child", lambda *args: probe)
    speed, usable = checks.computing()
    assert (speed.level, usable.level) == levels and (warning is None or "pip install mkl" in speed.remedy)
    assert ("TRIAGE_BACKEND=cpu" in usable.remedy) == (backend == "metal")
    assert speed.detail == (
        f"{'BLAS reference' if backend == 'cpu' else 'GPU'}, 5 GFLOP/s in {'float32' if backend == 'cpu' else 'bfloat16'}; "
        "this home does not use libmkl_rt.so.3 (105.2 GFLOP/s); this home does not use libblis.so (unknown GFLOP/s)"
    )
