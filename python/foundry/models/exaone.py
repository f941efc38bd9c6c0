"""EXAONE 3 and 3.5 (arXiv:2408.03541): Llama with half-rotated rope."""

from __future__ import annotations

from foundry.models.decoder import Decoder
from foundry.models.naming import Naming
from foundry.models.rope import HALF_ROTATED


class Exaone(Decoder):
    hub = Naming(
        ("exaone",),
        keys={
            "num_layers": "block_count",
            "layer_norm_epsilon": "attention.layer_norm_rms_epsilon",
            "activation_function": "hidden_activation",
        },
        once={"wte": "token_embd", "ln_f": "output_norm"},
        layers="h",
        layer={
            "attn.attention.q_proj": "attn_q",
            "attn.attention.k_proj": "attn_k",
            "attn.attention.v_proj": "attn_v",
            "attn.attention.out_proj": "attn_output",
            "ln_1": "attn_norm",
            "ln_2": "ffn_norm",
            "mlp.c_fc_0": "ffn_gate",
            "mlp.c_fc_1": "ffn_up",
            "mlp.c_proj": "ffn_down",
        },
    )
    rope_style = HALF_ROTATED
