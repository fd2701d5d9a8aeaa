"""Unit files that let a machine join its fleet by itself: of systemd, or of launchd on a Mac.

A file holds the variables that this shell names, but for credentials: those belong into a file that
only its owner may read.
"""

from __future__ import annotations

import os
import plistlib
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tasks.runtime.backend import is_mac
from tasks.runtime.errors import BadInput
from tasks.runtime.files import write_atomic
from tasks.runtime.home import home, named_path
from tasks.runtime.shared import VARIABLE as SHARED
from tasks.runtime.shared import shared_place, without_password

SECRETS_FILE = ".config/triage/environment"  # in the user's folder: NAME=value, a line each
PATHS = (SHARED, "TRIAGE_WAREHOUSE", "HF_HOME", "PREFECT_HOME")
PASSED = (
    "TRIAGE_ACCELERATOR",
    "TRIAGE_BACKEND",
    "TRIAGE_BLAS",
    "TRIAGE_PREFIX_BYTES",
    *PATHS,
)
LEAVE_SECONDS = 60  # which a worker has to leave the pool
# Of an agent of launchd: the file of secrets, then the command. It reads lines NAME=VALUE as text,
# as systemd does with its EnvironmentFile: a password may hold what means something to a shell.
READ_AND_RUN = """\
secrets=$1; shift
if [ -r "$secrets" ]; then
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in *=*) ;; *) continue ;; esac
    name=${line%%=*}; value=${line#*=}
    case $name in "" | [0-9]* | *[!A-Za-z0-9_]*) continue ;; esac
    case $value in \\"*\\" | \\'*\\') value=${value#?}; value=${value%?} ;; esac
    export "$name=$value"
  done < "$secrets"
fi
exec "$@"
"""
REFUSED = (
    "With error 125, log in at the screen of this Mac first (the agent starts at login, not at "
    "boot; without a screen, switch on automatic login). With another one, repeat in a minute."
)


@dataclass(frozen=True)
class Unit:
    """A unit file, and the commands that make the system use it."""

    path: Path
    text: str
    commands: tuple[str, ...]


def install(api: str, pool: str) -> Unit:
    """Write the unit file of this system, which the user's own commands then start.

    Raises BadInput where the command `triage` is not installed, the shared folder's address holds a
    password, or the file may not be written.
    """
    place = shared_place()
    if place != without_password(place):
        raise BadInput(
            f"{SHARED} holds a password, and others may read a unit file; put the line {SHARED}=... "
            f"into ~/{SECRETS_FILE}, which only you may read, unset it here, and join again."
        )

    program = shutil.which("triage") or shutil.which(
        "triage", path=str(Path(sys.executable).parent)
    )
    if program is None:
        raise BadInput("The command `triage` is not installed here; install it, then join again.")

    arguments = [str(Path(program).absolute()), "join", api.removesuffix("/api"), "--pool", pool]
    unit = (launchd_unit if is_mac() else systemd_unit)(arguments, pool, environment())
    write_atomic(unit.path, unit.text)
    return unit


def environment() -> dict[str, str]:
    """The variables of this shell that decide where a worker keeps and shares what it makes."""
    passed_values = {name: os.environ[name] for name in PASSED if os.environ.get(name)}
    # The system starts the command in another folder than this one.
    paths = {
        name: str(named_path(name))
        for name, value in passed_values.items()
        if name in PATHS and "://" not in value
    }
    return {**passed_values, **paths, "TRIAGE_HOME": str(home())}


def systemd_unit(arguments: list[str], pool: str, variables: dict[str, str]) -> Unit:
    """A unit of the user's own systemd."""
    name = f"triage-{pool}.service"
    lines = [
        "[Unit]",
        f"Description=triage: works for the pool {pool}",
        "After=network-online.target",
        # It is started again however often a start fails, as while the server is away.
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        # systemd replaces $NAME in ExecStart, but not in Environment.
        f"ExecStart={' '.join(_quoted(word).replace('$', '$$') for word in arguments)}",
        *(f"Environment={_quoted(f'{k}={v}')}" for k, v in sorted(variables.items())),
        f"EnvironmentFile=-%h/{SECRETS_FILE}",
        "Restart=always",
        "RestartSec=30",
        f"TimeoutStopSec={LEAVE_SECONDS}",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]
    path = Path.home() / ".config" / "systemd" / "user" / name
    # Not `enable --now`, which leaves a service of an earlier unit running.
    commands = (
        f"systemctl --user enable {name}",
        f"systemctl --user restart {name}",
        "loginctl enable-linger",
    )

    return Unit(path, "\n".join(lines) + "\n", commands)


def launchd_unit(arguments: list[str], pool: str, variables: dict[str, str]) -> Unit:
    """An agent of launchd, which a login starts; a shell reads the file of secrets for it."""
    label = f"org.triage.{pool}"
    secrets = str(Path.home() / SECRETS_FILE)
    # Not in TRIAGE_HOME: launchd may not write to an external volume, and then starts nothing.
    log = str(Path.home() / "Library" / "Logs" / f"{label}.log")
    content = {
        "Label": label,
        "ProgramArguments": ["/bin/sh", "-c", READ_AND_RUN, "sh", secrets, *arguments],
        "EnvironmentVariables": dict(sorted(variables.items())),
        "KeepAlive": True,
        "RunAtLoad": True,
        "ProcessType": "Interactive",  # else launchd throttles CPU and disk, for days
        "ThrottleInterval": 30,
        "ExitTimeOut": LEAVE_SECONDS,
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    path = Path.home() / "Library" / "LaunchAgents" / f"{label}.plist"

    return Unit(path, plistlib.dumps(content).decode(), _launchctl(label, path))


def _launchctl(label: str, path: Path) -> tuple[str, ...]:
    """The commands that start an agent, also in place of one of an earlier installation."""
    start = f"launchctl bootstrap gui/$(id -u) {shlex.quote(str(path))}"
    return (
        f"launchctl bootout gui/$(id -u)/{shlex.quote(label)} 2>/dev/null || true",
        f"{start} || {{ echo {shlex.quote(REFUSED)}; false; }}",
    )


def _quoted(word: str) -> str:
    """A word of a systemd unit, which replaces what follows a %."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'
