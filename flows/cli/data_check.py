"""`triage data`: what is in a data set and what is wrong with it, and its data card."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks.corpus.check import Report, check_data
from tasks.corpus.prepare import CARD, prepare_dataset
from tasks.grid import load_grid
from tasks.runtime.errors import BadInput
from tasks.runtime.store import complete, home
from tasks.spec import LABELS, Data, EvaluationSet

Wanted = tuple[Data, tuple[EvaluationSet, ...]]


def wanted(source: str, options: dict[str, str | None], labels: list[str]) -> Wanted:
    """The dataset and the evaluation sets that a command names: a grid file's, or one source with its columns.

    `options`: settings of `[data]` by name, None where not given; `labels`: word=ED and so on. Raises BadInput.
    """
    given = {key: value for key, value in options.items() if value is not None}
    if source.endswith(".toml"):
        if given or labels:
            raise BadInput(
                f"{source} is a grid, which says itself what its columns and labels are; leave the options out."
            )
        grid = load_grid(source)
        return grid.data, grid.evaluation_sets
    words = {}
    for item in labels:
        word, _, label = (part.strip() for part in item.rpartition("="))
        if not word or label not in LABELS:
            raise BadInput(f"--label {item!r} is not of the form word=ED, word=GP or word=HOME.")
        words[word] = label
    data = Data.model_validate({"source": source, "labels": words, **given})
    adversarial = (
        (EvaluationSet(name="test_adversarial", source="embedded"),) if source == "embedded" else ()
    )
    return data, adversarial


def check(
    console: Console, data: Data, evaluation_sets: tuple[EvaluationSet, ...], listing: bool = False
) -> int:
    """Print the report, and with `listing` every group of each set and every pair of near copies; 1 if something
    fails, else 0."""
    known = tokenizers()
    report = check_data(data, evaluation_sets, known)
    console.print(_sets(report))
    console.print(_lengths(report))
    if not known:
        console.print(
            "No tokenizer is at hand, so lengths are in words; `triage sweep demo` brings one.",
            soft_wrap=True,
        )
    if listing:
        _list(console, report)
    console.print(_findings(report))
    failing = sum(finding.verdict == "FAILS" for finding in report.findings)
    console.print(f"{failing} checks fail." if report.fails else "No check fails.")
    return int(report.fails)


def card(console: Console, data: Data, evaluation_sets: tuple[EvaluationSet, ...]) -> None:
    """Prepare the dataset, if it is not there yet, and print its data card."""
    folder = prepare_dataset(data, home(), evaluation_sets)
    console.print((folder / CARD).read_text(encoding="utf-8"), soft_wrap=True, end="")
    console.print(f"\nFrom {folder / CARD}", soft_wrap=True)


def tokenizers() -> dict[str, Path]:
    """tokenizer.json of each distinct tokenizer among the stored models, by the name of a base model that has it."""
    found: dict[str, tuple[str, Path]] = {}
    models = home() / "models"
    for folder in sorted(models.iterdir()) if models.is_dir() else []:
        path, manifest = folder / "tokenizer.json", complete(folder)
        if manifest and path.is_file():
            found.setdefault(
                manifest["files"]["tokenizer.json"]["sha256"], (str(manifest["base_model"]), path)
            )
    return dict(found.values())


def _sets(report: Report) -> Table:
    table = Table(title="Sets", title_justify="left")
    for column in ("set", "rows", *LABELS, "groups", "median words"):
        table.add_column(column, justify="left" if column == "set" else "right")
    for line in report.sets:
        labels = [f"{count} ({count / line.rows:.0%})" for count in line.labels]
        name = "all (split by us)" if line.name == "all" else line.name
        table.add_row(
            name, str(line.rows), *labels, str(len(line.groups) or "none"), f"{line.words:.0f}"
        )
    return table


def _list(console: Console, report: Report) -> None:
    """Groups set by set, and near copies as places: never a patient's words."""
    for line in report.sets:
        console.print(
            f"Groups of {line.name} ({len(line.groups)}): {', '.join(line.groups) or 'none'}",
            soft_wrap=True,
        )
    console.print(
        f"Pairs of nearly the same text ({len(report.alike)}){':' if report.alike else ''}"
    )
    for one, other, index in report.alike:
        console.print(f"  {index:.0%}  {one}  and  {other}", soft_wrap=True, highlight=False)


def _lengths(report: Report) -> Table:
    table = Table(title="Text lengths", title_justify="left")
    for column in ("in", "median", "95 % below", "longest", "measured on"):
        table.add_column(column, justify="left" if column == "in" else "right")
    for line in report.lengths:
        table.add_row(
            line.unit,
            f"{line.median:.0f}",
            f"{line.high:.0f}",
            str(line.longest),
            f"{line.on} texts",
        )
    return table


def _findings(report: Report) -> Table:
    table = Table(title="Checks", title_justify="left")
    for column in ("check", "found", "", "where, and what to do"):
        table.add_column(column, overflow="fold")
    for finding in report.findings:
        style = {"FAILS": "bold red", "note": "yellow"}.get(finding.verdict)
        table.add_row(finding.what, finding.found, finding.verdict, finding.remedy, style=style)
    return table
