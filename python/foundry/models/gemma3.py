"""Gemma 3 (arXiv:2503.19786), text: most layers see a sliding window and turn by a rope of their own, each
``full_every``-th sees everything; norms before and after attention and ffn, and on each head of Q and K.

x = sqrt(hidden_size) embed(tokens)
for each layer:  x = x + rms_norm(attention(rms_norm(x)));  x = x + rms_norm(ffn(rms_norm(x))),
                 ffn(y) = W_down (gelu(W_gate y) * W_up y)
logits = W_embed rms_norm(x)

GGUF holds the norms' scales as 1 + w.
"""

from __future__ import annotations

import math

from foundry._core import Graph
from foundry.models.decoder import Emitter, expect_windows_like_the_rest
from foundry.models.header import Header
from foundry.models.hyperparameters import HALF_ROTATED, Hyperparameters, Rope, read_rope

LAYERS_27B = 62  # its queries are scaled by hidden_size / n_heads, and the file does not say so


class Gemma3:
    def __init__(self, header: Header) -> None:
        self.header, self.hp = header, Hyperparameters.read(header)
        hp = self.hp
        self.window = header.integer("attention.sliding_window", least=0)
        full_every = header.integer("attention.sliding_window_pattern", 6)
        self.is_full = [layer % full_every == full_every - 1 for layer in range(hp.n_layers)]
        self.rope = read_rope(header, hp, HALF_ROTATED, base=1e6)
        window_base = header.real("rope.freq_base_swa", 1e4)
        self.window_rope = Rope(style=HALF_ROTATED, dims=self.rope.dims, base=window_base)
        self.embedding_scale = math.sqrt(hp.hidden_size)
        query_size = hp.hidden_size / hp.n_heads if hp.n_layers == LAYERS_27B else hp.head_dim
        self.attention_scale = 1 / math.sqrt(query_size)
        header.expect("attention.scale", 0, self.attention_scale)
        header.expect("embedding_scale", 0, self.embedding_scale)
        header.expect("hidden_activation", "gelu", "gelu_pytorch_tanh")
        expect_windows_like_the_rest(header, hp, self.rope)

    def build(self, graph: Graph) -> None:
        hp = self.hp
        emit = Emitter(graph, self.header, hp, [0 if full else self.window for full in self.is_full])
        x = emit.embed(self.embedding_scale)
        for number, full in enumerate(self.is_full):
            layer = emit.layer(number)
            q, k, v = layer.qkv(layer.norm(x, "attn_norm"))
            q, k = layer.norm(q, "attn_q_norm", hp.head_dim), layer.norm(k, "attn_k_norm", hp.head_dim)
            q, k = layer.rope(q, k, self.rope if full else self.window_rope)
            y = layer.attention(q, k, v, self.attention_scale)
            x = layer.add(x, layer.norm(y, "post_attention_norm"), "attention")
            gate, up = layer.gate_up(layer.norm(x, "ffn_norm"))
            y = layer.down(graph.geglu(gate, up, f"{layer.at} geglu"))
            x = layer.add(x, layer.norm(y, "post_ffw_norm"), "ffn")
        emit.head(x)
