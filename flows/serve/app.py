"""The HTTP application of `triage serve`: one endpoint that decides, a page, health and metrics."""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from flows.serve.kept_model import KeptModel
from flows.serve.metrics import Metrics
from flows.serve.requests import Bodies, OwnHostAlone, Refused, text_of
from flows.serve.schema import Answered, Health, Problem, Question
from tasks.bundle.decision import Decision, answer
from tasks.runtime.errors import TriageError

MOST_WAITING = 64  # texts; the last of them waits some seconds on two cores
# The page is whole: it loads nothing, and talks to this server alone.
ON_PAGES = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'"
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 408, 413, 415, 422, 503)
}


def make_app(kept_model: KeptModel, most_waiting: int) -> FastAPI:
    """The application around a loaded model; at most `most_waiting` texts wait for a decision."""
    app = FastAPI(
        title="triage",
        version=version("triage-sweep"),
        description=f"Model {kept_model.bundle.model_id}. {kept_model.bundle.warning or ''} {kept_model.bundle.notice}",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
    )
    app.add_middleware(OwnHostAlone)
    bodies = Bodies()
    desk = _Desk(kept_model, most_waiting)

    @app.exception_handler(Refused)
    async def refuse(request: Request, refusal: Refused) -> JSONResponse:
        headers = {"Retry-After": "2"} if refusal.status == 503 else {}
        desk.metrics.requests.labels(refusal.status).inc()
        return JSONResponse({"error": refusal.sentence}, refusal.status, headers)

    @app.exception_handler(HTTPException)
    async def misdirected(request: Request, error: HTTPException) -> JSONResponse:
        # The path is not repeated: it may be a text that was put into the address.
        sentence = "There is nothing under this method and path; POST /decide decides, / shows how."
        return JSONResponse({"error": sentence}, error.status_code, error.headers)

    body = {"content": {"application/json": {"schema": Question.model_json_schema()}}}

    @app.post(
        "/decide",
        response_model=Answered,
        responses=PROBLEMS,
        # text_of reads the body itself, within bounds, so FastAPI cannot derive its schema.
        openapi_extra={"requestBody": {"required": True, **body}},
    )
    async def decide(request: Request) -> JSONResponse:
        """Decide where the writer of a text should be seen."""
        return JSONResponse(await desk.answered(await text_of(request, bodies)))

    @app.get("/health", response_model=Health, responses={503: {"model": Health}})
    async def health() -> JSONResponse:
        """Whether the model is loaded, and how many texts wait for it."""
        bundle = kept_model.bundle
        about = {"model_id": bundle.model_id, "verdict": bundle.verdict, "warning": bundle.warning}
        state = "lost" if kept_model.is_lost else "ready"
        return JSONResponse(
            {"model": state, "waiting": desk.waiting, **about}, 503 if kept_model.is_lost else 200
        )

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters in the text format of Prometheus."""
        return Response(desk.metrics.text(), media_type="text/plain; version=0.0.4")

    page = (files(__package__) / "page.html").read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers=ON_PAGES)

    return app


class _Desk:
    """Where texts wait for their decisions."""

    def __init__(self, kept_model: KeptModel, most_waiting: int) -> None:
        self._kept = kept_model
        self._most_waiting = most_waiting
        self.metrics = Metrics()
        self.waiting = 0

    async def answered(self, text: str) -> dict[str, object]:
        """The whole answer to a text. Raises Refused where too many wait, or the model is lost."""
        # Requests share one event loop, and nothing is awaited before the count: no lock is needed.
        if self.waiting >= self._most_waiting:
            raise Refused(503, f"{self.waiting} texts wait already; ask again in a few seconds.")

        start = time.perf_counter()
        self._count(+1)
        try:
            values = await asyncio.wrap_future(self._kept.ask(text))
        except TriageError as error:
            raise Refused(503, f"The model could not answer: {error} Ask again.") from None
        finally:
            self._count(-1)

        decision = Decision.from_json(values)
        self.metrics.seconds.observe(time.perf_counter() - start)
        self.metrics.decisions.labels(decision.label or "none").inc()
        self.metrics.requests.labels(200).inc()

        return answer(self._kept.bundle, decision)

    def _count(self, change: int) -> None:
        self.waiting += change
        self.metrics.waiting.set(self.waiting)
