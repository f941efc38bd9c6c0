"""Foundry beside llama.cpp on one file, in turns within one run: ``python bench/peers/compare.py [model.gguf]``.

Needs ``llama-cpp-python``, built on this machine. Each round prefills ``--prompt`` tokens at each depth and decodes
``--new`` behind them, first with one engine, then with the other; medians over the rounds and their ratio are printed.
Figures of different runs are not to be compared: machines drift.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

import foundry
import llama_cpp
import numpy as np

Measure = Callable[[int, int, int], tuple[float, float]]  # (depth, prompt, new) -> prefill and decode, tokens/s


def foundry_measure(path: str, threads: int) -> Measure:
    model = foundry.CompiledModel.load(path, threads=threads)

    def run(depth: int, prompt: int, new: int) -> tuple[float, float]:
        with model.session(depth + prompt, new) as s:
            if depth:
                s.forward(tokens(depth, model.arch.vocab_size))
            return timed(lambda ids: s.forward(ids), prompt, new, model.arch.vocab_size)

    return run


def llama_cpp_measure(path: str, threads: int, n_ctx: int) -> Measure:
    model = llama_cpp.Llama(
        path, n_ctx=n_ctx, n_batch=512, n_threads=threads, n_threads_batch=threads, flash_attn=True, verbose=False
    )

    def run(depth: int, prompt: int, new: int) -> tuple[float, float]:
        model.reset()
        if depth:
            model.eval(tokens(depth, model.n_vocab()).tolist())
        return timed(lambda ids: model.eval(ids.tolist()), prompt, new, model.n_vocab())

    return run


def tokens(n: int, vocab: int) -> np.ndarray:
    return np.random.default_rng(n).integers(100, min(vocab, 30000), n, dtype=np.int32)


def timed(step: Callable[[np.ndarray], object], prompt: int, new: int, vocab: int) -> tuple[float, float]:
    ids = tokens(prompt + new, vocab)
    began = time.perf_counter()
    step(ids[:prompt])
    middle = time.perf_counter()
    for i in range(new):
        step(ids[prompt + i : prompt + i + 1])
    end = time.perf_counter()
    return prompt / (middle - began), new / (end - middle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=foundry.hub.DEFAULT_MODEL)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 2048])
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    path = str(foundry.pull(a.model))
    engines = {
        "foundry": foundry_measure(path, a.threads),
        "llama.cpp": llama_cpp_measure(path, a.threads, max(a.depths) + a.prompt + a.new),
    }
    for depth in a.depths:
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
        for round_ in range(a.rounds + 1):
            for name, measure in engines.items():
                found = measure(depth, a.prompt, a.new)
                if round_ > 0:  # the first warms up
                    seen[name].append(found)
        for which, what in ((0, f"prefill {a.prompt}"), (1, f"decode {a.new}")):
            medians = {name: statistics.median(f[which] for f in found) for name, found in seen.items()}
            ratio = medians["foundry"] / medians["llama.cpp"]
            if a.json:
                print(json.dumps({"depth": depth, "work": what, "tokens_per_s": medians, "ratio": ratio}))
            else:
                figures = ", ".join(f"{name} {value:.1f}" for name, value in medians.items())
                print(f"depth {depth}, {what}: {figures} tokens/s, ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
