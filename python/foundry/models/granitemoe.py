"""Granite 3 (IBM, 2024), mixtures of experts: Granite's four scalars, experts for its feed-forward network, and in some
a shared expert, which every token takes.

ffn(y) = sum over the chosen e of weight_e W_down_e (silu(W_gate_e y) * W_up_e y) (+ shared(y)),
         weights = softmax of the chosen's scores alone
"""

from __future__ import annotations

from foundry.models.decoder import Layer
from foundry.models.experts import Experts, mixture
from foundry.models.granite import Granite
from foundry.models.header import Header
from foundry.models.naming import Naming


class GraniteMoe(Granite):
    hub = Naming(
        ("granitemoe", "granitemoeshared"),
        refused="gate and up of its experts are one tensor there, which is not split",
    )

    def __init__(self, header: Header) -> None:
        super().__init__(header)
        self.experts = Experts.read(header, self.hp, ffn_size=self.hp.ffn_size, shares=True)

    def ffn(self, layer: Layer, y: int) -> int:
        return mixture(layer, y, self.experts)
