"""The sentence for a mistake in what was typed: what the parser says, and what helps with this very
mistake. A command that left is refused with the name of what took its place.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from tasks.runtime.home import ask

# Commands of 0.1 as they were typed behind `triage`, and what is typed instead.
REMOVED = {
    "bench": "in a clone, uv run python -m tests.bench.NAME measures; triage doctor --selftest "
    "checks this machine",
    "cache": "triage clean removes what no result needs",
    "cache explain": "ingredients.json in a training's folder says what it was made from",
    "cache prune": "triage clean does it",
    "claims": "triage sql claims measures them",
    "fleet": "the page of the Prefect server shows the workers of each pool",
    "forget": "triage data forget DATA does it",
    "join": "uv run prefect worker start --pool NAME --limit 1 lets a machine work for a pool",
    "studies": "triage warehouse studies lists them, triage warehouse forget STUDY removes one",
    "studies compare": "triage warehouse studies A B shows two side by side",
    "studies forget": "triage warehouse forget STUDY does it",
    "warehouse publish": "copy the file triage.duckdb, or write rows with triage sql QUERY --output "
    "FILE",
}
# Advice for one more word than a command takes, where quotes were forgotten.
MORE_WORDS = {"triage sql": "put quotes around the whole query"}
# Commands whose further words may be a patient's text, which is not repeated.
TEXT_AS_WORDS = {
    "triage predict": "A text is not given as an argument: write - and give it on standard input, or "
    "name a file with --file."
}


def usage_sentence(error: Any, typed: list[str]) -> str:
    """`error`: a UsageError of click, or of the copy of it that typer
    brings; `typed`: the arguments.
    """
    text = error.format_message().replace("Value error, ", "").rstrip(".")
    command = error.ctx.command_path if error.ctx else "triage"
    if text.startswith("No such command") and (sentence := removed_sentence(typed)):
        return sentence
    if "unexpected extra argument" in text:
        if command in TEXT_AS_WORDS:
            return TEXT_AS_WORDS[command]
        usage = " ".join(error.ctx.command.collect_usage_pieces(error.ctx))
        advice = MORE_WORDS.get(command, f"it is {command} {usage}")
        if command not in MORE_WORDS and _holds_a_path(typed):
            advice = "put quotes around a path with spaces"
        return f"{text.replace('argument(s)', 'argument')}; {advice}."
    if "Did you mean" in text or "Possible options" in text:
        return text if text.endswith("?") else f"{text}."
    if text.startswith(("No such", "Missing")):
        return f"{text}; see {command} -h."

    return f"{text}."


def removed_sentence(typed: list[str]) -> str | None:
    """What to type instead of a command that left, by its two first words or the first; None for
    any other.
    """
    words = [word for word in typed if not word.startswith("-")][:2]
    for name in (" ".join(words), *words[:1]):
        if name in REMOVED:
            return f"triage {name} has left: {REMOVED[name]}."
    return None


def _holds_a_path(typed: list[str]) -> bool:
    """Whether words that follow each other seem to be one path, which the shell took apart."""
    pairs = itertools.pairwise(typed)
    words = [word for word in typed[1:] if "=" not in word]
    looks_so = any("/" in word or Path(word).suffix for word in words)
    return looks_so or any(
        ask(Path.exists, Path(f"{first_word} {next_word}")) for first_word, next_word in pairs
    )
