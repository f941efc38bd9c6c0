"""Embeddings: texts as rows of numbers, pooled of what the model makes of their tokens (``CompiledModel.embed``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from foundry import _core
from foundry.checks import whole
from foundry.models import pooling
from foundry.token_ids import TokenIds, as_ids
from foundry.tokenizer import Tokenizer

Texts = str | TokenIds | Sequence[str | TokenIds]
Rows = npt.NDArray[np.float32]
_POOLINGS = {"mean": _core.Pooling.mean, "cls": _core.Pooling.cls, "last": _core.Pooling.last}


def pooling_for(metadata: Mapping[str, Any], asked: str | None) -> _core.Pooling:
    """The caller's, or the file's. ValueError where there is none."""
    if asked is not None:
        if asked not in _POOLINGS:
            raise ValueError(f"pooling: expected {', '.join(_POOLINGS)} or None for the file's, found {asked!r}")
        return _POOLINGS[asked]
    name = pooling.pooling_of(metadata)
    if name is None:
        raise ValueError(
            f"embed: expected an embedding model, whose {pooling.key_of(metadata)} is 1 (mean), 2 (cls) or 3 (last),"
            f" found {pooling.told(metadata)}; with pooling= any decoder's hidden states are pooled"
        )
    return _POOLINGS[name]


def ids_of(texts: Texts, tokenizer: Callable[[], Tokenizer]) -> list[npt.NDArray[np.int32]]:
    """Of each text; the tokenizer, which puts BOS and EOS around a text as its file says, is asked for texts alone."""
    made = []
    for place, one in enumerate(_listed(texts)):
        try:
            made.append(as_ids(tokenizer().encode(one) if isinstance(one, str) else one))
        except ValueError as error:
            raise ValueError(f"texts: text {place}: {error}") from None
    return made


def _listed(texts: Any) -> list[Any]:
    if isinstance(texts, str):
        return [texts]
    try:
        listed = list(texts)
    except TypeError:
        raise ValueError(f"texts: expected a text, token ids or a list of either, found {texts!r:.80}") from None
    of_one = bool(listed) and not isinstance(listed[0], str) and np.ndim(listed[0]) == 0  # the token ids of one text
    return [texts if isinstance(texts, np.ndarray) else listed] if of_one else listed


def finished(rows: Rows, dimensions: int | None, normalize: bool) -> Rows:
    """The first ``dimensions`` of each row, and then 1 long, but for rows of zeros."""
    if dimensions is not None:
        rows = rows[:, : whole("dimensions", dimensions, 1, rows.shape[1])]
    if normalize:
        wide = rows.astype(np.float64)
        lengths = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
        rows = (wide / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return np.ascontiguousarray(rows)
