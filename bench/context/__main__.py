"""The context-honesty suite: what engines do with context memory, side by side: ``python -m bench.context``.

To be run in the repository's root. Each engine that is installed (``requirements.txt``) runs each job in a process of
its own, job by job, so that what is compared was measured within minutes. A table and, with matplotlib, plots go to
``--out``; nothing is asserted on times.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import foundry

from bench.context import engines, models, plots, report
from bench.context.worker import JOBS
from bench.machine import busy_seconds, own_seconds


def run(engine: str, jobs: str, folder: Path, model: Path, a: argparse.Namespace) -> dict[str, report.Result]:
    """The jobs' results, by name; of what went wrong, the last line that it printed."""
    command = [sys.executable, "-m", "bench.context.worker", engine, jobs, str(folder), str(model)]
    command += ["--threads", str(a.threads), "--depth", str(a.depth), *(["--quick"] if a.quick else [])]
    began, busy, own = time.monotonic(), busy_seconds(), own_seconds()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=a.timeout)
        found: dict[str, report.Result] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        found = {job: {"error": f"not done after {a.timeout} s"} for job in jobs.split(",")}
    except json.JSONDecodeError:
        said = [f"exit status {done.returncode}", *done.stderr.strip().splitlines()]
        found = {job: {"error": said[-1]} for job in jobs.split(",")}
    wall = time.monotonic() - began
    others = max(0.0, busy_seconds() - busy - (own_seconds() - own)) / wall / (os.cpu_count() or 1)
    for result in found.values():
        result |= {"wall_s": wall, "others": others}
    return found


def measure(a: argparse.Namespace) -> report.Results:
    found: report.Results = {name: {} for name in a.engines}
    present = []
    for name in a.engines:
        lacking = engines.missing(name)
        if lacking:
            found[name] = {job: {"error": f"not installed: {', '.join(lacking)}"} for job in a.jobs}
        else:
            present.append(name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models.synthetic(folder / "deep.gguf", deep=True)
        tiny = models.synthetic(folder / "tiny.gguf", deep=False)
        model = tiny if a.quick else foundry.pull(a.model)
        for jobs in [",".join(a.jobs)] if a.quick else a.jobs:
            for name in present:
                results = run(name, jobs, folder, model, a)
                found[name] |= results
                for job, result in results.items():
                    print(f"{name} {job}: {result.get('error', 'done')}, {result['wall_s']:.0f} s", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/context"))
    parser.add_argument("--model", default=foundry.hub.DEFAULT_MODEL, help="a llama's GGUF file, or a name")
    parser.add_argument("--engines", nargs="+", choices=list(engines.ENGINES), default=list(engines.ENGINES))
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--depth", type=int, default=32768, help="no history is to be longer")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--timeout", type=int, default=600, help="seconds for one engine's job")
    parser.add_argument("--quick", action="store_true", help="a tiny model, for a look whether everything works")
    parser.add_argument("--again", action="store_true", help="measure --jobs again, and keep what --out has of others")
    parser.add_argument("--render", action="store_true", help="table and plots of what --out has, without measuring")
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    file = a.out / "results.json"
    saved = {"machine": report.machine(), "date": time.strftime("%Y-%m-%d"), "runs": [], "engines": {}}
    if a.render or a.again:
        saved = json.loads(file.read_text())
    if not a.render:
        began = time.monotonic()
        for name, jobs in measure(a).items():
            saved["engines"][name] = saved["engines"].get(name, {}) | jobs
        command = shlex.join(["python", "-m", "bench.context", *sys.argv[1:]])
        saved["runs"].append([command, (time.monotonic() - began) / 60])
        file.write_text(json.dumps(saved))
    images = plots.draw(saved["engines"], a.out)
    (a.out / "RESULTS.md").write_text(report.markdown(saved, images))
    print(f"table: {a.out / 'RESULTS.md'}; plots: {', '.join(images) or 'none, for want of matplotlib'}")
    if a.quick and any("error" in result for result in saved["engines"]["foundry"].values()):
        sys.exit("foundry: " + "; ".join(r["error"] for r in saved["engines"]["foundry"].values() if "error" in r))


if __name__ == "__main__":
    main()
