"""Mixtures of experts (arXiv:1701.06538) in place of a layer's feed-forward network: a router's scores choose a few of
many networks for each token, and the layer's result is the weighted sum of theirs.

chosen, weights = route(W_router y)
ffn(y) = sum over the chosen e of weight_e W_down_e (silu(W_gate_e y) * W_up_e y), and what a shared expert makes of y
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from foundry.errors import ModelFormatError
from foundry.models.decoder import NO_WEIGHT, Layer
from foundry.models.header import Header
from foundry.models.hyperparameters import Hyperparameters

MOST_EXPERTS = 1 << 16
SOFTMAX, SIGMOID = 0, 1  # as the graph has them
SOFTMAX_OF_CHOSEN = 3  # which is a softmax of all, divided by the sum of the chosen
_GATES = {1: SOFTMAX, 2: SIGMOID, SOFTMAX_OF_CHOSEN: SOFTMAX}  # GGUF's expert_gating_func


@dataclass(frozen=True)
class Experts:
    """Of each layer.

    Attributes:
        count, used: of how many how many are chosen.
        ffn_size: of each.
        gate: what the router's scores become, ``SOFTMAX`` or ``SIGMOID``.
        normalise: weights of the chosen are divided by their sum.
        scale: what they are multiplied by.
        shared_size: the shared expert's; 0: there is none.
        biased: the file may have a bias of the choice, ``exp_probs_b``.
    """

    count: int
    used: int
    ffn_size: int
    gate: int
    normalise: bool
    scale: float
    shared_size: int
    biased: bool = False

    @staticmethod
    def read(
        header: Header,
        hp: Hyperparameters,
        ffn_size: int | None = None,
        normalise: bool = True,
        shares: bool = False,
        leads: bool = False,
        biased: bool = False,
    ) -> Experts:
        """Raises ModelFormatError that names the key which is missing or makes no sense.

        Args:
            ffn_size, normalise: where the file does not say.
            shares: a file of this family may have a shared expert.
            leads: the family has read how many of its first layers have none.
            biased: see the attribute.
        """
        count = header.integer("expert_count", most=MOST_EXPERTS + 1)
        used = header.integer("expert_used_count", most=MOST_EXPERTS + 1)
        if used > count:
            raise ModelFormatError(
                f"{header.architecture}.expert_used_count: expected at most the {count} experts that there are,"
                f" found {used}"
            )
        gating = header.integer("expert_gating_func", 1)
        if gating not in _GATES:
            raise ModelFormatError(
                f"{header.architecture}.expert_gating_func: expected 1 or 3 (softmax) or 2 (sigmoid), found {gating}"
            )
        for key in ("expert_group_count", "expert_group_used_count", "interleave_moe_layer_step", "moe_every_n_layers"):
            header.expect(key, 0, 1)
        for key in ("leading_dense_block_count", "expert_group_scale", "experts_per_group", "expert_shared_count"):
            if key != "leading_dense_block_count" or not leads:
                header.expect(key, 0)
        shared = header.integer("expert_shared_feed_forward_length", 0, least=0) if shares else 0
        return Experts(
            count=count,
            used=used,
            ffn_size=header.integer("expert_feed_forward_length", ffn_size),
            gate=_GATES[gating],
            normalise=header.flag("expert_weights_norm", normalise) or gating == SOFTMAX_OF_CHOSEN,
            scale=header.not_negative("expert_weights_scale") or 1.0,
            shared_size=shared,
            biased=biased,
        )


def mixture(layer: Layer, y: int, experts: Experts, gate: Callable[[int, int, str], int] | None = None) -> int:
    """The chosen experts' weighted sum, and the shared expert's result where there is one, times a gate's sigmoid where
    the file has a gate.

    Args:
        gate: the op that makes one of gate and up, with its name; without it swiglu.
    """
    graph, at, hidden, size = layer.graph, layer.at, layer.hp.hidden_size, experts.ffn_size
    scores = layer.linear(y, "ffn_gate_inp", experts.count, hidden)
    bias = f"{layer.prefix}.exp_probs_b.bias" if experts.biased else None
    chosen, weights = graph.route(
        scores,
        experts.used,
        experts.gate,
        experts.normalise,
        f"{at} route",
        scale=experts.scale,
        bias=layer.emitter.optional_vector(bias, experts.count),
    )

    def routed(x: int, weight: str, rows: int, cols: int) -> int:
        name = f"{layer.prefix}.{weight}"
        biased = f"{name}.bias" in layer.emitter.header.tensors
        biases = graph.experts(f"{name}.bias", experts.count, 1, rows) if biased else NO_WEIGHT
        tensor = graph.experts(f"{name}.weight", experts.count, rows, cols)
        return graph.linear_routed(x, chosen, tensor, biases, f"{at} {weight}")

    gated = routed(y, "ffn_gate_exps", size, hidden), routed(y, "ffn_up_exps", size, hidden)
    down = routed((gate or graph.swiglu)(*gated, f"{at} experts gate"), "ffn_down_exps", hidden, size)
    x = graph.sum_routed(down, weights, f"{at} experts sum")
    if experts.shared_size == 0:
        return x
    own_gate, own_up = (
        layer.linear(y, name, experts.shared_size, hidden) for name in ("ffn_gate_shexp", "ffn_up_shexp")
    )
    shared = graph.swiglu(own_gate, own_up, f"{at} shared swiglu")
    shared = layer.linear(shared, "ffn_down_shexp", hidden, experts.shared_size)
    if layer.has("ffn_gate_inp_shexp"):
        shared = graph.sigmoid_gate(shared, layer.linear(y, "ffn_gate_inp_shexp", 1, hidden), 1, f"{at} shared gate")
    return graph.add(x, shared, f"{at} shared sum")
