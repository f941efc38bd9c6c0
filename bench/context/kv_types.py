"""Perplexity and K/V bytes for each pair of K and V types, on real text.

    python bench/context/kv_types.py model.gguf text.txt [--tokens 7000] [--types f32,f16,bf16,q8_0,q4_0]

Prints a Markdown table; the last column is perplexity over that of f16, less one.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path

import numpy as np
from foundry import CompiledModel, _core

TYPES = ",".join(f.name for f in _core.formats() if f.kv != _core.Readers.none)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--tokens", type=int, default=7000)
    parser.add_argument("--types", default=TYPES)
    args = parser.parse_args()
    types = args.types.split(",")
    text = args.text.read_text(encoding="utf-8")[: args.tokens * 8]

    def measure(k: str, v: str) -> tuple[float, int, float]:
        model = CompiledModel.load(args.model, kv_dtype=(k, v))
        ids = model.tokenizer.encode(text)[: args.tokens]
        with model.session(len(ids), 0) as s:
            began = time.perf_counter()
            scores = s.score(ids)
            return float(np.exp(-np.mean(scores[1:], dtype=np.float64))), s.kv_bytes, time.perf_counter() - began

    baseline = measure("f16", "f16")[0]
    print(f"| K | V | K/V of {args.tokens} tokens | perplexity | beside f16 | seconds |\n|---|---|---|---|---|---|")
    for k, v in product(types, types):
        perplexity, kv_bytes, seconds = measure(k, v)
        off = perplexity / baseline - 1
        print(f"| {k} | {v} | {kv_bytes / 2**20:.1f} MiB | {perplexity:.4f} | {off:+.3%} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
