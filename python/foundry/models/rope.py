"""How Q and K are turned by their positions (RoPE, arXiv:2104.09864), and the ways of stretching it: linear
(arXiv:2306.15595), YaRN (arXiv:2309.00071) and LongRoPE (arXiv:2402.13753)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from foundry.errors import ModelFormatError
from foundry.models.header import Header
from foundry.models.hyperparameters import Hyperparameters

INTERLEAVED = 0  # pairs (2i, 2i + 1)
HALF_ROTATED = 1  # pairs (i, i + dims / 2)
REORDERED = 2  # trained half-rotated; GGUF's converters reorder the rows of Q and K so that pairs are interleaved


@dataclass(frozen=True)
class Rope:
    """How Q and K are turned.

    Attributes:
        style: which dims make a pair, INTERLEAVED or HALF_ROTATED.
        dims: how many of a head's are turned.
        base: pair i of a position p is turned by p * scale * base ** (-2 i / dims) / factor i.
        scale: what positions are multiplied by.
        factors: divisors of the frequencies, one for each pair: a tensor's name, or the numbers; None: all are 1.
        magnitude: what the turned dims are multiplied by.
        temperature: Q is multiplied by 1 + temperature * log(1 + floor(position / temperature_length)).
        temperature_length: in positions; 0: Q is not.
    """

    style: int
    dims: int
    base: float
    scale: float = 1.0
    factors: str | tuple[float, ...] | None = None
    magnitude: float = 1.0
    temperature: float = 0.0
    temperature_length: int = 0

    def plain(self) -> Rope:
        """The same without any stretching."""
        return Rope(self.style, self.dims, self.base)


def read_rope(
    header: Header,
    hp: Hyperparameters,
    style: int,
    base: float = 1e4,
    factors: str | None = None,
    whole_pairs: bool = True,
) -> Rope:
    """Base and scaling as the file has them.

    Args:
        style: INTERLEAVED, HALF_ROTATED or REORDERED.
        base: where the file has none.
        factors: a tensor that may hold divisors of the frequencies (Llama 3); without it in the file there are none.
        whole_pairs: see ``read_yarn``.

    Raises:
        ModelFormatError: a wrong number, or a scaling of another kind than none, linear and yarn.
    """
    factors = factors if header.has_table(factors) else None
    if style == REORDERED:
        style = INTERLEAVED if header.reordered else HALF_ROTATED
    rope = Rope(
        style=style,
        dims=header.integer("rope.dimension_count", hp.head_dim),
        base=header.real("rope.freq_base", base),
        factors=factors,
    )
    factor = header.real("rope.scaling.factor", header.real("rope.scale_linear", 1.0))
    if factor == 1:  # then no kind of scaling is left to do
        header.ignore("rope.scaling.type")
        return rope
    kind = header.choice("rope.scaling.type", "linear", ("none", "", "linear", "llama3" if factors else "yarn"))
    if kind == "linear":
        return replace(rope, scale=1 / factor)
    return read_yarn(header, hp, rope, factor, whole_pairs) if kind == "yarn" else rope


def read_yarn(header: Header, hp: Hyperparameters, rope: Rope, factor: float, whole_pairs: bool = True) -> Rope:
    """Fast pairs turn as they did, slow ones ``factor`` times slower, those between by a ramp; and all grow.

    Args:
        whole_pairs: the ramp begins and ends at a pair, as in most families, and not between two.
    """
    if rope.base <= 1:
        raise ModelFormatError(f"{header.architecture}.rope.freq_base: expected above 1 for yarn, found {rope.base:g}")
    trained = header.integer("rope.scaling.original_context_length", hp.max_seq_len)
    fast = header.real("rope.scaling.yarn_beta_fast", 32.0)  # turns in the trained context
    slow = header.real("rope.scaling.yarn_beta_slow", 1.0)
    header.expect("rope.scaling.yarn_ext_factor", -1, 1)

    def pair(turns: float) -> float:
        return rope.dims * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(rope.base))

    first, last = pair(fast), pair(slow)
    if whole_pairs:
        first, last = math.floor(first), math.ceil(last)
    low, high = max(first, 0), min(last, rope.dims - 1)
    divisors = []
    for i in range(rope.dims // 2):
        kept = 1 - min(max((i - low) / max(high - low, 0.001), 0), 1)
        divisors.append(1 / (kept + (1 - kept) / factor))
    magnitude = _yarn_magnitude(factor, 1.0)
    if over := header.not_negative("rope.scaling.yarn_log_multiplier"):
        magnitude /= _yarn_magnitude(factor, over)
    # A config's attention_factor takes the place of that, as transformers has it.
    magnitude = header.real("rope.scaling.yarn_attn_factor", magnitude) * header.real("rope.scaling.attn_factor", 1.0)
    return replace(rope, factors=tuple(divisors), magnitude=magnitude)


def _yarn_magnitude(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0


def read_long_rope(header: Header, hp: Hyperparameters, rope: Rope) -> Rope:
    """Of two tables of divisors the one for the context that the model is opened with: the long one where that goes
    beyond the original context, whatever the prompt's length, so that logits depend on the tokens alone."""
    original = header.integer("rope.scaling.original_context_length", hp.max_seq_len)
    header.choice("rope.scaling.type", "longrope", ("longrope", "su"))
    tables = ["rope_factors_short.weight", "rope_factors_long.weight"]
    factors = tables.pop(1 if hp.max_seq_len > original else 0)
    header.tensors_left.update(tables)
    return replace(rope, factors=factors, magnitude=header.real("rope.scaling.attn_factor", 1.0))
