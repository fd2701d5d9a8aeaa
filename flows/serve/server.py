"""`triage serve` at work: a socket of this machine alone, the server, and the model's process."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn

from deployments.interruptions import interrupted_by_signals
from flows.serve.app import MOST_WAITING, KeptModel, make_app
from tasks.bundle.asking import in_use
from tasks.bundle.bundle import BundledModel
from tasks.runtime.children import stop_children
from tasks.runtime.errors import BadInput

HOST = "127.0.0.1"
CONNECTIONS = 256
FILES = 1024  # that the server may have open: a terminal of a Mac allows 256
GRACE_SECONDS = 5


def serve(
    find: Callable[[], BundledModel], port: int, passes: int | None, say: Callable[[str], None]
) -> None:
    """Answer on a port of this machine until Ctrl-C or SIGTERM. `find`
    gives the model; `say` prints.

    Raises BadInput where the port is taken, before the model is loaded.
    """
    with listening(port) as listener, interrupted_by_signals():
        try:
            model = find()
            with in_use(model, "serve"):
                say(f"Checking and loading {model.weights}: seconds, on a busy machine minutes.")
                kept_model = KeptModel(model, passes)
                bundle = kept_model.bundle
                address = f"http://{HOST}:{listener.getsockname()[1]}"
                say(f"{bundle.model_id} answers on {address} (POST /decide); Ctrl-C ends it.")
                for line in filter(None, (bundle.warning, bundle.notice)):
                    say(line)
                _server(kept_model).run(sockets=[listener])
        # uvicorn catches the signal, ends in order, and raises it again.
        except KeyboardInterrupt:
            say("Stopped.")
        finally:
            stop_children()


@contextlib.contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """A socket on 127.0.0.1; any free port for 0."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        allowed = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))

    listener = socket.socket()
    # A server that has just ended must not keep the port.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    with listener:
        try:
            listener.bind((HOST, port))
            listener.listen(CONNECTIONS)
        except OSError as error:
            raise BadInput(
                f"Port {port} cannot be used ({error.strerror}), perhaps because of another "
                f"`triage serve`; stop that, or give --port {port + 1}."
            ) from error
        yield listener


def _server(kept_model: KeptModel, most_waiting: int = MOST_WAITING) -> uvicorn.Server:
    config = uvicorn.Config(
        make_app(kept_model, most_waiting),
        http="h11",
        ws="none",
        log_config=None,
        # A path may be a text that was put into the address.
        access_log=False,
        server_header=False,
        # Beyond it uvicorn itself answers 503, in plain text.
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return uvicorn.Server(config)


@contextlib.contextmanager
def running(kept_model: KeptModel, most_waiting: int = MOST_WAITING) -> Iterator[int]:
    """The server in a thread of this process, on a free port, which is given: for measurements."""
    with listening(0) as listener:
        server = _server(kept_model, most_waiting)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            # Outside the main thread uvicorn takes no signals, so this flag ends it.
            server.should_exit = True
            thread.join()
