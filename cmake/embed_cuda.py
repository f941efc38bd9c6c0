"""Writes the files of metal/ and their headers, translated to CUDA, into a C++ source: embed_cuda.py FOLDER OUT.

The headers of FOLDER/translate/cuda and formats.def go with them; comments don't. Each header stays a text of its own,
for NVRTC is given headers by name.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from embed_kernels import literal

COMMENT = re.compile(r"[ \t]*//[^\n]*|/\*.*?\*/", re.S)


def kernel_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.metal"), *folder.glob("nvidia/*.metal")])


def sources(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Kernel files and headers, by the names that `#include` has."""
    sys.path.insert(0, str(folder / "translate"))
    from translate import translate

    def short(text: str) -> str:
        """Lines keep their numbers; of several empty ones at the end none is left."""
        return COMMENT.sub("", text).rstrip() + "\n"

    own = sorted([*(folder / "translate/cuda").iterdir(), folder / "translate/vectors.h"])
    headers = {path.name: short(path.read_text(encoding="utf-8")) for path in own if path.is_file()}
    formats = folder.parent / "cpp/formats/formats.def"
    headers["formats/formats.def"] = short(formats.read_text(encoding="utf-8"))
    for path in sorted(folder.glob("include/*.h")):
        headers[path.name] = short(translate(path, "cuda"))
    kernels = {path.name: short(translate(path, "cuda")) for path in kernel_files(folder)}
    return kernels, headers


def listed(texts: dict[str, str]) -> str:
    return ",\n".join(f'{{"{name}", {literal(text)}}}' for name, text in texts.items())


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    kernels, headers = sources(folder)
    out.write_text(
        f"""// Made by cmake/embed_cuda.py.
#include "device/cuda/kernel_source.h"

namespace foundry::cuda {{
namespace {{
constexpr Compiler::Text kKernels[] = {{
{listed(kernels)}}};
constexpr Compiler::Text kHeaders[] = {{
{listed(headers)}}};
}}  // namespace

std::span<const Compiler::Text> kernel_files() {{ return kKernels; }}
std::span<const Compiler::Text> kernel_headers() {{ return kHeaders; }}

}}  // namespace foundry::cuda
""",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
