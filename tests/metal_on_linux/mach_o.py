"""Compiles every .mm and .cpp of the core for arm64 macOS, with zig's clang and macOS headers (the package ziglang).

What Apple's compiler would refuse is mostly refused here; linking and Apple's own frameworks are not shown. Apple's
frameworks are declared by apple/; the bindings are compiled where nanobind and Python's headers are installed.
Objective-C++ is compiled with the SDKs of macOS 14 and 15, for macOS 14: what is newer must not be used unasked, and no
object may refer to a newer class so that it does not load without it.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from old_sdk import newer_names

ROOT = Path(__file__).parent.parent.parent
OUT = ROOT / "build" / "mach_o"
FLAGS = ["-target", "aarch64-macos.14.0", "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off"]
FLAGS += ["-fexceptions", "-DFOUNDRY_METAL"]
MACH_O, ARM64, OBJECT = 0xFEEDFACF, 0x0100000C, 1
SYMTAB, WEAK = 2, 0x40
PLANTED = """#import <Metal/Metal.h>
namespace foundry { %s }
"""
USES = {
    "a newer class, unasked": "void planted() { (void)[MTLResidencySetDescriptor new]; }",
    "a newer class by a declaration that does not tell its age": (
        "} @interface MTLResidencySetDescriptor : NSObject @end namespace foundry {"
        " void planted() { (void)[MTLResidencySetDescriptor new]; }"
    ),
}


def sources() -> list[Path]:
    found = [*ROOT.glob("cpp/**/*.mm"), *ROOT.glob("cpp/**/*.cpp")]
    other = {"kernels_avx2.cpp", "kernels_avx512.cpp", "kernels_amx.cpp"}  # instruction sets of other processors
    found = [path for path in found if path.name not in other and "cuda" not in path.parts]
    return found if find_spec("nanobind") else [path for path in found if "bindings" not in path.parts]


def flags_of(path: Path) -> list[str]:
    flags = [*FLAGS, f"-I{ROOT / 'cpp'}", f"-I{ROOT / 'metal' / 'include'}"]
    if path.suffix == ".mm":
        flags += ["-fobjc-arc", "-isystem", f"{ROOT / 'tests' / 'metal_on_linux' / 'apple'}"]
    if "bindings" in path.parts:
        import nanobind

        flags += ["-isystem", nanobind.include_dir(), "-isystem", sysconfig.get_path("include")]
    return flags


def undefined(content: bytes) -> set[str]:
    """Symbols that an object needs from others; those that it can do without are left out."""
    (n_commands,) = struct.unpack_from("<I", content, 16)
    at, found = 32, set()
    for _ in range(n_commands):
        command, size = struct.unpack_from("<2I", content, at)
        if command == SYMTAB:
            symbols, n, strings, _ = struct.unpack_from("<4I", content, at + 8)
            for i in range(n):
                name, kind, _, flags, _ = struct.unpack_from("<IBBHQ", content, symbols + 16 * i)
                if kind & 0x0E == 0 and kind & 1 and not flags & WEAK:
                    begin = strings + name
                    found.add(content[begin : content.index(b"\0", begin)].decode())
        at += size
    return found


def compile_one(path: Path) -> str:
    return compile_as(path, 15) + (compile_as(path, 14) if path.suffix == ".mm" else "")


def compile_as(path: Path, sdk: int) -> str:
    """Empty, or what went wrong."""
    out = OUT / (str(path).replace("/", "_") + f".{sdk}.o")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ziglang",
            "c++",
            *flags_of(path),
            f"-DFOUNDRY_SDK={sdk}",
            "-c",
            str(path),
            "-o",
            str(out),
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        return f"{path}, SDK of macOS {sdk}:\n{done.stderr}"
    newer = {f"_OBJC_CLASS_$_{name}" for name in newer_names()} & undefined(out.read_bytes())
    if newer:
        return f"{path}, SDK of macOS {sdk}: does not load without {', '.join(sorted(newer))}\n"
    magic, processor, _, kind = struct.unpack("<4I", out.read_bytes()[:16])
    return "" if (magic, processor, kind) == (MACH_O, ARM64, OBJECT) else f"{out}: no arm64 Mach-O object"


def main() -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:
        wrong = [what for what in pool.map(compile_one, sources()) if what]
    for what in wrong:
        print(what)
    missed = []
    for what, text in USES.items():
        planted = OUT / "planted.mm"
        planted.write_text(PLANTED % text, encoding="utf-8")
        if "MTLResidencySetDescriptor" not in compile_as(planted, 14 if "declaration" in what else 15):
            missed.append(what)
            print("not noticed:", what)
    print(f"arm64 Mach-O: {len(sources()) - len(wrong)} of {len(sources())} files")
    return 1 if wrong or missed or len(sources()) < 30 else 0


if __name__ == "__main__":
    sys.exit(main())
