"""A fast BLAS is found, loaded before MLX and proved by measuring, each time in a process of its own; the faster of two is
settled once a home and machine."""

import json
import os
import platform
import subprocess
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from tasks.runtime import device
from tasks.runtime.backend import backend, is_linux
from tasks.runtime.children import forked_steps, run_child
from tasks.runtime.home import home


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
    assert not home().exists()


@pytest.mark.parametrize(("before", "keeps"), [(None, False), (1.0, False), (1e9, True)])
def test_the_highest_speed_is_noted_in_a_home(before, keeps, monkeypatch):
    name = "libmkl_rt.so.3"
    machine = device.Device("cpu", "dequantised_f32", "float32", name, 105.0, 2, "Linux x86_64")
    monkeypatch.setattr(device, "measure", lambda: machine)
    home().mkdir()
    path = device.note_path(device.speed_key(name))
    if before:
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(before))
    assert device.run({}, print)["device"]["gflops"] == 105.0
    assert device.noted(device.speed_key(name)) == (before if keeps else 105.0)


@pytest.fixture
def libraries(tmp_path, monkeypatch):
    """Two libraries of an AMD processor, of which OpenBLAS is the faster; and the order in which they were measured."""
    monkeypatch.delenv("TRIAGE_BLAS", raising=False)
    paths = [tmp_path / "libmkl_rt.so.3", tmp_path / "libopenblas.so.0"]
    (tmp_path / "libopenblas.so").symlink_to(paths[1].name)  # the same once more
    for path in paths:
        path.touch()
    speeds = {str(paths[0]): 105.0, str(paths[1]): 170.0}
    measured = []

    def run(command, env, **_):
        measured.append(env["TRIAGE_BLAS"])
        return SimpleNamespace(stdout=f"{speeds[env['TRIAGE_BLAS']] or ''}\n".strip())

    monkeypatch.setattr(device, "is_linux", lambda: True)
    monkeypatch.setattr(device, "chip", lambda: "AMD EPYC, family 25, model 17")
    monkeypatch.setattr(
        device, "_BLAS_PATTERNS", [(tmp_path, "libmkl*"), (tmp_path, "libopenblas*.0"), (tmp_path, "lib*")]
    )
    monkeypatch.setattr(device.subprocess, "run", run)
    return paths, speeds, measured


def first_blas() -> str:
    """The library that a child would load, once forked steps begin."""
    with forked_steps():
        return device.blas_paths()[0].name


MKL, OPENBLAS = "libmkl_rt.so.3", "libopenblas.so.0"


def test_the_faster_blas_is_settled_once_and_a_home_stays_with_it(libraries, monkeypatch):
    paths, speeds, measured = libraries
    assert device.blas_paths() == paths
    with ThreadPoolExecutor() as pool:
        assert set(pool.map(lambda _: first_blas(), range(2))) == {OPENBLAS}
    assert measured == [*speeds, *speeds], "by turns, and by one process"

    speeds[str(paths[0])] = 300.0
    assert first_blas() == OPENBLAS and len(measured) == 4
    monkeypatch.setenv("TRIAGE_BLAS", "/usr/lib/another.so")
    assert device.blas_paths() == [device.Path("/usr/lib/another.so")]


@pytest.mark.parametrize(
    ("chip", "has_trainings", "speed", "expected", "count"),
    [
        ("AMD Ryzen 9", False, 104.0, MKL, 4),
        ("AMD Ryzen 9", False, None, MKL, 4),  # OpenBLAS crashes
        ("AMD Ryzen 9", True, 170.0, MKL, 4),  # with which it was trained
        ("Intel(R) Xeon(R)", False, 170.0, MKL, 0),
    ],
)
def test_homes_with_trainings_and_intel_keep_mkl(chip, has_trainings, speed, expected, count, libraries, monkeypatch):
    paths, speeds, measured = libraries
    speeds[str(paths[1])] = speed
    monkeypatch.setattr(device, "chip", lambda: chip)
    if has_trainings:
        (home() / "experiments" / "demo-1").mkdir(parents=True)
    assert first_blas() == expected and len(measured) == count
    paths[0].unlink()
    assert first_blas() == OPENBLAS, "where MKL is gone"


def test_a_large_gpu_is_not_measured_by_what_it_takes_to_wait_for_it(monkeypatch):
    """Of 14 TFLOP/s at 7.5 GFLOP a product, where to wait for the device takes 5 ms."""
    now = 0.0
    products = []

    def work(count: int) -> None:
        nonlocal now
        products.append(count)
        now += 0.005 + count * 7.5 / 14_000

    monkeypatch.setattr(device.time, "perf_counter", lambda: now)
    assert 7.5 * device.per_second(work, 0.0) < 2_000, "one product a wait"
    assert 13_000 < 7.5 * device.per_second(work, device.SYNC_SECONDS) < 14_000
    assert max(products) == 128 and now < 2


@pytest.mark.parametrize(
    ("backend", "blas", "gflops", "words"),
    [
        ("cpu", "reference", 19.9, ("BLAS 'reference'", "pip install mkl", "libopenblas")),
        ("cpu", "libmkl_rt.so.2", 19.9, ("although libmkl_rt.so.2 is loaded", "busy?")),
        ("cpu", "reference", 20.0, None),
        ("metal", "metal", 1.0, None),
    ],
)
def test_slow_products_give_a_warning_that_says_what_to_do(backend, blas, gflops, words, monkeypatch):
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
