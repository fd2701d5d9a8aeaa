"""`triage doctor`: is this machine ready? A line for each thing, with the remedy where it is not."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from deployments.server import prefect_server
from flows.cli import doctor_checks as checks
from tasks.runtime.child import run_child
from tasks.runtime.errors import Locked, TriageError
from tasks.runtime.findings import Finding
from tasks.runtime.store import home, write_atomic

Check = Callable[[], list[Finding]]
STYLES = {"ok": "green", "warning": "bold yellow", "error": "bold red"}
# Speed is measured in quiet; the others, most of which wait for a network or a process, then run at the same time.
QUIET: tuple[tuple[str, Check], ...] = (
    ("machine", checks.machine), ("memory", checks.memory), ("BLAS", checks.computing),
)  # fmt: skip
TOGETHER: tuple[tuple[str, Check], ...] = (
    ("versions", checks.libraries), ("weights", checks.weights), ("disk", checks.disk),
    ("Prefect", prefect_server), ("warehouse", checks.warehouse),
)  # fmt: skip


def doctor(console: Console, selftest: bool = False) -> int:
    """Print every finding; returns the exit code, 1 if there is an error.

    `selftest` also computes on tiny models, and writes everything to `doctor-<time>.json` under TRIAGE_HOME.
    """
    findings = _printed(console, _findings())
    if selftest:
        computed, figures = _selftest()
        findings += _printed(console, iter(computed))
        _report(console, findings, figures)
    errors, warnings = (sum(f.level == level for f in findings) for level in ("error", "warning"))
    console.print(f"{_count(errors, 'error')}, {_count(warnings, 'warning')}.")
    return 1 if errors else 0


def _findings() -> Iterator[Finding]:
    for name, check in QUIET:
        yield from _result(name, check)
    with ThreadPoolExecutor(max_workers=len(TOGETHER)) as pool:
        for name, future in [(name, pool.submit(check)) for name, check in TOGETHER]:
            yield from _result(name, future.result)


def _result(name: str, check: Check) -> list[Finding]:
    """What a check finds, or the sentence with which it ended."""
    try:
        return check()
    except Locked as error:
        return [Finding(name, "warning", str(error))]
    except TriageError as error:
        return [Finding(name, "error", str(error))]


def _selftest() -> tuple[list[Finding], list[dict[str, Any]]]:
    """Findings of the self-test, and its figures; the tiny models are thrown away."""
    try:
        with tempfile.TemporaryDirectory() as place:
            done = run_child(
                "tasks.bench.selftest:run", {"folder": place}, home() / "logs" / "doctor"
            )
    except TriageError as error:
        return [
            Finding(
                "self-test",
                "error",
                str(error),
                "read the log; without this, no result can be trusted",
            )
        ], []
    return [_of(check) for check in done["checks"]], done["checks"]


def _of(check: dict[str, Any]) -> Finding:
    detail = f"{check['value']:.3g} {check['unit']} (limit {check['limit']:.3g})"
    if check["ok"]:
        return Finding(check["name"], "ok", detail)
    return Finding(check["name"], check["level"], detail, check["remedy"])


def _printed(console: Console, findings: Iterator[Finding]) -> list[Finding]:
    shown = []
    for finding in findings:
        shown.append(finding)
        console.print(f"{finding.level:<8} ", style=STYLES[finding.level], end="")
        console.print(f"{finding.name}: {finding.detail}", markup=False, soft_wrap=True)
        if finding.remedy:
            console.print(f"{'':<8} -> {finding.remedy}.", markup=False, soft_wrap=True)
    return shown


def _report(console: Console, findings: list[Finding], figures: list[dict[str, Any]]) -> None:
    created = datetime.now(UTC)
    report = {
        "created_at": created.isoformat(timespec="seconds"), "versions": checks.versions(),
        "findings": [asdict(finding) for finding in findings], "selftest": figures,
    }  # fmt: skip
    path: Path = home() / f"doctor-{created:%Y%m%dT%H%M%SZ}.json"
    write_atomic(path, json.dumps(report, indent=1, ensure_ascii=False))
    console.print(f"Written to {path}", soft_wrap=True)


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
