"""Ministral 3 (Mistral AI, 2025): Llama with YaRN, and queries that grow with their position (as in Llama 4)."""

from __future__ import annotations

from dataclasses import replace

from foundry.models.decoder import Decoder
from foundry.models.naming import Naming
from foundry.models.rope import REORDERED, Rope


class Mistral3(Decoder):
    hub = Naming(("ministral3",))
    rope_style = REORDERED

    def read_rope(self) -> Rope:
        rope, header = super().read_rope(), self.header
        temperature = header.not_negative("attention.temperature_scale")
        if temperature == 0:
            return rope
        length = header.integer("rope.scaling.original_context_length", self.hp.max_seq_len)
        return replace(rope, temperature=temperature, temperature_length=length)
