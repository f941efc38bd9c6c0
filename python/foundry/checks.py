"""Arguments as callers give them: the value, or a ValueError that says what was expected and found."""

from __future__ import annotations

import operator
from typing import Any

MOST_COUNT = (1 << 32) - 1  # of tokens, rows, threads
MOST_BYTES = (1 << 63) - 1


def whole(name: str, value: Any, least: int = 0, most: int = MOST_COUNT) -> int:
    """A whole number from ``least`` to ``most``; numpy's are fine, booleans and floats are not."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not least <= number <= most:
        raise ValueError(f"{name}: expected a whole number from {least} to {most}, found {value!r}")
    return number


def is_default(value: Any) -> bool:
    """None, or -1 as many programs write it: where that is said to be fine, the default is meant."""
    try:
        return value is None or operator.index(value) == -1
    except TypeError:
        return False


def text(name: str, value: Any) -> str:
    """Text that UTF-8 can spell."""
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected text, found {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: expected Unicode, found half a surrogate pair at {error.start}") from None
    return value


def real(name: str, value: Any) -> float:
    """A number; what it may be is its user's business."""
    if isinstance(value, bool | str | bytes):
        raise ValueError(f"{name}: expected a number, found {value!r}")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: expected a number, found {value!r}") from None
