"""Makes dry.json with llama.cpp's sampler "dry", out of the ``xllamacpp`` wheel: ``python tests/oracle/make_dry.py`` in
an environment that has it. Run once; the values are committed.

Histories of words that repeat, with what breaks repetitions among them, and what is taken from the logits behind them.
"""

from __future__ import annotations

import ctypes as c
import json
import random
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "python"), str(HERE)]

from llama_cpp_files import models  # noqa: E402
from llama_cpp_tokenizer import Tokenizer  # noqa: E402

VOCABULARIES = ("llama-spm", "llama-bpe", "starcoder")
BREAKERS: tuple[tuple[str, ...], ...] = (
    ("\n", ":", '"', "*"),
    (),
    ("User:", " the end", "\n\n"),
    ("cat", "ß", "naïve", "sat on the"),
)
WORDS = ["the", "cat", "sat", "on", "a", "mat", "naïve", "User:", "the end", "Straße", '"', ":", "\n", "\n\n", "*"]


class Candidates(c.Structure):
    """llama_token_data_array (include/llama.h)."""

    _fields_ = [("data", c.c_void_p), ("size", c.c_size_t), ("selected", c.c_int64), ("sorted", c.c_bool)]


def penalties(tokenizer: Tokenizer, n_vocab: int, ids: list[int], dry: dict[str, Any]) -> dict[int, float]:
    library = tokenizer._library
    library.llama_sampler_init_dry.restype = c.c_void_p
    library.llama_sampler_init_dry.argtypes = [
        *(c.c_void_p, c.c_float, c.c_float, c.c_int32, c.c_int32),
        *(c.POINTER(c.c_char_p), c.c_size_t),
    ]
    last_n = dry["penalty_last_n"] if dry["penalty_last_n"] != -1 else 4096  # more than there are
    texts = [text.encode() for text in dry["sequence_breakers"]]
    sampler = c.c_void_p(
        library.llama_sampler_init_dry(
            *(tokenizer._vocab, dry["multiplier"], dry["base"], dry["allowed_length"], last_n),
            *((c.c_char_p * len(texts))(*texts), len(texts)),
        )
    )
    for token in ids:
        library.llama_sampler_accept(sampler, c.c_int32(token))
    data = np.zeros(n_vocab, np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")]))
    data["id"] = np.arange(n_vocab)
    candidates = Candidates(data.ctypes.data, n_vocab, -1, False)
    library.llama_sampler_apply(sampler, c.byref(candidates))
    library.llama_sampler_free(sampler)
    return {int(i): -float(data["logit"][i]) for i in np.flatnonzero(data["logit"])}


def main() -> None:
    draw = random.Random(31)
    cases = []
    for name in VOCABULARIES:
        path = models() / f"ggml-vocab-{name}.gguf"
        tokenizer = Tokenizer(path)
        n_vocab = tokenizer._library.llama_vocab_n_tokens(c.c_void_p(tokenizer._vocab))
        for _ in range(60):
            words = draw.sample(WORDS, draw.randint(2, 6))
            text = " ".join(draw.choice(words) for _ in range(draw.randint(1, 60)))
            dry = {
                "multiplier": draw.choice([0.8, 2.0]),
                "base": draw.choice([1.0, 1.75, 3.0, 1e9]),
                "allowed_length": draw.choice([0, 1, 2, 2, 2, 5]),
                "penalty_last_n": draw.choice([-1, -1, 12, 40]),
                "sequence_breakers": draw.choice(BREAKERS),
            }
            ids = tokenizer.encode(text, False)
            found = penalties(tokenizer, n_vocab, ids, dry)
            cases.append({"vocabulary": name, "ids": ids, "dry": dry, "penalties": found})
        tokenizer.close()
    print(f"{len(cases)} cases, {sum(bool(case['penalties']) for case in cases)} with penalties")
    about = {"made_with": f"xllamacpp {version('xllamacpp')}", "cases": cases}
    (HERE / "dry.json").write_text(json.dumps(about, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
