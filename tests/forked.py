"""Programs in processes of their own that are forked from one which has loaded the libraries.

Starting Python and loading libraries takes most of the time of a short program.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path

from tasks.runtime.backend import is_linux

# A Mac's libraries may abort in a process that was forked and did not exec.
FORKED = multiprocessing.get_context("forkserver" if is_linux() else "spawn")
# Not huggingface_hub itself, which reads the environment when it is imported.
PRELOADED = [
    "tests.place", "tasks.models.sources.fetch", "httpx", "numpy", "pyarrow.parquet", "rich.table", "rich.traceback",
    "tqdm.auto", "typer", "yaml",
]  # fmt: skip
FORKED.set_forkserver_preload(PRELOADED)

# An ending can be read once, and a start reads those of all processes: of two threads that read it at once, one gets 255.
ENDINGS = threading.Lock()


@contextlib.contextmanager
def new_fork_server() -> Iterator[None]:
    """In the block, processes are forked from a server that `forked_steps` starts: one that runs already would import
    nothing further, and each of its steps MLX."""
    server = forkserver._forkserver  # type: ignore[attr-defined]
    server._stop()
    try:
        yield
    finally:
        server._stop()
        FORKED.set_forkserver_preload(PRELOADED)


def run_forked(
    program: Callable[[], object], arguments: Sequence[str], folder: Path, environment: dict[str, str], seconds: float
) -> subprocess.CompletedProcess[str]:
    """What `program` prints in a process of its own, where `sys.argv[1:]` are `arguments` and whose working directory is
    `folder`. Its outputs go to the files `out` and `err` there."""
    process = FORKED.Process(target=_answer, args=(program, arguments, folder, environment))
    with ENDINGS:
        process.start()

    # Outside the lock, since it may take long; unlike join(), it does not read the ending.
    wait([process.sentinel], seconds)
    with ENDINGS:
        process.kill()
        process.join()

    assert process.exitcode is not None
    out, err = ((folder / name).read_text() for name in ("out", "err"))
    return subprocess.CompletedProcess(arguments, process.exitcode, out, err)


def _answer(program: Callable[[], object], arguments: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
    for name, mode, number in ((os.devnull, "r", 0), ("out", "w", 1), ("err", "w", 2)):
        with (folder / name).open(mode) as file:
            os.dup2(file.fileno(), number)

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [sys.argv[0], *arguments]
    program()
