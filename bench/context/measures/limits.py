"""Tokens past what a context was made for, past the model's limit, and prompts that are too long: what happens?"""

from __future__ import annotations

import numpy as np

from bench.context.engines import Context, Engine
from bench.context.measures import Job, Result, first_line
from bench.context.models import PROBE_TOKENS, random_ids

PAST = 44


def fed(context: Context, ids: np.ndarray, step: int) -> str:
    """Feeds tokens, ``step`` at a time, and says in words what happened."""
    began = context.position
    for at in range(0, ids.size, step):
        try:
            logits = context.feed(ids[at : at + step])
        except Exception as error:  # whatever a peer raises is what's reported
            return f"{first_line(error)} (after {at} of {ids.size} tokens; holds {context.position})"
        if not np.isfinite(logits).all():
            return f"no error; logits not finite from position {began + at} on"
    return f"no error: takes {ids.size}, logits finite (holds {context.position})"


def measure(job: Job) -> Result:
    path, config = job.tiny
    engine: Engine = job.load(path)
    limit = config.max_seq_len
    half = limit // 2
    ids = random_ids(2 * limit, config.vocab_size)
    found: Result = {"limit": limit, "half": half, "past": PAST}

    context = engine.open(half)
    held = engine.kv_bytes()
    context.feed(ids[:half])
    before = engine.kv_bytes()
    found["past_capacity"] = fed(context, ids[half : half + PAST], 1)
    found["held"] = [held, before, engine.kv_bytes()]
    context.close()

    context = engine.open(limit)
    context.feed(ids[:limit])
    found["past_limit"] = fed(context, ids[limit : limit + PAST], 1)
    context.rewind(min(context.position, half))
    found["afterwards"] = fed(context, ids[:1], 1)
    context.close()

    context = engine.open(limit)
    found["long_prompt"] = fed(context, ids[: limit + PAST], limit + PAST)
    context.close()

    try:
        context = engine.open(2 * limit)
    except Exception as error:
        found["oversized"] = first_line(error)
    else:
        found["oversized"] = fed(context, ids[: limit + PAST], limit + PAST)
        context.close()
    return found


def probe(job: Job) -> Result:
    """The most likely token after the same few: whether the engines run the same weights."""
    path, config = job.tiny if job.quick else job.main
    engine = job.load(path)
    context = engine.open(PROBE_TOKENS)
    logits = context.feed(random_ids(PROBE_TOKENS, config.vocab_size))
    return {"token": int(logits.argmax()), "logit": float(logits.max())}
