"""The first time on a Mac: all that only Apple's hardware can show, and a file to send back (docs/first_mac.md).

    python3 .ci/first_mac.py [--any] [--out first_mac.json]

Steps that fail are kept with what they said, and the rest goes on. It needs a venv's worth of room beside the sources,
Xcode's command line tools, and the network for packages and a model of 100 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv" / "bin"
SAID = 4000  # characters kept of what a step that failed said


@dataclass(frozen=True)
class Step:
    name: str
    command: str  # for bash, in the repository's root
    expected: str = ""  # a pattern that its output must hold
    minutes: float = 5
    figures: bool = False  # its last line is JSON


@dataclass
class Result:
    name: str
    ok: bool
    seconds: float
    said: str = ""
    figures: dict[str, object] | None = None


def steps(device: str) -> list[Step]:
    strict = f"{device}:strict"
    needed = f"FOUNDRY_METAL={device} FOUNDRY_NEEDS_DEVICES={device},{strict} MTL_DEBUG_LAYER=1"
    python = VENV / "python"
    figures = f"{python} .ci/first_mac.py --figures"
    return [
        Step("kernels by Apple's compiler", ".ci/metal_kernels"),
        Step("install", f"python3 -m venv .venv && {VENV}/pip install -q '.[test]'"),
        Step("build", f"PATH={VENV}:$PATH; cmake --preset dev -DFOUNDRY_METAL=ON -DFOUNDRY_BUILD_BENCH=OFF && "
             "cmake --build --preset dev --target foundry_tests"),
        Step("kernels against the reference", f"{needed} build/dev/foundry_tests --source-file='*tests/kernels*'",
             "Status: SUCCESS|0 failed"),
        Step("whole models", f"{needed} {python} -m pytest -q -m '' tests/python/test_metal.py -rP", r"\d+ passed"),
        Step("random programs", f"{needed} FOUNDRY_DEVICE={strict} FOUNDRY_PROGRAMS=40 {python} -m pytest -q -m slow "
             "tests/python/test_programs.py", r"\d+ passed"),
        Step("figures, first start", f"{figures} {device}", figures=True),
        Step("figures, second start", f"{figures} {device}", figures=True),  # pipelines were kept
        Step("figures of the processor", f"{figures} cpu", figures=True),
    ]  # fmt: skip


def run(step: Step) -> Result:
    began = time.monotonic()
    child = subprocess.Popen(
        ["bash", "-c", step.command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        said, _ = child.communicate(timeout=60 * step.minutes)
        ok = child.returncode == 0 and re.search(step.expected, said) is not None
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # with all that it started
        said, _ = child.communicate()
        said, ok = f"{said}\nno end after {step.minutes} minutes", False
    result = Result(step.name, ok, round(time.monotonic() - began, 1), said="" if ok else said[-SAID:])
    if ok and step.figures:
        result.figures = json.loads(said.strip().splitlines()[-1])
    return result


def machine() -> dict[str, str]:
    def said(*command: str) -> str:
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()
        except OSError:
            return ""

    return {
        "system": said("sw_vers", "-productVersion") or platform.platform(),
        "build": said("sw_vers", "-buildVersion"),
        "processor": said("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine(),
        "memory_bytes": said("sysctl", "-n", "hw.memsize"),
        "xcode": said("xcodebuild", "-version").replace("\n", " "),
        "revision": said("git", "-C", str(ROOT), "rev-parse", "HEAD"),
    }


def figures(device: str, model: str | None = None, prompt: int = 512, decode: int = 64) -> dict[str, object]:
    """Of SmolLM2, in a process that has done nothing yet: the first token's time holds the compiling of kernels."""
    import foundry
    from foundry import CompiledModel

    began = time.monotonic()
    loaded = CompiledModel.load(model or foundry.pull(), device=device)
    found: dict[str, object] = {"device": loaded.device, "load_s": time.monotonic() - began}
    tokens = [1 + i % 200 for i in range(prompt)]
    for name in ("first_token_s", "prompt_s"):  # the second has all kernels
        with loaded.session(prompt_tokens=prompt, max_new_tokens=decode) as session:
            began = time.monotonic()
            session.forward(tokens)
            found[name] = time.monotonic() - began
    with loaded.session(prompt_tokens=8, max_new_tokens=2 * decode) as session:
        list(session.stream([1, 2, 3], max_new_tokens=decode // 2, ignore_eos=True))
        began = time.monotonic()
        list(session.stream([1], max_new_tokens=decode, ignore_eos=True))
        found["decode_tokens_per_s"] = decode / (time.monotonic() - began)
    found["prompt_tokens_per_s"] = prompt / float(str(found["prompt_s"]))
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--any", action="store_true", help="take a virtual GPU, which reports an older family")
    parser.add_argument("--out", type=Path, default=ROOT / "first_mac.json")
    parser.add_argument("--figures", metavar="DEVICE", help="only these, in this process")
    arguments = parser.parse_args()
    if arguments.figures:
        print(json.dumps(figures(arguments.figures)))
        return 0
    if sys.platform != "darwin" or platform.machine() != "arm64":
        print(f"expected a Mac with Apple silicon, found {platform.platform()}")
        return 1
    device = "metal:any" if arguments.any else "metal"
    if arguments.any:
        print('metal:any: a GPU that "metal" would refuse is taken; what fails here may be the virtual driver')
    results = []
    for step in steps(device):
        print(f"{step.name} ...", flush=True)
        results.append(run(step))
        print(f"  {'ok' if results[-1].ok else 'FAILED'}, {results[-1].seconds} s", flush=True)
    report = {"device": device, "machine": machine(), "steps": [asdict(result) for result in results]}
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    failed = [result.name for result in results if not result.ok]
    print(f"failed: {', '.join(failed)}" if failed else "all is well", f"- send back {arguments.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
