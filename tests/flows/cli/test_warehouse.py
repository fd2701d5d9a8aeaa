"""`triage warehouse`: studies and sentences for names that are not there, the check, a merge, and a file that is damaged
or misplaced, of which each command says so first."""

import shutil

import pytest
import typer
from rich.console import Console

from flows.cli import terminal
from flows.cli.compare import print_study
from flows.cli.main import app
from flows.cli.terminal import load_what_waits
from flows.cli.warehouse import check, forget, merge, studies
from flows.outcomes import evaluations_of_sweep
from flows.report.rows import find_study
from tasks.runtime.backend import versions
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.runtime.store import seal
from tasks.spec import ENGINE_VERSION
from tests.place import made_once, shown
from tests.warehouse.rows import land_arm, land_pair
from tests.warehouse.test_studies import land, land_dataset, land_sweep
from tests.warehouse.test_waiting import held_warehouse
from warehouse.connect import WAITING, warehouse_path, writing
from warehouse.load import load_all
from warehouse.query import query, query_rows


@made_once
def two_studies(folder):
    """A study of a pair, and a later one of one of its models on other cases beside an evaluation that both share."""
    root = folder / "landing"
    land_dataset(root, "d1", "sets1", test="set1")
    for bits in (4, 8):
        land(root, f"e{bits}", f"cell{bits}-a", bits=bits, set_digest="set1")
    land(root, "e4-other", "cell4-b", bits=4, set_digest="set2")
    land_sweep(root, "small", ["e4", "e8"])
    land_sweep(root, "smaller", ["e4-other", "e8"], day=2)
    load_all(root, folder / "triage.duckdb")


@made_once
def pair_of_models(folder):
    land_pair(folder / "landing")
    load_all(folder / "landing", folder / "triage.duckdb")


@pytest.fixture
def landing():
    return shutil.copytree(two_studies(), home()) / "landing"


@pytest.fixture
def pair():
    shutil.copytree(pair_of_models(), home())


@pytest.fixture
def printed(capsys, monkeypatch):
    """What a command prints, and its exit code where it is not 0."""
    monkeypatch.setattr(terminal.console, "width", 200)

    def run(command, *arguments, **options):
        code = 0
        try:
            command(*arguments, **options)
        except typer.Exit as ended:
            code = ended.exit_code
        return capsys.readouterr().out + (f"exit code {code}" if code else "")

    return run


def compared(study):
    return shown(print_study, study, width=160)


def test_the_studies_are_listed_the_last_sweep_first_and_that_of_no_sweep_only_where_it_is(landing, printed):
    text = printed(studies)
    assert text.index("smaller") < text.index("small ") and "2026-03-02 00:00" in text and "embedded d1" in text
    assert "no sweep names" not in text
    land(landing, "e4-killed", "cell4-killed", bits=4, set_digest="set1")
    load_all(landing)
    assert "earlier: results that no sweep names, since they are older than studies or" in printed(studies)


def test_a_study_is_compared_alone_or_beside_another_and_the_last_sweeps_without_a_name(landing, printed):
    small, last = compared("small"), compared(None)
    both = "no trained model was judged at both on these test cases"
    assert both in last and both not in small
    assert "This was the study small. Others: smaller" in small and "This was the study smaller. Others: small" in last
    assert last.count("Judged before, on other cases") == 1 and "Judged before" not in small
    assert evaluations_of_sweep("sweep-small-1") == ["e4", "e8"]
    text = printed(studies, "small", "smaller")
    assert "small: 5 test cases; smaller: 5 test cases" in text and "in one study only" in text
    assert [line for line in text.splitlines() if line.startswith("cell4 ")], "a name as commands take it, on a line"


def test_without_a_name_a_study_of_real_models_is_preferred_to_a_later_one_on_random_weights(landing):
    land_arm(landing, "r4", random_weights=True)
    land_sweep(landing, "smoke", ["er4"], day=3)
    load_all(landing)
    for name in (None, "smaller"):
        note = "This was the study smaller. Others: smoke (random weights), small; triage compare STUDY"
        assert note in " ".join(compared(name).split())
    assert "All weights are random" in compared("smoke") and find_study(None).study == "smaller"
    forget("smaller", yes=True)
    forget("small", yes=True)
    assert find_study(None).study == "smoke", "where there is no other"


def test_a_name_that_is_no_study_or_twice_the_same_or_alone_is_a_sentence(landing):
    near = "no study 'smal'; did you mean small.? `triage warehouse rebuild` fills it from "
    for run, names, sentence in (
        (lambda name: print_study(Console(), name), ["smal"], near),
        (forget, ["smal"], near),
        (find_study, ["zzz"], "no study 'zzz'; it has smaller, small"),
        (studies, ["small", "small"], "Name two studies; triage compare small"),
        (studies, ["small", None], "triage compare small shows one"),
    ):
        with pytest.raises(BadInput, match=sentence):
            run(*names)


def test_forgetting_says_what_goes_what_stays_and_that_adapters_are_kept(landing, printed):
    plan = printed(forget, "smaller", yes=False)
    assert "To be forgotten: the study smaller with 2 results. Other studies hold 2 further ones" in plan
    assert plan.endswith("Nothing was forgotten. To forget it: triage warehouse forget smaller --yes\n")
    assert len(query("FROM study")) == 2
    output = printed(forget, "smaller", yes=True)
    assert "Forgotten: the study smaller with 2 results" in output and "trains nothing" in output
    assert query("SELECT study FROM study")["study"].tolist() == ["small"]

    land_sweep(landing, "twin", ["e4", "e8"], day=3)
    load_all(landing)
    text = printed(forget, "twin", yes=True)
    assert "Forgotten: the study twin with 0 results. Other studies hold 4 further ones, which stay." in text
    assert len(query("FROM evaluation")) == 2


def test_the_check_names_the_audits_that_find_rows_and_says_what_to_do(pair, printed):
    assert "none finds a row" in printed(check)
    with writing() as con:
        con.execute("UPDATE pair_metric SET mcnemar_p = 0.5 WHERE metric = 'accuracy'")
    assert "Audit pairs_are_reproduced finds rows: 2. One row per figure of a pair" in printed(check)
    with writing() as con:
        con.execute("DELETE FROM gate WHERE gate = 'ed_f2' AND evaluation_id = 'e4'")
    text = printed(check)
    assert "Audit gates_agree finds rows: 1." in text and "triage warehouse rebuild" in text and "exit code 1" in text


def test_results_are_merged_and_counted_and_what_is_refused_or_skipped_is_named(landing, printed, tmp_path):
    other = tmp_path / "other" / "landing"
    land(other, "e9", "t9")
    land(other, "e4", "cell4-a", bits=4, set_digest="set1")
    assert printed(merge, other).startswith("Landing folders taken over and loaded: 2; here already: 2.\n")
    (other / "e9" / "gate.parquet").write_bytes(b"short")
    (other / "p1").mkdir()
    seal(other / "p1", {"id": "p1", "kind": "prophecy"})
    text = printed(merge, other)
    assert text.startswith("Landing folders taken over and loaded: 0; here already: 3.")
    assert "Skipped, since this version does not know the kind prophecy: 1." in text and "exit code 1" in text


def test_a_merge_names_trainings_that_a_seed_of_this_machine_is_not_averaged_with_and_seeds_that_repeat(
    printed, tmp_path
):
    here = {
        "backend": "cpu",
        "engine_version": ENGINE_VERSION,
        "triage_version": "0.1.0",
        "cell_id": "smol-4bit-r1-s42",
    }
    here |= {"mlx_version": versions()["mlx"], "mlx_lm_version": versions()["mlx-lm"]}
    land_arm(home() / "landing", "own", **here)
    land_arm(tmp_path / "mac", "mac", **(here | {"backend": "metal"}))
    land_arm(tmp_path / "old", "old", **(here | {"engine_version": 1, "cell_id": "smol-4bit-r1-s43", "seed": 43}))

    text = printed(merge, tmp_path / "mac")
    assert (
        "1 training on metal, not cpu as here, by triage 0.1.0: a seed that is trained here is not averaged with"
        in text
    )
    assert (
        "theirs but in the estimate of both backends.\nThere already, by other trainings: smol r1, seed 42. All" in text
    )
    text = printed(merge, tmp_path / "old")
    assert f"by engine version 1, not {ENGINE_VERSION} as here, by triage 0.1.0: a seed that" in text
    assert "averaged with theirs.\n" in text and "There already" not in text
    assert query("SELECT count(*) AS n FROM experiment").n.tolist() == [3]


# --- A file that is damaged, misplaced or held ---------------------------------------------------

COMMANDS = [("sweep", "smoke"), ("compare",)]
REBUILD = ("warehouse", "rebuild")


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_a_damaged_warehouse_is_told_with_its_remedy_before_anything_runs(args, pair):
    warehouse_path().write_bytes(warehouse_path().read_bytes()[:5000])
    before = sorted(home().rglob("*"))
    remedy = "is damaged .*; it can be rebuilt from the landing files: triage warehouse rebuild"
    with pytest.raises(BadInput, match=remedy):
        app(args, standalone_mode=False)
    assert sorted(home().rglob("*")) == before


@pytest.mark.parametrize("args", [*COMMANDS, REBUILD], ids=" ".join)
def test_a_file_that_is_no_warehouse_is_not_touched(args, tmp_path, monkeypatch):
    if args == REBUILD:
        land_pair(home() / "landing")
    cases = tmp_path / "own" / "cases.csv"
    cases.parent.mkdir()
    cases.write_text("text,label\nmy chest hurts,ED\n")
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(cases))
    with pytest.raises(BadInput, match=f"{cases} .* names a file of another kind.*; set TRIAGE_WAREHOUSE to"):
        app(args, standalone_mode=False)
    assert list(cases.parent.iterdir()) == [cases] and cases.read_text() == "text,label\nmy chest hurts,ED\n"
    assert home().exists() == (args == REBUILD)


def test_a_rebuild_says_what_it_did_and_every_result_is_back(pair, capsys, tmp_path, monkeypatch):
    before = query_rows("FROM prediction ORDER BY ALL")
    warehouse_path().write_bytes(b"damaged")
    assert app(REBUILD, standalone_mode=False) == 0
    out = capsys.readouterr().out
    assert f"The warehouse has been rebuilt from 4 landing folders: {warehouse_path()}" in out
    assert "The old file is damaged and kept" in out and f"{warehouse_path()}.damaged-" in out
    assert query_rows("FROM prediction ORDER BY ALL") == before

    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / "without landing files"))
    warehouse_path().write_bytes(b"damaged")
    with pytest.raises(BadInput, match="There are no landing files in .*; run a sweep, e.g. triage sweep"):
        app(REBUILD, standalone_mode=False)
    assert warehouse_path().read_bytes() == b"damaged"


def test_a_rebuild_names_what_it_could_not_load_and_says_how_it_is_made_again(pair, capsys):
    path = home() / "landing" / "e4" / "prediction.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert app(REBUILD, standalone_mode=False) == 1
    errors = capsys.readouterr().err
    assert "Not in it: e4. " in errors and "prediction.parquet does not have the digest" in errors
    assert "run the sweep or the benchmark that made them once more" in errors
    assert query_rows("SELECT id FROM landed ORDER BY ALL").rows == [("e8",), ("t4",), ("t8",)]


def test_a_command_that_loads_again_and_again_says_once_that_results_wait(pair, capsys):
    (home() / "landing" / WAITING).touch()
    with held_warehouse("reading", warehouse_path()):
        load_what_waits()
        load_what_waits()
    assert capsys.readouterr().err.count("Loading waits") == 1
