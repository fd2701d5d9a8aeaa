"""What `triage predict` does: a model in a child process, texts through
its pipe, answers as they come.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from deployments.interruptions import INTERRUPTED, interrupted_by_signals
from flows.cli.models.find_model import find_model
from flows.cli.models.predict_output import WRITERS, Writer
from flows.cli.standard_output import discard_the_rest, output_error
from flows.cli.terminal import errors, print_error, print_line, refuse_existing
from flows.report.figures import counted
from tasks.bundle.asking import (
    FUNCTION,
    MOST_BYTES,
    AskedModel,
    decision_of,
    decoded_text,
    in_use,
    numbered_texts,
)
from tasks.bundle.decision import Decision
from tasks.runtime.children import stop_children
from tasks.runtime.conversation import Answered
from tasks.runtime.errors import BadInput, disk_error
from tasks.runtime.processes import forked_steps, import_ahead

AHEAD = 16  # texts that are sent before the first of them is answered
NamedText = tuple[str | None, str]  # the case's id in a file, and its text


@dataclass(frozen=True)
class PredictRequest:
    """The options of `triage predict`."""

    experiment: str
    source: str | None
    file: Path | None
    text_column: str
    passes: int | None
    output_format: Literal["table", "jsonl"] | None
    output: Path | None

    def check(self) -> None:
        """Raise BadInput unless there is one source of texts, and room for the answers."""
        if self.source not in (None, "-"):
            raise BadInput(
                "A text is not given as an argument, which the shell would keep in its history; "
                "write - and give it on standard input, or name a file with --file."
            )
        if (self.source is None) == (self.file is None):
            raise BadInput(
                "Give either - to read a text from standard input, or --file with a file of texts."
            )

        if self.output is not None:
            refuse_existing(self.output)

    @property
    def writer(self) -> Writer:
        """The form of the answers: as asked, else by the file's name, else a table for a person."""
        if self.output_format is not None:
            return WRITERS[self.output_format]
        if self.output is not None:
            return WRITERS["table" if self.output.suffix == ".txt" else "jsonl"]
        return WRITERS["table" if sys.stdout.isatty() else "jsonl"]


def run_predict(request: PredictRequest) -> int:
    """Answer the texts of a request; returns the exit code. Raises BadInput."""
    request.check()
    answer_count = 0
    with interrupted_by_signals():
        try:
            # What is wrong with the texts is said before a model is loaded.
            for count in _write_answers(request, _texts(request)):
                answer_count = count
        except KeyboardInterrupt:
            stop_children()
            print_error(f"Interrupted after {counted(answer_count, 'answer')}.")
            return INTERRUPTED

    if request.output is not None:
        print_line(errors, f"{counted(answer_count, 'answer')} in {request.output}")
    return 0


def _write_answers(request: PredictRequest, texts: _Texts) -> Iterator[int]:
    """Show the answer to each text; yields how many there are so far."""
    answer_count = 0
    with forked_steps(FUNCTION.partition(":")[0]), ExitStack() as stack:
        # The model's process imports what it needs while the model is looked up.
        import_ahead()
        bundled = find_model(request.experiment)
        stack.enter_context(in_use(bundled, "predict"))
        model = stack.enter_context(AskedModel(bundled, request.passes))
        file = _file(request, stack, lambda: answer_count == 0)
        with _writing(file, request.output):
            show = request.writer(model.bundle, request.file is not None, file)
        advance = stack.enter_context(_progress(texts.count))

        for case_id, decision in answers(model.ask, texts.rows()):
            with _writing(file, request.output):
                show(case_id, decision)
            answer_count += 1
            advance()
            yield answer_count


@dataclass(frozen=True)
class _Texts:
    """How many texts there are, and a way to read them."""

    count: int
    rows: Callable[[], Iterable[NamedText]]


def _texts(request: PredictRequest) -> _Texts:
    return _counted_texts(request.file, request.text_column) if request.file else _only_text()


def _only_text() -> _Texts:
    text = decoded_text(_standard_input())
    return _Texts(1, lambda: [(None, text)])


def _standard_input() -> bytes:
    """Its first bytes, enough to see that a text is too large; none where it is closed."""
    if sys.stdin is None:
        return b""
    if sys.stdin.isatty():
        print_line(errors, "Write the text, then Ctrl-D on a line of its own.")
    # A byte order mark has three bytes, and one byte more shows that the text is too large.
    return sys.stdin.buffer.read(MOST_BYTES + 4)


def _counted_texts(path: Path, column: str) -> _Texts:
    """The texts of a file, read once to see that each can be used, and again one by one."""
    count = sum(1 for _ in numbered_texts(path, column))
    return _Texts(count, lambda: numbered_texts(path, column))


def answers(
    ask: Callable[[str], Answered], texts: Iterable[NamedText]
) -> Iterator[tuple[str | None, Decision]]:
    """The decision on each text, in their order; the next ones wait in the pipe meanwhile."""
    pending_answers: deque[tuple[str | None, Answered]] = deque()
    for case_id, text in texts:
        pending_answers.append((case_id, ask(text)))
        if len(pending_answers) >= AHEAD:
            name, answer = pending_answers.popleft()
            yield name, decision_of(answer)

    for name, answer in pending_answers:
        yield name, decision_of(answer)


def _file(request: PredictRequest, stack: ExitStack, is_empty: Callable[[], bool]) -> TextIO:
    """Where answers go; a file that got none is removed, so that the next try may make it."""
    output = request.output
    if output is None:
        return sys.stdout

    try:
        file = stack.enter_context(output.open("x", encoding="utf-8"))
    except OSError as error:
        raise disk_error(error, output) from error

    stack.callback(lambda: output.unlink(missing_ok=True) if is_empty() else None)
    return file


@contextmanager
def _writing(file: TextIO, output: Path | None) -> Iterator[None]:
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
