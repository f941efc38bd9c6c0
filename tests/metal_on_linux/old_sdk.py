"""Compiles the Metal device as an SDK of macOS 14 has it, without what is newer, and sees to what its objects refer to.

    python tests/metal_on_linux/old_sdk.py

A class, an enumerator or a method that macOS 15 brought must not be used by name: such a build does not compile with an
older SDK, and with a newer one it does not load on macOS 14. So each .mm compiles with both sets of declarations, and
the classes that it refers to are all of macOS 14. Each way to break that is then planted once, and must be found.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
APPLE = ROOT / "tests" / "metal_on_linux" / "apple"
FLAGS = ["-std=c++20", "-fobjc-arc", "-fexceptions", "-fblocks", "-fobjc-runtime=gnustep-2.0", "-Wall", "-Wextra"]
FLAGS += [
    "-Werror",
    "-Wno-unknown-warning-option",
    f"-I{ROOT / 'cpp'}",
    f"-I{ROOT / 'metal' / 'include'}",
    f"-I{APPLE}",
]
PLANTED = {
    "a class of macOS 15": ("MTLResidencySetDescriptor", "void planted() { (void)[MTLResidencySetDescriptor new]; }"),
    "a protocol of macOS 15": ("MTLResidencySet", "void planted(id<MTLResidencySet> set) { [set commit]; }"),
    "an enumerator of macOS 15": (
        "MTLLanguageVersion3_2",
        "void planted(MTLCompileOptions* options) { options.languageVersion = MTLLanguageVersion3_2; }",
    ),
    "a property of macOS 15": ("mathMode", "void planted(MTLCompileOptions* options) { options.mathMode = {}; }"),
}


def clang() -> str:
    """The newest, from 16 on."""
    folders = [Path(folder) for folder in os.environ["PATH"].split(os.pathsep)]
    found = [path for folder in folders if folder.is_dir() for path in folder.glob("clang++-[0-9][0-9]")]
    if not found:
        raise SystemExit("expected clang++-16 or later, found none")
    return str(max(found, key=lambda path: int(path.name.rpartition("-")[2])))


def compile_one(compiler: str, source: Path, sdk: int, out: Path) -> str:
    """Empty, or what went wrong."""
    command = [compiler, *FLAGS, f"-DFOUNDRY_SDK={sdk}", "-c", str(source), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stderr


def newer_names() -> set[str]:
    """Classes that Metal.h declares as of macOS 15 or later."""
    text = (APPLE / "Metal" / "Metal.h").read_text(encoding="utf-8")
    return set(re.findall(r"API_AVAILABLE\(macos\([\d.]+\)\)\s*@interface (\w+)", text))


def classes_of(out: Path) -> set[str]:
    return {name.decode() for name in re.findall(rb"\._OBJC_REF_CLASS_(\w+)", out.read_bytes())}


def faults(compiler: str, source: Path, folder: Path) -> list[str]:
    found = []
    for sdk in (14, 15):
        out = folder / f"{source.stem}.{sdk}.o"
        wrong = compile_one(compiler, source, sdk, out)
        if wrong:
            found.append(f"{source.name}, SDK of macOS {sdk}: {wrong}")
        elif newer := classes_of(out) & newer_names():
            found.append(f"{source.name}, SDK of macOS {sdk}: refers to {', '.join(sorted(newer))}")
    return found


def main() -> int:
    compiler = clang()
    sources = sorted((ROOT / "cpp").rglob("*.mm"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ThreadPoolExecutor(2) as pool:
            found = [
                fault for one in pool.map(lambda source: faults(compiler, source, folder), sources) for fault in one
            ]
        for fault in found:
            print(fault)
        missed = 0
        for what, (said, text) in PLANTED.items():
            planted = folder / "planted.mm"
            planted.write_text(f"#import <Metal/Metal.h>\nnamespace foundry {{ {text} }}\n", encoding="utf-8")
            told = faults(compiler, planted, folder)
            seen = any("SDK of macOS 14" in fault and said in fault for fault in told)
            if "a class" in what:
                seen = seen and any("SDK of macOS 15: refers to" in fault for fault in told)
            missed += not seen
            if not seen:
                print("not noticed:", what, told)
    print(
        f"old SDK: {len(sources)} files, {len(found)} faults; {len(PLANTED) - missed} of {len(PLANTED)} planted found"
    )
    return 1 if found or missed or len(sources) < 5 or not newer_names() else 0


if __name__ == "__main__":
    sys.exit(main())
