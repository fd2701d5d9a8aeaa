"""Draw the README's picture from the published study: `uv run python -m tests.published.picture`.

Three trainings a side of one recipe, 4 minus 8 bits, one by one and together, in the colours of a light and of a dark page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import typer

from flows.report.charts import LIGHT, as_file, drawn
from flows.report.table import Chart, Mark, along
from tests.bench.common import run
from tests.place import ROOT
from tests.published.figures import FOLDER
from warehouse.comparison.cells import judged_cases
from warehouse.comparison.crossed import MARGIN
from warehouse.comparison.differences import differences
from warehouse.connect import reading
from warehouse.landing import merge
from warehouse.load import load_all

RULES = {"argmax": "most probable label", "target_recall": "own ED threshold"}
_STYLE = (ROOT / "flows" / "report" / "style.css").read_text(encoding="utf-8")
_DARK_STYLE = _STYLE.partition("prefers-color-scheme: dark")[2].partition("}")[0]
DARK = dict(re.findall(r"--(\w+): (#\w+);", _DARK_STYLE))
COLOURS: Mapping[str, Mapping[str, str]] = {"light": LIGHT, "dark": DARK}
HEADING = "ED recall of the recipe `tuned` over three seeds"


def seeds_chart(database: Path) -> Chart:
    """ED recall of SmolLM2-135M under `tuned`, 4 minus 8 bits in points, by seed and over seeds."""
    with reading(database) as con:
        pairs = con.execute(
            "SELECT seed, evaluation_4bit, evaluation_8bit FROM pooled_pair "
            "WHERE base_model = 'smollm2-135m' AND recipe = 'tuned' AND evaluation_set = 'test' ORDER BY seed"
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
    return Chart("dots", "", marks, {"axis": axis, "lines": [0], "margin": 100 * MARGIN})


def write() -> None:
    """Draw the README's picture from the published study."""
    with TemporaryDirectory() as name:
        landing = Path(name, "landing")
        merge(FOLDER / "study", landing)
        load_all(landing, Path(name, "triage.duckdb"))
        chart = seeds_chart(Path(name, "triage.duckdb"))
    svg = drawn(chart)
    for theme, colours in COLOURS.items():
        path = FOLDER / "study" / f"seeds-{theme}.svg"
        path.write_text(as_file(svg, chart.alt(HEADING), colours), encoding="utf-8")
        typer.echo(f"Written: {path}")


if __name__ == "__main__":
    run(write)
