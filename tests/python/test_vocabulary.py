"""Vocabularies: what holds where a file does not say, which tokens end an answer, and files that make no sense."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import synthetic
from foundry import CompiledModel, ModelFormatError, _core
from foundry.tokenizer import Tokenizer
from vocabularies import SENTENCEPIECE, WORDS, byte_level, named, sentencepiece

ENDS = ["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>", "<|endoftext|>"]
ENDS += ["<|end_of_text|>", "</s>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<end_of_utterance>", "<eos>", "[e~["]


def ids_of(tokenizer: Tokenizer, *texts: str) -> set[int]:
    return {tokenizer.encode(text, add_special_tokens=False)[0] for text in texts}


@pytest.mark.parametrize(
    ("pre", "bos"),
    [
        ("llama-bpe", True),
        ("llama3", True),
        ("llama-v3", True),
        ("falcon3", True),
        ("pixtral", True),
        ("gpt-2", False),
        ("default", False),
        ("smollm", False),
        ("qwen2", False),
    ],
)
def test_whether_bos_comes_first_belongs_to_the_pre_tokenizer(pre: str, bos: bool) -> None:
    fields = byte_level("<s>", pre=pre)
    assert Tokenizer(fields).encode("th") == [257] * bos + [256]
    for said in (True, False):
        assert Tokenizer(fields | {"tokenizer.ggml.add_bos_token": said}).encode("th") == [257] * said + [256]
    without = Tokenizer({k: v for k, v in fields.items() if "bos" not in k})
    assert without.encode("th") == [256]  # there is none to add


def test_sentencepiece_begins_with_bos_and_its_ids_are_known() -> None:
    fields = sentencepiece(bos_token_id=None, eos_token_id=None, unknown_token_id=None)
    tokenizer = Tokenizer(fields)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    assert tokenizer.encode("ab") == [1, SENTENCEPIECE.index("▁ab")]
    assert tokenizer.stop_ids == {2}


def test_eos_comes_last_where_the_file_asks_but_not_behind_a_prompt() -> None:
    tokenizer = Tokenizer(byte_level("<s>", "</s>", eos_token_id=258, add_eos_token=True, add_bos_token=True))
    assert tokenizer.encode("th") == [257, 256, 258]
    assert tokenizer.encode("th", add_special_tokens=False) == [256]
    assert tokenizer.encode_prompt("th") == [257, 256]


@pytest.mark.parametrize("types", [3, 1, 4], ids=["control", "normal", "user-defined"])
def test_markers_end_an_answer_and_are_one_token_whatever_their_type(types: int) -> None:
    for marker in ENDS:
        tokenizer = Tokenizer(byte_level("<s>", marker, "<other>", types=types))
        assert tokenizer.stop_ids == {258}, marker
        assert tokenizer.encode(f"th{marker}th") == [256, 258, 256], marker
        assert tokenizer.decode([256, 258, 256]) == "thth", marker


def test_ids_of_end_of_turn_and_of_message_end_an_answer() -> None:
    fields = byte_level("<s>", "<x>", "<y>", "<z>", eos_token_id=258, eot_token_id=259, eom_token_id=260)
    assert Tokenizer(fields).stop_ids == {258, 259, 260}


def test_the_next_file_ends_an_answer() -> None:
    markers = ["<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"]
    assert Tokenizer(byte_level("<s>", *markers)).stop_ids == {258, 259, 260}
    assert Tokenizer(byte_level("<s>", *markers, fim_pad_token_id=257)).stop_ids == {257, 259, 260}


def test_end_closes_only_a_message_where_return_and_call_end_the_answer() -> None:
    both = Tokenizer(byte_level("<s>", "<|end|>", "<|return|>", "<|call|>", "<|channel|>"))
    assert both.stop_ids == ids_of(both, "<|return|>", "<|call|>")
    assert both.decode([258, 261, 256]) == "<|end|><|channel|>th"  # a reader of messages needs them
    solar = Tokenizer(byte_level("<s>", "<|end|>", "<|flush|>", "<|calls|>"))
    assert solar.stop_ids == ids_of(solar, "<|flush|>", "<|calls|>")
    one = Tokenizer(byte_level("<s>", "<|end|>", "<|return|>"))
    assert one.stop_ids == ids_of(one, "<|end|>", "<|return|>")


def test_strike_through_ends_nothing_in_gemma_4() -> None:
    tokenizer = Tokenizer(byte_level("<s>", "</s>", "<|tool_response>", types=1))
    assert tokenizer.stop_ids == ids_of(tokenizer, "<|tool_response>")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (byte_level("<s>", eos_token_id=99999), "eos_token_id: expected an id below 258, found 99999; it is left out"),
        (byte_level("<s>", eot_token_id=258), "eot_token_id: expected an id below 258, found 258; it is left out"),
        (sentencepiece(eos_token_id=99999), "eos_token_id: expected an id below 268, found 99999; 2 is taken"),
        (byte_level("<s>", merges=["t h", "h e", "q q"]), "2 of 3 have or make no token, the first 'h e'"),
        (byte_level("<s>", merges=["t h", "th"]), "1 of 2 have or make no token, the first 'th'"),
    ],
)
def test_what_is_left_out_is_warned_of_once(fields: dict[str, Any], said: str) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for _ in range(3):
            tokenizer = Tokenizer(fields)
    assert len(told) == 1 and said in str(told[0].message)
    assert tokenizer.decode(tokenizer.encode("the")) == "the"


def test_characters_that_get_lost_are_warned_of() -> None:
    fields = byte_level("<s>")
    fields["tokenizer.ggml.tokens"][ord("q")] = "<something>"
    with pytest.warns(UserWarning, match="no token for 1 of 96 ordinary characters, the first 'q'"):
        assert Tokenizer(fields).encode("qth") == [256]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (byte_level(tokens=["<a>", "<b>"], token_type=[1, 1], merges=["a b"]), "every text would become no tokens"),
        (byte_level(tokens=["a", "b", "a"], token_type=None), "each token once, found 'a' twice"),
        (byte_level(eos_token_id="2"), "eos_token_id: expected an id below 257, found '2'"),
        (byte_level(add_bos_token="no"), "add_bos_token: expected true or false"),
        (
            byte_level(tokens=["a" * 1025, "b"], token_type=None),
            r"tokens\[0\]: expected at most 1024 characters, found",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelFormatError, match=named):
        Tokenizer(fields)


@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_a_token_of_a_megabyte_is_refused_at_once(model: str) -> None:
    began = time.perf_counter()
    with pytest.raises(ModelFormatError, match="at most 1024 characters, found 1000000"):
        Tokenizer(sentencepiece(model=model, tokens=[*SENTENCEPIECE[:-1], "ab" * 500_000]))
    assert time.perf_counter() - began < 2


def test_tokens_that_all_join_to_others_are_read_soon() -> None:
    """Every cut of every token is a way to join two: their number grows with the square of the file."""
    tokens = [*SENTENCEPIECE[:259], *("a" * n for n in range(1, 1001))]
    types = [2, 3, 3] + [6] * 256 + [1] * 1000
    fields = sentencepiece(tokens=tokens, token_type=types, scores=[0.0] * len(tokens), add_space_prefix=False)
    began = time.perf_counter()
    assert Tokenizer(fields).encode("a" * 2500) == [1, 1258, 1258, 758]
    assert time.perf_counter() - began < 5


def test_of_equal_scores_the_leftmost_is_joined_first() -> None:
    """As Gemma's runs of spaces are: they score alike."""
    tokens = ["<unk>", "<s>", "</s>", "▁", "▁▁", "▁▁▁", "a", "ab", "b", "ba"]
    fields = sentencepiece(
        tokens=tokens, token_type=[2, 3, 3, *[1] * 7], scores=[0.0] * 10, add_space_prefix=False, add_bos_token=False
    )
    assert [tokens[i] for i in Tokenizer(fields).encode(" " * 7 + "bab")] == ["▁▁▁", "▁▁▁", "▁", "ba", "b"]


def test_an_unknown_token_in_text_is_one_token_whatever_its_type() -> None:
    for kind in (2, 3, 4):
        types = [kind, 3, 3] + [6] * 256 + [1] * len(WORDS)
        fields = sentencepiece(token_type=types, add_space_prefix=False)
        assert Tokenizer(fields).encode("a<unk>b") == [1, SENTENCEPIECE.index("a"), 0, SENTENCEPIECE.index("b")]
        as_text = Tokenizer(fields).encode("a<unk>b", parse_special=False)
        assert (as_text == [1, 260, 0, 261]) == (kind == 4) and len(as_text) == (4 if kind == 4 else 8)
        byte = Tokenizer(byte_level("<s>", "<unk>", types=kind, unknown_token_id=258))
        assert byte.encode("a<unk>b") == [97, 258, 98]


def test_a_missing_pre_tokenizer_is_warned_of_and_is_the_default() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for _ in range(2):
            tokenizer = Tokenizer(byte_level("<s>", pre=None, merges=["t h"]))
    assert len(told) == 1 and "tokenizer.ggml.pre: expected the name of a pre-tokenizer" in str(told[0].message)
    fields = byte_level("<s>", pre="default")
    assert tokenizer.encode("th+th") == Tokenizer(fields).encode("th+th") == [256, 43, 256]


@pytest.mark.parametrize(
    ("pre", "near"), [("qwen-2", "qwen2"), ("lama-bpe", "llama-bpe"), ("Tekken", "tekken"), (7, "")]
)
def test_an_unknown_pre_tokenizer_is_an_error_that_names_the_nearest(pre: Any, near: str) -> None:
    with pytest.raises(ModelFormatError, match=f"found {pre!r}; the nearest is '{near}"):
        Tokenizer(byte_level("<s>", pre=pre))


@pytest.mark.parametrize(("model", "named"), [("bert", "WordPiece"), ("rwkv", "RWKV"), ("other", "found 'other'")])
def test_kinds_that_are_not_supported_are_refused_by_name(model: str, named: str) -> None:
    with pytest.raises(ModelFormatError, match=named):
        Tokenizer(byte_level("<s>", model=model))


def test_marks_inside_files_are_control_tokens_and_end_nothing() -> None:
    tokenizer = Tokenizer(byte_level("<s>", "<fim_prefix>", "<PRE>", types=1))
    assert tokenizer.encode("a<fim_prefix><PRE>") == [97, 258, 259]
    assert tokenizer.decode([97, 258]) == "a" and tokenizer.stop_ids == set()
    known = Tokenizer(byte_level("<s>", "<fim_prefix>", types=1, fim_pre_token_id=257))
    assert len(known.encode("<fim_prefix>")) == len("<fim_prefix>")


def test_phi_3s_tokens_take_spaces_behind_them_along() -> None:
    fields = byte_level("<s>", "<|user|>", "<|end|>")
    assert Tokenizer(fields).encode("<|user|>\n a<s> ") == [258, 10, 32, 97, 257, 32]
    fields["general.name"] = "Phi-3 mini"
    assert Tokenizer(fields).encode("<|user|>\n a<s> ") == [258, 97, 257, 32]


def unigram(**fields: Any) -> dict[str, Any]:
    tokens = ["<pad>", "</s>", "<unk>", "▁", "a", "b", "ab", "▁ab", "▁a", "c", "bc", "ü"]
    scores = [0.0, 0.0, 0.0, -3.0, -4.0, -4.0, -5.0, -5.5, -6.0, -3.5, -9.0, -9.0]
    types = [3, 3, 2] + [1] * 9
    return named({"model": "t5", "tokens": tokens, "scores": scores, "token_type": types} | fields)


@pytest.mark.parametrize(
    ("fields", "text", "expected"),
    [
        ({"add_space_prefix": True}, "ab", "▁ab </s>"),
        ({}, "ab", "ab </s>"),  # no space before, unless the file asks
        ({}, "abc", "ab c </s>"),  # -8.5 beside -13 and -11.5
        ({"add_space_prefix": True}, " a  b", "▁ ▁a ▁ ▁ b </s>"),
        ({"add_space_prefix": True, "remove_extra_whitespaces": True}, " a  ab ", "▁a ▁ab </s>"),
        ({"remove_extra_whitespaces": True}, "a", "▁a </s>"),
        ({}, "axyb", "a <unk> b </s>"),  # unknown characters side by side are one
        ({"escape_whitespaces": False}, "a b", "a <unk> b </s>"),
        ({"add_eos_token": False}, "a</s>a", "a </s> a"),
        ({"bos_token_id": 0, "add_bos_token": True}, "c", "<pad> c </s>"),
    ],
)
def test_unigrams(fields: dict[str, Any], text: str, expected: str) -> None:
    tokenizer = Tokenizer(unigram(**fields))
    assert " ".join(map(tokenizer.token, tokenizer.encode(text))) == expected


def test_unigrams_ids_and_text() -> None:
    tokenizer = Tokenizer(unigram(add_space_prefix=True))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.stop_ids) == (None, 1, {1})
    assert tokenizer.decode(tokenizer.encode("ab cab")) == "ab cab"


def test_a_map_of_characters_replaces_the_longest() -> None:
    """A trie of "A" -> "a", and "u" + U+0308 -> "ü", as SentencePiece compiles them."""
    tokenizer = Tokenizer(unigram(precompiled_charsmap=charsmap({"A": "a", "u\u0308": "ü"})))
    assert tokenizer.encode("Au\u0308b") == [4, 11, 5, 1]
    assert tokenizer.encode("u") == [2, 1]
    for broken in ([1, 2], [255] * 12, [8, 0, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0], ["a"]):
        with pytest.raises(ModelFormatError, match="precompiled_charsmap"):
            Tokenizer(unigram(precompiled_charsmap=broken)).encode("A")


def charsmap(replacements: dict[str, str]) -> list[int]:
    """The trie as a double array: each node's children stand at its base, xor their byte."""
    tree: dict[int, Any] = {}
    texts = b""
    for key, text in replacements.items():
        node = tree
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[-1] = len(texts)
        texts += text.encode() + b"\0"
    units = [0] * (256 * 16)
    free = iter(range(1, 16))

    def place(node: dict[int, Any], at: int) -> None:
        base = 256 * next(free)
        units[at] |= (base ^ at if at else base) << 10
        for byte, child in node.items():
            if byte < 0:
                units[at] |= 1 << 8
                units[base] = 1 << 31 | child
            else:
                units[base ^ byte] = byte
                place(child, base ^ byte)

    place(tree, 0)
    trie = b"".join(unit.to_bytes(4, "little") for unit in units)
    return [*len(trie).to_bytes(4, "little"), *trie, *texts]


def with_tokens(path: Path, to: Path, n_tokens: int, **changes: Any) -> Path:
    """The model with a longer vocabulary, or other fields of it."""
    reader = gguf.GGUFReader(str(path))
    writer = synthetic.Writer(str(to), "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value, kind = field.contents(), field.types[0]
        if field.name == "tokenizer.ggml.tokens":
            value = [*value, *(f"token {i}" for i in range(len(value), n_tokens))]
        if field.name == "tokenizer.ggml.token_type":
            value = [*value, *[1] * (n_tokens - len(value))]
        value = changes.get(field.name.rpartition(".")[2], value)
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, kind, sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return to


def test_a_vocabulary_larger_than_the_embedding_is_refused(tiny_path: Callable[..., Path], tmp_path: Path) -> None:
    rows = synthetic.VOCAB
    assert CompiledModel.load(with_tokens(tiny_path(), tmp_path / "a.gguf", rows)).arch.vocab_size == rows
    with pytest.raises(ModelFormatError, match=f"at most {rows}, the rows of token_embd.weight, found {rows + 1}"):
        CompiledModel.load(with_tokens(tiny_path(), tmp_path / "b.gguf", rows + 1))


def test_arrays_of_the_metadata_stay_in_the_file(tiny_path: Callable[..., Path], tmp_path: Path) -> None:
    path = with_tokens(tiny_path(), tmp_path / "a.gguf", 200_000)
    file = _core.GgufFile(str(path))
    tokens = file.metadata["tokenizer.ggml.tokens"]
    assert (len(tokens), tokens.element_type) == (200_000, "string")
    values = tokens.to_list()
    assert values[:259] == synthetic.byte_tokens() and values[-1] == "token 199999" and tokens == values
    assert tokens.bytes == sum(8 + len(v.encode()) for v in values)
    assert tokens.bytes < file.metadata_bytes < path.stat().st_size
    kept = file.metadata["tokenizer.ggml.token_type"]
    del file
    assert list(kept)[255:260] == [1, 3, 3, 3, 1]  # the array keeps the file


@pytest.mark.model
def test_smollm2s_vocabulary_is_read_without_a_warning(smollm2_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer = Tokenizer(_core.GgufFile(str(smollm2_path)).metadata)
    assert tokenizer.stop_ids == ids_of(tokenizer, "<|endoftext|>", "<|im_end|>", "<reponame>")


def test_the_command_line_warns_in_a_line(tiny_path: Callable[..., Path], tmp_path: Path) -> None:
    path = with_tokens(tiny_path(), tmp_path / "a.gguf", synthetic.VOCAB, eos_token_id=5000)
    command = [sys.executable, "-m", "foundry", "generate", "-m", str(path), "a", "--max-new-tokens", "1"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in run.stderr.splitlines() if "warning" in line]
    said = f"tokenizer.ggml.eos_token_id: expected an id below {synthetic.VOCAB}, found 5000; it is left out"
    assert lines == [f"foundry: warning: {said}"]
