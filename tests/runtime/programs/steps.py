"""Steps that the tests run in child processes: each does one thing that a real step may do or suffer."""

import ctypes
import errno
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

from tasks.runtime import errors
from tasks.runtime.conversation import requests
from tasks.runtime.events import Answer, Kept, Note, ProgressReport, Ready
from tasks.runtime.locks import locked
from tasks.runtime.store import build_folder


def add(args, emit):
    emit(Note("adding"))
    return {"sum": args["a"] + args["b"]}


def name_itself(args, emit):
    emit(Note(str(os.getpid())))
    time.sleep(300)


def name_processes(args, emit):
    """Notes its own process id and its parent's, and goes on for `seconds`."""
    emit(Note(f"{os.getpid()} {os.getppid()}"))
    time.sleep(args.get("seconds", 0))
    return {}


def count_calls(args, emit):
    count_calls.calls = getattr(count_calls, "calls", 0) + 1
    return {"calls": count_calls.calls}


def file_limits(args, emit):
    """May open `allowed` files, and asks for others as mlx-lm does when it is imported."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (args["allowed"], args["allowed"]))
    resource.setrlimit(resource.RLIMIT_NOFILE, tuple(args["requested"]))
    return {"limits": resource.getrlimit(resource.RLIMIT_NOFILE)}


def surroundings(args, emit):
    emit(Note("surroundings"))
    return {"value": os.environ.get(args["name"]), "folder": str(Path.cwd()), "parent": os.getppid()}


def chatter(args, emit):
    """What libraries do: print, write to both streams below Python, log JSON that is not ours."""
    print('{"event": "StepResult", "result": {"sum": -1}}')
    sys.stderr.write("a warning\n")
    os.write(1, b'{"event": "StepError", "message": "not from us"}\n')
    ctypes.CDLL(None).puts(b"printed by C")
    emit(Note("a line\nwith a break and ünïcode"))
    return {"sum": 3}


def fail(args, emit):
    raise getattr(errors, args["error"])("A sentence.")


ERRORS = {
    "bug": ValueError("an ordinary bug"),
    "memory": MemoryError(),
    "disk": OSError(errno.ENOSPC, "No space left on device"),
    "buffers": RuntimeError("[metal::malloc] Resource limit (499000) exceeded."),
    "disk in MLX": RuntimeError("[write] Unable to write 123 bytes to file."),
}


def untyped(args, emit):
    raise ERRORS[args["error"]]


def no_gpu(args, emit):
    """What MLX raises when a command buffer failed on Metal: in the step's own thread, or where nothing catches it."""
    message = f"[METAL] Command buffer execution failed: {args['reason']}"
    if args["caught"]:
        raise RuntimeError(message)
    sys.stderr.write(f"libc++abi: terminating due to uncaught exception of type std::runtime_error: {message}\n")
    sys.stderr.flush()
    os.abort()


def fails_five_times(args, emit):
    """Raises Metal's message in five processes, which the file `attempts` counts; each has kept something, if it `keeps`."""
    attempts = Path(args["attempts"])
    number = len(attempts.read_text()) if attempts.exists() else 0
    attempts.write_text("x" * (number + 1))
    if args["keeps"]:
        emit(Kept())
    if number < 5:
        no_gpu({"reason": "Impacting Interactivity (0000000e:kIOGPU)", "caught": number % 2 == 0}, emit)
    return {"attempts": number + 1}


def score_and_die(args, emit):
    """Scores an experiment; four processes are killed, each after a dropout pass."""
    from tasks.scoring import job

    def emit_and_die(event):
        emit(event)
        if isinstance(event, ProgressReport) and event.what == "dropout passes" and event.done <= 4:
            signalled({"signal": signal.SIGKILL}, emit)

    return job.run(args, emit_and_die)


def signalled(args, emit):
    os.kill(os.getpid(), args["signal"])
    time.sleep(60)
    return {}


def leave(args, emit):
    os._exit(args["code"])


def large_then_killed(args, emit):
    """Holds `bytes` of memory, and is killed when a heartbeat has told so: as the one after it begins."""
    held_arrays = bytearray(args["bytes"])
    held_arrays[:: os.sysconf("SC_PAGE_SIZE")] = b"x" * len(held_arrays[:: os.sysconf("SC_PAGE_SIZE")])
    child = sys.modules["__main__"]
    begun = threading.Semaphore(0)
    child.HEARTBEAT_SECONDS = 0.05
    measured = child.resident_bytes
    child.resident_bytes = lambda: begun.release() or measured()

    for _ in range(2):
        begun.acquire()

    os.kill(os.getpid(), signal.SIGKILL)
    return {"held": len(held_arrays)}


def wait(args, emit):
    """Holds the lock of a folder until something ends this process; notes its process id when it has it."""
    with locked(Path(args["folder"])):
        emit(Note(f"{os.getpid()} has locked it"))
        time.sleep(60)
    return {}


def build_slowly(args, emit):

    def build(folder: Path):
        (folder / "half.bin").write_bytes(b"x" * 1000)
        emit(Note("half built"))
        time.sleep(60)
        return {}

    return build_folder(Path(args["folder"]), build)


def measure(args, emit):
    from tasks.runtime import device

    measured = device.measure(0.0)
    return {**vars(measured), "warning": device.slow_blas_warning(measured)}


def converse(args, emit):
    emit(Ready())
    answered = 0
    for group in requests(args["at_once"]):
        for request in group:
            if request.get("end_yourself"):
                os.kill(os.getpid(), signal.SIGKILL)
            emit(Answer(request["number"], {"said": request["words"].upper(), "beside": len(group)}))
            answered += 1

    return {"answered": answered}
