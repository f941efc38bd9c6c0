"""Attention of metal/, translated to CUDA, beside PyTorch's in the same run: time, rate, share of the limit, error.

    python bench/kernels/gpu_attention.py build/cuda/libfoundry_cuda_launch.so

Wants an NVIDIA GPU, NVRTC in the loader's folders (PyTorch opens it) and PyTorch. Prints a Markdown table.
"""

from __future__ import annotations

import ctypes
import math
import struct
import sys
from collections.abc import Callable, Sequence

import torch

F16 = 1  # DType
SEGMENT = 256
NEVER = (1 << 32) - 1


class Kernels:
    def __init__(self, path: str) -> None:
        self._launch = ctypes.CDLL(path).foundry_cuda_launch
        self._launch.restype = ctypes.c_char_p

    def __call__(
        self, name: str, grid: Sequence[int], threads: int, slots: Sequence[torch.Tensor | bytes], room: int = 0
    ) -> None:
        n = len(slots)
        buffers, values, sizes = (ctypes.c_void_p * n)(), (ctypes.c_char_p * n)(), (ctypes.c_uint32 * n)()
        for i, slot in enumerate(slots):
            if isinstance(slot, bytes):
                values[i], sizes[i] = slot, len(slot)
            else:
                buffers[i] = slot.data_ptr()
        x, y, z = (*grid, 1, 1)[:3]
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        failed = self._launch(name.encode(), x, y, z, threads, buffers, values, sizes, n, 0, room, stream)
        if failed is not None:
            raise RuntimeError(f"{name}: {failed.decode()}")


def milliseconds(call: Callable[[], object], repeats: int = 30) -> float:
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def read_bandwidth() -> float:
    """Bytes a second that a sum over 8 GiB reads."""
    x = torch.ones(2 << 30, device="cuda", dtype=torch.float32)
    best = min(milliseconds(lambda: x.sum(), 10) for _ in range(3))
    return x.numel() * 4 / best * 1e3


class Pages:
    """K and V of some sequences in shuffled pages, as the page table has them."""

    def __init__(self, n_sequences: int, tokens: int, kv_heads: int, dim: int, page_tokens: int) -> None:
        self.kv_heads, self.dim, self.page_tokens = kv_heads, dim, page_tokens
        self.per_sequence = -(-tokens // page_tokens)
        n = n_sequences * self.per_sequence
        self.data = torch.randn(n, kv_heads, 2, page_tokens, dim, device="cuda", dtype=torch.half)
        self.order = torch.randperm(n, device="cuda").view(n_sequences, self.per_sequence)
        page_bytes = self.data[0].numel() * 2
        self.addresses = (self.order * page_bytes + self.data.data_ptr()).contiguous()

    def params(self) -> bytes:
        part = self.page_tokens * self.dim * 2
        layer = self.kv_heads * 2 * part
        return struct.pack("4Q6I", layer, 2 * part, part, layer, self.page_tokens, 1, self.kv_heads, self.dim, F16, F16)

    def sequences(self, rows: int, start: int) -> torch.Tensor:
        packed = b"".join(
            struct.pack("Q6I", self.addresses[s].data_ptr(), self.per_sequence, 1 << 30, s * rows, rows, start, 0)
            for s in range(len(self.order))
        )
        return torch.frombuffer(bytearray(packed), dtype=torch.uint8).cuda()

    def plain(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """[sequences, kv_heads, tokens, dim] each."""
        ordered = self.data[self.order.flatten()].view(*self.order.shape, self.kv_heads, 2, self.page_tokens, self.dim)
        both = ordered.permute(0, 2, 3, 1, 4, 5).reshape(len(self.order), self.kv_heads, 2, -1, self.dim)
        return both[:, :, 0, :tokens].contiguous(), both[:, :, 1, :tokens].contiguous()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def decode(kernels: Kernels, batch: int, tokens: int, bandwidth: float) -> None:
    heads, kv_heads, dim, page = 32, 8, 128, 64
    pages = Pages(batch, tokens, kv_heads, dim, page)
    q = torch.randn(batch, heads, dim, device="cuda")
    splits = min(-(-tokens // SEGMENT), 32)
    partials = torch.empty(batch, heads, splits, dim + 2, device="cuda")
    out = torch.empty(batch, heads, dim, device="cuda")
    sequences = pages.sequences(1, tokens - 1)
    attention = struct.pack("4If2I", batch, heads, batch, 0, 1 / math.sqrt(dim), 0, SEGMENT)
    split = struct.pack("4I", 0, splits, 1, NEVER)

    def ours() -> None:
        kernels(
            "attention_decode_f16_16_4",
            (kv_heads, splits, batch),
            128,
            [q, sequences, partials, pages.params(), attention, split],
        )
        kernels("attention_merge", (heads, batch), 128, [partials, out, pages.params(), attention, split, sequences])

    ours()
    k, v = pages.plain(tokens)
    half_q = q.half()[:, :, None]

    def theirs() -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(half_q, k, v, enable_gqa=True)

    exact = (
        torch.nn.functional.scaled_dot_product_attention(
            q[:, :, None], k.float().repeat_interleave(4, 1), v.float().repeat_interleave(4, 1)
        )[:, :, 0]
        if batch * tokens <= 1 << 16
        else theirs()[:, :, 0]
    )
    moved = batch * kv_heads * tokens * dim * 2 * 2
    for name, call in (("Foundry", ours), ("PyTorch", theirs)):
        time = milliseconds(call)
        rate = moved / time * 1e3
        print(
            f"| decode, batch {batch}, {tokens} tokens | {name} | {time * 1e3:.0f} us | {rate / 1e12:.2f} TB/s | "
            f"{rate / bandwidth:.0%} of reading | {relative(out, exact):.1e} |",
            flush=True,
        )


def prefill(kernels: Kernels, tokens: int, heads: int, kv_heads: int) -> None:
    dim, page = 128, 64
    pages = Pages(1, tokens, kv_heads, dim, page)
    q = torch.randn(tokens, heads, dim, device="cuda")
    out = torch.empty_like(q)
    sequences = pages.sequences(tokens, 0)
    attention = struct.pack("4If2I", tokens, heads, 1, 0, 1 / math.sqrt(dim), 0, SEGMENT)
    split = struct.pack("4I", 0, 0, 0, 16)
    units = -(-tokens // 32) * (heads // kv_heads)  # strips of kWideRows

    def ours() -> None:
        slots = [q, sequences, out, pages.params(), attention, split]
        kernels("attention_prefill_f16_128", (-(-units // 4), kv_heads, 1), 128, slots)

    ours()
    k, v = pages.plain(tokens)
    half_q = q.half().permute(1, 0, 2)[None].contiguous()

    def theirs() -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(half_q, k, v, is_causal=True, enable_gqa=True)

    exact = theirs()[0].permute(1, 0, 2)
    work = 4 * heads * tokens * tokens * dim / 2
    for name, call in (("Foundry", ours), ("PyTorch", theirs)):
        time = milliseconds(call, 10)
        print(
            f"| prefill, {tokens} tokens, {heads} heads over {kv_heads} | {name} | {time:.2f} ms | "
            f"{work / time / 1e9:.0f} TFLOP/s | | {relative(out, exact):.1e} |",
            flush=True,
        )


def main() -> None:
    kernels = Kernels(sys.argv[1])
    bandwidth = read_bandwidth()
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}; a sum reads {bandwidth / 1e12:.2f} TB/s\n")
    print("| what | whose | time | rate | share | relative error |\n|---|---|---|---|---|---|")
    for batch, tokens in ((1, 2048), (1, 32768), (8, 8192), (8, 32768)):
        decode(kernels, batch, tokens, bandwidth)
    for heads, kv_heads in ((32, 32), (32, 8)):
        prefill(kernels, 8192, heads, kv_heads)


if __name__ == "__main__":
    main()
