"""Quantised K and V: bits that still depend on tokens alone, quality on real text, bytes, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import exact_devices
from foundry import CompiledModel

QUANTISED = [("q8_0", "q8_0"), ("q4_0", "q8_0"), ("f16", "q4_0"), ("q8_0", "bf16")]


@pytest.mark.parametrize("kv_dtype", QUANTISED)
@pytest.mark.parametrize("device", exact_devices())
def test_bits_depend_on_tokens_alone(
    tiny_path: Callable[..., Path], tmp_path: Path, device: str, kv_dtype: tuple[str, str]
) -> None:
    path = tiny_path(head_dim=32, hidden=128)
    ids = np.random.default_rng(5).integers(0, 256, 70).tolist()
    model = CompiledModel.load(
        path, device, kv_dtype=kv_dtype, page_tokens=8, chunk_tokens=16, check_every_step=True, threads=2
    )
    with model.session(0, 0) as at_once, model.session(0, 0) as pieces:
        expected = at_once.forward(ids)
        for at in range(0, 60, 7):
            pieces.forward(ids[at : min(at + 7, 60)])
        with pieces.fork() as fork:
            assert np.array_equal(fork.forward(ids[60:]), expected)
        pieces.save(tmp_path / "some.kv")
        pieces.rewind(33)
        assert np.array_equal(pieces.forward(ids[33:]), expected)
        with model.restore(tmp_path / "some.kv") as restored:
            assert np.array_equal(restored.forward(ids[60:]), expected)


@pytest.mark.parametrize(("kv_dtype", "most"), [("q8_0", 0.03), ("q4_0", 0.5)])
def test_near_to_what_f32_says(tiny_path: Callable[..., Path], kv_dtype: str, most: float) -> None:
    path = tiny_path(head_dim=32, hidden=128)
    ids = np.random.default_rng(6).integers(0, 256, 300).tolist()
    found = {}
    for kind in ("f32", kv_dtype):
        with CompiledModel.load(path, kv_dtype=kind).session() as s:
            found[kind] = s.score(ids)[1:]
    off = float(np.abs(found[kv_dtype] - found["f32"]).mean())
    assert 0 < off < most  # and not nothing: the pages do hold another type


def test_bytes(tiny_path: Callable[..., Path]) -> None:
    path = tiny_path(head_dim=32, hidden=128)  # 2 layers, 2 KV heads
    for kv_dtype, bytes_a_token in (("f16", 512), ("q8_0", 272), ("q4_0", 144), (("q8_0", "q4_0"), 208)):
        model = CompiledModel.load(path, kv_dtype=kv_dtype)
        with model.session(64, 0) as s:
            assert s.kv_bytes == 64 * bytes_a_token


def test_a_head_that_is_no_whole_block_is_filled_up_and_others_types_are_refused(
    tiny_path: Callable[..., Path],
) -> None:
    path = tiny_path()  # head_dim 16
    ids = [1, 2, 3, 4, 5]
    rows = []
    for kv_dtype in ("f32", ("q8_0", "f16")):
        model = CompiledModel.load(path, kv_dtype=kv_dtype)
        assert model.arch.head_dim == 16
        with model.session() as session:
            rows.append(session.forward(ids))
            assert session.globals["head_dim"] == (16 if kv_dtype == "f32" else 32)
    np.testing.assert_allclose(rows[1], rows[0], rtol=0, atol=0.02 * float(np.abs(rows[0]).max()))
    with pytest.raises(ValueError, match='found "q4_1"'):
        CompiledModel.load(path, kv_dtype="q4_1")


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.long
def test_perplexity_of_7000_tokens(smollm2_path: Path, real_text: str) -> None:
    perplexity = {}
    for kv_dtype in ("f16", "q8_0", "q4_0"):
        model = CompiledModel.load(smollm2_path, kv_dtype=kv_dtype)
        ids = model.tokenizer.encode(real_text[:60_000])[:7000]
        with model.session(7000, 0) as s:
            perplexity[kv_dtype] = float(np.exp(-np.mean(s.score(ids)[1:], dtype=np.float64)))
    print(f"\nperplexity of 7,000 tokens: {perplexity}")
    assert abs(perplexity["q8_0"] / perplexity["f16"] - 1) < 0.002
    assert abs(perplexity["q4_0"] / perplexity["f16"] - 1) < 0.2
