"""Errors keep their figures wherever they go: through copies, pickles and other processes."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import pickle
from collections.abc import Callable

import pytest
from foundry import errors

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.FoundryError)]


class _OfTheUsers(errors.FoundryError):
    """A class whose constructor takes other things than its message."""

    def __init__(self, row: int, *, why: str) -> None:
        super().__init__(f"row {row}: {why}")
        self.row, self.why = row, why


def made(kind: type[errors.FoundryError]) -> errors.FoundryError:
    """An error with another number in each of its fields."""
    if kind is _OfTheUsers:
        return _OfTheUsers(3, why="x")
    own = kind.__init__ is not Exception.__init__
    fields = list(inspect.signature(kind.__init__).parameters)[2:] if own else []  # after self and the message
    return kind("needed 7, available 5", *range(7, 7 + len(fields)))


def fail(kind: type[errors.FoundryError]) -> None:
    raise made(kind)


WAYS: list[Callable[[errors.FoundryError], errors.FoundryError]] = [
    copy.copy,
    copy.deepcopy,
    *(lambda error, p=p: pickle.loads(pickle.dumps(error, p)) for p in range(pickle.HIGHEST_PROTOCOL + 1)),
]


@pytest.mark.parametrize("kind", [*KINDS, _OfTheUsers])
def test_copies_and_pickles_are_the_same(kind: type[errors.FoundryError]) -> None:
    error = made(kind)
    for way in WAYS:
        again = way(error)
        assert type(again) is kind and again is not error
        assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))


def test_the_figures_have_their_names() -> None:
    overflow = pickle.loads(pickle.dumps(errors.ContextOverflowError("context", 600, 512)))
    assert (str(overflow), overflow.needed, overflow.available) == ("context", 600, 512)
    shortage = copy.copy(errors.MemoryLimitError("K/V", 1 << 40, 3))
    assert (str(shortage), shortage.needed_bytes, shortage.available_bytes) == ("K/V", 1 << 40, 3)


def test_a_pool_of_processes_tells_the_error() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for kind in KINDS:
            with pytest.raises(kind) as caught:
                pool.apply_async(fail, (kind,)).get(timeout=60)
            assert vars(caught.value) == vars(made(kind)) and str(caught.value) == str(made(kind))
