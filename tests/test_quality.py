"""The code is as its own configuration demands."""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("tool", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]])
def test_linter_formatter_and_type_checker_have_nothing_to_say(tool):
    result = subprocess.run([sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]


def test_every_distribution_that_the_project_needs_is_pinned_at_the_version_that_is_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pinned = [Requirement(line) for line in settings["tool"]["uv"]["constraint-dependencies"]]
    pins = {canonicalize_name(r.name): str(r.specifier) for r in pinned if not r.marker or r.marker.evaluate()}
    groups = settings["dependency-groups"].values()
    needed = needed_here([*settings["project"]["dependencies"], *(line for group in groups for line in group)])
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
