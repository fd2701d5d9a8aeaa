"""Builds of MLX that cannot work are a sentence with the remedy, before anything runs."""

import os
from ctypes.util import find_library

import pytest

from tasks.runtime import builds, memory
from tasks.runtime.backend import CUDA, installed_version
from tasks.runtime.builds import build_finding, card
from tasks.runtime.children import run_child
from tasks.runtime.errors import BadInput, OutOfMemory, device_error
from tests.place import ROOT, Place

H100 = "NVIDIA H100 80GB HBM3, 580.95.05, 9.0, 81559, 81000"
OLD_DRIVER = "NVIDIA L4, 535.183.01, 8.9, 23034, 22000"
NO_CUDA_13 = "NVIDIA L4, 550.54.14, 8.9, 23034, 22000"
OLD_CARD = "Tesla V100-SXM2-16GB, 580.65.06, 7.0, 16384, 16000"
FULL = "NVIDIA L4, 580.65.06, 8.9, 23034, 512"


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Installs builds of MLX, NVIDIA's driver, and a program that answers as `nvidia-smi` does."""

    def install(*names: str, driver: bool = True, cards: str | None = None) -> None:
        versions = dict.fromkeys(("mlx", *names), "0.32.4")
        monkeypatch.setattr(builds, "installed_version", versions.get)
        monkeypatch.setattr(builds, "is_linux", lambda: True)
        monkeypatch.setattr(builds, "DRIVER", find_library("c") if driver else "libabsent.so.1")
        program = tmp_path / "nvidia-smi"
        program.write_text("#!/bin/sh\n" + (f"echo '{cards}'\n" if cards else "exit 9\n"))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return install


@pytest.mark.parametrize(
    ("names", "driver", "cards", "words"),
    [
        ((), True, None, ["without its library", "run `uv sync`", "extra `cpu`, `cuda` or `cuda13`"]),
        (("mlx-cpu", "mlx-cuda-12"), True, H100, ["mlx-cpu and mlx-cuda-12", "uv pip uninstall mlx-cpu mlx-cuda-12"]),
        (("mlx-cuda-12", "mlx-cuda-13"), True, H100, ["mlx-cuda-12 and mlx-cuda-13", "overwrite"]),
        (("mlx-cuda-12",), False, H100, ["libabsent.so.1 cannot be loaded", "550.54.14 or newer", "`uv sync`"]),
        (("mlx-cuda-12",), True, None, ["`nvidia-smi` reports none", "`uv sync`"]),
        (("mlx-cuda-12",), True, OLD_DRIVER, ["driver 535.183.01 of NVIDIA L4 is too old", "550.54.14 or newer"]),
        (("mlx-cuda-13",), True, NO_CUDA_13, ["too old for mlx-cuda-13", "580 or newer", "the extra `cuda`"]),
        (("mlx-cuda-12",), True, OLD_CARD, ["V100-SXM2-16GB has compute capability 7.0", "needs 7.5"]),
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy_before_a_process_starts(
    names, driver, cards, words, installed, tmp_path
):
    installed(*names, driver=driver, cards=cards)
    finding = build_finding()
    assert finding.level == "error" and all(word in f"{finding.detail}: {finding.remedy}" for word in words)
    with pytest.raises(BadInput) as refused:
        run_child("tasks.runtime.device:run", {}, tmp_path / "step")
    assert finding.remedy in str(refused.value) and not (tmp_path / "step").exists()


@pytest.mark.parametrize(
    ("names", "cards", "level", "words"),
    [
        (("mlx-cpu",), None, "ok", "mlx-cpu"),
        (("mlx-cuda-12",), H100, "ok", "mlx-cuda-12 on NVIDIA H100 80GB HBM3, driver 580.95.05, 84.9 of 85.5 GB free"),
        (("mlx-cuda-12",), NO_CUDA_13, "ok", "experimental"),
        (("mlx-cuda-13",), FULL, "warning", "0.5 of 24.2 GB free"),
    ],
)
def test_a_build_that_works_is_named_and_a_full_gpu_is_a_warning(names, cards, level, words, installed):
    installed(*names, cards=cards)
    finding = build_finding()
    assert (finding.level, bool(finding.remedy)) == (level, level == "warning") and words in finding.detail


def test_a_mac_has_no_builds(monkeypatch):
    monkeypatch.setattr(builds, "is_linux", lambda: False)
    assert build_finding() is None


def test_without_the_program_there_is_no_card(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert card() is None


def test_memory_is_the_gpus_where_it_has_its_own(installed, monkeypatch):
    everything = memory.total_memory()
    builds.card_memory.cache_clear()
    installed("mlx-cuda-12", cards="Small, 580, 8.9, 512, 500")
    assert memory.total_memory() == everything
    monkeypatch.setattr(memory, "backend", lambda: CUDA)
    assert memory.total_memory() == 512 << 20
    builds.card_memory.cache_clear()


@pytest.mark.skipif(installed_version("mlx-cpu") is None, reason="needs the build for the CPU")
@pytest.mark.parametrize("command", [["sweep", "smoke"], ["bench", "train", "--model", "tiny-llama"], ["doctor"]])
def test_two_builds_that_are_installed_end_a_command_in_a_sentence(command, tmp_path):
    """As their distributions say: the file of the other one is there."""
    info = tmp_path / "site" / "mlx_cuda_12-0.32.4.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mlx-cuda-12\nVersion: 0.32.4\n")
    path = f"{ROOT}{os.pathsep}{tmp_path / 'site'}"
    result = Place(tmp_path / "place").run(*command, PYTHONPATH=path, HF_HUB_OFFLINE="1", PIP_NO_INDEX="1")
    sentence = result.stdout if command == ["doctor"] else result.stderr
    assert "mlx-cpu and mlx-cuda-12 are both installed" in sentence.lower() and "uv pip uninstall" in sentence
    assert result.returncode == (1 if command == ["doctor"] else 2) and "Traceback" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("CUDA driver version is insufficient for CUDA runtime version", BadInput),
        ("cudaMallocAsync(&data, size, stream) failed: out of memory", OutOfMemory),
        ("[malloc] Unable to allocate 1073741824 bytes.", OutOfMemory),
    ],
)
def test_what_cuda_says_is_recognised(text, error):
    assert type(device_error(text)) is error and text in str(device_error(text))
