"""Prints what `triage doctor` finds: a line for each check, and the remedy where one is needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from flows.cli.machine.doctor_checks import CONCURRENT, QUIET, Check
from flows.cli.machine.doctor_selftest import refuse_path, report, run_selftest, write_report
from tasks.runtime.errors import Finding, Locked, TriageError
from tasks.runtime.home import home

STYLES = {"ok": "green", "warning": "bold yellow", "error": "bold red"}


def examine_machine(console: Console, selftest: bool = False, path: Path | None = None) -> int:
    """Print every finding; returns the exit code, 1 if one of them is an error.

    `selftest` computes on small models, too, and writes what it measured to `path`, by default
    `doctor-<time>.json` in TRIAGE_HOME. Raises BadInput for a `path` that cannot be written.
    """
    if path is not None:
        refuse_path(path, selftest)

    findings = _print_findings(console, _findings())
    if selftest:
        outcome = run_selftest()
        findings += _print_findings(console, outcome.findings)
        created = datetime.now(UTC)
        target = path or home() / f"doctor-{created:%Y%m%dT%H%M%SZ}.json"
        write_report(target, report(outcome, findings, created))
        console.print(f"Written to {target}: it names no user, host or folder.", soft_wrap=True)

    errors = sum(finding.level == "error" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    console.print(f"{_count(errors, 'error')}, {_count(warnings, 'warning')}.")
    return 1 if errors else 0


def examine_worker(console: Console) -> list[Finding]:
    """Print every finding; returns the errors that keep this machine from working for a pool.

    Not those about weights: which ones it needs is a sweep's matter, which says so.
    """
    findings = _print_findings(console, _findings())
    return [
        finding
        for finding in findings
        if finding.level == "error" and not finding.name.startswith("weights")
    ]


def _findings() -> Iterator[Finding]:
    """Findings of the checks that need a quiet machine, then those of the concurrent ones."""
    for name, check in QUIET.items():
        yield from run_check(name, check)

    with ThreadPoolExecutor(max_workers=len(CONCURRENT)) as pool:
        futures = {name: pool.submit(check) for name, check in CONCURRENT.items()}
        # In the order of the list, whichever check ends first; result() raises what a check raised.
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


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
