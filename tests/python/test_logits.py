"""Logits against a float64 forward pass in numpy: each architecture, weight type and rope style; and SmolLM2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from foundry import CompiledModel
from numpy_decoder import NumpyDecoder

IDS = [int(i) for i in np.random.default_rng(3).integers(0, 256, 75)]  # more than one page, no multiple of one

EXPERTS = {"arch": "qwen3moe", "experts": 8, "used": 3}
SHAPES: list[dict[str, Any]] = [
    *(synthetic.of_type(kind) for kind in synthetic.TYPES),
    {"arch": "qwen2"},
    {"arch": "qwen2", "type": "f32", "heads": 7, "kv_heads": 1, "head_dim": 8},
    {"rope_factors": True, "tied": False},
    {"type": "f16", "heads": 6, "kv_heads": 6, "head_dim": 40, "hidden": 96},
    {"heads": 8, "kv_heads": 1, "head_dim": 24, "rope_base": 500000.0},
    {"window": 20, "rope_scaling": 4.0},
    *(EXPERTS | synthetic.of_type(kind) for kind in ("f32", "q8_0", "q4_k", "iq2_s", "mxfp4")),
    {"arch": "qwen3moe", "experts": 3, "used": 3, "types": ("q4_0", "f16", "q5_1")},
    {"arch": "gemma3", "layers": 4, "window": 32, "type": "f32"},
    {"arch": "gemma3", "layers": 7, "window": 12, "full_every": 6, "rope_base": 1e6, "rope_scaling": 8.0},
]


def name_of(fields: dict[str, Any]) -> str:
    return " ".join(f"{k}={v}" for k, v in fields.items())


@pytest.mark.parametrize("fields", SHAPES, ids=name_of)
def test_reference_is_float64_but_for_rounding(tiny_path: Any, fields: dict[str, Any]) -> None:
    path = tiny_path(**fields)
    expected = NumpyDecoder(path).forward(IDS)
    with CompiledModel.load(path, device="reference", kv_dtype="f32", page_tokens=16).session() as s:
        found = s.forward(IDS, all_logits=True)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("fields", SHAPES, ids=name_of)
def test_cpu_is_near(tiny_path: Any, fields: dict[str, Any]) -> None:
    """Activations of quantised layers are rounded to 15 bits a block, which is most of what this bound allows."""
    path = tiny_path(**fields)
    expected = NumpyDecoder(path).forward(IDS)
    with CompiledModel.load(path, device="cpu", kv_dtype="f32", page_tokens=16).session() as s:
        found = s.forward(IDS, all_logits=True)
    off = np.abs(found - expected) / expected.std()
    quantised = fields.get("type", "q8_0") not in ("f32", "f16", "bf16")
    print(f"of a standard deviation: max {off.max():.1e}, mean {off.mean():.1e}")
    assert off.max() < (5e-3 if quantised else 1e-5)
    assert off.mean() < (5e-4 if quantised else 1e-6)


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.long
def test_smollm2_on_reference_within_a_thousandth(smollm2_path: Path, real_text: str) -> None:
    model = CompiledModel.load(smollm2_path, device="reference", kv_dtype="f32")
    ids = model.tokenizer.encode(real_text[:4000])[:500]
    assert len(ids) == 500
    with model.session(500, 0) as s:
        found = s.forward(ids, all_logits=True)
    off = np.abs(found - NumpyDecoder(smollm2_path).forward(ids)).max()
    print(f"SmolLM2, 500 positions, reference against float64: max |difference| {off:.2e}")
    assert off < 1e-3
