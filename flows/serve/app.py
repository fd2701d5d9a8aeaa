"""The HTTP application of `triage serve`: one endpoint that decides, a page, health and metrics.

Whatever else a request is, it is refused with a sentence, and its text is never repeated.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from tasks.bundle.asking import MOST_BYTES, READ_DECISION, AskedModel, answer, checked_text
from tasks.bundle.bundle import BundledModel
from tasks.runtime import conversation
from tasks.runtime.errors import BadInput, TriageError
from tasks.spec import Label

MOST_WAITING = 64  # texts; the last of them waits some seconds on two cores
# The page is whole: it loads nothing, and talks to this server alone.
ON_PAGES = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'"
}
# A text of which JSON writes each byte as an escape of six, such as \u00e9, and what is around it.
BODY_BYTES = 6 * MOST_BYTES + 100_000
BODIES_BYTES = 64_000_000  # of all bodies that are being read
DISCARDED_BYTES = 500_000_000  # that are read and dropped, so that the client gets its answer
BODY_SECONDS = 20.0
HOSTS = ("127.0.0.1", "localhost")  # other names would let a web page's domain point here
EXAMPLE = '{"text": "I have a sore throat."}'
SECONDS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)


class Question(BaseModel, extra="forbid", strict=True):
    """A text to decide."""

    text: Annotated[str, Field(description=f"at most {MOST_BYTES:,} bytes of UTF-8")]


class Answered(BaseModel):
    """A decision, and what must be known with it."""

    decision: Label | None = Field(description="by the recipe's own rule; null if not available")
    probabilities: dict[Label, float] = Field(description="of the labels, not calibrated, 4 digits")
    conformal_set: list[Label] = Field(description="the labels that cannot be ruled out")
    review: bool | None = Field(description="the review flag; null without dropout passes")
    review_note: str | None = Field(description="why there is no review flag")
    vote_entropy_nats: float | None = Field(description="what the review flag rests on")
    notes: list[str] = Field(description="what to mind about this text")
    model_id: str = Field(description="the training that made the model")
    rule: str = Field(description="argmax, target_recall or min_cost")
    origin: str | None = Field(description="of a moved adapter, what was chosen again")
    verdict: str = Field(description="passes_gates, provisional or unsafe")
    warning: str | None = Field(description="why the model must not be relied on")
    notice: str = Field(description="what the answer is not")


class Health(BaseModel):
    """The state of the model, which is sent with the status 503 where it is lost."""

    model: Literal["ready", "lost"]
    waiting: int = Field(description="texts that wait for a decision")
    model_id: str
    verdict: str
    warning: str | None


class Problem(BaseModel):
    """Why there is no decision."""

    error: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 408, 413, 415, 422, 503)
}


class KeptModel:
    """The model behind the server: one child process, started again if it is lost. Raises, where it is
    made, the error of its loading.
    """

    def __init__(self, model: BundledModel, passes: int | None) -> None:
        self.bundle = model.bundle
        self._start = partial(AskedModel, model, passes, "serve")
        self._asked = self._start()
        self._asked.conversation.ready.result()

    @property
    def is_lost(self) -> bool:
        """Whether the process has ended; the next text starts another one."""
        return self._asked.conversation.is_over

    def ask(self, text: str) -> conversation.Answered:
        """Send a text; answers come in the order of the texts."""
        # Asked from the event loop alone, so no two texts can start a process each.
        if self.is_lost:
            self._asked = self._start()
        return self._asked.ask(text)


def make_app(kept_model: KeptModel, most_waiting: int) -> FastAPI:
    """The application around a loaded model; at most `most_waiting` texts wait for a decision. What is
    counted holds no text, and nothing of one.
    """
    bundle = kept_model.bundle
    app = FastAPI(
        title="triage",
        version=version("triage-sweep"),
        description=f"Model {bundle.model_id}. {bundle.warning or ''} {bundle.notice}",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
    )
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)
    # Not the library's global registry, which refuses a name that a second server here repeats.
    registry = CollectorRegistry()
    requests = Counter(
        "triage_requests", "Requests to decide, by HTTP status", ["status"], registry=registry
    )
    decisions = Counter("triage_decisions", "Decisions by label", ["label"], registry=registry)
    seconds = Histogram(
        "triage_decision_seconds", "Time to a decision", buckets=SECONDS, registry=registry
    )
    waiting = 0
    app.state.body_bytes = 0  # of the bodies that are being read

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> JSONResponse:
        sentence = error.detail
        if error.status_code in (404, 405):
            # The path is not repeated: it may be a text that was put into the address.
            sentence = "There is nothing under this method and path; POST /decide decides, / shows."
        else:
            requests.labels(error.status_code).inc()
        headers = {"Retry-After": "2"} if error.status_code == 503 else error.headers
        return JSONResponse({"error": sentence}, error.status_code, headers)

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
        nonlocal waiting
        text = await text_of(request)
        # Requests share one event loop, and nothing is awaited before the count: no lock is needed.
        if waiting >= most_waiting:
            raise HTTPException(503, f"{waiting} texts wait already; ask again in a few seconds.")
        start = time.perf_counter()
        waiting += 1
        try:
            values = await asyncio.wrap_future(kept_model.ask(text))
        except TriageError as error:
            raise HTTPException(503, f"The model could not answer: {error} Ask again.") from None
        finally:
            waiting -= 1

        decision = READ_DECISION.validate_python(values)
        seconds.observe(time.perf_counter() - start)
        decisions.labels(decision.label or "none").inc()
        requests.labels(200).inc()
        ed, gp, home = (round(p, 4) for p in decision.probabilities)
        entropy = decision.vote_entropy and round(decision.vote_entropy, 4)
        shown = replace(decision, probabilities=(ed, gp, home), vote_entropy=entropy)
        return JSONResponse(answer(bundle, shown))

    @app.get("/health", response_model=Health, responses={503: {"model": Health}})
    async def health() -> JSONResponse:
        """Whether the model is loaded, and how many texts wait for it."""
        about = {"model_id": bundle.model_id, "verdict": bundle.verdict, "warning": bundle.warning}
        state, status = ("lost", 503) if kept_model.is_lost else ("ready", 200)
        return JSONResponse({"model": state, "waiting": waiting, **about}, status)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters in the text format of Prometheus."""
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    page = (files(__package__) / "page.html").read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers=ON_PAGES)

    return app


async def text_of(request: Request) -> str:
    """The text that a request asks about. Raises HTTPException with a sentence."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # A page of another site cannot send this type without being allowed to.
    if kind != "application/json":
        raise HTTPException(415, f"Send {EXAMPLE} with the content type application/json.")

    state = request.app.state
    body = bytearray()
    size = 0
    is_crowded = False
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                # Once a chunk was dropped the body has a hole, so the later ones are dropped, too.
                is_crowded = is_crowded or state.body_bytes + len(chunk) > BODIES_BYTES
                if size <= BODY_BYTES and not is_crowded:
                    body.extend(chunk)
                    state.body_bytes += len(chunk)
                elif size > DISCARDED_BYTES:
                    break
    except TimeoutError:
        raise HTTPException(408, f"The body did not arrive within {BODY_SECONDS:g} s.") from None
    except ClientDisconnect:  # nobody reads the answer, but the request is counted
        raise HTTPException(400, "The body broke off.") from None
    finally:
        state.body_bytes -= len(body)
    if size > BODY_BYTES:
        raise HTTPException(413, f"The body is larger than {BODY_BYTES:,} bytes; shorten the text.")
    if is_crowded:
        raise HTTPException(
            503, "There are too many large requests at once; ask again in a few seconds."
        )

    try:
        return checked_text(Question.model_validate_json(body).text)
    except ValidationError:  # its message repeats the text
        raise HTTPException(
            422, f"The body is to be a JSON object with the one key text: {EXAMPLE}."
        ) from None
    except BadInput as error:
        raise HTTPException(422, str(error)) from None
