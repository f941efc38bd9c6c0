"""Linear layers of metal/, translated to CUDA, beside PyTorch's in the same run: time, share of reading, rate, error.

    python bench/kernels/gpu_linear.py build/cuda/libfoundry_cuda_launch.so

Wants an NVIDIA GPU, NVRTC in the loader's folders (PyTorch opens it) and PyTorch. Prints a Markdown table. Weights are
random, and so many that no cache has them; launches stand in a graph, one behind the other.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable

import torch
from gpu_attention import Kernels, milliseconds, read_bandwidth, relative

BLOCKS = {"q4_k": (256, 144), "q6_k": (256, 210), "q4_0": (32, 18), "f16": (1, 2), "q8_0": (32, 34), "bf16": (1, 2)}
ARRANGED = ("q4_0", "q8_0", "q4_k", "q6_k")
SHAPES = ((4096, 4096), (14336, 4096), (4096, 14336))
FEW, TILES_FROM = (1, 2, 4, 8, 16), 17
MANY = (64, 512, 2048)
WIDE = ("f16", "bf16", "q4_0_arranged", "q8_0_arranged", "q4_k_arranged", "q6_k_arranged")  # linear_wide's, on Hopper
SPREAD_BYTES = 300_000_000


def microseconds(call: Callable[[], object], launches: int) -> float:
    """Of one call, in a graph of some."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(launches):
                call()
    return milliseconds(graph.replay, 10) / launches * 1e3


def as_arranged(blocks: torch.Tensor) -> torch.Tensor:
    """metal/include/arranged.h: bytes [rows, blocks of a row, block] of the file's order in the other one."""
    rows, n, size = blocks.shape
    step = 4 if size == 18 else 2
    groups, steps, pieces = rows // 16, n // step, (size - 2) // 16
    codes = blocks[:, :, 2:].reshape(groups, 16, steps, step, pieces, 4, 4).permute(0, 2, 1, 5, 3, 4, 6)
    scales = blocks[:, :, :2].reshape(groups, 16, steps, step, 2).permute(0, 2, 1, 3, 4)
    return torch.cat([codes.flatten(), scales.flatten()])


class Weights:
    """Copies of one matrix, of random values; `exact` has the first one's."""

    def __init__(self, name: str, out: int, width: int) -> None:
        elements, size = BLOCKS[name]
        self.bytes = out * width // elements * size
        self.copies = max(2, SPREAD_BYTES // self.bytes)
        self.exact: torch.Tensor | None = None
        if name in ("f16", "bf16"):
            dtype = torch.half if name == "f16" else torch.bfloat16
            values = (torch.randn(self.copies, out, width, device="cuda") * 0.02).to(dtype)
            self.exact, self.data = values[0], values.view(torch.uint8)
            return
        self.data = torch.randint(0, 60, (self.copies, self.bytes), device="cuda", dtype=torch.uint8)
        if elements != 32:  # any bytes do for a time
            return
        for i in range(self.copies):
            blocks = torch.randint(0, 256, (out * width // 32, size), device="cuda", dtype=torch.uint8)
            scales = torch.rand(len(blocks), 1, device="cuda").half() * 0.01
            blocks[:, :2] = scales.view(torch.uint8)
            if i == 0:
                codes = blocks[:, 2:].view(torch.int8)
                if size == 18:
                    codes = torch.cat([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], 1).to(torch.int8) - 8
                self.exact = (codes.float() * scales.float()).view(out, width)
            self.data[i] = as_arranged(blocks.view(out, -1, size))


def launch(kernels: Kernels, name: str, rows: int, slots: list[torch.Tensor | bytes], out: int) -> None:
    """As linear_launches.cpp has it."""
    if rows >= TILES_FROM and name in WIDE and torch.cuda.get_device_capability() == (9, 0):
        wide(kernels, name, rows, slots, out)
        return
    if rows >= TILES_FROM:
        kernels(f"linear_tiles_{name}", (-(-out // 64), -(-rows // 64)), 128, slots[:6])
        return
    outputs = 32 if rows > 8 or (rows > 4 and out >= 8192) else 16
    kernels(f"linear_few_{name}_{outputs}_{min(rows, 8)}", (-(-rows // 8), -(-out // outputs)), 256, slots)


def wide(kernels: Kernels, name: str, rows: int, slots: list[torch.Tensor | bytes], out: int) -> None:
    x, w, y = slots[0], slots[1], slots[4]
    assert isinstance(x, torch.Tensor)
    width = x.shape[1]
    padded = -(-width // 64) * 64
    halves = torch.empty(2, rows, padded, device="cuda", dtype=torch.half)
    factors = torch.empty(1 + padded // 32, rows, device="cuda")
    kernels("split_rows", (rows,), 256, [x, halves, factors, struct.pack("3I", rows, width, padded)])
    side = 64 if rows <= 64 else 128
    room = 4 * (2 * side * 8 + side * 8 + side) * 16
    grid = (-(-rows // side) * -(-out // side),)
    kernels(f"linear_wide_{name}_{side}", grid, 2 * side, [halves, factors, w, x, x, y, slots[5]], room)


def measure(kernels: Kernels, name: str, out: int, width: int, bandwidth: float) -> None:
    weights = Weights(name, out, width)
    kernel = f"{name}_arranged" if name in ARRANGED else name
    for rows in (*FEW, *MANY):
        x = torch.randn(rows, width, device="cuda")
        y = torch.full((rows, out), float("nan"), device="cuda")
        shape, eps = struct.pack("3I", rows, width, out), struct.pack("f", 1e-6)
        turn = 0

        def ours() -> None:
            nonlocal turn
            w = weights.data[turn % weights.copies]
            turn += 1
            launch(kernels, kernel, rows, [x, w, x, x, y, shape, x, w, eps], out)  # noqa: B023

        ours()
        off = relative(y, x @ weights.exact.float().T) if weights.exact is not None else float("nan")
        calls = [("Foundry", ours, off)]
        if name == "f16":
            values, half_x = weights.data.view(torch.half).view(weights.copies, out, width), x.half()

            def theirs() -> None:
                nonlocal turn
                turn += 1
                torch.nn.functional.linear(half_x, values[turn % weights.copies])  # noqa: B023

            calls.append(("PyTorch", theirs, float("nan")))
        for whose, call, error in calls:
            time = microseconds(call, 24 if rows <= 64 else 4)
            share = weights.bytes / time * 1e6 / bandwidth
            rate = 2 * rows * out * width / time / 1e6
            figures = f"{time:.1f} us | {share:.0%} | {rate:.1f} | {error:.1e}"
            print(f"| {name} {out} x {width} | {rows} | {whose} | {figures} |", flush=True)


def main() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    kernels = Kernels(sys.argv[1])
    bandwidth = read_bandwidth()
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}; a sum reads {bandwidth / 1e12:.2f} TB/s\n")
    print(
        "| weights | rows | whose | time | share of reading | TFLOP/s | relative error |\n|---|---|---|---|---|---|---|"
    )
    for name in BLOCKS:
        for out, width in SHAPES:
            measure(kernels, name, out, width, bandwidth)


if __name__ == "__main__":
    main()
