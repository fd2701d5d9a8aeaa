"""What a sweep shows in the Prefect UI: the comparison, and where its report is."""

from __future__ import annotations

from collections.abc import Collection

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger

from flows.html_report.files import refreshed_report
from flows.report.answer import claim_of
from flows.report.evidence import NO_ROWS, PAIRS, as_markdown
from flows.report.leaderboard import evaluation_ids, find_study, leaderboard, named_sets
from flows.report.pairs import pair_rows, summary_rows
from flows.report.typed_rows import leaderboard_rows
from warehouse.connect import snapshot, warehouse_path


@flow(name="compare", flow_run_name="comparison")
def compare(study: str | None = None) -> None:
    """Publish the leaderboard and the 4-bit against 8-bit comparison as artifacts of this run.

    Args:
        study: name of a study; without it, the study of the last sweep
    """
    found = find_study(study) if warehouse_path().exists() else None
    if found is None:
        publish_comparison(None)
    else:
        publish_comparison(evaluation_ids(found.study), found.study)


def publish_comparison(ids: Collection[str] | None, study: str | None = None) -> None:
    """Publish the tables of these evaluations as artifacts of the run that calls it.

    `ids`: None where there is no warehouse yet; `study`: that which they are of, whose recipes and
    claim the answer is about.
    """
    markdown = f"# {PAIRS}\n\n{NO_ROWS}"
    if ids is not None:
        with snapshot():
            board = leaderboard_rows(ids)
            recipes = summary_rows(evaluation_ids(study) if study else ids)
            markdown = as_markdown(board, pair_rows(ids), recipes, ids, claim_of(study))

        # Outside the snapshot, which keeps writers out: the server may take its time.
        if board:
            records = [
                record | ({"test set": name} if name else {})
                for name, rows in named_sets(board)
                for record in leaderboard(rows).records()
            ]
            create_table_artifact(table=records, key="leaderboard", description="All experiments")

    create_markdown_artifact(markdown=markdown, key="comparison", description=PAIRS)


def publish_report(study: str) -> None:
    """Make the report of a study if something has landed since the last one, and publish its path,
    since a browser follows no link from a page to a file.

    Never raises: a sweep has its results, with a report or without.
    """
    logger = get_run_logger()
    path, problem = refreshed_report(study)
    if problem:
        logger.warning(problem)
    if path is None:
        return

    text = (
        f"The report of the study {study} is a file on the machine that ran the "
        f"sweep:\n\n`{path}`\n"
    )
    try:
        create_markdown_artifact(markdown=text, key="report", description=f"Report of {study}")
    except Exception as error:  # the file is there all the same
        logger.warning("The report's artifact was not made: %s", error)
