"""The report of a sweep as an artifact of its run: where the file is, since a browser follows
no link from a page to a file.
"""

from __future__ import annotations

from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from flows.html_report.after_sweep import refreshed_report


def publish_report(study: str) -> None:
    """Make the report of a study if something has landed since the last one, and publish its path.

    Never raises: a sweep has its results, with a report or without.
    """
    logger = get_run_logger()
    report = refreshed_report(study)
    if report.problem is not None:
        logger.warning(report.problem)
    if report.path is None:
        return

    text = (
        f"The report of the study {study} is a file on the machine that ran the "
        f"sweep:\n\n`{report.path}`\n"
    )
    try:
        create_markdown_artifact(markdown=text, key="report", description=f"Report of {study}")
    except Exception as error:  # the file is there all the same
        logger.warning("The report's artifact was not made: %s", error)
