"""Draw the READMEs' pictures from the published rows: `uv run python -m tests.published.picture`.

`seeds`: the trainings of one recipe, 4 minus 8 bits, one by one and together. `moved`: adapters at
other precisions, with the threshold kept and chosen again. The registered study has both. Each in the colours of a light
and of a dark page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import duckdb
import typer

from flows.report.charts import LIGHT, as_file, drawn
from flows.report.table import Chart, Mark, along
from tests.bench.common import run
from tests.place import ROOT
from tests.published.figures import FIRST, FOLDER, has_rows
from warehouse.comparison.cells import judged_cases
from warehouse.comparison.crossed import MARGIN
from warehouse.comparison.differences import differences
from warehouse.comparison.pools import adapter_rows
from warehouse.connect import reading
from warehouse.landing import merge
from warehouse.load import load_all

RULES = {"argmax": "most probable label", "target_recall": "own ED threshold"}
_STYLE = (ROOT / "flows" / "report" / "style.css").read_text(encoding="utf-8")
_DARK_STYLE = _STYLE.partition("prefers-color-scheme: dark")[2].partition("}")[0]
DARK = dict(re.findall(r"--(\w+): (#\w+);", _DARK_STYLE))
COLOURS: Mapping[str, Mapping[str, str]] = {"light": LIGHT, "dark": DARK}
PRECISION_NAMES = {"6bit": "6 bits", "nvfp4": "nvfp4", "mxfp4": "mxfp4"}
FIGURE_NAMES = {"ed_recall": "ED recall", "over_triage": "over-triage"}


def seeds_chart(database: Path) -> Chart:
    """ED recall of a recipe, 4 minus 8 bits in points, by seed and over seeds."""
    with reading(database) as con:
        base_model, recipe = _shown(con)
        pairs = con.execute(
            "SELECT seed, evaluation_4bit, evaluation_8bit FROM pooled_pair "
            "WHERE base_model = $base_model AND recipe = $recipe AND evaluation_set = 'test' ORDER BY seed",
            {"base_model": base_model, "recipe": recipe},
        ).fetchall()
        cases = judged_cases(con, [id for _, *sides in pairs for id in sides])

    lines = [({"line": f"seed {seed}", "series": "one seed"}, [i]) for i, (seed, *_) in enumerate(pairs)]
    lines.append(({"line": "together", "series": f"{len(pairs)} seeds"}, list(range(len(pairs)))))
    marks: list[Mark] = []
    for row in differences(cases, lines, list(RULES), ["ed_recall"]):
        ends = [100 * row[name] for name in ("difference", "low", "high")]
        label = f"{RULES[row['rule']]}\n{row['line']}"
        marks.append({"label": label, "series": row["series"], **along("x", tuple(ends))})

    axis = {"title": "ED recall: 4 minus 8 bits, points"}
    heading = f"ED recall of the recipe `{recipe}`, by seed"
    return Chart("dots", heading, marks, {"axis": axis, "lines": [0], "margin": 100 * MARGIN})


def moved_chart(database: Path) -> Chart:
    """Adapters that were trained at 8 bits, at other precisions minus at 8 bits, in points: the mean over seeds by precision
    and by whether the threshold is kept or chosen again.
    """
    with reading(database) as con:
        _, recipe = _shown(con)
    marks: list[Mark] = []
    for row in adapter_rows(database=database):
        precision = PRECISION_NAMES.get(row["precision"])
        if row["rule"] != "target_recall" or row["metric"] not in FIGURE_NAMES or precision is None:
            continue
        threshold = "chosen again" if row["adapter"].endswith("chosen again") else "kept"
        ends = [100 * row[name] for name in ("difference", "low", "high")]
        label = f"{precision}\nthreshold {threshold}"
        marks.append({"label": label, "series": FIGURE_NAMES[row["metric"]], **along("x", tuple(ends))})

    # In the order of the names, and both thresholds of a precision together.
    order = list(PRECISION_NAMES.values())
    marks.sort(key=lambda mark: (order.index(mark["label"].partition("\n")[0]), "again" in mark["label"]))
    axis = {"title": "moved from 8 bits: difference, points"}
    heading = f"Adapters of the recipe `{recipe}`, trained at 8 bits, at other precisions"
    return Chart("dots", heading, marks, {"axis": axis, "lines": [0], "margin": 100 * MARGIN})


def _shown(con: duckdb.DuckDBPyConnection) -> tuple[str, str]:
    """Base model and recipe of the claim, where a study has one."""
    claimed = con.execute("SELECT base_model, recipe FROM primary_claim").fetchall()
    return claimed[0] if claimed else FIRST


PICTURES = {
    "study": {"seeds": seeds_chart},
    "moved": {"moved": moved_chart},
    "registered": {"seeds": seeds_chart, "moved": moved_chart},
}


def published_charts(loaded: Mapping[str, Path] = MappingProxyType({})) -> Iterator[tuple[Path, Chart]]:
    """The pictures of the published studies, by their paths without a theme, from the rows case by case. A study that is
    sealed has no rows but these, and no picture. `loaded`: warehouses of studies that are loaded already.
    """
    for study, pictures in PICTURES.items():
        if not has_rows(FOLDER / study):
            continue
        with TemporaryDirectory() as name:
            landing, database = Path(name, "landing"), loaded.get(study, Path(name, "triage.duckdb"))
            if study not in loaded:
                merge(FOLDER / study, landing)
                load_all(landing, database)
            for picture, chart_of in pictures.items():
                yield FOLDER / study / picture, chart_of(database)


def in_words(chart: Chart) -> str:
    """Every figure of a picture, as its title says it to those who cannot see it."""
    figures = (f"{record['mark']}: {record['figure']}" for record in chart.table().records)
    return f"{chart.title}: {'; '.join(figures)}."


def write() -> None:
    """Draw the pictures of what is published."""
    draw(published_charts())


def draw(charts: Iterable[tuple[Path, Chart]]) -> None:
    for place, chart in charts:
        svg = drawn(chart)
        for theme, colours in COLOURS.items():
            path = place.with_name(f"{place.name}-{theme}.svg")
            path.write_text(as_file(svg, in_words(chart), colours), encoding="utf-8")
            typer.echo(f"Written: {path}")


if __name__ == "__main__":
    run(write)
