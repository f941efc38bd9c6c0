"""The token at which the K/V grow over its neighbours, at any depth.

Each growth is one token's time over the median of its neighbours', SIDE before and SIDE behind. After some boundaries
the history goes back, by rewinding where that makes the engine grow again, else to a copy. An engine that never grows
is measured where one that does would: its figures show the noise. One that grows at every token has no neighbours:
there, it is the share of the token's time that went into growing.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np

from bench.context.engines import Context, Engine, Ids, fill
from bench.context.measures import Job, Result, attempt, peak_bytes, timed
from bench.context.models import Config, random_ids

SIDE, BOUNDARIES = 4, 10


def token_times(context: Context, ids: Ids) -> list[float]:
    return [timed(lambda at=at: context.feed(ids[at : at + 1])) for at in range(ids.size)]  # type: ignore[misc]


def at_boundaries(engine: Engine, context: Context, first: int, ids: Ids, growths: int, every: int) -> Result:
    ratios, extra, added = [], [], 0
    boundaries = max(1, min(BOUNDARIES, (ids.size - first - SIDE) // every))
    start = context
    if not engine.regrows:
        context = start.fork()
    for i in range(growths):
        boundary = first + i % boundaries * every
        if i and i % boundaries == 0:
            if engine.regrows:
                context.rewind(first - SIDE)
            else:
                context.close()
                context = start.fork()
        if context.position < boundary - SIDE:
            fill(context, engine, ids[context.position : boundary - SIDE])
        before = engine.kv_bytes()
        times = token_times(context, ids[boundary - SIDE : boundary + SIDE + 1])
        added += engine.kv_bytes() > before
        grown = times.pop(SIDE)
        usual = statistics.median(times)
        ratios.append(grown / usual)
        extra.append(grown - usual)
    if context is not start:
        context.close()
    return {
        "ratios": ratios,
        "p50": statistics.median(ratios),
        "p99": float(np.quantile(ratios, 0.99)),
        "worst": max(ratios),
        "extra_ms": statistics.median(extra) * 1000,
        "allocated": added,
    }


def at_every_token(engine: Engine, context: Context, ids: Ids) -> Result:
    shares, spent = [], []
    for at in range(ids.size):
        updated, began = engine.update_seconds(), time.perf_counter()
        context.feed(ids[at : at + 1])
        spent.append(engine.update_seconds() - updated)
        shares.append(spent[-1] / (time.perf_counter() - began))
    return {
        "share_p50": statistics.median(shares),
        "share_p99": float(np.quantile(shares, 0.99)),
        "extra_ms": statistics.median(spent) * 1000,
    }


def transient(context: Context, boundary: int, ids: Ids) -> int | None:
    """Bytes by which memory rose for a moment at the growing token, more than at the one before it."""
    while context.position < boundary - 1:
        context.feed(ids[context.position : context.position + 1])
    usual = peak_bytes(lambda: context.feed(ids[boundary - 1 : boundary]))
    grown = peak_bytes(lambda: context.feed(ids[boundary : boundary + 1]))
    return None if usual is None or grown is None else grown - usual


def at_depth(engine: Engine, config: Config, depth: int, growths: int) -> Result:
    every = engine.grows_every or 256
    first = max(-(-depth // every), 1) * every if every > 1 else depth
    last = min(first + BOUNDARIES * every + SIDE + 1, config.max_seq_len) if every > 1 else first + growths + SIDE
    ids = random_ids(last, config.vocab_size)
    context = engine.open(last)
    began = time.perf_counter()
    fill(context, engine, ids[: first - SIDE])
    filled = time.perf_counter() - began
    if every == 1:
        context.feed(ids[:SIDE])
        found = at_every_token(engine, context, ids[-growths:])
    else:
        found = at_boundaries(engine, context, first, ids, growths, every)
        if engine.regrows:
            context.rewind(first - SIDE)
        found["transient_bytes"] = transient(context, first, ids)
    found |= {"depth": first, "every": engine.grows_every, "kv_bytes": engine.kv_bytes(), "fill_s": filled}
    context.close()
    return found


def measure(job: Job) -> Result:
    growths = 4 if job.quick else 50
    if job.quick:
        plan: list[tuple[str, tuple[Path, Config], list[int]]] = [("tiny", job.tiny, [128])]
    else:
        plan = [("main", job.main, [128, 7040]), ("deep", job.deep, [8192, 32768])]
    rows = []
    for name, (path, config), depths in plan:
        engine = job.load(path)
        for depth in depths:
            if depth <= job.depth:
                found = attempt(lambda e=engine, c=config, d=depth: at_depth(e, c, d, growths))  # type: ignore[misc]
                rows.append({"model": name, "depth": depth} | found)
    return {"rows": rows}
