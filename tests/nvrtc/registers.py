"""Compiles every kernel by NVRTC, without a GPU, and holds registers and spills to ceilings.

    python tests/nvrtc/registers.py build/cuda/foundry_nvrtc_compile [--whole] [--write]
    python tests/nvrtc/registers.py --wheels             what pip needs for that

Every instance is compiled for sm_90a, each third for sm_80 (with --whole and --write all of them), a sample for 86, 89,
100 and 120. ceilings.txt has a line for each instance: the kernel with its function constants, then for sm_80 and for
sm_90a registers and bytes stored for want of them. More is red, and so is an instance that has no line, or that metal/
has no more. To raise a ceiling: `--write`, and a sentence in the commit that says why. The wheel that is asked for is
of one version, for another one counts otherwise.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).parent / "ceilings.txt"
WHEELS = "nvidia-cuda-nvrtc==13.0.88"
WHOLE, SAMPLED = ("sm_80", "sm_90a"), ("sm_86", "sm_89", "sm_100", "sm_120")
SAMPLE = 12  # each so many
PART = 3  # of sm_80
WORKERS = 2
Counts = dict[str, tuple[int, int]]  # kernel: registers, bytes spilled


def nvrtc() -> str:
    spec = find_spec("nvidia")
    for folder in spec.submodule_search_locations or [] if spec else []:
        for path in Path(folder).glob("cu13/lib/libnvrtc.so.13"):
            return str(path)
    raise SystemExit(f"expected NVRTC, found none: pip install {WHEELS}")


def compiled(program: str, architecture: str, first: int, each: int) -> Counts:
    done = subprocess.run(
        [program, nvrtc(), architecture, str(first), str(each)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{architecture}: {done.stdout.splitlines()[-1]}{done.stderr}")
    return {name: (int(n), int(m)) for name, _, n, m in map(str.split, done.stdout.splitlines())}


def instances() -> set[str]:
    """Names of all kernels of metal/, by the preprocessor: what the program must have compiled."""
    sys.path.insert(0, str(ROOT / "cmake"))
    from embed_cuda import kernel_files
    from embed_kernels import with_headers

    define = "#define instantiate_kernel(name, ...) @kernel name @end\n#define UNROLL\n#define __METAL_VERSION__ 310\n"
    names: set[str] = set()
    with tempfile.TemporaryDirectory() as empty:
        for header in ("metal_stdlib", "metal_simdgroup_matrix"):
            (Path(empty) / header).touch()
        for path in kernel_files(ROOT / "metal"):
            command = ["c++", "-x", "c++", "-E", "-P", f"-I{empty}", "-"]
            text = define + with_headers(path, ROOT / "metal", set())
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
            found = re.findall(r"@kernel (.*?) @end", done.stdout, re.S)
            names |= {"".join(re.findall(r'"(\w+)"', name)) for name in found}
    return names


def line(kernel: str, found: dict[str, Counts]) -> str:
    counts = (count for one in WHOLE for count in found[one].get(kernel, ("-", "-")))
    return " ".join([kernel, *map(str, counts)])


def read_table() -> dict[str, Counts]:
    table: dict[str, Counts] = {one: {} for one in WHOLE}
    for text in TABLE.read_text(encoding="utf-8").splitlines():
        kernel, *counts = text.split()
        for i, one in enumerate(WHOLE):
            if counts[2 * i] != "-":  # other GPUs than Hopper's are not given wide tiles
                table[one][kernel] = (int(counts[2 * i]), int(counts[2 * i + 1]))
    return table


def wrong_with(found: dict[str, Counts], table: dict[str, Counts]) -> list[str]:
    names, known = {kernel.rsplit("-", 1)[0] for kernel in found[WHOLE[1]]}, instances()
    wrong = [f"{name}: not compiled by compile.cpp" for name in sorted(known - names)]
    wrong += [f"{name}: expected in metal/, found nowhere" for name in sorted(names - known)]
    wrong += [
        f"{kernel}: expected an instance, found none" for kernel in table[WHOLE[1]].keys() - found[WHOLE[1]].keys()
    ]
    for one in WHOLE:
        for kernel, (registers, stored) in found[one].items():
            if kernel not in table[one]:
                wrong.append(f"{kernel}: expected a line in {TABLE.name}, found none: {line(kernel, found)}")
                continue
            most, most_stored = table[one][kernel]
            if registers > most or stored > most_stored:
                wrong.append(
                    f"{kernel}: expected at most {most} registers and {most_stored} bytes spilled for {one}, found"
                    f" {registers} and {stored}"
                )
    return wrong


def main() -> int:
    if "--wheels" in sys.argv:
        print(WHEELS)
        return 0
    program = sys.argv[1]
    whole = "--whole" in sys.argv or "--write" in sys.argv
    jobs = [("sm_90a", first, WORKERS) for first in range(WORKERS)]
    jobs += [("sm_80", first, WORKERS) for first in range(WORKERS)] if whole else [("sm_80", 0, PART)]
    jobs += [(one, i, SAMPLE) for i, one in enumerate(SAMPLED)]
    with ThreadPoolExecutor(WORKERS) as pool:
        results = list(pool.map(lambda job: compiled(program, *job), jobs))
    found: dict[str, Counts] = {one: {} for one in (*WHOLE, *SAMPLED)}
    for (one, _, _), counts in zip(jobs, results, strict=True):
        found[one] |= counts
    if "--write" in sys.argv:
        TABLE.write_text("".join(f"{line(kernel, found)}\n" for kernel in sorted(found[WHOLE[1]])), encoding="utf-8")
    table = read_table()
    wrong = wrong_with(found, table)
    tight = {one: {kernel: (n - 1, m) for kernel, (n, m) in table[one].items()} for one in WHOLE}
    seen = len(wrong_with(found, tight)) > len(wrong)  # a ceiling that is too low is noticed
    print("".join(f"{what}\n" for what in wrong), end="")
    print("" if seen else "not seen: a ceiling that is too low\n", end="")
    sampled = sum(len(found[one]) for one in SAMPLED)
    counted = ", ".join(f"{len(found[one])} for {one}" for one in WHOLE)
    print(f"{counted}, {sampled} for {', '.join(SAMPLED)}: {len(wrong)} faults")
    return 1 if wrong or not seen else 0


if __name__ == "__main__":
    sys.exit(main())
