"""Writes the files of metal/ into a C++ source, each with its own headers put in: embed_kernels.py FOLDER OUT.

Headers are those of FOLDER/include; a name with a folder ("formats/formats.def") is one of cpp/, FOLDER's neighbour.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

INCLUDE = re.compile(r'^#include "([\w/]+\.\w+)"\n', re.M)
PRAGMA_ONCE = "#pragma once\n"
PIECE = 8000  # characters of a string literal


def with_headers(path: Path, folder: Path, seen: set[str]) -> str:
    def header(match: re.Match[str]) -> str:
        if match[1] in seen:
            return ""
        seen.add(match[1])
        beside = folder.parent / "cpp" if "/" in match[1] else folder / "include"
        return with_headers(beside / match[1], folder, seen)

    return INCLUDE.sub(header, path.read_text(encoding="utf-8").replace(PRAGMA_ONCE, ""))


def literal(text: str) -> str:
    pieces = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
    return "\n".join(f'R"msl({piece})msl"' for piece in pieces)


def has_parts(path: Path) -> str:
    return "true" if "of_part(" in path.read_text(encoding="utf-8") else "false"


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    files = sorted(folder.glob("*.metal"))
    entries = [f'{{"{path.name}", {literal(with_headers(path, folder, set()))}, {has_parts(path)}}}' for path in files]
    listed = ",\n".join(entries)
    out.write_text(
        f"""// Made by cmake/embed_kernels.py.
#include "device/metal/kernel_source.h"

namespace foundry {{
namespace {{
constexpr KernelSource kSources[] = {{
{listed}}};
}}  // namespace

std::span<const KernelSource> kernel_sources() {{ return kSources; }}

}}  // namespace foundry
""",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
