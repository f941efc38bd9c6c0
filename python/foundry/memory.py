"""The memory plan of a run, what is estimated beside it, and the machine's default limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry import _core, machine

MARGIN_BYTES = 2 << 30  # left to the system and to other programs
CONTAINER_MARGIN_BYTES = 256 << 20  # of a container's memory: page tables, and what else runs in it
ADDRESSES_MARGIN_BYTES = 128 << 20  # of `ulimit -v`: threads' stacks and the allocator's arenas

# What tokenizer, metadata and Python's objects take beside the ledger, measured as private memory after load, tokenizer
# and a generation (tests/python/test_memory.py): for each model, each token with its merge, each letter of a token.
MODEL_BYTES, TOKEN_BYTES, LETTER_BYTES = 4 << 20, 430, 2
# Of a tokenizer.json (measured on 49,152 tokens: 65 to 71 MiB), whose tokens are counted by the embedding's rows.
LIBRARY_TOKEN_BYTES, USUAL_LETTERS = 1280, 7
STRING_BYTES = 8  # of a string's length in the file


def format_bytes(n: int) -> str:
    """1536 -> '1.5 KiB'."""
    size = float(n)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def default_memory_limit(root: Path = machine.ROOT) -> int:
    """What a model may take now; 0 (no limit) where the system does not tell.

    The least of three: physical memory less 2 GiB (at most half of it), less this process's private memory; what its
    container may use less 256 MiB (at most an eighth), less the same; what `ulimit -v` or `-d` leaves of address space
    less 128 MiB (at most half). Of the last, a file that is mapped already is taken off, and the ledger counts what it
    reads in place once more: an error to the safe side.
    """
    limits = []
    private = machine.private_bytes(root)
    if (physical := machine.physical_bytes()) is not None:
        limits.append(physical - min(MARGIN_BYTES, physical // 2) - private)
    if (container := machine.container_bytes(root)) is not None:
        limits.append(container - min(CONTAINER_MARGIN_BYTES, container // 8) - private)
    if (left := machine.left_by_process_limits(root)) is not None:
        limits.append(left - min(ADDRESSES_MARGIN_BYTES, left // 2))
    return max(1, min(limits)) if limits else 0  # 1: nothing fits any more


def estimated_bytes(metadata: Mapping[str, Any], n_tokens: int | None = None) -> int:
    """What the tokenizer of a file with this metadata, and Python's objects, will take beside the ledger.

    Args:
        n_tokens: of a vocabulary that is in a file of its own.
    """
    if n_tokens is not None:
        return MODEL_BYTES + (LIBRARY_TOKEN_BYTES + LETTER_BYTES * USUAL_LETTERS) * n_tokens
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, _core.MetadataArray):
        return MODEL_BYTES
    letters = tokens.bytes - STRING_BYTES * len(tokens)
    return MODEL_BYTES + TOKEN_BYTES * len(tokens) + LETTER_BYTES * letters


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a run takes, before any of them is allocated; all but ``estimated`` to the byte.

    Attributes:
        weights: of which ``weights_mapped`` are the file's own pages and ``weights_private`` re-laid copies.
        experts: of ``weights_private``, room for experts that are packed when rows are first routed to them.
        experts_kept: how many of ``experts_count`` of a layer that is at once; 0: there are none.
        kv: whole slabs for ``reserved_tokens``; ``kv_initial`` of them from the start.
        states: of ``kv``, those of recurrent layers' states.
        page_tables: where those tokens' pages lie, as kernels read it, the ids of the tokens, and a session's objects.
        workspace: activations and scratch, shared by all sessions of the model.
        logits: the rows that ``all_logits`` returns.
        sampling: room in which tokens are drawn, shared by all sessions of the model; 0 where the device draws.
        total: the sum of weights, kv, page_tables, workspace, logits and sampling, to the byte what the ledger will
            hold.
        estimated: what tokenizer and Python's objects take beside that, within a quarter; it counts against the limit.
        needed: of the total, what is yet to be had: without what a model that is loaded holds already.
        available: bytes of the memory limit that nothing has used or been promised, the estimate taken off.
        fits: the run can be promised now: needed is at most what is available.
    """

    weights: int
    weights_mapped: int
    weights_private: int
    experts: int
    experts_kept: int
    experts_count: int
    kv: int
    kv_initial: int
    states: int
    page_tables: int
    workspace: int
    logits: int
    sampling: int
    total: int
    estimated: int
    reserved_tokens: int
    needed: int
    available: int
    fits: bool

    @staticmethod
    def of(p: _core.PlannedBytes, reserved_tokens: int, estimated: int) -> MemoryPlan:
        return MemoryPlan(
            weights=p.weights_mapped + p.weights_private,
            weights_mapped=p.weights_mapped,
            weights_private=p.weights_private,
            experts=p.experts,
            experts_kept=p.experts_kept,
            experts_count=p.experts_count,
            kv=p.kv_reserved,
            kv_initial=p.kv_initial,
            states=p.states,
            page_tables=p.page_tables,
            workspace=p.workspace,
            logits=p.logits,
            sampling=p.sampling,
            total=p.total,
            estimated=estimated,
            reserved_tokens=reserved_tokens,
            needed=p.needed,
            available=p.available,
            fits=bool(p.fits),
        )

    def rows(self) -> list[tuple[str, int]]:
        """What a reader is shown: names and bytes, the total before what is estimated beside it."""
        return [
            ("weights, mapped", self.weights_mapped),
            ("weights, private", self.weights_private),
            *self._experts(),
            (f"K/V{' and states' if self.states else ''} for {self.reserved_tokens} tokens", self.kv),
            ("page tables", self.page_tables),
            ("workspace", self.workspace),
            ("logits", self.logits),
            ("sampling", self.sampling),
            ("total", self.total),
            ("estimated beside it", self.estimated),
        ]

    def _experts(self) -> list[tuple[str, int]]:
        if self.experts_kept == self.experts_count:
            return []
        return [(f"  for {self.experts_kept} of {self.experts_count} experts", self.experts)]

    def verdict(self) -> str:
        """ "fits", or what it is short of."""
        short = f"does not fit: {format_bytes(self.needed)} needed, {format_bytes(self.available)} available"
        return "fits" if self.fits else short

    def __str__(self) -> str:
        lines = [f"{name:<28}{format_bytes(n):>12}" for name, n in self.rows()]
        return "\n".join([*lines, self.verdict()])
