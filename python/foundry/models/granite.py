"""Granite 3 (IBM, 2024): Llama with four scalars.

x = embedding_scale embed(tokens)
for each layer:  x = x + residual_scale attention(rms_norm(x));  x = x + residual_scale ffn(rms_norm(x)),
                 scores = attention_scale q k
logits = W_out rms_norm(x) / logit_scale
"""

from __future__ import annotations

import math

from foundry._core import Graph
from foundry.models.decoder import Emitter, Layer
from foundry.models.header import Header
from foundry.models.hyperparameters import Hyperparameters
from foundry.models.naming import Naming
from foundry.models.rope import REORDERED, read_rope


class Granite:
    hub = Naming(
        ("granite",),
        keys={
            "attention_multiplier": "attention.scale",
            "embedding_multiplier": "embedding_scale",
            "residual_multiplier": "residual_scale",
            "logits_scaling": "logit_scale",
        },
        defaults={"attention_multiplier": 1.0},
    )

    def __init__(self, header: Header) -> None:
        self.header, self.hp = header, Hyperparameters.read(header)
        self.rope = read_rope(header, self.hp, REORDERED, factors="rope_freqs.weight")
        self.attention_scale = header.not_negative("attention.scale") or 1 / math.sqrt(self.hp.head_dim)
        self.embedding_scale = header.not_negative("embedding_scale") or 1.0
        self.residual_scale = header.not_negative("residual_scale") or 1.0
        self.logit_scale = header.real("logit_scale", 1.0)
        header.expect("hidden_activation", "silu", "swiglu")
        header.expect("attention.sliding_window", 0)

    def ffn(self, layer: Layer, y: int) -> int:
        return layer.swiglu(y)

    def build(self, graph: Graph) -> None:
        emit = Emitter(graph, self.header, self.hp, [0] * self.hp.n_layers)
        x = emit.embed(self.embedding_scale)
        for number in range(self.hp.n_layers):
            layer = emit.layer(number)
            q, k, v = layer.qkv(layer.norm(x, "attn_norm"))
            q, k = layer.rope(q, k, self.rope)
            x = layer.add(x, layer.attention(q, k, v, self.attention_scale), "attention", self.residual_scale)
            x = layer.add(x, self.ffn(layer, layer.norm(x, "ffn_norm")), "ffn", self.residual_scale)
        emit.head(x, scale=1 / self.logit_scale)
