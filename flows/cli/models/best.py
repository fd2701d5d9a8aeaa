"""`triage best`: the options of the command."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from flows.cli.terminal import console

Precision = Annotated[
    str | None, typer.Option(metavar="NAME", help="only this precision, e.g. 4bit")
]
Megabytes = Annotated[
    float | None,
    typer.Option(min=0.001, metavar="MB", help="most bytes of stored weights, in 10^6"),
]
Study = Annotated[
    str | None, typer.Option(metavar="NAME", help="only this study; without it the last sweep's")
]
By = Annotated[
    Literal["ed-recall", "macro-f1"],
    typer.Option("--by", help="rank by ED recall at a fixed over-triage, or by macro-F1"),
]
OverTriage = Annotated[
    float,
    typer.Option(min=0.0, max=1.0, help="over-triage at which the ED recall is taken"),
]


def best(
    precision: Precision = None,
    max_megabytes: Megabytes = None,
    study: Study = None,
    by: By = "ed-recall",
    over_triage: OverTriage = 0.3,
) -> None:
    """Rank models on `valid`, and show the test figures of the best one alone."""
    from flows.cli.models.best_ranking import Options
    from flows.cli.models.best_report import print_best

    print_best(console, Options(precision, max_megabytes, study, by, over_triage))
