"""Foundry beside llama.cpp on this machine's processors: ``python -m bench.peers``, in the repository's root.

Builds llama.cpp (``requirements.txt``) in an environment of its own and makes the models, both once, under ``--work``.
Engines take turns within each round; ratios are of one round, beside the machine's limits of that minute. The whole
takes hours: ``--only``, ``--models``, ``--kv`` and ``--depths`` choose rows, ``--again`` adds them to those that
``--work`` has, and the table says which were not run. ``--quick`` is a smoke run on a tiny model. Nothing is asserted
on times.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.context.report import machine
from bench.machine import NOTICED, Watch, autogroup, enter_own_session
from bench.peers import environment, report
from bench.peers.models import Model
from bench.peers.rows import WORKS, Row, of_file, smoke, table
from bench.peers.turns import Handle, measure, measure_loads

HERE = Path(__file__).parent


def chosen(rows: list[Row], a: argparse.Namespace) -> list[Row]:
    def wanted(row: Row) -> bool:
        choices = [(row.work, a.only), (row.model, a.models), (row.kv, a.kv), (row.depth, a.depths)]
        return all(not allowed or value in allowed for value, allowed in choices)

    return [row for row in rows if wanted(row)]


def warn_of_load() -> str:
    """What else runs before the run begins, on standard error too."""
    watch = Watch()
    time.sleep(1)
    busy = watch.others()
    if busy > NOTICED:
        print(f"warning: other processes have {busy:.2f} cores now; figures will be noisy", file=sys.stderr)
    return f"other load when it began: {busy:.2f} cores; scheduling group {autogroup() or 'none'}"


class Run:
    def __init__(self, a: argparse.Namespace, saved: dict[str, Any], results: Path) -> None:
        self._a, self._saved, self._results = a, saved, results
        self._pythons = environment.interpreters(a.engines, a.work)
        self._limits = environment.limits_program(a.work)
        self._models, self._folder = a.work / "models", a.work / "workers"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._began = time.monotonic()
        self._handles: dict[str, Handle] = {}
        self._note = {
            "date": time.strftime("%Y-%m-%d %H:%M"),
            "command": shlex.join(["python", "-m", "bench.peers", *sys.argv[1:]]),
            "revision": environment.foundry_revision(),
            "rounds": a.rounds,
            "group": warn_of_load(),
        }

    def start(self) -> None:
        settings = {"foundry": ("foundry", {}), "fa off": ("llama_cpp", {"flash_attention": False})}
        settings["fa on"] = ("llama_cpp", {"flash_attention": True})
        for name, (engine, setting) in settings.items():
            if engine in self._pythons:
                self._handles[name] = Handle(
                    self._pythons[engine], engine, self._folder / name.replace(" ", "-"), setting
                )
        versions: dict[str, str] = {}
        for handle in self._handles.values():
            versions |= handle.ask("versions")["versions"]
        self._note["versions"] = versions
        self._saved["runs"].append(self._note)

    def rows(self, rows: list[Row]) -> None:
        for _, group in groupby(rows, key=lambda row: (row.work == "load", row.setting)):
            together = list(group)
            first = together[0]
            path = str(Model(first.model).file(self._models))
            before = self._limits_now(first.threads)
            if first.work == "load":
                loads = measure_loads(self._pythons, first, path, self._a.rounds, self._folder)
                found = {first.name: loads}
            else:
                found = measure(self._handles, together, path, self._a.rounds, self._a.tries)
            after = self._limits_now(first.threads)
            limits = before | {
                name: max(before[name], after[name]) for name in ("read_huge", "read_small", "f32", "int8")
            }
            for row in together:
                entry = {"row": asdict(row), "limits": limits, **found[row.name]}
                self._saved["rows"][row.name] = entry
                print(report.line(row, entry), flush=True)
            self._note["minutes"] = (time.monotonic() - self._began) / 60
            self._results.write_text(json.dumps(self._saved))  # what is measured is kept, whatever comes

    def _limits_now(self, threads: int) -> dict[str, Any]:
        return environment.limits(self._limits, threads, 0.1 if self._a.quick else 0.5)

    def close(self) -> None:
        for handle in self._handles.values():
            handle.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/peers"), help="llama.cpp, models and results")
    parser.add_argument(
        "--out", type=Path, help="the table; by default bench/peers/RESULTS.md, or with --quick in --work"
    )
    parser.add_argument("--engines", nargs="+", choices=["foundry", "llama_cpp"], default=["foundry", "llama_cpp"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)) if sys.platform == "linux" else 4)
    parser.add_argument("--threads-to", type=int, help="the last of the rows of 1, 2, 4, ... threads; else --threads")
    parser.add_argument("--only", nargs="+", choices=WORKS, help="these kinds of rows")
    parser.add_argument("--models", nargs="+", help="0.5b-q4_0, 1b-q4_k_m, ...")
    parser.add_argument("--file", help="a GGUF file of one's own: decode and prefill, at --depths")
    parser.add_argument("--kv", nargs="+", choices=["f16", "q8_0"])
    parser.add_argument("--depths", nargs="+", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--tries", type=int, default=2, help="of a turn that other processes disturb")
    parser.add_argument("--quick", action="store_true", help="every kind of row on a tiny model, one round")
    parser.add_argument("--again", action="store_true", help="measure these rows, and keep what --work has of others")
    parser.add_argument("--render", action="store_true", help="the table of what --work has, without measuring")
    a = parser.parse_args()
    a.rounds = a.rounds or (1 if a.quick else 5)
    if a.quick:
        every = smoke(a.threads)
    else:
        whole = table(a.threads, a.threads_to or a.threads)
        every = of_file(a.file, a.depths or [0, 2048], a.threads) if a.file else whole
    kind = "quick" if a.quick else "file" if a.file else "results"
    results = a.work / f"{kind}.json"
    out = a.out or (HERE / "RESULTS.md" if kind == "results" else a.work / f"{kind}.md")
    saved: dict[str, Any] = {"machine": machine(), "compiler": environment.compiler(), "runs": [], "rows": {}}
    if a.again or a.render:
        saved = json.loads(results.read_text())
    if not a.render:
        enter_own_session()
        run = Run(a, saved, results)
        try:
            run.start()
            run.rows(chosen(every, a))
        finally:
            run.close()
    saved["rows"] = {row.name: saved["rows"][row.name] for row in every if row.name in saved["rows"]}  # in their order
    out.write_text(report.markdown(saved, [row for row in every if row.name not in saved["rows"]]))
    print(f"table: {out}")
    broken = [name for name, entry in saved["rows"].items() if "foundry" in entry["errors"]]
    if broken:
        sys.exit(f"Foundry failed in: {', '.join(broken)}")


if __name__ == "__main__":
    main()
