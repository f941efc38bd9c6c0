"""Holds the kernels' arrays to registers: a lane of Apple's GPUs has 128, and memory of its own is slow.

    python tests/metal_on_linux/registers.py            no array is left in memory
    python tests/metal_on_linux/registers.py --spills   and what NVIDIA's assembler can't keep in 128 registers
                                             [--write]  becomes the table
    python tests/metal_on_linux/registers.py --wheels   what pip needs for that

The first compiles every instance with clang -O2, as Apple's compiler would: an array that a loop indexes by a variable,
because it was not unrolled in full, is an `alloca` still. The second builds the instances for GPUs of few registers
with nvcc, with Apple's matrices of two elements a lane (registers/), and compares the bytes that ptxas spills with
registers.txt: more is red. nvcc is the one of the packages in WHEELS, or the one on PATH, of the same version. Each has
something planted, which it must see.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from check_spaces import clang
from parts import instances
from translator import FOLDER, translate

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "cmake"))
from embed_kernels import with_headers  # noqa: E402

HERE = Path(__file__).parent
TABLE = HERE / "registers.txt"
WHEELS = "nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96 "
WHEELS += "nvidia-cuda-cccl==13.0.85"
NVCC_VERSION = "V13.0.88"
CLANG_FLAGS = ["-std=c++17", "-x", "c++", "-nostdinc++", "-O2", "-ffp-contract=off", "-fno-exceptions"]
CLANG_FLAGS += ["-w", "-Werror=pass-failed", "-S", "-emit-llvm", "-o", "-"]
NVCC_FLAGS = [
    "-std=c++20",
    "-arch=sm_80",
    "--fmad=false",
    "-O3",
    "-diag-suppress",
    "177,550",
    "-cubin",
    "-Xptxas",
    "-v",
]
NVCC_FLAGS += ["-maxrregcount=128"]
KERNELS = sorted(ROOT.glob("metal/*.metal"))
CONSTANTS = 15  # function constants: a bias, a residual, a norm and a gate
HEAVY = ["attention_decode", "attention_prefill", "linear", "linear_tiles"]  # the others have no arrays to speak of
# name: file, what is there, what takes its place
PLANTED = {
    "a loop that nobody unrolls": ("attention_prefill", "UNROLL\n    for (uint t = 0", "\n    for (uint t = 0"),
    "a loop to a number that is not known": (
        "linear",
        "for (uint r = 0; r < kRows; ++r) {\n      if (r >= rows) continue;",
        "for (uint r = 0; r < rows; ++r) {\n",
    ),
    "an array that is indexed by a parameter": (
        "attention_decode",
        "score[u * kQueries + i] = dot;",
        "score[u * kQueries + (i ^ (p.layer & 1))] = dot;",
    ),
}


def arrays_in_memory(text: str, compiler: str) -> tuple[int, list[str]]:
    """How many functions a kernel file's translation has, and what is wrong with them."""
    includes = [f"-I{HERE / 'check'}", f"-I{ROOT / 'metal/include'}", f"-I{ROOT / 'cpp'}"]
    done = subprocess.run(
        [compiler, *CLANG_FLAGS, *includes, "-"], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return 0, [done.stderr.strip()]
    function, n, wrong = "", 0, []
    for line in done.stdout.splitlines():
        if defined := re.match(r"define .*@(\w+)\(", line):
            function, n = defined[1], n + 1
        elif left := re.match(r"\s+%\S+ = alloca (.*?), align", line):
            wrong.append(f"{function}: {left[1]}")
    return n, wrong


def check_arrays() -> bool:
    compiler = clang()
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda path: arrays_in_memory(translate(path, "check"), compiler), KERNELS))
    wrong = [f"{path.name}: {what}" for path, (_, found) in zip(KERNELS, results, strict=True) for what in found]
    print("".join(f"an array in memory: {what}\n" for what in wrong), end="")
    seen = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, (file, old, new) in PLANTED.items():
            text = (ROOT / f"metal/{file}.metal").read_text(encoding="utf-8")
            assert old in text, f"{file}.metal no longer has {old!r}"
            planted = Path(folder) / f"{file}.metal"
            planted.write_text(text.replace(old, new, 1), encoding="utf-8")
            found = bool(arrays_in_memory(translate(planted, "check"), compiler)[1])
            seen += found
            print("" if found else f"not seen: {name}\n", end="")
    print(
        f"{sum(n for n, _ in results)} functions, {len(wrong)} arrays in memory; "
        f"{seen} of {len(PLANTED)} planted ones seen"
    )
    return not wrong and seen == len(PLANTED)


def nvcc() -> list[str]:
    """The command, with where its headers are."""
    spec = find_spec("nvidia.cu13") if find_spec("nvidia") else None
    for folder in spec.submodule_search_locations or [] if spec else []:
        if (Path(folder) / "bin/nvcc").exists():
            return [str(Path(folder) / "bin/nvcc"), f"-I{Path(folder) / 'include'}"]
    found = shutil.which("nvcc")
    if found is None:
        raise SystemExit(f"expected nvcc, found none: pip install {WHEELS}")
    return [found]


def spilled(command: list[str], folder: Path, name: str, few: bool = True) -> dict[str, tuple[int, int]]:
    """Of each instance of a kernel file: registers, and bytes that are stored for want of them."""
    source = folder / f"{name}.cu"
    path = ROOT / f"metal/{name}.metal"
    with tempfile.TemporaryDirectory() as empty:
        for header in ("metal_stdlib", "metal_simdgroup_matrix"):
            (Path(empty) / header).touch()
        names = instances(with_headers(path, ROOT / "metal", set()), "", clang(), empty)
    entries = "".join(f"FOUNDRY_ENTRY({instance}, {CONSTANTS})\n" for instance in names)
    source.write_text(translate(path, "cuda") + entries, encoding="utf-8")
    paths = [HERE / "registers", folder, FOLDER / "cuda", FOLDER, ROOT / "cpp"]
    compile_it = [
        *command,
        *(f"-I{path}" for path in paths),
        f"-DFOUNDRY_CONSTANTS={CONSTANTS}",
        *(["-DFOUNDRY_FEW_REGISTERS"] if few else []),
        str(source),
    ]
    done = subprocess.run(
        [*compile_it, *NVCC_FLAGS, "-o", str(folder / f"{name}.cubin")], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"{name}: {done.stdout}{done.stderr}")
    said = r"Compiling entry function 'foundry_(\w+)_\d+'.*?(\d+) bytes spill stores.*?Used (\d+) registers"
    found = re.findall(said, done.stdout + done.stderr, re.S)
    return {instance: (int(registers), int(stored)) for instance, stored, registers in found}


def check_spills(write: bool) -> bool:
    command = nvcc()
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=True).stdout
    if NVCC_VERSION not in version:
        raise SystemExit(
            f"expected nvcc {NVCC_VERSION}, found {version.strip().splitlines()[-1]}: pip install {WHEELS}"
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for header in ROOT.glob("metal/include/*.h"):
            (folder / header.name).write_text(translate(header, "cuda"), encoding="utf-8")
        with ThreadPoolExecutor(2) as pool:
            parts = list(pool.map(lambda file: spilled(command, folder, file), HEAVY))
        found = {kernel: counts for part in parts for kernel, counts in part.items()}
        wide = {} if write else spilled(command, folder, "attention_prefill", few=False)
    if write:
        lines = [f"{kernel} {registers} {stored}\n" for kernel, (registers, stored) in sorted(found.items())]
        TABLE.write_text("".join(lines), encoding="utf-8")
    kept = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        kernel, _, stored = line.split()
        kept[kernel] = int(stored)
    wrong = [
        f"{kernel}: expected an instance in registers.txt, found {counts}"
        for kernel, counts in found.items()
        if kernel not in kept
    ]
    wrong += [f"{kernel}: expected an instance, found none" for kernel in kept if kernel not in found]
    wrong += [
        f"{kernel}: expected at most {kept[kernel]} bytes spilled, found {stored}"
        for kernel, (_, stored) in found.items()
        if stored > kept.get(kernel, stored)
    ]
    print("".join(f"{what}\n" for what in wrong), end="")
    seen = write or any(stored > kept[kernel] for kernel, (_, stored) in wide.items())
    print("" if seen else "not seen: kernels for GPUs of many registers\n", end="")
    print(f"{len(found)} instances at 128 registers, {sum(stored > 0 for _, stored in found.values())} of which spill")
    return not wrong and seen


def main() -> int:
    if "--wheels" in sys.argv:
        print(WHEELS)
        return 0
    well = check_arrays()
    if "--spills" in sys.argv:
        well = check_spills("--write" in sys.argv) and well
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
