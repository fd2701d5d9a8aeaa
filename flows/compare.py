"""What a sweep shows in the Prefect UI: the comparison, and where its report is."""

from __future__ import annotations

from collections.abc import Collection

from prefect import flow
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.logging import get_run_logger

from flows.report.page import refreshed_report
from flows.report.rows import Sealed, studied
from flows.report.seal import progress
from flows.report.sections import comparison_markdown
from warehouse.connect import snapshot, warehouse_path


@flow(name="compare", flow_run_name="comparison")
def compare(study: str | None = None) -> None:
    """Publish the answer and the models of a study as an artifact of this run.

    Args:
        study: name of a study; without it, that of the last sweep, unless its weights are random
    """
    publish_comparison(None, study)


def publish_comparison(ids: Collection[str] | None, study: str | None = None) -> None:
    """Publish what `triage compare` prints of a study as an artifact of the run that calls it.

    `ids`: of its evaluations those of one sweep alone; None: all.
    """
    markdown = comparison_markdown([])
    if warehouse_path().exists():
        try:
            with snapshot():
                markdown = comparison_markdown(studied(study, only=ids))
        except Sealed as sealed:
            markdown = "\n\n".join(progress(sealed.claim))

    # Outside the snapshot, which keeps writers out: the server may take its time.
    create_markdown_artifact(
        markdown=markdown, key="comparison", description="4 bits against 8 bits"
    )


def publish_report(study: str) -> None:
    """Make the report of a study if something has landed since the last one, and publish its path.

    Never raises: a sweep has its results, with a report or without.
    """
    logger = get_run_logger()
    path, problem = refreshed_report(study)
    if problem:
        logger.warning(problem)
    if path is None:
        return

    try:
        create_link_artifact(
            link=path.resolve().as_uri(),
            link_text=str(path),
            key="report",
            description=f"The report of {study}, a file on the machine that ran the sweep. Browsers "
            "follow no link from a page to a file: paste its path into the address bar.",
        )
    except Exception as error:  # the file is there all the same
        logger.warning("The report's artifact was not made: %s", error)
