"""Prints what `triage doctor` finds: a line for each check, and the remedy where one is needed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from flows.cli.doctor_checks import CONCURRENT, QUIET, Check, versions
from tasks.runtime.child import run_child
from tasks.runtime.errors import Locked, TriageError
from tasks.runtime.findings import Finding
from tasks.runtime.store import home, write_atomic

STYLES = {"ok": "green", "warning": "bold yellow", "error": "bold red"}


def examine_machine(console: Console, selftest: bool = False) -> int:
    """Print every finding; returns the exit code, 1 if one of them is an error.

    `selftest` computes on tiny models, too, and writes all findings to `doctor-<time>.json` in
    TRIAGE_HOME.
    """
    findings = _print_findings(console, _findings())
    if selftest:
        computed, figures = _selftest()
        findings += _print_findings(console, computed)
        _write_report(console, findings, figures)

    errors = sum(finding.level == "error" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    console.print(f"{_count(errors, 'error')}, {_count(warnings, 'warning')}.")
    return 1 if errors else 0


def _findings() -> Iterator[Finding]:
    """Findings of the checks that need a quiet machine, then those of the concurrent ones."""
    for name, check in QUIET.items():
        yield from run_check(name, check)

    with ThreadPoolExecutor(max_workers=len(CONCURRENT)) as pool:
        futures = {name: pool.submit(check) for name, check in CONCURRENT.items()}
        for name, future in futures.items():
            yield from run_check(name, future.result)


def run_check(name: str, check: Check) -> list[Finding]:
    """The findings of a check, or the sentence of the error that ended it."""
    try:
        return check()
    except Locked as error:
        return [Finding(name, "warning", str(error))]
    except TriageError as error:
        return [Finding(name, "error", str(error))]


def _selftest() -> tuple[list[Finding], list[dict[str, Any]]]:
    """Findings of the self-test, and the figures behind them; its tiny models are deleted."""
    log = home() / "logs" / "doctor"
    try:
        with tempfile.TemporaryDirectory() as folder:
            figures = run_child("tasks.bench.selftest:run", {"folder": folder}, log)["checks"]
    except TriageError as error:
        remedy = "read the log; without this, no result can be trusted"
        return [Finding("self-test", "error", str(error), remedy)], []
    return [_finding(check) for check in figures], figures


def _finding(check: dict[str, Any]) -> Finding:
    detail = f"{check['value']:.3g} {check['unit']} (limit {check['limit']:.3g})"
    if check["ok"]:
        return Finding(check["name"], "ok", detail)
    return Finding(check["name"], check["level"], detail, check["remedy"])


def _print_findings(console: Console, findings: Iterable[Finding]) -> list[Finding]:
    """Print each finding as soon as it is known; returns all of them."""
    printed = []
    for finding in findings:
        printed.append(finding)
        console.print(f"{finding.level:<8} ", style=STYLES[finding.level], end="")
        console.print(f"{finding.name}: {finding.detail}", markup=False, soft_wrap=True)
        if finding.remedy:
            console.print(f"{'':<8} -> {finding.remedy}.", markup=False, soft_wrap=True)
    return printed


def _write_report(console: Console, findings: list[Finding], figures: list[dict[str, Any]]) -> None:
    created = datetime.now(UTC)
    report = {
        "created_at": created.isoformat(timespec="seconds"),
        "versions": versions(),
        "findings": [asdict(finding) for finding in findings],
        "selftest": figures,
    }
    path: Path = home() / f"doctor-{created:%Y%m%dT%H%M%SZ}.json"
    write_atomic(path, json.dumps(report, indent=1, ensure_ascii=False))
    console.print(f"Written to {path}", soft_wrap=True)


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
