"""The wheel is whole: SQL, grids, prompts and cases are in it, and it runs where there is no checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ANOTHERS = ("PREFECT_", "TRIAGE_", "PYTHON", "VIRTUAL_ENV")


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command in `folder`, as a user without any setting of ours would type it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ANOTHERS)}
    own_values = {"PREFECT_HOME": str(folder / "prefect"), "DO_NOT_TRACK": "1"}
    return subprocess.run(
        list(map(str, command)), cwd=folder, env=environment | own_values, capture_output=True, text=True
    )


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_the_wheel_in_an_empty_environment_runs_a_smoke_sweep_in_another_folder(tmp_path):
    if shutil.which("uv") is None:
        pytest.skip("uv, which builds and installs it, is not here")

    built = run("uv", "build", "--out-dir", tmp_path / "dist", ROOT, folder=tmp_path)
    venv_creation = run("uv", "venv", "--python", sys.executable, tmp_path / "venv", folder=tmp_path)
    if "error sending request" in built.stderr or "Failed to fetch" in built.stderr:
        pytest.skip("the package index cannot be reached")

    assert (built.returncode, venv_creation.returncode) == (0, 0), built.stderr + venv_creation.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    python = tmp_path / "venv" / "bin" / "python"
    installed = run("uv", "pip", "install", "--python", python, f"{wheel}[cpu]", folder=tmp_path)
    if "error sending request" in installed.stderr or "Failed to fetch" in installed.stderr:
        pytest.skip("the package index cannot be reached")

    assert installed.returncode == 0, installed.stderr
    other = tmp_path / "elsewhere"
    other.mkdir()
    where = run(python, "-c", "import flows; print(flows.__file__)", folder=other).stdout
    assert Path(where.strip()).is_relative_to(tmp_path / "venv"), "the wheel's code, not the checkout's"
    parts = "from importlib.resources import files; print([(files('flows.report') / name).is_file() for name in "
    page = run(python, "-c", parts + "('template.html.jinja', 'style.css', 'words.toml')])", folder=other).stdout
    assert page.strip() == "[True, True, True]", "the page of a report"
    triage = python.with_name("triage")
    result = run(triage, "sweep", "smoke", folder=other)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout + result.stderr
    assert result.stdout.splitlines()[-1].startswith(f"8 experiments are in the warehouse: {other / '.triage'}")
    export = run(triage, "export", "tiny-llama-4bit-balanced_safe", other / "exported", "--gguf", folder=other)
    assert export.returncode == 0, export.stderr
    written = {path.name for path in (other / "exported").iterdir()}
    assert {"README.md", "example.py", "example.mjs"} <= written, "the templates of card and examples are in the wheel"
