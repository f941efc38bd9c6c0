"""What the card allows in this minute, in a process of its own: ``python -m bench.gpu.limits`` prints JSON."""

from __future__ import annotations

import json

import torch

from bench.kernels.gpu_attention import milliseconds, read_bandwidth


def main() -> None:
    read = read_bandwidth()
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.half)
    b = torch.randn(8192, 8192, device="cuda", dtype=torch.half)
    products = 2 * 8192**3 / milliseconds(lambda: a @ b, 10) * 1e3
    found = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "read": read, "products": products}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
