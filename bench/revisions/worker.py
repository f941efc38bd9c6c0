"""One revision's figures, as a line of JSON: prefill, decode, load and fork. More is better in each of them.

Only calls that every revision has: an older one has to run it too.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable

import foundry
import numpy as np


def per_second(n: int, call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return n / (time.perf_counter() - began)


def measure(path: str, threads: int) -> dict[str, float]:
    out: dict[str, float] = {}
    foundry.CompiledModel.load(path, threads=threads)  # the file is in the page cache from here on
    out["loads/s"] = per_second(3, lambda: [foundry.CompiledModel.load(path, threads=threads) for _ in range(3)])
    model = foundry.CompiledModel.load(path, threads=threads)
    ids = np.random.default_rng(2).integers(100, min(20_000, model.arch.vocab_size), 2100, dtype=np.int32)
    with model.session(2100, 100) as s:
        s.forward(ids[:64])
        s.rewind(0)
        out["prefill of 512, tokens/s"] = per_second(512, lambda: s.forward(ids[:512]))
        out["prefill of 1,536 more, tokens/s"] = per_second(1536, lambda: s.forward(ids[512:2048]))
        out["forward at 2,048, tokens/s"] = per_second(32, lambda: [s.forward(ids[i : i + 1]) for i in range(32)])
        out["forks at 2,048, 1/s"] = per_second(500, lambda: [s.fork() for _ in range(500)])
    for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        with model.session(64, 128) as s:
            s.forward(ids[:64])
            s.rewind(0)
            start = ids[:32].tolist()
            call = lambda s=s, t=temperature, p=start: s.generate(p, 96, temperature=t, seed=3, ignore_eos=True)  # noqa: E731
            out[f"generate, {name}, tokens/s"] = per_second(96, call)
        out[f"generate, {name}, 4 at once"] = per_second(4 * 64, lambda t=temperature: together(model, 4, 64, t))  # type: ignore[misc]
    return out


def together(model: foundry.CompiledModel, sessions: int, tokens: int, temperature: float) -> None:
    def run(i: int) -> None:
        with model.session(16, tokens) as s:
            s.generate([200 + i] * 8, tokens, temperature=temperature, seed=i, ignore_eos=True)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
