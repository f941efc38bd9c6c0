"""The consistency asserts: figures that must agree, each read from its own place, compared.

``observed`` is what ``Session.observe()`` of the core gives: for each layer group the kernel parameters as encoded, the
page table and the device buffers' own lengths; then the ledger, the architecture, the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foundry.errors import ConsistencyError


def check(observed: Mapping[str, Any]) -> None:
    """Raises ConsistencyError that names the two figures that differ."""
    for index, group in enumerate(observed["groups"]):
        _check_group(f"group {index} ", {**observed, **group})
    lengths = [sum(group["pool.slab_lengths"]) for group in observed["groups"]]
    _equal("ledger.kv_bytes", observed["ledger.kv_bytes"], "sum of pool.slab_lengths", sum(lengths))
    full = [group for group in observed["groups"] if group["window"] == 0] or observed["groups"]
    least = min(group["encoded.max_seq_len"] for group in full)
    _equal("session.capacity", observed["session.capacity"], "the least encoded.max_seq_len", least)
    _equal("encoded.rope_max_seq_len", observed["encoded.rope_max_seq_len"], "session.capacity", least)
    _at_most("session.position", observed["session.position"], "session.capacity", least)


def _check_group(of: str, figures: Mapping[str, Any]) -> None:
    def equal(a: str, b: str, value: int | None = None) -> None:
        _equal(of + a, figures[a], of + b, figures[b] if value is None else value)

    def at_most(a: str, b: str, value: int | None = None) -> None:
        _at_most(of + a, figures[a], of + b, figures[b] if value is None else value)

    equal("encoded.pages", "table.pages_at")
    equal("encoded.n_pages", "table.pages")
    equal("encoded.first_page", "table.first")
    equal("table.addresses", "table.pages")
    equal("table.nulls", "table.first")
    equal("table.held", "table.pages - table.first", figures["table.pages"] - figures["table.first"])
    covered = figures["encoded.n_pages"] * figures["encoded.page_tokens"]
    equal("encoded.max_seq_len", "pages * page_tokens, at most arch", min(covered, figures["arch.max_seq_len"]))
    at_most("session.position", "encoded.max_seq_len")
    at_most("table.held", "pool.used_pages")
    page_bytes, slab_bytes = figures["encoded.page_bytes"], figures["pool.slab_bytes"]
    equal("pool.slab_bytes", "whole pages", slab_bytes // page_bytes * page_bytes)
    for length in figures["pool.slab_lengths"]:
        _equal(of + "length of a slab's buffer", length, of + "pool.slab_bytes", slab_bytes)
    used = figures["pool.used_pages"] * page_bytes
    held = sum(figures["pool.slab_lengths"])
    _at_most(of + "pool.used_pages * encoded.page_bytes", used, of + "sum of pool.slab_lengths", held)


def _equal(a: str, x: int, b: str, y: int) -> None:
    if x != y:
        raise ConsistencyError(f"{a} is {x}, {b} is {y}")


def _at_most(a: str, x: int, b: str, y: int) -> None:
    if x > y:
        raise ConsistencyError(f"{a} is {x}, at most {b} is {y}")
