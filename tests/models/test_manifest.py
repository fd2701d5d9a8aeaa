"""Manifests of source folders and variants as classes, those of earlier versions too."""

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


def test_the_classes_hold_what_the_manifests_say_those_of_earlier_versions_too(source, tmp_path):
    written = store.verify(source)
    fetched = SourceManifest.read(source)
    assert (fetched.digest, fetched.format, fetched.seed) == (written["digest"], "random", 0)
    assert fetched.source.model_dump(exclude_unset=True) == written["source"]
    package = fetched.source.model_copy(update={"kind": "package", "sha256": "ab" * 32})
    assert fetched.model_copy(update={"source": package}).fetched_file_digest == "ab" * 32

    args = {"source": str(source), "root": str(tmp_path), "bits": 4, "group_size": 64}
    folder = Path(run_quantize(args)["folder"])
    written = store.verify(folder)
    variant = VariantManifest.read(folder)
    kept = {key: value for key, value in written.items() if key not in ("files", "check", "created")}
    assert kept == variant.model_dump(exclude_unset=True)
    assert (variant.bits, variant.group_size, variant.source_digest) == (4, 64, fetched.digest)
    assert variant.has_chat_template and variant.random_weights and variant.fetched_file_digest is None

    def reseal(*without: str) -> None:
        extra = {key: value for key, value in kept.items() if key not in ("digest", *without)}
        store.seal(folder, extra, list(written["files"]))

    reseal("file_digest")
    variant = VariantManifest.read(folder)
    assert variant.file_digest is None and variant.terms is None
    reseal("tokenizer_digest")
    with pytest.raises(BrokenFolder, match=f"{folder}.*: tokenizer_digest: Field required; delete the folder"):
        VariantManifest.read(folder)
