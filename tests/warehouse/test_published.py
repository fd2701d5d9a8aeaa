"""The rows behind the READMEs: every figure of their tables is one of `warehouse/published`."""

from __future__ import annotations

import re
import shutil
import tomllib

import duckdb
import pyarrow.parquet as pq
import pytest

from tasks.runtime.errors import BadInput
from tests.place import ROOT
from tests.warehouse.rows import evaluation, land_pair, training
from tests.warehouse.test_precisions import land as land_at
from tests.warehouse.test_precisions import noisy
from tests.warehouse.test_studies import land, land_sweep
from warehouse.connect import reading, writing
from warehouse.health import run_audits
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.merge import merge
from warehouse.published import FOLDER, FOLDERS, LANDED, MOST_BYTES, VIEWS, figures, publish
from warehouse.published_landing import publish_landing
from warehouse.published_precisions import SUMMARY, VIEW

NAMED = tomllib.loads((ROOT / "warehouse" / "claims.toml").read_text(encoding="utf-8"))["readme"]


def test_every_figure_of_the_readmes_is_a_published_one():
    every = figures()
    assert [figure for figure in every if not figure.agrees] == [], (
        "python -m warehouse.published NAME, then the READMEs"
    )
    assert len(every) > 50


@pytest.mark.parametrize("study", FOLDERS)
def test_the_published_rows_are_small(study):
    files = sorted((FOLDER / study).glob("*.parquet"))
    assert [file.stem for file in files if file.stem not in (VIEW, SUMMARY)] == sorted(VIEWS)
    every = [path for path in (FOLDER / study).rglob("*") if path.is_file()]
    assert sum(file.stat().st_size for file in every) < MOST_BYTES[study]


@pytest.mark.parametrize("file", sorted({entry["file"] for entry in NAMED}))
def test_every_table_with_intervals_is_named_in_the_claims(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    tables = re.findall(r"^\|(.*)\|\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    heads = [head.split("|")[0].strip() for head, body in tables if re.search(r"\[[-+]?\d", body)]
    assert heads and heads == [entry["first_column"] for entry in NAMED if entry["file"] == file]


@pytest.fixture
def copied(tmp_path):
    """The READMEs elsewhere, to be changed by a test."""
    for file in {entry["file"] for entry in NAMED}:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


@pytest.mark.parametrize(("digit", "other"), [("3", "4"), ("-0.", "-1."), ("`inferior`", "`not inferior`")])
def test_a_figure_that_parts_from_the_published_rows_is_found(copied, digit, other):
    """In the last line of a README that holds it."""
    path = copied / "flows" / "README.md"
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| recipe | accuracy |"))
    place = next(i for i in range(first + 2, len(lines)) if digit in lines[i])
    lines[place] = lines[place].replace(digit, other, 1)
    path.write_text("\n".join(lines), encoding="utf-8")
    assert [figure for figure in figures(root=copied) if not figure.agrees]


def test_a_line_that_only_one_side_has_is_a_sentence(copied):
    path = copied / "README.md"
    text = re.sub(
        r"^\| (bag of words|always ED|logistic).*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="is not both there and in claims.toml"):
        figures(root=copied)


@pytest.fixture
def two_studies(tmp_path):
    """A warehouse with a pair in the study `pairs` and an experiment in another one."""
    root = tmp_path / "landing"
    land_pair(root)
    land(root, "e-other", "other-1")
    land_sweep(root, "pairs", ["t4", "t8", "e4", "e8"])
    land_sweep(root, "other", ["other-1", "e-other"])
    load_all(root, tmp_path / "w.duckdb")
    return tmp_path / "w.duckdb"


def test_a_study_is_published_without_the_rows_of_others(two_studies, tmp_path):
    for _ in range(2):
        publish("pairs", tmp_path / "published", two_studies)
    published = {view: duckdb.read_parquet(str(tmp_path / "published" / f"{view}.parquet")) for view in VIEWS}
    assert sorted(row[0] for row in published["leaderboard"].select("evaluation_id").fetchall()) == ["e4", "e8"]
    assert {row[0] for row in published["gate_bounds"].select("evaluation_id").fetchall()} == {"e4", "e8"}
    assert len(published["quantization_comparison"]) == 1
    assert len(published["quantization_summary"]) > 0


def test_pools_that_an_interrupted_sweep_left_out_are_published(two_studies, tmp_path):
    with writing(two_studies) as con:
        con.execute("DELETE FROM pooled_metric")
    publish("pairs", tmp_path / "published", two_studies)
    assert pq.read_table(tmp_path / "published" / "quantization_summary.parquet").num_rows > 0


@pytest.mark.parametrize("study", FOLDERS)
def test_every_published_view_has_rows(study):
    rows = {path.stem: pq.read_table(path).num_rows for path in (FOLDER / study).glob("*.parquet")}
    assert [view for view, count in rows.items() if not count] == []


@pytest.fixture
def moved(tmp_path):
    """A landing folder with the adapter of 4 bits at three precisions, and its study."""
    root = tmp_path / "landing"
    land_at(root, "4bit")
    for precision in ("bf16", "8bit"):
        land_at(root, precision, moved_from="4bit")
    ids = [f"{kind}-{name}" for name in ("4bit", "bf16-from-4bit", "8bit-from-4bit") for kind in "te"]
    land_sweep(root, "moved", ids)
    return root


def _published_precisions(folder):
    return duckdb.read_parquet(str(folder / f"{VIEW}.parquet")).select("precision", "accuracy").fetchall()


def _precisions_of(path):
    return set(pq.read_table(path)["precision"].to_pylist())


def test_a_precision_that_another_machine_published_stays(moved, tmp_path):
    folder = tmp_path / "published"
    load_all(moved, tmp_path / "w.duckdb")
    publish("moved", folder, tmp_path / "w.duckdb")
    assert [name for name, _ in _published_precisions(folder)] == ["8bit", "4bit"]
    first = _published_precisions(folder)
    assert _precisions_of(folder / f"{SUMMARY}.parquet") == {"8bit", "4bit"}

    # A machine that has one of the two, with other decisions.
    shutil.rmtree(moved)
    for precision in ("bf16", "4bit"):
        land_at(moved, precision, noisy(3, 0.5), moved_from=None if precision == "4bit" else "4bit")
    land_sweep(moved, "moved", ["t-4bit", "e-4bit", "t-bf16-from-4bit", "e-bf16-from-4bit"])
    load_all(moved, tmp_path / "other.duckdb")
    publish("moved", folder, tmp_path / "other.duckdb")
    again = _published_precisions(folder)
    assert (again[0], [name for name, _ in again]) == (first[0], ["8bit", "4bit"])
    assert again[1] != first[1]
    assert _precisions_of(folder / f"{SUMMARY}.parquet") == {"8bit", "4bit"}


def test_a_study_without_further_precisions_has_no_file_of_them(two_studies, tmp_path):
    publish("pairs", tmp_path / "published", two_studies)
    assert not (tmp_path / "published" / f"{VIEW}.parquet").exists()


def test_a_study_without_an_evaluation_publishes_nothing(two_studies, tmp_path):
    with pytest.raises(BadInput, match="no evaluation of the study demo: run `triage sweep demo` first"):
        publish("demo", tmp_path / "published", two_studies)
    assert not (tmp_path / "published").exists()


def test_another_machine_takes_over_the_published_landing_folders(two_studies, tmp_path):
    published = tmp_path / "published"
    elsewhere = tmp_path / "elsewhere" / "landing"
    ids = publish_landing("pairs", published / "landing", tmp_path / "landing", two_studies)
    assert ids == ["e4", "e8", "sweep-pairs-1", "t4", "t8"]

    report = merge(published, elsewhere)
    assert (sorted(report.additions), report.refused) == (ids, {})
    load_all(elsewhere, tmp_path / "elsewhere.duckdb")
    rows = [_summary(database) for database in (two_studies, tmp_path / "elsewhere.duckdb")]
    assert rows[0] == rows[1] != []


def test_the_variants_of_its_models_go_with_a_study():
    """Without them `triage claims` measures neither bytes nor the share of trained parameters."""
    variants = pq.read_table(FOLDER / "study" / "landing" / "variant.parquet")
    assert variants["bits"].to_pylist() == [4, 8]


def test_the_baselines_go_with_a_study(two_studies, tmp_path):
    """A merged study is compared with them, and can be published again."""
    trainings = pq.read_table(FOLDER / "study" / "landing" / "experiment.parquet")
    assert {"always_ed", "always_gp", "tfidf_lr"} < set(trainings["recipe"].to_pylist())

    root = tmp_path / "landing"
    baseline = training("always-1", bits=None, cell_id="always_ed", recipe="always_ed", recipe_kind="baseline")
    write_landing(root, "always-1", "training", baseline)
    write_landing(root, "e-always", "evaluation", evaluation("e-always", "always-1"))
    land_sweep(root, "pairs", ["e-always"], day=2)
    load_all(root, two_studies)
    assert "e-always" in publish_landing("pairs", tmp_path / "published" / "landing", root, two_studies)


def _summary(database):
    with reading(database) as con:
        return con.execute("FROM quantization_summary_of(evaluations_of('pairs'))").fetchall()


def test_what_another_machine_published_stays(two_studies, tmp_path):
    pack = tmp_path / "published" / "landing"
    publish_landing("other", pack, tmp_path / "landing", two_studies)
    publish_landing("pairs", pack, tmp_path / "landing", two_studies)
    land(tmp_path / "landing", "e-other", "other-1", accuracy=0.1)
    publish_landing("other", pack, tmp_path / "landing", two_studies)

    report = merge(pack, tmp_path / "elsewhere")
    assert {"e-other", "other-1", "e4", "t8"} < set(report.additions)
    assert pq.read_table(tmp_path / "elsewhere" / "e-other" / "evaluation.parquet")["accuracy"].to_pylist() != [0.1]


@pytest.mark.parametrize("study", [study for study in LANDED if (FOLDER / study / "landing").exists()])
def test_the_published_landing_folders_can_be_taken_over(study, tmp_path):
    report = merge(FOLDER / study, tmp_path / "landing")
    assert report.additions and not report.refused


def test_a_warehouse_of_the_published_rows_passes_every_audit(tmp_path):
    """Rows of real trainings, with several seeds of a recipe, which made-up ones lack."""
    merge(FOLDER / "study", tmp_path / "landing")
    load_all(tmp_path / "landing", tmp_path / "w.duckdb")
    with reading(tmp_path / "w.duckdb") as con:
        assert not any(run_audits(con).values())
        assert con.execute("SELECT count(*) FROM pooled_metric WHERE seed_low IS NOT NULL").fetchone() > (0,)
