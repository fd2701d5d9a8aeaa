"""A fast BLAS is found, loaded before MLX and proved by measuring, each time in a process of its own."""

import pytest

from tasks.runtime import device
from tasks.runtime.child import run_child

REFERENCE = "none"
pytestmark = pytest.mark.skipif(device.backend() == "metal", reason="Apple Silicon computes with Metal")


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Measures in a fresh process with TRIAGE_BLAS set to a value, or unset."""

    def run(blas: str | None) -> dict:
        monkeypatch.delenv("TRIAGE_BLAS", raising=False)
        return run_child("tests.runtime.steps:measure", {}, tmp_path, environment={"TRIAGE_BLAS": blas} if blas else {})

    return run


def test_the_blas_that_is_loaded_is_several_times_faster_than_the_wheels_own(measured):
    fast, slow = measured(None), measured(REFERENCE)
    assert slow["blas"] == "reference" and fast["blas"] != "reference"
    assert fast["gflops"] > 4 * slow["gflops"]
    assert fast["warning"] is None


def test_slow_products_give_a_warning_that_says_what_to_install(measured):
    warning = measured(REFERENCE)["warning"]
    assert "BLAS 'reference'" in warning and "pip install mkl" in warning and "libopenblas" in warning


@pytest.mark.parametrize("name", ["/no/such/libblas.so", __file__])
def test_a_named_library_that_cannot_be_loaded_warns_and_does_not_crash(name, measured):
    found = measured(name)
    assert found["blas"] == "reference" and name in found["warning"]


def test_a_device_is_described_by_what_decides_its_numbers(measured):
    found = measured(None)
    assert (found["backend"], found["compute_path"], found["compute_dtype"]) == ("cpu", "dequantised_f32", "float32")
    assert found["threads"] >= 1 and found["machine"].startswith("Linux")
    assert set(device.versions()) == {"mlx", "mlx-lm"}


def test_memory_figures_are_in_bytes():
    assert 1e6 < device.resident_bytes() <= 1.5 * device.peak_resident_bytes() < 1.5 * device.total_memory()
