"""What is measured on a GPU: rows of a model, a work and its histories; and what each is to reach."""

from __future__ import annotations

from dataclasses import dataclass

WORKS = ("decode", "prefill", "grow")
PREFILL_TOKENS, DECODE_TOKENS = 8192, 128


@dataclass(frozen=True)
class Row:
    work: str
    model: str
    depth: int = 0
    sequences: int = 1

    @property
    def name(self) -> str:
        return f"{self.work} {self.model} {self.depth} x{self.sequences}"

    @property
    def setting(self) -> tuple[str, int, int]:
        """What has to be open for it."""
        return self.model, self.depth, self.sequences


@dataclass(frozen=True)
class Goal:
    share: float | None = None  # of what the bytes of a step allow, at least
    ratio: float | None = None  # to llama.cpp, at least


GOALS = {
    Row("decode", "8b-q4_0"): Goal(0.45, 1.3),
    Row("decode", "8b-q8_0"): Goal(0.60, 1.3),
    Row("decode", "8b-q4_0", 32_768): Goal(0.55, 1.25),
    Row("decode", "8b-q8_0", 32_768): Goal(0.62, 1.25),
    Row("decode", "8b-q4_0", 512): Goal(),
    Row("decode", "8b-q4_0", 512, 8): Goal(),  # 5 times the row above, of all histories together
    Row("decode", "8b-q4_0", 32_768, 8): Goal(0.60),
    Row("prefill", "8b-q4_0"): Goal(None, 0.5),
    Row("decode", "1b-q4_0"): Goal(None, 1.0),
    Row("decode", "1b-q4_0", 8192): Goal(None, 1.0),
    Row("decode", "1b-q4_0", 32_768): Goal(None, 1.0),
    Row("grow", "8b-q4_0", 8192): Goal(),  # 1.05 times its neighbours
}


def table() -> list[Row]:
    """In the order of what has to be open, so that each model is loaded once."""
    return sorted(GOALS, key=lambda row: (row.model, row.depth, row.sequences))


def smoke() -> list[Row]:
    """Every kind of row on a tiny model."""
    return [Row("decode", "tiny-q4_0"), Row("prefill", "tiny-q4_0"), Row("decode", "tiny-q4_0", 512, 3)]
