"""Answers of a given form: whatever a model would say, the grammar holds."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from foundry import CompiledModel

PROMPT = list(b"Tell me.")
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "bb"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(12))
def test_json_of_a_schema(tiny: CompiledModel, seed: int) -> None:
    with tiny.session() as session:  # random weights: only the grammar keeps it in order; white space is kept short
        answer = session.generate(
            PROMPT, 300, schema=SCHEMA | {"x-guidance": {"whitespace_flexible": False}}, temperature=1, seed=seed
        )
    assert answer.finish_reason == "stop", answer.text
    found = json.loads(answer.text)
    assert set(found) == {"name", "age", "tags"} and isinstance(found["name"], str) and len(found["name"]) <= 6
    assert isinstance(found["age"], int) and 0 <= found["age"] <= 150
    assert len(found["tags"]) <= 2 and set(found["tags"]) <= {"a", "bb"}


def test_a_regex_and_a_lark_grammar(tiny: CompiledModel) -> None:
    with tiny.session() as session:
        answer = session.generate(PROMPT, 50, regex=r"[a-f]{4}-(yes|no)", temperature=1, seed=1)
        assert re.fullmatch(r"[a-f]{4}-(yes|no)", answer.text) and answer.finish_reason == "stop"
        history = session.token_ids.tolist()
        assert history == [*PROMPT, *answer.token_ids[:-1]]
        lark = 'start: "<" word ("," word)* ">"\nword: /[xyz]{2}/'
        answer = session.generate(PROMPT, 60, grammar=lark, temperature=1, seed=2, logit_bias={ord(">"): 3})
        assert re.fullmatch(r"<[xyz]{2}(,[xyz]{2})*>", answer.text)


def test_an_answer_cut_short_is_the_beginning_of_one(tiny: CompiledModel) -> None:
    with tiny.session() as session:
        answer = session.generate(PROMPT, 5, regex="[a-c]{40}", temperature=1, seed=1)
    assert answer.finish_reason == "length" and re.fullmatch("[a-c]{5}", answer.text)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"regex": "(("}, "grammar: "),
        ({"grammar": "start: nothing"}, "grammar: "),
        ({"schema": {"type": "no such type"}}, "grammar: "),
        ({"schema": "{"}, "expected value|EOF|grammar"),
        ({"schema": {"type": "string", "pattern": "a" * (1 << 20)}}, "grammar: expected at most"),
        ({"regex": "(a{1,500}){1,500}b{1,500}"}, "gramma"),
    ],
    ids=["regex", "lark", "schema", "text", "long", "blow-up"],
)
def test_a_grammar_that_makes_no_sense_changes_nothing(
    tiny: CompiledModel, sampling: dict[str, Any], message: str
) -> None:
    with tiny.session() as session:
        with pytest.raises(ValueError, match=message):
            session.generate(PROMPT, 600, temperature=1, seed=1, logit_bias={97: 50}, **sampling)
        session.rewind(0)
        assert session.generate(PROMPT, 3, regex="abc").text == "abc"


def test_masks_are_checked_before_they_are_used(tiny: CompiledModel) -> None:
    from foundry import SamplingParams

    words = (tiny.arch.vocab_size + 31) // 32
    with tiny.session() as session:
        free = session.begin(PROMPT, 4, SamplingParams(), [])
        with pytest.raises(ValueError, match="begun without a constraint"):
            free.next(np.ones(words, np.uint32))
        tokens = session.begin(PROMPT, 4, SamplingParams(regex="a"), [])
        with pytest.raises(ValueError, match=f"expected {words} words, found {words + 1}"):
            tokens.next(np.ones(words + 1, np.uint32))
        with pytest.raises(ValueError, match="allows no token"):
            tokens.next(np.zeros(words, np.uint32))
        mask = np.zeros(words, np.uint32)
        mask[1] = 1 << 5
        assert tokens.next(mask)[0].token_id == 37  # what failed before took nothing


def test_a_vocabulary_goes_with_its_model(tiny_path: Any) -> None:
    import gc
    import weakref

    from foundry import structured

    def used() -> weakref.ref[Any]:
        model = CompiledModel.load(tiny_path(), threads=1)
        with model.session() as session:
            assert session.generate(PROMPT, 3, regex="abc").text == "abc"
        return weakref.ref(model.tokenizer)

    gc.collect()
    before = len(structured._vocabularies)
    gone = used()
    gc.collect()
    assert gone() is None
    assert len(structured._vocabularies) <= before
