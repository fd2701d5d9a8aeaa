"""Trainings whose process is killed at one place, as the kernel does it, while it holds nearly all that it may."""

import os
import signal
import sys
import time

from tasks.runtime.device import resident_bytes
from tasks.spec import ExperimentSpec
from tasks.tuning import frozen_prefix, job, trainer
from tasks.tuning.memory import budget


def in_prefix(args, emit):
    return _killed(args, emit, frozen_prefix, "_compute")


def in_probe(args, emit):
    return _killed(args, emit, job, "fit")


def in_update(args, emit):
    return _killed(args, emit, trainer, "update_gradients")


def little_in_update(args, emit):
    return _killed(args, emit, trainer, "update_gradients", hungry=False)


def _killed(args, emit, module, name, hungry=True):
    """The real job, which is killed in `module.name` unless its parent has told it to take less."""

    def die(*given, **named):
        held = _take(0.95 * budget(ExperimentSpec.model_validate(args["experiment"]))) if hungry else b""
        time.sleep(1)  # until a heartbeat has told
        os.kill(os.getpid(), signal.SIGKILL)
        return held

    sys.modules["__main__"].HEARTBEAT_SECONDS = 0.2
    if args["choice"] is None:
        setattr(module, name, die)
    return job.run(args, emit)


def _take(wanted):
    held = bytearray(max(0, int(wanted) - resident_bytes()))
    page = os.sysconf("SC_PAGE_SIZE")
    held[::page] = b"x" * len(held[::page])
    return held
