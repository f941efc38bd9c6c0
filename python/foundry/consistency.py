"""The consistency asserts: figures that must agree, each read from its own place, compared.

``observed`` is what ``Session.observe()`` of the core gives: the kernel parameters as encoded, the page tables, the
device buffers' own lengths, the ledger, the architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foundry.errors import ConsistencyError


def check(observed: Mapping[str, Any]) -> None:
    """Raises ConsistencyError that names the two figures that differ."""

    def equal(a: str, b: str, value_a: int | None = None, value_b: int | None = None) -> None:
        x = observed[a] if value_a is None else value_a
        y = observed[b] if value_b is None else value_b
        if x != y:
            raise ConsistencyError(f"{a} is {x}, {b} is {y}")

    def at_most(a: str, b: str, value_a: int | None = None, value_b: int | None = None) -> None:
        x = observed[a] if value_a is None else value_a
        y = observed[b] if value_b is None else value_b
        if x > y:
            raise ConsistencyError(f"{a} is {x}, {b} is {y}")

    covered = observed["encoded.n_pages"] * observed["encoded.page_tokens"]
    lengths = observed["pool.slab_lengths"]
    equal("encoded.n_pages", "table.pages")
    equal("table.addresses", "table.pages")
    equal("encoded.max_seq_len", "session.capacity")
    at_most("encoded.max_seq_len", "encoded.n_pages * encoded.page_tokens", value_b=covered)
    at_most("encoded.max_seq_len", "arch.max_seq_len")
    equal("encoded.rope_max_seq_len", "encoded.max_seq_len")
    at_most("session.position", "encoded.max_seq_len")
    for length in lengths:
        equal("length of a slab's buffer", "pool.slab_bytes", value_a=length)
    equal("ledger.kv_bytes", "sum of pool.slab_lengths", value_b=sum(lengths))
    at_most(
        "pool.used_pages * encoded.page_bytes",
        "sum of pool.slab_lengths",
        observed["pool.used_pages"] * observed["encoded.page_bytes"],
        sum(lengths),
    )
    at_most("table.pages", "pool.used_pages")
