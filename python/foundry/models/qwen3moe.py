"""Qwen3 (arXiv:2505.09388), mixtures of experts: Qwen3 whose feed-forward networks are 128 of which 8 are chosen.

ffn(y) = sum over the chosen e of weight_e W_down_e (silu(W_gate_e y) * W_up_e y),
         weights = softmax(W_router y) of the chosen, divided by their sum
"""

from __future__ import annotations

from foundry.models.decoder import Layer
from foundry.models.experts import Experts, mixture
from foundry.models.header import Header
from foundry.models.naming import KEYS_OF_EXPERTS, Naming, of_experts
from foundry.models.qwen3 import Qwen3


class Qwen3Moe(Qwen3):
    hub = Naming(
        ("qwen3_moe",),
        keys=KEYS_OF_EXPERTS | {"num_local_experts": "expert_count", "norm_topk_prob": "expert_weights_norm"},
        defaults={"use_sliding_window": False, "norm_topk_prob": False},
        layer={"mlp.gate": "ffn_gate_inp"},
        made=of_experts("mlp.experts"),
    )

    def __init__(self, header: Header) -> None:
        super().__init__(header)
        self.experts = Experts.read(header, self.hp)

    def ffn(self, layer: Layer, y: int) -> int:
        return mixture(layer, y, self.experts)
