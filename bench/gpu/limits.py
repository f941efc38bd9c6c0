"""What the card allows in this minute, in a process of its own: ``python -m bench.gpu.limits`` prints JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch


def milliseconds(call: Callable[[], object], repeats: int = 10) -> float:
    times = []
    for _ in range(repeats + 2):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return sorted(times[2:])[repeats // 2]


def main() -> None:
    x = torch.ones(1 << 30, device="cuda", dtype=torch.float32)
    read = x.numel() * 4 / milliseconds(lambda: x.sum()) * 1e3
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.half)
    b = torch.randn(8192, 8192, device="cuda", dtype=torch.half)
    products = 2 * 8192**3 / milliseconds(lambda: a @ b) * 1e3
    found = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "read": read, "products": products}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
