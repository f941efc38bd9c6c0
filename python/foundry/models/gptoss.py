"""gpt-oss (OpenAI, arXiv:2508.10925): mixtures of experts with a clamped gate; every other layer, the first among them,
sees a sliding window; each head has a sink, a score that takes weight from all others and gives nothing.

for each layer:  x = x + attention(rms_norm(x));  x = x + ffn(rms_norm(x)),
                 weights of attention = softmax of (scores, sink), without the sink's
ffn(y) = sum over the chosen e of weight_e (W_down_e (g / (1 + e^(-1.702 g)) * (u + 1)) + b_down_e),
         g = min(W_gate_e y + b_gate_e, 7), u = W_up_e y + b_up_e within -7 .. 7;
         weights = softmax of the chosen's scores alone

Q, K, V, the projection behind them and the router have biases. YaRN's ramp is not rounded to whole pairs.
"""

from __future__ import annotations

import math

from foundry._core import Graph
from foundry.models.decoder import Emitter
from foundry.models.experts import Experts, mixture
from foundry.models.header import Header
from foundry.models.hyperparameters import Hyperparameters
from foundry.models.naming import Made, Naming, even, odd
from foundry.models.rope import HALF_ROTATED, read_rope
from foundry.models.windows import expect_windows_like_the_rest, read_windows

GATE_UP, DOWN = "mlp.experts.gate_up_proj", "mlp.experts.down_proj"
ALPHA, LIMIT = 1.702, 7.0  # of the gate; files do not say


class GptOss:
    # There a matrix of an expert is [inputs, outputs], in MXFP4 [outputs, inputs], and gate and up take turns among the
    # outputs.
    hub = Naming(
        ("gpt_oss",),
        keys={
            "num_local_experts": "expert_count",
            "num_experts_per_tok": "expert_used_count",
            "intermediate_size": "expert_feed_forward_length",
            "swiglu_limit": "swiglu_clamp_exp",
        },
        defaults={"rope_theta": 150000.0, "head_dim": 64},
        layer={"mlp.router": "ffn_gate_inp", "post_attention_layernorm": "post_attention_norm"},
        made=(
            Made("self_attn.sinks", "attn_sinks.weight"),
            Made(GATE_UP, "ffn_gate_exps.weight", rows=even, stacked=True, transposed=True),
            Made(GATE_UP, "ffn_up_exps.weight", rows=odd, stacked=True, transposed=True),
            Made(DOWN, "ffn_down_exps.weight", stacked=True, transposed=True),
            Made(f"{GATE_UP}_blocks", "ffn_gate_exps.weight", rows=even, stacked=True, scales=f"{GATE_UP}_scales"),
            Made(f"{GATE_UP}_blocks", "ffn_up_exps.weight", rows=odd, stacked=True, scales=f"{GATE_UP}_scales"),
            Made(f"{DOWN}_blocks", "ffn_down_exps.weight", stacked=True, scales=f"{DOWN}_scales"),
            Made(f"{GATE_UP}_bias", "ffn_gate_exps.bias", cols=even),
            Made(f"{GATE_UP}_bias", "ffn_up_exps.bias", cols=odd),
            Made(f"{DOWN}_bias", "ffn_down_exps.bias"),
        ),
        quantised="mxfp4",
        whole_pairs=False,
        harmless=("experts_per_token", "initial_context_length"),
    )

    def __init__(self, header: Header) -> None:
        self.header, self.hp = header, Hyperparameters.read(header, ffn_size=1)  # of layers without experts: none
        self.windows = read_windows(header, self.hp, every=2)
        self.rope = read_rope(header, self.hp, HALF_ROTATED, base=150000.0, whole_pairs=False)
        self.experts = Experts.read(header, self.hp)
        header.expect("attention.scale", 0, 1 / math.sqrt(self.hp.head_dim))
        header.expect("rope.freq_base_swa", self.rope.base)
        header.expect("swiglu_clamp_exp", 0, LIMIT)
        header.expect("hidden_activation", "silu")
        expect_windows_like_the_rest(header, self.hp, self.rope)

    def build(self, graph: Graph) -> None:
        hp = self.hp

        def gate(g: int, u: int, name: str) -> int:
            return graph.swiglu_clamped(g, u, ALPHA, LIMIT, name)

        emit = Emitter(graph, self.header, hp, self.windows)
        x = emit.embed()
        for number in range(hp.n_layers):
            layer = emit.layer(number)
            q, k, v = layer.qkv(layer.norm(x, "attn_norm"))
            q, k = layer.rope(q, k, self.rope)
            sinks = graph.weight(f"{layer.prefix}.attn_sinks.weight", 1, hp.n_heads)
            x = layer.add(x, layer.attention(q, k, v, 1 / math.sqrt(hp.head_dim), sinks=sinks), "attention")
            x = layer.add(x, mixture(layer, layer.norm(x, "post_attention_norm"), self.experts, gate), "ffn")
        emit.head(x)
