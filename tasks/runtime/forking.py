"""Inside the fork server: it imports what steps need, and forks one process per order.

It computes nothing itself, so that MLX and MKL have no threads yet when it forks (OpenBLAS has, and
restarts them itself). It exits when its socket closes, at the latest with its parent.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

OPTION = "--fork-server"
NUMBER = struct.Struct("q")
ORDER_BYTES = 1 << 18


@dataclass(frozen=True)
class Order:
    """A step to fork: its module, the path of its spec, and the environment and working folder that
    it runs in.
    """

    module: str
    spec: str
    environment: dict[str, str]
    folder: str


def serve(modules: Sequence[str]) -> str:
    """Import `modules`, then fork a process per order on standard input, one after the other.

    Returns in the forked process alone, with the path of its spec; its standard streams,
    environment and working folder are set.
    """
    for module in modules:
        _import(module)

    with socket.socket(fileno=0) as orders:
        order, streams = _next_order(orders)
        while not _fork(order, streams, orders):
            order, streams = _next_order(orders)

    _become(order, streams)
    return order.spec


def _fork(order: Order, streams: list[int], orders: socket.socket) -> bool:
    """Fork a process for an order: True in that process, at once.

    False in the server, when the process has ended.
    """
    # In the server: the next step that needs the module finds it imported.
    _import(order.module)
    pid = os.fork()
    if pid == 0:
        # Descriptor 0 stays open until the step's standard input takes its place (`_become`).
        orders.detach()
        return True

    # The step has copies: a pipe that is open here too would not end with the step.
    for number in streams:
        os.close(number)

    _send_number(orders, pid)
    _, status = os.waitpid(pid, 0)
    _send_number(orders, os.waitstatus_to_exitcode(status))
    return False


def _become(order: Order, streams: list[int]) -> None:
    """Give this process the standard streams, environment and working folder of a step."""
    for number, standard in zip(streams, (0, 1, 2), strict=True):
        os.dup2(number, standard)
        os.close(number)
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.folder)


def _next_order(orders: socket.socket) -> tuple[Order, list[int]]:
    """The next order, with the descriptors of its three streams; exits if the parent is gone."""
    try:
        message, streams, _, _ = socket.recv_fds(orders, ORDER_BYTES, 3)
    # The parent was killed before it read how a step ended.
    except OSError:
        os._exit(0)

    if not message:
        os._exit(0)
    return Order(**json.loads(message)), streams


def _send_number(orders: socket.socket, number: int) -> None:
    try:
        orders.sendall(NUMBER.pack(number))
    # The parent is gone.
    except OSError:
        os._exit(0)


def _import(module: str) -> None:
    # A step that needs a module that cannot be imported reports it itself.
    with contextlib.suppress(Exception):
        importlib.import_module(module)
