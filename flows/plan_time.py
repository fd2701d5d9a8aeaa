"""How long the steps of a sweep take on a machine: operations (flows/plan_operations.py) by speed.

The speed is that of a matrix product, measured in a child process, times the share of it that each
step reached when the stored demo was run. Figures to plan with: a busy machine takes longer.
"""

from __future__ import annotations

import contextlib
from dataclasses import astuple, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks.runtime.backend import backend
from tasks.runtime.children import run_child
from tasks.runtime.errors import TriageError


@dataclass(frozen=True)
class Steps:
    """One figure for each kind of work: operations, operations a second, or seconds.

    `preparing`: activations of the blocks below the first trained one, once a variant; `scoring`:
    each set once, by trained and by untuned models; `dropout`: the Monte Carlo passes.
    """

    preparing: float = 0.0
    training: float = 0.0
    scoring: float = 0.0
    dropout: float = 0.0

    def __add__(self, other: Steps) -> Steps:
        return Steps(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def at(self, speeds: Steps) -> Steps:
        """Seconds of so many operations."""
        return Steps(*(a / b for a, b in zip(astuple(self), astuple(speeds), strict=True)))

    @property
    def total(self) -> float:
        return sum(astuple(self))


# Of the speed of a matrix product: the steps of the stored demo, on two cores with MKL.
REACHED = Steps(preparing=0.62, training=0.51, scoring=0.52, dropout=0.47)


@dataclass(frozen=True)
class MachineSpeeds:
    """A machine and its operations a second in each step."""

    name: str
    speeds: Steps

    @classmethod
    def of(cls, name: str, gflops: float) -> MachineSpeeds:
        """A machine whose matrix products run at `gflops`."""
        return cls(name, Steps(*(share * gflops * 1e9 for share in astuple(REACHED))))


OTHERS = (MachineSpeeds.of("two Linux cores, MKL, 288 GFLOP/s", 288),)
NOT_MEASURED = ("Mac (Metal)", "NVIDIA GPU (CUDA)")


def assumed_speeds() -> Steps:
    """Operations a second without a measurement: one figure for every step of this backend."""
    return Steps(*[backend().planned_gflops * 1e9] * 4)


def assumed_machine() -> MachineSpeeds:
    """This machine, where it is not measured."""
    return MachineSpeeds(
        f"this machine, not measured: assumed for {backend().name}", assumed_speeds()
    )


def measured_machine() -> MachineSpeeds | None:
    """This machine, from a probe of some seconds; None where it does not tell.

    Only where steps run as those behind REACHED: in float32 on a CPU.
    """
    if not backend().cpu_kernels:
        return None
    with TemporaryDirectory() as folder, contextlib.suppress(TriageError):
        gflops = run_child("tasks.runtime.device:run_speed", {}, Path(folder))["gflops"]
        return MachineSpeeds.of(f"this machine, {gflops:.0f} GFLOP/s", gflops)
    return None
