"""A stop of the children that ends with the test."""

from threading import Event

import pytest

from tasks.runtime import children


def stop_for_this_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what the test stops or interrupts be startable again afterwards."""
    for name in ("_stopping", "_interrupted"):
        monkeypatch.setattr(children, name, Event())
