"""What the frozen prefixes of a plan take on disk, and whether their budget has room for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.plan import PlannedCell, variant_here
from flows.plan_operations import INSTRUCTION_TOKENS, OWN_TOKENS_PER_CASE, size_of
from flows.selection import moves_of
from flows.set_sizes import further_size, set_size
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prepare import dataset_folder
from tasks.precisions import Precision
from tasks.runtime.backend import backend
from tasks.runtime.errors import BrokenFolder, SourceUnavailable
from tasks.runtime.home import home
from tasks.runtime.store import ManifestDict, read_manifest
from tasks.spec import BaseModelSpec, ExperimentSpec, Grid
from tasks.tuning.prefix_space import DiskSpace, pays, saving, stored_bytes

BYTES_OF = {"float32": 4, "bfloat16": 2}
LEARNED = ("train", "valid")
SCORED = ("calibration", "test")
SetSizes = dict[str, int]


@dataclass(frozen=True)
class Reader:
    """What reads the same prefixes: a variant from a boundary on, with one prompt and window.

    `prompt`: its title, since the prompt itself, with answer words, cannot be a key.
    """

    model: BaseModelSpec
    precision: Precision
    group_size: int
    layers: int
    prompt: str
    max_tokens: int

    @classmethod
    def of(cls, spec: ExperimentSpec, layers: int, precision: Precision) -> Reader:
        """The reader that has so many blocks left to compute."""
        training = spec.training
        return cls(
            spec.model,
            precision,
            training.group_size,
            layers,
            spec.prompt.title,
            training.max_tokens,
        )

    @property
    def blocks(self) -> int:
        """All blocks of the model."""
        return size_of(self.model.name).blocks

    @property
    def boundary(self) -> int:
        """The frozen blocks."""
        return max(0, self.blocks - self.layers)

    def bytes_of(self, sets: SetSizes) -> int:
        """About how many bytes its prefixes of sets of so many cases take."""
        tokens = sum(INSTRUCTION_TOKENS + OWN_TOKENS_PER_CASE * cases for cases in sets.values())
        return tokens * size_of(self.model.name).hidden_size * BYTES_OF[backend().compute_dtype]


@dataclass(frozen=True)
class PlannedPrefixes:
    """About how many bytes the prefixes of a plan take that are not stored yet, and what there is
    room for. `saved`: the share of a step that they save at most.
    """

    needed: int
    space: DiskSpace
    saved: float

    @property
    def have_room(self) -> bool:
        """Whether all of them can be stored."""
        return self.needed <= self.space.room

    @property
    def sentence(self) -> str:
        """What they need; where there is no room, the slower path and the remedy."""
        if not self.have_room:
            return self.space.lack("not enough room", self.needed, self.saved)
        budget = f"{self.space.room / 1e9:.2f} GB that their budget leaves"
        return f"about {self.needed / 1e9:.2f} GB for what frozen blocks compute, of {budget}."


def planned_prefixes(grid: Grid, cells: Collection[PlannedCell]) -> PlannedPrefixes:
    """The prefixes of what is not done of a plan. Raises BadInput for a budget that is no number.

    What is stored for the same variants at the same boundaries counts as theirs if it is of their
    cases; where these are not prepared yet, whatever cases it is of.
    """
    variants = {(cell.spec.model.name, cell.spec.precision.name) for cell in cells}
    read: dict[Reader, SetSizes] = {}
    for cell in cells:
        for reader, sets in () if cell.scored else _reads(grid, cell, variants):
            if pays(reader.boundary, reader.blocks):
                read[reader] = read.get(reader, {}) | sets

    needed = sum(reader.bytes_of(sets) for reader, sets in read.items())
    saved = max((saving(reader.boundary, reader.blocks) for reader in read), default=0.0)
    space = DiskSpace.of(home() / "prefixes")
    return PlannedPrefixes(max(0, needed - _stored_for(read, _set_digests(grid))), space, saved)


def _reads(
    grid: Grid, cell: PlannedCell, variants: Collection[tuple[str, str]]
) -> Iterator[tuple[Reader, SetSizes]]:
    """What an experiment, its untuned model and its moved adapters read."""
    spec = cell.spec
    layers = spec.training.num_layers
    further = {entry.name: further_size(spec.data, entry) for entry in grid.evaluation_sets}
    scored = {name: set_size(spec.data, name) for name in SCORED} | further
    learned = {} if cell.trained else {name: set_size(spec.data, name) for name in LEARNED}
    yield Reader.of(spec, layers, spec.precision), learned | scored
    yield Reader.of(spec, grid.training.num_layers, spec.precision), scored

    moved = {name: size for name, size in scored.items() if name != "calibration"}
    for precision in moves_of(grid, spec, variants):
        yield Reader.of(spec, layers, precision), moved


def _set_digests(grid: Grid) -> dict[str, str] | None:
    """The digests of a grid's sets by their names; None where they are not prepared here."""
    try:
        folder = dataset_folder(grid.data, home(), grid.evaluation_sets)
    except SourceUnavailable:
        return None
    dataset = DatasetManifest.read_if_complete(folder)
    if dataset is None:
        return None
    return {name: entry.digest for name, entry in dataset.sets.items()}


def _stored_for(read: Mapping[Reader, SetSizes], digests: Mapping[str, str] | None) -> int:
    """Bytes of the stored prefixes of these variants at these boundaries, and of these cases.

    A prefix of an earlier version does not say of which cases it is; it counts as theirs.
    """
    set_digests: dict[tuple[str, int], set[str]] = defaultdict(set)
    for reader, sets in read.items():
        variant = variant_here(reader.model, reader.precision, reader.group_size)
        if variant is not None:
            set_digests[variant.digest, reader.boundary] |= {
                digests[name] for name in sets if digests
            }

    prefixes = home() / "prefixes"
    stored = {folder.name: _manifest_of(folder) for folder in prefixes.glob("*")}
    return sum(
        stored_bytes(prefixes, name)
        for name, manifest in stored.items()
        if _is_for_sets(manifest, set_digests, digests is not None)
    )


def _manifest_of(prefix: Path) -> ManifestDict:
    """The manifest of a stored prefix; empty where it is damaged, so that the prefix is made again."""
    try:
        return read_manifest(prefix) or {}
    except BrokenFolder:
        return {}


def _is_for_sets(
    manifest: ManifestDict, set_digests: Mapping[tuple[str, int], set[str]], is_prepared: bool
) -> bool:
    sets = set_digests.get((manifest.get("variant", ""), manifest.get("boundary", 0)))
    if sets is None:
        return False
    set_digest = manifest.get("set_digest")
    return not is_prepared or not set_digest or set_digest in sets
