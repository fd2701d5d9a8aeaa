"""Trainings whose process is killed at one place, as the kernel does it: nearly all of them hold nearly all they may."""

import os
import signal
import time
from pathlib import Path

from tasks.runtime.device import resident_bytes
from tasks.runtime.events import Heartbeat, TrainingReport
from tasks.spec import ExperimentSpec
from tasks.tuning import job, step
from tasks.tuning.memory import budget


def after_checkpoint(args, emit):
    """The real job, which is killed in the first update after its first checkpoint, and not again."""
    begins = not list(Path(args["folder"]).glob("checkpoint/[0-9]*"))

    def die(event):
        emit(event)
        if begins and isinstance(event, TrainingReport) and list(Path(args["folder"]).glob("checkpoint/[0-9]*")):
            os.kill(os.getpid(), signal.SIGKILL)

    return job.run(args, die)


def in_update(args, emit):
    """The real job, which is killed in its first update unless its parent has told it to take less."""

    def die(*positional, **named):
        held_arrays = _take(0.95 * budget(ExperimentSpec.model_validate(args["experiment"])))
        for _ in range(2):  # the next one may come too late, and one that was read before be written between
            emit(Heartbeat(resident_bytes()))
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
        return held_arrays

    if args["choice"] is None:
        step.update_gradients = die
    return job.run(args, emit)


def _take(byte_count):
    """Memory, until the process holds so much: what was freed before may be given again."""
    held_arrays = []
    page = os.sysconf("SC_PAGE_SIZE")
    while resident_bytes() < byte_count:
        held_arrays.append(bytearray(16 << 20))
        held_arrays[-1][::page] = b"x" * len(held_arrays[-1][::page])
    return held_arrays
