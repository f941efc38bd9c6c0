"""Decode speed of each weight type: ``python bench/formats.py [--threads N] [--types q4_0 q6_k ...]``.

A llama of Llama-3.2-1B's layer shapes (Meta, 2024: 16 layers of 2048, 32 and 8 heads of 64, ffn 8192; random weights,
a vocabulary of bytes) is written once for each type. In every round each type decodes ``--steps`` tokens, in turns.
Printed are the bytes of weights that a token reads, GB/s from the best and the median round, and the median beside
Q4_0's of the same round: the share of the memory's bandwidth that a type reaches, as a part of what Q4_0 reaches.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import foundry
import numpy as np
from foundry import _core

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "python"))
import synthetic

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FFN = 2048, 32, 8, 64, 8192
ELEMENTS = 2 * HIDDEN * HEADS * HEAD_DIM + 2 * HIDDEN * KV_HEADS * HEAD_DIM + 3 * HIDDEN * FFN  # of a layer's matrices


def write(path: Path, kind: str, layers: int) -> Path:
    shape = synthetic.Shape(
        layers=layers,
        hidden=HIDDEN,
        heads=HEADS,
        kv_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        ffn=FFN,
        type=kind,
        distinct_rows=64,
    )
    return synthetic.write(path, shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    formats = {f.name: f for f in _core.formats() if f.linear != _core.Readers.none}
    parser.add_argument("--types", nargs="+", default=[n for n in formats if n not in ("f32", "f16", "bf16")])
    args = parser.parse_args()
    kinds = list(dict.fromkeys(["q4_0", *args.types]))
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for kind in kinds:
            path = write(Path(folder) / f"{kind}.gguf", kind, args.layers)
            model = foundry.CompiledModel.load(path, args.device, threads=args.threads)
            sessions[kind] = model.session(16, args.steps * (args.rounds + 1))
            sessions[kind].forward([1])
        for _ in range(args.rounds):
            for kind, session in sessions.items():
                session.forward([2])  # its weights take the caches over from the one before
                began = time.perf_counter()
                for i in range(args.steps):
                    session.forward([3 + i])
                seconds[kind].append((time.perf_counter() - began) / args.steps)
    gigabytes = {k: ELEMENTS * args.layers * formats[k].block_bytes / formats[k].block_elements / 1e9 for k in kinds}
    print(f"{'type':8} {'MB/token':>9} {'best GB/s':>10} {'median':>8} {'beside q4_0':>12}")
    for kind in kinds:
        rates = [gigabytes[kind] / s for s in seconds[kind]]
        beside = [r * s0 / gigabytes["q4_0"] for r, s0 in zip(rates, seconds["q4_0"], strict=True)]
        print(
            f"{kind:8} {1000 * gigabytes[kind]:9.0f} {max(rates):10.1f} {np.median(rates):8.1f}"
            f" {statistics.median(beside):11.0%}"
        )


if __name__ == "__main__":
    main()
