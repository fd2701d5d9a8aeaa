"""`triage doctor`: checks of this machine, which take seconds and change nothing, and the self-test
with a report that a stranger can send in: what the machine is and computed, and nothing of whose it
is, no user, host, folder or environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from deployments.interruptions import kept_awake
from deployments.server import refuse_unusable_server
from flows.cli.terminal import console, print_findings, print_line
from flows.plan import estimated_bytes
from flows.report.figures import counted
from flows.selection import select
from tasks.bench.selftest.conditions import MEASURED, conditions, wheel_tags
from tasks.models.sources.fetch import availabilities, is_offered, is_unanswered
from tasks.runtime.backend import (
    BACKENDS,
    backend,
    has_apple_gpu,
    is_mac,
    os_version,
    processor,
)
from tasks.runtime.children import run_child
from tasks.runtime.device import chip, cores, settle_blas, total_memory
from tasks.runtime.errors import BadInput, Finding, Level, Locked, TriageError
from tasks.runtime.events import Device, Event, ProgressReport
from tasks.runtime.files import write_atomic
from tasks.runtime.home import existing_home, home, without_folders
from warehouse.connect import REBUILD, warehouse_path
from warehouse.health import examine

STUDY = "paper"
LIBRARIES = (
    "triage-sweep",
    "mlx",
    "mlx-lm",
    "transformers",
    "huggingface_hub",
    "prefect",
    "duckdb",
)
# The largest model in float32 takes 1.5 GB, and a training step as much again.
LITTLE_MEMORY = 6e9
TOO_LITTLE_MEMORY = 2e9
TOO_LITTLE_DISK = 1e9
# Folders of a Mac's user that iCloud, if it is told to, or another service synchronises.
UPLOADED = ("Desktop", "Documents", "Library/Mobile Documents", "Library/CloudStorage")

FORMAT = 2  # of the report
REPORT = "write the self-test's report to FILE, to send it in: it names no user, host or folder"

Check = Callable[[], list[Finding]]


def doctor(
    selftest: Annotated[
        bool, typer.Option("--selftest", help="compute for minutes, too, and write a report")
    ] = False,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help=REPORT)] = None,
) -> None:
    """Check that this machine is ready: hardware, libraries, network, disk, server, warehouse."""
    raise typer.Exit(examine_machine(console, selftest, json))


def examine_machine(console: Console, selftest: bool = False, path: Path | None = None) -> int:
    """Print every finding; returns the exit code, 1 if one of them is an error.

    `selftest` computes on small models, too, and writes what it measured to `path`, by default
    `doctor-<time>.json` in TRIAGE_HOME. Raises BadInput for a `path` that cannot be written.
    """
    if path is not None:
        if not selftest:
            raise BadInput("--json writes what the self-test measures; give --selftest too.")
        if path.exists() or not path.absolute().parent.is_dir():
            raise BadInput(f"--json {path}: name a new file in a folder that exists.")

    findings = print_findings(console, _findings())
    if selftest:
        own_findings, measured = run_selftest(console)
        findings += print_findings(console, own_findings)
        created = datetime.now(UTC)
        target = path or home() / f"doctor-{created:%Y%m%dT%H%M%SZ}.json"
        text = json.dumps(report(measured, findings, created), indent=1, ensure_ascii=False)
        write_atomic(target, text + "\n")
        print_line(console, f"Written to {target}: it names no user, host or folder.")

    levels = Counter(finding.level for finding in findings)
    print_line(
        console, f"{counted(levels['error'], 'error')}, {counted(levels['warning'], 'warning')}."
    )
    return 1 if levels["error"] else 0


def _findings() -> Iterator[Finding]:
    """Findings of the checks that need a quiet machine, then those of the concurrent ones."""
    for name, check in QUIET.items():
        yield from run_check(name, check)

    with ThreadPoolExecutor(max_workers=len(CONCURRENT)) as pool:
        for findings in pool.map(run_check, CONCURRENT, CONCURRENT.values()):
            yield from findings


def run_check(name: str, check: Check) -> list[Finding]:
    """The findings of a check, or the sentence of the error that ended it."""
    try:
        return check()
    except TriageError as error:
        return [Finding(name, "warning" if isinstance(error, Locked) else "error", str(error))]


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that decide a result."""
    found = {"Python": platform.python_version()} | dict.fromkeys(LIBRARIES, "not installed")
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)

    return found


def machine() -> list[Finding]:
    size = total_memory()
    text = f"{os_version()}, {chip()}, {cores()} cores, {size / 1e9:.1f} GB"
    if is_mac() and not has_apple_gpu():  # a Python that was built for Intel's processors
        remedy = (
            "MLX needs Apple Silicon and a Python built for it: install Homebrew's uv for Apple "
            "Silicon, then run `uv sync --python cpython-3.13-macos-aarch64`"
        )
        return [Finding("machine", "error", f"{text}, Python for {processor()}", remedy)]
    remedy = "close other programs, or stay with --model smollm2-135m"
    return [_of_size("machine", size, LITTLE_MEMORY, TOO_LITTLE_MEMORY, text, remedy)]


def _of_size(
    name: str, size: float, little: float, too_little: float, detail: str, remedy: str
) -> Finding:
    if size >= little:
        return Finding(name, "ok", detail)
    return Finding(name, "warning" if size >= too_little else "error", detail, remedy)


def computing() -> list[Finding]:
    """The speed of matrix products and the backend, as the process of a step sees them. Raises
    BadInput where MLX cannot be loaded as it is installed.
    """
    settle_blas()
    probe = run_child("tasks.runtime.device:run", {}, home() / "logs" / "doctor-probe")
    device = Device(**probe["device"])
    dtype = device.compute_dtype if device.on_gpu else "float32"
    speed = f"{device.products}, {device.gflops:.0f} GFLOP/s in {dtype}"
    for name, gflops in probe["unused"].items():
        speed += f"; this home does not use {name} ({gflops or 'unknown'} GFLOP/s)"
    path = f"{device.backend}, {device.compute_path} in {device.compute_dtype}"
    if BACKENDS[device.backend].experimental:
        path += "; experimental"

    if device.on_gpu:
        if probe["gpu"]:
            return [Finding("products", "ok", speed), Finding("backend", "ok", path)]
        remedy = "run it on the Mac itself and not in a virtual one, or set TRIAGE_BACKEND=cpu"
        detail = f"{path}, but its GPU cannot be used"
        return [Finding("products", "ok", speed), Finding("backend", "error", detail, remedy)]

    path += "; memory and time of 4 against 8 bits can only be compared on a GPU"
    backend_finding = Finding("backend", "ok", path)
    if probe["warning"] is None:
        return [Finding("products", "ok", speed), backend_finding]
    remedy = probe["warning"].rstrip(".")
    return [Finding("products", "warning", speed, remedy), backend_finding]


def libraries() -> list[Finding]:
    """Versions, and the requirements that pip reports as not met."""
    text = ", ".join(f"{name} {version}" for name, version in versions().items())
    findings = [Finding("versions", "ok", text)]

    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "check"]
    # Else pip takes macOS 26 for 16 where Python was built for an earlier one, and MLX for a misfit.
    environment = os.environ | {"SYSTEM_VERSION_COMPAT": "0"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode:
        lines = result.stdout.strip().splitlines() or result.stderr.strip().splitlines()[-1:]
        own = [line for line in lines if line.startswith("triage-sweep ")]
        detail = "; ".join((own or lines)[:3])
        level: Level = "error" if own else "warning"
        remedy = "run `uv sync`, or reinstall them"
        findings.append(Finding("requirements", level, detail, remedy))

    return findings


def weights() -> list[Finding]:
    """Where the weights of the study's base models are available. Downloads nothing."""
    answers = availabilities(select(STUDY).models, home())
    states = [state for sources in answers.values() for _, state in sources]
    can_train = any(is_offered(state) or is_unanswered(state) for state in states)
    findings = []
    for model, sources in answers.items():
        text = "; ".join(f"{source}: {state}" for source, state in sources)
        level: Level = "ok"
        remedy = ""
        if not any(is_offered(state) for _, state in sources):
            level = "warning" if can_train else "error"
            remedy = "connect to a network, or list a folder of weights in a grid (kind = 'folder')"
        findings.append(Finding(f"weights {model}", level, text, remedy))

    return findings


def uploads() -> list[Finding]:
    """A warning where a Mac may upload what the home or the warehouse holds."""
    synced = [(Path.home() / name).resolve() for name in UPLOADED]
    places = {"TRIAGE_HOME": home(), "TRIAGE_WAREHOUSE": warehouse_path()}
    return [
        Finding(
            "uploads",
            "warning",
            f"iCloud or another service may upload {path}, including any cases",
            f"set {variable} to a folder that no service synchronises",
        )
        for variable, path in places.items()
        if is_mac() and any(path.is_relative_to(folder) for folder in synced)
    ]


def disk() -> list[Finding]:
    """Permission and space where TRIAGE_HOME is or will be; the study decides how much is needed."""
    folder = existing_home()
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        remedy = "set TRIAGE_HOME to another folder"
        return [Finding("disk", "error", f"{folder} may not be written", remedy)]

    free = shutil.disk_usage(folder).free
    required_bytes = estimated_bytes(select(STUDY))
    text = (
        f"{free / 1e9:.0f} GB free at {home()}; the whole study takes about "
        f"{required_bytes / 1e9:.0f} GB"
    )
    remedy = "free some space, or set TRIAGE_HOME to a folder on another disk"
    return [_of_size("disk", free, required_bytes, TOO_LITTLE_DISK, text, remedy)]


def prefect() -> list[Finding]:
    """Whether the server that PREFECT_API_URL or Prefect's other settings name can be used."""
    from prefect.settings import PREFECT_API_URL

    api = PREFECT_API_URL.value()
    if not api:
        detail = "no server is set (PREFECT_API_URL): a sweep starts its own while it runs"
        return [Finding("Prefect", "ok", detail)]
    refuse_unusable_server(api)
    return [Finding("Prefect", "ok", f"the server at {api} can be used")]


def warehouse() -> list[Finding]:
    path = warehouse_path()
    offending_rows = examine(path)
    if offending_rows is None:
        remedy = "nothing to do: the next sweep updates it"
        detail = f"{path} has tables or views of another version"
        return [Finding("warehouse", "warning", detail, remedy)]

    failing = [f"{name} ({counted(rows, 'row')})" for name, rows in offending_rows.items() if rows]
    if failing:
        remedy = f"fill a new one from {home() / 'landing'}: {REBUILD}"
        return [Finding("warehouse", "error", f"{path}: audits fail: {', '.join(failing)}", remedy)]
    if path.is_file():
        return [Finding("warehouse", "ok", f"{path}: {len(offending_rows)} audits pass")]

    return [Finding("warehouse", "ok", f"none yet; a sweep creates {path}")]


# Speed is measured while nothing else runs. Most other checks wait for a network or a process.
QUIET: dict[str, Check] = {"machine": machine, "MLX": computing}
CONCURRENT: dict[str, Check] = {
    "versions": libraries,
    "weights": weights,
    "disk": disk,
    "uploads": uploads,
    "Prefect": prefect,
    "warehouse": warehouse,
}


def run_selftest(console: Console) -> tuple[list[Finding], dict[str, Any]]:
    """Run the self-test in a child process and show which check runs; its models are deleted.

    Returns its findings and what was measured until it ended, where it failed with `error`: words
    without folders.
    """
    before = conditions()
    measured: dict[str, Any] = {"checks": []}
    failed = []
    with (
        # A child of the self-test may write a moment longer than the self-test lives.
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        console.status("self-test") as status,
        kept_awake(),
    ):

        def show(event: Event) -> None:
            if isinstance(event, ProgressReport):
                measured["last_check"] = event.what
                status.update(f"self-test, {event.done + 1} of {event.of}: {event.what}")

        try:
            run_child(
                "tasks.bench.selftest.run:run", {"folder": folder}, home() / "logs" / "doctor", show
            )
        except TriageError as error:
            remedy = "read the log; without this, no result can be trusted"
            failed = [Finding("self-test", "error", str(error), remedy)]
            measured["error"] = without_folders(f"{type(error).__name__}: {error}")
        with contextlib.suppress(FileNotFoundError):
            measured |= json.loads(Path(folder, MEASURED).read_text(encoding="utf-8"))
    measured["conditions"] = {"before": before, "after": conditions()}

    findings = []
    for check in measured["checks"]:
        outcome = check["error"] or f"{check['value']:.3g} {check['unit']}"
        detail = f"{outcome} (limit {check['limit']:.3g})"
        level: Level = "ok" if check["ok"] else check["level"]
        findings.append(
            Finding(check["name"], level, detail, "" if check["ok"] else check["remedy"])
        )

    return findings + failed, measured


def report(measured: dict[str, Any], findings: list[Finding], created: datetime) -> dict[str, Any]:
    """The report as JSON: machine, versions, backend, checks with numbers and seconds.

    Of the doctor's other findings only how they went: their words name folders and servers.
    """
    return {
        "format": FORMAT,
        "created_at": created.isoformat(timespec="seconds"),
        "machine": {
            "chip": chip(),
            "processor": processor(),
            "cores": cores(),
            "memory_bytes": total_memory(),
            "system": os_version(),
        },
        "versions": versions(),
        "wheels": wheel_tags(),
        "backend": {
            name: getattr(backend(), name)
            for name in ("name", "compute_path", "compute_dtype", "experimental")
        },
        "findings": [{"name": finding.name, "level": finding.level} for finding in findings],
        "error": "",
        **measured,
    }
