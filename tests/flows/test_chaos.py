"""Chaos: a sweep under faults, here and in a work pool."""

import pytest

from tests.chaos.faults import IN_POOL
from tests.place import Place


@pytest.mark.nightly
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", [[], ["--pool"]], ids=["here", "in a pool"])
def test_a_sweep_under_every_fault_lands_what_an_undisturbed_one_does(kind, tmp_path):
    place = Place(tmp_path, ("-m", "tests.chaos"), is_new=True)
    result = place.run(*kind, "--faults", str(len(IN_POOL)), "--experiments", "8", "--iterations", "48")
    assert result.returncode == 0, result.stdout + result.stderr
