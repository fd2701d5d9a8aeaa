"""`triage bench serve`: how fast `predict` and `serve` answer here, and whether they agree."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
from rich.console import Console

from deployments.interruptions import interrupted_by_signals
from flows.bench.shared import own_versions
from flows.cli.models.find_model import find_model
from flows.cli.models.predict_run import answers
from flows.cli.terminal import print_line
from flows.report.table import ReportTable, print_table
from flows.serve.kept_model import KeptModel
from flows.serve.server import running
from tasks.bundle.asking import AskedModel, in_use
from tasks.bundle.bundle import BundledModel
from tasks.bundle.decision import answer
from tasks.bundle.valid_scores import data_folder
from tasks.runtime.children import stop_children
from tasks.runtime.files import read_lines
from tasks.runtime.home import home
from tasks.runtime.memory import resident_bytes

CLIENTS = 8
ALONE = 40  # requests of one client
NEAREST = 10  # cases nearest to the threshold: a rounding would decide them otherwise first
Shown = dict[str, Any]  # an answer as JSON


@dataclass(frozen=True)
class Load:
    """How many requests eight clients send, and how many texts of the test set they are about."""

    requests: int
    texts: int


@dataclass(frozen=True)
class Figures:
    """What was measured: seconds, texts a second, and bytes of the
    server and of the model's process.
    """

    first_answer: float
    texts_a_second: float
    alone: Sequence[float]
    together: Sequence[float]
    errors: int
    memory: Sequence[int]
    largest_difference: float
    other_decisions: int
    nearest_equal: int

    @property
    def records(self) -> list[dict[str, str]]:
        """One per figure, in words."""
        memory = ", ".join(f"{resident_bytes / 1e6:.0f}" for resident_bytes in self.memory)
        nearest = f"{self.nearest_equal} of the {NEAREST} nearest are equal"
        rows = [
            ("predict: first answer, the command's start included", f"{self.first_answer:.1f} s"),
            ("predict: texts a second from a file", f"{self.texts_a_second:.2f}"),
            ("serve: one client, median (95 %)", _spread(self.alone)),
            (f"serve: {CLIENTS} clients, median (95 %)", _spread(self.together)),
            (f"serve: errors of {len(self.together):,} requests", str(self.errors)),
            ("serve: MB after the first requests, half of them, and all", memory),
            (
                "serve and predict: largest difference of a probability",
                f"{self.largest_difference:.1e}",
            ),
            ("serve and predict: other decisions", f"{self.other_decisions}, and {nearest}"),
        ]

        return [{"what": quantity, "measured": figure_text} for quantity, figure_text in rows]


def _spread(seconds: Sequence[float]) -> str:
    high = statistics.quantiles(seconds, n=20)[-1]
    return f"{statistics.median(seconds):.3f} s ({high:.3f} s)"


def bench_serve(console: Console, experiment: str, load: Load) -> None:
    """Measure on texts of the experiment's own test set, and print. Raises BadInput."""
    with interrupted_by_signals():
        try:
            model = find_model(experiment)
            texts = _texts(model, load.texts)
            with in_use(model, "bench"):
                figures = _measure(experiment, model, texts, load)
        finally:
            stop_children()

    words = statistics.mean(len(text.split()) for text in texts)
    versions = ", ".join(f"{name} {version}" for name, version in own_versions().items())
    title = (
        f"{model.bundle.model_id}: {len(texts)} texts of {words:.0f} words on average ({versions})"
    )
    print_table(console, ReportTable.of(title, figures.records))
    busy = psutil.getloadavg()[0]
    print_line(
        console, f"Load of the machine at the end: {busy:.1f} on {psutil.cpu_count()} cores."
    )


def _texts(model: BundledModel, count: int) -> list[str]:
    data = data_folder(home(), model.bundle.judged_on.dataset_digest)
    return [record["text"] for record in read_lines(data / "test.jsonl")[:count]]


def _measure(experiment: str, model: BundledModel, texts: list[str], load: Load) -> Figures:
    first_answer = _first_answer(experiment, texts[0])
    predicted, rate = _predicted_answers(model, texts)

    kept_model = KeptModel(model, None)
    with running(kept_model) as port, _client(port) as client:
        # To warm up: none of these is timed.
        for text in texts[:CLIENTS]:
            _decide(client, text)

        memory = [_memory()]
        alone = [_decide(client, texts[i % len(texts)])[0] for i in range(ALONE)]
        requested_texts = [texts[i % len(texts)] for i in range(max(load.requests, len(texts)))]

        timed: list[tuple[float, Shown]] = []
        with ThreadPoolExecutor(CLIENTS) as threads:
            for half in (
                requested_texts[: len(requested_texts) // 2],
                requested_texts[len(requested_texts) // 2 :],
            ):
                timed += threads.map(lambda text: _decide(client, text), half)
                memory.append(_memory())

    served = [answer for _, answer in timed[: len(texts)]]
    pairs = list(zip(predicted, served, strict=True))
    differences = [_differs(direct, served_answer) for direct, served_answer in pairs]
    nearest = sorted(range(len(texts)), key=lambda i: _margin(model, predicted[i]))[:NEAREST]

    return Figures(
        first_answer=first_answer,
        texts_a_second=rate,
        alone=alone,
        together=[seconds for seconds, _ in timed],
        errors=sum("error" in answer for _, answer in timed),
        memory=memory,
        largest_difference=max(
            _difference(direct, served_answer) for direct, served_answer in pairs
        ),
        other_decisions=sum(differences),
        nearest_equal=sum(not differences[i] for i in nearest),
    )


def _first_answer(experiment: str, text: str) -> float:
    """Seconds from the command's start to its end with one text."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "flows.cli", "predict", experiment, "-"]
    subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return time.perf_counter() - start


def _predicted_answers(model: BundledModel, texts: list[str]) -> tuple[list[Shown], float]:
    """The answers of `predict` to the texts, and how many it gives a second once it is loaded."""
    with AskedModel(model) as asked_model:
        asked_model.wait_until_loaded()
        start = time.perf_counter()
        decisions = [
            decision for _, decision in answers(asked_model.ask, ((None, text) for text in texts))
        ]
        seconds = time.perf_counter() - start
    return [answer(model.bundle, decision) for decision in decisions], len(texts) / seconds


@contextmanager
def _client(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
        yield client


def _decide(client: httpx.Client, text: str) -> tuple[float, Shown]:
    """Seconds and JSON of one request."""
    start = time.perf_counter()
    answer: Shown = client.post("/decide", json={"text": text}).json()
    return time.perf_counter() - start, answer


def _memory() -> int:
    """Bytes that this process and its children hold: the server runs here, the model in a child."""
    this_process = psutil.Process()
    return sum(resident_bytes(process.pid) for process in (this_process, *this_process.children()))


def _difference(first: Shown, second: Shown) -> float:
    if "error" in second:
        return 1.0
    return max(
        abs(first["probabilities"][label] - second["probabilities"][label])
        for label in first["probabilities"]
    )


def _differs(first: Shown, second: Shown) -> bool:
    return any(first[key] != second.get(key) for key in ("decision", "conformal_set"))


def _margin(model: BundledModel, answer: Shown) -> float:
    """How little would change the decision: of a threshold the distance, else of the best two."""
    p = sorted(answer["probabilities"].values())
    threshold = model.bundle.rule.threshold
    if threshold is None:
        return float(p[-1] - p[-2])
    return abs(float(answer["probabilities"]["ED"]) - threshold)
