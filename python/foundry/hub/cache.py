"""What has been fetched and is kept: its names, its sizes, and how it is let go of.

A file of the hub lies at hub/owner/repo/<its path there>, with its sha256 beside it, as ``sha256sum`` writes it. What
is not fetched whole yet has a name of its own (``part_of``).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from foundry.hub.choosing import CONFIG, choose, directory_in, models_in
from foundry.hub.packaged import PACKAGED
from foundry.hub.places import models_dir

_PART = re.compile(r"\.(.+)\.[0-9a-f]{16}\.part")


@dataclass(frozen=True)
class KeptModel:
    """A model in the cache.

    Attributes:
        name: as ``pull`` and ``remove`` take it.
        path: of its file, or the first of them, or of its directory.
        bytes: of all its files.
        unfinished: it is not fetched whole: ``pull`` goes on with it.
    """

    name: str
    path: Path
    bytes: int
    unfinished: bool = False


def folder_of(repo: str) -> Path:
    """Where a repository's files are kept."""
    return models_dir() / "hub" / repo


def path_of(repo: str, model: tuple[str, ...]) -> Path:
    """What is opened of it: the file, or the first of them; or the directory."""
    return folder_of(repo) if model == directory_in(model) else folder_of(repo) / model[0]


def files_of(repo: str) -> list[str]:
    """Paths inside the repository of those that are here whole."""
    folder = folder_of(repo)
    found = [file for file in folder.rglob("*") if file.is_file() and sum_file(file).is_file()]
    return sorted(file.relative_to(folder).as_posix() for file in found)


def sum_file(path: Path) -> Path:
    """Where a file's sha256 is kept. A file without it is not known to be whole."""
    return path.with_name(path.name + ".sha256")


def sum_of(path: Path) -> str | None:
    """The sha256 that was found when the file was fetched."""
    try:
        return sum_file(path).read_text(encoding="utf-8").split()[0]
    except (OSError, ValueError, IndexError):
        return None


def part_of(path: Path, sum_: str) -> Path:
    """Where a file of this sum is gathered until it is whole."""
    return path.with_name(f".{path.name}.{sum_[:16]}.part")


def parts_of(path: Path) -> list[Path]:
    """What was gathered of it, of whatever sum."""
    held = path.parent.iterdir() if path.parent.is_dir() else ()
    return [file for file in held if (found := _PART.fullmatch(file.name)) is not None and found[1] == path.name]


def _repositories() -> list[str]:
    root = models_dir() / "hub"
    return sorted(folder.relative_to(root).as_posix() for folder in root.glob("*/*") if folder.is_dir())


def kept_models() -> list[KeptModel]:
    """By name; those of packages come first."""
    found = []
    for name, packaged in PACKAGED.items():
        path = models_dir() / packaged.member
        if path.is_file():
            found.append(KeptModel(name, path, path.stat().st_size))
    for repo in _repositories():
        folder, names = folder_of(repo), files_of(repo)
        models = models_in(names)
        whole = {name for model in models for name in model}
        for model in [*models, *((name,) for name in names if name not in whole)]:
            size = sum((folder / name).stat().st_size for name in model)
            found.append(KeptModel(f"{repo}:{model[0]}", path_of(repo, model), size, model[0] not in whole))
        for part in sorted(folder.rglob(".*.part")):
            if (gathered := _PART.fullmatch(part.name)) is not None:
                name = part.with_name(gathered[1]).relative_to(folder).as_posix()
                found.append(KeptModel(f"{repo}:{name}", part, part.stat().st_size, True))
    return found


def remove(name: str) -> int:
    """Lets go of a model, or of all of "owner/repo", what is unfinished included. Returns the bytes given back.

    Raises:
        ValueError: nothing of that name is kept; the message has what is.
        OSError: a file can't be removed.
    """
    if name in PACKAGED and (path := models_dir() / PACKAGED[name].member).is_file():
        return _unlink([path])
    repo, _, wanted = name.partition(":")
    if repo not in _repositories():
        kept = ", ".join(model.name for model in kept_models()) or "nothing"
        raise ValueError(f"{name}: expected a model that is kept, found {kept}")
    folder = folder_of(repo)
    if not wanted:
        freed = _unlink([file for file in folder.rglob("*") if file.is_file() or file.is_symlink()])
    else:
        gathered = {part.with_name(_gathered(part)).relative_to(folder).as_posix() for part in folder.rglob(".*.part")}
        held = {*files_of(repo), *gathered}
        model = (wanted,) if wanted in held and not any(wanted in one for one in models_in(held)) else None
        paths = [folder / file for file in model or choose(repo, held, wanted)]
        beside = [file for path in paths for file in (sum_file(path), *parts_of(path))]
        freed = _unlink([file for file in (*paths, *beside) if file.is_file()])
    _remove_empty(folder)
    return freed


def _gathered(part: Path) -> str:
    found = _PART.fullmatch(part.name)
    return part.name if found is None else found[1]


def _unlink(files: list[Path]) -> int:
    freed = 0
    for file in files:
        freed += file.lstat().st_size
        file.unlink()
    return freed


def _remove_empty(folder: Path) -> None:
    """The folders that hold nothing any more, up to the hub's."""
    for one in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        if not any(one.iterdir()):
            one.rmdir()
    while folder != models_dir() / "hub" and folder.is_dir() and {p.name for p in folder.iterdir()} <= {".lock"}:
        (folder / ".lock").unlink(missing_ok=True)
        folder.rmdir()
        folder = folder.parent


def name_of(path: Path) -> str | None:
    """The name under which a file or directory in the cache was pulled; None for any other."""
    real = Path(os.path.realpath(path))
    for name, packaged in PACKAGED.items():
        if real == (models_dir() / packaged.member).resolve():
            return name
    root = (models_dir() / "hub").resolve()
    if not real.is_relative_to(root) or len(parts := real.relative_to(root).parts) < 2:
        return None
    if len(parts) == 2:
        return f"{'/'.join(parts)}:{CONFIG}"
    return f"{'/'.join(parts[:2])}:{'/'.join(parts[2:])}"
