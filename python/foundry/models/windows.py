"""Which layers see a window of the last tokens, and which see everything."""

from __future__ import annotations

from foundry import _core
from foundry.errors import ModelFormatError
from foundry.models.header import Header
from foundry.models.hyperparameters import Hyperparameters
from foundry.models.rope import Rope

PATTERN = "attention.sliding_window_pattern"
KEYS = (
    "attention.key_length_swa",
    "attention.value_length_swa",
    PATTERN,
    "rope.dimension_count_swa",
    "rope.freq_base_swa",
)


def read_windows(header: Header, hp: Hyperparameters, every: int, window: int | None = None) -> list[int]:
    """Of each layer the tokens that it sees; 0: all of them.

    The pattern is a number n, where each n-th layer sees everything (0: none does), or whether a layer has the window,
    for each layer; where the file has none, it is ``every``.

    Args:
        window: where the file has none; without it the key is needed.
    """
    window = header.integer("attention.sliding_window", window, least=0)
    pattern = header.metadata.get(f"{header.architecture}.{PATTERN}")
    if isinstance(pattern, list | _core.MetadataArray):
        header.ignore(PATTERN)
        windowed = list(pattern)
        if len(windowed) != hp.n_layers or not all(isinstance(one, bool | int) for one in windowed):
            raise ModelFormatError(
                f"{header.architecture}.{PATTERN}: expected yes or no for each of {hp.n_layers} layers,"
                f" found {len(windowed)} values"
            )
        return [window if one else 0 for one in windowed]
    n = header.integer(PATTERN, every, least=0)
    return [0 if n and layer % n == n - 1 else window for layer in range(hp.n_layers)]


def expect_windows_like_the_rest(header: Header, hp: Hyperparameters, rope: Rope) -> None:
    """Of a model that has windows: its keys for layers with one must say what holds for all layers."""
    header.expect("attention.key_length_swa", hp.head_dim)
    header.expect("attention.value_length_swa", hp.head_dim)
    header.expect("rope.dimension_count_swa", rope.dims)
