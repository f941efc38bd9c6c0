"""How a file says that its model makes embeddings: ``pooling_type`` of its architecture, in llama.cpp's numbers.

A decoder's file with it is an embedding model, and still makes text where it has weights for that, as in llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foundry.errors import ModelFormatError

NONE, MEAN, CLS, LAST, RANK = range(5)  # gguf-py: PoolingType
NAMES = {MEAN: "mean", CLS: "cls", LAST: "last"}


def key_of(metadata: Mapping[str, Any]) -> str:
    return f"{metadata.get('general.architecture')}.pooling_type"


def pooling_of(metadata: Mapping[str, Any]) -> str | None:
    """ "mean", "cls" or "last"; None where the file names none of them."""
    return NAMES.get(_number(metadata))


def told(metadata: Mapping[str, Any]) -> str:
    """What the file says instead, for errors."""
    number = _number(metadata)
    if number < 0:
        return "no such key"
    return {NONE: "0, a row for each token", RANK: "4, a score for a pair of texts"}.get(number, str(number))


def _number(metadata: Mapping[str, Any]) -> int:
    name = key_of(metadata)
    number = metadata.get(name, -1)
    if isinstance(number, bool) or not isinstance(number, int):
        raise ModelFormatError(f"{name}: expected a whole number, found {number!r}")
    return number
