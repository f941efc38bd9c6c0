"""Qwen2 and Qwen2.5 (arXiv:2407.10671): biases on Q, K and V, half-rotated rope."""

from __future__ import annotations

from foundry.models.decoder import Decoder
from foundry.models.naming import Naming
from foundry.models.rope import HALF_ROTATED


class Qwen2(Decoder):
    hub = Naming(("qwen2",), defaults={"use_sliding_window": False})
    rope_style = HALF_ROTATED
