"""The landing folders of a published study, which another machine takes over to go on with it.

Pooled figures resample the cases of all pairs together, so that the rows of a view do not do:
who trains one more seed elsewhere needs the predictions of those before. `triage warehouse
merge FOLDER` takes them over.
"""

from __future__ import annotations

from pathlib import Path

from warehouse.connect import reading
from warehouse.merge import copy_folder

# Baselines are made again in seconds, and further evaluation sets are in no pooled figure.
_IDS = """
WITH judged AS (
    SELECT evaluation_id, training_id
    FROM study_member
    JOIN evaluation ON evaluation_id = id
    JOIN experiment USING (training_id)
    WHERE study = $study AND evaluation_set = 'test' AND recipe_kind IN ('standard', 'safety')
)
SELECT evaluation_id AS id FROM judged
UNION
SELECT training_id FROM judged
UNION
SELECT sweep_id FROM sweep JOIN sweep_member USING (sweep_id) WHERE study = $study
UNION
SELECT dataset_id FROM dataset JOIN sweep USING (dataset_digest) WHERE study = $study
ORDER BY id
"""


def publish_landing(
    study: str, folder: Path, landing: Path, database: Path | None = None
) -> list[str]:
    """Copy the study's landing folders from `landing` into `folder`, and return their ids.

    Folders of `folder` that this warehouse does not know stay: other machines trained those.
    """
    with reading(database) as con:
        rows = con.execute(_IDS, {"study": study}).fetchall()

    ids = [str(id) for (id,) in rows if (landing / str(id)).is_dir()]
    for id in ids:
        copy_folder(landing / id, folder / id)
    return ids
