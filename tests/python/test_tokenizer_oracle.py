"""Token ids against llama.cpp's: each text of its own tests, and seeded ones (tests/oracle/make_tokenizers.py)."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from foundry import _core
from foundry.tokenizer import Tokenizer
from foundry.tokenizer.pretokenizers import PRE_TOKENIZERS
from llama_cpp_files import files, models, vocabularies
from tokenizer_cases import GROUP, distinct_pres, hashes, pre_texts, vocabulary_texts, with_pre

pytestmark = pytest.mark.slow  # for the vocabularies are fetched
ORACLE = json.loads((Path(__file__).parents[1] / "oracle" / "tokenizers.json").read_text(encoding="utf-8"))
ADDS_BOS = {"command-r", "deepseek-coder", "deepseek-llm", "gemma-4", "llama-bpe", "llama-spm", "phi-3"}


@pytest.fixture(autouse=True)
def warnings_are_not_looked_at() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def differing(tokenizer: Tokenizer, texts: list[str], expected: list[str]) -> list[tuple[str, bool]]:
    """The first text of each group whose ids have another hash, and whether control tokens were found in it."""
    found = []
    for special, hashed in zip((True, False), expected, strict=True):
        own = hashes(tokenizer.encode(text, add_special_tokens=False, parse_special=special) for text in texts)
        assert len(own) == len(hashed) == 4 * -(-len(texts) // GROUP)
        found += [
            (texts[i // 4 * GROUP], special) for i in range(0, len(own), 4) if own[i : i + 4] != hashed[i : i + 4]
        ]
    return found


def test_ids_are_llama_cpps(capsys: pytest.CaptureFixture[str]) -> None:
    """One test for all: a vocabulary is read once for it."""
    table = []
    for name in vocabularies():
        path = models() / f"ggml-vocab-{name}.gguf"
        metadata = _core.GgufFile(str(path)).metadata
        tokenizer = Tokenizer(metadata)
        pairs = 0
        if (known := path.with_name(path.name + ".inp")).exists():
            texts = known.read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
            lines = path.with_name(path.name + ".out").read_text(encoding="utf-8").split("\n")
            pairs = len(texts)
            assert pairs > 40
            for text, line in zip(texts, lines[:pairs], strict=True):
                ids = [int(i) for i in line.split()]
                assert tokenizer.encode(text, add_special_tokens=False) == ids, (name, text)
                assert tokenizer.decode(ids) == text
                assert tokenizer.encode(text) == [*([tokenizer.bos_id] if name in ADDS_BOS else []), *ids]
        made = vocabulary_texts(metadata)
        assert differing(tokenizer, made, ORACLE["vocabularies"][name]) == [], name
        table.append(f"{name:<16}{pairs:>4} pairs {2 * len(made):>6} seeded")
    with capsys.disabled():
        print("\n" + "\n".join(table))
    assert len(table) >= 18


def test_every_pre_tokenizer_splits_as_llama_cpps_does(tmp_path: Path) -> None:
    texts = pre_texts()
    for pre, vocabulary in distinct_pres():
        path = with_pre(models() / f"ggml-vocab-{vocabulary}.gguf", pre, tmp_path / "vocabulary")
        assert differing(Tokenizer(_core.GgufFile(str(path)).metadata), texts, ORACLE["pre_tokenizers"][pre]) == [], pre


def test_every_name_that_llama_cpp_knows_is_known() -> None:
    source = (files() / "src" / "llama-vocab.cpp").read_text(encoding="utf-8")
    assert set(re.findall(r'tokenizer_pre == "([^"]+)"', source)) == set(PRE_TOKENIZERS)
