"""Write what is published of a study, from the warehouse of this home: `uv run python -m tests.published.write STUDY`.

That is the rows behind the READMEs' tables as Parquet, and a pack of the study's landing folders, which another machine
takes over (`triage warehouse merge`) to add a seed: an interval over trainings and groups needs the cases of every pair.
Of the registered study the seeds that are complete are written as packs, and no figure is printed.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from flows.selection import moves_of, select
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.runtime.store import ManifestDict, build_folder
from tasks.spec import CHOSEN_AGAIN, ED_AUROC, KEPT
from tests.bench.common import run
from tests.published.figures import FOLDER, VIEWS
from tests.published.secondary import rows_adversarial, rows_by_seed, rows_familiar, rows_together
from warehouse.comparison.cells import judged_cases
from warehouse.comparison.differences import METRICS, differences
from warehouse.comparison.pools import adapter_rows, as_dicts, means
from warehouse.connect import reading
from warehouse.health import bring_up_to_date
from warehouse.landing import PACK, LandingManifest, copy_folder, is_pack, kind_of, landing_folders, unpack
from warehouse.schema import FACTS

Study = Literal["study", "study_gemma", "registered", "moved"]  # the processor of first_run is gone
PACKED = ("study", "study_gemma")
REGISTERED = "registered"
MOVED = "moved"  # a home with adapters of 8 bits and what they are at other precisions, and no other training
AGAINST_LINEAR = "linear_comparison"
ADAPTERS = "adapters"
SECONDARY = {
    "by_seed": rows_by_seed, "together": rows_together, "familiar": rows_familiar, "adversarial": rows_adversarial,
}  # fmt: skip
# Further evaluation sets are left out for their size.
_LANDED = """
WITH judged AS (
    SELECT evaluation_id, training_id
    FROM study_member
    JOIN evaluation ON evaluation_id = id
    JOIN experiment USING (training_id)
    WHERE study = $study AND evaluation_set = 'test' AND recipe_kind IN ('standard', 'safety', 'baseline')
)
SELECT evaluation_id AS id FROM judged
UNION
SELECT training_id FROM judged
UNION
SELECT variant_id FROM judged JOIN experiment USING (training_id) JOIN variant USING (weights_digest)
UNION
SELECT sweep_id FROM sweep JOIN sweep_member USING (sweep_id) WHERE study = $study
UNION
SELECT dataset_id FROM dataset JOIN sweep USING (dataset_digest) WHERE study = $study
ORDER BY id
"""
# The trainings of a recipe at a precision, each beside the one linear model of their cases.
_BESIDE_LINEAR = """
SELECT
    model.base_model, model.recipe, model.precision, seed_group,
    list([model.evaluation_id, linear.evaluation_id] ORDER BY model.seed) AS pairs
FROM leaderboard_of($ids) AS model
JOIN leaderboard_of($ids) AS linear USING (evaluation_set, set_digest)
JOIN seed_group ON seed_group.evaluation_id = model.evaluation_id
-- Of a recipe that a claim is about, the seeds of the claim.
LEFT JOIN primary_claim AS claim
    ON list_contains(model.studies, claim.study) AND (claim.base_model, claim.recipe) = (model.base_model, model.recipe)
WHERE evaluation_set = 'test' AND linear.recipe = 'linear' AND model.recipe_kind IN ('standard', 'safety')
    AND coalesce(list_contains(claim.seeds, model.seed), true)
GROUP BY ALL
ORDER BY ALL
"""
# Adapters at a precision by rules that were chosen again there, each beside itself by the rules that it had.
_CHOSEN_AGAIN = """
SELECT
    base_model, recipe, kept.adapter || ', threshold chosen again minus kept' AS adapter,
    evaluation_set, kept.set_digest, random_weights, precision, precision AS reference,
    list([again.evaluation_id, kept.evaluation_id] ORDER BY seed) AS pairs
FROM precision_arm_of($ids) AS again
JOIN precision_arm_of($ids) AS kept USING (base_model, recipe, seed, evaluation_set, precision, random_weights)
WHERE again.adapter = kept.adapter || ', threshold chosen again' AND again.evaluation_id <> kept.evaluation_id
    AND again.conditions.adapter_id = kept.conditions.adapter_id
GROUP BY ALL
ORDER BY ALL
"""
# Landing folders of the registered study by the part that they belong to: a seed, the baselines, or the record, which says
# how all of them came about and grows with each seed. An arm is what an evaluation is of: the precision of its training,
# its own, by which rules a moved adapter is judged, and the set. Moved adapters are published on `test` alone, for their size.
_PARTS = """
WITH judged AS (
    SELECT
        evaluation_id, x.training_id, x.weights_digest, IF(x.recipe_kind = 'baseline', NULL, x.seed) AS seed,
        row(
            coalesce(trained.precision, x.precision), x.precision,
            IF(trained.training_id IS NULL, NULL, coalesce(x.moved_rules, $kept)), evaluation_set
        ) AS arm
    FROM study_member
    JOIN evaluation ON evaluation_id = id
    JOIN experiment AS x USING (training_id)
    LEFT JOIN experiment AS trained ON trained.training_id = x.source_training_id
    WHERE study = $study AND list_contains(IF(trained.training_id IS NULL, $sets, ['test']), evaluation_set)
),
part AS (
    SELECT unnest([evaluation_id, training_id]) AS id, coalesce('seed-' || seed, 'baselines') AS part FROM judged
    UNION
    SELECT variant_id, 'record' FROM judged JOIN variant USING (weights_digest)
    UNION
    SELECT sweep_id, 'record' FROM sweep WHERE study = $study
    UNION
    SELECT look_id, 'record' FROM look WHERE study = $study
    UNION
    SELECT dataset_id, 'record' FROM dataset JOIN sweep USING (dataset_digest) WHERE study = $study
    UNION
    SELECT training_id, 'record' FROM study_member JOIN experiment ON training_id = id
    WHERE study = $study AND status = 'diverged'
)
SELECT part, list(id ORDER BY id), list(DISTINCT arm)
FROM part LEFT JOIN judged ON evaluation_id = id
GROUP BY part
ORDER BY part
"""
Arm = tuple[str, str, str | None, str]


def publish(study: str, folder: Path, database: Path | None = None) -> None:
    """Write the rows of a study into `folder` as Parquet, replacing what was published before.

    Raises BadInput where the warehouse has no evaluation of that study.
    """
    bring_up_to_date(database)
    with reading(database) as con:
        ((ids,),) = con.execute("SELECT evaluations_of($study)", {"study": study}).fetchall()
        if not ids:
            raise BadInput(f"The warehouse has no evaluation of the study {study}: run `triage sweep {study}` first.")

        folder.mkdir(parents=True, exist_ok=True)
        for view, query in VIEWS.items():
            selected = con.sql(query, params={"study": study} if "$study" in query else None)
            selected.write_parquet(str(folder / f"{view}.parquet"), compression="zstd")

        if beside := rows_beside_linear(con, ids):
            write_rows(beside, folder / f"{AGAINST_LINEAR}.parquet")


def write_rows(rows: list[dict[str, Any]], path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")


def rows_beside_linear(con: duckdb.DuckDBPyConnection, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Each recipe at each precision minus the linear baseline, over its trainings and groups: a row per rule and metric."""
    pairs: list[list[str]] = []
    recipes = []
    for *names, of_recipe in con.execute(_BESIDE_LINEAR, {"ids": ids}).fetchall():
        name = dict(zip(("base_model", "recipe", "precision", "seed_group"), names, strict=True))
        recipes.append((name, range(len(pairs), len(pairs) + len(of_recipe))))
        pairs += of_recipe
    if not pairs:
        return []

    cases = judged_cases(con, [id for pair in pairs for id in pair])
    rows = differences(cases, recipes, ("argmax", "target_recall"), (*METRICS, ED_AUROC))
    renamed = {"value_4bit": "value", "value_8bit": "linear_value"}
    return [{renamed.get(key, key): value for key, value in row.items()} for row in rows]


def rows_of_adapters(ids: Sequence[str] | None = None, database: Path | None = None) -> list[dict[str, Any]]:
    """How adapters differ on `test` at other precisions from themselves as trained, and with rules that are chosen again
    from themselves with those kept: the columns of `adapter_rows`.
    """
    rows = adapter_rows(ids, database=database)
    with reading(database) as con:
        for arm in as_dicts(con.execute(_CHOSEN_AGAIN, {"ids": ids})):
            pairs = arm.pop("pairs")
            rows += means(con, pairs, [(arm, range(len(pairs)))])
    return [row for row in rows if row["evaluation_set"] == "test"]


def publish_landing(study: str, pack: Path, landing: Path, database: Path | None = None) -> list[str]:
    """Add the study's landing folders in `landing` to `pack`; return their ids.

    What was published stays as it is: other machines trained some of it. Delete the pack to publish all rows again.
    """
    with reading(database) as con:
        rows = con.execute(_LANDED, {"study": study}).fetchall()
    return add_to_pack([str(id) for (id,) in rows], pack, landing)


def add_to_pack(ids: Sequence[str], pack: Path, landing: Path) -> list[str]:
    """Add those of these landing folders that are in `landing`, a sweep in its present state; return their ids."""
    ids = [id for id in ids if (landing / id).is_dir()]
    with TemporaryDirectory() as name:
        folders = Path(name)
        if is_pack(pack):
            unpack(pack, folders)
        new = [id for id in ids if not (folders / id).is_dir() or id.startswith("sweep-")]
        for id in new:
            copy_folder(landing / id, folders / id)
        if new:  # else the pack would be the same but for its time
            write_pack(landing_folders(folders), pack)

    return ids


def publish_seeds(grid: str, folder: Path, landing: Path, database: Path | None = None) -> dict[int, tuple[int, int]]:
    """Write a pack of the seeds of a grid that are complete and in none, and the packs that all seeds share. Returns, by
    seed, how many of its evaluations have landed, and how many there will be.

    A pack of seeds is written once, so that a history of commits holds each case once. Seeds that are written together
    share the digests of their cases, a third of a pack. Raises BadInput where the warehouse has a result whose folder is
    not in `landing`: nothing is written then.
    """
    selection = select(grid)
    if (claim := selection.grid.primary_claim) and claim.further_seeds:  # which a command may add
        selection = select(grid, [f"seeds={[*claim.seeds, *claim.further_seeds]}"])
    sets = ["test", *(entry.name for entry in selection.grid.evaluation_sets)]
    planned: dict[int, set[Arm]] = {}
    for spec in selection.cells:
        own = spec.precision.name
        moves = [precision.name for precision in moves_of(selection.grid, spec, selection.variants)]
        arms = planned.setdefault(spec.seed, set())
        arms |= {(own, own, None, name) for name in sets}
        arms |= {(own, name, rules, "test") for name in moves for rules in (KEPT, CHOSEN_AGAIN)}

    with reading(database) as con:
        values = {"study": selection.grid.name, "sets": sets, "kept": KEPT}
        parts = {part: (ids, set(arms)) for part, ids, arms in con.execute(_PARTS, values).fetchall()}

    landed = {seed: arms & parts.get(f"seed-{seed}", ([], set()))[1] for seed, arms in planned.items()}
    complete = [seed for seed, arms in planned.items() if landed[seed] == arms]
    new = {part: parts[part][0] for part in ("baselines", "record") if complete and part in parts}
    if unpublished := [seed for seed in complete if seed not in published_seeds(folder)]:
        name = "-".join(["seed", *map(str, unpublished)])
        new[name] = [id for seed in unpublished for id in parts[f"seed-{seed}"][0]]
    if absent := sorted({id for ids in new.values() for id in ids if not (landing / id).is_dir()}):
        raise BadInput(
            f"The warehouse has results whose folders are not in {landing}: {', '.join(absent)}. Another home uses the "
            "same warehouse file: give each its own by TRIAGE_WAREHOUSE, and bring them here with `triage warehouse "
            "merge HOME`."
        )
    for part, ids in new.items():
        add_to_pack(ids, folder / f"{part}.pack", landing)
    return {seed: (len(landed[seed]), len(arms)) for seed, arms in planned.items()}


def published_seeds(folder: Path) -> set[int]:
    """The seeds whose packs are in `folder`, by the names of the packs."""
    packs = [path for path in folder.glob("seed-*.pack") if is_pack(path)]
    return {int(seed) for pack in packs for seed in pack.stem.split("-")[1:]}


def publish_moved(folder: Path, landing: Path, database: Path | None = None) -> None:
    """Write every landing folder of this home as a pack, and the rows of its adapters, over trainings and groups of
    cases; and what their models decide together with `linear`, where it is there.
    """
    add_to_pack([path.name for path in landing_folders(landing)], folder / "landing", landing)
    write_rows(rows_of_adapters(database=database), folder / f"{ADAPTERS}.parquet")
    with reading(database) as con:
        if con.execute("FROM experiment WHERE recipe = 'linear'").fetchall():
            write_rows(rows_together(con, "study"), folder / "together.parquet")


def publish_registered(
    grid: str, folder: Path, landing: Path, database: Path | None = None
) -> dict[int, tuple[int, int]]:
    """Write the packs of `publish_seeds`, whose counts are returned, and of a study that is not sealed the rows: those of
    `publish`, how the moved adapters differ from themselves as trained, and the secondary figures.
    """
    counts = publish_seeds(grid, folder / "landing", landing, database)
    study = select(grid).grid.name
    values = {"study": study}
    with reading(database) as con:
        if con.execute("FROM primary_claim WHERE study = $study AND sealed", values).fetchall():
            return counts

    publish(study, folder, database)
    with reading(database) as con:
        for name, secondary in SECONDARY.items():
            write_rows(secondary(con, study), folder / f"{name}.parquet")
        ((ids,),) = con.execute("SELECT evaluations_of($study)", values).fetchall()
    write_rows(rows_of_adapters(ids, database), folder / f"{ADAPTERS}.parquet")
    return counts


def write_pack(folders: Sequence[Path], target: Path) -> None:
    """Write the rows of landing folders into the folder `target`, replacing what is there."""
    parts: dict[str, list[pa.Table]] = {}
    for folder in folders:
        kind = kind_of(folder, LandingManifest.read(folder, deep=True))
        for name in FACTS[kind].tables:
            if (path := folder / f"{name}.parquet").is_file():  # earlier versions landed fewer tables
                parts.setdefault(name, []).append(pq.ParquetFile(path).read())

    def build(folder: Path) -> ManifestDict:
        for name, of_folders in parts.items():
            table = pa.concat_tables(of_folders, promote_options="default")
            # Probabilities hardly repeat: their bytes are compressed apart, that of the exponent first.
            numbers = [field.name for field in table.schema if pa.types.is_floating(field.type)]
            others = [column for column in table.column_names if column not in numbers]
            pq.write_table(
                table, folder / f"{name}.parquet", compression="zstd", compression_level=19,
                use_dictionary=others, use_byte_stream_split=numbers,
            )  # fmt: skip
        return {"kind": PACK}

    # Built aside: a write that is killed leaves the pack of before.
    staging = target.with_name(f".{target.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    build_folder(staging, build)
    shutil.rmtree(target, ignore_errors=True)
    staging.rename(target)


def write(study: Annotated[Study, typer.Argument(help="study of this home")]) -> None:
    """Publish the rows of a study, and of some the landing folders."""
    if study == REGISTERED:
        bring_up_to_date()
        place = FOLDER / study
        counts = publish_registered(study, place, home() / "landing")
        published = published_seeds(place / "landing")
        for seed, (landed, planned) in counts.items():
            state = "published" if seed in published else "not complete"
            typer.echo(f"seed {seed}: {landed} of {planned} evaluations, {state}")
        size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        typer.echo(f"{place}: {size / 1e6:.2f} MB")
        return

    if study == MOVED:
        bring_up_to_date()
        (FOLDER / study).mkdir(exist_ok=True)
        publish_moved(FOLDER / study, home() / "landing")
        return

    publish(study, FOLDER / study)
    if study == "study":
        with reading() as con:
            write_rows(rows_by_seed(con, study), FOLDER / study / "by_seed.parquet")
    if study in PACKED:
        publish_landing(study, FOLDER / study / "landing", home() / "landing")


if __name__ == "__main__":
    run(write)
