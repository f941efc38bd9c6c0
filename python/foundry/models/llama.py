"""Llama 2 and 3 (arXiv:2307.09288, arXiv:2407.21783), Mistral (arXiv:2310.06825), SmolLM2 (arXiv:2502.02737)."""

from __future__ import annotations

from foundry.models.decoder import Decoder
from foundry.models.naming import Naming
from foundry.models.rope import REORDERED


class Llama(Decoder):
    hub = Naming(("llama", "mistral"))
    rope_style = REORDERED
