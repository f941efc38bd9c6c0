"""Tokenizers of model directories, beside the library that wrote their tokenizer.json."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import foundry
import hf_directories
import pytest
import synthetic
import tokenizers
from foundry import ModelFormatError, _core
from foundry.tokenizer import Tokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

TEXT = Path(__file__).read_text(encoding="utf-8")
TEXTS = [
    "",
    "a",
    " a",
    "Hello  world",
    "ab<s>ba",
    "<s>ab",
    "  b a\n\n ab<tool>b<tool> a",
    "é 東京 \U0001f600",
    "<0x41>",
    *(TEXT[i : i + 40] for i in range(0, 4000, 97)),
]
BYTES = [f"<0x{b:02X}>" for b in range(256)]
WORDS = ["▁", "a", "b", "▁a", "ab", "▁ab", "e", "l", "o", "ll", "▁b", "▁e"]


def scheme(name: str) -> tokenizers.Tokenizer:
    """BPE of characters with bytes for what has no token, and a space before a text by one of the library's ways."""
    vocab = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *BYTES, *WORDS])}
    merges = [("▁", "a"), ("a", "b"), ("▁a", "b"), ("l", "l"), ("▁", "b"), ("▁", "e")]
    made = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if name == "prepend":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif name == "replace":
        made.normalizer = normalizers.Replace(" ", "▁")
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace("▁", name, split=False)
    made.decoder = decoders.Sequence(steps if name in ("replace", "never") else [*steps, decoders.Strip(" ", 1, 0)])
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.add_tokens([tokenizers.AddedToken("<tool>", normalized=False)])
    made.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", 1)])
    return made


def unigram() -> tokenizers.Tokenizer:
    scores = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((word, -1.0 - i / 10) for i, word in enumerate(WORDS))]
    made = tokenizers.Tokenizer(models.Unigram([*scores, *((token, -20.0) for token in BYTES)], 0, True))
    made.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.post_processor = processors.TemplateProcessing("$A </s>", "$A $B </s>", [("</s>", 2)])
    return made


MADE = {name: lambda name=name: scheme(name) for name in ("prepend", "always", "first", "never", "replace")}
MADE |= {"unigram": unigram, "byte level": hf_directories.byte_level_tokenizer}


def opened(folder: Path, made: tokenizers.Tokenizer, **config: Any) -> Tokenizer:
    return Tokenizer({}, str(hf_directories.write_tokenizer(folder, made, **config)))


@pytest.mark.parametrize("name", MADE)
def test_ids_and_texts_are_the_librarys(tmp_path: Path, name: str) -> None:
    made = MADE[name]()
    found = opened(tmp_path, made)
    letters = "ab elo<s>/tol\n東é"
    draw = random.Random(7)
    texts = TEXTS + ["".join(draw.choices(letters, k=draw.randrange(30))) for _ in range(300)]
    for text in texts:
        ids = made.encode(text).ids
        if ids[:2] == [1, 1]:  # that is the BOS, and no second one comes before it
            ids = ids[1:]
        assert found.encode(text) == ids, repr(text)
        plain = made.encode(text, add_special_tokens=False).ids
        if 0 not in plain:  # the unknown token is shown here, as for GGUF files
            assert found.decode(plain) == made.decode(plain), repr(text)


def test_what_spells_a_control_token_may_be_text(tmp_path: Path) -> None:
    for name in ("prepend", "byte level", "unigram"):
        (folder := tmp_path / name).mkdir()
        found = opened(folder, MADE[name](), bos_token="<s>")
        for text in ("<s>", "a<s>b", "<|im_start|>"):
            ids = found.encode(text, add_special_tokens=False, parse_special=False)
            assert not any(map(found.is_control, ids)), (name, text)
            if name != "unigram":
                assert found.decode(ids) == text


def test_a_tokenizer_json_of_smollm2_is_that_of_its_gguf_file(tmp_path: Path) -> None:
    metadata = _core.GgufFile(str(foundry.pull())).metadata
    tokens, merges = (list(metadata[f"tokenizer.ggml.{key}"]) for key in ("tokens", "merges"))
    vocab = {token: i for i, token in enumerate(tokens)}
    made = tokenizers.Tokenizer(models.BPE(vocab, [tuple(merge.split(" ", 1)) for merge in merges]))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(tokens[:17])
    found = opened(tmp_path, made, bos_token="<|im_start|>", eos_token="<|im_end|>", template=None)
    ours = Tokenizer(metadata)
    for text in [*TEXTS, "<|im_start|>user\nWhat is 12345 times 2?<|im_end|>\n"]:
        assert found.encode(text) == ours.encode(text), repr(text)
        assert found.decode(ours.encode(text)) == ours.decode(ours.encode(text))
    assert (found.bos_id, found.eos_id, found.vocab_size) == (ours.bos_id, ours.eos_id, ours.vocab_size)
    assert found.stop_ids == ours.stop_ids


def test_special_tokens_come_from_the_files_beside_it(tmp_path: Path) -> None:
    found = opened(tmp_path, scheme("prepend"), eos_token="</s>", generation={"eos_token_id": [2, 260]})
    assert (found.bos_id, found.eos_id) == (1, 2)
    assert found.stop_ids == {2, 260}
    assert found.encode("a")[0] == 1  # its post-processor puts it there
    assert opened(tmp_path, scheme("prepend"), add_bos_token=False).encode("a")[0] != 1
    assert found.chat_template == synthetic.CHATML
    unnamed = tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1, "c": 2}, []))
    (tmp_path / "generation_config.json").unlink()
    assert opened(tmp_path, unnamed).stop_ids == set() and opened(tmp_path, scheme("never")).stop_ids == {2}
    single = {"name": "default", "template": "one"}
    of_config = opened(tmp_path, scheme("never"), chat_template=[{"name": "rag", "template": "two"}, single])
    assert of_config.chat_template == synthetic.CHATML  # the file of its own comes first
    (tmp_path / "chat_template.jinja").unlink()
    assert opened(tmp_path, scheme("never"), chat_template=[single], template=None).chat_template == "one"


DAMAGED: list[tuple[Any, str]] = [
    ("{", "expected JSON, found JSONDecodeError"),
    ("[]", "expected keys and values, found list"),
    ('{"model": 1, "model": 2}', "the key 'model' twice"),
    ("[" * 100_000, "expected JSON, found RecursionError"),
    ({}, "expected a tokenizer, found what makes none: KeyError"),
    ({"model": {"type": "WordPiece", "vocab": {}}}, "expected BPE or Unigram, found 'WordPiece'"),
    ({"model": {"type": "BPE", "vocab": {"a": 1 << 40}, "merges": []}}, "ids: expected whole numbers below 1048576"),
    ({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}, "ids: expected whole numbers"),
    ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}}, "expected a tokenizer, found"),
    ({"model": {"type": "Unigram", "vocab": [["a", "x"]], "unk_id": 0}}, "expected a tokenizer, found"),
    ({"model": {"type": "BPE", "vocab": [1, 2], "merges": []}}, "found what makes none: TypeError"),
]


@pytest.mark.parametrize(("text", "said"), DAMAGED, ids=lambda one: str(one)[:40])
def test_damage_is_told(tmp_path: Path, text: Any, said: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    with pytest.raises(ModelFormatError, match=f"tokenizer.json: .*{said}"):
        Tokenizer({}, str(tmp_path))


def test_a_directory_without_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(ModelFormatError, match=r"expected tokenizer\.json, found none"):
        Tokenizer({}, str(tmp_path))
