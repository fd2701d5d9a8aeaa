"""How many cases the sets of a grid have, for estimates: rows are counted, and nothing is prepared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from tasks.corpus.four_sets import split_shares
from tasks.corpus.reading.set_files import Files
from tasks.corpus.reading.sources import is_hub, locate
from tasks.corpus.reading.tables import check_readable, read_rows
from tasks.corpus.vignettes.adversarial import SIZES as ADVERSARIAL_SIZES
from tasks.corpus.vignettes.generator import SIZES
from tasks.corpus.vignettes.sets import added_to_valid
from tasks.spec import Data, EvaluationSet


def set_size(data: Data, name: str) -> int:
    """Cases of one of the four sets, within its limit.

    Rows of a user's own files are counted, with repeats; of a dataset on the Hub, which is not
    fetched for this, a set has as many as the embedded one. Raises BadInput for unreadable files.
    """
    size = _whole_size(data, name)
    limits: Mapping[str, int] = {str(key): limit for key, limit in data.limits.items()}
    return min(size, limits.get(name, size))


def further_size(data: Data, entry: EvaluationSet) -> int:
    """Cases of a further evaluation set; on the Hub, as many as test has. Raises BadInput."""
    if entry.source == "embedded":
        return ADVERSARIAL_SIZES[entry.name]
    if is_hub(entry.source, entry.folder):
        return set_size(data, "test")

    files = locate(entry.source, entry).files
    return _rows_of(files.get("test") or [path for paths in files.values() for path in paths])


def _whole_size(data: Data, name: str) -> int:
    if data.source == "embedded":
        further_cases = added_to_valid(data.contrast_share) if name == "valid" else 0
        return data.sizes.get(name, SIZES[name]) + further_cases
    if is_hub(data.source, data.folder):
        return SIZES[name]
    return _own_size(locate(data.source, data).files, split_shares(data), name)


def _own_size(files: Files, shares: Mapping[str, float], name: str) -> int:
    """Rows of a set that is given; else its share of the table, or of train, that it is split off."""
    if "all" in files:
        return round(shares[name] * _rows_of(files["all"]))
    if name in files and name != "train":
        return _rows_of(files[name])

    split = ["train", *(other for other in ("valid", "calibration") if other not in files)]
    share = shares[name] / sum(shares[other] for other in split)
    return round(share * _rows_of(files["train"]))


def _rows_of(paths: Sequence[Path]) -> int:
    return sum(map(_rows, paths))


def _rows(path: Path) -> int:
    check_readable(path)
    state = path.stat()
    return _counted_rows(path, state.st_mtime_ns, state.st_size)


@lru_cache
def _counted_rows(path: Path, _modified: int, _bytes: int) -> int:
    """Rows of a table, counted once while the file stays as it is."""
    return sum(1 for _ in read_rows(path))
