"""The self-test: every check passes here and fails on an error that is planted; checks of memory and readings of
conditions that only a Mac has meet an MLX and tools that answer as there.
"""

import contextlib
import itertools
import json
from pkgutil import resolve_name
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tasks.bench.selftest import conditions, engine, kernels, timings
from tasks.bench.selftest.models import SelfTestCheck, Subject, adapt, bench_cases
from tasks.bench.selftest.run import all_checks, described
from tasks.precisions import BUILT_IN
from tasks.runtime.backend import BACKENDS, CPU_PACKED, METAL
from tasks.runtime.errors import LostChild
from tasks.tuning import loss, model
from tasks.tuning.lora import Adapted, KeyedDropout
from tests.bench.training import matmul_flops
from tests.tuning.traced import traced_graphs

RECOMMENDED = 24_000
BEFORE = 7


@pytest.fixture
def wired(monkeypatch):
    """MLX on a Mac: it stores any limit, up to the user's own, whether macOS wires memory or not."""

    def answer(macos: int, most: int) -> list[int]:
        limits = [BEFORE]

        def set_wired_limit(limit):
            if limit > most:
                raise ValueError("[metal::set_wired_limit] larger than the maximum")
            limits.append(limit)
            return limits[-2]

        info = {"max_recommended_working_set_size": RECOMMENDED}
        monkeypatch.setattr(kernels.mx, "device_info", lambda: info)
        monkeypatch.setattr(kernels.mx, "set_wired_limit", set_wired_limit)
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
def test_the_wired_limit_fails_where_macos_wires_less_and_is_put_back(macos, most, accepted, wired, monkeypatch):
    limits = wired(macos, most)
    monkeypatch.setattr(kernels, "backend", lambda: METAL)
    (check,) = (check.run() for check in kernels.memory_checks() if "wired" in check.name)
    assert (check["ok"], check["value"], check["limit"]) == (accepted == RECOMMENDED, accepted, RECOMMENDED)
    assert "macOS 15" in check["remedy"]
    assert macos == 14 or limits[-1] == BEFORE


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """A tiny model, quantised to 4 bits."""
    return Subject("tiny-llama", 4, tmp_path_factory.mktemp("models"))


@pytest.fixture
def in_process(monkeypatch):
    """The mini training's children are calls in this process, which a kill ends by an exception."""

    def kill(process, number):
        raise LostChild("killed")

    monkeypatch.setattr(engine, "run_child", lambda name, args, folder, emit: resolve_name(name)(args, emit))
    monkeypatch.setattr(engine.os, "kill", kill)


@pytest.mark.parametrize(("backend", "name"), [("cpu", "tiny-gemma3"), ("cpu-packed", "tiny-llama")])
def test_every_check_of_the_engine_passes_here(backend, name, tmp_path, in_process, monkeypatch):
    """On packed weights as on a GPU: with graphs that are traced once and replayed, but without the mini training."""
    monkeypatch.setenv("TRIAGE_BACKEND", backend)
    with contextlib.ExitStack() as stack:
        if backend == "cpu-packed":
            monkeypatch.setattr(engine, "compiles", lambda: True)
            monkeypatch.setattr(engine, "resumed_error", lambda subject: 0.0)
            stack.enter_context(traced_graphs())
        checks = [check.run() for check in engine.tiny_checks(Subject(name, 4, tmp_path), of_engine=True)]
    assert [(check["name"], check["value"], check["error"]) for check in checks if not check["ok"]] == []
    assert len(checks) == 10 + (backend == "cpu-packed")


def test_updates_that_are_built_anew_each_time_are_no_compiled_ones(subject, monkeypatch):
    monkeypatch.setattr(engine, "compiles", lambda: True)
    mx.disable_compile()
    try:
        with pytest.raises(RuntimeError, match="MLX_DISABLE_COMPILE"):
            engine.compiled_error(mx.float32, subject)
    finally:
        mx.enable_compile()


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_product_of_a_precision_is_checked_in_both_data_types(name, monkeypatch):
    monkeypatch.setattr(kernels, "ROWS", (1, 9))
    checks = [check for check in kernels.product_checks() if f", {name}, " in check.name]
    assert [check.run()["ok"] for check in checks] == [True, True]


def scaled(module, name):
    """Makes a function's result 2 % larger."""

    def plant(monkeypatch):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, **given: function(*args, **given) * 1.02)

    return plant


def gradients_scaled(monkeypatch):
    our_gradients = engine.our_gradients

    def wrong(*args):
        return {name: value * 1.01 for name, value in our_gradients(*args).items()}

    monkeypatch.setattr(engine, "our_gradients", wrong)


def logits_off(monkeypatch):
    outputs = engine.outputs
    calls = []

    def wrong(stack):
        calls.append(stack)
        return outputs(stack) * (1 + 0.05 * len(calls))

    monkeypatch.setattr(engine, "outputs", wrong)


def masks_not_restored(monkeypatch):
    monkeypatch.setattr(KeyedDropout, "keys_now", (None, None, None))


def masks_by_place_in_the_batch(monkeypatch):
    draw_masks = Adapted.draw_masks

    def wrong(self, keys, *args):
        return draw_masks(self, [(*key[:-1], 1 + place) for place, key in enumerate(keys)], *args)

    monkeypatch.setattr(Adapted, "draw_masks", wrong)


def another_start(monkeypatch):
    calls = []

    def wrong(stack, dropout=0.0):
        adapted = adapt(stack, dropout)
        calls.append(adapted)
        (name, value), *_ = tree_flatten(stack.model.trainable_parameters())
        stack.model.load_weights([(name, value * (1 + 1e-6 * len(calls)))], strict=False)
        return adapted

    monkeypatch.setattr(engine, "adapt", wrong)


def few_blocks(monkeypatch):
    small = {
        "CHANGES": {"num_hidden_layers": 2, "vocab_size": 512},
        "TRAINED_BLOCKS": 1,
        "STEP": (2, 16),
        "SCORED": (2, 16),
    }
    for name, value in (small | {"SUSTAINED_SECONDS": {"cpu": 0.01}, "SLOWED_DOWN": {"cpu": 1.5}}).items():
        monkeypatch.setattr(timings, name, value)


def slower_than_stock(monkeypatch):
    few_blocks(monkeypatch)
    figures = iter([[2.0], [1.0], [1.0]])  # ours, the scoring pass, stock
    monkeypatch.setattr(timings, "_figures", lambda seconds: {"seconds": next(figures)})


def slowing_down(monkeypatch):
    few_blocks(monkeypatch)
    monkeypatch.setattr(timings, "updates", lambda adapted: itertools.count(1))


def no_window(monkeypatch):
    visible = model.visible
    monkeypatch.setattr(model, "visible", lambda query, keys, window: visible(query, keys, None))


def nothing_counted(monkeypatch):
    monkeypatch.setattr(kernels, "resident_bytes", lambda: 1 << 30)


# By the end of a check's name: what breaks it.
PLANTED = {
    "footprint of a 256 MB array": nothing_counted,
    "attention, window, head size 256: fused against unfused": scaled(kernels, "cpu_attention"),
    "product, 4bit, float32: packed against dequantised": scaled(mx, "quantized_matmul"),
    "bit: packed against dequantised": logits_off,
    ": fidelity of packed weights": logits_off,
    "bit: loss and gradients against stock mlx-lm": gradients_scaled,
    "window of 512: loss and gradients against stock mlx-lm": no_window,
    ": head in blocks": scaled(loss, "blocked_logsumexp"),
    ": checkpointed blocks": masks_not_restored,
    ": dropout passes, batched against one by one": masks_by_place_in_the_batch,
    ": updates, repeated": another_start,
    "4bit, 2 x 16 tokens: seconds of a step": slower_than_stock,
    ": updates for 0 s": slowing_down,
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_check_fails_where_an_error_is_planted_and_says_what_to_do(name, subject, monkeypatch):
    monkeypatch.setattr(kernels, "ROWS", (3,))
    PLANTED[name](monkeypatch)
    checks = [
        *kernels.memory_checks(), *kernels.attention_checks(), *kernels.product_checks(), *engine.wide_checks(),
        *engine.tiny_checks(subject, True), *timings.timing_checks({}),
    ]  # fmt: skip
    (result,) = (check.run() for check in checks if check.name.endswith(name))
    assert not result["ok"] and result["remedy"] and result["value"] is not None
    assert result["error"] == ""


def test_every_check_has_a_name_of_its_own(tmp_path):
    names = [check.name for check in all_checks(tmp_path, {})]
    assert len(set(names)) == len(names) > 50


def test_on_a_gpu_packed_bfloat16_is_held_to_the_same_model_unpacked(subject, monkeypatch):
    monkeypatch.setattr(engine, "backend", lambda: METAL)
    (check,) = (one for one in engine.tiny_checks(subject, False) if "packed in bfloat16" in one.name)
    assert 0.5 < check.measure() < 10 and check.limit == 2.0
    errors = iter((0.3, 0.1))
    monkeypatch.setattr(engine, "distance", lambda a, b: next(errors))
    assert not check.run()["ok"]


def test_the_bounds_follow_the_data_type_of_the_backend_and_fused_kernels_are_within_them(monkeypatch):
    for one in BACKENDS.values():
        monkeypatch.setattr(kernels, "backend", lambda one=one: one)
        assert {check.limit for check in kernels.attention_checks()} == {one.rounding}
        assert (one.rounding < 1e-4) == (one.compute_dtype == "float32")
        # A group of another size is off by 1, and products of float32 that are rounded to 10 bits by 1e-3.
        assert kernels.rounding(mx.float32) <= 1e-4 and kernels.rounding(mx.bfloat16) <= 0.05

    mask = "window"
    monkeypatch.setattr(kernels, "backend", lambda: CPU_PACKED)
    assert 1e-5 < kernels.attention_error((4, 1, 256), mask) < METAL.rounding
    for _ in range(3):
        scaled(kernels, "scaled_dot_product_attention")(monkeypatch)
    assert kernels.attention_error((4, 1, 256), mask) > METAL.rounding


def test_an_error_is_a_failed_check_without_folders_and_nan_passes_none():
    def broken():
        raise RuntimeError("[metal] Unable to load kernel from /Users/jane doe/x/mlx.metallib")

    result = SelfTestCheck("x", broken, 1.0).run()
    assert not result["ok"] and result["value"] is None and "Unable to load kernel" in result["error"]
    assert "jane" not in result["error"] or "Users" not in result["error"]
    result = SelfTestCheck("x", lambda: float("nan"), 1.0).run()
    assert not result["ok"] and "nan" in result["error"]
    assert json.loads(json.dumps(result))["value"] is None

    kind = {"device_name": "Apple M4", "memory_size": 16 << 30}
    assert described(kind | {"uuid": "GPU-123", "pci_bus_id": "0000:01"}) == kind

    assert SelfTestCheck("x", lambda: 2, 1.0, at_least=True).run()["ok"]
    assert not SelfTestCheck("x", lambda: 0, 1.0, at_least=True).run()["ok"]


def test_a_benchmark_case_has_as_many_tokens_as_asked_and_stocks_mask():
    cases = bench_cases(vocabulary=100, batch=3, length=40)
    assert [len(row.inputs) for row in cases.rows] == [40] * 3
    assert all(row.targets == (*row.inputs[-3:], 0) for row in cases.rows)
    assert cases.leading >= 10 and len({row.inputs for row in cases.rows}) == 3
    assert cases.rows == bench_cases(vocabulary=100, batch=3, length=40).rows


def test_counted_flops_are_those_of_the_products_that_the_gradients_need():
    frozen = nn.Linear(8, 16, bias=False)
    trained = nn.Linear(16, 4, bias=False)
    model = nn.Sequential(frozen, trained)
    frozen.freeze()
    x = mx.random.normal((5, 8))
    before = np.array(trained.weight)
    # forward 8 -> 16 -> 4, and the gradient of the trained weight; none for the frozen weight nor for x
    assert matmul_flops(model, lambda m: m(x).square().sum()) == 2 * 5 * (8 * 16 + 16 * 4 + 16 * 4)
    np.testing.assert_array_equal(np.array(trained.weight), before)


# As macOS 15 prints them, shortened.
PRINTED = {
    "hw.model": "Mac14,2",
    "pmset -g": "System-wide power settings:\nCurrently in use:\n lowpowermode         1\n womp                 0",
    "pmset -g batt": "Now drawing from 'Battery Power'\n -InternalBattery-0 (id=23134307)\t81%; discharging; 4:10 remaining",
    "pmset -g therm": "Note: No thermal warning level has been recorded\nNote: No performance warning level has been",
    "pmset -g assertions": "Assertion status system-wide:\n   UserIsActive                   1\n"
    "   PreventUserIdleDisplaySleep    0",
    "SPDisplaysDataType": "Graphics/Displays:\n\n    Apple M2:\n\n      Total Number of Cores: 8\n      Metal Support: Metal 3\n"
    "        Color LCD:\n          Resolution: 2560 x 1664 Retina\n          Display Serial Number: C02XK\n"
    "          Display Asleep: Yes",
    "vm_stat": "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free:                 4567.\n"
    "Pages occupied by compressor:   89.",
    "kern.memorystatus_vm_pressure_level": "1",
    "iogpu.wired_limit_mb": "0",
}


def test_conditions_of_a_mac_are_read_without_whose_it_is_and_elsewhere_there_are_none(monkeypatch):
    assert set(read := conditions.conditions()) > set(conditions.READINGS) and read["available_bytes"] > 0

    asked = []

    def run(command, **options):
        assert command[0].startswith("/usr/") and command not in asked, "a display takes seconds to tell"
        asked.append(command)
        (text,) = (text for name, text in PRINTED.items() if " ".join(command).endswith(name))
        return SimpleNamespace(stdout=text.encode())

    monkeypatch.setattr(conditions.subprocess, "run", run)
    read = conditions.conditions()
    assert {name: read[name] for name in conditions.READINGS} == {
        "model": "Mac14,2", "low_power_mode": "1", "power_source": "Battery Power", "battery_percent": "81",
        "battery_state": "discharging", "heat": "No thermal warning", "display_kept_awake": "0", "user_is_active": "1",
        "displays": "2560 x 1664", "display_asleep": "Yes", "gpu_cores": "8", "metal": "Metal 3", "free_pages": "4567",
        "compressed_pages": "89", "memory_pressure": "1", "wired_limit_mb": "0",
    }  # fmt: skip
    assert conditions.wheel_tags()["mlx"]


@pytest.mark.parametrize("error", [OSError(), conditions.subprocess.TimeoutExpired("pmset", 1)])
def test_a_tool_that_fails_answers_none(error, monkeypatch):
    def run(command, **options):
        raise error

    monkeypatch.setattr(conditions.subprocess, "run", run)
    assert conditions.conditions()["low_power_mode"] is None
