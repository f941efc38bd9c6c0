"""Reads the case table (kernels.cases, which tells the format), as cases.h does for C++."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from foundry import _core

TABLE = Path(__file__).with_name("kernels.cases")


@dataclass(frozen=True)
class Case:
    """One combination of a line: its op, its settings as text, and whether it is for benches only."""

    op: str
    settings: dict[str, str]
    bench: bool = False

    @property
    def text(self) -> str:
        return " ".join([self.op, *(f"{key}={value}" for key, value in self.settings.items())])

    @property
    def seed(self) -> int:
        """The seed that C++ takes for this case: 64-bit FNV-1a of the text."""
        value = 0xCBF29CE484222325
        for byte in self.text.encode():
            value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
        return value

    def sequences(self) -> list[tuple[int, int]]:
        """(start, rows) of each sequence of the step."""
        parts = (part.split(":") for part in self.settings["sequences"].split("+"))
        return [(int(start), int(rows)) for start, rows in parts]


def values_of(text: str) -> list[str]:
    """What a value stands for: itself, or each format of a group, in the order of formats.def."""
    if not text.startswith("@"):
        return [text]
    none, formats = _core.Readers.none, _core.formats()
    groups = {
        "@weights": [f.name for f in formats if f.linear != none],
        "@plain": [f.name for f in formats if f.linear != none and f.block_elements == 1],
        "@quantised": [f.name for f in formats if f.linear != none and f.block_elements > 1],
        "@kv": [f.name for f in formats if f.kv != none],
    }
    if text not in groups:
        raise ValueError(f"no such group: {text}")
    return groups[text]


def whole_blocks(settings: dict[str, str], format: str) -> bool:
    """Whether rows are whole blocks of the format that stands for a group."""
    elements = next(f.block_elements for f in _core.formats() if f.name == format)
    rows = next((settings[key] for key in ("in", "width", "head_dim") if key in settings), "0")
    return int(rows) % elements == 0


def expand(line: str) -> list[Case]:
    """Every case of one line, the first list turning slowest. ValueError where a setting is not key=value."""
    words = line.split("#")[0].split()
    if not words:
        return []
    bench = words[0] == "bench"
    op, *settings = words[1:] if bench else words
    combinations: list[dict[str, str]] = [{}]
    for setting in settings:
        key, equals, values = setting.partition("=")
        if not equals:
            raise ValueError(f"expected key=value, found {setting!r} in: {line}")
        combinations = [
            {**one, key: value}
            for one in combinations
            for listed in values.split(",")
            for value in values_of(listed)
            if value == listed or whole_blocks(one, value)
        ]
    return [Case(op, combination, bench) for combination in combinations]


def load(op: str | None = None, bench: bool = False) -> list[Case]:
    """The table's cases, of one op or of all."""
    cases = [case for line in TABLE.read_text().splitlines() for case in expand(line)]
    return [case for case in cases if case.bench == bench and op in (None, case.op)]
