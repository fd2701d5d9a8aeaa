"""The texts of a user's file: what is refused, in sentences that repeat nothing of a text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.bundle.asking import checked_text, numbered_texts
from tasks.runtime.errors import BadInput

SAID = "My chest hurts"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", f"{SAID}, and my left arm\nI cut my finger, badly\n", "has no column 'text' among its 2"),
        ("a.csv", f"{SAID},{SAID}\na,b\n", "gives one name to the columns 1 and 2"),
        ("a.jsonl", f'{{"{SAID}": "and my left arm"}}\n', "has no column 'text' among its 1"),
        ("a.jsonl", f'{{"{SAID}": "a", "{SAID}": "b"}}\n', "gives one name to the keys 1 and 2"),
    ],
)
def test_a_file_without_a_header_is_refused_without_its_words(
    name: str, content: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(BadInput) as error:
        list(numbered_texts(tmp_path / name, "text"))
    assert sentence in str(error.value) and not {"chest", "arm", "finger"} & set(str(error.value).split())


def test_rows_are_known_by_their_id_or_by_the_digest_of_their_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "I cough.", "id": "c1"}\n{"text": "I cough."}\n')
    (first, second) = numbered_texts(path, "text")
    assert first == ("c1", "I cough.") and second[0].startswith("text-") and second[1] == "I cough."


@pytest.mark.parametrize("text", ["", " \n", "\x01\x07", "\u200b \ufeff"])
def test_a_text_of_which_nothing_can_be_seen_is_empty(text: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="The text is empty"):
        checked_text(text)

    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}) + "\n")
    with pytest.raises(BadInput, match="'text' is empty"):
        list(numbered_texts(tmp_path / "a.jsonl", "text"))
