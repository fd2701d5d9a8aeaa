"""An experiment trained and scored in this process, as the steps of a sweep do it, and what is read of it."""

import json
from pathlib import Path

import mlx.core as mx
from mlx_lm.utils import load

from tasks.corpus.manifest import DatasetManifest
from tasks.identity import scores_folder, training_of
from tasks.judging.evaluation_rows import evaluation_rows
from tasks.models.convert import run_quantize
from tasks.models.sources.fetch import fetch_base
from tasks.runtime.store import verify
from tasks.scoring import job
from tasks.spec import ExperimentSpec
from tasks.tuning import job as training_job


def quiet(event):
    pass


def train_and_score(spec: ExperimentSpec, data: Path, home: Path) -> tuple[dict[str, str], Path]:
    """The arguments of the training, and the folder of its scores."""
    source = fetch_base(spec.model, home)
    quantised = {"source": str(source), "root": str(home), "bits": spec.bits, "group_size": 64}
    variant = run_quantize(quantised)["folder"]
    training = training_of(spec, Path(variant), data)
    args = {
        "experiment": spec.model_dump(mode="json"), "training_id": training, "variant": variant, "data": str(data),
        "home": str(home), "folder": str(home / "experiments" / training), "choice": {"micro_batch": 4},
    }  # fmt: skip
    training_job.run(args, quiet)
    scores = scores_folder(spec, training, data)
    score(args, scores)
    return args, scores


def score(args, scores, emit=quiet, **values):
    shared = {key: args[key] for key in ("experiment", "variant", "data", "home")}
    job.run(shared | {"adapter": args["folder"], "sets": {"test": str(scores)}} | values, emit)


def rows_of(spec, args, scores):
    return evaluation_rows(spec, scores, DatasetManifest.read(Path(args["data"])))


def lines(path: Path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def is_chat(args) -> bool:
    return verify(Path(args["variant"]), deep=False)["prompt"] == "chat"


def in_stock(args):
    """The variant with its adapter in stock mlx-lm, in float32, and its tokenizer."""
    stock, tokenizer = load(args["variant"], adapter_path=args["folder"])
    stock.set_dtype(mx.float32)
    stock.eval()
    return stock, tokenizer
