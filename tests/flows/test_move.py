"""The arm of the comparison that moves an adapter to the other bit width, through the real command."""

import pytest


@pytest.fixture(scope="module")
def moved_study(smoke, tmp_path_factory):
    """A sweep of one cell per bit width in a finished place, where nothing but moving is left to do."""
    place = smoke[0].copy(tmp_path_factory.mktemp("moves") / "place")
    options = ("--model", "tiny-llama", "--recipe", "balanced_safe", "--set", "scoring.move_adapters=true")
    return place, place.run("sweep", "smoke", *options)


def test_every_adapter_lands_on_the_other_bit_width_as_an_experiment_of_its_own_kind(moved_study):
    place, result = moved_study
    assert (result.returncode, result.stderr) == (0, ""), result.stdout + result.stderr
    steps = {name: state for name, state in place.last_steps().items() if name.startswith("move ")}
    assert steps == {
        f"move tiny-llama {a}bit balanced_safe to {b}bit": ("Completed", 1) for a, b in ((4, 8), (8, 4))
    }  # fmt: skip
    rows = place.query(
        "SELECT m.cell_id, m.bits, own.bits AS source_bits, m.weights_digest = variant.weights_digest AS on_variant "
        "FROM experiment AS m JOIN experiment AS own ON own.training_id = m.source_training_id "
        "JOIN variant ON variant.base_model = m.base_model AND variant.bits = m.bits "
        "WHERE m.recipe_kind = 'moved_adapter' ORDER BY m.bits"
    )
    assert rows.cell_id.tolist() == [f"tiny-llama-{b}bit-balanced_safe-from{12 - b}bit-s42" for b in (4, 8)]
    assert rows.source_bits.tolist() == [8, 4] and rows.on_variant.all()
    assert place.audits() == {}


def test_the_same_adapter_is_compared_with_itself_on_other_weights(moved_study):
    place, _ = moved_study
    flips = place.query("SELECT * FROM flips WHERE change LIKE 'adapter moved%' ORDER BY change")
    assert flips.change.tolist() == ["adapter moved from 4 to 8 bits", "adapter moved from 8 to 4 bits"]
    assert (flips.cases == 24).all()
    shift = place.query(
        "SELECT change, max(abs(a.p_ed - b.p_ed)) AS largest FROM flips "
        "JOIN prediction AS a ON a.evaluation_id = evaluation_before "
        "JOIN prediction AS b ON b.evaluation_id = evaluation_after AND b.case_id = a.case_id "
        "WHERE change LIKE 'adapter moved%' GROUP BY change"
    )
    assert len(shift) == 2 and (shift.largest > 0).all(), "other weights give other probabilities"


def test_moved_adapters_have_dropout_passes(moved_study):
    place, _ = moved_study
    moved = "FROM evaluation JOIN experiment USING (training_id) WHERE recipe_kind = 'moved_adapter'"
    assert place.query(f"SELECT DISTINCT mc_status {moved}").mc_status.tolist() == ["available"]


def test_conformal_sets_of_moved_adapters_claim_no_guarantee(moved_study):
    place, _ = moved_study
    notes = place.query(
        "SELECT recipe_kind = 'moved_adapter' AS is_moved, "
        "list(DISTINCT coalesce(note, '') LIKE '%no guarantee here%') AS disclaims "
        "FROM conformal JOIN evaluation USING (evaluation_id) JOIN experiment USING (training_id) "
        "WHERE evaluation_set = 'test' AND recipe_kind <> 'baseline' GROUP BY ALL ORDER BY 1"
    )
    assert [(moved, list(disclaims)) for moved, disclaims in notes.values] == [(False, [False]), (True, [True])]
