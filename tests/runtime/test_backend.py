"""The backend of a machine, what TRIAGE_BACKEND makes of it, and that ids of earlier studies are as they were."""

import platform
import sys
from types import SimpleNamespace

import pytest

from flows.selection import check, select
from tasks import identity
from tasks.runtime import backend as backends
from tasks.runtime import device
from tasks.runtime.backend import CPU, CPU_PACKED, CUDA, METAL, backend, installed_version
from tasks.runtime.errors import BadInput
from tasks.scoring.baselines import zero_shot_id
from tasks.tuning import rows
from tests.test_frozen_ids import DATASET, VERSIONS, WEIGHTS
from tests.test_spec import experiment

LINUX = ("linux", "x86_64")
MAC = ("darwin", "arm64")
INTEL_MAC = ("darwin", "x86_64")


@pytest.fixture
def on(monkeypatch, tmp_path):

    def become(
        machine: tuple[str, str], requested: str | None = None, cuda: bool = False, chip: str = "Apple M4 Max"
    ) -> None:
        system, processor = machine
        monkeypatch.setattr(device, "chip", lambda: chip)
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setattr(platform, "machine", lambda: processor)
        monkeypatch.setattr(backends, "NVIDIA_DEVICE", tmp_path if cuda else tmp_path / "absent")
        monkeypatch.setattr(backends, "installed_version", lambda package: "0.32.4" if cuda else None)
        monkeypatch.delenv("TRIAGE_BACKEND", raising=False)
        if requested is not None:
            monkeypatch.setenv("TRIAGE_BACKEND", requested)

    return become


@pytest.mark.parametrize(
    ("machine", "requested", "cuda", "expected"),
    [
        (LINUX, None, False, CPU),
        (LINUX, "", False, CPU),
        (LINUX, None, True, CUDA),
        (LINUX, "cpu", True, CPU),
        (LINUX, "cpu-packed", False, CPU_PACKED),
        (MAC, None, False, METAL),
        (MAC, "cpu", False, CPU),
        (INTEL_MAC, None, False, CPU),
    ],
)
def test_a_machine_gets_its_best_backend_unless_another_is_named(on, machine, requested, cuda, expected):
    on(machine, requested, cuda)
    assert backend() is expected
    assert backends.can_fork() is (machine == LINUX and expected is not CUDA)


@pytest.mark.parametrize(
    ("machine", "requested", "choices", "best"),
    [
        (INTEL_MAC, "metal", "cpu, cpu-packed", "cpu"),
        (LINUX, "cuda", "cpu, cpu-packed", "cpu"),
        (MAC, "cuda", "cpu, metal, cpu-packed", "metal"),
    ],
)
def test_an_unknown_or_absent_device_is_a_sentence_with_the_choices(on, machine, requested, choices, best):
    on(machine, requested)
    with pytest.raises(BadInput, match=f"^TRIAGE_BACKEND = '{requested}' .* give one of {choices}, .*: {best} fits"):
        backend()


def ids() -> list[str]:
    return [
        identity.training_from(experiment(), WEIGHTS, DATASET),
        zero_shot_id(WEIGHTS, "p", VERSIONS, backend()),
        rows.settings_digest(experiment(), DATASET),
    ]


def test_studies_of_before_keep_their_ids_on_linux_and_on_a_mac_and_new_backends_have_ids_of_their_own(on, monkeypatch):
    for module in (identity, rows):
        monkeypatch.setattr(module, "versions", lambda: VERSIONS)
        monkeypatch.setattr(module, "load_prompt", lambda _: SimpleNamespace(digest="p"))
        monkeypatch.setattr(module, "ENGINE_VERSION", 1)

    found = []
    for become in ((LINUX, None), (MAC, None), (LINUX, "cpu-packed"), (LINUX, None, True)):
        on(*become)
        found += ids()

    # Computed before there was a choice of backends.
    of_before = ["458f69dabbc2", "6ac164f4c305", "957949a94f4a", "0ca00b6f6248", "25e9be39e87d", "9386f84482fe"]
    assert [id.rpartition("-")[2] for id in found[:6]] == of_before
    assert len(set(found)) == 12

    # An M5 multiplies in other units, which round otherwise; its processor is as any.
    of_chips = []
    monkeypatch.setattr("tasks.runtime.backend.os_version", lambda: "macOS 26.2")
    for chip in ("Apple M1", "Apple M5", "Apple M10 Pro"):
        on(MAC, chip=chip)
        of_chips.append(ids())
        on(MAC, "cpu", chip=chip)
        assert ids() == found[:3]
    assert of_chips[0] == found[3:6] and of_chips[1] == of_chips[2]
    assert set(of_chips[1][:2]).isdisjoint(found)


def test_where_mlx_is_missing_as_on_an_intel_mac_a_sentence_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(backends, "installed_version", lambda package: None)
    with pytest.raises(BadInput, match="a Mac with Apple Silicon and a Python built for it; `triage doctor`"):
        backends.versions()


@pytest.mark.parametrize(
    ("packages", "words"),
    [
        ([], ["without its library", "`uv sync`", "extra `cpu`"]),
        (["mlx-cpu", "mlx-cuda-12"], ["mlx-cpu and mlx-cuda-12 are both installed", "uv pip uninstall"]),
        (["mlx-cpu"], None),
        (["mlx-cuda-13"], None),
    ],
)
def test_mlx_without_its_library_or_with_two_is_refused(packages, words, on, monkeypatch):
    on(LINUX)
    versions = dict.fromkeys(("mlx", *packages), "0.32.4")
    monkeypatch.setattr(backends, "installed_version", versions.get)
    if words is None:
        backends.refuse_unusable_mlx()
        return
    with pytest.raises(BadInput) as refused:
        backends.refuse_unusable_mlx()
    assert all(word in str(refused.value) for word in words)


@pytest.mark.skipif(installed_version("mlx-cpu") is None, reason="needs the build for the CPU")
def test_two_libraries_of_mlx_are_refused_by_what_their_distributions_say_before_a_sweep(tmp_path, monkeypatch):
    info = tmp_path / "site" / "mlx_cuda_12-0.32.4.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mlx-cuda-12\nVersion: 0.32.4\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(BadInput, match="mlx-cpu and mlx-cuda-12 are both installed.*uv pip uninstall"):
        check(select("smoke"))
