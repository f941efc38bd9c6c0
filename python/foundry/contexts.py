"""What context fits, for each type that K and V can be kept in: from a file's header alone."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foundry import _core
from foundry.files import ModelFiles
from foundry.hub import telling_how_to_mend
from foundry.model import kv_types, opened

KV_TYPES = tuple(f.name for f in _core.formats() if f.kv != _core.Readers.none)


@dataclass(frozen=True)
class ContextPlan:
    """What a model's context takes with K and V in one pair of types.

    Attributes:
        k_type, v_type: as ``kv_dtype`` of ``load``.
        token_bytes: of K and V of a token, over all layers. Layers with a sliding window take no more behind it.
        max_seq_len: tokens of the model's whole context.
        kv: bytes of K and V of that.
        largest: tokens of the longest context that fits beside weights and workspace; 0 where those do not.
    """

    k_type: str
    v_type: str
    token_bytes: int
    max_seq_len: int
    kv: int
    largest: int


def largest_that_fits(fits: Callable[[int], bool], most: int) -> int:
    """The largest number of tokens up to ``most`` that ``fits``, which what is less than a fitting one does too; 0
    where none does."""
    return bisect_left(range(1, most + 1), True, key=lambda n: not fits(n))


def plan_contexts(
    path: str | os.PathLike[str],
    kv_dtypes: Sequence[str | tuple[str, str]] = KV_TYPES,
    *,
    device: str = "auto",
    memory_limit: int | None = None,
    threads: int | None = None,
    page_tokens: int = 64,
    chunk_tokens: int = 512,
    expert_cache_bytes: int | None = None,
    rope_scaling: str | Mapping[str, Any] | None = None,
    rope_base: float | None = None,
    max_seq_len: int | None = None,
) -> list[ContextPlan]:
    """One for each of ``kv_dtypes``, whose order is kept. Arguments and errors are those of
    ``CompiledModel.plan_file``, and nothing is allocated here either."""
    with telling_how_to_mend(path):
        context = (rope_scaling, rope_base, max_seq_len)

        def planned(kv: str | tuple[str, str]) -> ContextPlan:
            memory = (device, memory_limit, kv, threads, page_tokens, chunk_tokens, 0)
            return _planned(*opened(path, *memory, True, context, expert_cache_bytes=expert_cache_bytes), kv)

        return [planned(kv) for kv in kv_dtypes]


def _planned(
    files: ModelFiles, graph: _core.Graph, options: _core.ModelOptions, kv_dtype: str | tuple[str, str]
) -> ContextPlan:
    most = graph.arch.max_seq_len

    def plan(n_tokens: int) -> _core.PlannedBytes:
        return _core.plan_file(files.weights, graph, options, 0, n_tokens, 0)

    whole = plan(most)
    return ContextPlan(
        *kv_types(kv_dtype),
        token_bytes=whole.page_bytes // whole.page_tokens,
        max_seq_len=most,
        kv=whole.kv_reserved,
        largest=largest_that_fits(lambda n: bool(plan(n).fits), most),
    )
