"""InternLM2 and 2.5 (arXiv:2403.17297): Llama, whose fused QKV converters split and reorder."""

from __future__ import annotations

from foundry.models.decoder import Decoder
from foundry.models.naming import Naming
from foundry.models.rope import REORDERED


class InternLM2(Decoder):
    hub = Naming(
        ("internlm2",), refused="its Q, K and V lie mixed in one weight, which converters to GGUF put in order"
    )
    rope_style = REORDERED
