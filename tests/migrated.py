"""New warehouse files as copies of one that was made once: that takes half a second of processor time each."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import duckdb
import pytest

from warehouse import connect, rebuild


@cache
def migrated_file() -> bytes:
    """An empty warehouse."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.duckdb"
        with connect.writing(path) as con:
            rebuild.prepare(con)
        return path.read_bytes()


@contextlib.contextmanager
def copied_warehouses() -> Iterator[None]:
    """The loader starts from a copy where there is no file yet."""

    @contextlib.contextmanager
    def writing(path: Path | None = None, wait: float = connect.WAIT_SECONDS) -> Iterator[duckdb.DuckDBPyConnection]:
        file = path or connect.warehouse_path()
        if not file.exists():
            with contextlib.suppress(OSError):  # a place where no file can be: the loader itself says so
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(migrated_file())
        with connect.writing(path, wait) as con:
            yield con

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rebuild, "writing", writing)
        yield
