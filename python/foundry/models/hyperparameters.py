"""The numbers that every decoder has, read from a file's header and checked one by one.

What one family has besides (windows, scales, patterns) its own file reads.
"""

from __future__ import annotations

from dataclasses import dataclass

from foundry.errors import ModelFormatError
from foundry.models.header import Header

MAX_SEQ_LEN = 1 << 24  # positions are exact in f32 up to here


@dataclass(frozen=True)
class Hyperparameters:
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    hidden_size: int
    ffn_size: int
    vocab_size: int
    max_seq_len: int
    norm_eps: float

    @staticmethod
    def read(
        header: Header,
        norm_eps: str = "attention.layer_norm_rms_epsilon",
        n_kv_heads: int | None = None,
        ffn_size: int | None = None,
    ) -> Hyperparameters:
        """Raises ModelFormatError that names the key which is missing or makes no sense.

        Args:
            norm_eps: the key for the norms' epsilon.
            n_kv_heads: where the family has read them itself.
            ffn_size: where the file does not say.
        """
        if "token_embd.weight" not in header.tensors:
            raise ModelFormatError('the file has no tensor "token_embd.weight"')
        name = header.architecture
        hidden, heads = header.integer("embedding_length"), header.same_integer("attention.head_count")
        if hidden % heads != 0 and "attention.key_length" not in header:
            raise ModelFormatError(f"{name}.embedding_length: expected a multiple of the {heads} heads, found {hidden}")
        head_dim = header.integer("attention.key_length", hidden // heads)
        if head_dim % 4 != 0:
            raise ModelFormatError(f"{name}.attention.key_length: expected a multiple of 4, found {head_dim}")
        value_dim = header.integer("attention.value_length", head_dim)
        if value_dim != head_dim:
            raise ModelFormatError(
                f"{name}.attention.value_length: expected the key length {head_dim}, found {value_dim}"
            )
        header.expect("embedding_length_out", 0, hidden)
        return Hyperparameters(
            n_layers=header.integer("block_count", most=1 << 16),
            n_heads=heads,
            n_kv_heads=n_kv_heads or header.same_integer("attention.head_count_kv", heads),
            head_dim=head_dim,
            hidden_size=hidden,
            ffn_size=header.same_integer("feed_forward_length", ffn_size),
            vocab_size=header.tensors["token_embd.weight"][0],
            max_seq_len=header.integer("context_length", most=MAX_SEQ_LEN),
            norm_eps=header.real(norm_eps),
        )
