"""The self-test of `triage doctor --selftest`, and its report, which a stranger can send in.

The report says what the machine is and what it computed, and nothing of whose it is: no user, host,
folder or environment.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from flows.cli.machine.doctor_checks import versions
from tasks.runtime.backend import backend, os_version, processor
from tasks.runtime.builds import installed_builds
from tasks.runtime.children import run_child
from tasks.runtime.device import chip, cores
from tasks.runtime.errors import BadInput, Finding, TriageError
from tasks.runtime.files import write_atomic
from tasks.runtime.home import home, without_folders
from tasks.runtime.memory import total_memory

FORMAT = 1


@dataclass(frozen=True)
class SelfTestOutcome:
    """What the self-test found. `measured`: what its process returned, empty where it failed.

    `error`: the words of a failure, without folders.
    """

    findings: list[Finding]
    measured: dict[str, Any]
    error: str = ""


def run_selftest() -> SelfTestOutcome:
    """Run the self-test in a child process; its models are deleted."""
    log = home() / "logs" / "doctor"
    try:
        with tempfile.TemporaryDirectory() as folder:
            report = run_child("tasks.bench.selftest.run:run", {"folder": folder}, log)
    except TriageError as error:
        remedy = "read the log; without this, no result can be trusted"
        finding = Finding("self-test", "error", str(error), remedy)
        return SelfTestOutcome([finding], {}, without_folders(f"{type(error).__name__}: {error}"))

    return SelfTestOutcome([_finding(check) for check in report["checks"]], report)


def _finding(check: dict[str, Any]) -> Finding:
    outcome = check["error"] or f"{check['value']:.3g} {check['unit']}"
    detail = f"{outcome} (limit {check['limit']:.3g})"
    if check["ok"]:
        return Finding(check["name"], "ok", detail)
    return Finding(check["name"], check["level"], detail, check["remedy"])


def report(outcome: SelfTestOutcome, findings: list[Finding], created: datetime) -> dict[str, Any]:
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
        "backend": {
            "name": backend().name,
            "builds": installed_builds(),
            "compute_path": backend().compute_path,
            "compute_dtype": backend().compute_dtype,
            "experimental": backend().experimental,
        },
        "findings": [{"name": finding.name, "level": finding.level} for finding in findings],
        "error": outcome.error,
        **outcome.measured,
    }


def refuse_path(path: Path, selftest: bool) -> None:
    """Raise BadInput, before anything is measured, for a report that cannot be written."""
    if not selftest:
        raise BadInput("--json writes what the self-test measures; give --selftest too.")
    if path.is_dir():
        raise BadInput(f"--json {path} is a folder; name a file in it.")
    if path.exists():
        raise BadInput(f"--json {path} exists; name another file.")
    if not path.absolute().parent.is_dir():
        raise BadInput(f"--json {path}: there is no folder {path.absolute().parent}; create it.")


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write the report as JSON. Raises BadInput where it may not be written."""
    write_atomic(path, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
