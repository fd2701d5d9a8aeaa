"""Two hundred malformed files and rows: each is read as meant, or refused with the file, the line and a remedy."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.corpus.checks.report import check_data
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.reading.readers import read_cases
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, Data, Label

GOOD = {"text": "Chest pain since noon", "label": "ED"}
REMEDIES = (
    "save", "fill", "write", "give", "use", "map", "name", "unpack", "delete", "correct", "remove", "check", "copy",
    "needs", "put", "must", "keep",
)  # fmt: skip
Bad = tuple[str, str, bytes]  # name of the test, name of the file, content

# Values that are no text, no label, no id or no group, as JSON has them.
ODD = {
    "null": None, "true": True, "number": 7, "float": 1.5, "list": ["ED"], "empty list": [], "object": {"a": 1},
    "empty object": {}, "deep": {"a": [{"b": []}]}, "nan": float("nan"), "infinite": float("inf"), "empty": "",
    "blank": " \t ", "line break": "\n", "nul": "a\0b", "half a pair": "\ud800", "huge number": 10**30,
}  # fmt: skip
ACCEPTED = {  # column: values that are fine there
    "text": {"line break text"},
    "label": set(),
    "id": {"number", "float", "infinite", "huge number", "null", "nan", "empty", "blank", "line break", "true"},
    "group": {"number", "float", "infinite", "huge number", "null", "nan", "empty", "blank", "line break", "true"},
}
LABELS_REFUSED = (
    "E D", "ED.", "ED/GP", "ED,GP", "Ed GP", "emergency", "A&E", "ER", "G.P.", "gp?", "HOME CARE", "house", "0", "1", "-1",
    "É", "ЕD", "ed\u200b", "none", "nan", "N/A", "null", "?", "ED;", "'ED'", '"ED"', "label", "ＥＤ", "x" * 500, "[ED]",
)  # fmt: skip
LABELS_ACCEPTED = ("ED", "ed", " Ed ", "\tGP", "gp", "Gp\n", "HOME", "home", "Home ", "\u00a0ED", " hOmE", "GP\r")
LINES = {
    "not json": "text: a", "half an object": '{"text": "a", "label"', "open string": '{"text": "a',
    "two objects": '{"a":1}{"b":2}', "array": '["a", "ED"]', "string": '"a"', "number": "5", "null": "null",
    "true": "true", "single quotes": "{'text': 'a'}", "trailing comma": '{"text": "a", "label": "ED",}',
    "comment": "// a", "deep list": "[" * 100_000, "deep object": '{"a":' * 50_000, "long number": "9" * 10_000,
    "no columns": "{}", "other columns": '{"a": 1}', "no label": '{"text": "a"}', "no text": '{"label": "ED"}',
    "wrong case": '{"Text": "a", "Label": "ED"}', "spaced name": '{" text": "a", "label": "ED"}', "csv line": "a,ED",
    "control sign": '{"text": "a\x01", "label": "ED"}', "bare word": "{text: a}",
    "hex": '{"text": "\\x41", "label": "ED"}', "bad escape": '{"text": "\\u12", "label": "ED"}',
    "plus": '{"text": "a", "label": +1}', "xml": "<text>a</text>", "yaml": "text: a\tlabel: ED",
    "key twice": '{"text": "a", "label": "ED", "text": "b"}', "label twice": '{"text": "a", "label": "ED", "label": "ED"}',
    "long key twice": f'{{"{"a" * 600}": 1, "{"a" * 600}": 2}}', "key within twice": '{"a": [{"b": 1, "b": 2}]}',
    "second bom": '\ufeff{"text": "a", "label": "ED"}',
}  # fmt: skip
ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252", "cp437", "mac-roman", "shift-jis")
RAW = {
    "gzip": gzip.compress(b"text,label\na,ED\n", mtime=0), "zip": b"PK\x03\x04rest", "empty": b"", "one line break": b"\n",
    "spaces": b"   \n  \n", "nul": b"text,label\na\0b,ED\n", "all nul": b"\0" * 64,
    "lone surrogate": b'{"text": "\xed\xa0\x80", "label": "ED"}\n', "cut character": b"text,label\n\xe2\x82",
    "bad byte": b"text,label\n\xff,ED\n", "bom alone": b"\xef\xbb\xbf", "random": bytes(range(256)),
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "png": b"\x89PNG\r\n\x1a\n\0\0\0",
    "html": b"<html><body>a</body></html>",
}  # fmt: skip
CSV = {
    "header only": "text,label\n", "no header": "Chest pain,ED\nCold,HOME\n", "extra field": "text,label\na,ED,x\n",
    "missing field": "text,label\na\n", "twice a column": "text,text\na,ED\n",
    "twice with spaces": "text, text\na,ED\n", "open quote": 'text,label\n"a,ED\nb,GP\n',
    "quote inside": 'text,label\n"a" b,ED\n', "comma in text": "text,label\nsore, red knee,ED\n",
    "empty text": "text,label\n,ED\n", "empty label": "text,label\na,\n", "other label": "text,label\na,sofa\n",
    "wrong names": "a,b\na,ED\n", "wrong case": "Text,Label\na,ED\n", "sep alone": "sep=;\n",
    "pipe": "text|label\na|ED\n", "one column": "text\na\n", "blank header": ",\na,ED\n",
    "only separators": ",,,\n,,,\n", "contradiction": "text,label\na,ED\na,GP\n",
    "same id": "id,text,label\n1,a,ED\n1,b,ED\n", "old mac": "text,label\ra,ED\rb",
    "second header": "text,label\na,ED\ntext,label\n", "tabs in a comma file": "text,label\na\tED\n",
    "text of blanks": 'text,label\n" ",ED\n',
}  # fmt: skip
FINE = {
    "excel semicolons": "\ufefftext;label\r\nChest pain, sudden;ED\r\n",
    "sep line": "sep=;\r\ntext;label\r\na;ED\r\n", "tabs": "text\tlabel\na\tED\n",
    "quoted break": 'text,label\n"a\nb",ED\n', "doubled quotes": 'text,label\n"a ""b""",ED\n',
    "blank lines": "text,label\n\na,ED\n\n\n", "extra column": "text,label,note\na,ED,\n",
    "spaced header": " text , label \na,ED\n", "no last break": "text,label\na,ED",
    "windows": "text,label\r\na,ED\r\n", "unicode": "text,label\nfièvre 39 °C 😷,ED\n",
    "bom": "\ufefftext,label\na,ED\n", "long text": f"text,label\n{'very ' * 100_000}sore,ED\n",
    "label case": "text,label\na, ed \n", "group": "text,label,group\na,ED,3\n",
}  # fmt: skip


def line(**changes: Any) -> str:
    return json.dumps({**GOOD, **changes}) + "\n"


def bad_files() -> list[Bad]:
    """Name, file name and content of everything that must be refused; a good first line where the format has lines."""
    matches: list[Bad] = []
    for column, (name, value) in itertools.product(ACCEPTED, ODD.items()):
        if name not in ACCEPTED[column]:
            matches.append(
                (f"{column} is {name}", "a.jsonl", (line(text="another") + line(**{column: value})).encode())
            )

    matches += [
        (f"label {word!r}"[:40], "a.jsonl", (line(text="b") + line(label=word)).encode()) for word in LABELS_REFUSED
    ]
    matches += [(f"line: {n}", "a.jsonl", (line() + text + "\n").encode()) for n, text in LINES.items()]
    sentence = "text,label\nfièvre élevée,ED\n"
    matches += [(f"{e} csv", "a.csv", sentence.encode(e, "replace")) for e in ENCODINGS if e != "shift-jis"]
    matches += [(f"{e} jsonl", "a.jsonl", (line() + '{"text": "ソー", "label": "ED"}\n').encode(e, "replace"))
              for e in ENCODINGS if e.startswith(("utf", "shift"))]  # fmt: skip
    matches += [
        (f"{n} as {kind}", f"a.{kind}", content) for n, content in RAW.items() for kind in ("jsonl", "csv", "parquet")
    ]
    matches += [(f"csv: {n}", "a.csv", text.encode()) for n, text in CSV.items()]
    matches += [
        (f"ending {end}", f"a.{end}", line().encode())
        for end in ("json", "txt", "xlsx", "jsonl.gz", "tsv", "csv.zip", "pkl", "")
    ]

    return [*matches, *bad_parquets()]


def bad_parquets() -> list[Bad]:
    tables: dict[str, dict[str, Any]] = {
        "no label": {"text": ["a"]},
        "no rows": {"text": pa.array([], pa.string()), "label": pa.array([], pa.string())},
        "text null": {"text": ["a", None], "label": ["ED", "GP"]}, "text number": {"text": [1], "label": ["ED"]},
        "text list": {"text": [["a"]], "label": ["ED"]}, "label null": {"text": ["a"], "label": [None]},
        "label struct": {"text": ["a"], "label": [{"x": 1}]}, "text bytes": {"text": [b"\xff"], "label": ["ED"]},
        "other label": {"text": ["a", "b"], "label": ["ED", "maybe"]},
        "contradiction": {"text": ["a", "a"], "label": ["ED", "GP"]},
    }  # fmt: skip
    matches = []
    for name, columns in tables.items():
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns), buffer)
        matches.append((f"parquet: {name}", "a.parquet", buffer.getvalue()))

    whole = matches[-1][2]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([["a"], ["b"], ["ED"]], names=["text", "text", "label"]), buffer)
    matches.append(("parquet: column twice", "a.parquet", buffer.getvalue()))
    cuts = {
        "half": whole[: len(whole) // 2],
        "no footer": whole[:-20],
        "no head": whole[8:],
        "twice": whole[:-4] + b"PAR2",
    }

    return [*matches, *((f"parquet: {name}", "a.parquet", content) for name, content in cuts.items())]


BAD = bad_files()


def test_there_are_two_hundred_of_them() -> None:
    assert len({(file, content) for _, file, content in BAD}) >= 200


@pytest.mark.parametrize(("name", "file", "content"), BAD, ids=[name for name, _, _ in BAD])
def test_a_malformed_file_is_refused_with_file_place_and_remedy(
    name: str, file: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / file
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read_cases(path, Data(source=str(path)))

    message = str(caught.value)
    assert str(path) in message and message.endswith(".") and "\n" not in message and len(message) < 600
    assert any(word in message for word in REMEDIES), message
    whole_file = (
        "ends in",
        "is empty",
        "compressed",
        "zip file",
        "holds no cases",
        "gives one name to the columns",
        "old Mac line ends",
    )
    assert any(f", {unit} " in message for unit in ("line", "row")) or any(words in message for words in whole_file)


@pytest.mark.parametrize(("name", "file", "content"), BAD, ids=[name for name, _, _ in BAD])
def test_a_malformed_file_is_refused_by_the_check_and_when_the_data_is_made(
    name: str, file: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / file
    path.write_bytes(content)
    data = Data(source=str(path))

    with pytest.raises(BadInput) as caught:
        prepare_dataset(data, tmp_path / "home")

    sentences = [str(caught.value)]
    try:
        report = check_data(data, (), {})
        assert report.fails  # rows that are sound alone and contradict each other
        sentences += [f.remedy + "." for f in report.findings if f.level == "error"]
    except BadInput as error:
        sentences.append(str(error))

    for sentence in sentences:
        assert file in sentence and sentence.endswith(".") and "\n" not in sentence
        assert any(word in sentence for word in REMEDIES), sentence


def test_a_jsonl_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line().encode())
    assert read_cases(path, Data())[0].text == GOOD["text"]
    assert check_data(Data(source=str(path)), (), {}).sets[0].rows == 1


def test_a_text_of_a_hundred_thousand_words_goes_through_the_check(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    other_lines = [line(text=f"story {i}") for i in range(30)]
    path.write_text("".join(other_lines) + line(text="very " * 99_999 + "sore"))
    report = check_data(Data(source=str(path)), (), {})
    assert not report.fails and report.lengths[0].longest == 100_000


@pytest.mark.parametrize("name", FINE)
def test_an_unusual_csv_is_read_as_meant(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(FINE[name].encode())
    (case,) = read_cases(path, Data())
    assert case.label == "ED" and case.text


@pytest.mark.parametrize("word", LABELS_ACCEPTED)
def test_a_label_with_spaces_or_in_another_case_is_understood(word: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line(label=word))
    assert read_cases(tmp_path / "a.jsonl", Data())[0].label == word.strip().upper()


def loop(path: Path) -> Path:
    path.symlink_to(path)
    return path


def folder_loop(path: Path) -> Path:
    path.mkdir()
    (path / "train.jsonl").write_text(line())
    (path / "test.jsonl").symlink_to(path / "test.jsonl")
    return path


def zipped(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "text,label\na,ED\n")
    return path


def prepared_folder(path: Path) -> Path:
    path.mkdir()
    return path


PLACES: dict[str, Callable[[Path], Path]] = {
    "nothing there": lambda root: root / "none.csv", "empty folder": lambda root: prepared_folder(root / "cases"),
    "folder named like a file": lambda root: prepared_folder(root / "cases.csv"),
    "symlink loop": lambda root: loop(root / "loop.csv"),
    "folder with a loop": lambda root: folder_loop(root / "cases"), "workbook": lambda root: zipped(root / "a.csv"),
    "device": lambda root: Path("/dev/null"), "name with nul": lambda root: Path("a\0b.csv"),
    "below a file": lambda root: root / "x.csv/a.csv", "long name": lambda root: root / ("a" * 300 + ".csv"),
    "home": lambda root: Path("~nobody/a.csv"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("use", ["prepare", "check"])
def test_what_is_no_file_is_refused_by_training_and_check_alike(name: str, use: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text,label\na,ED\n")
    data = Data(source=str(PLACES[name](tmp_path)))
    with pytest.raises(BadInput) as caught:
        prepare_dataset(data, tmp_path / "home") if use == "prepare" else check_data(data, (), {})
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["ED", "gp ", "HOME"])
)
names = st.sampled_from(["text", "label", "id", "case_id", "group"])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entries=st.lists(st.dictionaries(names, values | st.lists(values, max_size=2), max_size=5), max_size=6),
    raw=st.binary(max_size=60),
)
def test_the_check_never_gives_a_traceback(entries: list[dict[str, Any]], raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for content in ("\n".join(map(json.dumps, entries)).encode(), raw):
        path.write_bytes(content)
        try:
            assert check_data(Data(source=str(path)), (), {}).sets
        except BadInput as error:
            assert str(error).endswith(".") and "\n" not in str(error)


cells = st.text(max_size=9) | st.sampled_from(["ED", "gp ", '"', ",", ";", "a\nb", "\0", "text", "label"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.lists(names, max_size=4), body=st.lists(st.lists(cells, max_size=4), max_size=5),
    separator=st.sampled_from(",;\t|"),
)  # fmt: skip
def test_the_check_never_gives_a_traceback_for_a_csv(
    header: list[str], body: list[list[str]], separator: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("\n".join(map(separator.join, [header, *body])).encode("utf-8", "surrogatepass"))
    checked(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    columns=st.dictionaries(names, st.sampled_from(["text", "number", "list", "null", "bytes", "truth"]), max_size=4),
    rows=st.integers(0, 4), cut=st.integers(0, 40),
)  # fmt: skip
def test_the_check_never_gives_a_traceback_for_a_parquet(
    columns: dict[str, str], rows: int, cut: int, tmp_path: Path
) -> None:
    kinds = {"text": "ED", "number": 1.5, "list": ["a"], "null": None, "bytes": b"\xff", "truth": True}
    buffer = io.BytesIO()
    pq.write_table(pa.table({name: [kinds[kind]] * rows for name, kind in columns.items()}), buffer)
    path = tmp_path / "a.parquet"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) - (cut if cut > 20 else 0)])
    checked(path)


def checked(path: Path) -> None:
    try:
        assert check_data(Data(source=str(path)), (), {}).sets
    except BadInput as error:
        assert str(error).endswith(".") and "\n" not in str(error)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entries=st.lists(st.dictionaries(names, values, max_size=5), max_size=6),
    columns=st.lists(names, min_size=3, max_size=3, unique=True),
    words=st.dictionaries(st.sampled_from(["ED", "ed", " gp", "now", ""]), st.sampled_from(LABELS), max_size=3),
    sound=st.booleans(),
)  # fmt: skip
def test_columns_and_label_words_never_give_a_traceback_in_check_or_prepare(
    entries: list[dict[str, Any]], columns: list[str], words: dict[str, Label], sound: bool, tmp_path: Path
) -> None:
    text, label, group = columns
    table = [{text: f"story {n}", group: f"g{n}", label: LABELS[n % 3]} for n in range(30)] if sound else []
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, [*table, *entries])))
    data = Data(source=str(path), text_column=text, label_column=label, group_column=group, labels=words)

    try:
        fails = check_data(data, (), {}).fails
    except BadInput as error:
        assert str(error).endswith(".") and "\n" not in str(error)
        fails = True

    try:
        with TemporaryDirectory() as home:
            prepare_dataset(data, Path(home))
    except BadInput as error:
        assert str(error).endswith(".") and "\n" not in str(error)
        return

    assert not fails, "what the check refuses is not made"
