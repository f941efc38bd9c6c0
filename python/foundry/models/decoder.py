"""What decoders share: names of weights and the ops of a layer; and the pre-norm decoder that Llama (arXiv:2302.13971)
and its kin are.

x = embed(tokens)
for each layer:  x = x + attention(rms_norm(x));  x = x + ffn(rms_norm(x)),  ffn(y) = W_down (silu(W_gate y) * W_up y)
logits = W_out rms_norm(x)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from foundry._core import Graph
from foundry.errors import ModelFormatError
from foundry.models import windows
from foundry.models.header import Header
from foundry.models.hyperparameters import Hyperparameters
from foundry.models.naming import Naming
from foundry.models.rope import Rope, read_rope
from foundry.models.windows import expect_windows_like_the_rest, read_windows

NO_WEIGHT = -1


class Emitter:
    """The ops that a decoder has once, and the layer groups that its layers keep K and V in.

    Args:
        windows: of each layer, the tokens that it sees; 0: all of them; None: it keeps no K and V. Layers of one window
            share a group.
    """

    def __init__(self, graph: Graph, header: Header, hp: Hyperparameters, windows: Sequence[int | None]) -> None:
        self.graph, self.header, self.hp = graph, header, hp
        arch = graph.arch
        arch.name, arch.n_layers, arch.max_seq_len = header.architecture, hp.n_layers, hp.max_seq_len
        arch.n_heads, arch.n_kv_heads, arch.head_dim = hp.n_heads, hp.n_kv_heads, hp.head_dim
        arch.hidden_size, arch.vocab_size = hp.hidden_size, hp.vocab_size
        self.kept_dim = -(-hp.head_dim // header.head_multiple) * header.head_multiple
        groups = {
            window: graph.add_group(windows.count(window), hp.n_kv_heads, self.kept_dim, window)
            for window in sorted({one for one in windows if one is not None})
        }
        self.kv_layers = [
            (-1, -1) if window is None else (groups[window], windows[:layer].count(window))
            for layer, window in enumerate(windows)
        ]

    def optional_vector(self, name: str | None, size: int) -> int:
        if name is None or name not in self.header.tensors:
            return NO_WEIGHT
        return self.graph.weight(name, 1, size)

    def embed(self, scale: float = 1) -> int:
        hp = self.hp
        return self.graph.embed(self.graph.weight("token_embd.weight", hp.vocab_size, hp.hidden_size), scale, "embed")

    def layer(self, number: int) -> Layer:
        return Layer(self, number)

    def norm(self, x: int, weight: str, size: int, name: str) -> int:
        """RMSNorm over ``size`` values each."""
        return self.graph.rms_norm(x, self.graph.weight(f"{weight}.weight", 1, size), self.hp.norm_eps, name)

    def head(self, x: int, scale: float = 1, cap: float = 0, norm: str = "output_norm") -> None:
        """The last norm and the logits; the embedding's weights where the file has no others.

        Args:
            scale: what the logits are multiplied by.
            cap: logits become cap * tanh(logits / cap); 0: they stay.
            norm: what the file calls the last norm.
        """
        graph, hp = self.graph, self.hp
        x = self.norm(graph.select_rows(x, "select rows"), norm, hp.hidden_size, "output_norm")
        output = "output.weight" if "output.weight" in self.header.tensors else "token_embd.weight"
        bias = self.optional_vector("output.bias", hp.vocab_size)
        logits = graph.linear(x, graph.weight(output, hp.vocab_size, hp.hidden_size), bias, "output")
        if scale != 1 or cap != 0:
            logits = graph.scale(logits, scale, cap, "logits")
        graph.set_logits(logits)


class LayerNormEmitter(Emitter):
    """With LayerNorm (arXiv:1607.06450) for RMSNorm."""

    def norm(self, x: int, weight: str, size: int, name: str) -> int:
        scale, bias = self.graph.weight(f"{weight}.weight", 1, size), self.optional_vector(f"{weight}.bias", size)
        return self.graph.layer_norm(x, scale, bias, self.hp.norm_eps, name)


class Layer:
    """A layer's ops, with its weights by the names that GGUF gives them."""

    def __init__(self, emitter: Emitter, number: int) -> None:
        self.emitter, self.graph, self.hp = emitter, emitter.graph, emitter.hp
        self.at, self.prefix = f"layer {number}", f"blk.{number}"
        self.group, self.layer_in_group = emitter.kv_layers[number]
        first = f"{self.prefix}.attn_norm.weight"
        if first not in emitter.header.tensors and f"{self.prefix}.attn_output.weight" not in emitter.header.tensors:
            # before more layers are made than the file has
            name = f"{emitter.header.architecture}.block_count"
            raise ModelFormatError(f'{name} is {self.hp.n_layers}, but the file has no tensor "{first}"')

    def linear(self, x: int, weight: str, rows: int, cols: int) -> int:
        name = f"{self.prefix}.{weight}"
        bias = self.emitter.optional_vector(f"{name}.bias", rows)
        return self.graph.linear(x, self.graph.weight(f"{name}.weight", rows, cols), bias, f"{self.at} {weight}")

    def has(self, weight: str) -> bool:
        return f"{self.prefix}.{weight}.weight" in self.emitter.header.tensors

    def parts(self, x: int, weight: str, names: Sequence[str], rows: Sequence[int], cols: int) -> list[int]:
        """What a weight that is several, one below the other, makes of x: a linear for each, over its own rows."""
        graph, tensor, whole, first, made = self.graph, f"{self.prefix}.{weight}", sum(rows), 0, []
        biased = f"{tensor}.bias" in self.emitter.header.tensors
        for name, n in zip(names, rows, strict=True):
            part = graph.part(f"{tensor}.weight", n, cols, first, whole)
            bias = graph.part(f"{tensor}.bias", 1, n, first, whole) if biased else NO_WEIGHT
            made.append(graph.linear(x, part, bias, f"{self.at} {name}"))
            first += n
        return made

    def norm(self, x: int, weight: str, size: int = 0) -> int:
        """Over ``size`` values each, by default the hidden state."""
        return self.emitter.norm(x, f"{self.prefix}.{weight}", size or self.hp.hidden_size, f"{self.at} {weight}")

    def norm_heads(self, q: int, k: int) -> tuple[int, int]:
        return self.norm(q, "attn_q_norm", self.hp.head_dim), self.norm(k, "attn_k_norm", self.hp.head_dim)

    def qkv(self, y: int) -> tuple[int, int, int]:
        """Of three weights, or of one that is all three."""
        hp, names = self.hp, ("attn_q", "attn_k", "attn_v")
        rows = (hp.n_heads * hp.head_dim, hp.n_kv_heads * hp.head_dim, hp.n_kv_heads * hp.head_dim)
        if self.has("attn_qkv"):
            q, k, v = self.parts(y, "attn_qkv", names, rows, hp.hidden_size)
        else:
            q, k, v = (self.linear(y, name, n, hp.hidden_size) for name, n in zip(names, rows, strict=True))
        return q, k, v

    def rope(self, q: int, k: int, rope: Rope) -> tuple[int, int]:
        unheated = replace(rope, temperature=0.0, temperature_length=0)
        return self._turn(q, self.hp.n_heads, "q", rope), self._turn(k, self.hp.n_kv_heads, "k", unheated)

    def _turn(self, x: int, heads: int, name: str, rope: Rope) -> int:
        graph = self.graph
        tables = self.emitter.header.tables
        if rope.factors is None:
            factors = NO_WEIGHT
        elif isinstance(rope.factors, str) and rope.factors not in tables:
            factors = graph.weight(rope.factors, 1, rope.dims // 2)
        else:
            values = tables[rope.factors] if isinstance(rope.factors, str) else rope.factors
            factors = graph.constant("factors of rope", list(values))
        return graph.rope(
            x,
            heads,
            self.hp.head_dim,
            rope.dims,
            rope.base,
            rope.scale,
            rope.style,
            factors,
            f"{self.at} rope {name}",
            magnitude=rope.magnitude,
            temperature=rope.temperature,
            temperature_length=rope.temperature_length,
        )

    def attention(
        self, q: int, k: int, v: int, scale: float, cap: float = 0, sinks: int = NO_WEIGHT, gate: int | None = None
    ) -> int:
        """Over this layer's K and V; projected back to the hidden state.

        Args:
            scale: of the products of Q and K.
            cap: the scaled products become cap * tanh(product / cap); 0: they stay.
            sinks: a weight: of each head a score more, which takes weight and gives no value.
            gate: by heads, what lets the result through, as the graph's sigmoid_gate has it.
        """
        hp, graph, group, layer = self.hp, self.graph, self.group, self.layer_in_group
        kept = self.emitter.kept_dim
        if kept != hp.head_dim:  # zeros behind each head change no product, and what comes of them is cut off
            q = graph.resize_heads(q, hp.n_heads, hp.head_dim, kept, f"{self.at} q filled up")
            k = graph.resize_heads(k, hp.n_kv_heads, hp.head_dim, kept, f"{self.at} k filled up")
            v = graph.resize_heads(v, hp.n_kv_heads, hp.head_dim, kept, f"{self.at} v filled up")
        graph.kv_append(k, v, group, layer, f"{self.at} kv_append")
        y = graph.attention(q, hp.n_heads, scale, group, layer, f"{self.at} attention", cap=cap, sinks=sinks)
        if kept != hp.head_dim:
            y = graph.resize_heads(y, hp.n_heads, kept, hp.head_dim, f"{self.at} attention cut")
        if gate is not None:
            y = graph.sigmoid_gate(y, gate, hp.n_heads, f"{self.at} attention gate")
        return self.linear(y, "attn_output", hp.hidden_size, hp.n_heads * hp.head_dim)

    def gate_up(self, y: int) -> tuple[int, int]:
        """Of two weights, or of one, ``ffn_up``, that is both, the gate first."""
        hp = self.hp
        if not self.has("ffn_gate"):
            gate, up = self.parts(y, "ffn_up", ("ffn_gate", "ffn_up"), (hp.ffn_size, hp.ffn_size), hp.hidden_size)
            return gate, up
        return (
            self.linear(y, "ffn_gate", hp.ffn_size, hp.hidden_size),
            self.linear(y, "ffn_up", hp.ffn_size, hp.hidden_size),
        )

    def swiglu(self, y: int) -> int:
        gate, up = self.gate_up(y)
        return self.down(self.graph.swiglu(gate, up, f"{self.at} swiglu"))

    def geglu(self, y: int) -> int:
        gate, up = self.gate_up(y)
        return self.down(self.graph.geglu(gate, up, f"{self.at} geglu"))

    def down(self, y: int) -> int:
        return self.linear(y, "ffn_down", self.hp.hidden_size, self.hp.ffn_size)

    def add(self, x: int, y: int, name: str, scale: float = 1) -> int:
        """x + scale * y"""
        if scale != 1:
            y = self.graph.scale(y, scale, 0, f"{self.at} {name} scale")
        return self.graph.add(x, y, f"{self.at} {name} residual")


class Decoder:
    """Llama and its kin: see above. Where the file has ``attention.sliding_window``, each layer has that window, or
    those that a pattern in the file names.

    Attributes:
        hub: how Hugging Face names its keys and weights.
        rope_style: which dims are turned together.
        norms_heads: norms on each head of Q and K, before they are turned (arXiv:2302.05442).
    """

    hub: Naming
    rope_style: int
    norms_heads = False

    def __init__(self, header: Header) -> None:
        self.header, self.hp = header, Hyperparameters.read(header)
        self.rope = self.read_rope()
        self.attention_scale = 1 / math.sqrt(self.hp.head_dim)
        self.windows = [0] * self.hp.n_layers
        header.expect("attention.scale", 0, self.attention_scale)
        header.expect("embedding_scale", 0, 1)
        header.expect("hidden_activation", "silu", "swiglu")
        if header.integer("attention.sliding_window", 0, least=0):
            self.windows = read_windows(header, self.hp, 0)
            expect_windows_like_the_rest(header, self.hp, self.rope)
            header.expect("rope.freq_base_swa", self.rope.base)
        else:
            header.ignore(*windows.KEYS)

    def read_rope(self) -> Rope:
        return read_rope(self.header, self.hp, self.rope_style, factors="rope_freqs.weight")

    def turns(self, number: int) -> bool:
        """Whether this layer's Q and K are turned by their positions."""
        return True

    def ffn(self, layer: Layer, y: int) -> int:
        return layer.swiglu(y)

    def build(self, graph: Graph) -> None:
        emit = Emitter(graph, self.header, self.hp, self.windows)
        x = emit.embed()
        for number in range(self.hp.n_layers):
            layer = emit.layer(number)
            q, k, v = layer.qkv(layer.norm(x, "attn_norm"))
            if self.norms_heads:
                q, k = layer.norm_heads(q, k)
            if self.turns(number):
                q, k = layer.rope(q, k, self.rope)
            x = layer.add(x, layer.attention(q, k, v, self.attention_scale), "attention")
            x = layer.add(x, self.ffn(layer, layer.norm(x, "ffn_norm")), "ffn")
        emit.head(x)
