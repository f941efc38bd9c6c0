"""POST /v1/completions and the tokens' own routes: what evaluation harnesses stand on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from conftest import Tiny
from served import COMPLETIONS, Served, serve

PROMPT = "The capital of France is Paris. "


@pytest.fixture(scope="module")
def served(tiny_path: Tiny) -> Iterator[Served]:
    with serve(tiny_path()) as one:
        yield one


def test_an_answer_is_the_librarys_for_text_and_for_ids(served: Served) -> None:
    ids = served.model.tokenizer.encode_prompt(PROMPT)
    with served.model.session() as session:
        expected = session.generate(PROMPT, 6, ignore_eos=True).text
    for prompt in (PROMPT, ids, [ids], [PROMPT]):
        found = served.ok(COMPLETIONS, {"prompt": prompt, "max_tokens": 6, "temperature": 0, "ignore_eos": True})
        assert [choice["text"] for choice in found["choices"]] == [expected]
        assert found["usage"]["prompt_tokens"] == len(ids)


def test_prompts_in_a_list_are_answered_as_alone_and_numbered(served: Served) -> None:
    body = {"max_tokens": 5, "temperature": 1.0, "seed": 3, "n": 2, "ignore_eos": True}
    alone = [served.ok(COMPLETIONS, {"prompt": p, **body}) for p in ("One", "Two and more")]
    both = served.ok(COMPLETIONS, {"prompt": ["One", "Two and more"], **body})
    assert [c["index"] for c in both["choices"]] == [0, 1, 2, 3]
    assert [c["text"] for c in both["choices"]] == [c["text"] for one in alone for c in one["choices"]]
    assert both["usage"]["completion_tokens"] == 20
    assert both["usage"]["prompt_tokens"] == sum(one["usage"]["prompt_tokens"] for one in alone)
    events = served.events(COMPLETIONS, {"prompt": ["One", "Two and more"], **body})
    texts = [""] * 4
    for event in events:
        texts[event["choices"][0]["index"]] += event["choices"][0]["text"]
    assert texts == [c["text"] for c in both["choices"]]


def test_echo_with_logprobs_is_session_score_to_the_bit(served: Served) -> None:
    ids = served.model.tokenizer.encode_prompt(PROMPT)
    with served.model.session() as session:
        scores = session.score(ids)
    body = {"prompt": PROMPT, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}
    for _ in range(2):  # the second finds the first's pages in the cache, and must not use them
        choice = served.ok(COMPLETIONS, body)["choices"][0]
        logprobs = choice["logprobs"]
        assert choice["text"].startswith(PROMPT)
        assert logprobs["token_logprobs"][0] is None
        assert np.array_equal(np.float32(logprobs["token_logprobs"][1 : len(ids)]), scores[1:])
        assert [len(logprobs[name]) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")] == [
            len(ids) + 1
        ] * 4
        assert logprobs["top_logprobs"][0] is None
        for token, logprob, top in zip(
            *(logprobs[n][1:] for n in ("tokens", "token_logprobs", "top_logprobs")), strict=True
        ):
            assert len(top) == 1
            (best_token, best_logprob), *_ = top.items()
            assert best_logprob >= logprob
            assert (best_token == token) == (best_logprob == logprob)
        assert logprobs["text_offset"] == list(range(len(ids) + 1))  # a token is a byte here


def test_scoring_alone_needs_no_new_token(served: Served) -> None:
    ids = served.model.tokenizer.encode_prompt(PROMPT)
    body = {"prompt": PROMPT, "max_tokens": 0, "logprobs": 0, "echo": True}
    found = served.ok(COMPLETIONS, body)
    assert found["choices"][0]["text"] == PROMPT
    assert len(found["choices"][0]["logprobs"]["tokens"]) == len(ids)
    assert found["usage"]["completion_tokens"] == 0


def test_an_end_token_is_the_one_token_that_a_scored_prompt_asks_for(served: Served) -> None:
    body = {"prompt": PROMPT, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}
    end = str(served.model.tokenizer.eos_id)
    choice = served.ok(COMPLETIONS, body | {"logit_bias": {end: 100}})["choices"][0]
    assert choice["logprobs"]["tokens"][-1] == "<|im_end|>"
    assert choice["text"] == PROMPT


def test_parts_of_characters_are_told_as_bytes_and_offsets_count_characters(served: Served) -> None:
    body = {"prompt": "aé🦙b", "max_tokens": 0, "logprobs": 0, "echo": True}
    logprobs = served.ok(COMPLETIONS, body)["choices"][0]["logprobs"]
    assert logprobs["tokens"] == [
        "a", "bytes:\\xc3", "bytes:\\xa9", "bytes:\\xf0", "bytes:\\x9f", "bytes:\\xa6", "bytes:\\x99", "b",
    ]  # fmt: skip
    assert logprobs["text_offset"] == [0, 1, 1, 2, 2, 2, 2, 3]


def test_tokens_there_and_back(served: Served) -> None:
    ids = served.ok("/tokenize", {"prompt": "Hello, wörld", "add_special_tokens": False})
    assert ids["tokens"] == served.model.tokenizer.encode("Hello, wörld", add_special_tokens=False)
    assert ids["count"] == len(ids["tokens"])
    assert served.ok("/detokenize", {"tokens": ids["tokens"]})["prompt"] == "Hello, wörld"
    chat = served.ok("/tokenize", {"messages": [{"role": "user", "content": "Hello"}]})["tokens"]
    assert chat == served.model.tokenizer.encode_chat([{"role": "user", "content": "Hello"}])
    info = served.client.get("/tokenizer_info").json()
    assert info["eos_token"] == "<|im_end|>"
    assert info["bos_token"] == "<|im_start|>"
