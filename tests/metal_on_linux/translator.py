"""The product's translator (metal/translate), for the scripts of this folder."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "metal" / "translate"
sys.path.insert(0, str(FOLDER))
from translate import DialectError, translate  # noqa: E402

__all__ = ["FOLDER", "DialectError", "translate"]
