"""Draws of metal/sample.metal, translated to CUDA, beside PyTorch's argmax and top-k in the same run: microseconds.

    python bench/kernels/gpu_sample.py build/cuda/libfoundry_cuda_launch.so

Wants an NVIDIA GPU, NVRTC in the loader's folders (PyTorch opens it) and PyTorch. Prints a Markdown table. Logits are
normal ones, of a deviation of 2 ("peaked": with a few far above them, as a model's are; "flat": of 0.1); launches stand
in a graph, one behind the other, as in gpu_linear.py.
"""

from __future__ import annotations

import struct
import sys

import torch
from gpu_attention import Kernels
from gpu_linear import microseconds

THREADS = 1024  # SampleLaunch
VOCABS = (128_256, 262_144)
ROWS = (1, 8)
LAUNCHES = 24
# temperature, top_k, top_p, min_p
DRAWS = {
    "greedy": (0.0, 0, 1.0, 0.0),
    "no filter": (0.8, 0, 1.0, 0.0),
    "top_k 40": (0.8, 40, 1.0, 0.0),
    "top_k 1000": (0.8, 1000, 1.0, 0.0),
    "top_p 0.95": (0.8, 0, 0.95, 0.0),
    "min_p 0.05": (0.8, 0, 1.0, 0.05),
    "top_k 40, top_p 0.95": (0.8, 40, 0.95, 0.0),
    "top_k 40, top_p 0.95, min_p 0.05": (0.8, 40, 0.95, 0.05),
}


def logits_of(kind: str, rows: int, vocab: int) -> torch.Tensor:
    logits = torch.randn(rows, vocab, device="cuda") * (0.1 if kind == "flat" else 2.0)
    if kind == "peaked":
        logits[:, torch.randperm(vocab, device="cuda")[:30]] += torch.linspace(8, 16, 30, device="cuda")
    return logits


def measure(kernels: Kernels, kind: str, rows: int, vocab: int) -> None:
    logits = logits_of(kind, rows, vocab)
    out = torch.full((rows,), -7, device="cuda", dtype=torch.int32)
    best = logits.argmax(1)
    for name, draw in DRAWS.items():
        packed = struct.pack("fIfff", *draw, 0.37) * rows
        params = torch.frombuffer(bytearray(packed), dtype=torch.uint8).cuda()
        slots = [logits, out, params, struct.pack("I", vocab)]

        def ours(slots: list[torch.Tensor | bytes] = slots) -> None:
            kernels("sample", (rows,), THREADS, slots)

        ours()
        assert bool(((out >= 0) & (out < vocab)).all()), f"{name}: {out}"
        assert name != "greedy" or bool((out == best).all()), f"greedy: {out}, not {best}"
        print(f"| {kind} | {vocab:,} | {rows} | {name} | {microseconds(ours, LAUNCHES):.1f} |", flush=True)
    for name, call in (
        ("PyTorch: argmax", lambda: logits.argmax(1)),
        ("PyTorch: topk(40)", lambda: logits.topk(40, 1)),
    ):
        print(f"| {kind} | {vocab:,} | {rows} | {name} | {microseconds(call, LAUNCHES):.1f} |", flush=True)


def main() -> None:
    kernels = Kernels(sys.argv[1])
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}\n")
    print("| logits | vocabulary | rows | draw | us |\n|---|---|---|---|---|")
    for kind in ("normal", "peaked", "flat"):
        for vocab in VOCABS:
            for rows in ROWS:
                measure(kernels, kind, rows, vocab)


if __name__ == "__main__":
    main()
