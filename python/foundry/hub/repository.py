"""A repository of the hub: what it holds, and how its files come here, through the package huggingface_hub.

That package's own cache begins a file anew when its process has ended; models are large, so they are gathered here,
where a fetch goes on across processes. What its cache holds already is taken from there.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from foundry.errors import ModelFormatError
from foundry.hub.cache import files_of, folder_of, part_of, parts_of, path_of, sum_file, sum_of
from foundry.hub.choosing import choose
from foundry.hub.files import Progress, digest_of, sha256_of, watched
from foundry.hub.telling import quiet, telling
from foundry.memory import format_bytes


@dataclass(frozen=True)
class HubFile:
    """A file as the hub tells it. Large ones have a sha256; of others there is git's id, the sha1 of its object."""

    path: str
    size: int
    sha256: str | None
    git_id: str | None

    @property
    def sum(self) -> str:
        return self.sha256 or self.git_id or f"{self.size:040x}"


def pull_from_hub(repo: str, wanted: str, progress: Progress | None, verify: bool, token: str | None) -> Path:
    """``foundry.pull`` of "repo:wanted"."""
    here = _kept(repo, wanted)
    if wanted and here and not verify:
        return path_of(repo, here)
    if importlib.util.find_spec("huggingface_hub") is None:
        if here:
            return path_of(repo, here)
        raise ValueError(f"{repo}: the hub needs the extra: pip install 'foundry-llm[hub]'")
    try:
        revision, files = _listing(repo, token)
    except ConnectionError as error:  # away, or off: what is here will do
        if not here:
            raise
        return _checked(repo, here, error) if verify else path_of(repo, here)
    chosen = choose(repo, files, wanted)
    _fetch(repo, revision, [files[name] for name in chosen], progress, verify, token)
    return path_of(repo, chosen)


def _kept(repo: str, wanted: str) -> tuple[str, ...]:
    try:
        return choose(repo, files_of(repo), wanted)
    except ValueError:
        return ()


def _checked(repo: str, names: tuple[str, ...], away: Exception) -> Path:
    for name in names:
        path = folder_of(repo) / name
        expected, found = sum_of(path), sha256_of(path)
        if found != expected:
            raise ModelFormatError(
                f"{path}: expected sha256 {expected}, found {found}; it can't be fetched again: {away}"
            ) from away
    return path_of(repo, names)


def _listing(repo: str, token: str | None) -> tuple[str, dict[str, HubFile]]:
    """The commit that the hub gives now, and its files by path."""
    from huggingface_hub import HfApi

    with telling(repo):
        info = HfApi().model_info(repo, files_metadata=True, token=token)
        files = {}
        for one in info.siblings or []:
            lfs = one.lfs
            sha256 = None if lfs is None else str(lfs["sha256"] if isinstance(lfs, dict) else lfs.sha256)
            if _is_plain(one.rfilename):
                files[one.rfilename] = HubFile(one.rfilename, int(one.size or 0), sha256, one.blob_id)
    return str(info.sha), files


def _is_plain(name: str) -> bool:
    """A path that stays in its folder, and is none of the names that the cache has for itself."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and "\\" not in name and not any(p.startswith(".") for p in parts)


def _fetch(
    repo: str, revision: str, files: list[HubFile], progress: Progress | None, verify: bool, token: str | None
) -> None:
    from filelock import FileLock  # huggingface_hub's own

    folder = folder_of(repo)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):  # another process that fetches the same is waited for
        missing = [file for file in files if not _is_here(folder / file.path, file, verify)]
        parts = {file: part_of(folder / file.path, file.sum) for file in missing}
        for file, part in parts.items():
            _make_room_for(folder / file.path, part)
            _take_from_its_cache(repo, revision, file, part)
        total = sum(file.size for file in missing)
        _refuse_a_full_disk(repo, folder, total - sum(map(_size, parts.values())))
        done = 0
        for file, part in parts.items():

            def so_far(done: int = done, part: Path = part) -> int:
                return done + _size(part)

            with watched(so_far, total, progress if file is missing[-1] else _below(progress, total)):
                _gather(repo, revision, file, part, token)
            _put(file, part, folder / file.path)
            done += file.size


def _below(progress: Progress | None, total: int) -> Progress | None:
    """Of all but the last file: the end of one is not the end of all."""
    return None if progress is None else lambda done, of: progress(done, of) if done < total else None


def _is_here(path: Path, file: HubFile, verify: bool) -> bool:
    """Whole, and what the hub has. Without a sum beside it, it is looked at: its fetch may have ended just there."""
    if not path.is_file():
        return False
    kept = sum_of(path)
    found = sha256_of(path) if verify or kept is None else kept
    if found != (file.sha256 or kept):
        return False
    if kept is None:
        _note(path, found)
    return True


def _make_room_for(path: Path, part: Path) -> None:
    """What was gathered of another version goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in parts_of(path):
        if other != part:
            other.unlink()


def _take_from_its_cache(repo: str, revision: str, file: HubFile, part: Path) -> None:
    """Another name for the file that huggingface_hub keeps already, where it is whole and on the same file system."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, file.path, revision=revision)
    if isinstance(found, str) and file.sha256 is not None and _size(Path(found)) == file.size:
        real = Path(os.path.realpath(found))
        if sha256_of(real) != file.sha256:
            return
        try:
            part.unlink(missing_ok=True)
            os.link(real, part)
        except OSError:
            return  # it is fetched instead


def _refuse_a_full_disk(repo: str, folder: Path, needed: int) -> None:
    available = shutil.disk_usage(folder).free
    if needed > available:
        raise OSError(
            errno.ENOSPC,
            f"{repo}: {os.strerror(errno.ENOSPC)}: needed {format_bytes(needed)}, available {format_bytes(available)}",
            str(folder),
        )


def _gather(repo: str, revision: str, file: HubFile, part: Path, token: str | None) -> None:
    """Appends what is missing, and goes on where a connection is cut for as long as each one has brought something."""
    part.touch()
    while True:
        held = _size(part)
        if held > file.size:  # of no use, whatever it is
            held = 0
            os.truncate(part, held)
        try:
            with telling(repo), quiet():
                _append(repo, revision, file, part, token)
            return
        except ConnectionError:
            if _size(part) <= held:
                raise


def _append(repo: str, revision: str, file: HubFile, part: Path, token: str | None) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    with part.open("r+b", buffering=0) as gathered:
        http_get(
            hf_hub_url(repo, file.path, revision=revision),
            gathered,
            resume_size=gathered.seek(0, os.SEEK_END),
            headers=build_hf_headers(token=token),
            expected_size=file.size,
        )
        os.fsync(gathered.fileno())


def _put(file: HubFile, part: Path, path: Path) -> None:
    """Checks the file and gives it its name; what is not what the hub promised goes."""
    found = sha256_of(part)
    expected, kind, seen = file.sha256, "sha256", found
    if expected is None and file.git_id is not None:
        expected, kind = file.git_id, "git id"
        seen = digest_of(part, hashlib.sha1(b"blob %d\0" % _size(part)))
    if expected is not None and seen != expected:
        part.unlink()
        raise ModelFormatError(f"{file.path}: expected {kind} {expected}, found {seen}; nothing is kept of it")
    sum_file(path).unlink(missing_ok=True)  # of an older version
    os.replace(part, path)
    _note(path, found)


def _note(path: Path, sha256: str) -> None:
    sum_file(path).write_text(f"{sha256}  {path.name}\n", encoding="utf-8")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
