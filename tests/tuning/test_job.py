"""A training as its child process runs it: killed at any moment it ends with the same bytes, and refuses in sentences."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.corpus.prepare import prepare_dataset
from tasks.grid import known_models, load_grid
from tasks.identity import training_of
from tasks.models.convert import run_quantize
from tasks.models.sources import fetch_base
from tasks.runtime.errors import BadInput
from tasks.runtime.store import verify
from tasks.spec import experiments
from tasks.tuning import job

UPDATES, CADENCE = 60, 3
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Arguments of a training of the smoke grid with dropout, a decaying rate and checkpoints every few updates."""
    home = tmp_path_factory.mktemp("killed")
    overrides = [
        "bits=[4]", 'models=["tiny-llama"]', f"recipe.iterations={UPDATES}", f"training.evaluate_every={CADENCE}",
        'training.decay="cosine"', "training.max_gradient_norm=1.0",
    ]  # fmt: skip
    grid = load_grid("smoke", overrides)
    data = prepare_dataset(grid.data, home)
    spec = next(s for s in experiments(grid, known_models(grid)) if s.recipe.dropout > 0)
    source = fetch_base(spec.model, home)
    variant = run_quantize({"source": str(source), "root": str(home), "bits": 4, "group_size": 64})["folder"]
    return {"experiment": spec.model_dump(mode="json"), "training_id": training_of(spec, variant, data),
            "variant": variant, "data": str(data), "home": str(home)}  # fmt: skip


def start(args, folder: Path) -> subprocess.Popen:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(
        json.dumps({"function": "tasks.tuning.job:run", "args": args | {"folder": str(folder)}})
    )
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.runtime.child", str(folder / "spec.json")], cwd=REPOSITORY, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def run(args, folder: Path, kill_after: int | None = None, pause: float = 0.0) -> int:
    """Run the training; with `kill_after`, kill -9 `pause` seconds after so many events of updates. The exit code."""
    process, seen = start(args, folder), 0
    for line in process.stdout:
        seen += json.loads(line)["event"] in ("train", "valid")
        if kill_after is not None and seen >= kill_after:
            time.sleep(pause)
            os.kill(process.pid, signal.SIGKILL)
            break
    return process.wait()


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.nightly)])
def test_a_training_killed_at_random_moments_writes_the_adapters_of_one_that_never_was(study, tmp_path, kills):
    assert run(study, tmp_path / "whole") == 0
    random_moments = random.Random(kills)
    codes = [
        run(study, tmp_path / "killed", random_moments.randint(0, 4), random_moments.uniform(0, 0.2))
        for _ in range(kills)
    ]
    assert codes.count(-signal.SIGKILL) >= kills - 1, "killed while it trained"
    assert run(study, tmp_path / "killed") == 0
    for name in ("adapters.safetensors", "adapters_last.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    curves = [json.loads((tmp_path / run_ / "training.json").read_text())["curve"] for run_ in ("killed", "whole")]
    for point in (point for curve in curves for point in curve):
        point.pop("tokens_per_second")
    assert curves[0] == curves[1]
    summary = verify(tmp_path / "whole")["summary"]
    assert summary["peak_memory_bytes"] >= summary["weights_memory_bytes"] > 0 <= summary["cache_memory_bytes"]
    assert summary["micro_batch"] == 4 and summary["checkpointed_blocks"] is False
    assert summary["memory_budget_bytes"] > 1 << 30 and summary["peak_rss_bytes"] > 1 << 26


def refusal(study, folder, **training) -> str:
    experiment = study["experiment"] | {"training": study["experiment"]["training"] | training}
    with pytest.raises(BadInput) as refused:
        job.run(study | {"experiment": experiment, "folder": str(folder)}, lambda event: None)
    return str(refused.value)


def test_a_budget_smaller_than_one_case_and_a_window_that_no_prompt_fits_are_refused_in_a_sentence(study, tmp_path):
    assert "is less than one case needs" in refusal(study, tmp_path / "memory", memory="300KB")
    longest = max(len(json.loads(line)["text"]) for line in (Path(study["data"]) / "train.jsonl").open())
    said = {refusal(study, tmp_path / str(window), max_tokens=window) for window in (64, 80)}
    assert longest > 100 and all("raise training.max_tokens" in sentence for sentence in said)


def test_what_was_chosen_for_a_training_is_kept_and_another_budget_chooses_again(study, tmp_path):
    def choice(memory):
        experiment = study["experiment"] | {"training": study["experiment"]["training"] | {"memory": memory}}
        recipe = experiment["recipe"] | {"iterations": 1}
        job.run(
            study | {"experiment": experiment | {"recipe": recipe}, "folder": str(tmp_path)},
            lambda event: told.append(event),
        )
        return json.loads((tmp_path / "memory.json").read_text())

    told: list[dict] = []
    first = choice("2GB")
    assert first == {"micro_batch": 4, "checkpointing": False, "limit": 2_000_000_000, "tokens_at_once": 4096}
    probes = sum("micro-batch" in event.get("message", "") for event in told)
    choice("2GB")
    assert sum("micro-batch" in event.get("message", "") for event in told) == probes == 1
    held, one = (float(words.split()[0]) for words in re.findall(r"[0-9.]+ MB", next(
        event["message"] for event in told if "micro-batch" in event.get("message", "")
    ))[1:])  # fmt: skip
    assert choice(f"{held + 2.5 * one}MB")["micro_batch"] == 2


def test_a_cost_weight_above_5_is_warned_of_and_5_is_not(study, tmp_path):
    def warned(cost_weight: float) -> bool:
        told: list[dict] = []
        recipe = study["experiment"]["recipe"] | {"iterations": 1, "cost_weight": cost_weight}
        folder = tmp_path / str(cost_weight)
        job.run(study | {"experiment": study["experiment"] | {"recipe": recipe}, "folder": str(folder)}, told.append)
        return any(e["event"] == "warning" and e["message"].startswith("cost_weight") for e in told)

    assert study["experiment"]["recipe"]["kind"] == "safety" and warned(5.5) and not warned(5.0)
