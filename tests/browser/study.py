"""A `triage up` in a home of its own, asked through Prefect's HTTP interface."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip


def until(answer, seconds, otherwise):
    """What `answer` gives as soon as it is true; after so many seconds a failure that says what `otherwise` gives."""
    deadline = time.monotonic() + seconds
    while not (given := answer()):
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.5)
    return given


class Study:
    """A `triage up` on a port that was free; `process` is the one that runs, and `worker` the id of its worker."""

    def __init__(self, home):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.home = home
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.environment = os.environ | {
            "TRIAGE_HOME": str(home), "TRIAGE_WAREHOUSE": str(home / "t.duckdb"), "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_API_URL": self.api, "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
        }  # fmt: skip

    def triage(self, *arguments):
        return [sys.executable, "-m", "flows.cli", *arguments]

    def post(self, path, body):
        content = json.dumps(body).encode()
        return answer_of(urllib.request.Request(self.api + path, content, {"Content-Type": "application/json"}))

    def deployment(self, name):
        return answer_of(f"{self.api}/deployments/name/{name}")

    def run(self, name, parameters):
        deployment = self.deployment(name)["id"]
        return self.post(f"/deployments/{deployment}/create_flow_run", {"parameters": parameters})["id"]

    def runs(self, name):
        """The flow runs of a name, the newest first."""
        body = {"flow_runs": {"name": {"any_": [name]}}, "sort": "START_TIME_DESC"}
        return self.post("/flow_runs/filter", body)

    def state(self, run):
        return answer_of(f"{self.api}/flow_runs/{run}")["state"]["type"]

    def wait(self, run, seconds=240, until=("COMPLETED",)):
        deadline = time.monotonic() + seconds
        while (state := self.state(run)) not in until:
            assert state not in {"FAILED", "CRASHED", "CANCELLED"} - set(until), state
            assert time.monotonic() < deadline, f"still {state}; worker log: {self.log()}"
            time.sleep(1)

    def sweep_in_the_middle(self, iterations, limit=2):
        """A sweep of the smoke grid that has begun to train; its id. What was trained here before has checkpoints, too."""
        before = self.checkpoints()
        parameters = {"grid": "smoke", "overrides": [f"recipe.iterations={iterations}"], "only": {"limit": limit}}
        run = self.run("sweep/sweep", parameters)
        self.wait(run, until=("RUNNING",))
        until(lambda: self.checkpoints() - before, 120, self.log)
        return run

    def checkpoints(self):
        return set((self.home / "experiments").glob("*/checkpoint/[0-9]*"))

    def log(self):
        return (self.home / "logs" / "prefect-worker-default.log").read_text()[-3000:]

    def up(self, *options):
        """Start `triage up` and wait until its worker runs."""
        self.process = subprocess.Popen(
            self.triage("up", "--port", str(self.port), *options), env=self.environment, stdout=subprocess.PIPE, text=True,
            preexec_fn=_as_at_a_terminal,
        )  # fmt: skip
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("Worker default started"):
                self.worker = int(line.split("process ")[1].split(")")[0])
                break

        assert any(f"http://127.0.0.1:{self.port}" in line for line in lines), lines

    def processes(self, *words):
        """Ids of the running processes of this study whose command and environment hold every word."""
        lines = subprocess.run(["ps", "axeww"], capture_output=True, text=True).stdout.splitlines()
        return [int(p.split()[0]) for p in lines if f"TRIAGE_HOME={self.home}" in p and all(w in p for w in words)]

    def workers(self):
        return self.processes("worker start --pool triage --work-queue default")

    def end(self, number=signal.SIGTERM):
        """End `triage up` and see that nothing of it stays."""
        self.process.send_signal(number)
        assert self.process.wait(timeout=60) == 0
        assert self.processes("prefect") == []
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", self.port)) != 0, "the server still answers"


def answer_of(request):
    """The server's answer; it says 503 while its database is busy, and is asked again, as Prefect's own clients do."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != http.client.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                raise
        time.sleep(1)


def _as_at_a_terminal():
    """Under nohup or in a shell's background job a signal is ignored, and so it would be by whatever the tests start."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
