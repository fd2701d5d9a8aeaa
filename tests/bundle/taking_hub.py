"""A local stand-in for the part of the Hub's HTTP interface that takes uploads: repositories, large files, commits."""

from __future__ import annotations

import base64
import json
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.http_server import QuietHandler
from tests.models.fake_hub import serving

COMMIT = "b2" * 20


@dataclass
class TakingHub:
    """`private`: of each repository, by name; `files`: what was committed; `large`: what was sent before a commit, by
    digest; `refuses`: a status for every request, or for those that write."""

    token: str = "hf_good"
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    refuses: int | None = None


def serve(hub: TakingHub) -> AbstractContextManager[str]:
    """Serve on a free local port; gives the address for HF_ENDPOINT."""
    return serving(_Handler, hub)


class _Handler(QuietHandler):
    hub: TakingHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        repo = self._repo(3)
        if self._refused():
            return

        if "/tree/" in self._path:
            files = self.hub.files.get(repo, {})
            self._send(200, [{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in files.items()])
        else:
            siblings = [{"rfilename": path} for path in self.hub.files.get(repo, {})]
            about = {"id": repo, "sha": COMMIT, "private": self.hub.private[repo], "tags": []}
            self._send(200, about | {"siblings": siblings})

    def do_PUT(self) -> None:
        body = self._body()
        self.hub.large[self._path.rpartition("/")[2]] = body
        self._send(200, {})

    def do_POST(self) -> None:
        body = self._body()
        if self._refused():
            return

        if self._path == "/api/repos/create":
            self._create(json.loads(body))
        elif self._path == "/api/validate-yaml":
            self._send(200, {"errors": [], "warnings": []})
        elif self._path.endswith("/objects/batch"):
            self._send(200, {"transfer": "basic", "objects": [self._upload(o) for o in json.loads(body)["objects"]]})
        elif "/preupload/" in self._path:
            self._send(200, {"files": [self._mode(entry["path"]) for entry in json.loads(body)["files"]]})
        elif "/commit/" in self._path:
            self._commit([json.loads(line) for line in body.splitlines()])

    def _create(self, repository: dict[str, Any]) -> None:
        repo = f"{repository['organization']}/{repository['name']}"
        is_known = repo in self.hub.private
        self.hub.private.setdefault(repo, repository.get("visibility") == "private")
        self._send(409 if is_known else 200, {"url": f"http://{self.headers['Host']}/{repo}", "error": "it exists"})

    def _upload(self, lfs_object: dict[str, Any]) -> dict[str, Any]:
        href = f"http://{self.headers['Host']}/large/{lfs_object['oid']}"
        return {**lfs_object, "actions": {"upload": {"href": href, "header": {}}}}

    def _mode(self, path: str) -> dict[str, Any]:
        mode = "lfs" if path.endswith((".safetensors", ".gguf")) else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        files = self.hub.files.setdefault(self._repo(3), {})
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]

        self._send(
            200, {"commitUrl": f"http://{self.headers['Host']}/c/{COMMIT}", "commitOid": COMMIT, "success": True}
        )

    @property
    def _path(self) -> str:
        return unquote(urlsplit(self.path).path)

    def _repo(self, first: int) -> str:
        return "/".join(self._path.split("/")[first : first + 2])

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _refused(self) -> bool:
        self.hub.requests.append(f"{self.command} {self._path}")
        status = self.hub.refuses
        if status is None and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            status = 401
        if status is not None:
            self._send(status, {"error": "no"})
        return status is not None

    def _send(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
