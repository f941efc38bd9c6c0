"""LFM2 and LFM2.5 (arXiv:2511.23404): most layers are short convolutions, whose gates are made of the same row, and the
others attention with a norm on each head of Q and K. The mixture of experts has dense networks in its first layers and,
behind them, a router by sigmoid, whose choice a bias moves.

short convolution:  b, c, x = W_in y;  W_out (c * conv(b * x)),  conv: of each channel, over its last few values
for each layer:  x = x + operator(rms_norm(x));  x = x + ffn(rms_norm(x))

Keys as llama.cpp's converter writes them: ``attention.head_count_kv`` is 0 for layers that convolve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from foundry._core import Graph
from foundry.errors import ModelFormatError
from foundry.models import windows
from foundry.models.decoder import Emitter, Layer
from foundry.models.experts import Experts, mixture
from foundry.models.header import Header
from foundry.models.hyperparameters import Hyperparameters
from foundry.models.naming import KEYS_OF_EXPERTS, Made, Naming, attending, of_experts, whole_number
from foundry.models.rope import HALF_ROTATED, read_rope

MOST_TAPS = 8  # as the graph has them


def convolution(layer: Layer, y: int, taps: int, number: int) -> int:
    """The short convolution of a layer, ``number`` of those that convolve, projected back to the hidden state."""
    hidden, graph, name = layer.hp.hidden_size, layer.graph, f"{layer.prefix}.shortconv.conv"
    gated = layer.linear(y, "shortconv.in_proj", 3 * hidden, hidden)
    weight = graph.weight(f"{name}.weight", hidden, taps)
    bias = layer.emitter.optional_vector(f"{name}.bias", hidden)
    mixed = graph.short_conv(gated, number, True, weight, bias, f"{layer.at} short_conv")
    return layer.linear(mixed, "shortconv.out_proj", hidden, hidden)


ADJUSTING = ("block_auto_adjust_ff_dim", "block_ffn_dim_multiplier", "block_multiple_of")
# How the first of these models were trained, or what other keys say again.
UNREAD = (
    *("block_dim", "block_mlp_init_scale", "block_norm_eps", "block_out_init_scale", "block_use_swiglu"),
    *("block_use_xavier_init", "conv_dim", "conv_dim_out", "conv_use_xavier_init"),
)


def computed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of config.json: which layers attend, and how wide the dense networks are."""

    layers, attends = whole_number(config, "num_hidden_layers", 1 << 16), attending(config, "conv")
    if attends is None and isinstance(which := config.get("full_attn_idxs"), list):
        attends = [number in which for number in range(layers)]
    heads = config.get("num_key_value_heads")
    keys: dict[str, Any] = {"attention.head_count_kv": [heads if one else 0 for one in attends or [True] * layers]}
    if config.get("block_auto_adjust_ff_dim", False):
        given = "block_ff_dim" if config.get("block_ff_dim") is not None else "intermediate_size"
        width = 2 * whole_number(config, given) // 3
        if (times := config.get("block_ffn_dim_multiplier")) is not None:
            if isinstance(times, bool) or not isinstance(times, int | float) or not 0 < times < 1e3:
                raise ModelFormatError(
                    f"config.json: block_ffn_dim_multiplier: expected a number above 0, found {times!r}"
                )
            multiple = whole_number(config, "block_multiple_of")
            width = -(-int(times * width) // multiple) * multiple
        keys["feed_forward_length"] = width
    return keys


class Lfm2:
    hub = Naming(
        ("lfm2",),
        keys={
            "norm_eps": "attention.layer_norm_rms_epsilon",
            "conv_L_cache": "shortconv.l_cache",
            "block_ff_dim": "feed_forward_length",
        },
        defaults={
            "rope_theta": 1e6,
            "norm_eps": 1e-5,
            "conv_L_cache": 3,
            "block_auto_adjust_ff_dim": True,
            "block_ffn_dim_multiplier": 1.0,
            "block_multiple_of": 256,
        },
        once={"embedding_norm": "token_embd_norm"},
        layer={
            "operator_norm": "attn_norm",
            "ffn_norm": "ffn_norm",
            "self_attn.out_proj": "attn_output",
            "self_attn.q_layernorm": "attn_q_norm",
            "self_attn.k_layernorm": "attn_k_norm",
            "conv.in_proj": "shortconv.in_proj",
            "conv.conv": "shortconv.conv",
            "conv.out_proj": "shortconv.out_proj",
            "feed_forward.w1": "ffn_gate",
            "feed_forward.w3": "ffn_up",
            "feed_forward.w2": "ffn_down",
        },
        tied=True,
        computed=computed,
        other_layers="conv",
        harmless=("full_attn_idxs", "conv_bias", "num_heads", "theta", "use_pos_enc", *ADJUSTING, *UNREAD),
    )

    def __init__(self, header: Header) -> None:
        self.header = header
        kv_heads = header.each_layer("attention.head_count_kv")
        self.attends = [heads != 0 for heads in kv_heads]
        found = sorted(set(kv_heads) - {0})
        if len(found) != 1:
            raise ModelFormatError(
                f"{header.architecture}.attention.head_count_kv: expected one number for all layers that attend, and at"
                f" least one of them, found {found}"
            )
        self.hp = Hyperparameters.read(header, n_kv_heads=found[0])
        self.rope = read_rope(header, self.hp, HALF_ROTATED)
        self.taps = header.integer("shortconv.l_cache", least=2, most=MOST_TAPS + 1)
        self.attention_scale = 1 / math.sqrt(self.hp.head_dim)
        header.expect("attention.sliding_window", 0)
        header.expect("hidden_activation", "silu")
        header.ignore(*windows.KEYS)

    def ffn(self, layer: Layer, number: int, y: int) -> int:
        return layer.swiglu(y)

    def build(self, graph: Graph) -> None:
        hp = self.hp
        emit = Emitter(graph, self.header, hp, [0 if attends else None for attends in self.attends])
        convolves = self.attends.count(False)
        if convolves:
            graph.set_recurrent(convolves, [(self.taps - 1) * hp.hidden_size])
        x = emit.embed()
        for number, attends in enumerate(self.attends):
            layer = emit.layer(number)
            y = layer.norm(x, "attn_norm")
            if attends:
                q, k, v = layer.qkv(y)
                q, k = layer.rope(*layer.norm_heads(q, k), self.rope)
                x = layer.add(x, layer.attention(q, k, v, self.attention_scale), "attention")
            else:
                mixed = convolution(layer, y, self.taps, self.attends[:number].count(False))
                x = layer.add(x, mixed, "convolution")
            x = layer.add(x, self.ffn(layer, number, layer.norm(x, "ffn_norm")), "ffn")
        norm = "token_embd_norm" if "token_embd_norm.weight" in self.header.tensors else "output_norm"
        emit.head(x, norm=norm)


class Lfm2Moe(Lfm2):
    hub = replace(
        Lfm2.hub,
        types=("lfm2_moe",),
        keys={
            **Lfm2.hub.keys,
            **KEYS_OF_EXPERTS,
            "num_dense_layers": "leading_dense_block_count",
            "norm_topk_prob": "expert_weights_norm",
            "routed_scaling_factor": "expert_weights_scale",
        },
        defaults={"rope_theta": 1e6, "norm_eps": 1e-5, "conv_L_cache": 3, "num_dense_layers": 2},
        layer={**Lfm2.hub.layer, "feed_forward.gate": "ffn_gate_inp"},
        made=(
            *of_experts("feed_forward.experts", "w1", "w3", "w2"),
            Made("feed_forward.expert_bias", "exp_probs_b.bias"),
        ),
        constant={"expert_gating_func": 2},
        harmless=(*Lfm2.hub.harmless, "use_expert_bias"),
    )

    def __init__(self, header: Header) -> None:
        super().__init__(header)
        self.dense = header.integer("leading_dense_block_count", 0, least=0)
        self.experts = Experts.read(header, self.hp, leads=True, biased=True)

    def ffn(self, layer: Layer, number: int, y: int) -> int:
        return layer.swiglu(y) if number < self.dense else mixture(layer, y, self.experts)
