"""`triage serve EXPERIMENT_OR_DIR`: decisions over HTTP, for programs on this machine."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from flows.cli.predict import Model, Passes
from flows.cli.terminal import Precision, console, print_line

Port = Annotated[int, typer.Option(min=1024, max=65535, metavar="PORT", help="port on 127.0.0.1")]


def serve(
    experiment: Model, port: Port = 8642, passes: Passes = None, precision: Precision = None
) -> None:
    """Answer requests to decide texts over HTTP, for programs on this machine, until Ctrl-C."""
    from flows.cli.experiments import find_model
    from flows.serve.server import serve as start

    model = partial(find_model, experiment, precision)
    start(model, port, passes, lambda line: print_line(console, line))
