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
from foundry.models import decoder
from foundry.models.decoder import HALF_ROTATED, NO_WEIGHT, Block
from foundry.models.hyperparameters import Hyperparameters


def build(graph: Graph, hp: Hyperparameters) -> None:
    decoder.describe(graph, hp)
    is_full = [layer % hp.full_every == hp.full_every - 1 for layer in range(hp.n_layers)]
    group_of = {
        full: graph.add_group(is_full.count(full), hp.n_kv_heads, hp.head_dim, 0 if full else hp.window)
        for full in (True, False)
        if full in is_full
    }
    x = decoder.embed(graph, hp, math.sqrt(hp.hidden_size))
    for layer, full in enumerate(is_full):
        block = Block(graph, hp, layer)
        base, stretch = (hp.rope_base, hp.rope_scale) if full else (hp.window_rope_base, 1.0)
        q, k, v = block.qkv(block.norm(x, "attn_norm"))
        q, k = block.norm(q, "attn_q_norm", hp.head_dim), block.norm(k, "attn_k_norm", hp.head_dim)
        q = block.rope(q, hp.n_heads, "q", base, stretch, HALF_ROTATED, NO_WEIGHT)
        k = block.rope(k, hp.n_kv_heads, "k", base, stretch, HALF_ROTATED, NO_WEIGHT)
        y = block.attention(q, k, v, hp.attention_scale, group_of[full], is_full[:layer].count(full))
        x = block.add(x, block.norm(y, "post_attention_norm"), "attention")
        gate, up = block.gate_up(block.norm(x, "ffn_norm"))
        y = block.down(graph.geglu(gate, up, f"{block.at} geglu"))
        x = block.add(x, block.norm(y, "post_ffw_norm"), "ffn")
    decoder.head(graph, hp, x)
