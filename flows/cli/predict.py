"""`triage predict EXPERIMENT -`: a model in a child process, texts through its pipe, and answers as
they come: JSON lines, or a table for a person.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Literal, TextIO

import typer

from deployments.interruptions import INTERRUPTED, interrupted_by_signals
from flows.cli.experiments import find_model
from flows.cli.terminal import (
    Precision,
    discard_the_rest,
    errors,
    output_error,
    print_error,
    print_line,
    printable,
    refuse_existing,
)
from flows.report.figures import percent
from tasks.bundle.asking import (
    MOST_BYTES,
    AskedModel,
    Decision,
    answer,
    decision_of,
    decoded_text,
    in_use,
    numbered_texts,
)
from tasks.bundle.bundle import Bundle
from tasks.runtime.children import stop_children
from tasks.runtime.conversation import Answered
from tasks.runtime.errors import BadInput, disk_error

AHEAD = 16  # texts that are sent before the first of them is answered
NamedText = tuple[str | None, str]  # the case's id in a file, None for the only text; the text
Show = Callable[[str | None, Decision], None]

Model = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="name of an experiment, or an id, the beginning of one, or an exported folder",
    ),
]
Source = Annotated[
    str | None, typer.Argument(metavar="-", help="read one text from standard input")
]
File = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="one text a row: .jsonl, .csv, .tsv or .parquet"),
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
    precision: Precision = None,
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
    write = WRITERS[output_format or ("table" if is_for_a_person else "jsonl")]
    answer_count = 0
    is_opened = False
    with interrupted_by_signals():
        try:
            # What is wrong with the texts is said before a model is loaded. A file is read once to
            # see that each text can be used, and again one by one.
            texts: Iterable[NamedText]
            if file is None:
                count, texts = 1, [(None, _standard_input())]
            else:
                count = sum(1 for _ in numbered_texts(file, text_column))
                texts = numbered_texts(file, text_column)
            bundled = find_model(experiment, precision)
            with (
                in_use(bundled, "predict"),
                AskedModel(bundled, passes, "predict") as model,
                _writing(output) as target,
            ):
                is_opened = True
                show = write(model.bundle, file is not None, target)
                for case_id, decision in _tracked(answers(model.ask, texts), count):
                    show(case_id, decision)
                    answer_count += 1
        except KeyboardInterrupt:
            stop_children()
            print_error(f"Interrupted. Answers so far: {answer_count}.")
            raise SystemExit(INTERRUPTED) from None
        finally:
            # So that the next try may make it; a file of another command stays.
            if output is not None and is_opened and not answer_count:
                output.unlink(missing_ok=True)

    if output is not None:
        print_line(errors, f"{answer_count} answers in {output}")


def _standard_input() -> str:
    if sys.stdin is None:  # it may be closed
        return decoded_text(b"")
    if sys.stdin.isatty():
        print_line(errors, "Write the text, then Ctrl-D on a line of its own.")
    # A byte order mark has three bytes, and one byte more shows that the text is too large.
    return decoded_text(sys.stdin.buffer.read(MOST_BYTES + 4))


def _tracked(
    decisions: Iterable[tuple[str | None, Decision]], count: int
) -> Iterable[tuple[str | None, Decision]]:
    """The same, with a bar on standard error, if that is a terminal and there is more than one."""
    if count == 1 or not errors.is_terminal:
        return decisions
    from rich.progress import track

    return track(decisions, "texts", count, console=errors, transient=True)


def answers(
    ask: Callable[[str], Answered], texts: Iterable[NamedText]
) -> Iterator[tuple[str | None, Decision]]:
    """The decision on each text, in their order; the next ones wait in the pipe meanwhile."""
    pending: deque[tuple[str | None, Answered]] = deque()
    for case_id, text in texts:
        pending.append((case_id, ask(text)))
        if len(pending) >= AHEAD:
            name, answered = pending.popleft()
            yield name, decision_of(answered)
    for name, answered in pending:
        yield name, decision_of(answered)


@contextmanager
def _writing(output: Path | None) -> Iterator[TextIO]:
    """The new file `output`, or standard output; what refuses to be written is a sentence."""
    file = sys.stdout
    try:
        with output.open("x", encoding="utf-8") if output else nullcontext(file) as file:
            try:
                yield file
            except OSError:
                discard_the_rest(file)
                raise
    except OSError as error:
        raise (disk_error(error, output) if output else output_error(error)) from None


def json_lines(bundle: Bundle, many: bool, file: TextIO) -> Show:
    """One JSON object a line, with all digits."""

    def show(case_id: str | None, decision: Decision) -> None:
        case_fields = {"case_id": case_id} if many else {}
        file.write(json.dumps(case_fields | answer(bundle, decision), ensure_ascii=True) + "\n")
        file.flush()

    return show


def table(bundle: Bundle, many: bool, file: TextIO) -> Show:
    """What must be known with every answer, then the answer to each text in lines."""

    def write(lines: list[str | None]) -> None:
        file.write("".join(f"{line}\n" for line in lines if line is not None))
        file.flush()

    def show(case_id: str | None, decision: Decision) -> None:
        fields = answer(bundle, decision)
        p = ", ".join(f"{label} {value:.4f}" for label, value in fields["probabilities"].items())
        missed = f"aims to miss at most {percent(bundle.conformal.miss_rate)} of emergencies"
        review = fields["review_note"]
        if decision.review is not None:
            entropy = f"vote entropy {decision.vote_entropy:.3f} nats, {decision.passes} passes"
            review = f"{'yes' if decision.review else 'no'} ({entropy})"
        write(
            [
                "",
                f"case           {printable(case_id)}" if case_id is not None else None,
                f"decision       {decision.label or 'not available'}",
                f"probabilities  {p}",
                f"conformal set  {' '.join(decision.conformal_set) or 'empty'} ({missed})",
                f"review         {review}",
                *(f"note           {note}" for note in fields["notes"]),
            ]
        )

    model = f"{bundle.model_id}, rule {bundle.rule.name}, {bundle.verdict}"
    write([model, bundle.warning, bundle.notice])
    return show


WRITERS: dict[str, Callable[[Bundle, bool, TextIO], Show]] = {"table": table, "jsonl": json_lines}
