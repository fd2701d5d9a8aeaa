"""Output of `triage data`: the report of the checks, and the data card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deployments.interruptions import interrupted_by_signals
from tasks.corpus.checks.lengths import shared_tokens
from tasks.corpus.checks.report import CorpusReport, SetLine, check_data
from tasks.corpus.prepare import CARD, stored_or_temporary
from tasks.corpus.prompts import DEFAULT, load_prompt
from tasks.corpus.reading.sources import check_revision
from tasks.grids.grid import load_grid
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.runtime.store import intact_manifest
from tasks.spec import LABELS, Data, EvaluationSet, PromptChoice

STYLES = {"error": "bold red", "warning": "yellow"}
SHOWN_LEVELS = {"ok": "ok", "warning": "warning", "error": "FAILS"}


@dataclass(frozen=True)
class DataRequest:
    """The dataset and the evaluation sets that a command names, and the prompt: of several the
    first with examples, which are the same in all.
    """

    data: Data
    evaluation_sets: tuple[EvaluationSet, ...] = ()
    prompt: PromptChoice = DEFAULT


def request(source: str, settings: dict[str, str | None], labels: list[str]) -> DataRequest:
    """The data of a grid file, or of one source with its columns.

    `settings`: those of `[data]` by name, None where an option is not given; `labels`: word=ED and
    so on. Raises BadInput.
    """
    options = {key: value for key, value in settings.items() if value is not None}
    if source.endswith(".toml"):
        if options or labels:
            raise BadInput(
                f"{source} is a grid, which names its columns and labels; leave the options out."
            )
        grid = load_grid(source)
        with_examples = [prompt for prompt in grid.prompts if load_prompt(prompt).examples]
        prompt = with_examples[0] if with_examples else grid.prompt
        return DataRequest(grid.data, grid.evaluation_sets, prompt)

    if "revision" in options:
        check_revision(source)

    data = Data.model_validate({"source": source, "labels": _label_words(labels), **options})
    if source == "embedded":
        adversarial = EvaluationSet(name="test_adversarial", source="embedded")
        return DataRequest(data, (adversarial,))

    return DataRequest(data)


def _label_words(labels: list[str]) -> dict[str, str]:
    """The label of each word of the options `--label word=ED`."""
    words: dict[str, str] = {}
    for item in labels:
        word, _, label = (part.strip() for part in item.rpartition("="))
        if not word or label not in LABELS:
            raise BadInput(f"--label {item!r} is not of the form word=ED, word=GP or word=HOME.")
        if words.setdefault(word, label) != label:
            raise BadInput(
                f"--label maps {word!r} to {words[word]} and to {label}; leave one of the two out."
            )

    return words


def check(console: Console, requested: DataRequest, listing: bool = False) -> int:
    """Print the report and return the exit code: 1 if a check fails, else 0.

    With `listing` every group of each set and every pair of near copies is printed too.
    """
    stored_tokenizers = tokenizers()
    prompt = load_prompt(requested.prompt)
    report = check_data(requested.data, requested.evaluation_sets, stored_tokenizers, prompt)
    console.print(_sets(report))
    console.print(_lengths(report))
    if prompt.examples:
        console.print(shared_tokens(prompt, stored_tokenizers), soft_wrap=True)

    if not stored_tokenizers:
        console.print(
            f"No tokenizer is stored in {home() / 'models'} (TRIAGE_HOME sets another place), so "
            "lengths are in words; `triage sweep demo` stores one.",
            soft_wrap=True,
        )

    if listing:
        _list(console, report)

    console.print(_findings(report))
    if requested.data.source != "embedded":
        console.print(
            f"A sweep copies these cases to {home() / 'data'} (TRIAGE_HOME sets another place).",
            soft_wrap=True,
        )

    console.print(_summary(report.errors))

    return int(report.fails)


def _summary(errors: int) -> str:
    if not errors:
        return "No check fails."
    return "1 check fails." if errors == 1 else f"{errors} checks fail."


def card(console: Console, requested: DataRequest) -> None:
    """Print the data card of a dataset. One that no sweep has stored
    is prepared for it and removed.
    """
    root = home()
    sources = requested.data, root, requested.evaluation_sets
    # A closed terminal must leave no texts behind.
    with interrupted_by_signals(), stored_or_temporary(*sources) as folder:
        text = (folder / CARD).read_text(encoding="utf-8")
    console.print(text, soft_wrap=True, end="")
    if folder.is_relative_to(root):
        console.print(f"\nFrom {folder / CARD}", soft_wrap=True)


def tokenizers() -> dict[str, Path]:
    """tokenizer.json of each distinct tokenizer of the stored models, by a base model's name."""
    by_digest: dict[str, tuple[str, Path]] = {}
    models = home() / "models"
    for folder in sorted(models.iterdir()) if models.is_dir() else []:
        path = folder / "tokenizer.json"
        manifest = intact_manifest(folder)
        if manifest and path.is_file():
            digest = manifest["files"]["tokenizer.json"]["sha256"]
            # The variants of a base model all have its tokenizer: one is enough.
            by_digest.setdefault(digest, (str(manifest["base_model"]), path))

    return dict(by_digest.values())


def _sets(report: CorpusReport) -> Table:
    table = Table(title="Sets", title_justify="left")
    for column in ("set", "rows", *LABELS, "groups", "with ED", "median words"):
        table.add_column(column, justify="left" if column == "set" else "right")
    for line in report.sets:
        table.add_row(*_set_cells(line))

    return table


def _set_cells(line: SetLine) -> list[str]:
    name = "all (split by us)" if line.name == "all" else line.name
    labels = [f"{count} ({count / line.rows:.0%})" for count in line.labels]
    groups = ["none", "none"] if not line.groups else [str(len(line.groups)), str(line.ed_groups)]
    return [name, str(line.rows), *labels, *groups, f"{line.words:.0f}"]


def _list(console: Console, report: CorpusReport) -> None:
    """Print groups set by set, and near copies as places: never a patient's words."""
    for line in report.sets:
        groups = ", ".join(line.groups) or "none"
        console.print(f"Groups of {line.name} ({len(line.groups)}): {groups}", soft_wrap=True)

    colon = ":" if report.similar else ""
    console.print(f"Pairs of nearly the same text ({len(report.similar)}){colon}")

    for pair in report.similar:
        console.print(
            f"  {pair.similarity:.0%}  {pair.first}  and  {pair.second}",
            soft_wrap=True,
            highlight=False,
        )


def _lengths(report: CorpusReport) -> Table:
    table = Table(title="Text lengths", title_justify="left")
    for column in ("in", "median", "95 % below", "longest", "measured on"):
        table.add_column(column, justify="left" if column == "in" else "right")

    for line in report.lengths:
        median = f"{line.median:.0f}"
        high = f"{line.high:.0f}"
        table.add_row(line.unit, median, high, str(line.longest), f"{line.on} texts")

    return table


def _findings(report: CorpusReport) -> Table:
    table = Table(title="Checks", title_justify="left")
    for column in ("check", "found", "", "where, and what to do"):
        table.add_column(column, overflow="fold")

    for finding in report.findings:
        table.add_row(
            finding.name,
            finding.detail,
            SHOWN_LEVELS[finding.level],
            finding.remedy,
            style=STYLES.get(finding.level),
        )

    return table
