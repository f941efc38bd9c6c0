"""SentencePiece's ``precompiled_charsmap``: what characters are replaced by before a text is encoded.

A length in 32 bits, so many bytes of a trie in a double array of 32-bit units, and texts that end with a zero byte.
A unit has the base of its children in bits 10 to 30 (times 256 where bit 9 is set), whether it is a leaf in bit 8, and
its own byte in bits 0 to 7; a leaf's unit has a text's place and bit 31. (Kanda et al., 2018, "Space- and
time-efficient string dictionaries"; llama.cpp's xcda_array_view.)
"""

from __future__ import annotations

import struct
from typing import Any

from foundry import _core
from foundry.errors import ModelFormatError

_KEY = "tokenizer.ggml.precompiled_charsmap"


class CharactersMap:
    def __init__(self, value: Any) -> None:
        """``value``: bytes as a list of numbers, or None for a map that replaces nothing."""
        self._units: tuple[int, ...] = ()
        self._texts = b""
        if value is None:
            return
        numbers = value.to_list() if isinstance(value, _core.MetadataArray) else value
        if not isinstance(numbers, list) or not all(isinstance(n, int) and -128 <= n < 256 for n in numbers):
            raise ModelFormatError(f"{_KEY}: expected bytes, found something else")
        data = bytes(n & 255 for n in numbers)
        size = int.from_bytes(data[:4], "little")
        if len(data) < 4 or size + 4 >= len(data):
            raise ModelFormatError(f"{_KEY}: expected a trie of {size} bytes and texts, found {len(data)} bytes")
        self._units = struct.unpack(f"<{size // 4}I", data[4 : 4 + size // 4 * 4])
        self._texts = data[4 + size :]

    def apply(self, text: str) -> str:
        """With the longest beginning of what is left replaced, again and again."""
        if not self._units:
            return text
        data, made, at = text.encode(), bytearray(), 0
        while at < len(data):
            length, place = self._longest(data, at)
            if length:
                made += self._texts[place : self._end(place)]
            else:
                length = _length(data[at])
                made += data[at : at + length]
            at += length
        return made.decode(errors="replace")

    def _longest(self, data: bytes, begin: int) -> tuple[int, int]:
        """Bytes of the longest beginning that is in the trie, and the place of its replacement."""
        length = place = 0
        node = _base(self._unit(0))
        for at in range(begin, len(data)):
            if data[at] == 0:
                break
            node ^= data[at]
            unit = self._unit(node)
            if unit & 0x800000FF != data[at]:
                break
            node ^= _base(unit)
            if unit >> 8 & 1:
                length, place = at - begin + 1, self._unit(node) & 0x7FFFFFFF
        return length, place

    def _unit(self, node: int) -> int:
        if node >= len(self._units):
            raise ModelFormatError(f"{_KEY}: expected nodes below {len(self._units)}, found {node}")
        return self._units[node]

    def _end(self, place: int) -> int:
        end = self._texts.find(0, place)
        if end < 0:
            raise ModelFormatError(f"{_KEY}: expected a text that ends at {place}, found none")
        return end


def _base(unit: int) -> int:
    return unit >> 10 << ((unit & 1 << 9) >> 6)


def _length(first: int) -> int:
    """Bytes of the character that begins with this one."""
    return 1 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
