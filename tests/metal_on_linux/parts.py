"""The parts of the kernel files (of_part in kernel.h), by clang's preprocessor: together all instances, none twice.

    python tests/metal_on_linux/parts.py

The Metal device compiles one part of a file, as the library carries it, when a kernel of that format is asked for.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from check_spaces import clang

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "cmake"))
from embed_kernels import with_headers  # noqa: E402

FLAGS = ["-std=c++17", "-x", "c++", "-E", "-P", "-nostdinc++", "-D__METAL_VERSION__=310"]


def instances(text: str, part: str, compiler: str, empty: str) -> list[str]:
    """Names of the kernels that a library has; of one part, or of none named: all."""
    before = f"#define FOUNDRY_PART\n#define FOUNDRY_PART_{part} ,\n" if part else ""
    define = "#define instantiate_kernel(name, ...) @kernel name @end\n#define UNROLL\n"
    command = [compiler, *FLAGS, f"-I{empty}", "-"]
    done = subprocess.run(command, input=define + before + text, capture_output=True, text=True, check=True)
    found = re.findall(r"@kernel (.*?) @end", done.stdout, re.S)
    return ["".join(re.findall(r'"(\w+)"', name)) for name in found]


def wrong_with(path: Path, parts: list[str], compiler: str, empty: str) -> list[str]:
    text = with_headers(path, ROOT / "metal", set())
    whole = instances(text, "", compiler, empty)
    if "of_part(" not in path.read_text(encoding="utf-8"):
        return [] if whole else [f"{path.name}: no kernels"]
    of = {part: instances(text, part, compiler, empty) for part in parts}
    counted = Counter(name for names in of.values() for name in names)
    wrong = [f"{path.name}: {name} is in {counted[name]} parts" for name in whole if counted[name] != 1]
    for part, names in of.items():
        for name in names:
            if part != "rest" and f"_{part}_" not in f"{name}_":
                wrong.append(f"{path.name}: {name} is in the part {part}")
    return wrong if whole else [f"{path.name}: no kernels"]


def main() -> int:
    compiler = clang()
    table = (ROOT / "cpp/formats/formats.def").read_text(encoding="utf-8")
    parts = ["any", "rest", *re.findall(r"^\s*FORMAT\((\w+),", table, re.M)]
    files = sorted(ROOT.glob("metal/*.metal"))
    with tempfile.TemporaryDirectory() as empty:
        for header in ("metal_stdlib", "metal_simdgroup_matrix"):
            (Path(empty) / header).touch()
        wrong = [what for path in files for what in wrong_with(path, parts, compiler, empty)]
        planted = Path(empty) / "linear_tiles.metal"
        text = (ROOT / "metal/linear_tiles.metal").read_text(encoding="utf-8")
        planted.write_text(text.replace("of_part(name, ", "of_part(f32, "), encoding="utf-8")
        seen = bool(wrong_with(planted, parts, compiler, empty))
    print("".join(f"{what}\n" for what in wrong), end="")
    print("" if seen else "not seen: every format in the part of one\n", end="")
    print(f"{len(files)} kernel files in {len(parts)} parts: {len(wrong)} faults")
    return 1 if wrong or not seen or len(parts) < 15 else 0


if __name__ == "__main__":
    sys.exit(main())
