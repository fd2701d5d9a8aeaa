"""A notebook holds the warehouse for as long as a sweep runs: the sweep trains on and loses nothing."""

import pytest

from tests.place import Place
from tests.warehouse.test_waiting import held_warehouse

SHORT = "from warehouse import load; load.FIRST_SECONDS = 0.5; load.LATER_SECONDS = 0.1; load.LAST_SECONDS = 0.1\n"


def experiments(place: Place) -> int:
    return int(place.query("SELECT count(*) AS n FROM experiment WHERE recipe_kind <> 'baseline'").n[0])


@pytest.mark.nightly  # tests/warehouse/test_waiting.py holds the file in seconds
def test_a_sweep_beside_an_open_notebook_trains_on_and_the_next_command_loads_its_results(smoke, tmp_path):
    place = smoke[0].copy(tmp_path / "place")
    place.command = ("-c", SHORT + "from flows.cli.main import main; main()")
    before = experiments(place)

    with held_warehouse("reading", place.warehouse) as holder:
        result = place.run("sweep", "smoke", "--limit", "1", "--set", "recipe.iterations=3")
        assert (result.returncode, result.stderr) == (0, ""), result.stdout
        waits = [line for line in result.stdout.splitlines() if "Loading waits" in line]
        assert len(waits) == 1 and f"process {holder.pid})" in waits[0], result.stdout
        assert "1 experiment has landed and will be loaded into the warehouse" in result.stdout.splitlines()[-1]
        assert experiments(place) == before, "read beside the notebook"
        still = place.run("compare")
        assert still.returncode == 0 and "Loading waits" in still.stderr and still.stdout

    shown = place.run("compare")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert experiments(place) == before + 1 and place.audits() == {}
