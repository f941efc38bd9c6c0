"""Tokens to text: the first space of SentencePiece, bytes that are no characters, streams."""

from __future__ import annotations

import time
from typing import Any

import pytest
from foundry import CompiledModel
from foundry.tokenizer import StreamDecoder, Tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import ScriptedSession, with_vocabulary
from vocabularies import WORDS, byte_level, named, sentencepiece


def pieces(tokenizer: Tokenizer, ids: list[int], continues: bool = False) -> list[str]:
    decoder = StreamDecoder(tokenizer, continues)
    return [*(decoder.push(i) for i in ids), decoder.flush()]


def words() -> dict[str, Any]:
    """SentencePiece with the bytes of ASCII alone, for a tiny model's 259 rows."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(128)), *WORDS]
    scores = [0.0] * 131 + [-float(i) for i in range(len(WORDS))]
    types = [2, 3, 3] + [6] * 128 + [1] * len(WORDS)
    return named({"model": "llama", "tokens": tokens, "scores": scores, "token_type": types})


@pytest.fixture
def model(tiny: CompiledModel) -> CompiledModel:
    return with_vocabulary(tiny, words())


def ids_of(*tokens: str) -> list[int]:
    return [words()["tokenizer.ggml.tokens"].index(token) for token in tokens]


def test_an_answer_keeps_its_first_space(model: CompiledModel) -> None:
    session = ScriptedSession(model, ids_of("▁b", "▁ab"))
    assert session.generate("a", 5).text == " b ab"
    session.script = ids_of("▁a", "b")
    assert session.generate("c", 5).text == " ab"
    assert model.tokenizer.decode(session.token_ids.tolist()) == "a b ab c a"  # the last token is not fed yet
    session = ScriptedSession(model, ids_of("▁b", "▁ab"))
    assert [piece.text for piece in session.stream("a", 5)] == [" b", " ab", ""]


def test_a_first_space_is_left_out_where_no_text_is_before(model: CompiledModel) -> None:
    session = ScriptedSession(model, ids_of("▁b", "▁ab"))
    assert session.generate("", 5).text == "b ab"  # behind BOS alone
    assert model.tokenizer.decode([1, *ids_of("▁b", "▁ab")]) == "b ab"
    assert model.tokenizer.decode(ids_of("b", "▁ab")) == "b ab"
    assert model.tokenizer.decode(ids_of("▁", "▁b")) == " b"  # one space alone


def test_a_stop_string_may_begin_with_the_first_space(model: CompiledModel) -> None:
    session = ScriptedSession(model, ids_of("▁a", "▁b", "c"))
    out = session.generate("a", 5, stop=[" b"])
    assert (out.text, out.finish_reason) == (" a", "stop")
    assert model.tokenizer.decode(session.token_ids.tolist()) == "a a"
    session = ScriptedSession(model, ids_of("▁b", "c"))
    assert session.generate("a", 5, stop=[" b"]).text == ""
    assert model.tokenizer.decode(session.token_ids.tolist()) == "a"


def test_the_tail_of_a_token_is_encoded_without_a_space(model: CompiledModel) -> None:
    session = ScriptedSession(model, ids_of("c", "▁ab▁"))
    assert session.generate("a", 5, stop=["b"]).text == "c a"
    assert session.token_ids[1:].tolist() == ids_of("▁a", "c", "▁a")
    session = ScriptedSession(model, ids_of("c", "ab"))
    assert session.generate("a", 5, stop=["b"]).text == "ca"
    assert session.token_ids[1:].tolist() == ids_of("▁a", "c", "a")


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 267), max_size=30), continues=st.booleans())
def test_the_pieces_of_a_stream_are_the_whole(ids: list[int], continues: bool) -> None:
    tokenizer = Tokenizer(sentencepiece())
    whole = tokenizer.decode([*tokenizer.encode("c"), *ids])[1:] if continues else tokenizer.decode(ids)
    assert "".join(pieces(tokenizer, ids, continues)) == whole
    assert whole.encode().decode() == whole


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=20))
def test_bytes_decode_as_utf8_does(data: bytes) -> None:
    for tokenizer, ids in (
        (Tokenizer(byte_level()), list(data)),
        (Tokenizer(sentencepiece(add_space_prefix=False)), [3 + b for b in data]),
    ):
        assert tokenizer.decode(ids) == data.decode(errors="replace") == "".join(pieces(tokenizer, ids))
        assert b"".join(map(tokenizer.piece, ids)) == data
        again = tokenizer.encode_bytes(data)
        assert b"".join(map(tokenizer.piece, again)) == data


def test_bytes_that_become_no_character_are_told_at_once() -> None:
    tokenizer = Tokenizer(byte_level())
    assert pieces(tokenizer, [0x80, 0x80, 0xFF, 65]) == ["\ufffd", "\ufffd", "\ufffd", "A", ""]
    assert pieces(tokenizer, [0xE2, 0x82, 65]) == ["", "", "\ufffdA", ""]
    assert pieces(tokenizer, [0xE2, 0x82, 0xAC]) == ["", "", "€", ""]
    assert pieces(tokenizer, [0xF0, 0x9F]) == ["", "", "\ufffd"]


def test_a_long_stream_of_broken_bytes_takes_linear_time() -> None:
    tokenizer = Tokenizer(byte_level())
    seconds = []
    for n in (20_000, 200_000):
        began = time.thread_time()
        assert "".join(pieces(tokenizer, [0xFF] * n)) == "\ufffd" * n
        seconds.append(time.thread_time() - began)
    assert seconds[1] < 40 * seconds[0] and seconds[1] < 5


def test_user_defined_tokens_are_text_as_they_are_spelled() -> None:
    tokenizer = Tokenizer(byte_level("éé", "two words", types=4))
    ids = tokenizer.encode("éé two words")
    assert ids == [257, 32, 258]
    assert tokenizer.decode(ids) == "éé two words"


def test_ids_past_the_vocabulary_are_no_text() -> None:
    tokenizer = Tokenizer(byte_level())
    assert tokenizer.decode([65, 99999, -1, 66]) == "AB"
