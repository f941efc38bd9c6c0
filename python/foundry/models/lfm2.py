"""LFM2 and LFM2.5 (arXiv:2511.23404): most layers are short convolutions, whose gates are made of the same row, and the
others attention with a norm on each head of Q and K. The mixture of experts has dense networks in its first layers and,
behind them, a router by sigmoid, whose choice a bias moves.

short convolution:  b, c, x = W_in y;  W_out (c * conv(b * x)),  conv: of each channel, over its last few values
for each layer:  x = x + operator(rms_norm(x));  x = x + ffn(rms_norm(x))

Keys as llama.cpp's converter writes them: ``attention.head_count_kv`` is 0 for layers that convolve.
"""

from __future__ import annotations

import math

from foundry._core import Graph
from foundry.errors import ModelFormatError
from foundry.models import windows
from foundry.models.decoder import Emitter, Layer
from foundry.models.experts import Experts, mixture
from foundry.models.header import Header
from foundry.models.hyperparameters import Hyperparameters
from foundry.models.naming import Naming
from foundry.models.rope import HALF_ROTATED, read_rope

MOST_TAPS = 8  # as the graph has them


def convolution(layer: Layer, y: int, taps: int, number: int) -> int:
    """The short convolution of a layer, ``number`` of those that convolve, projected back to the hidden state."""
    hidden, graph, name = layer.hp.hidden_size, layer.graph, f"{layer.prefix}.shortconv.conv"
    gated = layer.linear(y, "shortconv.in_proj", 3 * hidden, hidden)
    weight = graph.weight(f"{name}.weight", hidden, taps)
    bias = layer.emitter.optional_vector(f"{name}.bias", hidden)
    mixed = graph.short_conv(gated, number, True, weight, bias, f"{layer.at} short_conv")
    return layer.linear(mixed, "shortconv.out_proj", hidden, hidden)


class Lfm2:
    hub = Naming(("lfm2",), refused="the taps of its convolutions have a dimension more there, which is not read")

    def __init__(self, header: Header) -> None:
        self.header = header
        kv_heads = header.each_layer("attention.head_count_kv")
        self.attends = [heads != 0 for heads in kv_heads]
        found = sorted(set(kv_heads) - {0})
        if len(found) != 1:
            raise ModelFormatError(
                f"{header.architecture}.attention.head_count_kv: expected one number for all layers that attend, and at"
                f" least one of them, found {found}"
            )
        self.hp = Hyperparameters.read(header, n_kv_heads=found[0])
        self.rope = read_rope(header, self.hp, HALF_ROTATED)
        self.taps = header.integer("shortconv.l_cache", least=2, most=MOST_TAPS + 1)
        self.attention_scale = 1 / math.sqrt(self.hp.head_dim)
        header.expect("attention.sliding_window", 0)
        header.ignore(*windows.KEYS)

    def ffn(self, layer: Layer, number: int, y: int) -> int:
        return layer.swiglu(y)

    def build(self, graph: Graph) -> None:
        hp = self.hp
        emit = Emitter(graph, self.header, hp, [0 if attends else None for attends in self.attends])
        convolves = self.attends.count(False)
        if convolves:
            graph.set_recurrent(convolves, [(self.taps - 1) * hp.hidden_size])
        x = emit.embed()
        for number, attends in enumerate(self.attends):
            layer = emit.layer(number)
            y = layer.norm(x, "attn_norm")
            if attends:
                q, k, v = layer.qkv(y)
                q, k = layer.rope(*layer.norm_heads(q, k), self.rope)
                x = layer.add(x, layer.attention(q, k, v, self.attention_scale), "attention")
            else:
                mixed = convolution(layer, y, self.taps, self.attends[:number].count(False))
                x = layer.add(x, mixed, "convolution")
            x = layer.add(x, self.ffn(layer, number, layer.norm(x, "ffn_norm")), "ffn")
        norm = "token_embd_norm" if "token_embd_norm.weight" in self.header.tensors else "output_norm"
        emit.head(x, norm=norm)


class Lfm2Moe(Lfm2):
    hub = Naming(("lfm2_moe",), refused="its experts are tensors of their own there, which are not joined")

    def __init__(self, header: Header) -> None:
        super().__init__(header)
        self.dense = header.integer("leading_dense_block_count", 0, least=0)
        self.experts = Experts.read(header, self.hp, leads=True, biased=True)

    def ffn(self, layer: Layer, number: int, y: int) -> int:
        return layer.swiglu(y) if number < self.dense else mixture(layer, y, self.experts)
