"""StarCoder2 (arXiv:2402.19173): LayerNorm, biases everywhere, an ffn without a gate, half-rotated rope; larger ones
have a window.

for each layer:  x = x + attention(layer_norm(x));  x = x + ffn(layer_norm(x)),  ffn(y) = W_down gelu(W_up y)
"""

from __future__ import annotations

import math

from foundry._core import Graph
from foundry.models.decoder import LayerNormEmitter
from foundry.models.header import Header
from foundry.models.hyperparameters import Hyperparameters
from foundry.models.naming import Naming
from foundry.models.rope import HALF_ROTATED, read_rope
from foundry.models.windows import read_windows


class StarCoder2:
    hub = Naming(
        ("starcoder2",),
        keys={"norm_epsilon": "attention.layer_norm_epsilon"},
        defaults={"norm_epsilon": 1e-5},
        layer={"mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"},
        tied=True,
    )

    def __init__(self, header: Header) -> None:
        self.header, self.hp = header, Hyperparameters.read(header, norm_eps="attention.layer_norm_epsilon")
        self.rope = read_rope(header, self.hp, HALF_ROTATED)
        self.attention_scale = 1 / math.sqrt(self.hp.head_dim)
        self.windows = read_windows(header, self.hp, every=0, window=0)
        header.expect("attention.scale", 0, self.attention_scale)
        header.expect("hidden_activation", "gelu", "gelu_pytorch_tanh")

    def build(self, graph: Graph) -> None:
        hp = self.hp
        emit = LayerNormEmitter(graph, self.header, hp, self.windows)
        x = emit.embed()
        for number in range(hp.n_layers):
            layer = emit.layer(number)
            q, k, v = layer.qkv(layer.norm(x, "attn_norm"))
            q, k = layer.rope(q, k, self.rope)
            x = layer.add(x, layer.attention(q, k, v, self.attention_scale), "attention")
            up = layer.linear(layer.norm(x, "ffn_norm"), "ffn_up", hp.ffn_size, hp.hidden_size)
            x = layer.add(x, layer.down(graph.gelu(up, f"{layer.at} gelu")), "ffn")
        emit.head(x)
