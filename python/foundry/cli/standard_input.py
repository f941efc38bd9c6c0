"""Standard input as text: UTF-8 unless the terminal says otherwise, no byte order mark, lines that end in \\n alone."""

from __future__ import annotations

import sys
from typing import BinaryIO

MARK = "\ufeff"


def everything() -> str:
    """All of it as one prompt; the line break that ends it is not part of it.

    Raises:
        ValueError: bytes that are no text; the message has the first and where it is.
    """
    binary = _binary()
    text = sys.stdin.read() if binary is None else _decoded(binary.read(), 0)
    return text.removeprefix(MARK).replace("\r\n", "\n").removesuffix("\n")


class Lines:
    """The lines of a pipe, one at a time."""

    interactive = False

    def __init__(self) -> None:
        self._offset = 0  # bytes before the next line

    def next(self) -> str | None:
        """A line without its end; None at the end of input.

        Raises:
            ValueError: a line that is no text. The next call goes on behind it.
        """
        start = self._offset
        line = self._read()
        if line == "":
            return None
        return (line.removeprefix(MARK) if start == 0 else line).removesuffix("\n").removesuffix("\r")

    def _read(self) -> str:
        binary = _binary()
        if binary is None:
            line = sys.stdin.readline()
            self._offset += len(line)
            return line
        raw = binary.readline()
        start, self._offset = self._offset, self._offset + len(raw)
        return _decoded(raw, start)


def _binary() -> BinaryIO | None:
    return getattr(sys.stdin, "buffer", None)


def _encoding() -> str:
    """The locale's, where it says more than ASCII."""
    encoding = (getattr(sys.stdin, "encoding", None) or "utf-8").lower()
    return "utf-8" if encoding in ("ascii", "us-ascii", "ansi_x3.4-1968", "646") else encoding


def _decoded(raw: bytes, offset: int) -> str:
    try:
        return raw.decode(_encoding())
    except UnicodeDecodeError as error:
        expected, byte, at = error.encoding.upper(), raw[error.start], offset + error.start
        raise ValueError(f"standard input: expected {expected}, found byte {byte:#x} at {at}") from None
