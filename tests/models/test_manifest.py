"""Manifests of source folders and variants as classes, those of earlier versions too."""

import json
from pathlib import Path

import pytest

from tasks.grids.grid import known_models
from tasks.models.convert import run_quantize
from tasks.models.manifest import SourceManifest, VariantManifest
from tasks.models.sources.fetch import fetch_base
from tasks.runtime import store
from tasks.runtime.errors import BrokenFolder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return fetch_base(known_models()["tiny-llama"], tmp_path)


def variant_of(source: Path, root: Path) -> Path:
    return Path(run_quantize({"source": str(source), "root": str(root), "bits": 4, "group_size": 64})["folder"])


def reseal(folder: Path, without: str) -> None:
    """Seal a folder again with a manifest that lacks one key, as an earlier version may have written it."""
    manifest = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))
    extra = {
        key: value for key, value in manifest.items() if key not in ("files", "digest", "check", "created", without)
    }
    store.seal(folder, extra, list(manifest["files"]))


def test_the_classes_hold_what_the_manifests_say(source, tmp_path):
    written = store.verify(source)
    fetched = SourceManifest.read(source)
    assert (fetched.digest, fetched.format, fetched.seed) == (written["digest"], "random", 0)
    assert fetched.source.model_dump(exclude_unset=True) == written["source"]

    folder = variant_of(source, tmp_path)
    written = store.verify(folder)
    variant = VariantManifest.read(folder)
    assert {key: written[key] for key in written if key not in ("files", "check", "created")} == variant.model_dump(
        exclude_unset=True
    )
    assert (variant.bits, variant.group_size, variant.source_digest) == (4, 64, fetched.digest)
    assert variant.has_chat_template and variant.random_weights and variant.fetched_file_digest is None


def test_a_variant_of_an_earlier_version_is_read(source, tmp_path):
    folder = variant_of(source, tmp_path)
    reseal(folder, without="file_digest")
    variant = VariantManifest.read(folder)
    assert variant.file_digest is None and variant.terms is None


def test_a_manifest_without_a_needed_key_names_folder_key_and_remedy(source, tmp_path):
    folder = variant_of(source, tmp_path)
    reseal(folder, without="tokenizer_digest")
    with pytest.raises(BrokenFolder, match=f"{folder}.*: tokenizer_digest: Field required; delete the folder"):
        VariantManifest.read(folder)


def test_the_digest_of_the_fetched_file_falls_back_to_that_of_its_source(source):
    manifest = SourceManifest.read(source)
    package = manifest.source.model_copy(update={"kind": "package", "sha256": "ab" * 32})
    assert manifest.model_copy(update={"source": package}).fetched_file_digest == "ab" * 32
