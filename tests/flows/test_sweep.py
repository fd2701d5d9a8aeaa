"""A real smoke sweep: all lands, the second time nothing is done again, the damaged is rebuilt, one failure stops no other."""

import hashlib
import json
import shutil
import sqlite3
import time

import mlx.core as mx
import pandas as pd
import pytest

from tasks.grids.grid import GRIDS
from tasks.models.model_shape import known_shape
from tasks.models.sizes import PARTS, expected_sizes
from tasks.precisions import of_bits
from tasks.runtime.home import home
from tasks.runtime.locks import locked
from tasks.runtime.store import intact_manifest
from tests.place import one_sentence

CELLS = [
    f"tiny-{model}-{bits}bit-{recipe}-s42"
    for model in ("llama", "gemma3")
    for bits in (4, 8)
    for recipe in ("baseline", "balanced_safe")
]


def adapters(place):
    """Digest and time of writing of each experiment's adapter."""
    return {
        cell: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for cell in CELLS
        if (path := place.experiment(cell) / "adapters.safetensors")
    }


def started(place, *kinds):
    """The steps of these kinds of the sweep, in the order in which they began."""
    rows = place.prefect("SELECT name FROM task_run ORDER BY start_time")
    return [kind for kind in (name.split()[0] for (name,) in rows) if kind in kinds]


def test_every_experiment_lands_and_the_command_says_what_to_type_next(smoke):
    place, first = smoke
    assert (first.returncode, first.stderr) == (0, ""), first.stdout + first.stderr
    landed = place.query(
        "SELECT cell_id, status FROM experiment JOIN evaluation USING (training_id) WHERE recipe_kind <> 'baseline'"
    )
    assert dict(landed.itertuples(index=False)) == dict.fromkeys(CELLS, "completed")
    assert first.stdout.splitlines()[-1] == (
        f"8 experiments are in the warehouse: {place.warehouse}; next: triage compare smoke"
    )


def test_the_sweep_is_a_study_and_its_dataset_has_one_digest_in_folder_manifest_and_warehouse(smoke):
    place, _ = smoke
    columns = "study, dataset_digest, study.experiments, evaluations, failures"
    (study,) = place.query(
        f"SELECT DISTINCT {columns} FROM study JOIN sweep USING (study, dataset_digest)"
    ).values.tolist()
    # Tests that share this home prepare further datasets, which belong to no study.
    (folder,) = (place.home / "data").glob(f"*-{study[1]}")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert folder.name == f"{manifest['name']}-{manifest['dataset_digest']}"
    (count,) = place.query("SELECT count(*) AS n FROM evaluation").n
    assert study == ["smoke", manifest["dataset_digest"], 8, count, 0]

    for table in ("experiment", "fidelity", "leaderboard", "quantization_comparison"):
        digests = place.query(f"SELECT DISTINCT dataset_digest FROM {table}").dataset_digest.tolist()
        assert digests == [manifest["dataset_digest"]], table


def test_every_folder_is_complete_and_nothing_temporary_is_left(smoke):
    place, _ = smoke
    for cell in CELLS:
        folder = place.experiment(cell)
        assert intact_manifest(folder, deep=True) and all(
            intact_manifest(p, deep=True) for p in (folder / "scores").iterdir()
        )
    assert list(place.home.rglob(".tmp-*")) == []


def test_what_has_landed_passes_every_audit(smoke):
    assert smoke[0].audits() == {}


def test_each_experiment_is_a_chain_so_that_results_land_one_by_one(smoke):
    """Stage by stage, the first landing would come after the last training."""
    steps = started(smoke[0], "train", "evaluate")
    assert steps == ["train", "evaluate"] * 8

    steps = started(smoke[0], "train", "land")
    trainings = [number for number, step in enumerate(steps) if step == "train"]
    landings = [number for number, step in enumerate(steps) if step == "land"]
    assert len(landings) == 8 and all(map(int.__lt__, landings, trainings[2:]))


def test_the_next_weights_are_fetched_while_a_model_trains(smoke):
    steps = started(smoke[0], "acquire", "train")
    assert steps.index("train", steps.index("train") + 1) > 2 and steps.count("acquire") == 2


def test_an_untuned_model_is_scored_after_the_first_trained_result_of_its_variant(smoke):
    """Untuned models are scored on every case, which is long on a slow machine."""
    steps = started(smoke[0], "evaluate", "zero-shot")
    assert steps == ["evaluate", "zero-shot", "evaluate"] * 4


def test_leaderboard_and_comparison_are_artifacts_of_the_sweeps_own_run(smoke):
    place, _ = smoke
    rows = place.prefect("SELECT name, key FROM artifact JOIN flow_run ON flow_run.id = artifact.flow_run_id")
    assert {("sweep smoke", "leaderboard"), ("sweep smoke", "comparison")} <= set(rows)


def test_the_flow_run_is_found_by_its_models_bits_recipes_and_kinds_and_its_tasks_carry_no_tags(smoke):
    """A tagged task waits 0.3 s for each tag's limit."""
    (tags,) = (set(json.loads(t)) for (t,) in smoke[0].prefect("SELECT tags FROM flow_run WHERE name = 'sweep smoke'"))
    expected = {"tiny-llama", "tiny-gemma3", "4bit", "8bit", "baseline", "balanced_safe", "standard", "safety"}
    assert tags == expected
    assert {tags for (tags,) in smoke[0].prefect("SELECT tags FROM task_run")} == {"[]"}


def test_no_progress_bar_of_a_finished_step_is_left_among_the_artifacts(smoke):
    kinds = {kind for (kind,) in smoke[0].prefect("SELECT type FROM artifact")}
    assert kinds == {"table", "markdown"}


def test_exact_sizes_of_every_variant_and_of_bfloat16_are_in_the_warehouse(smoke):
    columns = "stored_bytes, embedding_bytes, projection_bytes, norm_bytes, parameters"
    rows = smoke[0].query(f"SELECT base_model, bits, group_size, {columns}, random_weights FROM variant")
    matches = {(r.base_model, None if pd.isna(r.bits) else int(r.bits)): r for r in rows.itertuples()}
    assert set(matches) == {(name, bits) for name in ("tiny-llama", "tiny-gemma3") for bits in (None, 4, 8)}

    for (name, bits), row in matches.items():
        due = expected_sizes(known_shape(name), of_bits(bits), 64)
        parts = due.bytes_by_part
        assert (row.stored_bytes, row.parameters) == (due.stored_bytes, due.parameters)
        assert (row.embedding_bytes, row.projection_bytes, row.norm_bytes) == tuple(parts[p] for p in PARTS)
        assert row.random_weights and (pd.isna(row.group_size) if bits is None else row.group_size == 64)


def test_random_weights_are_marked_in_every_table(smoke):
    place, first = smoke
    assert "All weights are random" in first.stdout
    assert "All weights are random" in place.ask("compare").stdout
    whole = place.ask("compare", "--all").stdout
    assert whole.count("All weights are random") == 1 and "(random" not in whole, "said once"
    board, pairs = (place.query(f"SELECT random_weights FROM {v}") for v in ("leaderboard", "quantization_comparison"))
    assert board.random_weights.all() and pairs.random_weights.all()


@pytest.fixture(scope="module")
def again(smoke):
    """The same command once more in the same place, with the adapters before and after."""
    place, _ = smoke
    before = adapters(place)
    start = time.monotonic()
    result = place.run("sweep", "smoke")
    return place, result, before, time.monotonic() - start


def test_the_second_time_every_step_is_cached(again):
    place, result, before, _ = again
    assert result.returncode == 0 and "validation" not in result.stdout
    steps = place.last_steps()
    assert len(steps) >= 4 * 8 and {state for state, _ in steps.values()} == {"Cached"}, steps
    assert adapters(place) == before


@pytest.fixture(scope="module")
def diverging(smoke, tmp_path_factory):
    """Two experiments, of which one starts from weights with a NaN: its loss is not finite at the first update. It runs
    while the sweep below does: one for each core."""
    place = smoke[0].copy(tmp_path_factory.mktemp("diverges") / "place")
    poisoned = place.folder / "poisoned"
    shutil.copytree(next((place.home / "models").glob("tiny-llama-base-*")), poisoned)
    weights = mx.load(str(poisoned / "model.safetensors"))
    mx.eval(weights)
    weights["model.norm.weight"] = weights["model.norm.weight"] * mx.array(float("nan")).astype(mx.bfloat16)
    mx.save_safetensors(str(poisoned / "model.safetensors"), weights, metadata={"format": "mlx"})
    grid = place.folder / "poisoned.toml"
    grid.write_text(
        (GRIDS / "smoke.toml").read_text().replace('"tiny-llama", "tiny-gemma3"', '"poisoned", "tiny-llama"')
        + f'\n[[base_model]]\nname = "poisoned"\nlicence = "none"\n[[base_model.sources]]\nkind = "folder"\npath = "{poisoned}"\n'
    )
    process = place.start("sweep", str(grid), "--bits", "4", "--recipe", "baseline", "--set", "seeds=[7]")
    yield place, process
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def mended(again, diverging, tmp_path_factory):
    """A sweep after one experiment was deleted, one damaged, one robbed of its scores, and the warehouse removed; the
    deleted one's folder is held by another process until Prefect is about to try again."""
    place = again[0].copy(tmp_path_factory.mktemp("mended") / "place")
    removed, damaged, unscored = (place.experiment(cell) for cell in CELLS[:3])
    shutil.rmtree(removed)
    weights = bytearray((damaged / "adapters.safetensors").read_bytes())
    weights[-1] ^= 1
    (damaged / "adapters.safetensors").write_bytes(weights)
    shutil.rmtree(unscored / "scores")
    place.warehouse.unlink()

    with locked(removed):
        process = place.start("sweep", "smoke", "--model", "tiny-llama")
        deadline = time.monotonic() + 600
        while not waiting_to_retry(place) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)

    result = place.finish(process)
    return place, again[0], result.returncode, result.stdout + result.stderr


def waiting_to_retry(place) -> bool:
    try:
        return bool(place.prefect("SELECT 1 FROM task_run WHERE state_name = 'AwaitingRetry'"))
    except sqlite3.OperationalError:
        return False


def test_what_is_deleted_or_damaged_is_rebuilt_although_prefect_has_its_result(mended):
    place, original, code, printed = mended
    assert code == 0, printed
    now = adapters(place)
    before = adapters(original)
    assert {cell for cell in CELLS if now[cell][1] != before[cell][1]} == set(CELLS[:2])
    assert {cell: value[0] for cell, value in now.items()} == {cell: value[0] for cell, value in before.items()}
    steps = place.last_steps()
    done_again = {
        name for name, (state, _) in steps.items() if name.startswith(("train", "evaluate")) and state != "Cached"
    }
    assert done_again == {
        "train tiny-llama 4bit baseline s42", "evaluate tiny-llama 4bit baseline s42",
        "train tiny-llama 4bit balanced_safe s42", "evaluate tiny-llama 8bit baseline s42",
    }  # fmt: skip


def test_a_folder_that_another_process_holds_is_tried_again(mended):
    place, *_ = mended
    state, attempts = place.last_steps()["train tiny-llama 4bit baseline s42"]
    assert state == "Completed" and attempts >= 2


def test_a_lost_warehouse_is_refilled_from_what_has_landed(mended):
    place, original, *_ = mended
    statement = "SELECT evaluation_id, case_id, p_ed, decision FROM prediction ORDER BY ALL"
    assert place.query(statement).equals(original.query(statement))


@pytest.fixture(scope="module")
def one_diverges(diverging):
    place, process = diverging
    return place, place.finish(process)


def test_a_diverged_experiment_fails_the_sweep_but_the_others_land(one_diverges):
    _, result = one_diverges
    assert result.returncode == 1, result.stdout + result.stderr
    assert "FAILED   poisoned-4bit-baseline-s7: The loss became nan at update 1" in result.stdout
    assert "landed   tiny-llama-4bit-baseline-s7" in result.stdout
    printed = " ".join(result.stdout.split())
    assert "failures in a sweep of 2 experiments: " in printed
    assert "poisoned-4bit-baseline-s7: The loss became nan at update 1" in printed
    assert "Traceback" not in result.stdout + result.stderr and result.stderr == ""


def test_a_diverged_experiment_is_in_the_warehouse_with_its_reason(one_diverges):
    place, _ = one_diverges
    rows = place.query(
        "SELECT cell_id, status, error, evaluation_id IS NOT NULL FROM experiment "
        "LEFT JOIN evaluation USING (training_id) WHERE seed = 7 ORDER BY ALL"
    )
    (bad, good) = rows.itertuples(index=False, name=None)
    assert bad[:2] == ("poisoned-4bit-baseline-s7", "diverged") and "update 1" in bad[2] and not bad[3]
    assert good[:2] == ("tiny-llama-4bit-baseline-s7", "completed") and good[3]
    assert place.audits() == {}


def test_a_diverged_training_is_not_tried_again_and_the_flow_run_has_failed(one_diverges):
    place, _ = one_diverges
    assert place.last_steps()["train poisoned 4bit baseline s7"] == ("Failed", 1)
    states = place.prefect("SELECT state_name FROM flow_run WHERE name LIKE 'sweep%' ORDER BY created DESC LIMIT 1")
    assert states == [("Failed",)]


@pytest.fixture(scope="module")
def one_can_be_had(again, tmp_path_factory):
    """A sweep of three models: one is no model folder, one lacks a tensor, and the third is done already."""
    place = again[0].copy(tmp_path_factory.mktemp("had") / "place")
    empty = place.folder / "empty"
    lacking = place.folder / "lacking"
    empty.mkdir()
    shutil.copytree(next((place.home / "models").glob("tiny-llama-base-*")), lacking)
    weights = mx.load(str(lacking / "model.safetensors"))
    mx.eval(weights)
    del weights["model.norm.weight"]
    mx.save_safetensors(str(lacking / "model.safetensors"), weights, metadata={"format": "mlx"})

    models = '"empty", "lacking", "tiny-llama"'
    text = (GRIDS / "smoke.toml").read_text().replace('"tiny-llama", "tiny-gemma3"', models)
    for path in (empty, lacking):
        text += f'\n[[base_model]]\nname = "{path.name}"\nlicence = "none"\n'
        text += f'[[base_model.sources]]\nkind = "folder"\npath = "{path}"\n'

    grid = place.folder / "three.toml"
    grid.write_text(text)
    return place, place.run("sweep", str(grid), "--bits", "4", "--recipe", "baseline")


def test_a_model_that_cannot_be_fetched_or_converted_fails_the_sweep_and_the_others_land(one_can_be_had):
    """Its trainings never run, and what never ran was once told as landed."""
    place, result = one_can_be_had
    assert result.returncode == 2, result.stdout + result.stderr
    assert "FAILED   empty-4bit-baseline-s42: The folder" in result.stdout and "has no config.json" in result.stderr
    assert "FAILED   lacking-4bit-baseline-s42: The weights do not fit" in result.stdout
    assert one_sentence(result.stderr) and "model.norm.weight" in result.stderr
    assert result.stdout.count("landed   ") == 1 and "landed   tiny-llama-4bit-baseline-s42" in result.stdout
    assert result.stdout.splitlines()[-1] == (
        f"What has finished is in the warehouse: {place.warehouse}; "
        "next: fix the problem above and rerun the same command"
    )
    steps = place.last_steps()
    assert steps["acquire empty"][0] == steps["convert lacking"][0] == "Failed"
    assert steps["land tiny-llama 4bit baseline s42"][0] == "Cached"


def test_a_sweeps_table_shows_what_it_asked_for_and_no_other_cell_of_the_warehouse(one_can_be_had):
    place, result = one_can_be_had
    table = result.stdout.partition("1 trained model, best first")[2].partition("For more:")[0]
    assert "tiny-llama-4bit-baseline-s42" in table and "always-GP" in table and "tiny-llama-4bit-zero_shot" in table
    assert "gemma3" not in table and "8bit" not in table and "balanced_safe" not in table
    assert len(place.query("FROM leaderboard WHERE recipe_kind <> 'baseline'")) == 8


def test_a_home_of_the_users_choice_is_the_only_place_written(smoke):
    assert not home().exists()
    assert {p.name for p in smoke[0].folder.iterdir()} == {"home", "prefect", "out", "err"}
