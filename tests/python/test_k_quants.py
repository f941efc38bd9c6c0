"""Real K-quants: SmolLM2 filled up with zeros to rows of 768, each linear layer really of the named type, beside the
oracle on what those blocks stand for. Values made once by tests/oracle/make_k_quants.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import padded
import pytest
from foundry import CompiledModel
from foundry.files import open_model

ORACLE: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "oracle" / "k_quants.json").read_text(encoding="utf-8")
)
pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.long]
PROMPTS = ("What is the capital of Italy?", "Why is the sky blue?", "Name the planets of the solar system.")


def scores(model: CompiledModel, ids: Any, n: int) -> tuple[Any, Any]:
    """Log-probabilities of the n tokens behind the first, and the most likely ones."""
    log_p, most_likely = [], []
    with model.session(n, 0) as s:
        for at in range(0, n, 500):
            logits = s.forward(ids[at : at + 500], all_logits=True)
            best = logits.max(1)
            sums = np.log(np.exp(logits - best[:, None]).sum(1, dtype=np.float64))
            log_p.append(logits[np.arange(len(logits)), ids[at + 1 : at + 1 + len(logits)]] - best - sums)
            most_likely.append(logits.argmax(1))
    return np.concatenate(log_p), np.concatenate(most_likely)


def test_filled_up_with_zeros_it_is_the_same_function(smollm2_path: Path, tmp_path: Path, real_text: str) -> None:
    """In F32 on both sides."""
    path = tmp_path / "f32.gguf"
    assert padded.write(smollm2_path, path) == {"F32": 272}
    one, filled = CompiledModel.load(smollm2_path), CompiledModel.load(path, kv_dtype="f32")
    ids = np.asarray(one.tokenizer.encode(real_text[:6_000])[:1001], np.int32)
    theirs, ours = scores(one, ids, 1000)[0], scores(filled, ids, 1000)[0]
    off = float(np.abs(theirs - ours).mean())
    print(f"\nfilled up in F32 beside Q4_1 as it is: mean |difference| of log p {off:.5f}")
    assert off < 0.005


@pytest.mark.parametrize("name", padded.MIXES)
def test_log_probabilities_of_real_text(smollm2_path: Path, tmp_path: Path, real_text: str, name: str) -> None:
    expected = ORACLE["mixes"][name]
    path = tmp_path / "m.gguf"
    counted = padded.write(smollm2_path, path, padded.MIXES[name])
    types = [kind for kind, _, _ in open_model(str(path)).tensors.values()]
    assert counted == expected["counted"] == {kind: types.count(kind) for kind in types}
    assert counted["F32"] == 61 and sum(counted.values()) == 272  # norms, and 211 linear layers in blocks
    model = CompiledModel.load(path)
    ids = np.asarray(model.tokenizer.encode(real_text[:24_000])[:4001], np.int32)
    ours, most_likely = scores(model, ids, 4000)
    theirs = np.asarray(expected["log_p"])
    off = float(np.abs(ours - theirs).mean())
    same = float((most_likely == expected["most_likely"]).mean())
    perplexity, their_perplexity = np.exp(-ours.mean()), np.exp(-theirs.mean())
    print(
        f"\n{name} {counted} on {model.device} beside {ORACLE['made_with']}, 4000 positions: same most likely token"
        f" {same:.2%}, mean |difference| of log p {off:.4f}, perplexity {perplexity:.4f} and {their_perplexity:.4f}"
    )
    for prompt in PROMPTS:
        with model.session(0, 48) as session:
            print(f"  {prompt} {session.chat([{'role': 'user', 'content': prompt}], 48).text!r}")
    assert same >= 0.99
    assert off <= 0.005
    assert abs(perplexity / their_perplexity - 1) <= 0.001
