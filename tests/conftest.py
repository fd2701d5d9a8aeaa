"""Shared set-up: a fast BLAS before MLX is first imported, and a home of its own for every test."""

import os

import pytest

from tasks.runtime.device import load_blas

load_blas()
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Nothing a test makes lands in the checkout."""
    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(tmp_path / "home" / "triage.duckdb"))
