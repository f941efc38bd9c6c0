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
from foundry.models.decoder import Emitter
from foundry.models.header import Header
from foundry.models.hyperparameters import Hyperparameters
from foundry.models.naming import Naming
from foundry.models.rope import HALF_ROTATED, Rope, read_rope
from foundry.models.windows import expect_windows_like_the_rest, read_windows

LAYERS_27B = 62  # its queries are scaled by hidden_size / n_heads, and the file does not say so


class Gemma3:
    hub = Naming(
        ("gemma3_text",),
        keys={
            "final_logit_softcapping": "final_logit_softcapping",
            "sliding_window_pattern": "attention.sliding_window_pattern",
            "_sliding_window_pattern": "attention.sliding_window_pattern",
        },
        defaults={  # Google's files leave out what transformers takes anyway
            "max_position_embeddings": 131072,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
            "sliding_window": 4096,
            "query_pre_attn_scalar": 256,
        },
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
        self.windows = read_windows(header, hp, every=6)
        self.rope = read_rope(header, hp, HALF_ROTATED, base=1e6)
        window_base = header.real("rope.freq_base_swa", 1e4)
        self.window_rope = Rope(style=HALF_ROTATED, dims=self.rope.dims, base=window_base)
        self.embedding_scale = math.sqrt(hp.hidden_size)
        query_size = hp.hidden_size / hp.n_heads if hp.n_layers == LAYERS_27B else hp.head_dim
        self.attention_scale = header.not_negative("attention.scale") or 1 / math.sqrt(query_size)
        self.final_cap = header.not_negative("final_logit_softcapping")
        header.expect("embedding_scale", 0, self.embedding_scale)
        header.expect("hidden_activation", "gelu", "gelu_pytorch_tanh")
        expect_windows_like_the_rest(header, hp, self.rope)

    def build(self, graph: Graph) -> None:
        emit = Emitter(graph, self.header, self.hp, self.windows)
        x = emit.embed(self.embedding_scale)
        for number, window in enumerate(self.windows):
            layer = emit.layer(number)
            q, k, v = layer.qkv(layer.norm(x, "attn_norm"))
            q, k = layer.norm_heads(q, k)
            q, k = layer.rope(q, k, self.window_rope if window else self.rope)
            y = layer.attention(q, k, v, self.attention_scale)
            x = layer.add(x, layer.norm(y, "post_attention_norm"), "attention")
            y = layer.geglu(layer.norm(x, "ffn_norm"))
            x = layer.add(x, layer.norm(y, "post_ffw_norm"), "ffn")
        emit.head(x, cap=self.final_cap)
