"""The landing rows of a published study, which another machine takes over to go on with it.

Pooled figures resample the cases of all pairs together, so the rows of a view do not suffice: to
train one more seed elsewhere, you need the predictions of the seeds before it. `triage warehouse
merge FOLDER` takes them over.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from warehouse.connect import reading
from warehouse.load import landing_folders
from warehouse.merge import copy_folder
from warehouse.packs import is_pack, unpack, write_pack

# Further evaluation sets are left out for their size.
_IDS = """
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


def publish_landing(
    study: str, pack: Path, landing: Path, database: Path | None = None
) -> list[str]:
    """Add the rows of the study's landing folders in `landing` to `pack`; return their ids.

    What was published stays as it is: other machines trained some of it. Delete the pack to
    publish all rows again.
    """
    with reading(database) as con:
        rows = con.execute(_IDS, {"study": study}).fetchall()
    ids = [str(id) for (id,) in rows if (landing / str(id)).is_dir()]

    with TemporaryDirectory() as name:
        folders = Path(name)
        if is_pack(pack):
            unpack(pack, folders)
        for id in ids:
            if not (folders / id).is_dir():
                copy_folder(landing / id, folders / id)
        write_pack(landing_folders(folders), pack)

    return ids
