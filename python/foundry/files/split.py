"""Models split into several GGUF files, as llama.cpp's ``gguf-split`` writes them: ``name-00001-of-00003.gguf`` and so
on. The first part has the metadata, each its own tensors, and all say which of how many they are."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry import _core
from foundry.errors import ModelFormatError

PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)  # how files of a split model are named
NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"
MOST_PARTS = 99_999  # as many as names can tell


def parts_of(file: _core.GgufFile, header_only: bool = False) -> list[_core.GgufFile]:
    """All parts of the model, in order, of which ``file`` is any; the file alone where it is whole.

    Raises:
        ModelFormatError: a part is missing, or what the parts say of themselves does not agree.
    """
    metadata = file.metadata
    if COUNT not in metadata:
        return [file]
    count = _whole(file, COUNT, 1, MOST_PARTS)
    if count == 1:
        return [file]
    number = _whole(file, NUMBER, 0, count - 1)
    names = _names(file.path, number, count)
    parts = [file if i == number else _part(name, i, count, header_only) for i, name in enumerate(names)]
    first = parts[0].metadata
    for i, part in enumerate(parts):
        if (found := _whole(part, COUNT, 1, MOST_PARTS)) != count:
            raise ModelFormatError(f"{COUNT}: expected {count}, as {file.path} has it, found {found} in {part.path}")
        if (found := _whole(part, NUMBER, 0, count - 1)) != i:
            raise ModelFormatError(f"{NUMBER}: expected {i} in {part.path} by its name, found {found}")
        if (said := part.metadata.get("general.architecture", first.get("general.architecture"))) != first.get(
            "general.architecture"
        ):
            raise ModelFormatError(
                f"split: expected parts of one model, found {first.get('general.architecture')!r} in {names[0]}"
                f" and {said!r} in {part.path}"
            )
    wanted, tensors = _whole(parts[0], TENSORS, 0, 1 << 31), sum(len(part.tensors) for part in parts)
    if wanted != tensors:
        raise ModelFormatError(f"{TENSORS}: expected {wanted} tensors in all {count} parts, found {tensors}")
    return parts


def without_keys(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of the whole model: a part's, without what it says of itself as a part."""
    return {key: value for key, value in metadata.items() if key not in (NUMBER, COUNT, TENSORS)}


def part_by_name_alone(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """(number from 1, count) of a file that is a part by its name and does not say so itself."""
    name = PART.search(os.fsdecode(path))
    if name is None or int(name[2]) < 2:
        return None
    try:
        says = COUNT in _core.GgufFile(os.fsdecode(path), header_only=True).metadata
    except (OSError, ModelFormatError):
        says = False
    return None if says else (int(name[1]), int(name[2]))


def _names(path: str, number: int, count: int) -> list[str]:
    """Of all parts, made of one's."""
    named = PART.search(path)
    wanted = f"-{number + 1:05d}-of-{count:05d}.gguf"
    if named is None or (int(named[1]), int(named[2])) != (number + 1, count):
        found = Path(path).name
        raise ModelFormatError(
            f"{COUNT}: expected a name that ends in {wanted}, for the file says that it is part {number + 1} of {count}"
            f" and the others are found by it; found {found!r}"
        )
    stem = path[: named.start()]
    ending = path[named.end() - len(".gguf") :]
    return [f"{stem}-{i + 1:05d}-of-{count:05d}{ending}" for i in range(count)]


def _part(name: str, number: int, count: int, header_only: bool) -> _core.GgufFile:
    try:
        return _core.GgufFile(name, header_only)
    except FileNotFoundError:
        raise ModelFormatError(
            f"{COUNT}: expected all {count} parts in one folder, found no part {number + 1}, {name}"
        ) from None


def _whole(part: _core.GgufFile, key: str, least: int, most: int) -> int:
    value = part.metadata.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ModelFormatError(f"{key}: expected a whole number from {least} to {most} in {part.path}, found {value!r}")
    return value
