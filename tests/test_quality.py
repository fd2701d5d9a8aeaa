"""The code is as its own configuration demands, and each pinned version has a wheel for every machine that the README names."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
MAC = "aarch64-apple-darwin"
INTEL_MAC = "x86_64-apple-darwin"
LINUX = "x86_64-manylinux_2_35"
ARM_LINUX = "aarch64-manylinux_2_35"
# Per platform and extra: the packages that compute.
BACKEND = {
    (MAC, "cpu"): {"mlx", "mlx-metal", "mlx-lm"},
    (INTEL_MAC, "cpu"): set(),  # there is none: enough for `triage doctor` to say so
    (LINUX, "cpu"): {"mlx", "mlx-cpu", "mlx-lm", "mkl"},
    (ARM_LINUX, "cpu"): {"mlx", "mlx-cpu", "mlx-lm"},
    (LINUX, "cuda"): {"mlx", "mlx-cuda-12", "mlx-lm", "mkl"},
    (LINUX, "cuda13"): {"mlx", "mlx-cuda-13", "mlx-lm", "mkl"},
}
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("tool", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]])
def test_linter_formatter_and_type_checker_have_nothing_to_say(tool):
    result = subprocess.run([sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]


def test_every_distribution_that_the_project_needs_is_pinned_at_the_version_that_is_installed():
    pinned = [Requirement(line) for line in SETTINGS["tool"]["uv"]["constraint-dependencies"]]
    pins = {canonicalize_name(r.name): str(r.specifier) for r in pinned if not r.marker or r.marker.evaluate()}
    groups = SETTINGS["dependency-groups"].values()
    needed = needed_here([*SETTINGS["project"]["dependencies"], *(line for group in groups for line in group)])
    assert len(needed) > 100 and "wrapt" in needed, "what is needed indirectly is found too"
    assert {name: f"=={metadata.version(name)}" for name in needed} == {name: pins.get(name) for name in needed}


def needed_here(lines: list[str]) -> set[str]:
    """Names of the installed distributions that these requirements lead to on this machine, themselves included."""
    waiting = [(Requirement(line), "") for line in lines]
    calls = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for expected in {"", *requirement.extras}:
            if (name, expected) not in calls:
                calls.add((name, expected))
                waiting += [(Requirement(line), expected) for line in metadata.requires(name) or []]

    return {name for name, _ in calls}


def test_uv_installs_the_cpu_build_unless_told_otherwise_and_never_two_builds():
    """Two of them overwrite each other's library."""
    extras = SETTINGS["project"]["optional-dependencies"]
    uv = SETTINGS["tool"]["uv"]
    assert SETTINGS["dependency-groups"]["cpu"] == extras["cpu"]
    assert {"dev", "cpu"} == set(uv["default-groups"])
    builds = [{"extra": name} for name in extras]
    cuda = [build for build in builds if build["extra"] != "cpu"]
    assert uv["conflicts"] == [builds, [{"group": "cpu"}, *cuda]]


def compiled(folder: Path, platform: str, extra: str, python: str, macos: str) -> subprocess.CompletedProcess[str]:
    """What uv makes of the pins for a machine, with wheels alone."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not on PATH")

    project = SETTINGS["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"][extra], *SETTINGS["dependency-groups"]["dev"]]
    (folder / "needed.in").write_text("\n".join(needed))
    (folder / "pins.txt").write_text("\n".join(SETTINGS["tool"]["uv"]["constraint-dependencies"]))
    result = subprocess.run(
        [uv, "pip", "compile", "needed.in", "--constraint", "pins.txt", "--only-binary", ":all:", "--no-header",
         "--no-annotate", "--python-version", python, "--python-platform", platform],
        cwd=folder, env=os.environ | {"MACOSX_DEPLOYMENT_TARGET": macos}, capture_output=True, text=True,
    )  # fmt: skip
    if "Failed to fetch" in result.stderr or "Could not connect" in result.stderr:
        pytest.skip("the package index cannot be reached")
    return result


@pytest.mark.nightly
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize(("platform", "extra"), BACKEND)
def test_every_pin_resolves_to_wheels(platform, extra, python, tmp_path):
    result = compiled(tmp_path, platform, extra, python, macos="14.0")
    assert result.returncode == 0, result.stderr
    resolved = set(re.findall(r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==", result.stdout, re.MULTILINE))
    backend = {name for name in resolved if name.startswith(("mlx", "mkl"))}
    assert backend == BACKEND[platform, extra]
    pins = SETTINGS["tool"]["uv"]["constraint-dependencies"]
    assert resolved <= {re.match(r"[A-Za-z0-9._-]+", pin)[0].lower() for pin in pins}, "no version is left open"


@pytest.mark.nightly
def test_on_macos_13_uv_names_the_package_and_the_macos_that_it_needs(tmp_path):
    result = compiled(tmp_path, MAC, "cpu", "3.13", macos="13.0")
    assert result.returncode == 1 and "mlx" in result.stderr and "`macosx_14_0_arm64`" in result.stderr
