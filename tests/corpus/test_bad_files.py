"""Malformed files and rows, one of each kind: each is read as meant, or refused with its place, the reason and a remedy."""

import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.corpus.check import check_data
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.reading.tables import read_set
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, Data

GOOD = {"text": "Chest pain since noon", "label": "ED"}


def line(**changes: Any) -> str:
    return json.dumps({**GOOD, **changes}) + "\n"


def parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


TABLE = parquet(text=["a", "b"], label=["ED", "GP"])
# Rows of a JSONL file that follow a good one: what is written, the reason and the remedy.
ROWS = {
    "text null": (line(text=None), "'text' is no text but NoneType; write"),
    "text blank": (line(text=" \t\n"), "'text' is empty; fill"),
    "text nul": (line(text="a\0b"), "not valid text .*; remove"),
    "half a pair": (line(text="\ud800"), "not valid text .*; remove"),
    "label null": (line(label=None), "has no label; write"),
    "label nan": (line(label=float("nan")), "has no label; write"),
    "label list": (line(label=["ED"]), "'label' is list; it must be"),
    "label number": (line(label=7), "has an unknown label. .*'7' .1.; correct"),
    "look-alike label": (line(label="ЕD"), "has an unknown label. .*'еd' .1.; correct"),
    "invisible sign": (line(label="ed\u200b"), "unknown label .* not shown .*; use"),
    "id object": (line(id={"a": 1}), "'id' is dict; it must be"),
    "not json": ("text: a", "is not JSON .*; write"),
    "array": ('["a", "ED"]', "is not a JSON object; write"),
    "deep": ("[" * 100_000, "is not JSON .*; write"),
    "long number": ("9" * 10_000, "is not JSON .*; write"),
    "wrong case": ('{"Text": "a", "Label": "ED"}', "its columns are 'Text', 'Label'; name"),
    "key twice": ('{"text": "a", "label": "ED", "text": "b"}', "is not JSON .one key twice.*; write"),
    "other label": (line(label="GP"), "is labelled GP, but .*line 1 has the same text .*; correct"),
}  # fmt: skip
# Whole files: content, the line or row, the reason and the remedy.
FILES = {
    "csv gzip": ("a.csv", gzip.compress(b"text,label\na,ED\n", mtime=0), "is compressed .*; unpack"),
    "zip": ("a.jsonl", b"PK\x03\x04rest", "is compressed .*; unpack"),
    "empty": ("a.parquet", b"", "is empty; it needs"),
    "nul": ("a.csv", b"text,label\na\0b,ED\n", ", line 2: is no text in UTF-8; save"),
    "utf-16": ("a.csv", "text,label\na,ED\n".encode("utf-16"), ", line 1: .*; save"),
    "latin-1": ("a.csv", "text,label\nfièvre,ED\n".encode("latin-1"), ", line 2: is no text in UTF-8; save"),
    "header only": ("a.csv", b"text,label\n", "holds no cases; it needs"),
    "extra field": ("a.csv", b"text,label\na, b,ED\n", ", line 2: has another number of fields .3. .* .2.; .* put quotes"),
    "missing field": ("a.csv", b"text,label\na\n", ", line 2: has another number of fields .1. .* .2.; write"),
    "column twice": ("a.csv", b"text, text\na,ED\n", ", line 1: gives one name to two of its 2 columns; give"),
    "open quote further down": ("a.csv", b'text,label\n"a\nb",ED\n"open,ED\n', ", line 4: is not valid CSV .*; check"),
    "other separator": ("a.csv", b"text;label;why\na\n", ", line 2: has another number of fields .1. .* .3.; write .* by ';'"),
    "quote inside": ("a.csv", b'text,label\n"a" b,ED\n', ", line 2: is not valid CSV .*; check"),
    "pipe": ("a.csv", b"text|label\na|ED\n", ", line 2: has no columns 'text' and 'label'; .*; name"),
    "same id": ("a.csv", b"id,text,label\n1,a,ED\n1,b,ED\n", ", line 3: has the id of .*line 2; give"),
    "other ending": ("a.xlsx", b"x", "ends in '.xlsx'; give .*; save .*Excel by File > Save As > CSV UTF-8"),
    "parquet without label": ("a.parquet", parquet(text=["a"]), ", row 1: has no columns 'label'; .*; name"),
    "parquet text null": ("a.parquet", parquet(text=["a", None], label=["ED", "GP"]), ", row 2: .* NoneType; write"),
    "half a parquet": ("a.parquet", TABLE[: len(TABLE) // 2], ", row 1: is not readable as Parquet .*; write"),
}  # fmt: skip
BAD = FILES | {
    name: ("a.jsonl", (line() + text + "\n").encode("utf-8", "surrogatepass"), f", line 2: .*{reason}")
    for name, (text, reason) in ROWS.items()
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_file_is_refused_when_read_checked_and_made(name, tmp_path):
    file, content, expected = BAD[name]
    path = tmp_path / file
    path.write_bytes(content)
    data = Data(source=str(path))

    sentences = []
    for use in (lambda: read_set([path], data), lambda: prepare_dataset(data, tmp_path / "home")):
        with pytest.raises(BadInput) as caught:
            use()
        sentences.append(str(caught.value))
    for sentence in sentences:
        assert sentence.startswith(str(path)) and re.search(expected, sentence, re.DOTALL), sentence
        assert sentence.endswith(".") and "\n" not in sentence and len(sentence) < 600 and "Chest" not in sentence

    try:  # rows that are sound alone and contradict each other are findings
        findings = [finding for finding in check_data(data, (), {}).findings if finding.level == "error"]
        assert findings and all(file in finding.remedy for finding in findings)
    except BadInput as error:
        assert str(error) == sentences[0]


FINE = {
    "sep line": "sep=;\r\ntext;label\r\na;ED\r\n",
    "quoted break": 'text,label\n"a\nb ""c""",ED\n',
    "blank lines": "text,label\n\na,ED\n\n\n",
    "extra column and spaces": " text , label ,note\na, ed ,\n",
    "no last break": "text,label,group\na,ED,3",
    "jsonl with a mark": "\ufeff" + line(),
    "unicode": "text,label\nfièvre 39 °C 😷,\u00a0eD\n",
    "long text": f"text,label\n{'very ' * 100_000}sore,ED\n",
}


@pytest.mark.parametrize("name", FINE)
def test_an_unusual_file_is_read_as_meant(name, tmp_path):
    path = tmp_path / ("a.jsonl" if "jsonl" in name else "a.csv")
    path.write_bytes(FINE[name].encode())
    (case,) = read_set([path], Data())
    assert case.label == "ED" and case.text


def with_loop(folder: Path) -> Path:
    folder.mkdir()
    (folder / "train.jsonl").write_text(line())
    (folder / "test.jsonl").symlink_to(folder / "test.jsonl")
    return folder


PLACES: dict[str, Callable[[Path], Path]] = {
    "nothing there": lambda root: root / "none.csv", "a folder without tables": lambda root: root / "empty.csv",
    "folder with a loop": lambda root: with_loop(root / "cases"), "device": lambda root: Path("/dev/null"),
    "name with nul": lambda root: Path("a\0b.csv"), "below a file": lambda root: root / "x.csv/a.csv",
    "long name": lambda root: root / ("a" * 300 + ".csv"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_what_is_no_file_is_refused_by_training_and_check_alike(name, tmp_path):
    (tmp_path / "x.csv").write_text("text,label\na,ED\n")
    (tmp_path / "empty.csv").mkdir()
    data = Data(source=str(PLACES[name](tmp_path)))
    for use in (lambda: prepare_dataset(data, tmp_path / "home"), lambda: check_data(data, (), {})):
        with pytest.raises(BadInput) as caught:
            use()
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def fails(data: Data) -> bool:
    try:
        return check_data(data, (), {}).errors
    except BadInput as error:
        assert str(error).endswith(".") and "\n" not in str(error)
        return True


RANDOM = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
words = st.text(max_size=9) | st.sampled_from(["ED", "gp ", "HOME"])
values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), words)
names = st.sampled_from(["text", "label", "id", "case_id", "group"])
cells = st.text(max_size=9) | st.sampled_from(["ED", "gp ", '"', ",", ";", "a\nb", "\0", "text", "label"])


@RANDOM
@given(
    header=st.lists(names, max_size=4), body=st.lists(st.lists(cells, max_size=4), max_size=5),
    separator=st.sampled_from(",;\t|"), raw=st.binary(max_size=60),
)  # fmt: skip
def test_no_csv_gives_a_traceback(header, body, separator, raw, tmp_path):
    path = tmp_path / "a.csv"
    for content in ("\n".join(map(separator.join, [header, *body])).encode("utf-8", "surrogatepass"), raw):
        path.write_bytes(content)
        fails(Data(source=str(path)))


@RANDOM
@given(
    columns=st.dictionaries(names, st.sampled_from(["ED", 1.5, ["a"], None, b"\xff"]), max_size=4),
    rows=st.integers(0, 4), cut=st.integers(0, 40), position=st.integers(0, 10_000), byte=st.integers(0, 255),
)  # fmt: skip
def test_no_parquet_gives_a_traceback(columns, rows, cut, position, byte, tmp_path):
    content = bytearray(parquet(**{name: [value] * rows for name, value in columns.items()}))
    content[position % len(content)] = byte
    path = tmp_path / "a.parquet"
    path.write_bytes(content[: len(content) - (cut if cut > 20 else 0)])
    fails(Data(source=str(path)))


@RANDOM
@given(
    entries=st.lists(st.dictionaries(names, values | st.lists(values, max_size=2), max_size=5), max_size=6),
    columns=st.lists(names, min_size=3, max_size=3, unique=True),
    words=st.dictionaries(st.sampled_from(["ED", "ed", " gp", "now", ""]), st.sampled_from(LABELS), max_size=3),
    sound=st.booleans(),
)  # fmt: skip
def test_what_the_check_refuses_is_not_made_and_neither_gives_a_traceback(entries, columns, words, sound, tmp_path):
    text, label, group = columns
    table = [{text: f"story {n}", group: f"g{n}", label: LABELS[n % 3]} for n in range(30)] if sound else []
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, [*table, *entries])))
    data = Data(source=str(path), text_column=text, label_column=label, group_column=group, labels=words)
    refused = fails(data)

    try:
        with TemporaryDirectory() as home:
            prepare_dataset(data, Path(home))
    except BadInput as error:
        assert str(error).endswith(".") and "\n" not in str(error)
        return

    assert not refused, "what the check refuses is not made"
