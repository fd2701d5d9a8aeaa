"""The real `triage` command in processes of its own, and one smoke sweep that the tests share.

pytest 9.1 loses these fixtures ("fixture 'smoke' not found") where its command names a file of
`tests/` itself between two files of this folder (pytest issue 14964): sort the names.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.server import LIKE_PREFECTS_OWN, api_url
from deployments.server import Server as PrefectServer
from flows.cli.experiments import find_model
from flows.serve.app import KeptModel
from tests.place import Place, Server, prefect_home
from warehouse.connect import snapshot


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "place")


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, subprocess.CompletedProcess[str]]:
    """A finished smoke sweep, which tests only read, and what it printed."""
    new_place = Place(tmp_path_factory.mktemp("smoke") / "place", is_new=True)
    return new_place, new_place.run("sweep", "smoke")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Prefect's server, as a sweep starts it, for the commands of tests that are not about it."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(prefect_home() / "prefect.db", folder)
    environment = os.environ | LIKE_PREFECTS_OWN | {"PREFECT_HOME": str(folder)}
    running = PrefectServer(environment, print, lambda: None)
    running.start()
    running.wait(300)
    yield Server(api_url(running.port), folder)
    running.end()


@pytest.fixture(scope="session")
def used(smoke: tuple[Place, object], tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A copy of the smoke sweep's state, for tests that ask its models."""
    return smoke[0].copy(tmp_path_factory.mktemp("used") / "place")


@pytest.fixture(scope="session")
def kept_model(used: Place) -> Iterator[KeptModel]:
    """The model of a safety recipe, loaded once, with 8 dropout passes."""
    with pytest.MonkeyPatch.context() as patch:
        used.use(patch)
        yield KeptModel(find_model("tiny-llama-4bit-balanced_safe-s42"), passes=8)


@pytest.fixture
def published(published_file: Path, own_home: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process reads the published studies."""
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(published_file))
    with snapshot():
        yield


@pytest.fixture
def at_home(used: Place, own_home: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process asks the models of `used`."""
    used.use(monkeypatch)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait for a Prefect server's version is as long as a busy machine needs."""
    monkeypatch.setattr("deployments.server.SECONDS", 60.0)


@pytest.fixture
def port() -> Iterator[int]:
    """A port on which nobody listens, and which nobody else gets meanwhile."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield free.getsockname()[1]
