"""A sealed claim: no command shows a figure of its models before all seeds are judged and it is opened, which is recorded."""

import json
import re
from datetime import datetime

import pytest

from flows.cli.best import best
from flows.cli.compare import compare, print_study
from flows.cli.gates import gates
from flows.cli.status import print_status
from flows.cli.sweep import print_results
from flows.outcomes import landed_results
from flows.report.page import reported_study
from flows.report.rows import Sealed, evaluation_ids
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.spec import Primary
from tests.place import shown
from tests.warehouse.rows import assert_sound, evaluation
from tests.warehouse.test_precisions import land as land_at
from tests.warehouse.test_precisions import noisy
from tests.warehouse.test_studies import land_sweep
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query

CLAIM = Primary(
    recipe="tuned", base_model="smol", figures=("over_triage", "accuracy"), adjust="holm", sealed=True,
    seeds=(1, 2, 3), further_seeds=(4, 5),
)  # fmt: skip
COLUMNS = {"primary_claim": CLAIM.model_dump_json(), "primary_digest": CLAIM.digest}


def land_seeds(*seeds: int, day: int) -> list[str]:
    """Both precisions of these seeds, and the first one's 8-bit adapter moved; evaluation_ids."""
    root, ids = home() / "landing", []
    for seed in seeds:
        judged = {"created_at": datetime(2026, 4, 1)}  # after the claim
        values = {"arm": f"s{seed}-", "seed": seed, "recipe": "tuned", "of_evaluation": judged}
        for precision in ("4bit", "8bit"):
            land_at(root, precision, noisy(10 * seed + int(precision[0]), 0.8, 240), **values)
            ids.append(f"e-s{seed}-{precision}")
        land_at(root, "mxfp4", noisy(seed, 0.5, 240), moved_from="8bit", **values)
        familiar = evaluation(f"f-s{seed}", f"t-s{seed}-4bit", evaluation_set="test_familiar", **judged)
        write_landing(root, f"f-s{seed}", "evaluation", familiar)
        ids += [f"e-s{seed}-mxfp4-from-8bit", f"f-s{seed}"]
    land_sweep(root, "sealed", ids, day, **COLUMNS)
    load_all(root)
    return ids


def is_sealed(ids: list[str], capsys) -> str:
    """What `triage compare` prints of a study that no command shows a figure of."""
    for refused in (reported_study, lambda name: gates(), lambda name: best(study=name)):
        with pytest.raises(Sealed, match="The study sealed is sealed, so no figure of its models is shown; `triage"):
            refused("sealed")
    with pytest.raises(BadInput, match="t-s1-4bit is of the study sealed, which is sealed; `triage"):
        gates("t-s1-4bit")
    assert landed_results(ids) == [] and len(query("FROM evaluation_summary")) == 0
    assert "s1-4bit" in (status := shown(print_status)) and not re.search(r"0\.\d", status)

    printed = shown(print_study, "sealed")
    assert shown(print_results, "sealed", ids) == printed
    compare("sealed", as_json=True)
    given = json.loads(capsys.readouterr().out)
    assert given["test_sets"] == [] and "\n".join(given["details"]) == printed.strip()
    return printed


def test_a_sealed_study_shows_its_progress_then_what_seeds_differ_by_and_its_figures_when_it_is_opened(capsys):
    ids = land_seeds(1, 2, day=1)
    progress = is_sealed(ids, capsys)
    assert progress.splitlines() == [
        "The study sealed is sealed: 2 of 3 seeds of smol tuned are judged at 4bit and 8bit, and no figure of its models is "
        "shown before all are and it is opened.",
        "Missing: 3. The same sweep goes on with them.",
    ]
    with pytest.raises(BadInput, match="2 of 3 seeds .* Missing: 3"):
        compare("sealed", open_it=True)

    ids = land_seeds(1, 2, 3, day=2)
    _, deviations, chances, further, command = is_sealed(ids, capsys).splitlines()
    (row,) = query("SELECT * FROM quantization_summary WHERE metric = 'accuracy' AND rule = 'argmax'").to_dict(
        "records"
    )
    differences = [
        query(f"SELECT avg((argmax = label)::INT) FROM prediction WHERE evaluation_id LIKE 'e-s{seed}-%bit' "
              "AND evaluation_id NOT LIKE '%from%' GROUP BY evaluation_id ORDER BY evaluation_id").iloc[:, 0]
        for seed in CLAIM.seeds
    ]  # fmt: skip
    spread = query(f"SELECT 100 * stddev_samp(x) FROM (SELECT unnest({[a - b for a, b in differences]}) AS x)").iloc[
        0, 0
    ]
    assert deviations.endswith(f", accuracy {spread:.2f}.") and row["seeds"] == 3
    assert f"{100 * row['difference']:.1f}" not in deviations + chances
    assert re.search(r"equal: 3 seeds \d+ % in over-triage, \d+ % in accuracy; 5 seeds \d+ % in over-", chances)
    assert further == "Seeds that may join, all of them, before it is opened: 4, 5."

    ids = land_seeds(4, day=3)
    assert "4 of 5 seeds" in is_sealed(ids, capsys), "once one has joined"
    ids = land_seeds(5, day=4)
    assert "5 of 5 seeds" in is_sealed(ids, capsys)

    assert command == "Next: triage compare sealed --open, which records the time and shows every figure."
    compare("sealed", open_it=True)
    assert "in over-triage by each model's threshold: " in (text := capsys.readouterr().out)
    assert "by Holm for 2 figures" in text and "5 trainings a side" in text
    assert "before its first result" in " ".join(shown(print_study, "sealed", asked=["pairs"]).split())
    assert len(landed_results(ids)) == 3 and len(evaluation_ids("sealed")) == 20
    (claim,) = query("SELECT sealed, opened_at, looked_at FROM primary_claim JOIN look USING (study)").to_dict(
        "records"
    )
    assert not claim["sealed"] and claim["opened_at"] == claim["looked_at"]
    with pytest.raises(BadInput, match="not sealed"):
        compare("sealed", open_it=True)
    assert_sound()


def test_a_seal_is_of_trained_models(tmp_path):
    from tasks.grids.grid import load_grid

    moved = ["primary.sealed=true", "primary.sides=['mxfp4', '8bit']", "scoring.move_adapters=['mxfp4']"]
    with pytest.raises(BadInput, match="primary.sealed: adapters are moved to mxfp4, and a seal is of trained"):
        load_grid("registered", moved)
