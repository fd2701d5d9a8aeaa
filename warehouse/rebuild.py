"""A new warehouse from the landing folders, which hold all that the old one held."""

from __future__ import annotations

from pathlib import Path

from tasks.runtime.locks import locked
from warehouse.connect import WAIT_SECONDS, unused, utc_now, warehouse_path
from warehouse.landing import LandingManifest
from warehouse.load import LoadReport, landing_folders, load_all, load_folders


def rebuild(root: Path, database: Path | None = None) -> LoadReport:
    """Fill a new warehouse from the landing folders under `root`.

    The old file stays until the new one is complete, and is then kept under another name; what
    landed meanwhile is loaded then. Raises Locked while another process uses the file, or rebuilds
    it.
    """
    path = database or warehouse_path()
    # Beside the old file, so that it can be renamed into its place.
    fresh = path.with_name(f".{path.name}.rebuild")
    with locked(path.with_name(f"{path.name}.rebuild")):
        # Left by a rebuild that was killed.
        fresh.unlink(missing_ok=True)
        _write_ahead_log(fresh).unlink(missing_ok=True)

        report = load_all(root, fresh)
        with unused(path):
            if path.exists():
                report.aside = _move_aside(path)
            fresh.replace(path)

        if later_folders := _landed_since(root, report):
            load_folders(later_folders, report, path, WAIT_SECONDS)

    return report


def _landed_since(root: Path, report: LoadReport) -> list[Path]:
    """Landing folders whose content a load has neither loaded nor refused."""
    folders = [folder for folder in landing_folders(root) if folder.name not in report.refused]
    manifests = [LandingManifest.read_if_complete(folder) for folder in folders]
    return [
        folder
        for folder, manifest in zip(folders, manifests, strict=True)
        if manifest is not None and (folder.name, manifest.digest) not in report.contents
    ]


def _move_aside(path: Path) -> Path:
    """Rename a warehouse, and its log, which must not be replayed into a new one."""
    moment = utc_now().strftime("%Y%m%d-%H%M%S-%f")
    aside = path.with_name(f"{path.name}.damaged-{moment}")
    path.rename(aside)
    if _write_ahead_log(path).exists():
        _write_ahead_log(path).rename(_write_ahead_log(aside))
    return aside


def _write_ahead_log(path: Path) -> Path:
    return path.with_name(path.name + ".wal")
