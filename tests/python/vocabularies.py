"""Small vocabularies, as the metadata of a file has them."""

from __future__ import annotations

from typing import Any

import synthetic

BYTES = [f"<0x{b:02X}>" for b in range(256)]
WORDS = ["▁", "a", "b", "c", "▁a", "▁b", "ab", "▁ab", "▁ab▁"]
SENTENCEPIECE = ["<unk>", "<s>", "</s>", *BYTES, *WORDS]


def sentencepiece(**fields: Any) -> dict[str, Any]:
    """SentencePiece: three special tokens, the bytes, a few words. ``None`` leaves a field out."""
    metadata = {
        "model": "llama",
        "tokens": SENTENCEPIECE,
        "scores": [0.0] * 259 + [-float(i) for i in range(len(WORDS))],
        "token_type": [2, 3, 3] + [6] * 256 + [1] * len(WORDS),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    }
    return named(metadata | fields)


def byte_level(*special: str, types: int = 3, **fields: Any) -> dict[str, Any]:
    """Byte-level BPE: the bytes, "th" and ``special`` tokens, the first of them BOS."""
    tokens = [*synthetic.byte_tokens()[:256], "th", *special]
    metadata = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "merges": ["t h"],
        "token_type": [1] * 257 + [types] * len(special),
        "bos_token_id": 257 if special else None,
    }
    return named(metadata | fields)


def named(fields: dict[str, Any]) -> dict[str, Any]:
    return {f"tokenizer.ggml.{name}": value for name, value in fields.items() if value is not None}
