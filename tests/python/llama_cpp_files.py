"""Vocabularies and chat templates that llama.cpp keeps for its own tests, from a source package, fetched once."""

from __future__ import annotations

import tarfile
from pathlib import Path

from fetched import fetched

REQUIREMENT = "llama-cpp-python==0.3.36"  # MIT
_ROOT = "/vendor/llama.cpp/"
_KEPT = ("models/", "src/llama-vocab.cpp")


def files() -> Path:
    """The folder of models/ and of src/llama-vocab.cpp."""
    return fetched("llama.cpp-files", REQUIREMENT, _extract, wheel=False)


def models() -> Path:
    """The folder of ``ggml-vocab-*.gguf`` with texts (``.inp``) and their ids (``.out``), and ``templates/*.jinja``."""
    return files() / "models"


def vocabularies() -> list[str]:
    """Names of those that Foundry reads."""
    return [
        name
        for path in sorted(models().glob("ggml-vocab-*.gguf"))
        if (name := path.stem.removeprefix("ggml-vocab-")) != "bert-bge"  # WordPiece
    ]


def _extract(archive: Path, part: Path) -> None:
    with tarfile.open(archive) as members:
        for member in members:
            inside = member.name.partition(_ROOT)[2]
            if member.isfile() and inside.startswith(_KEPT):
                to = part / inside
                to.parent.mkdir(parents=True, exist_ok=True)
                data = members.extractfile(member)
                assert data is not None
                to.write_bytes(data.read())
