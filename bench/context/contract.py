"""What forking, restoring and rewinding a long session take: ``python bench/context/contract.py [model.gguf]``."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

import foundry
import numpy as np
from foundry.memory import format_bytes

FORKS = 100


def resident() -> int:
    """Bytes of this process in memory, /proc's VmRSS."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=foundry.hub.DEFAULT_MODEL)
    parser.add_argument("--tokens", type=int, default=7990)
    a = parser.parse_args()
    model = foundry.CompiledModel.load(foundry.pull(a.model))
    ids = np.random.default_rng(1).integers(100, 30000, a.tokens, dtype=np.int32)
    print(f"{model.device}, {model.threads} threads, {a.tokens} tokens")
    with model.session(1, 0) as warm:
        warm.forward(ids[:600])  # workspace and weights touched
        warm.rewind(0)
        before = resident()
        began = time.perf_counter()
        warm.forward(ids)
        computed = time.perf_counter() - began
        full = resident()

        held = model.memory()["kv"]
        began = time.perf_counter()
        forks = [warm.fork() for _ in range(FORKS)]
        forking = time.perf_counter() - began
        shared = model.memory()["kv"] - held
        used = warm._core.observe()["groups"][0]["pool.used_pages"]
        for fork in forks:
            fork.forward([5])
        copied = (warm._core.observe()["groups"][0]["pool.used_pages"] - used) / FORKS
        for fork in forks:
            fork.close()
        print(f"{FORKS} forks: {forking * 1000:.2f} ms, {shared} K/V bytes; {copied:.2f} pages each once they write")

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "session.kv"
            began = time.perf_counter()
            warm.save(file)
            saving = time.perf_counter() - began
            size = file.stat().st_size
            expected = warm.forward([5])
            began = time.perf_counter()
            restored = model.restore(file)
            mapped = time.perf_counter() - began
            found = restored.forward([5])
            ready = time.perf_counter() - began
            restored.close()
        if not np.array_equal(found, expected):
            sys.exit("restored bits differ")
        print(f"saved {format_bytes(size)} in {saving * 1000:.0f} ms")
        print(
            f"restored in {mapped * 1000:.1f} ms, first token after {ready * 1000:.0f} ms (pages read and checked); "
            f"computed in {computed:.2f} s: {computed / mapped:.0f} times and {computed / ready:.0f} times as long"
        )
        warm.rewind(0)
        after = resident()
        print(
            f"resident: {format_bytes(before)} before the first token, {format_bytes(full)} with all, "
            f"{format_bytes(after)} rewound to none: {format_bytes(max(after - before, 0))} above before"
        )


if __name__ == "__main__":
    main()
