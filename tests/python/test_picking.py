"""How tokens are picked: what changes logits before the draw, beside numpy; log-probabilities; several answers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from foundry import CompiledModel, MemoryLimitError, SamplingParams
from numpy.typing import NDArray

PROMPT = [5, 9, 5, 30, 77, 5]


def edited(
    logits: NDArray[np.float32], history: list[int], answer: list[int], p: SamplingParams
) -> NDArray[np.float64]:
    """What SamplingParams says, in float64 and word for word."""
    x = logits.astype(np.float64)
    for token, bias in p.logit_bias.items():
        x[token] += bias
    for token in {*history, *answer}:
        if p.repetition_penalty != 1:
            x[token] = x[token] / p.repetition_penalty if x[token] > 0 else x[token] * p.repetition_penalty
    for token in set(answer):
        x[token] -= p.presence_penalty + p.frequency_penalty * answer.count(token)
    return x


@pytest.mark.parametrize(
    "sampling",
    [
        {"repetition_penalty": 1.8},
        {"repetition_penalty": 0.6},
        {"presence_penalty": 2.0},
        {"frequency_penalty": 0.7},
        {"logit_bias": {7: 3.5, 8: -math.inf, 100: 2.5}},
        {"repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": -0.4, "logit_bias": {3: 4}},
    ],
    ids=lambda s: "+".join(s),
)
def test_greedy_tokens_are_those_of_the_edited_logits(tiny: CompiledModel, sampling: dict[str, Any]) -> None:
    params = SamplingParams(ignore_eos=True, **sampling)
    with tiny.session() as session, tiny.session() as beside:
        found = session.generate(PROMPT, 30, params=params).token_ids
        logits, answer = beside.forward(PROMPT), []
        for token in found:
            assert token == int(np.argmax(edited(logits, PROMPT, answer, params)))
            answer.append(token)
            logits = beside.forward([token])
    with tiny.session() as session:
        assert session.generate(PROMPT, 30, ignore_eos=True).token_ids != found  # it does change something


def test_the_history_before_the_prompt_counts_as_repetition(tiny: CompiledModel) -> None:
    with tiny.session() as whole, tiny.session() as parts:
        expected = whole.generate(PROMPT, 20, repetition_penalty=1.8, ignore_eos=True)
        parts.forward(PROMPT[:3])
        assert parts.generate(PROMPT[3:], 20, repetition_penalty=1.8, ignore_eos=True).token_ids == expected.token_ids


def test_top_n_sigma_leaves_what_is_near_the_best(tiny: CompiledModel) -> None:
    with tiny.session() as session:
        logits = session.forward(PROMPT).astype(np.float64)
        near = np.flatnonzero(logits >= logits.max() - 1.5 * logits.std())
    assert 1 < len(near) < tiny.arch.vocab_size / 2
    drawn = set()
    for seed in range(200):
        with tiny.session() as session:
            drawn.update(
                session.generate(PROMPT, 1, temperature=5, seed=seed, top_n_sigma=1.5, ignore_eos=True).token_ids
            )
    assert drawn <= set(near.tolist()) and len(drawn) > len(near) / 2


def test_logprobs_are_the_models_own_whatever_is_drawn(tiny: CompiledModel) -> None:
    with tiny.session() as session, tiny.session() as beside:
        answer = session.generate(
            PROMPT, 12, temperature=1.2, seed=3, logprobs=4, presence_penalty=3, logit_bias={2: 5}, ignore_eos=True
        )
        assert answer.logprobs is not None and [one.token_id for one in answer.logprobs] == answer.token_ids
        scores = beside.score([*PROMPT, *answer.token_ids])[len(PROMPT) :]
        assert [one.logprob for one in answer.logprobs] == scores.tolist()  # the same bits
        beside.rewind(len(PROMPT) - 1)
        row = beside.forward(PROMPT[-1:]).astype(np.float64)
        expected = row - row.max() - np.log(np.exp(row - row.max()).sum())
        order = np.lexsort((np.arange(len(row)), -row))[:4]
        top = answer.logprobs[0].top
        assert [token for token, _ in top] == order.tolist()
        np.testing.assert_allclose([p for _, p in top], expected[order], atol=1e-5)
    with tiny.session() as session:
        assert session.generate(PROMPT, 3).logprobs is None
        only = session.generate(PROMPT, 3, logprobs=0, ignore_eos=True).logprobs
        assert only is not None and [one.top for one in only] == [[], [], []]


def test_choices_are_answers_of_their_own(tiny: CompiledModel) -> None:
    sampling = {"temperature": 1.1, "seed": 11, "ignore_eos": True}
    with tiny.session() as session, tiny.session() as alone:
        session.forward([1, 2, 3]), alone.forward([1, 2, 3])
        answers = session.generate_n(PROMPT, 5, 20, **sampling)
        assert answers[0].token_ids == alone.generate(PROMPT, 20, **sampling).token_ids
        assert session.token_ids.tolist() == alone.token_ids.tolist()
        assert len({tuple(one.token_ids) for one in answers}) == 5
        assert len({one.seed for one in answers}) == 5
        for one in answers[1:]:  # the seed that is told gives the same answer again
            alone.rewind(3)
            again = alone.generate(PROMPT, 20, temperature=1.1, seed=one.seed, ignore_eos=True)
            assert again.token_ids == one.token_ids
            assert (one.usage.prompt_tokens, one.usage.completion_tokens) == (len(PROMPT), 20)
    assert tiny.memory()["kv"] == 0
    with tiny.session() as session:
        assert len(session.generate_n(PROMPT, 1, 4)) == 1
        for n in (0, 129, True):
            with pytest.raises(ValueError, match="n: expected"):
                session.generate_n(PROMPT, n)


def test_choices_that_memory_has_no_room_for_change_nothing(tiny_path: Any) -> None:
    model = CompiledModel.load(tiny_path(), threads=1, page_tokens=8)
    model = CompiledModel.load(
        tiny_path(),
        threads=1,
        page_tokens=8,
        memory_limit=model.memory()["total"] + model.memory()["estimated"] + 200_000,
    )
    with model.session(prompt_tokens=8) as session:
        session.forward([1, 2, 3])
        with pytest.raises(MemoryLimitError, match="available"):
            session.generate_n(PROMPT, 100, 300, temperature=1, ignore_eos=True)
        session.rewind(3)
        session.generate(PROMPT, 4)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"repetition_penalty": 0}, "repetition_penalty: expected a number above 0"),
        ({"presence_penalty": math.nan}, "presence_penalty: expected from -100 to 100"),
        ({"frequency_penalty": 1e9}, "frequency_penalty: expected from -100 to 100"),
        ({"top_n_sigma": -1}, "top_n_sigma: expected a number from 0"),
        ({"logit_bias": {100_000: 1}}, "logit_bias: expected ids from 0 to 258, found 100000"),
        ({"logit_bias": {1: math.inf}}, "logit_bias: expected finite numbers or -infinity"),
        ({"logit_bias": [1]}, "logit_bias: expected a mapping"),
        ({"logprobs": -1}, "logprobs: expected a whole number"),
        ({"schema": {}, "regex": "a"}, "expected at most one of schema, regex, grammar"),
    ],
)
def test_what_makes_no_sense_is_refused(tiny: CompiledModel, sampling: dict[str, Any], message: str) -> None:
    with tiny.session() as session:
        with pytest.raises(ValueError, match=message):
            session.generate(PROMPT, 4, **sampling)
        assert session.position == 0


def test_scores_come_with_the_likeliest_tokens_in_their_place(tiny: CompiledModel) -> None:
    ids = [*PROMPT, 8, 200]
    with tiny.session() as s, tiny.session() as t, tiny.session() as u:
        logits = s.forward(ids, all_logits=True)
        scores, found = t.score(ids), u.score_top(ids, 3)
    assert found[0] is None
    for i, one in enumerate(found[1:], 1):
        assert one is not None
        assert (one.token_id, np.float32(one.logprob)) == (ids[i], scores[i])
        assert [token for token, _ in one.top] == np.argsort(-logits[i - 1], kind="stable")[:3].tolist()


def test_an_answer_goes_on_in_another_session_as_it_would_in_its_own(tiny: CompiledModel) -> None:
    """Penalties count its first tokens as the answer's, not as the prompt's."""
    prompt = list(b"Tell me. Tell me.")
    penalties = {"presence_penalty": 1.0, "frequency_penalty": 1.0, "repetition_penalty": 1.3}
    params = SamplingParams(temperature=1.0, seed=5, **penalties)  # type: ignore[arg-type]

    def drawn(ids: list[int], most: int, answered: int) -> list[int]:
        with tiny.session() as session:
            tokens = session.begin(ids, most, params, [], answered=answered)
            return [tokens.next()[0].token_id for _ in range(most)]

    whole = drawn(prompt, 60, 0)
    assert drawn([*prompt, *whole[:25]], 35, 25) == whole[25:]
    assert drawn([*prompt, *whole[:25]], 35, 0) != whole[25:]  # what the figure is for
    with tiny.session() as session, pytest.raises(ValueError, match="at most the prompt's 2 tokens, found 3"):
        session.begin([1, 2], 1, params, [], answered=3)
