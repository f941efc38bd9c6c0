"""What is measured: rows of a model, a type of K/V, a depth and a work; and what each is to reach."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

WORKS = ("decode", "prefill", "eight", "busy", "threads", "load")
PREFILL_TOKENS = 512
EIGHT, EIGHT_DEPTH = 8, 2048


@dataclass(frozen=True)
class Row:
    work: str
    model: str
    kv: str = "f16"
    depth: int = 0
    threads: int = 0

    @property
    def name(self) -> str:
        return f"{self.work} {self.model} {self.kv} {self.depth} {self.threads}"

    @property
    def setting(self) -> tuple[str, str, int, int, int]:
        """What has to be open for it; rows that share it are measured side by side."""
        return self.model, self.kv, self.depth, self.threads, EIGHT if self.work == "eight" else 1


def table(threads: int, most: int) -> list[Row]:
    """The whole comparison, on so many threads; rows of ``threads`` in doublings up to ``most``."""
    rows = []
    for kv in ("f16", "q8_0"):
        for depth in (0, 2048, 8192, 30000):
            rows += [Row(work, "0.5b-q4_0", kv, depth, threads) for work in ("decode", "prefill")]
    for depth in (0, 8192):
        rows += [Row(work, "1b-q4_0", "f16", depth, threads) for work in ("decode", "prefill")]
    for model in ("0.5b-q8_0", "0.5b-f16", "0.5b-bf16", "1b-q8_0", "1b-q4_k_m", "1b-q6_k"):
        rows += [Row(work, model, "f16", 0, threads) for work in ("decode", "prefill")]
    for model in ("moe-q4_0", "moe-q8_0", "lfm2-q4_0", "qwen35-q4_0"):
        rows += [Row(work, model, "f16", depth, threads) for depth in (0, 8192) for work in ("decode", "prefill")]
    rows += [Row("eight", "0.5b-q4_0", "f16", EIGHT_DEPTH, threads), Row("busy", "0.5b-q4_0", "f16", 0, threads)]
    rows += [Row("threads", "0.5b-q4_0", "f16", 0, n) for n in doublings(most)]
    return [*rows, Row("load", "0.5b-q4_0", "f16", 0, threads), Row("load", "1b-q4_0", "f16", 0, threads)]


def of_file(path: str, depths: list[int], threads: int) -> list[Row]:
    """Of a file of one's own."""
    return [Row(work, path, "f16", depth, threads) for depth in depths for work in ("decode", "prefill")]


def smoke(threads: int) -> list[Row]:
    """Every kind of row on a tiny model, for a look whether all of it works."""
    rows = [Row(work, "tiny-q4_0", kv, 3000, threads) for kv in ("f16", "q8_0") for work in ("decode", "prefill")]
    rows += [Row("eight", "tiny-q4_0", "f16", 256, threads)]
    rows += [Row("threads", "tiny-q4_0", "f16", 0, n) for n in doublings(threads)]
    return [*rows, *(Row(work, "tiny-q4_0", "f16", 0, threads) for work in ("busy", "load"))]


def doublings(threads: int) -> Iterator[int]:
    n = 1
    while n <= threads:
        yield n
        n *= 2


def goal(row: Row) -> float | None:
    """The least ratio to llama.cpp that the row is to reach; None where none was set."""
    if row.model.startswith(("moe", "lfm2", "qwen35")):
        return {0: 1.0, 8192: 1.0}.get(row.depth) if row.work == "decode" else None
    if row.work == "eight":
        return 1.5
    if row.work == "decode" and row.kv == "f16":
        return {0: 1.25, 8192: 2.2, 30000: 2.6}.get(row.depth)
    if row.work == "prefill" and row.kv == "f16":
        if row.depth == 0:
            return 1.25 if row.model in ("0.5b-q4_0", "0.5b-q8_0", "1b-q4_0", "1b-q8_0", "1b-q4_k_m") else None
        return {8192: 1.8, 30000: 2.2}.get(row.depth)
    return None


SHARE_GOAL = 0.85  # of huge pages' read bandwidth: decode at depth 0 may reach this in place of its ratio
BUSY_GOAL = 0.65  # of its own undisturbed rate, with another process on one core
LOAD_GOAL, MEMORY_GOAL = 0.6, 0.57  # of llama.cpp's time to the first token, and of its peak memory
OWN_Q8_0_GOAL = 1.2  # decode at 30,000 tokens with K/V in q8_0, beside Foundry's own f16
DOUBLING_GOAL = 1.6  # prefill, of each doubling of threads
