"""What a model file says of itself, as architectures read it: keys of the wanted type within bounds, and its tensors.

A missing or wrong key is a ModelFormatError that names it. A header knows which keys were asked for, so that the rest
can be refused (``understood.refuse_keys``).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from foundry import _core
from foundry.errors import ModelFormatError


class Header:
    """Keys are given without the architecture's name, which is put before them.

    Attributes:
        head_multiple: what a page's rows of K and V hold a multiple of: K and V of other dims are filled up with zeros.
        architecture: the name, as ``general.architecture`` has it.
        metadata: all keys and values of the file.
        tensors: name -> (rows, cols); a vector has one row.
        tables: values that other files have as tensors and these compute: divisors of rope's frequencies, by name.
        reordered: rows of Q and K are where GGUF's converters put them (``rope.REORDERED``).
        keys_read: full names of the keys that were asked for, found or not.
        tensors_left: names of tensors that the graph has a reason not to use.
    """

    def __init__(
        self,
        architecture: str,
        metadata: Mapping[str, Any],
        tensors: Mapping[str, tuple[int, int]],
        head_multiple: int = 8,
        tables: Mapping[str, Sequence[float]] | None = None,
        reordered: bool = True,
    ) -> None:
        self.architecture, self.metadata, self.tensors = architecture, metadata, tensors
        self.head_multiple = head_multiple
        self.tables, self.reordered = tables or {}, reordered
        self.keys_read: set[str] = set()
        self.tensors_left: set[str] = set()

    def __contains__(self, key: str) -> bool:
        """Whether the file has the key."""
        return self._name(key) in self.metadata

    def integer(self, key: str, default: int | None = None, least: int = 1, most: int = 1 << 31) -> int:
        """A whole number from ``least`` below ``most``; needed where there is no default."""
        name, value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < most:
            raise ModelFormatError(f"{name}: expected a whole number from {least} below {most}, found {value!r}")
        return value

    def same_integer(self, key: str, default: int | None = None) -> int:
        """A whole number above 0; or one for each layer, all the same, for layers that differ are not supported."""
        name, value = self._get(key, default)
        if isinstance(value, list | _core.MetadataArray):
            values = list(value)
            if not values or any(one != values[0] for one in values):
                shown = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
                raise ModelFormatError(f"{name}: expected the same number for each layer, found {shown}")
            value = values[0]
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 31:
            raise ModelFormatError(f"{name}: expected a whole number from 1 below {1 << 31}, found {value!r}")
        return value

    def each_layer(self, key: str) -> list[int]:
        """A whole number from 0 for each of ``block_count`` layers; or one, for all of them."""
        n_layers = self.integer("block_count", most=1 << 16)
        name, value = self._get(key, None)
        values = list(value) if isinstance(value, list | _core.MetadataArray) else [value] * n_layers
        if len(values) != n_layers:
            raise ModelFormatError(f"{name}: expected a number for each of {n_layers} layers, found {len(values)}")
        for one in values:
            if isinstance(one, bool) or not isinstance(one, int) or not 0 <= one < 1 << 31:
                raise ModelFormatError(f"{name}: expected whole numbers from 0 below {1 << 31}, found {one!r}")
        return values

    def not_negative(self, key: str, default: float = 0.0) -> float:
        """A number from 0, which mostly means that a thing is not done, to 1e30."""
        name, value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e30:
            raise ModelFormatError(f"{name}: expected a number that is not below 0, found {value!r}")
        return float(value)

    def real(self, key: str, default: float | None = None) -> float:
        """A number above 0 and below 1e30; needed where there is no default."""
        name, value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            raise ModelFormatError(f"{name}: expected a number above 0, found {value!r}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Yes or no."""
        name, value = self._get(key, default)
        if not isinstance(value, bool):
            raise ModelFormatError(f"{name}: expected yes or no, found {value!r}")
        return value

    def flags(self, key: str, default: list[bool]) -> list[bool]:
        """Yes or no (or 1 or 0) for each layer, as many as the default has."""
        name, value = self._get(key, default)
        found = list(value) if isinstance(value, list | _core.MetadataArray) else None
        if found is None or len(found) != len(default) or any(one not in (0, 1) for one in found):
            raise ModelFormatError(f"{name}: expected yes or no for each of {len(default)} layers, found {value!r}")
        return [bool(one) for one in found]

    def has_table(self, name: str | None) -> bool:
        """As a tensor or among ``tables``."""
        return name is not None and (name in self.tensors or name in self.tables)

    def choice(self, key: str, default: str, allowed: Collection[str]) -> str:
        """A word that is one of those allowed."""
        name, value = self._get(key, default)
        if not isinstance(value, str) or value not in allowed:
            raise ModelFormatError(f"{name}: expected {' or '.join(map(repr, allowed))}, found {value!r}")
        return value

    def expect(self, key: str, *allowed: Any) -> None:
        """Of a key which says what is done anyway: refuses the file where it asks for something else than these values.

        An array has one of them in each place. A file need not have the key.
        """
        name = self._name(key)
        self.keys_read.add(name)
        if name in self.metadata:
            refuse_others(name, self.metadata[name], allowed)

    def ignore(self, *keys: str) -> None:
        """Of keys that say nothing in this file, whatever their value."""
        self.keys_read.update(map(self._name, keys))

    def _name(self, key: str) -> str:
        return f"{self.architecture}.{key}"

    def _get(self, key: str, default: object) -> tuple[str, Any]:
        name = self._name(key)
        self.keys_read.add(name)
        return name, self.metadata.get(name, default)


def refuse_others(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raises ModelFormatError for a value that is none of those ``allowed``."""
    if not _is_one_of(value, allowed):
        expected = " or ".join(map(_shown, allowed))
        raise ModelFormatError(f"{name}: expected {expected}, found {_shown(value)}, which is not supported")


def _is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    if isinstance(value, list | _core.MetadataArray):
        return all(_is_one_of(one, allowed) for one in value)
    if isinstance(value, str):
        return value in allowed
    numbers = [a for a in allowed if not isinstance(a, str)]
    return any(math.isclose(value, a, rel_tol=1e-6) for a in numbers)  # files hold 32-bit floats


def _shown(value: Any) -> str:
    return f"{value:.7g}" if isinstance(value, float) else repr(value)
