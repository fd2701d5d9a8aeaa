"""Each pinned version has a wheel for every machine that the README names: nothing is ever built from source there."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BACKEND = {
    "aarch64-apple-darwin": {"mlx", "mlx-metal", "mlx-lm"},
    "x86_64-apple-darwin": set(),  # there is none: enough for `triage doctor` to say so
    "x86_64-manylinux_2_35": {"mlx", "mlx-cpu", "mlx-lm", "mkl"},
}


def requirements() -> tuple[list[str], list[str]]:
    """What the project and its tests need, and the pins."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [*settings["project"]["dependencies"], *settings["dependency-groups"]["dev"]]
    return needed, settings["tool"]["uv"]["constraint-dependencies"]


@pytest.mark.nightly
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("platform", BACKEND)
def test_every_pin_resolves_to_wheels(platform, python, tmp_path):
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not on PATH")
    needed, pins = requirements()
    (tmp_path / "needed.in").write_text("\n".join(needed))
    (tmp_path / "pins.txt").write_text("\n".join(pins))
    compiled = subprocess.run(
        [uv, "pip", "compile", "needed.in", "--constraint", "pins.txt", "--only-binary", ":all:", "--no-header",
         "--no-annotate", "--python-version", python, "--python-platform", platform],
        cwd=tmp_path, env=os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}, capture_output=True, text=True,
    )  # fmt: skip
    if "Failed to fetch" in compiled.stderr or "Could not connect" in compiled.stderr:
        pytest.skip("the package index cannot be reached")
    assert compiled.returncode == 0, compiled.stderr
    resolved = set(re.findall(r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==", compiled.stdout, re.MULTILINE))
    backend = {name for name in resolved if name.startswith(("mlx", "mkl"))}
    assert backend == BACKEND[platform]
    assert resolved <= {re.match(r"[A-Za-z0-9._-]+", pin)[0].lower() for pin in pins}, "no version is left open"
