"""What decoders share: names of weights and the ops of a layer; and the pre-norm decoder that Llama (arXiv:2302.13971)
and its kin are.

x = embed(tokens)
for each layer:  x = x + attention(rms_norm(x));  x = x + ffn(rms_norm(x)),  ffn(y) = W_down (silu(W_gate y) * W_up y)
logits = W_out rms_norm(x)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from foundry._core import Graph
from foundry.errors import ModelFormatError
from foundry.models.header import Header
from foundry.models.hyperparameters import Hyperparameters, Rope, read_rope

NO_WEIGHT = -1


class Emitter:
    """The ops that a decoder has once, and the layer groups that its layers keep K and V in.

    Args:
        windows: of each layer, the tokens that it sees; 0: all of them. Layers of one window share a group.
    """

    def __init__(self, graph: Graph, header: Header, hp: Hyperparameters, windows: Sequence[int]) -> None:
        self.graph, self.header, self.hp = graph, header, hp
        arch = graph.arch
        arch.name, arch.n_layers, arch.max_seq_len = header.architecture, hp.n_layers, hp.max_seq_len
        arch.n_heads, arch.n_kv_heads, arch.head_dim = hp.n_heads, hp.n_kv_heads, hp.head_dim
        arch.hidden_size, arch.vocab_size = hp.hidden_size, hp.vocab_size
        groups = {
            window: graph.add_group(windows.count(window), hp.n_kv_heads, hp.head_dim, window)
            for window in sorted(set(windows))
        }
        self.kv_layers = [(groups[window], windows[:layer].count(window)) for layer, window in enumerate(windows)]

    def optional_vector(self, name: str | None, size: int) -> int:
        if name is None or name not in self.header.tensors:
            return NO_WEIGHT
        return self.graph.weight(name, 1, size)

    def embed(self, scale: float = 1) -> int:
        hp = self.hp
        return self.graph.embed(self.graph.weight("token_embd.weight", hp.vocab_size, hp.hidden_size), scale, "embed")

    def layer(self, number: int) -> Layer:
        return Layer(self, number)

    def head(self, x: int) -> None:
        """The last norm and the logits; the embedding's weights where the file has no others."""
        graph, hp = self.graph, self.hp
        x = graph.select_rows(x, "select rows")
        x = graph.rms_norm(x, graph.weight("output_norm.weight", 1, hp.hidden_size), hp.rms_eps, "output_norm")
        output = "output.weight" if "output.weight" in self.header.tensors else "token_embd.weight"
        graph.set_logits(graph.linear(x, graph.weight(output, hp.vocab_size, hp.hidden_size), NO_WEIGHT, "output"))


class Layer:
    """A layer's ops, with its weights by the names that GGUF gives them."""

    def __init__(self, emitter: Emitter, number: int) -> None:
        self.emitter, self.graph, self.hp = emitter, emitter.graph, emitter.hp
        self.at, self.prefix = f"layer {number}", f"blk.{number}"
        self.group, self.layer_in_group = emitter.kv_layers[number]
        first = f"{self.prefix}.attn_norm.weight"
        if first not in emitter.header.tensors:  # before more layers are made than the file has
            name = f"{emitter.header.architecture}.block_count"
            raise ModelFormatError(f'{name} is {self.hp.n_layers}, but the file has no tensor "{first}"')

    def linear(self, x: int, weight: str, rows: int, cols: int) -> int:
        name = f"{self.prefix}.{weight}"
        bias = self.emitter.optional_vector(f"{name}.bias", rows)
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

    def rope(self, q: int, k: int, rope: Rope) -> tuple[int, int]:
        return self._turn(q, self.hp.n_heads, "q", rope), self._turn(k, self.hp.n_kv_heads, "k", rope)

    def _turn(self, x: int, heads: int, name: str, rope: Rope) -> int:
        factors = self.emitter.optional_vector(rope.factors, rope.dims // 2)
        return self.graph.rope(
            x, heads, self.hp.head_dim, rope.dims, rope.base, rope.scale, rope.style, factors, f"{self.at} rope {name}"
        )

    def attention(self, q: int, k: int, v: int, scale: float) -> int:
        """Over this layer's K and V; projected back to the hidden state. ``scale`` is of the products of Q and K."""
        hp, group, layer = self.hp, self.group, self.layer_in_group
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


def expect_windows_like_the_rest(header: Header, hp: Hyperparameters, rope: Rope) -> None:
    """Of a model that has windows: its keys for layers with one must say what holds for all layers."""
    header.expect("attention.key_length_swa", hp.head_dim)
    header.expect("attention.value_length_swa", hp.head_dim)
    header.expect("rope.dimension_count_swa", rope.dims)


WINDOW_KEYS = (
    "attention.key_length_swa",
    "attention.value_length_swa",
    "attention.sliding_window_pattern",
    "rope.dimension_count_swa",
    "rope.freq_base_swa",
)


class Decoder:
    """Llama and its kin: see above. Where the file has ``attention.sliding_window``, each layer has that window."""

    rope_style: int

    def __init__(self, header: Header) -> None:
        self.header, self.hp = header, Hyperparameters.read(header)
        self.rope = read_rope(header, self.hp, self.rope_style, factors="rope_freqs.weight")
        self.window = header.integer("attention.sliding_window", 0, least=0)
        self.attention_scale = 1 / math.sqrt(self.hp.head_dim)
        header.expect("attention.scale", 0, self.attention_scale)
        header.expect("embedding_scale", 0, 1)
        header.expect("hidden_activation", "silu", "swiglu")
        if self.window:
            expect_windows_like_the_rest(header, self.hp, self.rope)
            header.expect("rope.freq_base_swa", self.rope.base)
            header.expect("attention.sliding_window_pattern", 0)  # 0: each layer has the window
        else:
            header.ignore(*WINDOW_KEYS)

    def build(self, graph: Graph) -> None:
        emit = Emitter(graph, self.header, self.hp, [self.window] * self.hp.n_layers)
        x = emit.embed()
        for number in range(self.hp.n_layers):
            layer = emit.layer(number)
            q, k, v = layer.qkv(layer.norm(x, "attn_norm"))
            q, k = layer.rope(q, k, self.rope)
            x = layer.add(x, layer.attention(q, k, v, self.attention_scale), "attention")
            gate, up = layer.gate_up(layer.norm(x, "ffn_norm"))
            x = layer.add(x, layer.down(graph.swiglu(gate, up, f"{layer.at} swiglu")), "ffn")
        emit.head(x)
