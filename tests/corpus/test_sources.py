"""Where cases come from: folders with shards and others' names, datasets on the Hub pinned to a commit, own columns."""

import errno
import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from tasks.corpus.case import SETS, Case, from_json
from tasks.corpus.check import check_data
from tasks.corpus.prepare import CARD, dataset_folder, prepare_dataset
from tasks.corpus.reading import sources
from tasks.corpus.reading.sources import check_local, is_hub, locate
from tasks.corpus.reading.tables import read_set
from tasks.corpus.splits import check_sets
from tasks.corpus.vignettes.generator import planned_labels
from tasks.corpus.vignettes.sets import sets_of
from tasks.grids.grid import GRIDS, load_grid
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.runtime.store import read_manifest
from tasks.spec import LABELS, Data, EvaluationSet
from tests.models.fake_hub import COMMIT, REPO, FakeHub, reached


def table(start: int, count: int, words: str = "case") -> bytes:
    rows = [{"text": f"{words} number {i} of many", "label": LABELS[i % 3]} for i in range(start, start + count)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def dataset() -> FakeHub:
    fake_hub = FakeHub({"README.md": b"# cases", "loader.py": b"raise SystemExit"})
    fake_hub.files |= {f"data/train-0000{i}-of-00002.jsonl": table(60 * i, 60) for i in (0, 1)}
    fake_hub.files["data/test-00000-of-00001.jsonl"] = table(200, 30)
    return fake_hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tasks.models.sources.hub_source.CONNECT_SECONDS", 60.0)  # as long as a busy machine needs
    fake_hub = dataset()
    with reached(fake_hub, tmp_path):
        yield fake_hub


def test_a_hub_dataset_is_pinned_to_its_commit_and_its_code_is_never_fetched(hub, tmp_path):
    folder = prepare_dataset(Data(source=REPO), tmp_path / "home")
    manifest = read_manifest(folder)
    assert manifest is not None and manifest["origin"] == {"hub": REPO, "revision": "main", "commit": COMMIT}
    assert sum(manifest["sets"][name]["cases"] for name in SETS) == 150 and manifest["sets"]["test"]["cases"] == 30
    assert COMMIT in (folder / CARD).read_text()
    assert not any("loader.py" in request for request in hub.requests)
    assert prepare_dataset(Data(source=REPO, revision="v1"), tmp_path / "home") != folder


def test_a_hub_dataset_that_was_fetched_once_is_there_without_the_hub(hub, tmp_path):
    data = Data(source=REPO)
    first = locate(data)
    assert [len(files) for files in first.files.values()] == [2, 1]
    for offline in (True, False):
        with reached(None, tmp_path, offline):
            assert (locate(data).origin, locate(data).files) == (first.origin, first.files)

    (table_of_test,) = (tmp_path / "hub").rglob("snapshots/*/data/test-00000-of-00001.jsonl")
    table_of_test.unlink()  # as if the download had broken off
    sentence = "lacks files of this repository|is not in the local Hub cache"
    with reached(None, tmp_path, offline=True), pytest.raises(SourceUnavailable, match=sentence):
        locate(data)


@pytest.mark.parametrize(
    ("repo", "change", "error", "sentence"),
    [
        (REPO, {"files": {"loader.py": b""}}, BadInput, "holds no table"),
        ("team/other", {}, SourceUnavailable, "team/other, which is no local path: there is no repository"),
    ],
)
def test_a_hub_dataset_that_cannot_be_had_is_said_in_a_sentence(repo, change, error, sentence, hub):
    vars(hub).update(change)
    with pytest.raises(error, match=sentence):
        locate(Data(source=repo))


DIGESTS = ("daf190ce720b3dbb", "0123456789abcdef")
SHARDS = [f"data/train-0000{i}-of-00002-{DIGESTS[i]}" for i in (0, 1)]


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ([*SHARDS, "data/test-00000-of-00001"], {"train": 2, "test": 1}),
        (["training", "dev", "test-00000-of-00002", "test-00001-of-00002"], {"train": 1, "valid": 1, "test": 2}),
    ],
)
def test_shards_and_usual_names_are_understood(names, parts, tmp_path):
    further = "notes.jsonl.gz"  # beside given sets, it need not be read
    files = locate(Data(source=str(put(tmp_path, [*(f"{name}.jsonl" for name in names), further])))).files
    assert {name: len(paths) for name, paths in files.items()} == parts


@pytest.fixture
def given(tmp_path) -> Data:
    (tmp_path / "given").mkdir()
    for n, name in enumerate(SETS):
        (tmp_path / "given" / f"{name}.jsonl").write_bytes(table(100 * n, 30, "given"))
    return Data(source=str(tmp_path / "given"))


def put(folder: Path, names: list[str]) -> Path:
    """A folder with 60 cases in each file, of texts that no other file has; files whose name begins with a dot are no tables."""
    for n, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = table(60 * n, 60)
        if path.name[0] == ".":
            content = b"\x00\x05"
        elif ".csv" in name:
            rows = map(json.loads, content.splitlines())
            content = "".join(["text,label\n", *(f"{row['text']},{row['label']}\n" for row in rows)]).encode()
        path.write_bytes(content)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ["data/a.jsonl", "data/b.csv"],
        ["more.jsonl", "._more.jsonl", ".old/._a.jsonl"],
        ["test.2023.jsonl", "train.2023.jsonl"],
    ],
)
def test_a_folder_without_given_sets_is_one_table_that_we_split_or_one_evaluation_set(names, given, tmp_path):
    source = put(tmp_path / "cases", names)
    tables = [name for name in names if "._" not in name]
    assert locate(Data(source=str(source))).files == {"all": [source / name for name in tables]}
    folder = prepare_dataset(Data(source=str(source)), tmp_path / "home")
    sets = (read_manifest(folder) or {})["sets"]
    assert sum(sets[name]["cases"] for name in SETS) == 60 * len(tables) and sets["test"]["cases"] == 12 * len(tables)
    count = "One table, split" if len(tables) == 1 else "2 files, read as one table, split"
    assert f"{count} by us into train 60%" in (folder / CARD).read_text()
    assert check_data(Data(source=str(source)), (), {}).sets[0].rows == 60 * len(tables)

    clinic = EvaluationSet(name="clinic", source=str(source))
    folder = prepare_dataset(given, tmp_path, [clinic])
    assert (read_manifest(folder) or {})["sets"]["clinic"]["cases"] == 60 * len(tables)


def test_a_folder_with_a_test_file_is_an_evaluation_set_by_it_alone(given, tmp_path):
    clinic = EvaluationSet(name="clinic", source=str(put(tmp_path / "clinic", ["train.jsonl", "test.jsonl"])))
    assert locate(clinic).files == {"test": [tmp_path / "clinic" / "test.jsonl"]}
    put(tmp_path / "other", ["test.jsonl", "more.csv"])
    with pytest.raises(BadInput, match=r"only some tables .*more\.csv"):
        locate(EvaluationSet(name="other", source=str(tmp_path / "other")))
    folder = prepare_dataset(given, tmp_path, [clinic])
    assert (read_manifest(folder) or {})["sets"]["clinic"]["cases"] == 60
    assert [line.rows for line in check_data(given, (clinic,), {}).sets][-1] == 60


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["test.jsonl"], r"only some tables .* \(test\.jsonl\); name each .* read as one"),
        (["a.csv", "b.csv.gz"], r"b\.csv\.gz is compressed .*; unpack"),
        (["train.json", "train.jsonl", "test.jsonl"], r"train\.json is .* of a kind that is not read .* convert it"),
        (["train.jsonl", "test.jsonl", "valid.jsonl.gz"], r"valid\.jsonl\.gz is compressed .* remove it"),
        (["a-00000-of-00003.csv", "a-00001-of-00003.csv", "b.csv"], "each of the 3 parts of a once; add"),
        (["train.csv", *(f"test-00000-of-00001-{one}.csv" for one in DIGESTS)], "1 parts of test once; .* remove"),
        (["a.jsonl", "sub/b.jsonl"], r"sub/b\.jsonl lies deeper than the folder .* move it up"),
        (["train.csv", "train.jsonl", "test.csv"], r"train\.csv and train\.jsonl; keep one"),
        (["notes.txt"], "holds no table, nor has its folder data; put .jsonl, .csv, .tsv, .parquet files into it"),
    ],
)
def test_a_folder_that_may_mean_two_things_or_lacks_a_part_is_refused(names, message, tmp_path):
    source = put(tmp_path / "cases", names)
    assert all(re.search(message, said) for said in refusals(Data(source=str(source)), tmp_path / "home"))
    linked = put(tmp_path / "linked", ["a.csv"])
    (linked / "b.csv").symlink_to(linked / "nowhere")
    with pytest.raises(BadInput, match="b.csv is no file but a folder or a link that leads nowhere"):
        locate(Data(source=str(linked)))


def test_no_link_is_followed_but_data_and_what_may_not_be_seen_below_is_passed_over(tmp_path, monkeypatch):
    source = put(tmp_path / "cases", ["a.csv"])
    (source / "data").symlink_to(put(tmp_path / "elsewhere", ["b.csv"]))
    (source / "loop").symlink_to(source)
    (source / "lost+found").mkdir()
    scan = os.scandir
    closed = {str(source / "lost+found")}

    def refusing(folder):
        if str(folder) in closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    columns = Data(source=str(source))
    assert locate(columns).files == {"all": [source / "a.csv", source / "data" / "b.csv"]}
    closed.add(str(source / "data"))
    with pytest.raises(BadInput, match=r"cases/data cannot be read \(Permission denied\)"):
        locate(columns)


def test_a_hub_dataset_is_read_by_the_rule_of_a_folder_and_refused_before_it_is_fetched(hub):
    hub.files = {"a.jsonl": table(0, 30), "english/b.jsonl": table(30, 30)}
    command = f"hf download --repo-type dataset {REPO} --local-dir FOLDER"
    sentence = rf"{REPO}:? english/b\.jsonl lies deeper.*; .*`{command}`.* and name its folder as source\.$"
    with pytest.raises(BadInput, match=sentence):
        locate(Data(source=REPO))
    assert hub.sent == []

    hub.files = {"a[2024].jsonl": table(0, 30), "data/b 2025.jsonl": table(30, 30), "B.JSONL": table(60, 30)}
    names = [path.name for path in locate(Data(source=REPO)).files["all"]]
    assert names == ["B.JSONL", "a[2024].jsonl", "b 2025.jsonl"]


def test_a_rationale_is_kept_with_the_case_and_never_shown(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "sore knee", "label": "GP", "why": "needs a look"}) + "\n")
    (case,) = read_set([path], Data(rationale_column="why"))
    assert case == Case(case.case_id, "sore knee", "GP", rationale="needs a look") and "look" not in case.text

    with pytest.raises(BadInput, match="has no columns 'because'; .* as rationale_column"):
        read_set([path], Data(rationale_column="because"))
    with path.open("a") as handle:
        handle.write(json.dumps({"text": "a cold", "label": "HOME"}) + "\n")

    assert [case.rationale for case in read_set([path], Data(rationale_column="why"))] == ["needs a look", None]


def test_embedded_sets_of_other_shares_and_sizes_are_about_the_same_problems_and_the_other_sets_stay():
    planned = Counter(label for _, label in planned_labels("valid", 42, {"ED": 0.5, "GP": 0.25, "HOME": 0.25}, {}))
    assert planned == {"ED": 300, "GP": 150, "HOME": 150}
    usual = sets_of(Data())
    others = sets_of(Data(train_cases=700, calibration_cases=300, test_cases=500))
    assert others["valid"] == usual["valid"] and [len(cases) for cases in others.values()] == [700, 600, 300, 500]
    for name, cases in others.items():
        assert len({case.text for case in cases}) == len(cases)
        assert {case.group for case in cases} == {case.group for case in usual[name]}
    check_sets(others)


def test_evaluation_sets_stand_beside_the_dataset_and_change_none_of_its_sets(tmp_path):
    data = Data(limits={"train": 48, "valid": 12, "calibration": 24, "test": 24})
    plain = read_manifest(prepare_dataset(data, tmp_path))
    evaluation_sets = [
        EvaluationSet(name="test_adversarial", source="embedded"),
        EvaluationSet(name="clinic", source=str(put(tmp_path, ["clinic.jsonl"]) / "clinic.jsonl")),
    ]
    folder = prepare_dataset(data, tmp_path, evaluation_sets)
    more = read_manifest(folder)
    assert plain is not None and more is not None
    assert {n: more["sets"][n] for n in SETS} == plain["sets"]
    assert [more["sets"][one.name]["cases"] for one in evaluation_sets] == [300, 60]
    assert more["has_groups"] and not more["sets"]["clinic"]["has_groups"]
    lines = (folder / "clinic.jsonl").read_text().splitlines()
    assert {from_json(line).label for line in lines} == set(LABELS)
    assert "`clinic`" in (folder / CARD).read_text()


def grouped(path: Path, start: int, groups: list[str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    words = "my knee is sore since a fall on the stairs and creaks whenever I bend it, which makes it case"
    rows = [json.loads(line) for line in table(start, 12 * len(groups), words).splitlines()]
    lines = [json.dumps(row | {"group": groups[i // 12]}) + "\n" for i, row in enumerate(rows)]
    path.write_text("".join(lines))
    return path


BOTH = "clinic.jsonl, line 1 and train.jsonl, line"
ONE_TABLE = "not apart from the table that is split: The same"


@pytest.mark.parametrize(
    ("is_one_table", "groups", "copied", "sentence"),
    [
        (False, ["other", "test-1"], None, ""),
        (False, ["train-1"], None, f"clinic .* not apart from train: The same group .*: {BOTH} 13; .* rename it"),
        (False, ["valid-1"], None, "not apart from valid"),
        (False, ["calibration-1"], None, "not apart from calibration"),
        (False, ["other"], str.upper, f"not apart from train: The same text, .*: {BOTH} 6 .100%.; delete"),
        (False, ["other"], "{} Thanks".format, f"not apart from train: The same text, or nearly it, .*: {BOTH} 6 .9"),
        (True, ["test-1"], None, f"{ONE_TABLE} group is in two sets .1.: clinic.jsonl, line 1 and all.jsonl, line "),
        (True, ["other"], "{} Thanks".format, f"{ONE_TABLE} text, or nearly .*clinic.jsonl, line 1 and all.jsonl, line 6"),
    ],
)  # fmt: skip
def test_an_evaluation_set_shares_with_nothing_that_is_learned_from(is_one_table, groups, copied, sentence, tmp_path):
    for n, name in enumerate(SETS):
        grouped(tmp_path / "cases" / f"{name}.jsonl", 100 * n, [f"{name}-{i}" for i in range(3)])
    source = tmp_path / "cases"
    if is_one_table:
        source = tmp_path / "all.jsonl"
        source.write_text("".join((tmp_path / "cases" / f"{name}.jsonl").read_text() for name in SETS))

    outside = grouped(tmp_path / "clinic.jsonl", 900, groups)
    if copied:
        row = json.loads((tmp_path / "cases" / "train.jsonl").read_text().splitlines()[5])
        outside.write_text(json.dumps({"text": copied(row["text"]), "label": row["label"]}) + "\n")
    data, clinic = Data(source=str(source)), EvaluationSet(name="clinic", source=str(outside))
    assert bool(check_data(data, (clinic,), {}).errors) == bool(sentence)
    if not sentence:
        assert (prepare_dataset(data, tmp_path / "home", (clinic,)) / "clinic.jsonl").is_file()
        return
    with pytest.raises(BadInput, match=sentence):
        prepare_dataset(data, tmp_path / "home", (clinic,))


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        *((EvaluationSet, {"name": name, "source": "a.csv"}, "taken by the training dataset") for name in ("train", "facts")),
        (EvaluationSet, {"name": "mine", "source": "embedded"}, "test_adversarial"),
        (Data, {"shares": {"ED": 0.5, "GP": 0.25, "HOME": 0.2}}, "add up to 1"),
        (Data, {"source": "a.csv", "shares": {"ED": 0.5, "GP": 0.25, "HOME": 0.25}}, "embedded"),
    ],
)  # fmt: skip
def test_names_and_shares_that_cannot_be_are_refused(kind, values, words):
    with pytest.raises(ValueError, match=words):
        kind(**values)


def test_a_relative_source_is_looked_up_beside_the_grid_file_first_and_the_place_is_in_no_id(tmp_path, monkeypatch):
    study = put(tmp_path / "study", ["cases.jsonl", "ward.jsonl"])
    smoke = (GRIDS / "smoke.toml").read_text()
    data, rest = smoke.index("[data]"), smoke.index("[scoring]")
    ward = '[[evaluation_set]]\nname = "ward"\nsource = "ward.jsonl"\n'
    (study / "study.toml").write_text(f'{smoke[:data]}[data]\nsource = "cases.jsonl"\n{smoke[rest:]}\n{ward}')
    monkeypatch.chdir(put(tmp_path / "elsewhere", ["cases.jsonl"]))
    grid = load_grid(str(study / "study.toml"))
    assert locate(grid.data).files == {"all": [study / "cases.jsonl"]}
    dataset = prepare_dataset(grid.data, tmp_path / "home", grid.evaluation_sets)

    monkeypatch.chdir(study)
    ward_set = EvaluationSet(name="ward", source="ward.jsonl")
    assert dataset_folder(Data(source="cases.jsonl"), tmp_path, (ward_set,)).name == dataset.name
    monkeypatch.chdir(tmp_path / "elsewhere")
    (study / "cases.jsonl").unlink()
    assert locate(grid.data).files == {"all": [Path("cases.jsonl")]}


def test_a_relative_source_that_does_not_exist_names_the_folders_in_which_it_was_looked_for(tmp_path, monkeypatch):
    (tmp_path / "work" / "sets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    both = rf"{tmp_path / 'study'} \(the grid's folder\) or in {tmp_path / 'work'} \(the working folder\)"
    sentence = rf"There is no file or folder 'sets/none' in {both}; correct the path"
    data = Data(source="sets/none").with_folder(Path("../study"))
    assert all(re.search(sentence, said) for said in refusals(data, tmp_path / "home"))

    put(tmp_path / "mine", ["cases.jsonl"])
    monkeypatch.setenv("HOME", str(tmp_path))
    located = locate(Data(source="~/mine/cases.jsonl").with_folder(tmp_path / "grid"))
    assert located.files == {"all": [tmp_path / "mine" / "cases.jsonl"]}
    assert is_hub("someone/cases")
    assert not any(map(is_hub, ("sets/cases", "sets", "./sets", "someone/cases.csv", "/a/b", "../a", "a/b/c")))


def refusals(data: Data, home: Path) -> list[str]:
    sentences = []
    for use in (lambda: prepare_dataset(data, home), lambda: check_data(data, (), {}), lambda: check_local(data)):
        with pytest.raises(BadInput) as caught:
            use()
        sentences.append(str(caught.value))
    return sentences


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        ("s3://bucket/cases.csv", {}, "addresses are not read; download it first and name the file, or write owner"),
        (" ", {}, "The source is empty; name a file,"),
        (
            "embedded",
            {"revision": "v2"},
            "revision .* is for datasets on the Hub, and 'embedded' is none; leave it out",
        ),
        ("~nobody-of-this-name/cases.jsonl", {}, r"no file or folder '~nobody-of-this-name/cases\.jsonl'"),
    ],
)
def test_what_cannot_be_a_source_is_refused_with_what_to_name_instead(source, changes, message, tmp_path, monkeypatch):
    monkeypatch.chdir(put(tmp_path, ["cases.jsonl"]))
    data = Data(source=source, **changes)
    assert all(re.search(message, sentence) for sentence in refusals(data, tmp_path / "home"))


def test_a_folder_too_large_to_be_one_of_tables_is_refused_without_being_walked_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MOST_ENTRIES", 20)
    study = put(tmp_path / "study", ["cases.jsonl", *(f".git/.object{n}" for n in range(30))])
    assert locate(Data(source=str(study))).files  # a hidden folder is no part of it

    looked_at = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: looked_at.append(folder) or scan(folder))
    for n in range(9):
        (tmp_path / "disk" / f"folder{n}" / "deeper" / "still").mkdir(parents=True)
    with pytest.raises(BadInput, match="disk holds more than 20 files and folders, too many"):
        locate(Data(source=str(tmp_path / "disk")))
    assert 0 < len(looked_at) <= 20
