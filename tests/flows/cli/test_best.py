"""Which test set `triage best` takes: that which was judged last, however late a model was trained."""

from datetime import datetime

from flows.cli.best import candidates_of
from tests.warehouse.rows import evaluation, training
from tests.warehouse.test_studies import land_sweep
from warehouse.landing import write_landing
from warehouse.load import load_all


def candidates(root) -> list[str]:
    load_all(root)
    return [row.evaluation_id for row in candidates_of("study", None, None)]


def test_the_models_are_those_of_the_test_set_that_was_judged_last(tmp_path):
    for bits, day in ((4, 1), (8, 9)):
        write_landing(tmp_path, f"t{bits}", "training", training(f"t{bits}", bits, day=day))
        write_landing(tmp_path, f"o{bits}", "evaluation", evaluation(f"o{bits}", f"t{bits}", set_digest="old"))

    rows = evaluation("n4", "t4", set_digest="new", created_at=datetime(2026, 2, 1))
    write_landing(tmp_path, "n4", "evaluation", rows)
    land_sweep(tmp_path, "study", ["t4", "t8", "o4", "o8", "n4"])
    assert candidates(tmp_path) == ["n4"], "the model at 8 bits was trained last"


def test_a_sweep_that_finds_its_models_judged_brings_their_test_set_back(tmp_path):
    """A study that was run on other cases in between, as by `--set data.source=...`."""
    write_landing(tmp_path, "t4", "training", training("t4", 4))
    for name, day in (("own", 2), ("other", 3)):
        rows = evaluation(name, "t4", set_digest=name, created_at=datetime(2026, 1, day))
        write_landing(tmp_path, name, "evaluation", rows)
    land_sweep(tmp_path, "study", ["t4", "own"], day=1)
    land_sweep(tmp_path, "study", ["t4", "other"], day=2)
    assert candidates(tmp_path) == ["other"]
    land_sweep(tmp_path, "study", ["t4", "own"], day=3)
    assert candidates(tmp_path) == ["own"]
