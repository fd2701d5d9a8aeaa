"""Runs the audits: queries that return no row on a sound warehouse."""

from __future__ import annotations

import duckdb

from warehouse.migrate import sql_files


def run_audits(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Number of offending rows by audit; all zero on a sound warehouse. `warehouse/audits/<name>.sql` shows them."""
    return {name: len(con.execute(text).fetchall()) for name, text in sql_files("audits")}
