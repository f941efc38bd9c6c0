"""EXAONE 3 and 3.5 (arXiv:2408.03541): Llama with half-rotated rope."""

from __future__ import annotations

from foundry.models.decoder import Decoder
from foundry.models.rope import HALF_ROTATED


class Exaone(Decoder):
    rope_style = HALF_ROTATED
