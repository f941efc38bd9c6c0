"""What tokenizers are compared on: vocabularies with texts, and pre-tokenizers with others. Ids are told as hashes."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foundry.tokenizer.pretokenizers import PRE_TOKENIZERS
from unicode_texts import texts

N_TEXTS = 2000
N_PRE_TEXTS = 300
GROUP = 50  # texts of a hash
_PRE_SPECIAL = ["<|endoftext|>", "<fim_prefix>"]


def vocabulary_texts(metadata: Any) -> list[str]:
    """With tokens among them that are found whole."""
    types = metadata.get("tokenizer.ggml.token_type").to_list()
    tokens = metadata["tokenizer.ggml.tokens"].to_list()
    return texts(N_TEXTS, [token for token, kind in zip(tokens, types, strict=True) if kind in (2, 3, 4)][:40])


def pre_texts() -> list[str]:
    return texts(N_PRE_TEXTS, _PRE_SPECIAL, seed=21)


def distinct_pres() -> Iterator[tuple[str, str]]:
    """A name of each kind of pre-tokenizer, and the vocabulary to try it with."""
    seen = [PRE_TOKENIZERS["whitespace"]]  # at spaces llama.cpp aborts with it, unless the model too is "whitespace"
    for name, pre in PRE_TOKENIZERS.items():
        if pre not in seen:
            seen.append(pre)
            yield name, "starcoder" if pre.byte_level else "gemma-4"


def with_pre(path: Path, pre: str, to: Path) -> Path:
    """The vocabulary file with another tokenizer.ggml.pre."""
    data = path.read_bytes()
    old = _text("tokenizer.ggml.pre", "starcoder")
    if old in data:
        data = data.replace(old, _text("tokenizer.ggml.pre", pre))
    else:  # Gemma 4's, which has none
        n_keys = struct.unpack("<Q", data[16:24])[0] + 1
        data = data[:16] + struct.pack("<Q", n_keys) + _text("tokenizer.ggml.pre", pre) + data[24:]
        data = data.replace(_text("tokenizer.ggml.model", "gemma4"), _text("tokenizer.ggml.model", "gpt2"))
    to.write_bytes(data)
    return to


def hashes(ids: Iterator[list[int]]) -> str:
    """Four hexadecimal digits for each group of texts."""
    listed = list(ids)
    groups = [listed[i : i + GROUP] for i in range(0, len(listed), GROUP)]
    return "".join(hashlib.sha256(repr(group).encode()).hexdigest()[:4] for group in groups)


def _text(key: str, value: str) -> bytes:
    """A field of a GGUF file."""
    k, v = key.encode(), value.encode()
    return struct.pack("<Q", len(k)) + k + struct.pack("<IQ", 8, len(v)) + v
