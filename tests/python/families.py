"""Small files of each family of models, whose weights come from a seed: what the oracle was made with is made anew.

The keys and tensors are those that llama.cpp's converter writes. Weights are drawn so that attention is peaked, for
otherwise rope, caps, windows and norms hardly show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import synthetic

Array = npt.NDArray[np.float32]
HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FFN, LAYERS, CONTEXT = 64, 4, 2, 16, 96, 4, 256


@dataclass(frozen=True)
class Family:
    """What a family's files have.

    Attributes:
        arch: as GGUF names it.
        keys: of metadata, without the architecture's name, beside those that all have.
        factors: tensors of divisors of rope's frequencies.
    """

    arch: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    head_dim: int = HEAD_DIM
    tied: bool = True
    fused_qkv: bool = False
    fused_ffn: bool = False
    gated: bool = True
    norms_before: bool = True
    norms_behind: bool = False
    head_norms: int = 0  # values that a norm of Q has: head_dim, or all of them
    biases: tuple[str, ...] = ()
    layer_norm: bool = False
    factors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    experts: int = 0  # in place of a feed-forward network
    expert_ffn: int = 0
    shared_ffn: int = 0  # of an expert that all take
    expert_peak: float = 1.0  # of gates and ups: large enough for what is clamped to be reached
    sinks: bool = False
    ffn_norm: str = "ffn_norm"
    output_norm: str = "output_norm"
    kv_heads: tuple[int, ...] = ()  # of each layer, where they differ; 0: it is a short convolution
    taps: int = 0  # of those
    dense: int = 0  # first layers without experts
    expert_bias: bool = False  # of the choice
    delta: tuple[int, ...] = ()  # of delta nets: heads of Q and K, of V, and values of each
    shared_gate: bool = False  # before the expert that all take
    peak: float = 2.0  # of the weights of Q and K, and of the router
    seed: int = 7


WIDE = HEADS * HEAD_DIM
YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 64,
    "rope.scaling.yarn_beta_fast": 2.0,
    "rope.scaling.yarn_beta_slow": 0.25,
}
WINDOW = {"attention.sliding_window": 24}
LONG = {
    "rope_factors_long.weight": tuple(np.linspace(1.5, 12, 6).tolist()),
    "rope_factors_short.weight": tuple(np.linspace(1, 3, 6).tolist()),
}
PHI3 = {"rope.dimension_count": 12, "rope.scaling.attn_factor": math.sqrt(1 + math.log(4) / math.log(64))}
GRANITE = {"attention.scale": 0.4, "embedding_scale": 6.0, "residual_scale": 0.3, "logit_scale": 4.0}
QWEN35 = {
    "rope.freq_base": 1e6,
    "rope.dimension_count": 8,
    "ssm.conv_kernel": 4,
    "ssm.state_size": 16,
    "ssm.group_count": 2,
    "ssm.time_step_rank": 4,
    "ssm.inner_size": 64,
}
FAMILIES = {
    "llama yarn": Family("llama", YARN, tied=False),
    "llama fused qkv, head_dim 20": Family(
        "llama", head_dim=20, fused_qkv=True, biases=("output", "attn_qkv", "attn_output")
    ),
    "qwen2 yarn": Family("qwen2", YARN | {"rope.freq_base": 1e6}, biases=("attn_q", "attn_k", "attn_v")),
    "qwen3": Family("qwen3", {"rope.freq_base": 1e6}, head_norms=HEAD_DIM),
    "qwen3vl": Family("qwen3vl", {"rope.dimension_sections": [4, 2, 2, 0]}, head_norms=HEAD_DIM, seed=8),
    "smollm3": Family("smollm3"),
    "mistral3": Family(
        "mistral3",
        YARN | {"rope.scaling.yarn_log_multiplier": 0.5, "attention.temperature_scale": 0.4},
        tied=False,
    ),
    "granite": Family(
        "granite",
        GRANITE,
    ),
    "qwen3moe": Family(
        "qwen3moe",
        {
            "rope.freq_base": 1e6,
            "expert_count": 8,
            "expert_used_count": 3,
            "expert_feed_forward_length": 40,
        },
        head_norms=HEAD_DIM,
        experts=8,
        expert_ffn=40,
        tied=False,
    ),
    "qwen3moe, weights as they are": Family(
        "qwen3moe",
        {
            "expert_count": 6,
            "expert_used_count": 2,
            "expert_feed_forward_length": 48,
            "expert_weights_norm": False,
        },
        head_norms=HEAD_DIM,
        experts=6,
        expert_ffn=48,
        seed=9,
    ),
    "granitemoe": Family(
        "granitemoe", GRANITE | {"expert_count": 5, "expert_used_count": 2}, experts=5, expert_ffn=FFN
    ),
    "granitemoe shared": Family(
        "granitemoe",
        GRANITE | {"expert_count": 4, "expert_used_count": 2, "expert_shared_feed_forward_length": 56},
        experts=4,
        expert_ffn=FFN,
        shared_ffn=56,
        seed=11,
    ),
    "gpt-oss": Family(
        "gpt-oss",
        WINDOW
        | YARN
        | {
            "rope.freq_base": 150000.0,
            "expert_count": 6,
            "expert_used_count": 2,
            "expert_feed_forward_length": 40,
        },
        tied=False,
        biases=(
            *("attn_q", "attn_k", "attn_v", "attn_output"),
            *("ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"),
        ),
        experts=6,
        expert_ffn=40,
        expert_peak=4.0,
        sinks=True,
        ffn_norm="post_attention_norm",
    ),
    "phi3 long": Family(
        "phi3",
        PHI3 | {"rope.scaling.original_context_length": 64, "rope.scaling.type": "longrope"},
        fused_qkv=True,
        fused_ffn=True,
        tied=False,
        factors=LONG,
    ),
    "phi3 short": Family(
        "phi3",
        PHI3 | {"rope.scaling.original_context_length": 256, "rope.scaling.type": "longrope"} | WINDOW,
        fused_qkv=True,
        fused_ffn=True,
        tied=False,
        factors=LONG,
    ),
    "gemma2": Family(
        "gemma2",
        WINDOW | {"attn_logit_softcapping": 6.0, "final_logit_softcapping": 3.0},
        norms_behind=True,
    ),
    "olmo2": Family("olmo2", norms_before=False, norms_behind=True, head_norms=WIDE, tied=False),
    "olmo3": Family(
        "olmo2",
        YARN | WINDOW | {"attention.sliding_window_pattern": [True, True, False, True]},
        norms_before=False,
        norms_behind=True,
        head_norms=WIDE,
        tied=False,
    ),
    "glm4": Family(
        "glm4",
        {"rope.dimension_count": 8},
        norms_behind=True,
        fused_ffn=True,
        tied=False,
        biases=("attn_q", "attn_k", "attn_v"),
    ),
    "starcoder2": Family(
        "starcoder2",
        WINDOW | {"attention.layer_norm_epsilon": 1e-5, "attention.layer_norm_rms_epsilon": None},
        layer_norm=True,
        gated=False,
        biases=("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"),
    ),
    "exaone": Family("exaone", tied=False, factors={"rope_freqs.weight": tuple(np.linspace(1, 8, 8).tolist())}),
    "internlm2": Family("internlm2", tied=False),
    "lfm2": Family(
        "lfm2",
        {"rope.freq_base": 1e6, "shortconv.l_cache": 3, "attention.key_length": None, "attention.value_length": None},
        head_norms=HEAD_DIM,
        kv_heads=(0, 0, KV_HEADS, 0),
        taps=3,
        output_norm="token_embd_norm",
    ),
    "lfm2, taps of 4 with biases": Family(
        "lfm2",
        {"rope.freq_base": 1e4, "shortconv.l_cache": 4},
        head_norms=HEAD_DIM,
        kv_heads=(KV_HEADS, 0, 0, KV_HEADS),
        taps=4,
        biases=("conv", "in_proj", "out_proj"),
        output_norm="token_embd_norm",
        seed=13,
    ),
    "qwen35": Family(
        "qwen35",
        QWEN35 | {"rope.dimension_sections": [2, 1, 1, 0]},
        head_norms=HEAD_DIM,
        taps=4,
        delta=(2, 4, 16, 16),
        ffn_norm="post_attention_norm",
        seed=15,
    ),
    "qwen35, taps of 3, other heads": Family(
        "qwen35",
        {
            "rope.freq_base": 1e4,
            "rope.dimension_sections": [3, 3, 2, 0],
            "full_attention_interval": 2,
            "ssm.conv_kernel": 3,
            "ssm.state_size": 12,
            "ssm.group_count": 3,
            "ssm.time_step_rank": 9,
            "ssm.inner_size": 180,
        },
        head_norms=HEAD_DIM,
        tied=False,
        taps=3,
        delta=(3, 9, 12, 20),
        ffn_norm="post_attention_norm",
        seed=16,
    ),
    "qwen35moe": Family(
        "qwen35moe",
        QWEN35
        | {
            "rope.dimension_sections": [2, 1, 1, 0],
            "feed_forward_length": None,
            "expert_count": 6,
            "expert_used_count": 3,
            "expert_feed_forward_length": 40,
            "expert_shared_feed_forward_length": 56,
        },
        head_norms=HEAD_DIM,
        tied=False,
        taps=4,
        delta=(2, 4, 16, 16),
        experts=6,
        expert_ffn=40,
        shared_ffn=56,
        shared_gate=True,
        ffn_norm="post_attention_norm",
        seed=17,
    ),
    "lfm2moe": Family(
        "lfm2moe",
        {
            "rope.freq_base": 1e6,
            "shortconv.l_cache": 3,
            "leading_dense_block_count": 1,
            "expert_count": 6,
            "expert_used_count": 3,
            "expert_feed_forward_length": 40,
            "expert_gating_func": 2,
        },
        head_norms=HEAD_DIM,
        kv_heads=(0, KV_HEADS, 0, 0),
        taps=3,
        experts=6,
        expert_ffn=40,
        dense=1,
        expert_bias=True,
        output_norm="token_embd_norm",
        seed=14,
    ),
}


def recurrent(family: Family, layer: int) -> bool:
    """Whether the layer keeps a state in place of K and V."""
    if family.delta:
        return (layer + 1) % int(family.keys.get("full_attention_interval", 4)) != 0
    return bool(family.kv_heads) and family.kv_heads[layer] == 0


def state_bytes(family: Family) -> int:
    """Of all layers that keep one."""
    layers = sum(recurrent(family, layer) for layer in range(LAYERS))
    if not family.delta:
        return 4 * layers * (family.taps - 1) * HIDDEN
    k_heads, v_heads, head_k, head_v = family.delta
    values = v_heads * head_v
    return 4 * layers * ((family.taps - 1) * (2 * k_heads * head_k + values) + values * head_k)


def metadata_of(family: Family) -> dict[str, Any]:
    """Full names and values, without the tokenizer's."""
    keys: dict[str, Any] = {
        "context_length": CONTEXT,
        "embedding_length": HIDDEN,
        "block_count": LAYERS,
        "feed_forward_length": FFN,
        "attention.head_count": HEADS,
        "attention.head_count_kv": list(family.kv_heads) or KV_HEADS,
        "attention.key_length": family.head_dim,
        "attention.value_length": family.head_dim,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": family.head_dim,
        "rope.freq_base": 10000.0,
    }
    return {f"{family.arch}.{key}": value for key, value in (keys | dict(family.keys)).items() if value is not None}


def tensors_of(family: Family, vocab_size: int = synthetic.VOCAB) -> dict[str, Array]:
    """Name -> values, rows x cols as the file has them, and of experts a matrix each."""
    random = np.random.default_rng(family.seed)
    tensors: dict[str, Array] = {}

    def matrix(name: str, rows: int, cols: int, scale: float = 1.0) -> None:
        tensors[f"{name}.weight"] = (random.standard_normal((rows, cols)) * scale / np.sqrt(cols)).astype(np.float32)
        if name.rpartition(".")[2] in family.biases:
            tensors[f"{name}.bias"] = (0.3 * random.standard_normal(rows)).astype(np.float32)

    def experts(name: str, rows: int, cols: int, scale: float = 1.0) -> None:
        shape = (family.experts, rows, cols)
        tensors[f"{name}.weight"] = (random.standard_normal(shape) * scale / np.sqrt(cols)).astype(np.float32)
        if name.rpartition(".")[2] in family.biases:
            tensors[f"{name}.bias"] = (0.3 * random.standard_normal(shape[:2])).astype(np.float32)

    def norm(name: str, size: int, about: float = 1.0) -> None:
        tensors[f"{name}.weight"] = (about * (1 + 0.2 * random.standard_normal(size))).astype(np.float32)
        if family.layer_norm:
            tensors[f"{name}.bias"] = (0.2 * random.standard_normal(size)).astype(np.float32)

    def delta_net(at: str) -> None:
        """Decays from e^-0.05 to e^-2 where a row says nothing else."""
        k_heads, v_heads, head_k, head_v = family.delta
        values = v_heads * head_v
        channels = 2 * k_heads * head_k + values
        matrix(at + "attn_qkv", channels, HIDDEN, 1.5)
        matrix(at + "attn_gate", values, HIDDEN, 1.5)
        matrix(at + "ssm_beta", v_heads, HIDDEN, 2.0)
        matrix(at + "ssm_alpha", v_heads, HIDDEN, 1.5)
        matrix(at + "ssm_conv1d", channels, family.taps, 1.5)
        tensors[at + "ssm_a"] = -np.exp(random.uniform(np.log(0.05), np.log(2), v_heads)).astype(np.float32)
        tensors[at + "ssm_dt.bias"] = (0.5 * random.standard_normal(v_heads)).astype(np.float32)
        norm(at + "ssm_norm", head_v)
        matrix(at + "ssm_out", HIDDEN, values)

    q, kv = HEADS * family.head_dim, KV_HEADS * family.head_dim
    matrix("token_embd", vocab_size, HIDDEN, math.sqrt(HIDDEN) / 4)
    for name, values in family.factors.items():
        tensors[name] = np.asarray(values, np.float32)
    for layer in range(LAYERS):
        at = f"blk.{layer}."
        if family.norms_before:
            norm(at + "attn_norm", HIDDEN)
        peak = 1.0 if family.head_norms else family.peak
        convolves = recurrent(family, layer)
        if convolves and family.delta:
            delta_net(at)
        elif convolves:
            matrix(at + "shortconv.in_proj", 3 * HIDDEN, HIDDEN, 1.5)
            matrix(at + "shortconv.conv", HIDDEN, family.taps, 1.5)
            matrix(at + "shortconv.out_proj", HIDDEN, HIDDEN)
        elif family.fused_qkv:
            matrix(at + "attn_qkv", q + 2 * kv, HIDDEN)
            tensors[at + "attn_qkv.weight"][: q + kv] *= peak
        else:
            matrix(at + "attn_q", q * (2 if family.delta else 1), HIDDEN, peak)
            matrix(at + "attn_k", kv, HIDDEN, peak)
            matrix(at + "attn_v", kv, HIDDEN)
        if family.head_norms and not convolves:
            norm(at + "attn_q_norm", family.head_norms, family.peak)
            norm(at + "attn_k_norm", min(family.head_norms, kv), family.peak)
        if not convolves:
            matrix(at + "attn_output", HIDDEN, q)
        if family.sinks:
            tensors[at + "attn_sinks.weight"] = (2 + random.standard_normal(HEADS)).astype(np.float32)
        if family.norms_behind:
            norm(at + "post_attention_norm", HIDDEN)
        if family.norms_before:
            norm(at + family.ffn_norm, HIDDEN)
        if family.experts and layer >= family.dense:
            if family.expert_bias:
                tensors[at + "exp_probs_b.bias"] = (0.3 * random.standard_normal(family.experts)).astype(np.float32)
            matrix(at + "ffn_gate_inp", family.experts, HIDDEN, family.peak)
            experts(at + "ffn_gate_exps", family.expert_ffn, HIDDEN, family.expert_peak)
            experts(at + "ffn_up_exps", family.expert_ffn, HIDDEN, family.expert_peak)
            experts(at + "ffn_down_exps", HIDDEN, family.expert_ffn)
            if family.shared_ffn:
                matrix(at + "ffn_gate_shexp", family.shared_ffn, HIDDEN)
                matrix(at + "ffn_up_shexp", family.shared_ffn, HIDDEN)
                matrix(at + "ffn_down_shexp", HIDDEN, family.shared_ffn)
            if family.shared_gate:
                matrix(at + "ffn_gate_inp_shexp", 1, HIDDEN, 2.0)
                tensors[at + "ffn_gate_inp_shexp.weight"] = tensors[at + "ffn_gate_inp_shexp.weight"][0]
        else:
            if family.gated and not family.fused_ffn:
                matrix(at + "ffn_gate", FFN, HIDDEN)
            matrix(at + "ffn_up", FFN * (2 if family.fused_ffn else 1), HIDDEN)
            matrix(at + "ffn_down", HIDDEN, FFN)
        if family.norms_behind:
            norm(at + "post_ffw_norm", HIDDEN)
    norm(family.output_norm, HIDDEN)
    if not family.tied:
        matrix("output", vocab_size, HIDDEN)
    elif "output" in family.biases:
        tensors["output.bias"] = (0.5 * random.standard_normal(vocab_size)).astype(np.float32)
    return tensors


def write(
    path: Path,
    family: Family,
    keys: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Array | None] | None = None,
    tokenizer: Mapping[str, Any] | None = None,
    around: tuple[bool, bool] = (False, False),
) -> Path:
    """The file, with these keys (without the architecture's name) and tensors in place of its own; None: without.

    ``tokenizer`` is metadata in place of the bytes' vocabulary, which puts BOS and EOS ``around`` a text.
    """
    writer = synthetic.Writer(str(path), family.arch)
    metadata = metadata_of(family) | {f"{family.arch}.{key}": value for key, value in (keys or {}).items()}
    synthetic.add_metadata(writer, metadata | dict(tokenizer or {}))
    if tokenizer is None:
        synthetic.add_byte_tokenizer(writer, around=around)
    vocab_size = synthetic.VOCAB if tokenizer is None else len(tokenizer["tokenizer.ggml.tokens"])
    for name, values in (tensors_of(family, vocab_size) | dict(tensors or {})).items():
        if values is not None:
            writer.add_tensor(name, values.astype(np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return path
