"""Qwen3.5 and 3.6: three of four layers are gated delta nets (arXiv:2412.06464), which keep a matrix for each head and
a short convolution's last values, and the others attention whose output a gate by sigmoid lets through. The mixture of
experts has a shared expert beside them, behind such a gate too.

gated delta net:  q, k, v = silu(conv(W_qkv y));  o = delta rule of q, k and v, its decay and step made of y
                  W_out (rms_norm(o) * silu(W_z y))
attention:        q, gate = W_q y, by heads;  W_o (attention(rope(rms_norm(q)), rope(rms_norm(k)), v) * sigmoid(gate))
for each layer:   x = x + operator(rms_norm(x));  x = x + ffn(rms_norm(x))

Keys and tensors as llama.cpp's converter writes them (conversion/qwen.py, 2026-11): heads of V go with those of Q and K
in turns, ``ssm_a`` is -e^A_log, norms' scales have their 1. Layers behind the others, which draft tokens
(``nextn_predict_layers``), are not run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from foundry._core import Graph
from foundry.errors import ModelFormatError
from foundry.models import windows
from foundry.models.decoder import NO_WEIGHT, Emitter, Layer
from foundry.models.experts import Experts, mixture
from foundry.models.header import Header
from foundry.models.hyperparameters import Hyperparameters
from foundry.models.naming import KEYS_OF_EXPERTS, Made, Naming, attending, of_experts, whole_number
from foundry.models.rope import HALF_ROTATED, read_rope

MOST_TAPS, MOST_DIM = 8, 256  # as the graph has them
MOST_HEADS = 1 << 12
INTERVAL = 4  # each so many layers one attends
LENGTH_EPS = 1e-6  # under the root of the lengths of q and k


DRAFTING = ("mtp_num_hidden_layers", "mtp_use_dedicated_embeddings")


def in_turns(n: int, config: Mapping[str, Any]) -> Sequence[int]:
    """Heads of V that share one of Q and K stand side by side there, and here in turns with those of the others."""
    k_heads, v_heads = _heads(config)
    size = n // v_heads
    if n != v_heads * size:
        raise ModelFormatError(f"config.json: linear_num_value_heads: expected a divisor of {n}, found {v_heads}")
    each = v_heads // k_heads
    return [(k * each + v) * size + i for v in range(each) for k in range(k_heads) for i in range(size)]


def behind_keys(n: int, config: Mapping[str, Any]) -> Sequence[int]:
    """The same where heads of Q and K stand before them."""
    n_keys = 2 * _heads(config)[0] * whole_number(config, "linear_key_head_dim", MOST_DIM)
    return [*range(min(n, n_keys)), *(n_keys + one for one in in_turns(max(n - n_keys, 0), config))]


def _heads(config: Mapping[str, Any]) -> tuple[int, int]:
    k_heads = whole_number(config, "linear_num_key_heads", MOST_HEADS)
    v_heads = whole_number(config, "linear_num_value_heads", MOST_HEADS)
    if v_heads % k_heads:
        raise ModelFormatError(
            f"config.json: linear_num_value_heads: expected a multiple of the {k_heads} heads of Q and K, found"
            f" {v_heads}"
        )
    return k_heads, v_heads


def computed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of config.json: the values of all heads of V together, and which layers attend."""
    values = _heads(config)[1] * whole_number(config, "linear_value_head_dim", MOST_DIM)
    keys: dict[str, Any] = {"ssm.inner_size": values}
    if (attends := attending(config, "linear_attention")) is not None:
        keys["attention.recurrent_layers"] = [not one for one in attends]
    return keys


class Delta:
    """The sizes of the gated delta nets.

    Attributes:
        taps: of the convolution.
        k_heads, v_heads: of q and k, and of v.
        head_k, head_v: values of one.
    """

    def __init__(self, header: Header) -> None:
        name = header.architecture
        self.taps = header.integer("ssm.conv_kernel", least=2, most=MOST_TAPS + 1)
        self.k_heads = header.integer("ssm.group_count", most=MOST_HEADS + 1)
        self.v_heads = header.integer("ssm.time_step_rank", most=MOST_HEADS + 1)
        self.head_k = header.integer("ssm.state_size", most=MOST_DIM + 1)
        values = header.integer("ssm.inner_size", most=MOST_HEADS * MOST_DIM + 1)
        if self.v_heads % self.k_heads:
            raise ModelFormatError(
                f"{name}.ssm.time_step_rank: expected a multiple of the {self.k_heads} heads of Q and K"
                f" (ssm.group_count), found {self.v_heads}"
            )
        if values % self.v_heads or values // self.v_heads > MOST_DIM:
            raise ModelFormatError(
                f"{name}.ssm.inner_size: expected {self.v_heads} heads (ssm.time_step_rank) of 1 to {MOST_DIM} values"
                f" each, found {values}"
            )
        self.head_v = values // self.v_heads

    @property
    def values(self) -> int:
        return self.v_heads * self.head_v

    @property
    def channels(self) -> int:
        """Of the convolution: q, k and v of all heads."""
        return 2 * self.k_heads * self.head_k + self.values

    @property
    def parts(self) -> list[int]:
        """Values that a layer keeps: of the convolution, and of the matrices."""
        return [(self.taps - 1) * self.channels, self.values * self.head_k]

    def emit(self, layer: Layer, y: int, number: int) -> int:
        """The delta net of a layer, ``number`` of those that have one, projected back to the hidden state."""
        graph, hidden, at, prefix = layer.graph, layer.hp.hidden_size, layer.at, layer.prefix
        mixed = layer.linear(y, "attn_qkv", self.channels, hidden)
        z = layer.linear(y, "attn_gate", self.values, hidden)
        beta = layer.linear(y, "ssm_beta", self.v_heads, hidden)
        alpha = layer.linear(y, "ssm_alpha", self.v_heads, hidden)
        taps = graph.weight(f"{prefix}.ssm_conv1d.weight", self.channels, self.taps)
        mixed = graph.short_conv(mixed, number, False, taps, NO_WEIGHT, f"{at} short_conv", part=0, silu=True)
        out = graph.gated_delta(
            mixed,
            alpha,
            beta,
            z,
            number,
            1,
            self.k_heads,
            self.v_heads,
            self.head_k,
            self.head_v,
            graph.weight(f"{prefix}.ssm_a", 1, self.v_heads),
            graph.weight(f"{prefix}.ssm_dt.bias", 1, self.v_heads),
            graph.weight(f"{prefix}.ssm_norm.weight", 1, self.head_v),
            layer.hp.norm_eps,
            LENGTH_EPS,
            f"{at} gated_delta",
        )
        return layer.linear(out, "ssm_out", hidden, self.values)


class Qwen35:
    hub = Naming(
        ("qwen3_5_text", "qwen3_5"),
        keys={
            "linear_conv_kernel_dim": "ssm.conv_kernel",
            "linear_num_key_heads": "ssm.group_count",
            "linear_num_value_heads": "ssm.time_step_rank",
            "linear_key_head_dim": "ssm.state_size",
            "full_attention_interval": "full_attention_interval",
        },
        defaults={
            "head_dim": 256,
            "partial_rotary_factor": 0.25,
            "linear_conv_kernel_dim": 4,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 32,
            "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
        },
        layer={
            "post_attention_layernorm": "post_attention_norm",
            "linear_attn.norm": "ssm_norm",
        },
        made=(
            Made("linear_attn.in_proj_qkv.weight", "attn_qkv.weight", rows=behind_keys),
            Made("linear_attn.in_proj_z.weight", "attn_gate.weight", rows=in_turns),
            Made("linear_attn.in_proj_b.weight", "ssm_beta.weight", rows=in_turns),
            Made("linear_attn.in_proj_a.weight", "ssm_alpha.weight", rows=in_turns),
            Made("linear_attn.conv1d.weight", "ssm_conv1d.weight", rows=behind_keys),
            Made("linear_attn.A_log", "ssm_a", cols=in_turns, minus_exp=True),
            Made("linear_attn.dt_bias", "ssm_dt.bias", cols=in_turns),
            Made("linear_attn.out_proj.weight", "ssm_out.weight", cols=in_turns),
        ),
        norms_less_one=True,
        norms_whole=("ssm_norm",),
        left_out=r"^mtp\.",  # layers that draft tokens
        computed=computed,
        other_layers="linear_attention",
        harmless=("linear_value_head_dim", "mamba_ssm_dtype", *DRAFTING),
    )
    ffn_size: int | None = None  # where the file does not say

    def __init__(self, header: Header) -> None:
        self.header = header
        hp = Hyperparameters.read(header, ffn_size=self.ffn_size)
        attends = self._attends(header, hp.n_layers)
        drafts = header.integer("nextn_predict_layers", 0, least=0, most=hp.n_layers)
        self.attends = attends[: hp.n_layers - drafts]
        self.hp = replace(hp, n_layers=len(self.attends))
        if not any(self.attends):
            raise ModelFormatError(
                f"{header.architecture}.full_attention_interval: expected a layer that attends among the first"
                f" {self.hp.n_layers}, found none"
            )
        layers = re.compile(r"blk\.(\d+)\.")
        for name in header.tensors if drafts else ():
            found = layers.match(name)
            if found and self.hp.n_layers <= int(found[1]) < hp.n_layers:
                header.tensors_left.add(name)
        self.delta = Delta(header)
        self.rope = read_rope(header, self.hp, HALF_ROTATED)
        # Sections of time, height and width, whose positions are all the same where there is text alone.
        header.ignore("rope.dimension_sections")
        header.expect("attention.sliding_window", 0)
        header.expect("hidden_activation", "silu")
        header.ignore(*windows.KEYS)

    @staticmethod
    def _attends(header: Header, n_layers: int) -> list[bool]:
        interval = header.integer("full_attention_interval", INTERVAL)
        each = [(layer + 1) % interval != 0 for layer in range(n_layers)]
        return [not recurrent for recurrent in header.flags("attention.recurrent_layers", each)]

    def ffn(self, layer: Layer, y: int) -> int:
        return layer.swiglu(y)

    def attention(self, layer: Layer, y: int) -> int:
        hp, graph = self.hp, layer.graph
        heads, dim = hp.n_heads, hp.head_dim
        joint = layer.linear(y, "attn_q", 2 * heads * dim, hp.hidden_size)
        q = graph.resize_heads(joint, heads, 2 * dim, dim, f"{layer.at} q of q and gate")
        k, v = (layer.linear(y, name, hp.n_kv_heads * dim, hp.hidden_size) for name in ("attn_k", "attn_v"))
        q, k = layer.rope(*layer.norm_heads(q, k), self.rope)
        return layer.attention(q, k, v, dim**-0.5, gate=joint)

    def build(self, graph: Graph) -> None:
        emit = Emitter(graph, self.header, self.hp, [0 if attends else None for attends in self.attends])
        if not all(self.attends):
            graph.set_recurrent(self.attends.count(False), self.delta.parts)
        x = emit.embed()
        for number, attends in enumerate(self.attends):
            layer = emit.layer(number)
            y = layer.norm(x, "attn_norm")
            if attends:
                x = layer.add(x, self.attention(layer, y), "attention")
            else:
                x = layer.add(x, self.delta.emit(layer, y, self.attends[:number].count(False)), "delta net")
            x = layer.add(x, self.ffn(layer, layer.norm(x, "post_attention_norm")), "ffn")
        emit.head(x)


class Qwen35Moe(Qwen35):
    hub = replace(
        Qwen35.hub,
        types=("qwen3_5_moe_text", "qwen3_5_moe"),
        keys={
            **Qwen35.hub.keys,
            **KEYS_OF_EXPERTS,
            "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
        },
        layer={
            **Qwen35.hub.layer,
            "mlp.gate": "ffn_gate_inp",
            "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
            "mlp.shared_expert.up_proj": "ffn_up_shexp",
            "mlp.shared_expert.down_proj": "ffn_down_shexp",
            "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
        },
        made=(*Qwen35.hub.made, *of_experts("mlp.experts")),
    )
    ffn_size = 1  # of layers without experts, of which there are none

    def __init__(self, header: Header) -> None:
        super().__init__(header)
        self.experts = Experts.read(header, self.hp, shares=True)

    def ffn(self, layer: Layer, y: int) -> int:
        return mixture(layer, y, self.experts)
