"""A `triage up` in a home of its own, asked through Prefect's HTTP interface."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request


class Study:
    """A running `triage up` in a home of its own."""

    def __init__(self, home, port):
        self.home = home
        self.port = port
        self.api = f"http://127.0.0.1:{port}/api"
        self.environment = os.environ | {
            "TRIAGE_HOME": str(home), "TRIAGE_WAREHOUSE": str(home / "t.duckdb"), "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_API_URL": self.api, "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
        }  # fmt: skip

    def triage(self, *arguments):
        return [sys.executable, "-m", "flows.cli", *arguments]

    def post(self, path, body):
        request = urllib.request.Request(
            self.api + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        return answer_of(request)

    def deployment(self, name):
        return answer_of(f"{self.api}/deployments/name/{name}")

    def run(self, name, parameters):
        return self.post(f"/deployments/{self.deployment(name)['id']}/create_flow_run", {"parameters": parameters})[
            "id"
        ]

    def state(self, run):
        return answer_of(f"{self.api}/flow_runs/{run}")["state"]["type"]

    def wait(self, run, seconds=240, until=("COMPLETED",)):
        deadline = time.monotonic() + seconds
        while (state := self.state(run)) not in until:
            assert state not in {"FAILED", "CRASHED", "CANCELLED"} - set(until), state
            assert time.monotonic() < deadline, f"still {state}; worker log: {self.log()}"
            time.sleep(1)

    def sweep_in_the_middle(self, **parameters):
        """A sweep of the smoke grid that has begun to train; its id. What was trained here before has checkpoints too."""
        before = self.checkpoints()
        run = self.run("sweep/local", {"grid": "smoke", **parameters})
        self.wait(run, until=("RUNNING",))
        deadline = time.monotonic() + 120

        while self.checkpoints() <= before:
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.2)

        return run

    def checkpoints(self):
        return set((self.home / "experiments").glob("*/checkpoint/[0-9]*"))

    def log(self):
        return (self.home / "logs" / "prefect-worker-default.log").read_text()[-3000:]

    def up(self, *options):
        """Start `triage up` and wait until its worker runs; returns the process, its output as `output_lines`."""
        process = subprocess.Popen(
            self.triage("up", "--port", str(self.port), *options), env=self.environment, stdout=subprocess.PIPE, text=True,
            preexec_fn=_as_at_a_terminal,
        )  # fmt: skip
        process.output_lines = []
        for line in process.stdout:
            process.output_lines.append(line)
            if line.startswith("Worker started"):
                self.worker = int(line.split("process ")[1].split(")")[0])
                break

        assert any(f"http://127.0.0.1:{self.port}" in line for line in process.output_lines), process.output_lines
        return process

    def processes(self, *words):
        """Ids of the running processes of this study whose command and environment hold every word."""
        lines = subprocess.run(["ps", "axeww"], capture_output=True, text=True).stdout.splitlines()
        return [int(p.split()[0]) for p in lines if f"TRIAGE_HOME={self.home}" in p and all(w in p for w in words)]

    def workers(self):
        return self.processes("worker start --pool triage --work-queue default")

    def end(self, process, number=signal.SIGTERM):
        """End `triage up` and see that nothing of it stays."""
        process.send_signal(number)
        assert process.wait(timeout=60) == 0
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


def new_study(home):
    """A study in `home` on a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Study(home, probe.getsockname()[1])
