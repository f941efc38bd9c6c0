"""SmolLM3 (Hugging Face, 2025): Llama without positions in each fourth layer (NoPE, arXiv:2501.18795)."""

from __future__ import annotations

from foundry.models.decoder import Decoder
from foundry.models.header import Header
from foundry.models.naming import Naming
from foundry.models.rope import REORDERED

EACH = 4  # layers; a GGUF file does not say so


class SmolLM3(Decoder):
    hub = Naming(
        ("smollm3",),
        keys={"no_rope_layers": "rope.layers"},
        defaults={"rope_theta": 2000000.0, "use_sliding_window": False},
        tied=True,
    )
    rope_style = REORDERED

    def __init__(self, header: Header) -> None:
        super().__init__(header)
        each = [number % EACH != EACH - 1 for number in range(self.hp.n_layers)]
        self.turned = header.flags("rope.layers", each)

    def turns(self, number: int) -> bool:
        return self.turned[number]
