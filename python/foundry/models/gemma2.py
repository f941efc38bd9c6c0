"""Gemma 2 (arXiv:2408.00118): every other layer sees a sliding window; scores of attention and logits are bent below a
cap; norms before and after attention and ffn.

x = sqrt(hidden_size) embed(tokens)
for each layer:  x = x + rms_norm(attention(rms_norm(x)));  x = x + rms_norm(ffn(rms_norm(x))),
                 ffn(y) = W_down (gelu(W_gate y) * W_up y);  scores = cap tanh(q k / (sqrt(query_size) cap))
logits = cap tanh(W_embed rms_norm(x) / cap)

GGUF holds the norms' scales as 1 + w.
"""

from __future__ import annotations

import math

from foundry._core import Graph
from foundry.models.decoder import Emitter
from foundry.models.header import Header
from foundry.models.hyperparameters import Hyperparameters
from foundry.models.naming import Naming
from foundry.models.rope import HALF_ROTATED, read_rope
from foundry.models.windows import expect_windows_like_the_rest, read_windows

LAYERS_27B = 46  # its queries are scaled by hidden_size / n_heads, and the file does not say so


class Gemma2:
    hub = Naming(
        ("gemma2",),
        keys={
            "attn_logit_softcapping": "attn_logit_softcapping",
            "final_logit_softcapping": "final_logit_softcapping",
        },
        defaults={"hidden_act": "gelu_pytorch_tanh", "head_dim": 256, "query_pre_attn_scalar": 256},
        layer={
            "post_attention_layernorm": "post_attention_norm",
            "pre_feedforward_layernorm": "ffn_norm",
            "post_feedforward_layernorm": "post_ffw_norm",
        },
        tied=True,
        norms_less_one=True,
    )

    def __init__(self, header: Header) -> None:
        self.header, self.hp = header, Hyperparameters.read(header)
        hp = self.hp
        self.windows = read_windows(header, hp, every=2, window=4096)
        self.rope = read_rope(header, hp, HALF_ROTATED)
        self.embedding_scale = math.sqrt(hp.hidden_size)
        query_size = hp.hidden_size / hp.n_heads if hp.n_layers == LAYERS_27B else hp.head_dim
        self.attention_scale = header.not_negative("attention.scale") or 1 / math.sqrt(query_size)
        self.cap = header.not_negative("attn_logit_softcapping", 50.0)
        self.final_cap = header.not_negative("final_logit_softcapping", 30.0)
        header.expect("embedding_scale", 0, self.embedding_scale)
        header.expect("hidden_activation", "gelu", "gelu_pytorch_tanh")
        header.expect("rope.freq_base_swa", self.rope.base)
        expect_windows_like_the_rest(header, hp, self.rope)

    def build(self, graph: Graph) -> None:
        emit = Emitter(graph, self.header, self.hp, self.windows)
        x = emit.embed(self.embedding_scale)
        for number in range(self.hp.n_layers):
            layer = emit.layer(number)
            q, k, v = layer.qkv(layer.norm(x, "attn_norm"))
            q, k = layer.rope(q, k, self.rope)
            y = layer.attention(q, k, v, self.attention_scale, self.cap)
            x = layer.add(x, layer.norm(y, "post_attention_norm"), "attention")
            y = layer.geglu(layer.norm(x, "ffn_norm"))
            x = layer.add(x, layer.norm(y, "post_ffw_norm"), "ffn")
        emit.head(x, cap=self.final_cap)
