"""A fast BLAS is found, loaded before MLX and proved by measuring, each time in a process of its own."""

import os
import platform
import subprocess

import pytest

from tasks.runtime import device
from tasks.runtime.backend import backend, is_linux
from tasks.runtime.children import run_child


@pytest.mark.skipif(not is_linux() or backend().on_gpu, reason="elsewhere TRIAGE_BLAS is not read")
def test_a_blas_is_found_and_one_that_cannot_be_loaded_is_said_and_the_wheels_own_used(tmp_path, monkeypatch):
    def measured() -> dict:
        return run_child("tests.runtime.programs.steps:measure", {}, tmp_path)

    monkeypatch.delenv("TRIAGE_BLAS", raising=False)
    fast = measured()
    monkeypatch.setenv("TRIAGE_BLAS", "/no/such/libblas.so")
    slow = measured()
    assert slow["blas"] == "reference" != fast["blas"] and "/no/such/libblas.so" in slow["warning"]
    assert (fast["backend"], fast["compute_path"], fast["compute_dtype"]) == ("cpu", "dequantised_f32", "float32")
    assert fast["threads"] >= 1 and fast["machine"].startswith(platform.system())


@pytest.mark.parametrize(
    ("backend", "blas", "gflops", "words"),
    [
        ("cpu", "reference", 19.9, ("BLAS 'reference'", "pip install mkl", "libopenblas")),
        ("cpu", "libmkl_rt.so.2", 19.9, ("although libmkl_rt.so.2 is loaded", "busy?")),
        ("cpu", "reference", 20.0, None),
        ("metal", "metal", 1.0, None),
    ],
)
def test_slow_products_give_a_warning_that_says_what_to_install_or_that_the_machine_is_busy(
    backend, blas, gflops, words, monkeypatch
):
    monkeypatch.delenv("TRIAGE_BLAS", raising=False)
    machine = device.Device(backend, "dequantised_f32", "float32", blas, gflops, 2, "Linux x86_64")
    warning = device.slow_blas_warning(machine)
    assert warning is None if words is None else all(word in warning for word in words)


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/user/job", {"user/job/memory.max": "max", "user/memory.max": "1000000"}, 1_000_000),
        ("4:memory:/job\n0::/somewhere/else", {"memory.max": "2000000"}, 2_000_000),
        ("0::/", {"memory.max": "9223372036854771712"}, None),
        (None, {}, None),
    ],
)
def test_memory_is_that_of_the_machine_or_of_the_container_if_less(groups, files, limit, tmp_path):
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    if groups:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)

    physical = device.total_memory(tmp_path / "nothing")
    assert physical > max(1 << 28, device.peak_resident_bytes())
    assert device.total_memory(tmp_path) == (limit or physical)


def test_on_a_mac_memory_is_the_footprint_of_now_and_its_peak(monkeypatch):
    """What macOS ends a process by: the resident size lacks what is compressed or held for the GPU."""

    class Library:
        def proc_pid_rusage(self, pid, flavour, usage):
            assert (pid, flavour) == (os.getpid(), 4)
            usage._obj[2 + 7] = 3_000
            usage._obj[2 + 28] = 5_000
            return 0

    monkeypatch.setattr(device, "is_mac", lambda: True)
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: Library())
    assert (device.resident_bytes(), device.peak_resident_bytes()) == (3_000, 5_000)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("model name\t: AMD EPYC\ncpu family\t: 26\nmodel\t\t: 2\nmodel\t\t: 9\n", "AMD EPYC, family 26, model 2"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", platform.machine()),
    ],
)
def test_a_processor_has_the_name_of_its_maker_or_of_its_kind(text, name, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(device, "is_mac", lambda: False)
    (tmp_path / "cpuinfo").write_text(text)
    assert device.chip.__wrapped__() == name
    chip = subprocess.CompletedProcess((), 0, "Apple M2 Pro\n")
    monkeypatch.setattr(device, "is_mac", lambda: True)
    monkeypatch.setattr(device.subprocess, "run", lambda command, **_: chip)
    assert device.chip.__wrapped__() == "Apple M2 Pro"
