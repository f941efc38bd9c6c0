"""Tokens a second, one at a time, by the depth of the history behind them."""

from __future__ import annotations

import statistics

from bench.context.engines import fill
from bench.context.measures import Job, Result
from bench.context.measures.growth import token_times
from bench.context.models import random_ids

DEPTHS, NEW = (0, 512, 2048, 4096, 8000), 24


def measure(job: Job) -> Result:
    path, config = job.tiny if job.quick else job.main
    engine = job.load(path)
    new = 4 if job.quick else NEW
    most = min(job.depth, config.max_seq_len - new)
    depths = [d for d in DEPTHS if d <= most]
    ids = random_ids(depths[-1] + new, config.vocab_size)
    context = engine.open(ids.size)
    rows = []
    for depth in depths:
        if context.position < depth:
            fill(context, engine, ids[context.position : depth])
        times = token_times(context, ids[depth : depth + new])[1:]  # the first warms up
        rows.append({"depth": depth, "per_s": 1 / statistics.median(times), "best_per_s": 1 / min(times)})
    return {"rows": rows, "weights": engine.weights}
