"""What can go wrong, by whose fault. The core raises these classes; caller faults are plain ``ValueError``."""

from __future__ import annotations

from typing import Any


class FoundryError(Exception):
    """The base of all errors below. Each can be copied and pickled with its attributes."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Python's own way calls the class with the message alone. Where that fails, a process Pool waits for ever.
        return _made_again, (type(self), self.args), self.__dict__


def _made_again(kind: type[FoundryError], args: tuple[Any, ...]) -> FoundryError:
    """An error of this kind, not constructed; its attributes are the state that follows in the pickle."""
    return kind.__new__(kind, *args)


class ContextOverflowError(FoundryError):
    """A run would pass the last position.

    Attributes:
        needed: tokens that the run needs in all.
        available: tokens that there are.
    """

    def __init__(self, message: str, needed: int, available: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.available = available


class MemoryLimitError(FoundryError):
    """Memory that cannot be promised or had.

    Attributes:
        needed_bytes: bytes that the request adds; 0 where the system refused memory and does not say how much.
        available_bytes: bytes that are left.
    """

    def __init__(self, message: str, needed_bytes: int, available_bytes: int) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes


class ModelFormatError(FoundryError):
    """The file's fault: damaged, hostile, or of a kind that is not supported."""


class CancelledError(FoundryError):
    """The call was cancelled; the session is where it was before."""


class NumericError(FoundryError):
    """A row of logits that no token can be drawn from: a NaN or +infinity, or nothing but -infinity. Nothing commits.

    Attributes:
        session: whose row it is: the ``Session``, or its place in the batch where that is not known.
        position: tokens before the row's own.
    """

    def __init__(self, message: str, session: object, position: int) -> None:
        super().__init__(message)
        self.session = session
        self.position = position


class ForkedError(FoundryError):
    """In a forked child: another thread was in a call of this model when the process forked; it can't be used there."""


class ConsistencyError(FoundryError):
    """Two figures that must agree do not: a bug of Foundry's."""
