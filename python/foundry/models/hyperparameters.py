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
    rms_eps: float

    @staticmethod
    def read(header: Header) -> Hyperparameters:
        """Raises ModelFormatError that names the key which is missing or makes no sense."""
        if "token_embd.weight" not in header.tensors:
            raise ModelFormatError('the file has no tensor "token_embd.weight"')
        name = header.architecture
        hidden, heads = header.integer("embedding_length"), header.integer("attention.head_count")
        if hidden % heads != 0 and "attention.key_length" not in header:
            raise ModelFormatError(f"{name}.embedding_length: expected a multiple of the {heads} heads, found {hidden}")
        head_dim = header.integer("attention.key_length", hidden // heads)
        value_dim = header.integer("attention.value_length", head_dim)
        if value_dim != head_dim:
            raise ModelFormatError(
                f"{name}.attention.value_length: expected the key length {head_dim}, found {value_dim}"
            )
        header.expect("embedding_length_out", 0, hidden)
        return Hyperparameters(
            n_layers=header.integer("block_count", most=1 << 16),
            n_heads=heads,
            n_kv_heads=header.integer("attention.head_count_kv", heads),
            head_dim=head_dim,
            hidden_size=hidden,
            ffn_size=header.integer("feed_forward_length"),
            vocab_size=header.tensors["token_embd.weight"][0],
            max_seq_len=header.integer("context_length", most=MAX_SEQ_LEN),
            rms_eps=header.real("attention.layer_norm_rms_epsilon"),
        )


@dataclass(frozen=True)
class Rope:
    """How Q and K are turned by their positions (arXiv:2104.09864).

    Attributes:
        style: which dims make a pair, INTERLEAVED or HALF_ROTATED.
        dims: how many of a head's are turned.
        base: pair i of a position p is turned by p * scale * base ** (-2 i / dims).
        scale: what positions are multiplied by.
        factors: the tensor of divisors, one for each pair's frequency, or None.
    """

    style: int
    dims: int
    base: float
    scale: float = 1.0
    factors: str | None = None


INTERLEAVED = 0  # pairs (2i, 2i + 1), as GGUF stores llama
HALF_ROTATED = 1  # pairs (i, i + dims / 2)


def read_rope(header: Header, hp: Hyperparameters, style: int, base: float = 1e4, factors: str | None = None) -> Rope:
    """Base and linear scaling (arXiv:2306.15595) as the file has them.

    Args:
        base: where the file has none.
        factors: a tensor that may hold divisors of the frequencies (Llama 3); without it in the file there are none.

    Raises:
        ModelFormatError: a wrong number, or a scaling of another kind (yarn, longrope).
    """
    factors = factors if factors in header.tensors else None
    factor = header.real("rope.scaling.factor", header.real("rope.scale_linear", 1.0))
    if factor == 1:  # then no kind of scaling is left to do
        header.ignore("rope.scaling.type")
        kind = "none"
    else:
        done = ("none", "", "linear", "llama3") if factors else ("none", "", "linear")
        kind = header.choice("rope.scaling.type", "linear", done)
    return Rope(
        style=style,
        dims=header.integer("rope.dimension_count", hp.head_dim),
        base=header.real("rope.freq_base", base),
        scale=1 / factor if kind == "linear" else 1.0,
        factors=factors,
    )
