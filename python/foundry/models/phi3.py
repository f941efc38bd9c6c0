"""Phi-3, Phi-3.5 and Phi-4 (arXiv:2404.14219, arXiv:2412.08905): Llama with Q, K and V in one weight and gate and up in
another, half-rotated rope of a part of each head, and, in long ones, LongRoPE."""

from __future__ import annotations

from foundry.models.decoder import Decoder
from foundry.models.naming import Naming
from foundry.models.rope import HALF_ROTATED, Rope, read_long_rope


class Phi3(Decoder):
    """A window is that of all layers. What llama.cpp leaves out of it is done, as transformers does it."""

    hub = Naming(("phi3",), layer={"mlp.gate_up_proj": "ffn_up"})
    rope_style = HALF_ROTATED

    def read_rope(self) -> Rope:
        if not self.header.has_table("rope_factors_long.weight"):
            return super().read_rope()
        dims = self.header.integer("rope.dimension_count", self.hp.head_dim)
        rope = Rope(self.rope_style, dims, self.header.real("rope.freq_base", 1e4))
        return read_long_rope(self.header, self.hp, rope)
