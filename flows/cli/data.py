"""`triage data`: checks a dataset, shows its data card, and forgets what came from it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from deployments.interruptions import interrupted_by_signals
from flows.cli.clean import Yes, remove_if_told
from flows.cli.terminal import console, print_findings, print_line
from flows.report.table import Table, print_table
from tasks.corpus.prepare import CARD, dataset_folder, stored_or_temporary
from tasks.corpus.prompts import DEFAULT, load_prompt
from tasks.grids.grid import GRIDS, load_grid
from tasks.removable import matching_names, of_data, sharing_sets, unknown_data
from tasks.runtime.errors import BadInput
from tasks.runtime.home import ask, check_home, home
from tasks.runtime.shared import shared_place, without_password
from tasks.runtime.store import intact_manifest
from tasks.spec import LABELS, Data, EvaluationSet, PromptChoice, Training

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

Named = Annotated[
    str,
    typer.Argument(
        metavar="data", help="a data set: its name, name-digest or digest, or a grid that names it"
    ),
]
Asked = tuple[Data, tuple[EvaluationSet, ...], PromptChoice, int]


def request(
    source: Annotated[
        str,
        typer.Argument(
            help="embedded, a file, a folder of sets, a Hub dataset (owner/name), or a grid file"
        ),
    ] = "embedded",
    text_column: Annotated[
        str | None, typer.Option(help="column with the message (else text)")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="column with the label (else label)")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="column with the case's id, different in every row")
    ] = None,
    group_column: Annotated[
        str | None, typer.Option(help="column with the group; its cases stay in one set")
    ] = None,
    rationale_column: Annotated[
        str | None, typer.Option(help="column with the reason for the label, never in a prompt")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="another label word, e.g. emergency=ED (repeatable)")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="branch, tag or commit of a Hub dataset")
    ] = None,
) -> Asked:
    """The dataset that a command names, its evaluation sets, and the prompt: of several the first
    with examples, which are the same in all; and max_tokens. Raises BadInput.
    """
    options = {
        "revision": revision,
        "text_column": text_column,
        "label_column": label_column,
        "id_column": id_column,
        "group_column": group_column,
        "rationale_column": rationale_column,
    }
    options = {key: value for key, value in options.items() if value is not None}
    if source.endswith(".toml"):
        if options or label:
            raise BadInput(
                f"{source} is a grid, which names its columns and labels; leave the options out."
            )
        grid = load_grid(source)
        with_examples = [prompt for prompt in grid.prompts if load_prompt(prompt).examples]
        prompt = with_examples[0] if with_examples else grid.prompt
        return grid.data, grid.evaluation_sets, prompt, grid.training.max_tokens

    words: dict[str, str] = {}
    for item in label or ():
        word, _, meaning = (part.strip() for part in item.rpartition("="))
        if not word or meaning not in LABELS:
            raise BadInput(f"--label {item!r} is not of the form word=ED, word=GP or word=HOME.")
        if words.setdefault(word, meaning) != meaning:
            raise BadInput(
                f"--label maps {word!r} to {words[word]} and to {meaning}; leave one of the two out."
            )

    named_data = Data.model_validate({"source": source, "labels": words, **options})
    embedded = (EvaluationSet(name="test_adversarial", source="embedded"),)
    return named_data, embedded if source == "embedded" else (), DEFAULT, Training().max_tokens


def of_a_dataset(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `request`, whose answer is its first argument."""
    shared = inspect.signature(request, eval_str=True).parameters
    _, *own = inspect.signature(command, eval_str=True).parameters.values()

    @functools.wraps(command)
    def with_options(**options: Any) -> None:
        asked = request(**{name: options.pop(name) for name in shared})
        command(asked, **options)

    with_options.__signature__ = inspect.Signature([*shared.values(), *own])  # type: ignore[attr-defined]
    return with_options


@data.command("check")
@of_a_dataset
def data_check(
    asked: Asked,
    listing: Annotated[
        bool, typer.Option("--list", help="list each set's groups and all pairs of near copies")
    ] = False,
) -> None:
    """Check rows, labels, repeats, contradictions, leaks, and the recall that test can certify."""
    from tasks.corpus.check import check_data  # pandas comes with it

    named_data, evaluation_sets, choice, max_tokens = asked
    stored_tokenizers = tokenizers()
    prompt = load_prompt(choice)
    report = check_data(named_data, evaluation_sets, stored_tokenizers, prompt, max_tokens)
    sets = [
        {
            "set": "all (split by us)" if line.name == "all" else line.name,
            "rows": str(line.rows),
            **{
                label: f"{count} ({count / line.rows:.0%})"
                for label, count in zip(LABELS, line.labels, strict=True)
            },
            "groups": str(len(line.groups)) if line.groups else "none",
            "with ED": str(line.ed_groups) if line.groups else "none",
            "median words": f"{line.words:.0f}",
        }
        for line in report.sets
    ]
    lengths = [
        {
            "in": line.unit,
            "median": f"{line.median:.0f}",
            "95 % below": f"{line.high:.0f}",
            "longest": str(line.longest),
            "measured on": f"{line.on} texts",
        }
        for line in report.lengths
    ]
    print_table(console, Table("Sets", sets))
    print_table(console, Table("Text lengths", lengths))
    if not stored_tokenizers:
        print_line(
            console,
            f"No tokenizer is stored in {home() / 'models'} (TRIAGE_HOME sets another place), so "
            "lengths are in words; `triage sweep demo` stores one.",
        )
    if listing:  # places, never a patient's words
        for line in report.sets:
            groups = ", ".join(line.groups) or "none"
            print_line(console, f"Groups of {line.name} ({len(line.groups)}): {groups}")
        print_line(console, f"Pairs of the same text, or nearly it ({len(report.similar)}):")
        for first, second, share in report.similar:
            print_line(console, f"  {share:.0%}  {first}  and  {second}")

    print_findings(console, report.findings)
    if named_data.source != "embedded":
        print_line(
            console,
            f"A sweep copies these cases to {home() / 'data'} (TRIAGE_HOME sets another place).",
        )
    print_line(console, f"Checks that fail: {report.errors}.")
    raise typer.Exit(int(report.errors > 0))


@data.command("card")
@of_a_dataset
def data_card(asked: Asked) -> None:
    """Show the data card: what a dataset is, where it comes from, and what it cannot show."""
    named_data, evaluation_sets, *_ = asked
    root = home()
    # One that no sweep has stored is prepared for it and removed: a closed terminal must leave no
    # texts behind.
    with (
        interrupted_by_signals(),
        stored_or_temporary(named_data, root, evaluation_sets) as folder,
    ):
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
