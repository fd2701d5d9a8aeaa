"""`triage data`: checks a dataset, shows its data card, and forgets what came from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deployments.interruptions import interrupted_by_signals
from flows.cli.clean import Yes, remove_if_told
from flows.cli.terminal import console
from tasks.corpus.checks.report import CorpusReport, check_data
from tasks.corpus.checks.tally import shared_tokens
from tasks.corpus.prepare import CARD, dataset_folder, stored_or_temporary
from tasks.corpus.prompts import DEFAULT, load_prompt
from tasks.corpus.reading.sources import check_revision
from tasks.grids.grid import GRIDS, load_grid
from tasks.removable import matching_names, of_data, sharing_sets, unknown_data
from tasks.runtime.errors import BadInput
from tasks.runtime.home import ask, check_home, home
from tasks.runtime.shared import shared_place, without_password
from tasks.runtime.store import intact_manifest
from tasks.spec import LABELS, Data, EvaluationSet, PromptChoice

COLUMNS = ("text_column", "label_column", "id_column", "group_column", "rationale_column")
STYLES = {"error": "bold red", "warning": "yellow"}
SHOWN_LEVELS = {"ok": "ok", "warning": "warning", "error": "FAILS"}
STAYS = (
    "The warehouse and landing/ stay: they hold no text, and know cases by id and digest "
    "(`triage warehouse forget` removes a study's results). Base models stay too. Your own files, "
    "exports, reports, published results and backups are not looked for: delete those yourself."
)
STAYS_SHARED = (
    "What machines share in {place} (TRIAGE_SHARED) stays too, and the next sweep brings adapters "
    "back from there: delete each of them in experiments/ there yourself."
)

data = typer.Typer(
    no_args_is_help=True, help="Check a dataset, show its data card, or forget what came from it."
)

Source = Annotated[
    str,
    typer.Argument(
        help="embedded, a file, a folder of sets, a Hub dataset (owner/name), or a grid file"
    ),
]
TextColumn = Annotated[str | None, typer.Option(help="column with the message (else text)")]
LabelColumn = Annotated[str | None, typer.Option(help="column with the label (else label)")]
IdColumn = Annotated[
    str | None, typer.Option(help="column with the case's id, different in every row")
]
GroupColumn = Annotated[
    str | None, typer.Option(help="column with the group; its cases stay in one set")
]
RationaleColumn = Annotated[
    str | None, typer.Option(help="column with the reason for the label, never in a prompt")
]
Words = Annotated[
    list[str] | None,
    typer.Option("--label", help="another label word, e.g. emergency=ED (repeatable)"),
]
Revision = Annotated[str | None, typer.Option(help="branch, tag or commit of a Hub dataset")]
Listing = Annotated[
    bool, typer.Option("--list", help="list each set's groups and all pairs of near copies")
]
Named = Annotated[
    str,
    typer.Argument(
        metavar="data", help="a data set: its name, name-digest or digest, or a grid that names it"
    ),
]


@data.command("check")
def data_check(
    source: Source = "embedded",
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    id_column: IdColumn = None,
    group_column: GroupColumn = None,
    rationale_column: RationaleColumn = None,
    label: Words = None,
    revision: Revision = None,
    listing: Listing = False,
) -> None:
    """Check rows, labels, repeats, contradictions, leaks, and the recall that test can certify."""
    columns = (text_column, label_column, id_column, group_column, rationale_column)
    raise typer.Exit(check(console, request(source, columns, revision, label or []), listing))


@data.command("card")
def data_card(
    source: Source = "embedded",
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    id_column: IdColumn = None,
    group_column: GroupColumn = None,
    rationale_column: RationaleColumn = None,
    label: Words = None,
    revision: Revision = None,
) -> None:
    """Show the data card: what a dataset is, where it comes from, and what it cannot show."""
    columns = (text_column, label_column, id_column, group_column, rationale_column)
    requested = request(source, columns, revision, label or [])
    root = home()
    sources = requested.data, root, requested.evaluation_sets
    # One that no sweep has stored is prepared for it and removed: a closed terminal must leave no
    # texts behind.
    with interrupted_by_signals(), stored_or_temporary(*sources) as folder:
        text = (folder / CARD).read_text(encoding="utf-8")
    console.print(text, soft_wrap=True, end="")
    if folder.is_relative_to(root):
        console.print(f"\nFrom {folder / CARD}", soft_wrap=True)


@data.command("forget")
def data_forget(data: Named, yes: Yes = False) -> None:
    """Remove the texts, prefixes, adapters and scores that came from a data set."""
    check_home()
    root = home()
    names = matching_names(root, data)
    is_grid = data.endswith(".toml") or ask(Path.is_file, GRIDS / f"{data}.toml")
    if not names and is_grid:
        grid = load_grid(data)
        data = dataset_folder(grid.data, root, grid.evaluation_sets).name
        names = matching_names(root, data)
    if not names:
        raise unknown_data(root, data)

    notes = [STAYS]
    if place := without_password(shared_place()):
        notes.append(STAYS_SHARED.format(place=place))
    for name in sharing_sets(root, names):
        notes.append(f"The data set {name} shares sets with it and stays: forget it, too.")
    remove_if_told(root, of_data(root, names), yes, notes)


@dataclass(frozen=True)
class DataRequest:
    """The dataset and the evaluation sets that a command names, and the prompt: of several the
    first with examples, which are the same in all.
    """

    data: Data
    evaluation_sets: tuple[EvaluationSet, ...] = ()
    prompt: PromptChoice = DEFAULT


def request(
    source: str, columns: Sequence[str | None], revision: str | None, labels: Sequence[str]
) -> DataRequest:
    """The data of a grid file, or of one source with its columns.

    `columns`: a name for each of COLUMNS, None where the option is not given; `labels`: word=ED and
    so on. Raises BadInput.
    """
    settings = {"revision": revision, **dict(zip(COLUMNS, columns, strict=True))}
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

    words: dict[str, str] = {}
    for item in labels:
        word, _, label = (part.strip() for part in item.rpartition("="))
        if not word or label not in LABELS:
            raise BadInput(f"--label {item!r} is not of the form word=ED, word=GP or word=HOME.")
        if words.setdefault(word, label) != label:
            raise BadInput(
                f"--label maps {word!r} to {words[word]} and to {label}; leave one of the two out."
            )

    named_data = Data.model_validate({"source": source, "labels": words, **options})
    if source == "embedded":
        return DataRequest(named_data, (EvaluationSet(name="test_adversarial", source="embedded"),))
    return DataRequest(named_data)


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
    summaries = {0: "No check fails.", 1: "1 check fails."}
    console.print(summaries.get(report.errors, f"{report.errors} checks fail."))
    return int(report.fails)


def tokenizers() -> dict[str, Path]:
    """tokenizer.json of each distinct tokenizer of the stored models, by a base model's name."""
    by_digest: dict[str, tuple[str, Path]] = {}
    for folder in sorted((home() / "models").glob("*/")):
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
        name = "all (split by us)" if line.name == "all" else line.name
        labels = [f"{count} ({count / line.rows:.0%})" for count in line.labels]
        groups = (str(len(line.groups)), str(line.ed_groups)) if line.groups else ("none", "none")
        table.add_row(name, str(line.rows), *labels, *groups, f"{line.words:.0f}")

    return table


def _lengths(report: CorpusReport) -> Table:
    table = Table(title="Text lengths", title_justify="left")
    for column in ("in", "median", "95 % below", "longest", "measured on"):
        table.add_column(column, justify="left" if column == "in" else "right")

    for line in report.lengths:
        median = f"{line.median:.0f}"
        high = f"{line.high:.0f}"
        table.add_row(line.unit, median, high, str(line.longest), f"{line.on} texts")

    return table


def _list(console: Console, report: CorpusReport) -> None:
    """Print groups set by set, and near copies as places: never a patient's words."""
    for line in report.sets:
        groups = ", ".join(line.groups) or "none"
        console.print(f"Groups of {line.name} ({len(line.groups)}): {groups}", soft_wrap=True)

    colon = ":" if report.similar else ""
    console.print(f"Pairs of nearly the same text ({len(report.similar)}){colon}")
    for pair in report.similar:
        places = f"{pair.first}  and  {pair.second}"
        console.print(f"  {pair.similarity:.0%}  {places}", soft_wrap=True, highlight=False)


def _findings(report: CorpusReport) -> Table:
    table = Table(title="Checks", title_justify="left")
    for column in ("check", "found", "", "where, and what to do"):
        table.add_column(column, overflow="fold")

    for finding in report.findings:
        level = SHOWN_LEVELS[finding.level]
        style = STYLES.get(finding.level)
        table.add_row(finding.name, finding.detail, level, finding.remedy, style=style)

    return table
