"""What a sweep shows in the Prefect UI: the comparison, and where its report is."""

from __future__ import annotations

from collections.abc import Collection

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger

from flows.report.models import leaderboard
from flows.report.page import refreshed_report
from flows.report.rows import studied
from flows.report.sections import PAIRS, comparison_markdown
from warehouse.connect import snapshot, warehouse_path


@flow(name="compare", flow_run_name="comparison")
def compare(study: str | None = None) -> None:
    """Publish the leaderboard and the 4-bit against 8-bit comparison as artifacts of this run.

    Args:
        study: name of a study; without it, that of the last sweep, unless its weights are random
    """
    publish_comparison(None, study)


def publish_comparison(ids: Collection[str] | None, study: str | None = None) -> None:
    """Publish the tables of a study as artifacts of the run that calls it.

    `ids`: of its evaluations those of one sweep alone; None: all.
    """
    markdown, records = comparison_markdown([]), []
    if warehouse_path().exists():
        with snapshot():
            studies = studied(study, only=ids)
            markdown = comparison_markdown(studies)
            records = [
                record | ({"test set": one.set_name} if one.set_name else {})
                for one in studies
                for record in leaderboard(one).records
            ]

    # Outside the snapshot, which keeps writers out: the server may take its time.
    if records:
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
