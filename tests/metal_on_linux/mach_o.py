"""Compiles every .mm and .cpp of the core for arm64 macOS, with zig's clang and macOS headers (the package ziglang).

What Apple's compiler would refuse is mostly refused here; linking and Apple's own frameworks are not shown. Apple's
frameworks are declared by apple/; the bindings are compiled where nanobind and Python's headers are installed.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
OUT = ROOT / "build" / "mach_o"
FLAGS = ["-target", "aarch64-macos.14.0", "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off"]
FLAGS += ["-fexceptions", "-DFOUNDRY_METAL"]
MACH_O, ARM64, OBJECT = 0xFEEDFACF, 0x0100000C, 1


def sources() -> list[Path]:
    found = [*ROOT.glob("cpp/**/*.mm"), *ROOT.glob("cpp/**/*.cpp")]
    other = {"kernels_avx2.cpp", "kernels_avx512.cpp", "kernels_amx.cpp"}  # instruction sets of other processors
    found = [path for path in found if path.name not in other and "cuda" not in path.parts]
    return found if find_spec("nanobind") else [path for path in found if "bindings" not in path.parts]


def flags_of(path: Path) -> list[str]:
    flags = [*FLAGS, f"-I{ROOT / 'cpp'}", f"-I{ROOT / 'metal' / 'include'}"]
    if path.suffix == ".mm":
        flags += ["-fobjc-arc", f"-I{ROOT / 'tests' / 'metal_on_linux' / 'apple'}"]
    if "bindings" in path.parts:
        import nanobind

        flags += ["-isystem", nanobind.include_dir(), "-isystem", sysconfig.get_path("include")]
    return flags


def compile_one(path: Path) -> str:
    """Empty, or what went wrong."""
    out = OUT / (str(path.relative_to(ROOT)).replace("/", "_") + ".o")
    done = subprocess.run(
        [sys.executable, "-m", "ziglang", "c++", *flags_of(path), "-c", str(path), "-o", str(out)],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        return f"{path.relative_to(ROOT)}:\n{done.stderr}"
    magic, processor, _, kind = struct.unpack("<4I", out.read_bytes()[:16])
    return "" if (magic, processor, kind) == (MACH_O, ARM64, OBJECT) else f"{out}: no arm64 Mach-O object"


def main() -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:
        wrong = [what for what in pool.map(compile_one, sources()) if what]
    for what in wrong:
        print(what)
    print(f"arm64 Mach-O: {len(sources()) - len(wrong)} of {len(sources())} files")
    return 1 if wrong or len(sources()) < 30 else 0


if __name__ == "__main__":
    sys.exit(main())
