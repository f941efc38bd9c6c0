"""Foundry beside llama.cpp's CUDA back end on this machine's GPU: ``python -m bench.gpu``, in the repository's root.

Wants an NVIDIA GPU; PyTorch, which measures the card's limits before the rows; and, to build llama.cpp
(``bench/peers/requirements.txt``) in an environment of its own, a CUDA toolkit. Makes the models, random weights of
real shapes, once under ``--work``. Engines take turns within each round. Foundry generates, each token drawn on the
card; llama.cpp is given its tokens, as its own bench does. Long histories are computed to 2,048 tokens and tiled.
Nothing is asserted on times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.gpu.rows import DECODE_TOKENS, GOALS, PREFILL_TOKENS, WORKS, Goal, Row, smoke, table
from bench.peers import environment
from bench.peers.models import Model
from bench.peers.turns import Failed, Handle

Result = dict[str, list[float]]
ENGINES = ("foundry", "llama_cpp")


def card_limits() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "bench.gpu.limits"], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def start(names: Iterable[str], work: Path) -> dict[str, Handle]:
    pythons = {"foundry": sys.executable}
    if "llama_cpp" in names:
        pythons["llama_cpp"] = environment.llama_cpp_python(work / "cuda", environment.CUDA_CMAKE_ARGS)
    (work / "workers").mkdir(parents=True, exist_ok=True)
    return {name: Handle(pythons[name], name, work / "workers" / name) for name in names}


def ask(handle: Handle, row: Row) -> float:
    """Tokens a second of all histories; of "grow" a growing token's time over its neighbours'."""
    if row.work == "decode":
        tokens = 16 if row.sequences > 1 and row.depth > 8192 else DECODE_TOKENS
        return float(handle.ask("generate", tokens=tokens)["tokens_per_s"])
    if row.work == "grow":
        return float(handle.ask("grow", growths=8)["over_neighbours"])
    tokens = PREFILL_TOKENS if row.model != "tiny-q4_0" else 512
    return float(handle.ask("prefill", tokens=tokens)["tokens_per_s"])


def measure(handles: dict[str, Handle], rows: list[Row], folder: Path, rounds: int) -> dict[str, Result]:
    """Rows of one setting, side by side: engines in turns in each round, after one that is not counted."""
    found: dict[str, Result] = {row.name: {} for row in rows}
    model, depth, sequences = rows[0].setting
    path = str(Model(model).file(folder))
    room = max([PREFILL_TOKENS if row.work == "prefill" else 1024 for row in rows])
    failed = set()
    for name, handle in handles.items():
        try:
            handle.ask("open", path=path, depth=depth, sequences=sequences, room=room, gpu=True)
        except Failed as failure:
            print(f"{name}: {failure}", file=sys.stderr, flush=True)
            failed.add(name)
    for turn in range(rounds + 1):
        for name, handle in handles.items():
            for row in rows:
                if name in failed or (row.work == "grow" and name != "foundry"):
                    continue
                try:
                    figure = ask(handle, row)
                except Failed as failure:
                    print(f"{row.name}: {name}: {failure}", file=sys.stderr, flush=True)
                    failed.add(name)
                    found[row.name].pop(name, None)  # what it did before counts for nothing
                    break
                if turn > 0:
                    found[row.name].setdefault(name, []).append(figure)
    return found


def allowed(row: Row, limits: dict[str, Any]) -> float | None:
    """Tokens a second that the card's reading allows a decode: weights once a step, and each history's K and V."""
    if row.work != "decode":
        return None
    model = Model(row.model)
    depth = row.depth + DECODE_TOKENS / 2
    return float(limits["read"] * row.sequences / (model.weight_bytes + row.sequences * depth * model.kv_bytes("f16")))


def line(row: Row, result: Result, limits: dict[str, Any]) -> str:
    ours = result.get("foundry", [])
    theirs = result.get("llama_cpp", [])
    if not ours:
        return f"| {row.name} | failed | | | | |"
    if row.work == "grow":
        return f"| {row.name}: a growing token over its neighbours | {statistics.median(ours):.3f} | | | | |"
    goal = GOALS.get(row, Goal())
    best = allowed(row, limits)
    share = "" if best is None else f"{statistics.median(ours) / best:.0%}"
    wanted = ", ".join(
        ([f"{goal.share:.0%}"] if goal.share is not None else [])
        + ([f"{goal.ratio}x"] if goal.ratio is not None else [])
    )
    ratio = f"{statistics.median(ours) / statistics.median(theirs):.2f}" if theirs else ""
    peer = f"{statistics.median(theirs):,.0f} [{min(theirs):,.0f}-{max(theirs):,.0f}]" if theirs else "not run"
    figure = f"{statistics.median(ours):,.0f} [{min(ours):,.0f}-{max(ours):,.0f}]"
    return f"| {row.name} | {figure} | {peer} | {ratio} | {share} | {wanted} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/gpu"), help="llama.cpp, models and results")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--only", nargs="+", choices=WORKS)
    parser.add_argument("--models", nargs="+", help="8b-q4_0, 8b-q8_0, 1b-q4_0")
    parser.add_argument("--depths", nargs="+", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="every kind of row on a tiny model, one round")
    a = parser.parse_args()
    rows = [
        row
        for row in (smoke() if a.quick else table())
        if (not a.only or row.work in a.only)
        and (not a.models or row.model in a.models)
        and (not a.depths or row.depth in a.depths)
    ]
    began = time.monotonic()
    limits = card_limits()
    handles = start(a.engines, a.work)
    print(f"{limits['gpu']}; a sum reads {limits['read'] / 1e12:.2f} TB/s, halves multiply at ", end="")
    print(
        f"{limits['products'] / 1e12:.0f} TFLOP/s (PyTorch {limits['torch']}). Tokens a second, median [least-most].\n"
    )
    print("| work | Foundry | llama.cpp | ratio | of what reading allows | at least |\n|---|---|---|---|---|---|")
    results: dict[str, Any] = {"limits": limits, "rows": {}}
    try:
        for _, group in groupby(rows, key=lambda row: row.setting):
            together = list(group)
            found = measure(handles, together, a.work / "models", 1 if a.quick else a.rounds)
            for row in together:
                results["rows"][row.name] = found[row.name]
                print(line(row, found[row.name], limits), flush=True)
            (a.work / "results.json").write_text(json.dumps(results))
    finally:
        for handle in handles.values():
            handle.close()
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes")
    if any("foundry" not in found for found in results["rows"].values()):
        sys.exit("Foundry failed in some rows")


if __name__ == "__main__":
    main()
