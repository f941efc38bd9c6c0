"""Ministral 3 (Mistral AI, 2025): Llama with YaRN, and queries that grow with their position (as in Llama 4)."""

from __future__ import annotations

from dataclasses import replace

from foundry.models.decoder import Decoder
from foundry.models.rope import INTERLEAVED, Rope


class Mistral3(Decoder):
    rope_style = INTERLEAVED  # converters reorder Q and K as they do for Llama

    def read_rope(self) -> Rope:
        rope, header = super().read_rope(), self.header
        temperature = header.not_negative("attention.temperature_scale")
        if temperature == 0:
            return rope
        length = header.integer("rope.scaling.original_context_length", self.hp.max_seq_len)
        return replace(rope, temperature=temperature, temperature_length=length)
