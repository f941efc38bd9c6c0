"""SmolLM3 (Hugging Face, 2025): Llama without positions in each fourth layer (NoPE, arXiv:2501.18795)."""

from __future__ import annotations

from foundry.models.decoder import Decoder
from foundry.models.rope import INTERLEAVED

EACH = 4  # layers; the file does not say so


class SmolLM3(Decoder):
    rope_style = INTERLEAVED  # converters reorder Q and K as they do for Llama

    def turns(self, number: int) -> bool:
        return number % EACH != EACH - 1
