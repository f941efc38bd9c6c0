"""The memory plan of a run, and the machine's default limit."""

from __future__ import annotations

import os
from dataclasses import dataclass

MARGIN_BYTES = 2 << 30  # left to the system and to other programs


def format_bytes(n: int) -> str:
    """1536 -> '1.5 KiB'."""
    size = float(n)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def default_memory_limit() -> int:
    """Physical memory less ``MARGIN_BYTES``, at least half of it. 0 (no limit) where the system does not tell."""
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0
    return max(physical - MARGIN_BYTES, physical // 2)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a run takes, to the byte, before any of them is allocated.

    Attributes:
        weights: of which ``weights_mapped`` are the file's own pages and ``weights_private`` re-laid copies.
        kv: whole slabs for ``reserved_tokens``; ``kv_initial`` of them from the start.
        workspace: activations and scratch, shared by all sessions of the model.
        logits: the rows that ``all_logits`` returns.
        total: the sum of weights, kv, workspace and logits.
        available: bytes of the memory limit that nothing has used or been promised.
        fits: the run can be promised now.
    """

    weights: int
    weights_mapped: int
    weights_private: int
    kv: int
    kv_initial: int
    workspace: int
    logits: int
    total: int
    reserved_tokens: int
    available: int
    fits: bool

    def __str__(self) -> str:
        rows = [
            ("weights, mapped", self.weights_mapped),
            ("weights, private", self.weights_private),
            (f"K/V for {self.reserved_tokens} tokens", self.kv),
            ("workspace", self.workspace),
            ("logits", self.logits),
            ("total", self.total),
        ]
        lines = [f"{name:<28}{format_bytes(n):>12}" for name, n in rows]
        return "\n".join([*lines, "fits" if self.fits else f"does not fit: {format_bytes(self.available)} available"])
