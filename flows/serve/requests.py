"""What a request may be: everything else is refused with a sentence, and its text is never repeated."""

from __future__ import annotations

import asyncio
import json

from fastapi import Request

from tasks.bundle.texts import MOST_BYTES, checked_text
from tasks.runtime.errors import BadInput

BODY_BYTES = MOST_BYTES + 100_000  # a text, and what JSON puts around it
DISCARDED_BYTES = 500_000_000  # that are read and dropped, so that the client gets its answer
BODY_SECONDS = 20.0
EXAMPLE = '{"text": "I have a sore throat."}'


class Refused(Exception):
    """A request that gets no decision: the HTTP status, and a sentence for who sent it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


async def text_of(request: Request) -> str:
    """The text that a request asks about. Raises Refused."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # A page of another site cannot send this type without being allowed to.
    if kind != "application/json":
        raise Refused(415, f"Send {EXAMPLE} with the content type application/json.")

    values = _parsed(await _body(request))
    if not isinstance(values, dict) or set(values) != {"text"}:
        raise Refused(422, f"The body is to be a JSON object with the one key text: {EXAMPLE}.")
    if not isinstance(values["text"], str):
        raise Refused(422, f"The value of text is to be a string: {EXAMPLE}.")
    try:
        return checked_text(values["text"])
    except BadInput as error:
        raise Refused(422, str(error)) from None


async def _body(request: Request) -> bytes:
    """The bytes of a body. Of one that is too large none is kept."""
    body = bytearray()
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= BODY_BYTES:
                    body.extend(chunk)
                elif size > DISCARDED_BYTES:
                    break
    except TimeoutError:
        raise Refused(408, f"The body did not arrive within {BODY_SECONDS:.0f} s.") from None
    if size > BODY_BYTES:
        raise Refused(413, f"The body is larger than {BODY_BYTES:,} bytes; shorten the text.")
    return bytes(body)


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, f"The body is not JSON; send {EXAMPLE}.") from None
