"""Each family of models beside Hugging Face transformers: values made once by tests/oracle/make_families.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import families
import numpy as np
import numpy.typing as npt
import pytest
from families import CONTEXT, FAMILIES
from foundry import CompiledModel, ModelFormatError, models
from foundry.models import gptoss, smollm3
from foundry.models.rope import read_rope

ORACLE = json.loads((Path(__file__).parents[1] / "oracle" / "families.json").read_text(encoding="utf-8"))
BOUND = 1e-5  # of the logits' range
PEAKED = 2.5  # nats of entropy; 75 positions seen alike would be 4.3


def logits_of(path: Path, device: str = "cpu", n: int = 100, **load: Any) -> npt.NDArray[np.float32]:
    model = CompiledModel.load(path, device, kv_dtype="f32", threads=1, page_tokens=8, chunk_tokens=32, **load)
    with model.session() as s:
        return s.forward(ORACLE["ids"][:n], all_logits=True)


def off_by(name: str, found: npt.NDArray[np.float32]) -> float:
    """The largest difference, as a share of the range."""
    expected = ORACLE["families"][name]
    kept = found[ORACLE["positions"]][:, :: ORACLE["every"]]
    return float(np.abs(kept - np.asarray(expected["logits"])).max() / expected["range"])


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_those_of_transformers(tmp_path: Path, name: str, device: str) -> None:
    """Over 100 tokens, which pass the windows and the contexts that rope was stretched from."""
    path = families.write(tmp_path / "m.gguf", FAMILIES[name])
    found = logits_of(path, device)
    off = off_by(name, found)
    expected = ORACLE["families"][name]
    print(f"\n{name} on {device}: {off:.1e} of the range, entropy of attention {expected['entropy']} nats")
    assert expected["entropy"] < PEAKED
    assert found.argmax(1).tolist() == expected["most_likely"]
    assert off < BOUND


PLAIN: dict[str, Any] = {"rope.scaling.type": "none"}
BROKEN: list[tuple[str, Mapping[str, Any]]] = [
    ("llama yarn", PLAIN),
    ("llama yarn", {"rope.scaling.type": "linear"}),
    ("llama yarn", {"rope.scaling.yarn_beta_fast": None}),
    ("llama yarn", {"rope.scaling.yarn_beta_slow": None}),
    ("llama yarn", {"rope.scaling.yarn_attn_factor": 1.0}),
    ("llama yarn", {"rope.scaling.original_context_length": None}),
    ("qwen2 yarn", PLAIN),
    ("qwen3", {"rope.freq_base": 10000.0}),
    ("mistral3", {"attention.temperature_scale": None}),
    ("mistral3", {"rope.scaling.yarn_log_multiplier": None}),
    ("mistral3", {"rope.scaling.original_context_length": 32}),
    ("granite", {"attention.scale": None}),
    ("granite", {"embedding_scale": None}),
    ("granite", {"residual_scale": None}),
    ("granite", {"logit_scale": None}),
    ("qwen3moe", {"rope.freq_base": 10000.0}),
    ("qwen3moe", {"expert_used_count": 2}),
    ("qwen3moe", {"expert_used_count": 4}),
    ("qwen3moe", {"expert_weights_norm": False}),
    ("qwen3moe", {"expert_weights_scale": 2.5}),
    ("qwen3moe", {"expert_gating_func": 2}),
    ("qwen3moe, weights as they are", {"expert_weights_norm": None}),
    ("granitemoe", {"attention.scale": None}),
    ("granitemoe", {"embedding_scale": None}),
    ("granitemoe", {"residual_scale": None}),
    ("granitemoe", {"logit_scale": None}),
    ("granitemoe", {"expert_used_count": 1}),
    ("granitemoe", {"expert_weights_norm": False}),
    ("granitemoe shared", {"expert_weights_norm": False}),
    ("gpt-oss", PLAIN),
    ("gpt-oss", {"rope.freq_base": 10000.0}),
    ("gpt-oss", {"attention.sliding_window": 25}),
    ("gpt-oss", {"attention.sliding_window_pattern": [False, True, False, True]}),
    ("gpt-oss", {"expert_used_count": 3}),
    ("gpt-oss", {"expert_weights_norm": False}),
    ("phi3 long", {"rope.scaling.original_context_length": CONTEXT}),  # the short factors
    ("phi3 long", {"rope.scaling.attn_factor": None}),
    ("phi3 long", {"rope.dimension_count": 12, "rope.freq_base": 500.0}),
    ("phi3 short", {"context_length": 512}),  # the long factors
    ("phi3 short", {"attention.sliding_window": None}),
    ("phi3 short", {"attention.sliding_window": 25}),
    ("gemma2", {"attn_logit_softcapping": 0.0}),
    ("gemma2", {"final_logit_softcapping": 0.0}),
    ("gemma2", {"attention.sliding_window": 25}),
    ("gemma2", {"attention.sliding_window_pattern": 1}),
    ("gemma2", {"attention.sliding_window_pattern": [False, True, False, True]}),
    ("olmo3", {"attention.sliding_window_pattern": None}),
    ("olmo3", {"attention.sliding_window": None}),
    ("olmo3", PLAIN),
    ("glm4", {"rope.dimension_count": 16}),
    ("starcoder2", {"attention.sliding_window": None}),
    ("starcoder2", {"attention.layer_norm_epsilon": 0.01}),
    ("lfm2", {"rope.freq_base": 10000.0}),
    ("lfm2", {"attention.layer_norm_rms_epsilon": 0.01}),
    ("qwen35", {"rope.freq_base": 10000.0}),
    ("qwen35", {"rope.dimension_count": 16}),
    ("qwen35", {"attention.layer_norm_rms_epsilon": 0.01}),
    ("qwen35, taps of 3, other heads", {"rope.dimension_count": 8}),
    ("qwen35moe", {"rope.dimension_count": 4}),
    ("qwen35moe", {"expert_used_count": 2}),
    ("qwen35moe", {"expert_weights_norm": False}),
    ("qwen35moe", {"expert_weights_scale": 2.5}),
    ("qwen35moe", {"expert_gating_func": 2}),
    ("lfm2moe", {"expert_used_count": 2}),
    ("lfm2moe", {"expert_weights_norm": False}),
    ("lfm2moe", {"expert_weights_scale": 2.5}),
    ("lfm2moe", {"expert_gating_func": 1}),
]


@pytest.mark.parametrize(("name", "keys"), BROKEN, ids=str)
def test_a_key_that_says_otherwise_shows(tmp_path: Path, name: str, keys: Mapping[str, Any]) -> None:
    off = off_by(name, logits_of(families.write(tmp_path / "m.gguf", FAMILIES[name], keys)))
    print(f"\n{name}, {keys}: {off:.1e} of the range")
    assert off > 10 * BOUND


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("qwen3", "attn_q_norm"),
        ("qwen3", "attn_k_norm"),
        ("olmo2", "attn_k_norm"),
        ("olmo2", "post_attention_norm"),
        ("olmo2", "post_ffw_norm"),
        ("glm4", "post_attention_norm"),
        ("glm4", "attn_k.bias"),
        ("gemma2", "post_ffw_norm"),
        ("starcoder2", "attn_norm.bias"),
        ("starcoder2", "ffn_down.bias"),
        ("llama fused qkv, head_dim 20", "attn_qkv.bias"),
        ("llama fused qkv, head_dim 20", "output.bias"),
        ("exaone", "rope_freqs"),
        ("qwen3moe", "attn_q_norm"),
        ("qwen3moe", "attn_k_norm"),
        ("lfm2", "attn_q_norm"),
        ("lfm2", "attn_k_norm"),
        ("lfm2", "token_embd_norm"),
        ("lfm2", "shortconv.conv"),
        ("lfm2, taps of 4 with biases", "conv.bias"),
        ("lfm2, taps of 4 with biases", "in_proj.bias"),
        ("lfm2, taps of 4 with biases", "out_proj.bias"),
        ("lfm2moe", "exp_probs_b.bias"),
        ("qwen35", "attn_q_norm"),
        ("qwen35", "attn_k_norm"),
        ("qwen35", "post_attention_norm"),
        ("qwen35", "ssm_norm"),
        ("qwen35", "ssm_dt.bias"),
        ("qwen35", "ssm_conv1d"),
        *(("gpt-oss", f"{weight}.bias") for weight in FAMILIES["gpt-oss"].biases),
    ],
)
def test_each_weight_of_its_own_shows(tmp_path: Path, name: str, weight: str) -> None:
    """Norms of ones for theirs, biases of zeros."""
    tensors = families.tensors_of(FAMILIES[name])
    changed = {
        key: np.zeros_like(values) if key.endswith(".bias") else np.ones_like(values)
        for key, values in tensors.items()
        if weight in key
    }
    assert changed
    assert off_by(name, logits_of(families.write(tmp_path / "m.gguf", FAMILIES[name], tensors=changed))) > 10 * BOUND


def test_layers_without_positions_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = families.write(tmp_path / "m.gguf", FAMILIES["smollm3"])
    monkeypatch.setattr(smollm3, "EACH", 1000)
    assert off_by("smollm3", logits_of(path)) > 10 * BOUND


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("qwen3moe", "ffn_gate_inp"),
        ("qwen3moe", "ffn_gate_exps"),
        ("qwen3moe", "ffn_down_exps"),
        ("granitemoe", "ffn_gate_inp"),
        ("granitemoe", "ffn_up_exps"),
        ("qwen35moe", "ffn_gate_inp.weight"),
        ("qwen35moe", "ffn_down_exps"),
    ],
)
def test_which_expert_is_which_shows(tmp_path: Path, name: str, weight: str) -> None:
    """One of the tensors with its experts in another order."""
    tensors = families.tensors_of(FAMILIES[name])
    changed = {key: np.roll(values, 1, axis=0) for key, values in tensors.items() if weight in key}
    assert len(changed) == families.LAYERS
    assert off_by(name, logits_of(families.write(tmp_path / "m.gguf", FAMILIES[name], tensors=changed))) > 10 * BOUND


def test_sinks_show(tmp_path: Path) -> None:
    """Out of reach, as if there were none."""
    tensors = families.tensors_of(FAMILIES["gpt-oss"])
    changed = {key: np.full_like(values, -100) for key, values in tensors.items() if "attn_sinks" in key}
    path = families.write(tmp_path / "m.gguf", FAMILIES["gpt-oss"], tensors=changed)
    assert off_by("gpt-oss", logits_of(path)) > 10 * BOUND


@pytest.mark.parametrize(("name", "value"), [("ALPHA", 1.0), ("LIMIT", 100.0)])
def test_a_clamped_gate_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: float) -> None:
    path = families.write(tmp_path / "m.gguf", FAMILIES["gpt-oss"])
    monkeypatch.setattr(gptoss, name, value)
    assert off_by("gpt-oss", logits_of(path)) > 10 * BOUND


def test_a_ramp_of_whole_pairs_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = families.write(tmp_path / "m.gguf", FAMILIES["gpt-oss"])
    monkeypatch.setattr(gptoss, "read_rope", lambda *args, **more: read_rope(*args, **{**more, "whole_pairs": True}))
    assert off_by("gpt-oss", logits_of(path)) > 10 * BOUND


def test_a_shared_expert_shows(tmp_path: Path) -> None:
    name = "granitemoe shared"
    tensors = families.tensors_of(FAMILIES[name])
    changed = {key: np.zeros_like(values) for key, values in tensors.items() if "ffn_down_shexp" in key}
    assert off_by(name, logits_of(families.write(tmp_path / "m.gguf", FAMILIES[name], tensors=changed))) > 10 * BOUND


@pytest.mark.parametrize("name", ["qwen3", "granite", "olmo2", "qwen3moe", "granitemoe", "gpt-oss"])
def test_which_dims_turn_together_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path, arch = families.write(tmp_path / "m.gguf", FAMILIES[name]), FAMILIES[name].arch
    build = models.architectures[arch]

    def other(header: Any) -> Any:
        model: Any = build(header)
        object.__setattr__(model.rope, "style", 1 - model.rope.style)
        return model

    monkeypatch.setitem(models.architectures, arch, other)
    assert off_by(name, logits_of(path)) > 10 * BOUND


@pytest.mark.parametrize("kv_dtype", ["f16", "q8_0"])
@pytest.mark.parametrize("head_dim", [4, 12, 20, 36])
def test_heads_of_any_four_dims(tmp_path: Path, head_dim: int, kv_dtype: str) -> None:
    """K and V are filled up with zeros, which the plan counts, and the answers are those of heads kept as they are."""
    path = families.write(tmp_path / "m.gguf", families.Family("llama", head_dim=head_dim))
    expected = logits_of(path, "reference", 40)
    model = CompiledModel.load(path, kv_dtype=kv_dtype, threads=1, page_tokens=8)
    with model.session() as s:
        found = s.forward(ORACLE["ids"][:40], all_logits=True)
    assert np.abs(found - expected).max() < (0.02 if kv_dtype == "f16" else 0.2) * np.ptp(expected)
    kept = -(-head_dim // 8) * 8 * 2 if kv_dtype == "f16" else -(-head_dim // 32) * 34
    assert model.plan(8, 0).kv % (families.LAYERS * families.KV_HEADS * 2 * 8 * kept) == 0
    assert model.arch.head_dim == head_dim


def test_layers_that_differ_are_refused_by_name(tmp_path: Path) -> None:
    same = families.write(tmp_path / "a.gguf", FAMILIES["qwen3"], {"attention.head_count_kv": [2, 2, 2, 2]})
    assert off_by("qwen3", logits_of(same)) < BOUND
    for keys, said in (
        ({"attention.head_count_kv": [2, 2, 1, 2]}, "attention.head_count_kv: expected the same number for each layer"),
        ({"attention.head_count": [4, 4, 8, 4]}, "attention.head_count: expected the same number for each layer"),
        ({"attention.value_length": 8}, "attention.value_length: expected the key length 16, found 8"),
        ({"attention.key_length": 18, "attention.value_length": 18}, "key_length: expected a multiple of 4, found 18"),
    ):
        path = families.write(tmp_path / "b.gguf", FAMILIES["qwen3"], keys)
        with pytest.raises(ModelFormatError, match=said):
            CompiledModel.load(path)


def test_a_caller_may_stretch_the_context(tmp_path: Path) -> None:
    """The caller's YaRN is the file's: the oracle's own, given in place of a file that has none."""
    family = FAMILIES["llama yarn"]
    plain = {key: None for key in family.keys if key.startswith("rope.scaling")}
    path = families.write(tmp_path / "m.gguf", family, plain | {"context_length": 64})
    scaling = {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 2.0,
        "beta_slow": 0.25,
    }
    with pytest.warns(UserWarning, match="the context is 256 tokens by the caller's word, beyond the 64 of the model"):
        model = CompiledModel.load(path, rope_scaling=scaling)
    assert model.arch.max_seq_len == 256
    with pytest.warns(UserWarning, match="beyond"):
        assert off_by("llama yarn", logits_of(path, rope_scaling=scaling)) < BOUND
    with pytest.warns(UserWarning, match="the context is 100 tokens"):
        assert off_by("llama yarn", logits_of(path, rope_scaling="yarn:4", max_seq_len=100)) > 10 * BOUND
    assert CompiledModel.load(path, max_seq_len=20).arch.max_seq_len == 20


def test_a_caller_may_name_the_base(tmp_path: Path) -> None:
    path = families.write(tmp_path / "m.gguf", FAMILIES["qwen3"], {"rope.freq_base": 10000.0})
    assert off_by("qwen3", logits_of(path, rope_base=1e6)) < BOUND


@pytest.mark.parametrize(
    "arguments",
    [
        {"rope_scaling": "ntk:4"},
        {"rope_scaling": "yarn"},
        {"rope_scaling": "none:2"},
        {"rope_scaling": "yarn:x"},
        {"rope_scaling": "yarn:4:32:9"},
        {"rope_scaling": "yarn:-4"},
        {"rope_scaling": {"type": "yarn", "factor": 4, "wobble": 1}},
        {"rope_scaling": 4},
        {"rope_base": 0},
        {"rope_base": "1e6"},
        {"max_seq_len": 0},
        {"max_seq_len": 1 << 24},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    path = families.write(tmp_path / "m.gguf", FAMILIES["qwen3"])
    with pytest.raises(ValueError, match=f"{next(iter(arguments))}: .*expected"):
        CompiledModel.load(path, **arguments)


def test_short_contexts_take_the_short_factors(tmp_path: Path) -> None:
    path = families.write(tmp_path / "m.gguf", FAMILIES["phi3 short"], {"context_length": 512})
    assert off_by("phi3 short", logits_of(path, max_seq_len=CONTEXT)) < BOUND
