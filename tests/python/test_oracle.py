"""SmolLM2 beside llama.cpp: values made once by tests/oracle/make.py."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foundry import CompiledModel

ORACLE = Path(__file__).parents[1] / "oracle"
pytestmark = pytest.mark.model


def oracle(name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((ORACLE / name).read_text(encoding="utf-8"))
    return values


@pytest.mark.slow
def test_log_probabilities_of_real_text(smollm2: CompiledModel, real_text: str) -> None:
    expected = oracle("scores.json")
    ids = np.asarray(smollm2.tokenizer.encode(real_text[:24_000])[:4001], "<i4")
    assert hashlib.sha256(ids.tobytes()).hexdigest() == expected["tokens_sha256"]
    most_likely, log_p = [], []
    with smollm2.session(4000, 0) as s:
        for at in range(0, 4000, 500):
            logits = s.forward(ids[at : at + 500], all_logits=True)
            most_likely.append(logits.argmax(1))
            best = logits.max(1)
            sums = np.log(np.exp(logits - best[:, None]).sum(1, dtype=np.float64))
            log_p.append(logits[np.arange(500), ids[at + 1 : at + 501]] - best - sums)
    theirs = np.asarray(expected["log_p"])
    ours = np.concatenate(log_p)
    same = float((np.concatenate(most_likely) == expected["most_likely"]).mean())
    off = float(np.abs(ours - theirs).mean())
    perplexity, their_perplexity = np.exp(-ours.mean()), np.exp(-theirs.mean())
    print(
        f"\n{smollm2.device} beside {expected['made_with']}, 4000 positions: same most likely token {same:.2%}, "
        f"mean |difference| of log p {off:.4f}, perplexity {perplexity:.4f} and {their_perplexity:.4f}"
    )
    assert same >= 0.99
    assert off <= 0.005
    assert abs(perplexity / their_perplexity - 1) <= 0.001


def test_score_says_the_same(smollm2: CompiledModel, real_text: str) -> None:
    ids = smollm2.tokenizer.encode(real_text[:24_000])[:1001]
    with smollm2.session(1001, 0) as s:
        found = s.score(ids)[1:]
    assert np.abs(found - np.asarray(oracle("scores.json")["log_p"])[:1000]).mean() <= 0.005


def test_ten_answers_beside_the_oracles(smollm2: CompiledModel) -> None:
    """Greedy text parts where two tokens are about as likely: on another instruction set an answer or two may."""
    expected = oracle("answers.json")
    same = 0
    for answer in expected["answers"]:
        with smollm2.session(0, expected["max_new_tokens"]) as s:
            text = s.chat([{"role": "user", "content": answer["prompt"]}], expected["max_new_tokens"]).text
        same += text == answer["text"]
        print(f"\n{answer['prompt']}\n  foundry:   {text!r}\n  llama.cpp: {answer['text']!r}")
    print(f"\n{same} of {len(expected['answers'])} the same to the last character")
    assert same >= 7


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_gemma3_beside_hugging_face(tiny_path: Callable[..., Path], device: str) -> None:
    """Random weights, every third layer full, the others a window of 32: fed at once, and a token at a time."""
    expected = oracle("gemma3.json")
    path = tiny_path(type="f32", **expected["shape"])
    model = CompiledModel.load(path, device, kv_dtype="f32", page_tokens=8, chunk_tokens=16)
    with model.session() as s:
        found = s.forward(expected["ids"], all_logits=True)
    with model.session() as s:
        one_by_one = np.stack([s.forward([token]) for token in expected["ids"]])
    assert np.array_equal(found, one_by_one)
    assert found.argmax(1).tolist() == expected["most_likely"]
    off = np.abs(found[expected["positions"]] - np.asarray(expected["logits"])).max()
    print(f"\n{model.device} beside {expected['made_with']}: max |difference| of logits {off:.1e}")
    assert off < 2e-5
