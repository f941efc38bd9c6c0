"""Qwen3 (arXiv:2505.09388), dense, and the text of Qwen3-VL: a norm on each head of Q and K, half-rotated rope."""

from __future__ import annotations

from foundry.models.decoder import Decoder
from foundry.models.header import Header
from foundry.models.naming import Naming
from foundry.models.rope import HALF_ROTATED


class Qwen3(Decoder):
    hub = Naming(("qwen3",), defaults={"use_sliding_window": False})
    rope_style = HALF_ROTATED
    norms_heads = True


class Qwen3VL(Qwen3):
    """Its rope has sections for time, height and width, whose positions are all the same where there is text alone; and
    what images add to the first layers is not there."""

    hub = Naming(("qwen3_vl_text",), defaults={"rope_theta": 500000.0})

    def __init__(self, header: Header) -> None:
        header.ignore("rope.dimension_sections", "n_deepstack_layers")
        super().__init__(header)
