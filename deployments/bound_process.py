"""A server or a worker of Prefect that lives no longer than the command that started it.

`python -P bound_process.py prefect ARGUMENT...`, or `... uvicorn APPLICATION SOCKET`, by its path,
since it must also start where this project is not installed. The command holds the other end of its
standard input: however the command ends, that pipe closes, and this process leaves with all of its
group, which it leads. The flow runs of a worker lead groups of their own.
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import sys
import threading

STARTUP_FAILURE = 3  # uvicorn's own


def main(program: str, *arguments: str) -> None:
    """Run the program until it ends, or until the command is gone."""
    threading.Thread(target=_end_with_command, daemon=True).start()
    if program == "uvicorn":
        _serve(*arguments)
    else:
        sys.argv = [program, *arguments]
        runpy.run_module(program, run_name="__main__", alter_sys=True)


def _serve(application: str, descriptor: str) -> None:
    """Serve an application on an open socket."""
    # After the thread has begun: the import takes a while, and the command may end meanwhile.
    import uvicorn

    # `lifespan` as in the command by which Prefect starts its own server.
    configuration = uvicorn.Config(application, factory=True, log_level="error", lifespan="on")
    server = uvicorn.Server(configuration)
    server.run(sockets=[socket.socket(fileno=int(descriptor))])
    if not server.started:
        raise SystemExit(STARTUP_FAILURE)


def _end_with_command() -> None:
    while os.read(0, 4096):
        pass
    # At once: SQLite is safe against it, and nobody asks for what a slow end would still store.
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
