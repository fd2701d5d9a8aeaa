"""The training benchmark: every engine makes the same step, and what is printed, written and landed agrees."""

import json
import re

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from rich.console import Console

from flows.bench import training
from flows.bench.memory import MeasuredStep, bench_memory
from flows.bench.training import bench_table, bench_train
from tasks.bench import stock
from tasks.bench.flops import matmul_flops
from tasks.bench.setting import Setting, bench_cases
from tasks.runtime.backend import BACKENDS, backend
from tasks.runtime.errors import BadInput, TriageError
from tasks.runtime.home import home
from tests.tolerances import near, wheels_own_blas
from warehouse.query import query


@pytest.mark.nightly  # the same figures of one engine at a time are in the gate
@pytest.mark.parametrize(("model", "bits"), [("tiny-llama", 4), ("tiny-gemma3", 8)])
def test_all_engines_make_the_same_step_and_the_figures_reach_the_warehouse(model, bits):
    console = Console(record=True, width=160)
    report = bench_train(console, model, bits, batch=4, length=40, layers=2, repeats=2)
    engines = {engine["engine"]: engine for engine in report["engines"]}
    one = backend()
    compared = {"stock": 2 if one.on_gpu else 1, "stock_dense": 2}
    assert {name: len(engine["seconds"]) for name, engine in engines.items()} == {
        "ours": 2, **{name: steps for name, steps in compared.items() if name in one.compared_with},
    }  # fmt: skip
    assert engines["stock"]["device"]["blas"] == wheels_own_blas()

    for name, engine in engines.items():
        assert engine["figures"]["gradient_difference_to_float64"] <= near(1e-5, 0.1)
        assert name == "stock" or engine["figures"]["gradient_difference_to_stock"] <= near(1e-5, 0.1)
        assert engine["figures"]["peak_over_weights_bytes"] > 0

    our_figures = engines["ours"]["figures"]
    stock = engines["stock"]["figures"]
    assert our_figures["matmul_flops"] < 0.6 * stock["matmul_flops"] and engines["ours"]["prefix"]["blocks"] == 2
    assert our_figures["speed_up_over_stock"] == stock["seconds_per_step"] / our_figures["seconds_per_step"]

    text = console.export_text()
    assert "2 of 4 blocks" in text and ("(n=1)" in text) == (not one.on_gpu) and "random weights" in text
    assert "the median of 2 steps only; 5 or more (--repeats)" in text
    assert "The first 10 of each prompt's 40 tokens (25%) are the same in all cases" in text
    assert "peak RSS of the process, MB" in text and "MLX cache after the last step, MB" in text
    assert json.loads((home() / "bench" / f"{report['run_id']}.json").read_text()) == json.loads(json.dumps(report))
    assert sorted(p.name for p in (home() / "bench").iterdir()) == [f"{report['run_id']}.json"]
    landed = query(f"SELECT * FROM benchmark WHERE \"case\" = '{model} {bits}bit 4x40, 2 layers, ours'").set_index(
        "metric"
    )
    assert landed.value.to_dict() == {key: value for key, value in our_figures.items() if value is not None}
    assert landed.unit.to_dict().items() >= {"tokens_per_second": "tokens/s", "peak_rss_bytes": "B"}.items()
    assert landed.n["seconds_per_step"] == 2 and landed.n["peak_memory_bytes"] == landed.n["prefix_seconds"] == 1


@pytest.mark.parametrize(
    ("on", "engines"),
    [
        ("cpu", ["stock", "stock_dense", "ours"]),
        ("metal", ["stock", "ours"]),
        ("cuda", ["stock", "ours"]),
        ("cpu-packed", ["stock", "ours"]),
    ],
)
def test_what_ours_is_compared_with_is_the_backends_choice(on, engines, monkeypatch):
    class Stopped(Exception):
        pass

    def measure(console, chosen, setting, folder):
        raise Stopped([engine.key for engine in chosen])

    monkeypatch.setattr(training, "backend", lambda: BACKENDS[on])
    monkeypatch.setattr(training, "_measure", measure)
    with pytest.raises(Stopped) as stopped:
        bench_train(Console(quiet=True), "tiny-llama", 4, batch=2, length=32, layers=2, repeats=1)

    assert stopped.value.args[0] == engines


@pytest.mark.parametrize(("on", "steps"), [("metal", 4), ("cpu", 2)])
def test_stock_is_timed_after_a_step_of_the_same_shape_in_which_it_is_compiled(on, steps, monkeypatch, tmp_path):
    timed = []

    class Stopped(Exception):
        pass

    def train(model, setting, cases, steps):
        timed.append((len(cases.rows), steps))
        raise Stopped

    monkeypatch.setattr(stock, "backend", lambda: BACKENDS[on])
    monkeypatch.setattr(stock, "_stock_model", lambda setting, dense: None)
    monkeypatch.setattr(stock, "_train", train)
    setting = Setting(engine="stock", variant=tmp_path, folder=tmp_path, batch=4, length=40, layers=2, repeats=3)

    with pytest.raises(Stopped):
        stock.measure_stock(setting, bench_cases(vocabulary=100, batch=4, length=40))

    assert timed == [(4, steps)]


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


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "tiny-lama"}, "Unknown base model 'tiny-lama'"),
        ({"bits": 3}, "--bits 3 is not possible; give 4 or 8"),
        ({"layers": 5}, "tiny-llama has 4 blocks; give at most 4"),
    ],
)
def test_a_setting_that_cannot_be_measured_is_refused_before_anything_runs(change, sentence):
    setting = {"model": "tiny-llama", "bits": 4, "batch": 2, "length": 32, "layers": 2, "repeats": 1} | change
    with pytest.raises(BadInput, match=sentence):
        bench_train(Console(), **setting)
    assert not (home() / "bench").exists()


def test_a_packed_step_of_each_variant_is_measured_and_4_bits_hold_less_than_8():
    console = Console(record=True, width=160)
    reports = bench_memory(console, ["tiny-llama"], None, MeasuredStep(batch=2, length=32, layers=2))
    four, eight = (report.figures for report in reports)
    assert eight["weights_memory_bytes"] - four["weights_memory_bytes"] == pytest.approx(
        eight["stored_bytes"] - four["stored_bytes"], abs=4096
    )
    assert all(f["peak_memory_bytes"] > f["weights_memory_bytes"] >= f["stored_bytes"] for f in (four, eight))
    assert "tiny-llama 8bit (random weights)" in console.export_text()
    landed = query("FROM benchmark WHERE name = 'memory' AND metric = 'peak_memory_bytes' ORDER BY \"case\"")
    assert landed.value.tolist() == [four["peak_memory_bytes"], eight["peak_memory_bytes"]]
    assert landed.note.tolist() == ["packed; random weights"] * 2 and not list((home() / "bench").iterdir())


def test_a_step_within_a_budget_is_made_as_a_training_makes_it_and_stays_within():
    def measured(memory):
        console = Console(record=True, width=200)
        (report,) = bench_memory(
            console, ["tiny-gemma3"], [4], MeasuredStep(batch=8, length=256, layers=4, memory=memory)
        )
        return report.figures, console.export_text()

    roomy, text = measured("1GB")
    assert (roomy["micro_batch"], roomy["checkpointed_blocks"]) == (8, 0) and "micro-batch 8 of 8." in text

    def needed():
        with pytest.raises(BadInput, match="less than one case needs") as refused:
            measured("100KB")
        return float(re.search("give ([0-9.]+) MB", str(refused.value)).group(1)) * 1e6

    limit = int(1.15 * min(needed() for _ in range(3)))  # two steps of so small a model may differ by so much
    tight, text = measured(str(limit))
    assert tight["checkpointed_blocks"] == 1 and tight["micro_batch"] < 8 and "blocks checkpointed." in text
    assert tight["peak_memory_bytes"] <= limit == tight["memory_budget_bytes"] < roomy["peak_memory_bytes"]
    assert tight["peak_over_weights_bytes"] == tight["peak_memory_bytes"] - tight["weights_memory_bytes"]
    assert f"within {limit}" in text and "checkpointed" in text
    landed = query(f"FROM benchmark WHERE \"case\" = 'tiny-gemma3 4bit 8x256, 4 layers, within {limit}'").set_index(
        "metric"
    )
    assert landed.value.to_dict() == tight and landed.unit["micro_batch"] == "cases"

    with pytest.raises(BadInput, match="--memory: 'much' is not a number of bytes"):
        measured("much")


def test_the_table_has_a_line_per_case(monkeypatch):
    measured = []

    def measure(console, model, bits, batch, length, layers, repeats):
        measured.append((model, layers, bits, batch, length))
        figures = {
            "seconds_per_step": 1.5, "speed_up_over_stock": 51.2, "speed_up_over_stock_dense": 2.34,
            "memory_against_stock_dense": 0.456, "gradient_difference_to_stock": 3e-6, "matmul_share": 0.51,
        }  # fmt: skip
        return {"model": model, "bits": bits, "batch": batch, "length": length, "layers": layers, "blocks": 30,
                "random_weights": False, "engines": [{"engine": "ours", "figures": figures}]}  # fmt: skip

    monkeypatch.setattr(training, "bench_train", measure)
    console = Console(record=True, width=160)
    bench_table(console, 5)
    assert measured == [
        ("smollm2-135m", 16, 4, 4, 256), ("smollm2-135m", 8, 4, 4, 256), ("smollm2-360m", 16, 4, 4, 256),
        ("gemma-3-270m", 16, 4, 4, 256), ("gemma-3-270m", 8, 4, 4, 256),
    ]  # fmt: skip
    text = console.export_text()
    assert "gemma-3-270m 4-bit, 8 of 30 blocks, 4 x 256" in text and all(
        figure in text for figure in ("51.2", "2.3", "0.46", "3.0e-06", "51%")
    )


def test_a_case_that_fails_does_not_lose_the_others(monkeypatch):
    figures = {"seconds_per_step": 1.5, "speed_up_over_stock": 51.2, "speed_up_over_stock_dense": 2.34,
               "memory_against_stock_dense": 0.456}  # fmt: skip

    def measure(console, model, bits, batch, length, layers, repeats):
        if model == "smollm2-360m":
            raise BadInput("no such weights.")
        return {"model": model, "bits": bits, "batch": batch, "length": length, "layers": layers, "blocks": 30,
                "random_weights": False, "engines": [{"engine": "ours", "figures": figures}]}  # fmt: skip

    monkeypatch.setattr(training, "bench_train", measure)
    console = Console(record=True, width=160)
    with pytest.raises(
        TriageError, match="1 of 5 cases could not be measured. smollm2-360m, 16 layers: no such weights"
    ):
        bench_table(console, 5)

    text = console.export_text()
    assert text.count("51.2") == text.count("2.3") == text.count("0.46") == 4 and "FAILED smollm2-360m" in text
