"""Ctrl-C while `triage` is still importing its commands."""

import os
import signal
import subprocess
import sys

import pytest

from tests.place import ROOT

INTERRUPTS = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("typer", ["--help"]), ("rich", ["--help"]), ("pydantic", ["sweep", "smoke", "--plan"])],
)
def test_ctrl_c_while_modules_are_imported_is_a_sentence(module, arguments, tmp_path):
    (tmp_path / f"{module}.py").write_text(INTERRUPTS)
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    result = subprocess.run(
        [sys.executable, "-P", "-c", "from flows.cli.start import main; main()", *arguments],
        env=os.environ | {"PYTHONPATH": path}, cwd=tmp_path, capture_output=True, text=True, timeout=50,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert (result.returncode, result.stderr.strip(), result.stdout) == (130, "triage: Interrupted.", "")
