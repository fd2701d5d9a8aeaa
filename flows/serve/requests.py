"""What a request may be: everything else is refused with a sentence,
and its text is never repeated.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from tasks.bundle.asking import MOST_BYTES, checked_text
from tasks.runtime.errors import BadInput

# A text of which JSON writes each byte as an escape of six, such as \u00e9, and what is around it.
BODY_BYTES = 6 * MOST_BYTES + 100_000
BODIES_BYTES = 64_000_000  # of all bodies that are being read
DISCARDED_BYTES = 500_000_000  # that are read and dropped, so that the client gets its answer
BODY_SECONDS = 20.0
HOSTS = ("127.0.0.1", "localhost")  # other names would let a web page's domain point here
EXAMPLE = '{"text": "I have a sore throat."}'


class Refused(Exception):
    """A request that gets no decision: the HTTP status, and a sentence for who sent it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class OwnHostAlone:
    """Refuses requests under the name of another host, before anything else is done with them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] == "http":
            host = Headers(scope=scope).get("host", "").partition(":")[0]
            if host not in HOSTS:
                app = JSONResponse({"error": f"Ask this server as {' or '.join(HOSTS)}."}, 400)
        await app(scope, receive, send)


@dataclass
class Bodies:
    """The bodies of one server that are being read. `byte_count`: their bytes in memory."""

    byte_count: int = 0


async def text_of(request: Request, bodies: Bodies) -> str:
    """The text that a request asks about. Raises Refused."""
    header = request.headers.get("content-type", "")
    kind = header.partition(";")[0].strip().lower()
    # A page of another site cannot send this type without being allowed to.
    if kind != "application/json":
        raise Refused(415, f"Send {EXAMPLE} with the content type application/json.")

    values = _parsed(await _body(request, bodies))
    if not isinstance(values, dict) or set(values) != {"text"}:
        raise Refused(422, f"The body is to be a JSON object with the one key text: {EXAMPLE}.")
    if not isinstance(values["text"], str):
        raise Refused(422, f"The value of text is to be a string: {EXAMPLE}.")

    try:
        return checked_text(values["text"])
    except BadInput as error:
        raise Refused(422, str(error)) from None


async def _body(request: Request, bodies: Bodies) -> bytes:
    """The bytes of a body; what has no room is read and dropped."""
    body = bytearray()
    size = 0
    crowded = False
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                # Once a chunk was dropped the body has a hole, so the later ones are dropped, too.
                crowded = crowded or bodies.byte_count + len(chunk) > BODIES_BYTES
                if size <= BODY_BYTES and not crowded:
                    body.extend(chunk)
                    bodies.byte_count += len(chunk)
                elif size > DISCARDED_BYTES:
                    break
    except TimeoutError:
        raise Refused(408, f"The body did not arrive within {BODY_SECONDS:.0f} s.") from None
    except ClientDisconnect:  # nobody reads the answer, but the request is counted
        raise Refused(400, "The body broke off.") from None
    finally:
        bodies.byte_count -= len(body)

    if size > BODY_BYTES:
        raise Refused(413, f"The body is larger than {BODY_BYTES:,} bytes; shorten the text.")
    if crowded:
        raise Refused(503, "There are too many large requests at once; ask again in a few seconds.")
    return bytes(body)


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    # RecursionError: brackets that are nested too deeply.
    except (ValueError, RecursionError):
        raise Refused(400, f"The body is not JSON; send {EXAMPLE}.") from None
