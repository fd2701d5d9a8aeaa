"""The self-test: every check passes here and fails on an error that is planted; checks of memory that only a Mac runs
meet an MLX that answers as there.
"""

import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tasks.bench.selftest import engine, kernels
from tasks.bench.selftest.models import SelfTestCheck, adapt, make_tiny
from tasks.bench.selftest.run import all_checks, described
from tasks.bench.setting import bench_cases, matmul_flops
from tasks.runtime.backend import BACKENDS, CPU_PACKED, METAL
from tasks.scoring import mc_dropout
from tasks.tuning import loss
from tasks.tuning.lora import KeyedDropout
from tasks.tuning.step import label_terms, leading_past

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
def test_the_wired_limit_fails_where_macos_wires_nothing_or_less_and_the_old_one_is_put_back(
    macos, most, accepted, wired, monkeypatch
):
    limits = wired(macos, most)
    monkeypatch.setattr(kernels, "backend", lambda: METAL)
    (check,) = (check.run() for check in kernels.memory_checks() if "wired" in check.name)
    assert (check["ok"], check["value"], check["limit"]) == (accepted == RECOMMENDED, accepted, RECOMMENDED)
    assert "macOS 15" in check["remedy"]
    assert macos == 14 or limits[-1] == BEFORE


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """A tiny model, quantised to 4 bits."""
    return make_tiny("tiny-llama", 4, tmp_path_factory.mktemp("models"))


def scaled(module, name):
    """Makes a function's result 2 % larger."""

    def plant(monkeypatch):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, **given: function(*args, **given) * 1.02)

    return plant


def gradients_scaled(monkeypatch):
    our_gradients = engine.our_gradients

    def wrong(*args):
        loss, gradients = our_gradients(*args)
        return loss * 1.01, {name: value * 1.01 for name, value in gradients.items()}

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
    def wrong(adapted, prefix, key):
        past = leading_past(adapted, prefix, (*key, 0))

        def label_log_p(batch):
            adapted.set_dropout([(*key, 1 + place) for place in range(len(batch.rows))])
            return label_terms(adapted, prefix, batch, past).label_logp

        return label_log_p

    monkeypatch.setattr(mc_dropout, "_sample_model", wrong)


def another_start(monkeypatch):
    calls = []

    def wrong(stack, dropout=0.0):
        adapted = adapt(stack, dropout)
        calls.append(adapted)
        (name, value), *_ = tree_flatten(stack.model.trainable_parameters())
        stack.model.load_weights([(name, value * (1 + 1e-6 * len(calls)))], strict=False)
        return adapted

    monkeypatch.setattr(engine, "adapt", wrong)


def slower_than_stock(monkeypatch):
    monkeypatch.setattr(engine, "make_wide", lambda name: None)
    monkeypatch.setattr(engine, "_our_seconds", lambda stack: 2.0)
    monkeypatch.setattr(engine, "_stock_seconds", lambda stack: 1.0)


def nothing_counted(monkeypatch):
    monkeypatch.setattr(kernels, "resident_bytes", lambda: 1 << 30)


# By the end of a check's name: what breaks it.
PLANTED = {
    "footprint of a 256 MB array": nothing_counted,
    "attention, window, head size 256: fused against unfused": scaled(kernels, "cpu_attention"),
    "product 1024 x 640, 4bit: packed against dequantised": scaled(mx, "quantized_matmul"),
    ": packed against dequantised": logits_off,
    ": fidelity of packed weights": logits_off,
    "bit: loss and gradients against stock mlx-lm": gradients_scaled,
    ": head in blocks": scaled(loss, "blocked_logsumexp"),
    ": checkpointed blocks": masks_not_restored,
    ": dropout passes, batched against one by one": masks_by_place_in_the_batch,
    ": two updates, repeated": another_start,
    ": seconds of a step": slower_than_stock,
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_check_fails_where_an_error_is_planted_and_says_what_to_do(name, subject, monkeypatch):
    PLANTED[name](monkeypatch)
    checks = [
        *kernels.memory_checks(), *kernels.attention_checks(), *kernels.product_checks(), *engine.wide_checks(),
        *engine.speed_checks({}), *engine.tiny_checks(subject), *engine.engine_checks(subject),
    ]  # fmt: skip
    result = [check for check in checks if check.name.endswith(name)][-1].run()
    assert not result["ok"] and result["remedy"] and result["value"] is not None
    assert result["error"] == ""


def test_every_check_has_a_name_of_its_own_and_what_runs_in_seconds_passes_here(subject, tmp_path):
    """The rest in tests/flows/cli/test_doctor.py, in a process of its own."""
    names = [check.name for check in all_checks(tmp_path, {})]
    assert len(set(names)) == len(names) > 30
    for check in (*engine.tiny_checks(subject), *engine.engine_checks(subject)):
        assert check.run()["ok"], check.name


def test_on_a_gpu_packed_bfloat16_is_held_to_the_same_model_unpacked(subject, monkeypatch):
    monkeypatch.setattr(engine, "backend", lambda: METAL)
    (check,) = (one for one in engine.tiny_checks(subject) if "packed in bfloat16" in one.name)
    assert 0.5 < check.measure() < 10 and check.limit == 2.0
    errors = iter((0.3, 0.1))
    monkeypatch.setattr(engine, "_error", lambda a, b: next(errors))
    assert not check.run()["ok"]


def test_the_bounds_follow_the_data_type_of_the_backend_and_fused_kernels_are_within_them(monkeypatch):
    for one in BACKENDS.values():
        monkeypatch.setattr(kernels, "backend", lambda one=one: one)
        bounds = {check.limit for check in (*kernels.attention_checks(), *kernels.product_checks())}
        assert bounds == {one.rounding} and (one.rounding < 1e-4) == (one.compute_dtype == "float32")

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
