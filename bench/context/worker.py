"""One engine's jobs, in a process of their own so that its memory is its own; prints their results as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from bench.context import engines, models
from bench.context.measures import Job, Result, attempt, decode, growth, keeping, limits

JOBS = {
    "probe": limits.probe,
    "limits": limits.measure,
    "keeping": keeping.measure,
    "growth": growth.measure,
    "decode": decode.measure,
}
# Engines with dequantised weights keep K/V in two bytes, as the others do; speed is shown in what was faster here.
DTYPES = {"decode": "float32"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=list(engines.ENGINES))
    parser.add_argument("jobs", help="commas between")
    parser.add_argument("folder", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--depth", type=int, required=True)
    parser.add_argument("--quick", action="store_true")
    a = parser.parse_args()
    paths = {"main": a.model, "deep": a.folder / "deep.gguf", "tiny": a.folder / "tiny.gguf"}
    sized = {name: (path, models.read_config(path)) for name, path in paths.items()}
    found: dict[str, Result] = {}
    for name in a.jobs.split(","):
        loaded: list[engines.Engine] = []

        def load(path: Path, name: str = name, loaded: list[engines.Engine] = loaded) -> engines.Engine:
            loaded.append(engines.load(a.engine, path, a.threads, DTYPES.get(name, "bfloat16")))
            return loaded[-1]

        job = Job(load, depth=a.depth, quick=a.quick, folder=a.folder, **sized)
        found[name] = attempt(partial(JOBS[name], job))
        if loaded:
            one = loaded[0]
            found[name] |= {"version": one.version, "weights": one.weights, "kv_dtype": one.kv_dtype}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
