"""The comparison: warehouse -> tables for people, and Prefect artifacts for the UI."""

from __future__ import annotations

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.report.leaderboard import leaderboard
from flows.report.markdown import NO_ROWS, PAIRS, as_markdown
from flows.report.pairs import pair_rows
from flows.report.study import evaluations_of_study, evaluations_of_sweep
from flows.report.typed_rows import leaderboard_rows
from warehouse.connect import warehouse_path
from warehouse.summary import pooled_sets


@flow(name="compare", flow_run_name="comparison")
def compare(study: str | None = None, sweep: str | None = None) -> None:
    """Publish the leaderboard and the 4-bit against 8-bit comparison as artifacts of this run.

    Args:
        study: name of a study; without it, the study of the last sweep
        sweep: id of a sweep: only what it made or found
    """
    markdown = f"# {PAIRS}\n\n{NO_ROWS}"
    if warehouse_path().exists():
        ids = evaluations_of_sweep(sweep) if sweep else evaluations_of_study(study)
        board = leaderboard_rows(ids)
        if board:
            records = leaderboard(board).records()
            create_table_artifact(table=records, key="leaderboard", description="All experiments")
        markdown = as_markdown(board, pair_rows(ids), pooled_sets(ids))
    create_markdown_artifact(markdown=markdown, key="comparison", description=PAIRS)
