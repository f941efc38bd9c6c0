"""Vocabularies and chat templates that llama.cpp keeps for its own tests, from a source package, fetched once."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from platformdirs import user_cache_dir

REQUIREMENT = "llama-cpp-python==0.3.36"  # MIT
FOLDER = "/vendor/llama.cpp/models/"


def models() -> Path:
    """The folder of ``ggml-vocab-*.gguf`` with texts (``.inp``) and their ids (``.out``), and ``templates/*.jinja``."""
    kept = Path(user_cache_dir("foundry")) / "tests" / "llama.cpp-models"
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary=:all:", "-d", folder]
            subprocess.run([*command, "--no-build-isolation", REQUIREMENT], check=True)
            part = Path(folder) / "part"
            with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
                for member in archive:
                    if member.isfile() and FOLDER in member.name:
                        to = part / member.name.partition(FOLDER)[2]
                        to.parent.mkdir(parents=True, exist_ok=True)
                        data = archive.extractfile(member)
                        assert data is not None
                        to.write_bytes(data.read())
            os.replace(part, kept)
    return kept
