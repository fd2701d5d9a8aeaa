"""The self-test's checks of memory, which only a Mac runs: with an MLX that answers as there."""

import pytest

from tasks.bench import selftest
from tasks.bench.selftest import CACHE_BLOCK, CACHE_LIMIT
from tasks.tuning import lora

RECOMMENDED, BEFORE = 24_000, 7


@pytest.fixture
def wired(monkeypatch):
    """MLX on a Mac: it stores any limit, up to the user's own, whether macOS wires memory or not."""

    def answer(macos: int, most: int) -> list[int]:
        limits = [BEFORE]

        def set_wired_limit(limit):
            if limit > most:
                raise ValueError("[metal::set_wired_limit] Setting a wired limit larger than the maximum")
            limits.append(limit)
            return limits[-2]

        monkeypatch.setattr(selftest.mx, "device_info", lambda: {"max_recommended_working_set_size": RECOMMENDED})
        monkeypatch.setattr(selftest.mx, "set_wired_limit", set_wired_limit)
        monkeypatch.setattr("sys.platform", "darwin")
        monkeypatch.setattr("platform.machine", lambda: "arm64")
        monkeypatch.setattr("platform.mac_ver", lambda: (f"{macos}.5", ("", "", ""), "arm64"))
        return limits

    return answer


@pytest.mark.parametrize(
    ("macos", "most", "accepted"),
    [
        (15, RECOMMENDED, RECOMMENDED),
        (26, 2 * RECOMMENDED, RECOMMENDED),
        (14, RECOMMENDED, 0),
        (15, RECOMMENDED - 1, 0),
    ],
)
def test_the_wired_limit_fails_where_macos_wires_nothing_or_less_and_the_old_one_is_put_back(
    macos, most, accepted, wired
):
    limits = wired(macos, most)
    check = selftest._wired_limit()
    assert (check["ok"], check["value"], check["limit"]) == (accepted == RECOMMENDED, accepted, RECOMMENDED)
    assert "macOS 15" in check["remedy"]
    assert macos == 14 or limits[-1] == BEFORE


@pytest.mark.parametrize(("macos", "limits"), [(14, [BEFORE]), (15, [BEFORE, RECOMMENDED])])
def test_a_model_is_wired_as_stock_does_it_where_macos_can(macos, limits, wired, tmp_path):
    folder = selftest._make("tiny-llama", 4, tmp_path)
    found = wired(macos, RECOMMENDED)
    lora.load_variant(folder, "packed")
    assert found == limits


class Allocator:
    """MLX's own rule: a freed block goes to the cache if the cache is below its limit before that."""

    def __init__(self, cached: int, forgets: bool = True) -> None:
        self.cached, self.limit, self.forgets, self.allocated = cached, 1 << 40, forgets, 0

    def set_cache_limit(self, limit: int) -> int:
        before, self.limit = self.limit, limit
        return before

    def clear_cache(self) -> None:
        self.cached = 0

    def full(self, size: int, *args, **options) -> int:
        self.allocated += 1
        return size

    def get_cache_memory(self) -> int:
        """After every block has been freed."""
        for _ in range(self.allocated):
            if self.cached < self.limit or not self.forgets:
                self.cached += CACHE_BLOCK
        return self.cached


@pytest.mark.parametrize(
    ("cached", "forgets", "ok"),
    [(0, True, True), (CACHE_LIMIT - 1, True, True), (1 << 34, True, True), (0, False, False)],
)
def test_the_cache_limit_holds_by_mlxs_own_rule_whatever_was_cached_before(cached, forgets, ok, monkeypatch):
    allocator = Allocator(cached, forgets)
    for name in ("set_cache_limit", "clear_cache", "full", "get_cache_memory"):
        monkeypatch.setattr(selftest.mx, name, getattr(allocator, name))
    monkeypatch.setattr(selftest.mx, "eval", lambda *arrays: None)
    check = selftest._cache_limit()
    assert check["ok"] is ok and allocator.limit == 1 << 40
