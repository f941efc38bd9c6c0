"""DRY: what would go on with a repetition is less likely. Beside the rule itself (dry_rule.py), and llama.cpp's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dry_rule import penalties
from foundry import CompiledModel, SamplingParams, _core
from foundry.cli import main
from foundry.sampling import BREAKERS
from foundry.tokenizer import Tokenizer
from foundry.tokenizer.breakers import sequences_of
from llama_cpp_files import models
from served import COMPLETIONS, serve

ORACLE = json.loads((Path(__file__).parents[1] / "oracle" / "dry.json").read_text(encoding="utf-8"))
PROMPT = list(b"abc: abc abc\nxabcabc*abcdabc ab")
MOST = 40


def rule(tokenizer: Tokenizer, tokens: list[int], p: SamplingParams) -> dict[int, float]:
    sequences = sequences_of(tokenizer, p.dry_sequence_breakers)
    return penalties(tokens, sequences, p.dry_multiplier, p.dry_base, p.dry_allowed_length, p.dry_penalty_last_n)


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"dry_base": 1.0},
        {"dry_allowed_length": 0, "dry_multiplier": 0.3},
        {"dry_allowed_length": 1, "dry_penalty_last_n": 9},
        {"dry_sequence_breakers": ()},
        {"dry_sequence_breakers": ("bc", "da"), "dry_penalty_last_n": -1},
        {"dry_base": 1e30, "dry_sequence_breakers": ("a",)},
        {"dry_penalty_last_n": 6, "frequency_penalty": 0.2},
    ],
    ids=str,
)
def test_greedy_tokens_are_those_that_the_rule_leaves(tiny: CompiledModel, named: dict[str, Any]) -> None:
    params = SamplingParams(ignore_eos=True, **{"dry_multiplier": 1.5} | named)
    with tiny.session() as session, tiny.session() as beside:
        found = session.generate(PROMPT, MOST, params=params).token_ids
        logits, answer, penalised = beside.forward(PROMPT), [], 0
        for token in found:
            x = logits.astype(np.float64)
            for seen in set(answer):
                x[seen] -= params.frequency_penalty * answer.count(seen)
            taken = rule(tiny.tokenizer, [*PROMPT, *answer], params)
            for seen, penalty in taken.items():
                x[seen] -= penalty
            penalised += bool(taken)
            assert token == int(np.argmax(x))
            answer.append(token)
            logits = beside.forward([token])
    assert penalised > 5
    with tiny.session() as session:
        assert session.generate(PROMPT, MOST, params=SamplingParams(ignore_eos=True)).token_ids != found


@pytest.mark.slow  # for the vocabularies are fetched
def test_penalties_are_llama_cpps() -> None:
    """Of the rule that the sampler is held to above, with breakers of each vocabulary."""
    tokenizers: dict[str, Tokenizer] = {}
    made: dict[Any, list[list[int]]] = {}
    for case in ORACLE["cases"]:
        name, dry = case["vocabulary"], dict(case["dry"])
        if name not in tokenizers:
            metadata = _core.GgufFile(str(models() / f"ggml-vocab-{name}.gguf")).metadata
            tokenizers[name] = Tokenizer(metadata)
        texts = tuple(dry.pop("sequence_breakers"))
        if (name, texts) not in made:
            made[name, texts] = sequences_of(tokenizers[name], texts)
        last_n = dry.pop("penalty_last_n")
        found = penalties(case["ids"], made[name, texts], last_n=last_n, **dry)
        expected = {int(token): value for token, value in case["penalties"].items()}
        assert found == pytest.approx(expected, rel=1e-6), case
    assert sum(bool(case["penalties"]) for case in ORACLE["cases"]) > 100


def test_breakers_are_found_in_tokens_that_overlap_them() -> None:
    """A token that has the text; and one that ends with its beginning, with the rest behind it."""
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{b:02X}>" for b in range(256)),
        "▁",
        "a",
        "b",
        "ab",
        "▁ab",
        "ba",
        "abb",
        "c",
    ]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(i) for i in range(len(tokens))],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * 8,
        "tokenizer.ggml.add_space_prefix": False,
    }
    ids = {token: i for i, token in enumerate(tokens)}
    found = [[tokens[i] for i in one] for one in sequences_of(Tokenizer(metadata), ["ab"])]
    alone = [[token] for token in ("ab", "▁ab", "abb")]
    begins = [[token, "b"] for token in ("a", "ba", "<0x61>")]
    assert sorted(found) == sorted(alone + begins) and ids["a"] != ids["<0x61>"]
    assert sequences_of(Tokenizer(metadata), []) == []


def test_a_rewind_and_a_fork_go_on_as_the_whole_history_would(tiny: CompiledModel) -> None:
    """And so does a history that came in parts, or is an answer's that goes on."""
    params = SamplingParams(ignore_eos=True, temperature=0.7, seed=3, dry_multiplier=2.0, dry_penalty_last_n=-1)
    with tiny.session() as session:
        expected = session.generate(PROMPT, MOST, params=params).token_ids
    with tiny.session() as session:
        session.forward([*PROMPT, 9, 9, 9])
        session.rewind(8)
        assert session.generate(PROMPT[8:], MOST, params=params).token_ids == expected
        session.rewind(20)
        with session.fork() as fork:
            session.forward([1, 2, 3])
            assert fork.generate(PROMPT[20:], MOST, params=params).token_ids == expected
    with tiny.session() as session:
        tokens = session.begin([*PROMPT, *expected[:15]], MOST - 15, params, [], answered=15)
        assert [tokens.next()[0].token_id for _ in range(MOST - 15)] == expected[15:]


@pytest.mark.parametrize(
    ("options", "named", "changes"),
    [
        ([], {}, False),
        (["--dry-base", "1.1"], {"dry_base": 1.1}, True),
        (["--dry-allowed-length", "5"], {"dry_allowed_length": 5}, True),
        (["--dry-penalty-last-n", "3"], {"dry_penalty_last_n": 3}, True),
        (
            ["--dry-sequence-breaker", "4", "--dry-sequence-breaker", "none"],
            {"dry_sequence_breakers": ["4", "none"]},
            True,
        ),
        (["--dry-sequence-breaker", "none"], {"dry_sequence_breakers": []}, False),  # the answer has none of them
    ],
    ids=str,
)
def test_the_command_lines_options_are_pythons(
    tiny_path: Any, capsys: Any, options: list[str], named: dict[str, Any], changes: bool
) -> None:
    text, path = "abcabcabc:abcabc", str(tiny_path())
    command = ["generate", text, "--raw", "-m", path, "-n", str(MOST), "--ignore-eos", "--json"]
    assert main([*command, "--dry-multiplier", "2", *options]) == 0
    found = json.loads(capsys.readouterr().out)["token_ids"]
    plain, given = ({"ignore_eos": True, "dry_multiplier": 2.0, **more} for more in ({}, named))
    model = CompiledModel.load(path)
    with model.session() as session, model.session() as beside:
        assert found == session.generate(text, MOST, **given).token_ids
        assert (found != beside.generate(text, MOST, **plain).token_ids) == changes


def test_the_servers_fields_are_pythons(tiny: CompiledModel, tiny_path: Any) -> None:
    """As llama.cpp's server has them; a field out of range is refused by name."""
    fields: dict[str, Any] = {
        "dry_multiplier": 2.0,
        "dry_base": 1.1,
        "dry_allowed_length": 1,
        "dry_penalty_last_n": -1,
        "dry_sequence_breakers": ["\n", "z"],
    }
    body = {"prompt": "abcabcabc:abcabc", "max_tokens": MOST, "temperature": 0, "ignore_eos": True}
    with serve(tiny_path()) as served:
        texts = [served.ok(COMPLETIONS, body | more)["choices"][0]["text"] for more in (fields, {})]
        for name, value in (("dry_base", 0.5), ("dry_penalty_last_n", -2), ("dry_sequence_breakers", ["x" * 41])):
            refused = served.post(COMPLETIONS, body | {name: value})
            assert refused.status_code == 400 and name in refused.json()["error"]["message"]
    with tiny.session() as session:
        assert texts[0] == session.generate(body["prompt"], MOST, ignore_eos=True, **fields).text
    assert texts[0] != texts[1]


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"dry_multiplier": -1}, "dry_multiplier: expected a number from 0"),
        ({"dry_multiplier": "1"}, "dry_multiplier: expected a number"),
        ({"dry_base": 0.5, "dry_multiplier": 1}, "dry_base: expected a number from 1"),
        ({"dry_allowed_length": -1}, "dry_allowed_length: expected a whole number from 0"),
        ({"dry_penalty_last_n": -2}, "dry_penalty_last_n: expected a whole number from -1"),
        ({"dry_sequence_breakers": [""]}, "dry_sequence_breakers: expected strings that are not empty"),
        ({"dry_sequence_breakers": ["ß" * 21]}, "dry_sequence_breakers: expected texts of at most 40 bytes"),
        ({"dry_sequence_breakers": ["a"] * 65}, "dry_sequence_breakers: expected at most 64 texts, found 65"),
    ],
)
def test_what_makes_no_sense_is_refused(tiny: CompiledModel, named: dict[str, Any], said: str) -> None:
    with tiny.session() as session, pytest.raises(ValueError, match=said):
        session.generate(PROMPT, 4, **named)


def test_none_is_the_default() -> None:
    params = SamplingParams(dry_multiplier=None, dry_penalty_last_n=None, dry_sequence_breakers=None)  # type: ignore[arg-type]
    assert params == SamplingParams() and params.dry_sequence_breakers == BREAKERS == ("\n", ":", '"', "*")
