"""What the token costs at which a session grows, at any depth: ``python bench/context/growth.py [model.gguf]``.

For each depth, 50 growths. Each is one token's time over the median of its 16 neighbours' (8 before, 8 behind); in
between the session is rewound to before the boundaries, so that pages, and now and then a slab, are had anew.
"""

from __future__ import annotations

import argparse
import statistics
import time

import foundry
import numpy as np

GROWTHS, BOUNDARIES, SIDE = 50, 10, 8


def ratios(session: foundry.Session, first: int, ids: np.ndarray) -> tuple[list[float], int]:
    """Token time over neighbours' at GROWTHS boundaries from position ``first``; and how many of them added a slab."""
    page = session.globals["page_tokens"]
    found, slabs = [], 0
    for i in range(GROWTHS):
        boundary = first + i % BOUNDARIES * page
        if i % BOUNDARIES == 0:
            session.rewind(min(session.position, first - SIDE))
        if session.position < boundary - SIDE:
            session.forward(ids[session.position : boundary - SIDE])
        times = []
        held = session.model.memory()["kv"]
        for at in range(boundary - SIDE, boundary + SIDE + 1):
            capacity = session.capacity
            began = time.perf_counter()
            session.forward(ids[at : at + 1])
            times.append(time.perf_counter() - began)
            if (session.capacity != capacity) != (at == boundary):
                raise RuntimeError(f"expected growth at {boundary} alone, found it at {at}")
        slabs += session.model.memory()["kv"] > held
        found.append(times.pop(SIDE) / statistics.median(times))
    return found, slabs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=foundry.hub.DEFAULT_MODEL)
    parser.add_argument("--depths", type=int, nargs="+", default=[100, 7000])
    a = parser.parse_args()
    model = foundry.CompiledModel.load(foundry.pull(a.model))
    print(f"{model.device}, {model.threads} threads, {GROWTHS} growths at each depth")
    for depth in a.depths:
        with model.session(16, 0) as session:
            page = session.globals["page_tokens"]
            first = -(-depth // page) * page
            ids = np.random.default_rng(1).integers(100, 30000, first + (BOUNDARIES + 1) * page, dtype=np.int32)
            session.forward(ids[: first - SIDE])
            found, slabs = ratios(session, first, ids)
        p50, p99 = statistics.median(found), float(np.quantile(found, 0.99))
        print(f"depth {first}: median {p50:.3f}, p99 {p99:.3f}, worst {max(found):.3f} ({slabs} of them added a slab)")


if __name__ == "__main__":
    main()
