"""The kinds of faults, where each can be done, and the order in which they come."""

from __future__ import annotations

import random
from dataclasses import dataclass

from flows.bench.chaos import namespace, strikes
from flows.bench.chaos.fleet import FleetPlace
from flows.bench.chaos.place import ChaosPlace
from flows.bench.chaos.strikes import StrikeFunction, killing

IN_NAMESPACE = "needs namespaces (unshare), which this machine does not allow"
WITHOUT_POOL = "needs --pool"
WITHOUT_POSTGRES = "needs PostgreSQL, which is not installed or does not run here"


@dataclass(frozen=True)
class Fault:
    """A kind of fault. `strike` does it and returns what was struck; `not_here`: why this machine,
    or a sweep of this kind, cannot have it.
    """

    name: str
    strike: StrikeFunction
    not_here: str | None = None


def known_faults(place: ChaosPlace) -> list[Fault]:
    """Every kind; those that cannot be done in this place say why."""
    no_namespace = None if namespace.is_entered() else IN_NAMESPACE
    return [
        Fault("child killed", killing("step")),
        Fault("parent killed", strikes.kill_parent),
        Fault("fork server killed", killing("fork_server")),
        Fault("Prefect server killed", killing("prefect_server")),
        Fault("child stopped for 20 s", strikes.stop_child),
        Fault("byte flipped in a cached file", strikes.flip_cached),
        Fault("byte flipped in a landing file", strikes.flip_landed),
        Fault("warehouse locked", strikes.lock_warehouse),
        Fault("disk full", strikes.fill_disk, no_namespace),
        Fault("folder read-only", strikes.make_read_only, no_namespace),
        Fault("network to the server cut", strikes.cut_network, no_namespace),
        *_of_a_fleet(place),
    ]


def _of_a_fleet(place: ChaosPlace) -> list[Fault]:
    missing: str | None = WITHOUT_POOL
    no_postgres: str | None = WITHOUT_POOL
    if isinstance(place, FleetPlace):
        missing = None
        no_postgres = None if place.postgres else WITHOUT_POSTGRES

    return [
        Fault("worker killed", killing("worker"), missing),
        Fault("run of a worker killed", killing("run"), missing),
        Fault("machine killed", strikes.kill_machine, missing),
        Fault("byte flipped in the shared folder", strikes.flip_shared, missing),
        Fault("PostgreSQL killed", killing("database_server"), no_postgres),
    ]


def draw_faults(kinds: list[Fault], count: int, rng: random.Random) -> list[Fault]:
    """`count` faults: every kind once in a random order, then again in another."""
    order: list[Fault] = []
    while len(order) < count:
        order += rng.sample(kinds, len(kinds))
    return order[:count]
