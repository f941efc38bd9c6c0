"""What makes a directory an embedding model, as sentence-transformers writes it: modules.json names what comes behind
the model, and the pooling has a folder with a config.json of its own.

Source: sentence-transformers 5 (models/Pooling.py and SentenceTransformer.py), whose newer pooling has one key,
``pooling_mode``, where the older has one for each way.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any

from foundry.errors import ModelFormatError
from foundry.files import bounded_json
from foundry.models.pooling import CLS, LAST, MEAN

MODULES, PROMPTS = "modules.json", "config_sentence_transformers.json"
MOST_BYTES = 1 << 20  # known ones have less than 1 KB
WAYS = {"lasttoken": LAST, "mean": MEAN, "cls": CLS}
OLDER = {"lasttoken": "pooling_mode_lasttoken", "mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}


@dataclass(frozen=True)
class Modules:
    """Attributes:

    pooling: in GGUF's numbers.
    normalises: rows are made 1 long.
    """

    pooling: int
    normalises: bool


def read_modules(folder: str) -> Modules | None:
    """None where the directory is no embedding model.

    Raises:
        ModelFormatError: a file is damaged, or asks for what is not done.
    """
    path = os.path.join(folder, MODULES)
    try:
        listed = bounded_json.read_list(path, MOST_BYTES)
    except FileNotFoundError:
        return None
    kinds = [_kind(one, path) for one in listed]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ModelFormatError(
            f"{path}: expected the modules Transformer, Pooling and perhaps Normalize, found {', '.join(kinds)[:200]}"
        )
    _warn_of_a_prompt(folder)
    return Modules(_pooling(folder, listed[1], path), "Normalize" in kinds)


def _warn_of_a_prompt(folder: str) -> None:
    try:
        name = bounded_json.read(os.path.join(folder, PROMPTS), MOST_BYTES).get("default_prompt_name")
    except FileNotFoundError:
        return
    if name is not None:
        warnings.warn(
            f"{PROMPTS}: the prompt {name!r} is not put before texts: whoever embeds them writes it", stacklevel=2
        )


def _kind(module: Any, path: str) -> str:
    """Its class, without where that is written."""
    kind = module.get("type") if isinstance(module, dict) else None
    if not isinstance(kind, str):
        raise ModelFormatError(f"{path}: expected modules with a type, found {str(module)[:80]}")
    return kind.rpartition(".")[2]


def _pooling(folder: str, module: dict[str, Any], path: str) -> int:
    place = module.get("path")
    if not isinstance(place, str) or place in ("", ".", "..") or {*place} & {"/", "\\", "\0"}:
        raise ModelFormatError(f"{path}: expected the path of a folder beside it, found {str(place)[:80]!r}")
    path = os.path.join(folder, place, "config.json")
    try:
        config = bounded_json.read(path, MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise ModelFormatError(f"{path}: expected the configuration of the pooling, found none") from None
    if "pooling_mode" in config:
        found = config["pooling_mode"]
        asked = found if isinstance(found, list) else [found]
    else:
        named = {key: way for way, key in OLDER.items()}
        asked = [named.get(key, key) for key, on in config.items() if key.startswith("pooling_mode_") and on]
    if len(asked) != 1 or not isinstance(asked[0], str) or asked[0] not in WAYS:
        raise ModelFormatError(f"{path}: expected one pooling of {', '.join(WAYS)}, found {str(asked)[:120]}")
    return WAYS[asked[0]]
