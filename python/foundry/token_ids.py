"""What callers feed: token ids as the core takes them, and whose they were where the core names a fault."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from foundry.errors import NumericError

if TYPE_CHECKING:
    from foundry.session import Session

TokenIds = Sequence[int] | npt.NDArray[np.integer[Any]]


def as_ids(token_ids: TokenIds) -> npt.NDArray[np.int32]:
    """[n] int32; ValueError for anything else than one row of whole numbers."""
    array = np.asarray(token_ids)
    if array.size == 0:
        array = array.astype(np.int32)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"token_ids: expected one row of whole numbers, found shape {array.shape}, dtype {array.dtype}"
        )
    if array.size and not (int(array.min()) >= -(1 << 31) and int(array.max()) < 1 << 31):
        raise ValueError("token_ids: expected ids of the vocabulary, found one past 32 bits")
    return np.ascontiguousarray(array, dtype=np.int32)


@contextmanager
def named(*sessions: Session) -> Iterator[None]:
    """A NumericError of the core names a session by its place in the batch; callers get the session."""
    try:
        yield
    except NumericError as error:
        if isinstance(error.session, int):
            error.session = sessions[error.session]
        raise
