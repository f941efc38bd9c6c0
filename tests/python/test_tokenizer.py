"""Text to tokens and back. SmolLM2's ids against llama.cpp's: tests/oracle/tokens.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from foundry import CompiledModel, ModelFormatError
from foundry.tokenizer import StreamDecoder, Tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

ORACLE = Path(__file__).parents[1] / "oracle" / "tokens.json"
# SmolLM2's vocabulary lacks control characters and the first bytes of planes that Unicode leaves empty.
CHARACTERS = st.characters(max_codepoint=0x3FFFF, exclude_categories=["Cs", "Cn", "Cc"], include_characters="\t\n\r")
SENTENCEPIECE = [
    "<unk>",
    "<s>",
    "</s>",
    *(f"<0x{b:02X}>" for b in range(256)),
    "▁",
    "a",
    "b",
    "▁a",
    "ab",
    "▁ab",
    "▁ab▁",
]


def sentencepiece(**fields: Any) -> Tokenizer:
    scores = [0.0] * 259 + [-float(i) for i in range(7)]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": SENTENCEPIECE,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * 7,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    return Tokenizer(metadata | {f"tokenizer.ggml.{k}": v for k, v in fields.items()})


@pytest.mark.model
def test_smollm2_ids_are_llama_cpps(smollm2: CompiledModel) -> None:
    cases = json.loads(ORACLE.read_text(encoding="utf-8"))["cases"]
    assert len(cases) >= 20
    for case in cases:
        assert smollm2.tokenizer.encode(case["text"]) == case["ids"], case["text"]
        assert smollm2.tokenizer.decode(case["ids"], skip_special_tokens=False) == case["text"]


@pytest.mark.model
def test_smollm2_chat_template(smollm2: CompiledModel) -> None:
    text = smollm2.tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert smollm2.tokenizer.stop_ids >= {2}


@pytest.mark.model
@settings(max_examples=200, deadline=None)
@given(text=st.text(CHARACTERS, max_size=60))
def test_a_stream_never_splits_a_character(smollm2: CompiledModel, text: str) -> None:
    tokenizer = smollm2.tokenizer
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    decoder = StreamDecoder(tokenizer)
    pieces = [decoder.push(i) for i in ids]
    assert "".join([*pieces, decoder.flush()]) == tokenizer.decode(ids)
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


def test_a_stream_of_broken_bytes_ends(tiny: CompiledModel) -> None:
    """Bytes that never become a character are told at the end, as decode tells them."""
    byte = tiny.tokenizer.encode("é")[0]
    decoder = StreamDecoder(tiny.tokenizer)
    pieces = [decoder.push(i) for i in [byte, byte, 65]]
    assert "".join([*pieces, decoder.flush()]) == tiny.tokenizer.decode([byte, byte, 65])


def test_sentencepiece() -> None:
    tokenizer = sentencepiece()
    assert tokenizer.encode("ab") == [1, SENTENCEPIECE.index("▁ab")]
    assert tokenizer.encode("ab", add_special_tokens=False) == [SENTENCEPIECE.index("▁ab")]
    assert tokenizer.decode(tokenizer.encode("ab a")) == "ab a"
    assert tokenizer.encode("é", add_special_tokens=False)[1:] == [3 + 0xC3, 3 + 0xA9]  # bytes, behind the space
    assert tokenizer.decode(tokenizer.encode("é")) == "é"
    assert sentencepiece(add_bos_token=False).encode("a") == [SENTENCEPIECE.index("▁a")]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"model": "unigram"}, "tokenizer.ggml.model"),
        ({"tokens": []}, "tokenizer.ggml.tokens"),
        ({"token_type": [1]}, "tokenizer.ggml.token_type"),
        ({"scores": [1.0]}, "tokenizer.ggml.scores"),
        ({"model": "gpt2", "pre": "unheard-of"}, "tokenizer.ggml.pre"),
        ({"model": "gpt2", "pre": "gpt-2"}, "tokenizer.ggml.merges"),
        ({"unknown_token_id": 100000}, "tokenizer.ggml.unknown_token_id"),
    ],
)
def test_the_files_faults_are_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelFormatError, match=named):
        sentencepiece(**fields)


def test_templates_that_refuse_or_break(tiny: CompiledModel) -> None:
    tokenizer = tiny.tokenizer
    messages = [{"role": "user", "content": "x"}]
    before = tokenizer.chat_template
    try:
        tokenizer.chat_template = "{{ raise_exception('no system messages') }}"
        with pytest.raises(ValueError, match="no system messages"):
            tokenizer.apply_chat_template(messages)
        for broken in ("{% for %}", "{{ ''.__class__.__mro__ }}{{ messages.x.y }}"):
            tokenizer.chat_template = broken
            with pytest.raises(ModelFormatError, match="chat_template"):
                tokenizer.apply_chat_template(messages)
        tokenizer.chat_template = None
        with pytest.raises(ModelFormatError, match="found none"):
            tokenizer.apply_chat_template(messages)
    finally:
        tokenizer.chat_template = before


def test_token(tiny: CompiledModel) -> None:
    assert tiny.tokenizer.token(258) == "<|im_end|>"
    with pytest.raises(ValueError, match="0 to 258"):
        tiny.tokenizer.token(259)
