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
from foundry.models.naming import Made, Naming, first_half, second_half

GATE_UP = "block_sparse_moe.input_linear.weight"  # of all experts


class GraniteMoe(Granite):
    hub = Naming(
        ("granitemoe", "granitemoeshared"),
        keys={
            **Granite.hub.keys,
            "num_local_experts": "expert_count",
            "num_experts_per_tok": "expert_used_count",
            "shared_intermediate_size": "expert_shared_feed_forward_length",
        },
        defaults=Granite.hub.defaults,
        layer={"block_sparse_moe.router.layer": "ffn_gate_inp", "shared_mlp.output_linear": "ffn_down_shexp"},
        made=(
            Made(GATE_UP, "ffn_gate_exps.weight", rows=first_half, stacked=True),
            Made(GATE_UP, "ffn_up_exps.weight", rows=second_half, stacked=True),
            Made("block_sparse_moe.output_linear.weight", "ffn_down_exps.weight", stacked=True),
            Made("shared_mlp.input_linear.weight", "ffn_gate_shexp.weight", rows=first_half),
            Made("shared_mlp.input_linear.weight", "ffn_up_shexp.weight", rows=second_half),
        ),
    )

    def __init__(self, header: Header) -> None:
        super().__init__(header)
        self.experts = Experts.read(header, self.hp, ffn_size=self.hp.ffn_size, shares=True)

    def ffn(self, layer: Layer, y: int) -> int:
        return mixture(layer, y, self.experts)
