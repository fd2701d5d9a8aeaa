"""A local stand-in for the Hub's HTTP interface: one repository at one commit, with the Hub's own headers and errors."""

import hashlib
import importlib
import json
import socket
import struct
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.http_server import QuietHandler, http_server

REPO = "team/model"
COMMIT = "a1" * 20


class FakeHub:
    """`files` by name; `gated`, `revisions` and `damage` shape the answers; `requests` records every request."""

    def __init__(self, files: dict[str, bytes]):
        self.files = files
        self.revisions = {"main", "v1", COMMIT}
        self.gated: int | None = None  # 401 without a token, 403 with one whose account has not accepted
        self.refuses: int | None = None  # a status without the Hub's own code, as for a token that is wrong
        self.fail_first: dict[str, int] = {}  # file name, `HEAD` and one, or `listing`: how often it fails first
        self.failure = "503"  # how: by that answer, a `reset` connection, or a `timeout`
        # File name: "short" (a whole answer, too short) or "flip".
        self.damage: dict[str, str] = {}
        self.claimed_size = 0  # added to the size of each file in the listing
        self.requests: list[str] = []
        self.sent: list[str] = []  # the file's name of each GET

    def etag(self, name: str) -> str:
        """The Hub's: SHA-256 of large files (weights), git's SHA-1 of the others."""
        content = self.files[name]
        if name.endswith((".safetensors", ".bin")):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def listing(self) -> dict:
        siblings = [{"rfilename": n, "size": len(c) + self.claimed_size, "blobId": "0"} for n, c in self.files.items()]
        return {"id": REPO, "modelId": REPO, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0,
                "siblings": siblings}  # fmt: skip

    def tree(self) -> list[dict]:
        entries = []
        for name, content in self.files.items():
            digest = self.etag(name)
            large = {"lfs": {"oid": digest, "size": len(content), "pointerSize": 130}} if len(digest) == 64 else {}
            entries.append({"type": "file", "path": name, "size": len(content), "oid": digest[:40], **large})
        return entries

    def body(self, name: str) -> bytes:
        content = bytearray(self.files[name])
        if self.damage.get(name) == "flip":
            content[-1] ^= 1
        if self.damage.get(name) == "short":
            del content[len(content) // 2 :]
        return bytes(content)


@contextmanager
def reached(hub: FakeHub | None, cache: Path, offline: bool = False, address: str = "http://127.0.0.1:9"):
    """huggingface_hub asks this Hub; without one, an address where nobody answers. Its settings, which it reads where a
    process starts, are set where it keeps them. As many attempts are made as in earnest, without the wait."""
    from huggingface_hub import constants

    served: AbstractContextManager[str] = nullcontext(address)
    if hub is not None:
        served = http_server(type("Handler", (_Handler,), {"hub": hub}))
    with served as address, pytest.MonkeyPatch.context() as patch:
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        settings = {"ENDPOINT": address, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_OFFLINE": offline,
                    "HF_HUB_CACHE": f"{cache}/hub", "HF_HUB_DISABLE_XET": True, "HF_HUB_DOWNLOAD_TIMEOUT": 60}  # fmt: skip
        for name, value in settings.items():
            patch.setattr(constants, name, value)
        patch.setattr(importlib.import_module("huggingface_hub.hf_api").api, "endpoint", address)
        patch.setattr("tasks.models.sources.hub_source.PAUSES", (0.05, 0.1))
        yield


class _Handler(QuietHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.refuses:
            return self._error(self.hub.refuses, None, "Invalid credentials in Authorization header")

        parts = path.strip("/").split("/")
        if parts[:2] in (["api", "models"], ["api", "datasets"]):
            if "/".join(parts[2:4]) != REPO:
                return self._error(404, "RepoNotFound", "Repository not found")

            endpoint, revision = parts[4:6] if len(parts) > 5 else ("revision", "main")
            if self._busy("listing"):
                return self._fail()
            if revision not in self.hub.revisions:
                return self._error(404, "RevisionNotFound", "Invalid rev id")

            answer = self.hub.tree() if endpoint == "tree" else self.hub.listing()
            return self._send(200, {"Content-Type": "application/json"}, json.dumps(answer).encode(), with_body)

        return self._file(parts, with_body)

    def _file(self, parts: list[str], with_body: bool) -> None:
        parts = parts[1:] if parts[0] == "datasets" else parts
        if "/".join(parts[:2]) != REPO:
            return self._error(404, "RepoNotFound", "Repository not found")
        if self.hub.gated:  # its files only: anyone may read the listing
            return self._error(self.hub.gated, "GatedRepo", "Access to model team/model is restricted.")

        revision = parts[3]
        name = "/".join(parts[4:])
        if revision not in self.hub.revisions:
            return self._error(404, "RevisionNotFound", "Invalid rev id")
        if name not in self.hub.files:
            return self._error(404, "EntryNotFound", "Entry not found")
        if self._busy(name if with_body else f"HEAD {name}"):
            return self._fail()

        headers = {"ETag": f'"{self.hub.etag(name)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        content = self.hub.body(name)
        if not with_body:
            return self._send(200, headers, self.hub.files[name], False)

        first = self._first_byte()
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"

        self.hub.sent.append(name)
        return self._send(206 if first else 200, headers, content[first:], True)

    def _first_byte(self) -> int:
        """Where an open-ended Range begins, as in `bytes=100-`; 0 without one."""
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))

    def _busy(self, name: str) -> bool:
        failures_left = self.hub.fail_first.get(name, 0)
        self.hub.fail_first[name] = max(0, failures_left - 1)
        return failures_left > 0

    def _fail(self) -> None:
        if self.hub.failure == "503":
            return self._error(503, None, "Service unavailable")

        self.close_connection = True
        if self.hub.failure == "timeout":
            self.rfile.read(1)  # until the client has gone
        else:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return None

    def _send(self, status: int, headers: dict[str, str], content: bytes, with_body: bool) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)

        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def _error(self, status: int, code: str | None, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._send(status, headers, b"", True)
