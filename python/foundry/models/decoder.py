"""What decoders share: names of weights, and the pre-norm decoder that Llama (arXiv:2302.13971) and its kin are.

x = embed(tokens)
for each layer:  x = x + attention(rms_norm(x));  x = x + ffn(rms_norm(x)),  ffn(y) = W_down (silu(W_gate y) * W_up y)
logits = W_out rms_norm(x)
"""

from __future__ import annotations

from foundry._core import Graph
from foundry.errors import ModelFormatError
from foundry.models.hyperparameters import Hyperparameters

INTERLEAVED = 0  # rope turns pairs (2i, 2i + 1), as GGUF stores llama
HALF_ROTATED = 1  # rope turns pairs (i, i + rot_dim / 2)
NO_WEIGHT = -1


class Block:
    """A layer's ops, with its weights by the names that GGUF gives them."""

    def __init__(self, graph: Graph, hp: Hyperparameters, layer: int) -> None:
        self.graph, self.hp, self.at, self.prefix = graph, hp, f"layer {layer}", f"blk.{layer}"
        first = f"{self.prefix}.attn_norm.weight"
        if first not in hp.tensors:  # before more layers are made than the file has
            raise ModelFormatError(f'{hp.name}.block_count is {hp.n_layers}, but the file has no tensor "{first}"')

    def linear(self, x: int, weight: str, rows: int, cols: int) -> int:
        name = f"{self.prefix}.{weight}"
        bias = optional_vector(self.graph, self.hp, f"{name}.bias", rows)
        return self.graph.linear(x, self.graph.weight(f"{name}.weight", rows, cols), bias, f"{self.at} {weight}")

    def norm(self, x: int, weight: str, size: int = 0) -> int:
        """Over ``size`` values each, by default the hidden state."""
        scale = self.graph.weight(f"{self.prefix}.{weight}.weight", 1, size or self.hp.hidden_size)
        return self.graph.rms_norm(x, scale, self.hp.rms_eps, f"{self.at} {weight}")

    def qkv(self, y: int) -> tuple[int, int, int]:
        hp = self.hp
        q = self.linear(y, "attn_q", hp.n_heads * hp.head_dim, hp.hidden_size)
        k = self.linear(y, "attn_k", hp.n_kv_heads * hp.head_dim, hp.hidden_size)
        v = self.linear(y, "attn_v", hp.n_kv_heads * hp.head_dim, hp.hidden_size)
        return q, k, v

    def rope(self, x: int, heads: int, name: str, base: float, scale: float, style: int, factors: int) -> int:
        hp = self.hp
        return self.graph.rope(x, heads, hp.head_dim, hp.rot_dim, base, scale, style, factors, f"{self.at} rope {name}")

    def attention(self, q: int, k: int, v: int, scale: float, group: int, layer: int) -> int:
        """Over the K and V of ``layer`` of a layer group; projected back to the hidden state."""
        hp = self.hp
        self.graph.kv_append(k, v, group, layer, f"{self.at} kv_append")
        y = self.graph.attention(q, hp.n_heads, scale, group, layer, f"{self.at} attention")
        return self.linear(y, "attn_output", hp.hidden_size, hp.n_heads * hp.head_dim)

    def gate_up(self, y: int) -> tuple[int, int]:
        hp = self.hp
        return (
            self.linear(y, "ffn_gate", hp.ffn_size, hp.hidden_size),
            self.linear(y, "ffn_up", hp.ffn_size, hp.hidden_size),
        )

    def down(self, y: int) -> int:
        return self.linear(y, "ffn_down", self.hp.hidden_size, self.hp.ffn_size)

    def add(self, x: int, y: int, name: str) -> int:
        return self.graph.add(x, y, f"{self.at} {name} residual")


def optional_vector(graph: Graph, hp: Hyperparameters, name: str, size: int) -> int:
    return graph.weight(name, 1, size) if name in hp.tensors else NO_WEIGHT


def describe(graph: Graph, hp: Hyperparameters) -> None:
    arch = graph.arch
    arch.name, arch.n_layers, arch.max_seq_len = hp.name, hp.n_layers, hp.max_seq_len
    arch.n_heads, arch.n_kv_heads, arch.head_dim = hp.n_heads, hp.n_kv_heads, hp.head_dim
    arch.hidden_size, arch.vocab_size = hp.hidden_size, hp.vocab_size


def embed(graph: Graph, hp: Hyperparameters, scale: float = 1) -> int:
    return graph.embed(graph.weight("token_embd.weight", hp.vocab_size, hp.hidden_size), scale, "embed")


def head(graph: Graph, hp: Hyperparameters, x: int) -> None:
    """The last norm and the logits; the embedding's weights where the file has no others."""
    x = graph.select_rows(x, "select rows")
    x = graph.rms_norm(x, graph.weight("output_norm.weight", 1, hp.hidden_size), hp.rms_eps, "output_norm")
    output = "output.weight" if "output.weight" in hp.tensors else "token_embd.weight"
    graph.set_logits(graph.linear(x, graph.weight(output, hp.vocab_size, hp.hidden_size), NO_WEIGHT, "output"))


def build(graph: Graph, hp: Hyperparameters, rope_style: int) -> None:
    describe(graph, hp)
    group = graph.add_group(hp.n_layers, hp.n_kv_heads, hp.head_dim, hp.window)
    factors = optional_vector(graph, hp, "rope_freqs.weight", hp.rot_dim // 2)  # Llama 3
    x = embed(graph, hp)
    for layer in range(hp.n_layers):
        block = Block(graph, hp, layer)
        q, k, v = block.qkv(block.norm(x, "attn_norm"))
        q = block.rope(q, hp.n_heads, "q", hp.rope_base, hp.rope_scale, rope_style, factors)
        k = block.rope(k, hp.n_kv_heads, "k", hp.rope_base, hp.rope_scale, rope_style, factors)
        x = block.add(x, block.attention(q, k, v, hp.attention_scale, group, layer), "attention")
        gate, up = block.gate_up(block.norm(x, "ffn_norm"))
        x = block.add(x, block.down(graph.swiglu(gate, up, f"{block.at} swiglu")), "ffn")
    head(graph, hp, x)
