"""The process of Prefect's temporary server: uvicorn on a socket that the sweep opened.

`python -P server_process.py APPLICATION SOCKET`, by its path, since it must also start where this
project is not installed. The sweep holds the other end of its standard input: however the sweep
ends, that pipe closes, and the server leaves.
"""

from __future__ import annotations

import os
import socket
import sys
import threading

STARTUP_FAILURE = 3  # uvicorn's own


def main(application: str, descriptor: str) -> None:
    """Serve `application` on an open socket until SIGTERM, or until the sweep is gone."""
    threading.Thread(target=_exit_with_sweep, daemon=True).start()

    # After the thread has begun: the import takes a while, and the sweep may end meanwhile.
    import uvicorn

    # `lifespan` as in the command by which Prefect starts its own server.
    configuration = uvicorn.Config(application, factory=True, log_level="error", lifespan="on")
    server = uvicorn.Server(configuration)
    server.run(sockets=[socket.socket(fileno=int(descriptor))])
    if not server.started:
        raise SystemExit(STARTUP_FAILURE)


def _exit_with_sweep() -> None:
    while os.read(0, 4096):
        pass
    # At once: SQLite is safe against it, and nobody asks for what a slow end would still store.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
