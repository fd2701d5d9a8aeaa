"""Draw the READMEs' pictures from the published rows: `uv run python -m tests.published.picture`.

`seeds`, from `by_seed.parquet`: the trainings of one recipe, 4 minus 8 bits, one by one and together. `moved`, from
`adapters.parquet`: adapters at other precisions, with the threshold kept and chosen again. Each in the colours of a light
and of a dark page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import typer

from flows.report.charts import LIGHT, as_file, drawn
from flows.report.table import Chart, Mark, along
from tests.bench.common import run
from tests.place import ROOT
from tests.published.figures import FOLDER
from warehouse.comparison.crossed import MARGIN

RULES = {"argmax": "most probable label", "target_recall": "own ED threshold"}
_STYLE = (ROOT / "flows" / "report" / "style.css").read_text(encoding="utf-8")
_DARK_STYLE = _STYLE.partition("prefers-color-scheme: dark")[2].partition("}")[0]
DARK = dict(re.findall(r"--(\w+): (#\w+);", _DARK_STYLE))
COLOURS: Mapping[str, Mapping[str, str]] = {"light": LIGHT, "dark": DARK}
PRECISION_NAMES = {"6bit": "6 bits", "nvfp4": "nvfp4", "mxfp4": "mxfp4"}
FIGURE_NAMES = {"ed_recall": "ED recall", "over_triage": "over-triage"}
Rows = list[dict[str, Any]]


def seeds_chart(rows: Rows) -> Chart:
    """ED recall of the recipe of a study, 4 minus 8 bits in points, by seed and over seeds."""
    marks: list[Mark] = []
    for row in rows:
        if row["metric"] != "ed_recall":
            continue
        line, series = (f"seed {row['seed']}", "one seed") if row["seed"] else ("together", f"{row['seeds']} seeds")
        marks.append({"label": f"{RULES[row['rule']]}\n{line}", "series": series, **_in_points(row)})

    axis = {"title": "ED recall: 4 minus 8 bits, points"}
    heading = f"ED recall of the recipe `{rows[0]['recipe']}`, by seed"
    return Chart("dots", heading, marks, {"axis": axis, "lines": [0], "margin": 100 * MARGIN})


def moved_chart(rows: Rows) -> Chart:
    """Adapters that were trained at 8 bits, at other precisions minus at 8 bits, in points: the mean over seeds by precision
    and by whether the threshold is kept or chosen again.
    """
    marks: list[Mark] = []
    for row in rows:
        precision = PRECISION_NAMES.get(row["precision"])
        is_shown = row["rule"] == "target_recall" and row["metric"] in FIGURE_NAMES
        if precision is None or not is_shown or row["adapter"].endswith("minus kept"):
            continue
        threshold = "chosen again" if row["adapter"].endswith("chosen again") else "kept"
        label = f"{precision}\nthreshold {threshold}"
        marks.append({"label": label, "series": FIGURE_NAMES[row["metric"]], **_in_points(row)})

    # In the order of the names, and both thresholds of a precision together.
    order = list(PRECISION_NAMES.values())
    marks.sort(key=lambda mark: (order.index(mark["label"].partition("\n")[0]), "again" in mark["label"]))
    axis = {"title": "moved from 8 bits: difference, points"}
    heading = f"Adapters of the recipe `{rows[0]['recipe']}`, trained at 8 bits, at other precisions"
    return Chart("dots", heading, marks, {"axis": axis, "lines": [0], "margin": 100 * MARGIN})


def _in_points(row: Mapping[str, float]) -> Mark:
    return along("x", (100 * row["difference"], 100 * row["low"], 100 * row["high"]))


PICTURES = {"by_seed": ("seeds", seeds_chart), "adapters": ("moved", moved_chart)}


def charts(folder: Path = FOLDER) -> Iterator[tuple[Path, Chart]]:
    """The pictures of the studies in `folder` that have the rows for them, by their paths without a theme."""
    for rows, (name, chart_of) in PICTURES.items():
        for path in sorted(folder.glob(f"*/{rows}.parquet")):
            yield path.with_name(name), chart_of(pq.read_table(path).to_pylist())


def in_words(chart: Chart) -> str:
    """Every figure of a picture, as its title says it to those who cannot see it."""
    figures = (f"{record['mark']}: {record['figure']}" for record in chart.table().records)
    return f"{chart.title}: {'; '.join(figures)}."


def write() -> None:
    """Draw the pictures of what is published."""
    draw()


def draw(folder: Path = FOLDER) -> None:
    for place, chart in charts(folder):
        svg = drawn(chart)
        for theme, colours in COLOURS.items():
            path = place.with_name(f"{place.name}-{theme}.svg")
            path.write_text(as_file(svg, in_words(chart), colours), encoding="utf-8")
            typer.echo(f"Written: {path}")


if __name__ == "__main__":
    run(write)
