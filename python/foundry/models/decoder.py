"""The pre-norm decoder that Llama (arXiv:2302.13971) and its kin share; residuals are f32.

x = embed(tokens)
for each layer:  x = x + attention(rms_norm(x));  x = x + ffn(rms_norm(x)),  ffn(y) = W_down (silu(W_gate y) * W_up y)
logits = W_out rms_norm(x)
"""

from __future__ import annotations

import math

from foundry._core import Graph
from foundry.models.hyperparameters import Hyperparameters

INTERLEAVED = 0  # rope turns pairs (2i, 2i + 1), as GGUF stores llama
HALF_ROTATED = 1  # rope turns pairs (i, i + rot_dim / 2)
NO_WEIGHT = -1


def build(graph: Graph, hp: Hyperparameters, rope_style: int) -> None:
    arch = graph.arch
    arch.name, arch.n_layers, arch.max_seq_len = hp.name, hp.n_layers, hp.max_seq_len
    arch.n_heads, arch.n_kv_heads, arch.head_dim = hp.n_heads, hp.n_kv_heads, hp.head_dim
    arch.hidden_size, arch.vocab_size = hp.hidden_size, hp.vocab_size
    group = graph.add_group(hp.n_layers, hp.n_kv_heads, hp.head_dim, 0)

    def vector(name: str, size: int) -> int:
        return graph.weight(name, 1, size)

    def optional_vector(name: str, size: int) -> int:
        return vector(name, size) if name in hp.tensors else NO_WEIGHT

    embedding = graph.weight("token_embd.weight", hp.vocab_size, hp.hidden_size)
    rope_factors = optional_vector("rope_freqs.weight", hp.rot_dim // 2)  # Llama 3
    q_size, kv_size = hp.n_heads * hp.head_dim, hp.n_kv_heads * hp.head_dim

    x = graph.embed(embedding, "embed")
    for layer in range(hp.n_layers):
        at, block = f"layer {layer}", f"blk.{layer}"

        def linear(value: int, weight: str, rows: int, cols: int, at: str = at, block: str = block) -> int:
            bias = optional_vector(f"{block}.{weight}.bias", rows)
            return graph.linear(value, graph.weight(f"{block}.{weight}.weight", rows, cols), bias, f"{at} {weight}")

        def norm(value: int, weight: str, at: str = at, block: str = block) -> int:
            return graph.rms_norm(
                value, vector(f"{block}.{weight}.weight", hp.hidden_size), hp.rms_eps, f"{at} {weight}"
            )

        def rope(value: int, heads: int, name: str, at: str = at) -> int:
            return graph.rope(
                value, heads, hp.head_dim, hp.rot_dim, hp.rope_base, rope_style, rope_factors, f"{at} rope {name}"
            )

        y = norm(x, "attn_norm")
        q = linear(y, "attn_q", q_size, hp.hidden_size)
        k = linear(y, "attn_k", kv_size, hp.hidden_size)
        v = linear(y, "attn_v", kv_size, hp.hidden_size)
        q, k = rope(q, hp.n_heads, "q"), rope(k, hp.n_kv_heads, "k")
        graph.kv_append(k, v, group, layer, f"{at} kv_append")
        y = graph.attention(q, hp.n_heads, 1 / math.sqrt(hp.head_dim), group, layer, f"{at} attention")
        x = graph.add(x, linear(y, "attn_output", hp.hidden_size, q_size), f"{at} attention residual")

        y = norm(x, "ffn_norm")
        gate = linear(y, "ffn_gate", hp.ffn_size, hp.hidden_size)
        up = linear(y, "ffn_up", hp.ffn_size, hp.hidden_size)
        y = graph.swiglu(gate, up, f"{at} swiglu")
        x = graph.add(x, linear(y, "ffn_down", hp.hidden_size, hp.ffn_size), f"{at} ffn residual")

    x = graph.select_rows(x, "select rows")
    x = graph.rms_norm(x, vector("output_norm.weight", hp.hidden_size), hp.rms_eps, "output_norm")
    tied = "output.weight" not in hp.tensors
    output = embedding if tied else graph.weight("output.weight", hp.vocab_size, hp.hidden_size)
    graph.set_logits(graph.linear(x, output, NO_WEIGHT, "output"))
