"""One long history: bytes held by length, what stays after a rewind, forking it, and setting it aside and back."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np

from bench.context.engines import CHUNK_TOKENS, Context, Engine, fill
from bench.context.measures import Job, Result, attempt, private_bytes, timed, trim
from bench.context.models import Config, random_ids

LENGTHS = (1, 16, 64, 256, 1024, 2048, 4096)
TOKENS, FORKS, SAMPLE_TOKENS = 7990, 5, 128


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
    trim()
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
        "kv_bytes": max(shared),
        "kv_bytes_after_token": max(written),
        "private_bytes_after_token": max(private, default=None),
    }


def saving(context: Context, file: Path, ids: np.ndarray) -> Result:
    """To a file, and the logits of one more token."""
    seconds = timed(lambda: context.save(file))
    return {"save_ms": seconds * 1000, "file_bytes": file.stat().st_size, "logits": context.feed(ids[:1])}


def restoring(context: Context, file: Path, ids: np.ndarray, saved: Result) -> Result:
    """Into a context that is open and empty. The file is in the system's cache, as after a pause."""
    expected = saved.pop("logits")
    loading = timed(lambda: context.load(file))
    logits: list[np.ndarray] = []
    first = timed(lambda: logits.append(context.feed(ids[:1])))
    return saved | {
        "load_ms": loading * 1000,
        "first_token_ms": (loading + first) * 1000,
        "same_bits": bool(np.array_equal(logits[0], expected)),
        "difference": float(np.abs(logits[0] - expected).max()),
    }


def warm_up(engine: Engine, ids: np.ndarray) -> float | None:
    """Touches weights and workspace; the seconds of a few tokens where longer prompts aren't computed."""
    warm = engine.open(640)
    fill(warm, engine, ids[:600])
    warm.rewind(0)
    seconds = None if engine.computes_prompts else timed(lambda: warm.feed(ids[:SAMPLE_TOKENS]))
    warm.close()
    return seconds


def measure(job: Job) -> Result:
    path, config = job.tiny if job.quick else job.main
    engine = job.load(path)
    tokens = min(TOKENS, job.depth, config.max_seq_len - 66)
    n_ctx = min(config.max_seq_len, tokens + 66)
    ids = random_ids(tokens, config.vocab_size)
    found: Result = {"tokens": tokens, "n_ctx": n_ctx, "ways": engine.ways, "sample_tokens": SAMPLE_TOKENS}
    found["sample_s"] = warm_up(engine, ids)

    trim()
    memory = {"before": private_bytes()}
    context = engine.open(n_ctx)
    memory["opened"] = private_bytes()
    found["lengths"], seconds = lengths(engine, config, context, ids)
    found["compute_s"] = seconds if engine.computes_prompts else None
    memory["full"] = private_bytes()
    file = job.folder / f"history{engine.suffix}"
    saved = attempt(lambda: saving(context, file, ids))
    context.rewind(0)
    memory["rewound"], found["kv_rewound"] = private_bytes(), engine.kv_bytes()
    context.close()
    memory["closed"] = private_bytes()
    trim()
    memory["settled"] = private_bytes()
    found["memory"] = memory

    context = engine.open(n_ctx)
    found["restore"] = saved if "error" in saved else attempt(lambda: restoring(context, file, ids, saved))
    if "error" in found["restore"]:
        fill(context, engine, ids)
    found["fork"] = attempt(lambda: forking(engine, context, ids))
    context.close()
    return found
