"""A fast BLAS is found, loaded before MLX and proved by measuring, each time in a process of its own."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.runtime import device
from tasks.runtime.backend import backend, is_linux
from tasks.runtime.children import run_child


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Measures in a fresh process with TRIAGE_BLAS set to a value, or unset."""
    if backend().on_gpu:
        pytest.skip("a GPU needs no BLAS")

    def run(blas: str | None) -> dict:
        monkeypatch.delenv("TRIAGE_BLAS", raising=False)
        if blas:
            monkeypatch.setenv("TRIAGE_BLAS", blas)
        return run_child("tests.runtime.programs.steps:measure", {}, tmp_path)

    return run


@pytest.mark.skipif(not is_linux(), reason="elsewhere TRIAGE_BLAS is not read")
def test_the_blas_that_is_loaded_is_faster_than_the_wheels_own(measured):
    fast = measured(None)
    slow = measured("/no/such/libblas.so")
    assert slow["blas"] == "reference" and "/no/such/libblas.so" in slow["warning"]
    assert fast["blas"] != "reference" and fast["gflops"] > slow["gflops"]
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


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak of one program")
def test_the_peak_is_that_of_a_program_and_not_of_who_started_it():
    code = "from tasks.runtime.device import peak_resident_bytes; print(peak_resident_bytes())"
    by_large = f"held = b'x' * 600_000_000; import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    result = subprocess.run([sys.executable, "-c", by_large], capture_output=True, text=True, check=True)
    assert 1e6 < int(result.stdout) < 300e6


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
        ("processor\t: 0\nmodel name\t: another\n", "another"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", platform.machine()),
        (None, platform.machine()),
    ],
)
def test_a_processor_has_the_name_of_its_maker_or_of_its_kind(text, name, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(device, "is_mac", lambda: False)
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert device.chip.__wrapped__() == name


def test_a_mac_is_named_by_its_chip_or_where_the_system_does_not_say_by_its_kind(monkeypatch):
    def answer(command, **_):
        assert command == ("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string")
        return subprocess.CompletedProcess(command, 0, "Apple M2 Pro\n")

    def no_program(command, **_):
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(device, "is_mac", lambda: True)
    for run, name in ((answer, "Apple M2 Pro"), (no_program, platform.machine())):
        monkeypatch.setattr(device.subprocess, "run", run)
        assert device.chip.__wrapped__() == name
