"""What is for this machine goes to no proxy: of variables, and of the system settings of a Mac."""

import os
from urllib.request import getproxies_environment

import httpx
import pytest

import flows
from flows import reach_this_machine_directly
from tests.http_server import http_server, replying

NO_PROXY_ANSWERS = "http://127.0.0.1:9"
SETTINGS = {"http": NO_PROXY_ANSWERS, "https": NO_PROXY_ANSWERS}


@pytest.fixture
def without_variables(monkeypatch):
    """No variable of a proxy, here and at the end."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    monkeypatch.setattr(os, "environ", environment)


@pytest.fixture
def server():
    """The address of a server on this machine."""
    with http_server(replying("")) as address:
        yield address


def is_direct(url: str) -> bool:
    with httpx.Client() as client:
        return client._transport_for_url(httpx.URL(url)) is client._transport


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(without_variables, server):
    os.environ["http_proxy"] = NO_PROXY_ANSWERS
    with pytest.raises(httpx.ConnectError):
        httpx.get(server)

    reach_this_machine_directly()
    assert httpx.get(server).status_code == 200
    assert not is_direct("http://example.org")


def test_the_proxy_of_a_macs_settings_is_not_asked_for_this_machine_but_for_others(
    without_variables, server, monkeypatch
):
    monkeypatch.setattr(flows, "is_mac", lambda: True)
    monkeypatch.setattr("urllib.request.getproxies", lambda: getproxies_environment() or SETTINGS)
    reach_this_machine_directly()
    assert httpx.get(server).status_code == 200
    assert is_direct("http://mac1.local:4200") and is_direct("http://localhost:4200")
    assert not is_direct("https://example.org")


def test_exceptions_of_the_user_stay(without_variables):
    os.environ |= {"HTTPS_PROXY": NO_PROXY_ANSWERS, "NO_PROXY": "hub.example.org, 10.0.0.1"}
    reach_this_machine_directly()
    assert os.environ["no_proxy"] == "hub.example.org,10.0.0.1,127.0.0.1,localhost,.local"
    assert is_direct("https://hub.example.org")


def test_nothing_is_set_where_there_is_no_proxy(without_variables, monkeypatch):
    monkeypatch.setattr(flows, "is_mac", lambda: True)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    before = dict(os.environ)
    reach_this_machine_directly()
    assert os.environ == before
