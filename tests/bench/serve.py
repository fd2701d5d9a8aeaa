"""How fast `predict` and `serve` answer here, and whether they agree:
`uv run python -m tests.bench.serve EXPERIMENT`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import httpx
import typer

from flows.cli.experiments import find_model
from flows.cli.predict import answers
from flows.serve.app import KeptModel
from flows.serve.server import running
from tasks.bundle.asking import AskedModel, answer, in_use
from tasks.bundle.bundle import BundledModel
from tasks.bundle.decide import data_folder
from tasks.runtime.files import read_lines
from tasks.runtime.home import home
from tests.bench.common import print_rows, run

CLIENTS = 8
ALONE = 40  # requests of one client


def serve(
    experiment: Annotated[str, typer.Argument(help="an id, or the beginning of one")],
    requests: Annotated[int, typer.Option(min=20, help="requests of 8 clients")] = 1000,
    texts: Annotated[int, typer.Option(min=10, help="texts of its test set")] = 100,
) -> None:
    """Time `triage predict` and `triage serve` on a test set, and compare their answers."""
    model = find_model(experiment)
    test = data_folder(home(), model.bundle.judged_on.dataset_digest) / "test.jsonl"
    stories = [record["text"] for record in read_lines(test)[:texts]]
    with in_use(model, "bench"):
        figures = _figures(experiment, model, stories, requests)

    rows = [{"what": what, "measured": value} for what, value in figures.items()]
    print_rows(f"{model.bundle.model_id}, {len(stories)} texts", rows)


def _figures(experiment: str, model: BundledModel, texts: list[str], requests: int) -> dict[str, str]:
    command = [sys.executable, "-m", "flows.cli", "predict", experiment, "-"]
    start = time.perf_counter()
    subprocess.run(command, input=texts[0], capture_output=True, text=True, check=True)
    first = time.perf_counter() - start

    with AskedModel(model, None, "bench") as asked:
        asked.conversation.ready.result()
        start = time.perf_counter()
        decisions = [one for _, one in answers(asked.ask, ((None, text) for text in texts))]
        per_second = len(texts) / (time.perf_counter() - start)
    predicted = [answer(model.bundle, decision) for decision in decisions]

    wanted = [texts[i % len(texts)] for i in range(max(requests, len(texts)))]
    with (
        running(KeptModel(model, None)) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client,
        ThreadPoolExecutor(CLIENTS) as threads,
    ):

        def decide(text: str) -> tuple[float, dict[str, Any]]:
            start = time.perf_counter()
            served: dict[str, Any] = client.post("/decide", json={"text": text}).json()
            return time.perf_counter() - start, served

        for text in texts[:CLIENTS]:  # to warm up
            decide(text)
        alone = [decide(texts[i % len(texts)])[0] for i in range(ALONE)]
        together = list(threads.map(decide, wanted))

    served = [one for _, one in together]
    pairs = [pair for pair in zip(predicted, served, strict=False) if "error" not in pair[1]]
    other = sum(a[key] != b[key] for a, b in pairs for key in ("decision", "conformal_set"))
    farthest = max(
        abs(a["probabilities"][label] - b["probabilities"][label]) for a, b in pairs for label in a["probabilities"]
    )
    return {
        "predict: first answer, the command's start included": f"{first:.1f} s",
        "predict: texts a second from a file": f"{per_second:.2f}",
        "serve: one client, median (95 %)": _spread(alone),
        f"serve: {CLIENTS} clients, median (95 %)": _spread([seconds for seconds, _ in together]),
        f"serve: errors of {len(served):,} requests": str(sum("error" in one for one in served)),
        "serve and predict: largest difference of a probability": f"{farthest:.1e}",
        "serve and predict: other decisions": str(other),
    }


def _spread(seconds: list[float]) -> str:
    high = statistics.quantiles(seconds, n=20)[-1]
    return f"{statistics.median(seconds):.3f} s ({high:.3f} s)"


if __name__ == "__main__":
    run(serve)
