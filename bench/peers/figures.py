"""Figures of a measured row: medians, ratios with their spread, and shares of what the machine allowed."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from bench.peers.models import Model
from bench.peers.rows import PREFILL_TOKENS, Row

Result = dict[str, Any]
OURS = "foundry"


@dataclass(frozen=True)
class Spread:
    """The median over the rounds, and their least and most."""

    median: float
    least: float
    most: float

    @staticmethod
    def of(values: list[float]) -> Spread | None:
        return Spread(statistics.median(values), min(values), max(values)) if values else None


def series(result: Result, engine: str, figure: str) -> list[float]:
    """An engine's figure in each round that has it."""
    return [turn[engine][figure] for turn in result["rounds"] if engine in turn]


def peers(result: Result) -> list[str]:
    """Settings of llama.cpp that were measured."""
    return sorted({name for turn in result["rounds"] for name in turn if name != OURS})


def better(result: Result, figure: str) -> str | None:
    """llama.cpp's setting with the higher median: the one that counts."""
    return max(peers(result), key=lambda name: statistics.median(series(result, name, figure)), default=None)


def ratio(result: Result, figure: str) -> Spread | None:
    """Foundry's figure over llama.cpp's of the same round, in its better setting."""
    peer = better(result, figure)
    turns = [turn for turn in result["rounds"] if peer in turn and OURS in turn]
    return Spread.of([turn[OURS][figure] / turn[peer][figure] for turn in turns])


def share_of_limit(row: Row, result: Result) -> float | None:
    """Of what the minute's limits allow, the part that Foundry reaches.

    A decode's limit is reading its weights and its K/V once from huge pages. A prefill's is its linear layers at the
    peak of 8-bit dots (F16 and BF16 weights: of f32), and its attention at that of f32.
    """
    reached, limits = Spread.of(series(result, OURS, row.work)), result["limits"]
    model = Model(row.model)
    if reached is None or not model.known:
        return None
    if row.work == "decode":
        seconds = (model.weight_bytes + row.depth * model.kv_bytes(row.kv)) / limits["read_huge"]
        return seconds * reached.median
    peak = limits["f32"] if model.type in ("f16", "bf16") or not limits["int8"] else limits["int8"]
    seen = row.depth + PREFILL_TOKENS / 2
    seconds = model.linear_operations / peak + model.attention_operations(seen) / limits["f32"]
    return seconds * reached.median
