"""A real smoke sweep: all lands, the second time nothing is done again, the damaged is rebuilt, one failure stops no other."""

import hashlib
import json
import re
import shutil

import mlx.core as mx
import pandas as pd
import pytest

from flows.cli.best import candidates
from flows.cli.experiments import find_model
from flows.cli.main import app
from flows.report.rows import leaderboard_rows
from tasks.bundle import export_job
from tasks.bundle.decide import rule_labels
from tasks.grids.grid import GRIDS
from tasks.models.sizes import PARTS, expected_sizes, known_shape
from tasks.precisions import of_bits
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.runtime.locks import locked
from tasks.runtime.store import intact_manifest
from tests.place import wait_until
from tests.test_land import flip
from tests.warehouse.rows import training
from warehouse.connect import writing
from warehouse.landing import write_landing

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
    end = f"8 experiments are in the warehouse: {place.warehouse}; next: triage compare smoke"
    assert first.stdout.splitlines()[-1] == end


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


def test_every_folder_is_complete_nothing_temporary_is_left_or_written_elsewhere_and_every_audit_passes(smoke):
    place, _ = smoke
    assert not home().exists()
    assert {path.name for path in place.folder.iterdir()} == {"home", "prefect", "out", "err"}
    for cell in CELLS:
        folder = place.experiment(cell)
        assert all(intact_manifest(one, deep=True) for one in (folder, *(folder / "scores").iterdir()))
    assert list(place.home.rglob(".tmp-*")) == [] and place.audits() == {}


def test_results_land_one_by_one_while_the_next_weights_are_fetched(smoke):
    """Stage by stage, the first landing would come after the last training; untuned models, which are scored on every
    case, come after the first trained result of their variant."""
    place, _ = smoke
    assert started(place, "train", "evaluate") == ["train", "evaluate"] * 8
    assert started(place, "evaluate", "zero-shot") == ["evaluate", "zero-shot", "evaluate"] * 4
    steps = started(place, "acquire", "train")
    assert steps.index("train", steps.index("train") + 1) > 2 and steps.count("acquire") == 2

    steps = started(place, "train", "land")
    trainings = [number for number, step in enumerate(steps) if step == "train"]
    landings = [number for number, step in enumerate(steps) if step == "land"]
    assert len(landings) == 8 and all(map(int.__lt__, landings, trainings[2:]))


def test_the_flow_run_has_its_artifacts_and_is_found_by_models_bits_recipes_and_kinds(smoke):
    """Its tasks carry no tags, of which each would wait for a limit, and no bar of a finished step is left."""
    place, printed = smoke
    of_run = "artifact JOIN flow_run ON flow_run.id = artifact.flow_run_id WHERE name = 'sweep smoke'"
    rows = place.prefect(f"SELECT key, type, data FROM {of_run} ORDER BY type")
    assert len(rows) == len(place.prefect("SELECT id FROM artifact"))
    (comparison, progress) = rows
    assert comparison[:2] == ("comparison", "markdown") and progress == ("sweep-smoke", "progress", 100)
    sentence, _, table = json.loads(comparison[2]).partition("\n\n")
    assert sentence.strip("*") in printed.stdout and [cell for cell in CELLS if cell not in table] == []
    ((tags,),) = place.prefect("SELECT tags FROM flow_run WHERE name = 'sweep smoke'")
    expected = {"tiny-llama", "tiny-gemma3", "4bit", "8bit", "baseline", "balanced_safe", "standard", "safety"}
    assert set(json.loads(tags)) == expected
    assert place.prefect("SELECT DISTINCT tags FROM task_run") == [("[]",)]


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


# --- A sweep in which one of four models can be trained, while the sweep below runs: one for each core ---------------


def copied_model(place, name, change):
    """The folder of a base model, its weights changed in place."""
    folder = place.folder / name
    shutil.copytree(next((place.home / "models").glob("tiny-llama-base-*")), folder)
    weights = mx.load(str(folder / "model.safetensors"))
    mx.eval(weights)
    change(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    return folder


@pytest.fixture(scope="module")
def failing(smoke, server, tmp_path_factory):
    """One model is no model folder, one lacks a tensor, and one has a NaN: its loss is not finite at the first update."""
    place = smoke[0].copy(tmp_path_factory.mktemp("failing") / "place", server)
    empty = place.folder / "empty"
    empty.mkdir()
    nan = mx.array(float("nan")).astype(mx.bfloat16)
    norm = "model.norm.weight"
    lacking = copied_model(place, "lacking", lambda weights: weights.pop(norm))
    poisoned = copied_model(place, "poisoned", lambda weights: weights.update({norm: weights[norm] * nan}))
    models = '"empty", "lacking", "poisoned", "tiny-llama"'
    text = (
        (GRIDS / "smoke.toml").read_text().replace('"tiny-llama", "tiny-gemma3"', models).replace('"smoke"', '"four"')
    )
    for path in (empty, lacking, poisoned):
        text += f'\n[[base_model]]\nname = "{path.name}"\nlicence = "none"\n'
        text += f'[[base_model.sources]]\nkind = "folder"\npath = "{path}"\n'

    grid = place.folder / "four.toml"
    grid.write_text(text)
    changes = ("seeds=[7]", "scoring.fidelity_cases=0", "scoring.untuned=false", "scoring.with_linear=true")
    settings = [word for change in changes for word in ("--set", change)]
    process = place.start("sweep", str(grid), "--bits", "4", "--recipe", "baseline", *settings)
    yield place, process
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def mended(smoke, server, failing, tmp_path_factory):
    """The sweep of the first model again, which moves the adapters of 4 bits, too, after one experiment was deleted, one
    damaged, one robbed of its scores, and the warehouse removed; one landing folder of each kind lost a bit, and one that
    no sweep here makes. The deleted one's folder is held by another process until Prefect is about to try again."""
    place = smoke[0].copy(tmp_path_factory.mktemp("mended") / "place", server)
    removed, damaged, unscored = (place.experiment(cell) for cell in CELLS[:3])
    shutil.rmtree(removed)
    flip(damaged / "adapters.safetensors")
    shutil.rmtree(unscored / "scores")
    place.warehouse.unlink()
    write_landing(place.home / "landing", "stranger", "training", training("stranger"))
    for word, table in (
        ("llama-4bit-baseline", "experiment"), ("llama-8bit-balanced_safe", "prediction"), ("always_ed", "prediction"),
        ("llama-4bit-zero_shot", "experiment"), ("llama-8bit-zero_shot", "prediction"), ("llama", "fidelity"),
        ("llama-8bit", "variant"), ("stranger", "experiment"),
    ):  # fmt: skip
        flip(next(place.home.glob(f"landing/*{word}*/{table}.parquet")))

    with locked(removed):
        moves = ("--set", "scoring.move_adapters=true", "--set", 'scoring.moved_from=["4bit"]')
        process = place.start("sweep", "smoke", "--model", "tiny-llama", *moves)
        waits = "SELECT 1 FROM task_run WHERE state_name = 'AwaitingRetry'"
        wait_until(lambda: place.prefect(waits) or process.poll() is not None, 600)

    result = place.finish(process)
    return place, smoke[0], result.returncode, result.stdout + result.stderr


def test_the_second_time_steps_are_cached_and_what_is_deleted_or_damaged_is_rebuilt_although_prefect_has_its_result(
    mended,
):
    place, original, code, printed = mended
    assert code == 0, printed
    assert [cell for cell in CELLS[:4] if f"landed   {cell} " not in printed] == []
    now, before = adapters(place), adapters(original)
    assert {cell for cell in CELLS if now[cell][1] != before[cell][1]} == set(CELLS[:2])
    assert {cell: value[0] for cell, value in now.items()} == {cell: value[0] for cell, value in before.items()}
    steps = place.last_steps()
    states = {name: state for name, (state, _) in steps.items() if name.startswith(("train", "evaluate"))}
    assert len(states) == 8 and {name for name, state in states.items() if state != "Cached"} == {
        "train tiny-llama 4bit baseline s42", "evaluate tiny-llama 4bit baseline s42",
        "train tiny-llama 4bit balanced_safe s42", "evaluate tiny-llama 8bit baseline s42",
    }  # fmt: skip
    assert {steps[f"{step} tiny-llama"][0] for step in ("acquire", "convert")} == {"Cached"}
    # Another process held its folder.
    state, attempts = steps["train tiny-llama 4bit baseline s42"]
    assert state == "Completed" and attempts >= 2


def test_a_lost_warehouse_is_refilled_from_what_has_landed_and_what_was_damaged_is_made_again(mended):
    place, original, _, printed = mended
    for statement in (
        "SELECT id, kind FROM landed WHERE kind <> 'sweep' AND NOT contains(id, '-from') ORDER BY ALL",
        "SELECT evaluation_id, case_id, p_ed, decision FROM prediction SEMI JOIN evaluation USING (evaluation_id) "
        "WHERE NOT contains(evaluation_id, '-from') ORDER BY ALL",
        "SELECT count(*) FROM fidelity",
        "SELECT count(*) FROM variant",
    ):
        assert place.query(statement).equals(original.query(statement)), statement
    assert place.audits() == {}
    (line,) = (line for line in printed.splitlines() if "WARNING" in line and "landing" in line)
    assert f"{place.home / 'landing' / 'stranger'}" in line and "come back with the sweep or benchmark" in line


ARMS = ("", "-again")  # of the adapters that the sweep moves


def test_every_adapter_that_moves_lands_on_the_other_bit_width_and_is_compared_with_itself_on_other_weights(mended):
    place, *_ = mended
    steps = {name: state for name, state in place.last_steps().items() if name.startswith("move ")}
    recipes = ("balanced_safe", "baseline")
    assert steps == {
        f"move tiny-llama 4bit {recipe} to 8bit{arm}": ("Completed", 1)
        for recipe in recipes
        for arm in ("", ", threshold chosen again")
    }
    rows = place.query(
        "SELECT m.cell_id, m.bits, own.bits AS source_bits, m.weights_digest = variant.weights_digest AS on_variant "
        "FROM experiment AS m JOIN experiment AS own ON own.training_id = m.source_training_id "
        "JOIN variant ON variant.base_model = m.base_model AND variant.bits = m.bits "
        "WHERE m.recipe_kind = 'moved_adapter' ORDER BY own.recipe, m.bits, m.moved_rules = 'chosen_again'"
    )
    assert rows.cell_id.tolist() == [
        f"tiny-llama-8bit-{recipe}-from4bit{arm}-s42" for recipe in recipes for arm in ARMS
    ]
    assert rows.source_bits.tolist() == [4, 4] * 2 and rows.on_variant.all()

    changes = place.query(
        "SELECT change, any_value(cases) AS cases, max(abs(a.p_ed - b.p_ed)) AS largest FROM flips "
        "JOIN prediction AS a ON a.evaluation_id = evaluation_before "
        "JOIN prediction AS b ON b.evaluation_id = evaluation_after AND b.case_id = a.case_id "
        "WHERE change LIKE 'adapter moved%' GROUP BY change ORDER BY change"
    )
    assert changes.change.tolist() == [
        f"adapter moved from 4 to 8 bits{arm}" for arm in ("", ", threshold chosen again")
    ]
    assert (changes.cases == 24).all() and (changes.largest > 0).all(), "other weights give other probabilities"

    moved = "FROM evaluation JOIN experiment USING (training_id) WHERE recipe_kind = 'moved_adapter'"
    passes = place.query(f"SELECT DISTINCT mc_status {moved} AND recipe LIKE 'balanced_safe%'")
    assert passes.mc_status.tolist() == ["available"]
    notes = place.query(
        "SELECT moved_rules = 'kept' AS is_kept, "
        "list(DISTINCT coalesce(note, '') LIKE '%no guarantee here%') AS disclaims "
        "FROM conformal JOIN evaluation USING (evaluation_id) JOIN experiment USING (training_id) "
        "WHERE evaluation_set = 'test' AND recipe_kind <> 'baseline' GROUP BY ALL ORDER BY 1"
    )
    assert [list(disclaims) for _, disclaims in notes.values] == [[False], [True], [False]], "again, kept and own"


def test_rules_are_chosen_again_on_calibration_at_the_other_width_and_the_probabilities_stay(mended):
    place, *_ = mended
    arms = place.query(
        "SELECT kept.evaluation_id AS kept, again.evaluation_id AS again, own.evaluation_id AS own "
        "FROM leaderboard AS kept JOIN leaderboard AS again USING (source_training_id, precision) "
        "JOIN leaderboard AS own ON own.training_id = kept.source_training_id "
        "WHERE kept.moved_rules = 'kept' AND again.moved_rules = 'chosen_again'"
    )
    assert len(arms) == 2
    rules = place.query("FROM decision_rule WHERE rule = 'target_recall'").set_index("evaluation_id")
    predictions = place.query("FROM prediction ORDER BY case_id").set_index("evaluation_id")
    calibration = place.query("FROM calibration_prediction").set_index("evaluation_id")
    p = ["case_id", "p_ed", "p_gp", "p_home"]
    for kept, again, own in arms.itertuples(index=False):
        assert (predictions.loc[kept, p].values == predictions.loc[again, p].values).all()
        assert rules.threshold[kept] == rules.threshold[own] != rules.threshold[again]
        assert kept not in calibration.index, "those of its own"
        for one in (own, again):
            cases = calibration.loc[one]
            emergencies = sorted(cases.p_ed[cases.label == "ED"])
            assert len(cases) == 24 and rules.threshold[one] == emergencies[int(rules.allowed_misses[one])]


def test_a_moved_adapter_is_used_by_the_rules_that_were_chosen_again_and_says_so(mended, own_home, monkeypatch, capsys):
    place, *_ = mended
    place.use(monkeypatch)
    rows = {row.cell_id: row for row in leaderboard_rows() if row.moved_rules}
    wanted = {row.cell_id for row in candidates(leaderboard_rows(), "smoke", None, None) if row.moved_rules}
    assert wanted == {cell for cell in rows if "-again-" in cell} and len(wanted) == 2

    kept = "tiny-llama-8bit-balanced_safe-from4bit-s42"
    again = rows[kept.replace("-s42", "-again-s42")]
    (threshold,) = place.query(f"FROM evaluation WHERE evaluation_id = '{again.evaluation_id}'").threshold
    for name, precision in ((kept, None), (again.cell_id, None), (CELLS[1], "8bit")):
        bundle = find_model(name, precision).bundle
        assert (bundle.judged_on.evaluation_id, bundle.rule.threshold) == (again.evaluation_id, threshold)
    chosen = f"the threshold, {threshold:.3g}, was chosen again on calibration at 8bit."
    said = f"The adapter was trained at 4bit; {chosen}"
    assert bundle.origin == said

    bundle = find_model("tiny-llama-8bit-baseline-from4bit-s42").bundle
    of_again = place.query(f"FROM prediction WHERE evaluation_id = '{bundle.judged_on.evaluation_id}'")
    assert rule_labels(bundle, of_again[["p_ed", "p_gp", "p_home"]].values) == of_again.argmax.tolist()
    assert "the offsets of the most probable label were chosen again" in bundle.origin
    with pytest.raises(BadInput, match="was chosen at 4bit, 8bit, and not at mxfp4, where its threshold means"):
        find_model(CELLS[0], "mxfp4")

    capsys.readouterr()
    monkeypatch.setattr("tasks.bundle.export.run_child", lambda function, args, *rest: export_job.run(args, print))
    app(["export", CELLS[1], str(place.folder / "moved"), "--adapter", "--precision", "8bit"], standalone_mode=False)
    assert said in " ".join(capsys.readouterr().err.split())
    card = (place.folder / "moved" / "README.md").read_text()
    assert said in card and "| metric | this model | threshold kept | " in card
    assert json.loads((place.folder / "moved" / "bundle.json").read_text())["rule"]["threshold"] == threshold
    find_model(str(place.folder / "moved"))
    assert " ".join(capsys.readouterr().err.split()) == said
    with pytest.raises(BadInput, match="is an export already, without the cases that choose a threshold again"):
        find_model(str(place.folder / "moved"), "8bit")
    config = json.loads((place.folder / "moved" / "adapter_config.json").read_text())
    assert config["model"].startswith("tiny-llama-8bit-"), "not the weights that it was trained on"


def test_a_kept_rule_is_not_used_where_none_was_chosen_again(mended, own_home, tmp_path, monkeypatch):
    """As after a sweep whose calibration set has no emergency."""
    place = mended[0].copy(tmp_path / "copy")
    place.use(monkeypatch)
    with writing(place.warehouse) as connection:
        connection.execute(
            "DELETE FROM evaluation WHERE training_id IN "
            "(SELECT training_id FROM experiment WHERE moved_rules = 'chosen_again')"
        )
    for name, precision in (("tiny-llama-8bit-balanced_safe-from4bit-s42", None), (CELLS[1], "8bit")):
        with pytest.raises(BadInput, match="was chosen at 4bit, and not at 8bit, .*again, or says why it cannot"):
            find_model(name, precision)
    assert find_model(CELLS[1]).bundle.trained_at is None, "at its own precision it is used"


def test_a_model_that_cannot_be_fetched_converted_or_trained_fails_the_sweep_and_the_others_land(failing):
    """Trainings of the first two never run, and what never ran was once told as landed."""
    place, process = failing
    result = place.finish(process)
    assert (result.returncode, result.stderr) == (1, ""), result.stdout + result.stderr
    assert re.search("FAILED   empty-4bit-baseline-s7: The folder .* has no config.json; name a ", result.stdout)
    assert "FAILED   lacking-4bit-baseline-s7: The weights do not fit" in result.stdout
    assert "FAILED   poisoned-4bit-baseline-s7: The loss became nan at update 1" in result.stdout
    assert result.stdout.count("landed   ") == 1 and "landed   tiny-llama-4bit-baseline-s7" in result.stdout
    assert "failures in a sweep of 4 experiments: " in " ".join(result.stdout.split())
    assert "Traceback" not in result.stdout
    *_, end = result.stdout.splitlines()
    assert str(place.warehouse) in end and end.endswith("next: fix the problem above and rerun the same command")
    table = result.stdout.partition("1 model and 1 together with the linear one on ")[2].partition("For more:")[0]
    for words in ("4bit-baseline ", "4bit-baseline-with-linear ", "NAME-s7", "linear model"):
        assert words in table
    assert not re.search("gemma3|8bit|balanced_safe", table), "cells of the warehouse that the sweep did not ask for"

    steps = place.last_steps("four")
    assert steps["acquire empty"][0] == steps["convert lacking"][0] == "Failed"
    assert not [name for name in steps if name.startswith("fidelity")], "no case was asked for"
    assert steps["train poisoned 4bit baseline s7"] == ("Failed", 1), "it is not tried again"
    assert place.prefect("SELECT state_name FROM flow_run WHERE name = 'sweep four'") == [("Failed",)]
    rows = place.query(
        "SELECT cell_id, status, error, evaluation_id IS NOT NULL FROM experiment "
        "LEFT JOIN evaluation USING (training_id) WHERE seed = 7 ORDER BY ALL"
    )
    (bad, good, joined) = rows.itertuples(index=False, name=None)
    assert bad[:2] == ("poisoned-4bit-baseline-s7", "diverged") and "update 1" in bad[2] and not bad[3]
    assert good[:2] == ("tiny-llama-4bit-baseline-s7", "completed") and good[3]
    assert joined[0] == "tiny-llama-4bit-baseline-with-linear-s7" and joined[3]
    assert result.stdout.count("FAILED   ") == 3
    assert place.audits() == {}
