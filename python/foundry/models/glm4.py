"""GLM-4-0414 (arXiv:2406.12793): norms before and behind attention and ffn, gate and up in one weight, biases on Q, K
and V, interleaved rope of half of each head.

for each layer:  x = x + rms_norm(attention(rms_norm(x)));  x = x + rms_norm(ffn(rms_norm(x)))
"""

from __future__ import annotations

from foundry._core import Graph
from foundry.models.decoder import Decoder, Emitter
from foundry.models.naming import Naming
from foundry.models.rope import INTERLEAVED


class Glm4(Decoder):
    hub = Naming(
        ("glm4",),
        defaults={"partial_rotary_factor": 0.5},
        layer={
            "post_self_attn_layernorm": "post_attention_norm",
            "post_mlp_layernorm": "post_ffw_norm",
            "mlp.gate_up_proj": "ffn_up",
        },
    )
    rope_style = INTERLEAVED

    def build(self, graph: Graph) -> None:
        emit = Emitter(graph, self.header, self.hp, self.windows)
        x = emit.embed()
        for number in range(self.hp.n_layers):
            layer = emit.layer(number)
            q, k, v = layer.qkv(layer.norm(x, "attn_norm"))
            q, k = layer.rope(q, k, self.rope)
            y = layer.attention(q, k, v, self.attention_scale)
            x = layer.add(x, layer.norm(y, "post_attention_norm"), "attention")
            y = layer.swiglu(layer.norm(x, "ffn_norm"))
            x = layer.add(x, layer.norm(y, "post_ffw_norm"), "ffn")
        emit.head(x)
