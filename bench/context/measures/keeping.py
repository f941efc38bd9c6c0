"""One long history: bytes held by length, what stays after a rewind, forking it, and setting it aside and back."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from bench.context.engines import CHUNK_TOKENS, Context, Engine, fill
from bench.context.measures import Job, Result, attempt, private_bytes, timed
from bench.context.models import Config, random_ids

LENGTHS = (1, 16, 64, 256, 1024, 2048, 4096)
TOKENS, FORKS = 7990, 5


def lengths(engine: Engine, config: Config, context: Context, ids: np.ndarray) -> tuple[list[Result], float]:
    """Most bytes held so far over the ideal, at some lengths on the way; and the seconds that the tokens took."""
    rows, peak, seconds = [], 0, 0.0
    marks = [n for n in LENGTHS if n < ids.size] + [ids.size]
    for mark in marks:
        while context.position < mark:
            at = context.position
            chunk = ids[at : min(mark, at + CHUNK_TOKENS)]
            seconds += timed(lambda chunk=chunk: fill(context, engine, chunk))  # type: ignore[misc]
            peak = max(peak, engine.kv_bytes())
        ideal = config.kv_bytes(mark, engine.element_bytes)
        rows.append({"length": mark, "peak": peak, "ideal": ideal, "ratio": peak / ideal})
    return rows, seconds


def forking(engine: Engine, context: Context, ids: np.ndarray) -> Result:
    """Time and bytes of a fork; what one more token in it then adds."""
    times, shared, written, private = [], [], [], []
    for _ in range(FORKS):
        held, mine = engine.kv_bytes(), private_bytes()
        forks: list[Context] = []
        times.append(timed(lambda forks=forks: forks.append(context.fork())))  # type: ignore[misc]
        shared.append(engine.kv_bytes() - held)
        forks[0].feed(ids[:1])
        written.append(engine.kv_bytes() - held)
        now = private_bytes()
        if mine is not None and now is not None:
            private.append(now - mine)
        forks[0].close()
    return {
        "ms": statistics.median(times) * 1000,
        "kv_bytes": statistics.median(shared),
        "kv_bytes_after_token": statistics.median(written),
        "private_bytes_after_token": statistics.median(private) if private else None,
    }


def restoring(job: Job, engine: Engine, context: Context, ids: np.ndarray, n_ctx: int) -> Result:
    """To a file and back into another context, opened before. The file is in the system's cache, as after a pause."""
    file = job.folder / f"history{engine.suffix}"
    position = context.position
    saving = timed(lambda: context.save(file))
    expected = context.feed(ids[:1])
    context.rewind(position)
    other = engine.open(n_ctx)
    loading = timed(lambda: other.load(file))
    logits: list[Any] = []
    first = timed(lambda: logits.append(other.feed(ids[:1])))
    other.close()
    return {
        "save_ms": saving * 1000,
        "file_bytes": file.stat().st_size,
        "load_ms": loading * 1000,
        "first_token_ms": (loading + first) * 1000,
        "same_bits": bool(np.array_equal(logits[0], expected)),
        "difference": float(np.abs(logits[0] - expected).max()),
    }


def warm_up(engine: Engine, ids: np.ndarray) -> float | None:
    """Touches weights and workspace; the seconds of one chunk where longer prompts aren't computed."""
    warm = engine.open(640)
    fill(warm, engine, ids[:600])
    warm.rewind(0)
    seconds = None if engine.computes_prompts else timed(lambda: warm.feed(ids[:CHUNK_TOKENS]))
    warm.close()
    return seconds


def measure(job: Job) -> Result:
    path, config = job.tiny if job.quick else job.main
    engine = job.load(path)
    tokens = min(TOKENS, job.depth, config.max_seq_len - 66)
    n_ctx = min(config.max_seq_len, tokens + 66)
    ids = random_ids(tokens, config.vocab_size)
    seconds_512 = warm_up(engine, ids)
    memory = {"before": private_bytes()}
    context = engine.open(n_ctx)
    memory["opened"] = private_bytes()
    rows, seconds = lengths(engine, config, context, ids)
    memory["full"] = private_bytes()
    found: Result = {"tokens": tokens, "n_ctx": n_ctx, "lengths": rows, "ways": engine.ways}
    found["compute_s"] = seconds if engine.computes_prompts else None
    found["compute_512_s"] = seconds_512
    context.rewind(0)
    memory["rewound"], held = private_bytes(), engine.kv_bytes()
    found["kv_rewound"] = held
    context.close()
    memory["closed"] = private_bytes()
    found["memory"] = memory

    context = engine.open(n_ctx)
    fill(context, engine, ids)
    found["fork"] = attempt(lambda: forking(engine, context, ids))
    found["restore"] = attempt(lambda: restoring(job, engine, context, ids, n_ctx))
    context.close()
    return found
