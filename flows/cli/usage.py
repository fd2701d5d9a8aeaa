"""The sentence for a mistake in what was typed: what the parser says, and
what helps with this very mistake.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from tasks.runtime.paths import ask

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
    if "unexpected extra argument" in text:
        if command in TEXT_AS_WORDS:
            return TEXT_AS_WORDS[command]
        return (
            f"{text.replace('argument(s)', 'argument')}; {_for_more_words(error, command, typed)}."
        )
    if "Did you mean" in text or "Possible options" in text:
        return text if text.endswith("?") else f"{text}."
    if text.startswith(("No such", "Missing")):
        return f"{text}; see {command} -h."

    return f"{text}."


def _for_more_words(error: Any, command: str, typed: list[str]) -> str:
    if command in MORE_WORDS:
        return MORE_WORDS[command]
    if _holds_a_path(typed):
        return "put quotes around a path with spaces"
    usage = " ".join(error.ctx.command.collect_usage_pieces(error.ctx))
    return f"it is {command} {usage}"


def _holds_a_path(typed: list[str]) -> bool:
    """Whether words that follow each other seem to be one path, which the shell took apart."""
    pairs = itertools.pairwise(typed)
    words = [word for word in typed[1:] if "=" not in word]
    looks_so = any("/" in word or Path(word).suffix for word in words)
    return looks_so or any(
        ask(Path.exists, Path(f"{first_word} {next_word}")) for first_word, next_word in pairs
    )
