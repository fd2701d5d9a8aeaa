"""HTTP servers on this machine that stand in for others: a Hub, a package index, Prefect's server, a listener."""

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer


class QuietHandler(BaseHTTPRequestHandler):
    """Writes no line per request to standard error."""

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def http_server(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server of `handler` on a free port, in a thread of its own; yields its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        # By default it looks for its end twice a second, and each test would wait for that.
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def version_server(version: str, descriptor: int) -> list[str]:
    """The command of a server that answers a version to every request, on an open socket."""
    return [sys.executable, __file__, version, str(descriptor)]


def replying(text: str, status: int = 200, path: str | None = None) -> type[QuietHandler]:
    """Answers every address, or one path alone, with this text."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            self.send_response(status if path in (None, self.path) else 404)
            self.end_headers()
            self.wfile.write(text.encode())

    return Handler


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", 0), replying(f'"{sys.argv[1]}"'), bind_and_activate=False)
    server.socket = socket.socket(fileno=int(sys.argv[2]))
    server.serve_forever()
