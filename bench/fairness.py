"""What a decode waits for while another session prefills: ``python bench/fairness.py model.gguf [--prompt 4000]``.

Prints how long the decoding session's own step takes alone, then its waits beside the other's prompt (p50, p99, worst),
each beside the bound: the larger of 200 ms and four of its own steps.
"""

from __future__ import annotations

import argparse
import os
import threading
import time

import foundry
import numpy as np


def waits_beside_a_prompt(model: foundry.CompiledModel, prompt: int) -> tuple[float, list[float]]:
    """Seconds: the median of a step alone, and of each step while the other session prefills ``prompt`` tokens."""
    rng = np.random.default_rng(1)
    vocab = min(model.arch.vocab_size, 30_000)
    ids, start = rng.integers(100, vocab, prompt, dtype=np.int32), rng.integers(100, vocab, 8).tolist()
    with model.session(prompt, 0) as long, model.session(8, 400) as decoding:
        stream = decoding.stream(start, min(4000, model.arch.max_seq_len - 8), ignore_eos=True)
        alone = [timed(stream) for _ in range(40)][8:]
        prefill = threading.Thread(target=long.forward, args=(ids,))
        prefill.start()
        beside = []
        while prefill.is_alive():
            beside.append(timed(stream))
        prefill.join()
    return float(np.median(alone)), beside


def timed(stream: object) -> float:
    began = time.perf_counter()
    next(stream)  # type: ignore[call-overload]
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--prompt", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    model = foundry.CompiledModel.load(args.model, threads=args.threads)
    for _ in range(args.rounds):
        alone, beside = waits_beside_a_prompt(model, args.prompt)
        p50, p99, worst = (1000 * float(np.percentile(beside, q)) for q in (50, 99, 100))
        bound = max(200.0, 4000 * alone)
        print(
            f"own step {1000 * alone:.1f} ms; {len(beside)} steps beside a prompt of {args.prompt:,}: "
            f"p50 {p50:.0f}, p99 {p99:.0f}, worst {worst:.0f} ms; bound {bound:.0f} ms"
        )


if __name__ == "__main__":
    main()
