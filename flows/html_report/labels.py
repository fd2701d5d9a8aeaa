"""Names of experiments as charts have room for them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

from flows.report.names import RANDOM

LABEL_LENGTH = 26  # characters
LEAST_OF_NAME = 9  # characters of a recipe's name by which it is recognised
# Where a line of a label ends, the best place first: it fits, before brackets, at a space or behind
# an underscore, where there is no more room.
_ENDS = ("$", r"(?= \()", "(?:(?= )|(?<=_))", "")
_LINE = re.compile(" ?(" + "|".join(f".{{1,{LABEL_LENGTH}}}{end}" for end in _ENDS) + ")")


def chart_labels(names: Collection[str]) -> dict[str, str]:
    """The label of each experiment of a chart, by its name on two lines: the second one shortened,
    or the whole name where two experiments would have the same label.
    """
    labels = {name: _label(name) for name in names}
    counts = Counter(labels.values())
    return {name: label if counts[label] == 1 else name for name, label in labels.items()}


def _label(name: str) -> str:
    first, _, second = name.partition("\n")
    return f"{first}\n{shortened(second)}"


def shortened(text: str) -> str:
    """A recipe with its seed, not longer than a chart has room for: the middle of the recipe's name
    goes first, since the precision behind it, the seed and the prompt tell models apart. The mark
    of random weights comes on top.
    """
    if text.endswith(RANDOM):
        return shortened(text.removesuffix(RANDOM)) + RANDOM

    plain = text.replace(" (zero-shot)", "").replace("zero-shot, ", "")
    name, space, rest = plain.partition(" ")
    room = LABEL_LENGTH - len(space + rest)
    if len(name) <= room:
        return plain
    if room < LEAST_OF_NAME:
        return f"{plain[: LABEL_LENGTH - 1]}…"
    return f"{name[: room - 5]}…{name[-4:]}{space}{rest}"


def in_lines(label: str) -> str:
    """A label in lines that a chart has room for."""
    return "\n".join(part for line in label.split("\n") for part in _LINE.findall(line))
