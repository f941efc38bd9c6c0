"""Two installed revisions in turns: ``python bench/revisions/compare.py BEFORE_PYTHON AFTER_PYTHON model.gguf``.

Each is the Python interpreter of an environment that has one revision installed. Every round starts both anew, in
turns; per figure the medians over the rounds, their ratio (above one: the second is faster) and each side's spread are
printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
from pathlib import Path

WORKER = Path(__file__).with_name("worker.py")


def figures(python: str, arguments: list[str]) -> dict[str, float]:
    done = subprocess.run([python, str(WORKER), *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    found: list[list[dict[str, float]]] = [[], []]
    for i in range(args.rounds):
        for side in (0, 1) if i % 2 == 0 else (1, 0):
            found[side].append(figures((args.before, args.after)[side], [args.model, str(args.threads)]))
    print(f"{'figure':32} {'before':>10} {'after':>10} {'ratio':>7}  spread of each")
    for name in found[0][0]:
        before, after = ([run[name] for run in side] for side in found)
        middle = [statistics.median(values) for values in (before, after)]
        spread = [(max(values) - min(values)) / m for values, m in zip((before, after), middle, strict=True)]
        print(
            f"{name:32} {middle[0]:10.2f} {middle[1]:10.2f} {middle[1] / middle[0]:7.3f}"
            f"  {spread[0]:.1%} {spread[1]:.1%}"
        )


if __name__ == "__main__":
    main()
