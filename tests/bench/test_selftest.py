"""The self-test's check of wired memory, which only a Mac runs: with an MLX that answers as there."""

import pytest

from tasks.bench import selftest

WANTED, BEFORE = 24_000, 7


@pytest.mark.parametrize(("accepted", "ok"), [(WANTED, True), (0, False)])
def test_the_wired_limit_is_sound_if_it_was_taken_and_the_old_one_is_put_back(accepted, ok, monkeypatch):
    limits = [BEFORE]

    def set_wired_limit(limit):
        """As MLX does: sets a limit and returns the one before; macOS before 15 takes none."""
        limits.append(limit if limit != WANTED else accepted)
        return limits[-2]

    monkeypatch.setattr(selftest.mx, "device_info", lambda: {"max_recommended_working_set_size": WANTED})
    monkeypatch.setattr(selftest.mx, "set_wired_limit", set_wired_limit)
    check = selftest._wired_limit()
    assert (check["ok"], check["value"], check["limit"]) == (ok, accepted, WANTED)
    assert "macOS 15" in check["remedy"] and limits == [BEFORE, accepted, BEFORE]
