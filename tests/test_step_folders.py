"""Steps of two sweeps at once on one model, with other settings: each orders its own results in a folder of its own."""

from pathlib import Path

import pytest

import tasks.baselines
import tasks.caching
from flows.selection import select
from tasks.baselines import fidelity, zero_shot
from tasks.experiment import score_moved
from tasks.grids.grid import known_models, load_grid
from tasks.inputs import quantize
from tasks.models.sources.fetch import fetch_base
from tasks.precisions import of_bits
from tasks.runtime.home import home
from tasks.runtime.store import seal
from tasks.scoring.arguments import TrainedJob
from tasks.spec import BaseModelSpec

WEIGHTS = {
    "base_model": "m", "licence": "x", "original_precision": "bf16", "random_weights": True, "parameters": 1,
    "source": {"kind": "random"}, "weights_source": "x", "source_digest": "x", "stored_bytes": 2, "versions": {},
    "bits_per_weight": 16.0, "bytes_by_part": {}, "tokenizer_digest": "x", "prompt": "chat",
}  # fmt: skip


class Ordered(Exception):
    """Raised in place of the child process that a step would start."""


@pytest.fixture
def ordered(monkeypatch):
    """The folders in which steps order their results."""
    folders = []

    def run_step(function: str, args: dict, folder: Path, *rest, **more) -> None:
        folders.append(folder)
        raise Ordered

    monkeypatch.setattr(tasks.caching, "run_step", run_step)
    return folders


def test_quantisations_of_one_model_in_groups_of_other_sizes_do_not_share_a_folder(ordered):
    spec = BaseModelSpec(name="m", licence="none", sources=({"kind": "random", "shape": "tiny-llama"},))
    source = fetch_base(spec, home())
    for group_size in (32, 64, 64):
        with pytest.raises(Ordered):
            quantize.fn(spec, source, of_bits(4), group_size)
    assert ordered[0] != ordered[1] == ordered[2]


def test_fidelities_of_one_model_on_other_samples_do_not_share_a_folder(ordered, tmp_path, monkeypatch):
    facts_by_folder = {
        "reference": WEIGHTS | {"bits": None, "group_size": None},
        "variant": WEIGHTS | {"bits": 4, "group_size": 64},
        "data": {"sets": {"test": {"digest": "d", "cases": 40, "labels": {"ED": 10, "GP": 20, "HOME": 10}}}},
    }
    for name, facts in facts_by_folder.items():
        (tmp_path / name).mkdir()
        seal(tmp_path / name, facts)

    monkeypatch.setattr(tasks.baselines, "base_folder", lambda source, root: tmp_path / "reference")
    for cases in (20, 30, 30):
        grid = load_grid("smoke", [f"scoring.fidelity_cases={cases}"])
        with pytest.raises(Ordered):
            fidelity.fn(known_models()["tiny-llama"], tmp_path, grid, [tmp_path / "variant"], tmp_path / "data")

    assert ordered[0] != ordered[1] == ordered[2]


def test_scorings_of_one_model_on_other_further_sets_do_not_share_a_folder(ordered, tmp_path):
    # Nor does the record of the first one go: `triage forget` reads in it which scores are of which data set.
    variant = tmp_path / "variant"
    variant.mkdir()
    seal(variant, WEIGHTS | {"bits": 4, "group_size": 64})
    selection = select("smoke")
    grid, model = selection.grid, known_models()["tiny-llama"]
    spec = next(iter(selection.cells))
    for further in ("first", "second", "second"):
        data = tmp_path / further
        data.mkdir(exist_ok=True)
        sets = {name: {"digest": name, "cases": 3, "labels": {}} for name in ("calibration", "test", further)}
        seal(data, {"sets": sets, "evaluation_sets": ["test", further]})

        trained = TrainedJob(experiment=spec, variant=variant, data=data, home=home(), adapter=tmp_path)
        folders = {name: tmp_path / "moved" / f"{name}-scores" for name in ("test", further)}
        folders["test"].mkdir(parents=True, exist_ok=True)
        seal(folders["test"], {})
        with pytest.raises(Ordered):
            score_moved(trained, tmp_path, folders, lambda event: None)
        with pytest.raises(Ordered):
            zero_shot.fn(model, of_bits(4), grid, variant, data)

    assert ordered[0] != ordered[2] == ordered[4]
    assert ordered[1] != ordered[3] == ordered[5]
