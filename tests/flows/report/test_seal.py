"""A sealed claim: no command shows a figure of its models before all seeds are judged and it is opened, which is recorded."""

import json
import re
from collections.abc import Sequence
from datetime import datetime

import pytest

from flows.cli.best import best
from flows.cli.compare import compare, print_study
from flows.cli.gates import gates
from flows.cli.status import print_status
from flows.cli.sweep import print_results
from flows.outcomes import landed_results
from flows.report.page import reported_study
from flows.report.rows import Sealed, evaluation_ids, studied
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.spec import Primary, canonical_json, short_digest
from tests.place import shown
from tests.warehouse.rows import assert_sound, evaluation, full, land_arm, training
from tests.warehouse.test_precisions import land as land_at
from tests.warehouse.test_precisions import noisy
from tests.warehouse.test_studies import land_sweep
from warehouse.connect import reading, writing
from warehouse.cookbook import cookbook, named_query
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query
from warehouse.schema import sql_files

CLAIM = Primary(
    recipe="tuned", base_model="smol", figures=("over_triage", "accuracy"), adjust="holm", sealed=True,
    seeds=(1, 2, 3), further_seeds=(4, 5),
)  # fmt: skip
JUDGED = {"created_at": datetime(2026, 4, 1)}  # after the claim
# Views and queries that have rows while everything is sealed: names, settings and counts of results, and of trainings what they
# took. `claims` has a line for each claim of the repeated study.
WITHOUT_FIGURES = {
    "study_member", "study", "evaluation_origin", "evaluation_costs", "registered_claim", "primary_claim", "sealed_evaluation",
    "best_constant", "seed_group", "fixed_beforehand", "loaded", "training_cost", "changed_since", "claims",
}  # fmt: skip


def land_seeds(
    *seeds: int, day: int, claim: Primary = CLAIM, further: Sequence[str] = (), is_whole: bool = True
) -> list[str]:
    """Both precisions of these seeds and, where it is whole, the 8-bit adapters moved, and another set, a case of it with
    dropout; evaluation_ids. What has landed is found. `further`: also of the sweep."""
    root, ids = home() / "landing", [*further]
    for seed in seeds:
        ids += [f"e-s{seed}-4bit", f"e-s{seed}-8bit", *[f"e-s{seed}-mxfp4-from-8bit", f"f-s{seed}"] * is_whole]
        if (root / f"f-s{seed}").exists():
            continue
        values = {"arm": f"s{seed}-", "seed": seed, "recipe": "tuned", "of_evaluation": JUDGED}
        for precision in ("4bit", "8bit"):
            land_at(root, precision, noisy(10 * seed + int(precision[0]), 0.8, 240), **values)
        if not is_whole:
            continue
        land_at(root, "mxfp4", noisy(seed, 0.5, 240), moved_from="8bit", **values)
        dropout = {"mc_status": "available", "mc_reason": None, "mc_cases": 1}
        familiar = evaluation(f"f-s{seed}", f"t-s{seed}-4bit", evaluation_set="test_familiar", **dropout, **JUDGED)
        passes = {"passes": 2, "majority": "ED", "confidence": 1, "entropy_nats": 0, "review": False}
        row = full("mc_dropout", evaluation_id=f"f-s{seed}", case_id="c00000", p_ed=0.8, p_gp=0.1, p_home=0.1, **passes)
        familiar["mc_dropout"] = [row]
        write_landing(root, f"f-s{seed}", "evaluation", familiar)
    values = claim.model_dump(mode="json")
    land_sweep(
        root, "sealed", ids, day, primary_claim=canonical_json(values), primary_digest=short_digest(values)
    )  # fmt: skip
    load_all(root)
    return ids


def with_rows() -> dict[str, list[tuple[object, ...]]]:
    """The rows of every view, and of every named query with its defaults, where there are any."""
    rows = {}
    with reading() as con:
        for file in sql_files("views"):
            name = file.name.partition("_")[2]
            rows[name] = con.execute(f"FROM {name}").fetchall()
        for named in cookbook():
            rows[named.name] = con.execute(named.sql, named.values({})).fetchall()
    return {name: of_name for name, of_name in rows.items() if of_name}


def is_sealed(ids: list[str], capsys) -> str:
    """What `triage compare` prints of a study that no command shows a figure of."""
    for refused in (reported_study, lambda name: gates(), lambda name: best(study=name)):
        with pytest.raises(Sealed, match="The study sealed is sealed, so no figure of its models is shown; `triage"):
            refused("sealed")
    with pytest.raises(BadInput, match="t-s1-4bit is of the study sealed, which is sealed; `triage"):
        gates("t-s1-4bit")
    shown_rows = with_rows()
    assert shown_rows.keys() - {"unfinished_trainings"} == WITHOUT_FIGURES
    named = {str(value) for name in ("changed_since", "claims") for row in shown_rows[name] for value in row}
    assert not named & {*ids, *(id.removeprefix("e-") for id in ids)} and "t-s1-4bit" in named
    assert not [text for text in named if "smol tuned" in text]
    curve = named_query("learning_curves")
    assert len(query(curve.sql, curve.values({"first": "t-s1-4bit"}))) == 0
    assert_sound()
    assert landed_results(ids) == []
    assert "s1-4bit" in (status := shown(print_status)) and not re.search(r"0\.\d", status)

    printed = shown(print_study, "sealed")
    assert shown(print_results, "sealed", ids) == printed
    compare("sealed", as_json=True)
    given = json.loads(capsys.readouterr().out)
    assert given["test_sets"] == [] and "\n".join(given["details"]) == printed.strip()
    return printed


def test_a_sealed_study_shows_its_progress_then_what_seeds_differ_by_and_its_figures_when_it_is_opened(capsys):
    land_seeds(1, 2, day=1)
    assert shown(print_study, "sealed").splitlines() == [
        "The study sealed is sealed: 2 of 3 seeds of smol tuned are judged at 4bit and 8bit, and no figure of its models is "
        "shown before all are and it is opened.",
        "Missing: 3. The same sweep goes on with them.",
    ]
    with pytest.raises(BadInput, match="2 of 3 seeds .* Missing: 3"):
        compare("sealed", open_it=True)

    root, of_three = home() / "landing", {"seed": 3, "recipe": "tuned"}
    diverged = training("t-s3-4bit", 4, cell_id="s3-4bit", status="diverged", error="NaN", **of_three)
    write_landing(root, "t-s3-4bit", "training", diverged)
    land_at(root, "8bit", noisy(38, 0.8, 240), arm="s3-", of_evaluation=JUDGED, **of_three)
    land_seeds(day=2, further=["t-s3-4bit", "e-s3-8bit"])
    _, left_out, missing = shown(print_study, "sealed").splitlines()
    assert left_out.startswith("Left out at both, since a training diverged: seed 3.") and missing.startswith(
        "Missing: 4."
    )

    # Trained once more under other settings, and judged last: as a pair it would be another one.
    later = {"created_at": datetime(2026, 4, 2)}
    other = {"seed": 4, "recipe": "tuned", "settings_digest": "other", "of_evaluation": later}
    land_at(root, "8bit", noisy(48, 0.1, 240), arm="other-", **other)
    with writing() as con:
        con.execute("UPDATE schema_migrations SET sha256 = 'of an earlier version' WHERE version = 0")
    land_seeds(1, 2, 4, day=3, further=["e-other-8bit"])
    progress, _, deviations, chances, decision, missing = shown(print_study, "sealed").splitlines()
    assert "3 of 4 seeds" in progress and missing.startswith("Missing: 5.")
    differences = [
        query(f"SELECT avg((argmax = label)::INT) FROM prediction WHERE evaluation_id LIKE 'e-s{seed}-%bit' "
              "AND evaluation_id NOT LIKE '%from%' GROUP BY evaluation_id ORDER BY evaluation_id").iloc[:, 0]
        for seed in (1, 2, 4)
    ]  # fmt: skip
    spread = query(f"SELECT 100 * stddev_samp(x) FROM (SELECT unnest({[a - b for a, b in differences]}) AS x)").iloc[
        0, 0
    ]
    assert deviations.endswith(f", accuracy {spread:.2f}.")
    assert f"{100 * sum(a - b for a, b in differences) / 3:.1f}" not in deviations + chances
    of_each = r"equal: 3 seeds \d+\.\d % in over-triage, \d+\.\d % in accuracy; 4 seeds \d+\.\d % in over-"
    assert "at Holm's first step (one-sided p below 0.0125) if" in chances and re.search(of_each, chances)
    assert decision == "It takes 80 % in each with 3 seeds, so that all further seeds join: 5."
    with pytest.raises(BadInput, match="3 of 4 seeds .* Missing: 5"):
        compare("sealed", open_it=True)

    ids = land_seeds(5, day=4)
    *_, command = is_sealed(ids, capsys).splitlines()
    assert command == "Next: triage compare sealed --open, which records the time and shows every figure."

    # A study without a claim that holds the same models, then a baseline, too.
    land_sweep(root, "unclaimed", ids, day=5)
    load_all(root)
    assert "The study sealed is sealed: 4 of 4 seeds" in shown(print_study, "unclaimed")
    values = {"recipe": "linear", "recipe_kind": "baseline", "cell_id": "linear"}
    land_arm(root, "-linear", None, noisy(0, 0.7, 240), groups=True, **values)
    land_sweep(root, "unclaimed", ["e-linear"], day=6)
    load_all(root)
    (study,) = studied("unclaimed")
    assert [row.recipe for row in study.board] == ["linear"] and study.pairs == [] == study.recipes
    assert "tuned" not in shown(print_study, "unclaimed", asked=None)

    compare("sealed", open_it=True)
    assert "in over-triage by each model's threshold: " in (text := capsys.readouterr().out)
    assert text.count("by Holm for 2 figures (") == text.count("4 trainings a side, ") == 1, "and not for each figure"
    details = " ".join(shown(print_study, "sealed", asked=["pairs"]).split())
    assert "before its first result. It was opened on " in details
    assert "for seeds 1, 2, 4, 5. Left out at both, since a training diverged: seed 3." in details
    assert len(landed_results(ids)) == 3 and len(evaluation_ids("sealed")) == 4 * 4 + 2
    (claim,) = query(
        "SELECT sealed, opened_at, looked_at, look.seeds FROM primary_claim JOIN look USING (study)"
    ).to_dict("records")
    assert not claim["sealed"] and claim["opened_at"] == claim["looked_at"] and list(claim["seeds"]) == [1, 2, 4, 5]
    opened = with_rows().keys()
    assert opened >= {file.name.partition("_")[2] for file in sql_files("views")} - {"sealed_evaluation"}
    assert opened >= {"pooled_difference", "four_bits_against_eight", "gains_from_8_bits", "flipped_cases"}
    with pytest.raises(BadInput, match="not sealed"):
        compare("sealed", open_it=True)
    assert_sound()


def test_seeds_that_the_spread_does_not_ask_for_join_no_claim_and_are_told_beside_it(capsys):
    claim = CLAIM.model_copy(update={"margin": 0.2})
    land_seeds(1, 2, 3, 4, day=1, claim=claim, is_whole=False)
    *_, decision, command = shown(print_study, "sealed").splitlines()
    assert decision == "It takes 80 % in each with 3 seeds, and these suffice: no further seed joins."
    assert command.startswith("Next: triage compare sealed --open")
    compare("sealed", open_it=True)
    before = capsys.readouterr().out
    assert "3 trainings a side" in before and "With seed 4 the estimate moved: " in before

    land_seeds(5, day=2, claim=claim, is_whole=False)
    after = shown(print_study, "sealed")
    assert "3 trainings a side" in after and "With seeds 4, 5 the estimate moved: " in after
    assert after.partition(" With seed")[0] == before.partition(" With seed")[0], "the answer is what it was"


def test_a_seal_is_of_trained_models(tmp_path):
    from tasks.grids.grid import load_grid

    moved = ["primary.sealed=true", "primary.sides=['mxfp4', '8bit']", "scoring.move_adapters=['mxfp4']"]
    with pytest.raises(BadInput, match="primary.sealed: adapters are moved to mxfp4, and a seal is of trained"):
        load_grid("registered", moved)
