"""HTTP servers on this machine that stand in for others: a Hub, a package index, Prefect's server, a listener."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


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
