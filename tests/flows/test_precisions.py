"""Precisions other than 4 and 8 bits, and one adapter at several of them, through the real command."""

import json

import pytest

from tasks.corpus.vignettes.adversarial import adversarial_records

# Moving an adapter is tested in test_sweep.py, other precisions in ../test_precisions.py and ../models.
pytestmark = pytest.mark.nightly
PRECISIONS = 'precisions=["bf16", "4bit"]'
MOVES = 'scoring.move_adapters=["mxfp4", "4bit"]'
NO_PASSES = "scoring.moved_passes=false"


def test_one_adapter_is_landed_at_every_precision_on_both_sets_and_nothing_else_is_trained(smoke, tmp_path):
    """A sweep of one recipe in bfloat16 and 4 bits in a finished place, each adapter scored at mxfp4 too."""
    place = smoke[0].copy(tmp_path / "place")
    few = place.folder / "few.jsonl"
    cases = [record.case for record in adversarial_records()[:24]]
    few.write_text("".join(json.dumps({"text": case.text, "label": case.label}) + "\n" for case in cases))
    sets = f'evaluation_set=[{{ name = "few", source = "{few}" }}]'
    options = ("--model", "tiny-llama", "--recipe", "balanced_safe")
    settings = [part for key in (PRECISIONS, MOVES, NO_PASSES, sets) for part in ("--set", key)]

    result = place.run("sweep", "smoke", *options, *settings)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout + result.stderr
    done = [name for name, (state, _) in place.last_steps().items() if state == "Completed"]
    assert [name for name in done if name.startswith("train ")] == ["train tiny-llama bf16 balanced_safe s42"]
    landed = place.query(
        "SELECT cell_id, bits, precision, group_size, compute_path FROM experiment "
        "WHERE recipe LIKE 'balanced_safe%' AND base_model = 'tiny-llama' AND precision NOT IN ('8bit') ORDER BY cell_id"
    )
    assert landed.cell_id.tolist() == [
        "tiny-llama-4bit-balanced_safe-frombf16-s42", "tiny-llama-4bit-balanced_safe-s42", "tiny-llama-bf16-balanced_safe-s42",
        "tiny-llama-mxfp4-balanced_safe-from4bit-s42", "tiny-llama-mxfp4-balanced_safe-frombf16-s42",
    ]  # fmt: skip
    assert landed.precision.tolist() == ["4bit", "4bit", "bf16", "mxfp4", "mxfp4"]
    assert landed.group_size.fillna(0).tolist() == [64, 64, 0, 32, 32]
    assert set(landed.compute_path) <= {"packed", "dequantised_f32"} and landed.compute_path.notna().all()
    assert place.audits() == {}
    frontier = place.query(
        "SELECT adapter, evaluation_set, precision FROM frontier WHERE recipe = 'balanced_safe' AND precision <> '8bit'"
    )
    matches = {key: set(group.precision) for key, group in frontier.groupby(["adapter", "evaluation_set"])}
    for name in ("test", "few"):
        assert matches["from bf16", name] == {"bf16", "4bit", "mxfp4"}
        assert matches["from 4bit", name] == {"4bit", "mxfp4"}

    reasons = place.query(
        "SELECT DISTINCT mc_status, mc_reason FROM evaluation JOIN experiment USING (training_id) "
        "WHERE recipe_kind = 'moved_adapter' AND evaluation_set = 'test'"
    )
    ((status, reason),) = reasons.values.tolist()
    assert status == "not available" and reason.startswith("scoring.moved_passes is false")
    fidelity = place.query("SELECT DISTINCT precision FROM fidelity WHERE base_model = 'tiny-llama'")
    assert set(fidelity.precision) == {"4bit", "8bit", "mxfp4"}
