"""InternLM2 and 2.5 (arXiv:2403.17297): Llama, whose fused QKV converters split and reorder."""

from __future__ import annotations

from foundry.models.decoder import Decoder
from foundry.models.rope import INTERLEAVED


class InternLM2(Decoder):
    rope_style = INTERLEAVED
