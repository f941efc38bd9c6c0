"""JSON of model directories, read within bounds."""

from __future__ import annotations

import json
from typing import Any

from foundry.errors import ModelFormatError


def parse(data: bytes, place: str) -> dict[str, Any]:
    """Keys and values.

    Raises:
        ModelFormatError: which begins with ``place``: it is no JSON, has a key twice, or is no object.
    """
    found = _parsed(data, place)
    if not isinstance(found, dict):
        raise ModelFormatError(f"{place}: expected keys and values, found {type(found).__name__}")
    return found


def _parsed(data: bytes, place: str) -> Any:
    try:
        return json.loads(data.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:  # also what is no UTF-8, and numbers of too many digits
        raise ModelFormatError(f"{place}: expected JSON, found {type(error).__name__}: {error}"[:500]) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:80]!r} twice")
        if not key.isascii():
            key.encode()  # or it has halves of surrogate pairs, which are no text
        found[key] = value
    return found


def read(path: str, most: int) -> dict[str, Any]:
    """Of a file of at most ``most`` bytes; OSError where it can't be read."""
    return parse(_bytes(path, most), path)


def read_list(path: str, most: int) -> list[Any]:
    """The same of a file that is a list."""
    found = _parsed(_bytes(path, most), path)
    if not isinstance(found, list):
        raise ModelFormatError(f"{path}: expected a list, found {type(found).__name__}")
    return found


def _bytes(path: str, most: int) -> bytes:
    with open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ModelFormatError(f"{path}: expected at most {most} bytes, found more")
    return data
