"""One row of a user's table as a case: its columns, its label word and its text. Every error names the
reason and the remedy, and shows nothing that may be a patient's words; `tables.py` adds the place.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tasks.corpus.case import Case, can_be_encoded, is_blank, listed, normal_text, text_digest
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, Columns, EvaluationSet, Label

Row = dict[str, Any]
"""The values of a row by column name, of any type that a file can hold."""
NamedColumn = tuple[str, str]
"""A column of the table, and the setting of a grid for it, with the option of `triage data`."""

ID_COLUMNS = ("case_id", "id")
# Characters of an id, a group or a subgroup. The warehouse and reports have them, and a patient's text
# must not come there.
LONGEST = 100
WHOLE = re.compile(r"(-?[0-9]+)\.0+")

# What an error may repeat. A longer word or number, or several words, may be a patient's.
LONGEST_NAME = 60  # characters of a column that stands beside one that the user names
COLUMN_NAME = re.compile(r"[\w-]{1,40}")
MOST_DIGITS_OF_NAME = 4  # a year
LONGEST_LABEL = 20  # characters of an unknown label
MOST_DIGITS_OF_LABEL = 2
# Characters. A script without capitals writes a sentence in a few of them, often without spaces.
LONGEST_WITHOUT_CAPITALS = 4
# What labels of several words are made of: no word of a complaint.
WORDS_OF_LABELS = """
a amber ambulance and appointment asap black blue call care category class day days department
doctor ed emergency er esi for gp green group here high home hospital immediate in less level
life low medium moderate non normal not now nurse of on or orange pharmacy practice primary
priority red routine see seen self semi severity soon standard stay the threatening to today
tomorrow triage urgency urgent very visit wait week within yellow
"""

# What columns are named by, beside the words of labels: no word of a complaint.
WORDS_OF_COLUMNS = f"""{WORDS_OF_LABELS}
age case chief code comment complaint content date decision description diagnosis disposition final
free freetext gold group id input key kind label labels line message messages name narrative no note
notes nr number original outcome patient presenting question rationale reason record remark reviewer
row s set sex site source subgroup summary symptoms target text time title topic type value words year years
"""


class RowReader:
    """Turns rows with these columns into cases. Raises BadInput for contradicting label words."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.words = label_words(columns)
        self.unknown: Counter[str] = Counter()  # rows of each other word that may be shown
        # The columns that every row must have, and those that a row may lack, but not all of a file.
        self.required: list[NamedColumn] = []
        self.optional = [(name, "one of subgroup_columns") for name in columns.subgroup_columns]
        for kind in ("text", "label", "id", "group", "rationale"):
            if name := getattr(columns, f"{kind}_column"):
                of = self.optional if kind == "rationale" else self.required
                of.append((name, f"{kind}_column (--{kind}-column)"))

    def case(self, row: Row) -> Case:
        """The case of a row with all required columns. Raises BadInput."""
        columns = self.columns
        text = self.text(row)
        group = _short(row, columns.group_column or "group", "group_column")
        rationale = ""
        if columns.rationale_column:
            rationale = _scalar(row, columns.rationale_column)

        subgroup = {}
        for column in columns.subgroup_columns:
            if name := without_zero_decimals(_short(row, column, "subgroup_columns")):
                subgroup[column] = name

        return Case(
            case_id=self.case_id(row) or f"text-{text_digest(text)}",
            text=text,
            label=self._label(row),
            group=without_zero_decimals(group) or None,
            subgroup=subgroup,
            rationale=rationale or None,
        )

    def text(self, row: Row) -> str:
        """The text of a row, without space around it."""
        column = self.columns.text_column
        value = row[column]
        if not isinstance(value, str):
            raise BadInput(
                f"'{column}' is no text but {type(value).__name__}; write it as one string."
            )

        text = _checked(value.strip())
        if is_blank(text):
            raise BadInput(f"'{column}' is empty; fill it in or delete the row.")
        return text

    def case_id(self, row: Row) -> str:
        """The row's id, or an empty text where the user names no id column and the row has none."""
        column = self.columns.id_column
        if column is None:
            names = (name for name in ID_COLUMNS if row.get(name) is not None)
            return next((_short(row, name, "id_column") for name in names), "")

        case_id = _short(row, column, "id_column")
        if not case_id:
            raise BadInput(
                f"'{column}' is empty; give each case its own id, or leave id_column "
                "(--id-column) out."
            )
        return case_id

    def _label(self, row: Row) -> Label:
        column = self.columns.label_column
        word = _scalar(row, column)
        compared = normal_text(without_zero_decimals(word))
        if label := self.words.get(compared):
            return label

        if not word:
            raise BadInput(f"has no label; write ED, GP or HOME in '{column}', or delete the row.")
        if not may_be_shown(word):
            raise BadInput(
                f"has an unknown label in '{column}', which is not shown since it may be a patient's "
                'words; use ED, GP or HOME, map "your word" in labels (--label WORD=ED), or name the '
                "right column as label_column (--label-column)."
            )
        self.unknown[compared] += 1
        raise BadInput("has an unknown label.")


def label_words(columns: Columns) -> dict[str, Label]:
    """The label of every accepted word, written as `normal_text` writes it.

    Raises BadInput where the user maps one word to two labels, or a label to another label.
    """
    words: dict[str, Label] = {normal_text(label): label for label in LABELS}
    for word, label in columns.labels.items():
        earlier = words.setdefault(normal_text(without_zero_decimals(word)), label)
        if earlier != label:  # cases would silently change their label
            setting = "[data.labels]"
            if isinstance(columns, EvaluationSet):
                setting = f"labels of the evaluation set {columns.name}"
            shown_word = repr(word) if may_be_shown(word) else f"of {len(word)} characters"
            raise BadInput(
                f"{setting} maps the word {shown_word} to {label}, which means {earlier} already, "
                "since case and spaces do not count; remove one of the two meanings."
            )
    return words


def missing_columns(
    location: str, header: Iterable[str], missing: Sequence[NamedColumn], is_header: bool
) -> BadInput:
    """The error for a row or a header at the place `location` that lacks the columns `missing`.
    `is_header`: it has others that the user names, so that no name is a patient's message.
    """
    names = listed([f"'{name}'" for name, _ in missing])
    settings = listed([setting for _, setting in missing])
    shown_names = (
        repr(name) if is_header and len(name) <= LONGEST_NAME else shown_name(name)
        for name in header
    )
    header_names = ", ".join(shown_names) or "none"
    return BadInput(
        f"{location}: has no columns {names}; its columns are {header_names}; name the right ones "
        f"as {settings}, or add those that are missing."
    )


def shown_name(name: str) -> str:
    """A column's name in quotes; of what may be a patient's words or number, the length alone, since a
    table without a header has a message here.
    """
    has_few_digits = sum(sign.isdigit() for sign in name) <= MOST_DIGITS_OF_NAME
    is_short = has_capitals(name) or len(name) <= LONGEST_WITHOUT_CAPITALS
    words = re.findall(r"[^\W\d_]+", name.casefold()) or [name]
    is_name = COLUMN_NAME.fullmatch(name) or {*words} <= {*WORDS_OF_COLUMNS.split()}
    if is_name and has_few_digits and is_short:
        return repr(name)
    return f"of {len(name)} characters"


def may_be_shown(word: str) -> bool:
    """Whether a value looks like a label: one short word, or words that labels are made of. A short
    text ("chest pain") or number of a patient does not.
    """
    if not word.isprintable() or sum(sign.isdigit() for sign in word) > MOST_DIGITS_OF_LABEL:
        return False

    known_words = WORDS_OF_LABELS.split()
    words = re.split(r"[\s_/-]+", word.casefold())
    if len(words) > 1 and all(part in known_words or part.isdigit() for part in words):
        return len(word) <= 2 * LONGEST_LABEL

    longest = LONGEST_LABEL if has_capitals(word) else LONGEST_WITHOUT_CAPITALS
    return len(word.split()) == 1 and "@" not in word and len(word) <= longest


def has_capitals(word: str) -> bool:
    """Whether the scripts of a word have capitals, so that it writes words with spaces."""
    return all(unicodedata.category(sign) not in ("Lo", "Mn", "Mc") for sign in word)


def without_zero_decimals(word: str) -> str:
    """7.0 as 7: pandas writes whole numbers so where another row has none."""
    whole = WHOLE.fullmatch(word)
    return whole[1] if whole else word


def _short(row: Row, column: str, setting: str) -> str:
    """What a row has in a column that is stored and shown as it is. Raises BadInput for a text."""
    value = _scalar(row, column)
    if len(value) > LONGEST:
        raise BadInput(
            f"'{column}' holds {len(value)} characters, and may be a text; write at most {LONGEST}, "
            f"or name another column in {setting}."
        )
    return value


def _scalar(row: Row, column: str) -> str:
    """Text of a short value, which may be a number; empty where there is none."""
    value = row.get(column)
    # NaN is how pandas writes a missing number; whole numbers become floats beside it.
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""

    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (str, int, float)):
        return _checked(str(value).strip())
    raise BadInput(f"'{column}' is {type(value).__name__}; it must be a plain text or number.")


def _checked(text: str) -> str:
    if "\0" in text or not can_be_encoded(text):
        raise BadInput(
            "holds characters that are not valid text (NUL or half a surrogate pair); remove them."
        )
    return text
