"""`triage predict EXPERIMENT -`: a model in a child process, texts through its pipe, and answers as
they come: JSON lines, or a table for a person.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Literal, TextIO

import typer

from deployments.interruptions import INTERRUPTED, interrupted_by_signals
from flows.cli.experiments import find_model
from flows.cli.terminal import (
    discard_the_rest,
    errors,
    output_error,
    print_error,
    print_line,
    printable,
    refuse_existing,
)
from flows.report.figures import counted, percent
from tasks.bundle.asking import (
    FUNCTION,
    MOST_BYTES,
    AskedModel,
    Decision,
    answer,
    conformal_notes,
    decision_of,
    decoded_text,
    in_use,
    numbered_texts,
    why_no_decision,
    why_no_review,
)
from tasks.bundle.bundle import Bundle
from tasks.runtime.children import forked_steps, import_ahead, stop_children
from tasks.runtime.conversation import Answered
from tasks.runtime.errors import BadInput, disk_error
from tasks.spec import LABELS

AHEAD = 16  # texts that are sent before the first of them is answered
ID_WIDTH = 32
COLUMNS = f"{'case':<{ID_WIDTH}} {'decision':<9}" + "".join(f"{f'p({x})':>9}" for x in LABELS)
NamedText = tuple[str | None, str]  # the case's id in a file, None for the only text; the text
Show = Callable[[str | None, Decision], None]  # the case's id, None for the only text

Model = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="a cell, training or evaluation id, the beginning of one, or an exported folder",
    ),
]
Source = Annotated[
    str | None, typer.Argument(metavar="-", help="read one text from standard input")
]
File = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="one text for each row of a .jsonl, .csv or .parquet file"),
]
Column = Annotated[str, typer.Option(help="column of the texts in the file")]
Passes = Annotated[
    int | None,
    typer.Option(min=2, max=1000, metavar="N", help="dropout passes for the review flag, e.g. 50"),
]
Format = Annotated[
    Literal["table", "jsonl"] | None,
    typer.Option("--format", help="jsonl has all digits; table is the default on a terminal"),
]
Output = Annotated[
    Path | None, typer.Option(metavar="FILE", help="write to a new file, answer by answer")
]


def predict(
    experiment: Model,
    source: Source = None,
    file: File = None,
    text_column: Column = "text",
    passes: Passes = None,
    output_format: Format = None,
    output: Output = None,
) -> None:
    """Ask a trained model about a text, or about each text of a file."""
    if source not in (None, "-"):
        raise BadInput(
            "A text is not given as an argument, which the shell would keep in its history; "
            "write - and give it on standard input, or name a file with --file."
        )
    if (source is None) == (file is None):
        raise BadInput(
            "Give either - to read a text from standard input, or --file with a file of texts."
        )
    if output is not None:
        refuse_existing(output)

    # As asked, else by the file's name, else a table for a person.
    is_for_a_person = output.suffix == ".txt" if output else sys.stdout.isatty()
    form = output_format or ("table" if is_for_a_person else "jsonl")
    answer_count = 0
    with interrupted_by_signals():
        try:
            # What is wrong with the texts is said before a model is loaded.
            count, texts = _texts(file, text_column)
            with forked_steps(FUNCTION.partition(":")[0]), ExitStack() as stack:
                # The model's process imports what it needs while the model is looked up.
                import_ahead()
                bundled = find_model(experiment)
                stack.enter_context(in_use(bundled, "predict"))
                model = stack.enter_context(AskedModel(bundled, passes))
                target = _opened(output, stack)
                if output is not None:
                    # A file that got no answer is removed, so that the next try may make it.
                    stack.callback(lambda: None if answer_count else output.unlink(missing_ok=True))

                with writing(target, output):
                    show = WRITERS[form](model.bundle, file is not None, target)
                advance = stack.enter_context(_progress(count))
                for case_id, decision in answers(model.ask, texts):
                    with writing(target, output):
                        show(case_id, decision)
                    answer_count += 1
                    advance()
        except KeyboardInterrupt:
            stop_children()
            print_error(f"Interrupted after {counted(answer_count, 'answer')}.")
            raise SystemExit(INTERRUPTED) from None

    if output is not None:
        print_line(errors, f"{counted(answer_count, 'answer')} in {output}")


def _texts(file: Path | None, column: str) -> tuple[int, Iterable[NamedText]]:
    """How many texts there are, and these: of a file, which is read once to see that each can be
    used, and again one by one, or that of standard input.
    """
    if file is not None:
        return sum(1 for _ in numbered_texts(file, column)), numbered_texts(file, column)

    data = b""  # standard input may be closed
    if sys.stdin is not None:
        if sys.stdin.isatty():
            print_line(errors, "Write the text, then Ctrl-D on a line of its own.")
        # A byte order mark has three bytes, and one byte more shows that the text is too large.
        data = sys.stdin.buffer.read(MOST_BYTES + 4)
    return 1, [(None, decoded_text(data))]


def _opened(output: Path | None, stack: ExitStack) -> TextIO:
    """The new file, until the stack ends, or standard output."""
    if output is None:
        return sys.stdout
    try:
        return stack.enter_context(output.open("x", encoding="utf-8"))
    except OSError as error:
        raise disk_error(error, output) from error


def answers(
    ask: Callable[[str], Answered], texts: Iterable[NamedText]
) -> Iterator[tuple[str | None, Decision]]:
    """The decision on each text, in their order; the next ones wait in the pipe meanwhile."""
    pending_answers: deque[tuple[str | None, Answered]] = deque()
    for case_id, text in texts:
        pending_answers.append((case_id, ask(text)))
        if len(pending_answers) >= AHEAD:
            name, answered = pending_answers.popleft()
            yield name, decision_of(answered)

    for name, answered in pending_answers:
        yield name, decision_of(answered)


@contextmanager
def writing(file: TextIO, output: Path | None) -> Iterator[None]:
    """What the file system refuses in the block is a sentence. `output`: None for standard output."""
    try:
        yield
    except OSError as error:
        discard_the_rest(file)
        raise (disk_error(error, output) if output else output_error(error)) from None


@contextmanager
def _progress(count: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error, if that is a terminal and there is more than one text."""
    if count == 1 or not errors.is_terminal:
        yield lambda: None
        return

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task("texts", total=count)
        yield lambda: progress.advance(task)


def json_lines(bundle: Bundle, many: bool, file: TextIO) -> Show:
    """One JSON object a line, with all digits."""

    def show(case_id: str | None, decision: Decision) -> None:
        case_fields = {"case_id": case_id} if many else {}
        file.write(json.dumps(case_fields | answer(bundle, decision), ensure_ascii=True) + "\n")
        file.flush()

    return show


def table(bundle: Bundle, many: bool, file: TextIO) -> Show:
    """One text: its answer in lines. Many: a row each, under what must be known with all of them."""

    def write(lines: list[str]) -> None:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()

    # The model, and the sentences that stand with every answer.
    model = f"{bundle.model_id}, rule {bundle.rule.name}, {bundle.verdict}"
    about = [line for line in (model, bundle.warning, bundle.notice) if line]
    if not many:
        return lambda case_id, decision: write([*_lines(bundle, decision), "", *about])

    rule_notes = [] if bundle.rule.is_available else [why_no_decision(bundle)]
    head = f"{COLUMNS}  conformal set   review"
    write([*about, *rule_notes, *conformal_notes(bundle), "", head])
    return lambda case_id, decision: write([_row(bundle, case_id or "", decision)])


WRITERS: dict[str, Callable[[Bundle, bool, TextIO], Show]] = {"table": table, "jsonl": json_lines}


def _lines(bundle: Bundle, decision: Decision) -> list[str]:
    fields = answer(bundle, decision)
    p = ", ".join(f"{label} {value:.4f}" for label, value in fields["probabilities"].items())
    missed = f"aims to miss at most {percent(bundle.conformal.miss_rate)} of emergencies"
    review = why_no_review(bundle, decision.passes) or "not available"
    if decision.review is not None:
        review = _review(decision)
    return [
        f"decision       {decision.label or 'not available'}",
        f"probabilities  {p}",
        f"conformal set  {_set(decision)} ({missed})",
        f"review         {review}",
        *(f"note           {note}" for note in fields["notes"]),
    ]


def _row(bundle: Bundle, case_id: str, decision: Decision) -> str:
    name = printable(case_id).replace("\n", " ")[:ID_WIDTH]
    p = "".join(f"{value:9.4f}" for value in decision.probabilities)
    review = "not available" if decision.review is None else _review(decision)
    marks = {"unsafe": bundle.warning, "shortened": decision.shortened, "markup": decision.markup}
    words = "".join(f"  {mark}" for mark, is_set in marks.items() if is_set)
    label = decision.label or "none"
    return f"{name:<{ID_WIDTH}} {label:<9}{p}  {_set(decision):<15} {review}{words}"


def _set(decision: Decision) -> str:
    return " ".join(decision.conformal_set) or "empty"


def _review(decision: Decision) -> str:
    entropy = f"vote entropy {decision.vote_entropy:.3f} nats, {decision.passes} passes"
    return f"{'yes' if decision.review else 'no'} ({entropy})"
