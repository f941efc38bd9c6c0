"""OLMo 2 (arXiv:2501.00656) and OLMo 3: norms behind attention and ffn and none before; norms of the whole width of Q
and K. OLMo 3 has windows in all layers but each fourth, and stretches the rope of that one alone.

for each layer:  x = x + rms_norm(attention(x));  x = x + rms_norm(ffn(x))
"""

from __future__ import annotations

from foundry._core import Graph
from foundry.models.decoder import Decoder, Emitter
from foundry.models.header import Header
from foundry.models.naming import Naming
from foundry.models.rope import HALF_ROTATED
from foundry.models.windows import read_windows


class Olmo2(Decoder):
    hub = Naming(
        ("olmo2", "olmo3"),
        layer={
            "post_attention_layernorm": "post_attention_norm",
            "post_feedforward_layernorm": "post_ffw_norm",
        },
    )
    rope_style = HALF_ROTATED

    def __init__(self, header: Header) -> None:
        super().__init__(header)
        if any(self.windows):
            self.windows = read_windows(header, self.hp, every=4)

    def build(self, graph: Graph) -> None:
        hp = self.hp
        emit = Emitter(graph, self.header, hp, self.windows)
        x = emit.embed()
        for number, window in enumerate(self.windows):
            layer = emit.layer(number)
            q, k, v = layer.qkv(x)
            q = layer.norm(q, "attn_q_norm", hp.n_heads * hp.head_dim)
            k = layer.norm(k, "attn_k_norm", hp.n_kv_heads * hp.head_dim)
            q, k = layer.rope(q, k, self.rope.plain() if window else self.rope)
            y = layer.attention(q, k, v, self.attention_scale)
            x = layer.add(x, layer.norm(y, "post_attention_norm"), "attention")
            x = layer.add(x, layer.norm(layer.swiglu(x), "post_ffw_norm"), "ffn")
        emit.head(x)
