"""Token ids against llama.cpp's, for vocabularies of several kinds: each text of its own tests."""

from __future__ import annotations

import pytest
from foundry import _core
from foundry.tokenizer import Tokenizer
from llama_cpp_files import models


@pytest.mark.slow  # for the vocabularies are fetched
@pytest.mark.parametrize(
    ("name", "adds_bos"),
    [("gpt-2", False), ("llama-bpe", True), ("qwen2", False), ("llama-spm", True), ("phi-3", True)],
)
def test_ids_are_llama_cpps(name: str, adds_bos: bool) -> None:
    path = models() / f"ggml-vocab-{name}.gguf"
    tokenizer = Tokenizer(_core.GgufFile(str(path)).metadata)
    texts = path.with_name(path.name + ".inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = path.with_name(path.name + ".out").read_text(encoding="utf-8").split("\n")
    assert len(texts) == len(lines) > 40
    for text, line in zip(texts, lines, strict=True):
        ids = [int(i) for i in line.split()]
        assert tokenizer.encode(text, add_special_tokens=False) == ids, text
        assert tokenizer.decode(ids) == text
        first = [tokenizer.bos_id] if adds_bos else []
        assert tokenizer.encode(text) == [*first, *ids]
