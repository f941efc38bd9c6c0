"""The capacity policy: how much context a session is promised and how it grows. Decides, never allocates."""

from __future__ import annotations

from dataclasses import dataclass

from foundry.checks import whole
from foundry.errors import ContextOverflowError


@dataclass(frozen=True)
class CapacityDecision:
    """Tokens: held from the start, the least that one growth adds, and the promise that admission counts."""

    initial: int
    step: int
    reserved: int


@dataclass(frozen=True)
class CapacityPolicy:
    """How a run's tokens become a promise.

    Attributes:
        headroom: tokens promised beyond prompt and new tokens.
        step: the least number of tokens that one growth adds; pages round it up.
        eager: hold the whole promise at once instead of growing into it.
    """

    headroom: int = 0
    step: int = 1
    eager: bool = False

    def __post_init__(self) -> None:
        whole("headroom", self.headroom)
        whole("step", self.step, least=1)

    def decide(self, prompt_tokens: int, max_new_tokens: int, max_seq_len: int) -> CapacityDecision:
        """The promise never passes ``max_seq_len``.

        Raises:
            ValueError: a number is negative, or no whole number.
            ContextOverflowError: the prompt alone passes ``max_seq_len``.
        """
        prompt_tokens = whole("prompt_tokens", prompt_tokens)
        max_new_tokens = whole("max_new_tokens", max_new_tokens)
        if prompt_tokens > max_seq_len:
            raise ContextOverflowError(
                f"context: needed {prompt_tokens} tokens, available {max_seq_len} (the model's max_seq_len)",
                prompt_tokens,
                max_seq_len,
            )
        reserved = min(prompt_tokens + max_new_tokens + self.headroom, max_seq_len)
        return CapacityDecision(
            initial=reserved if self.eager else min(prompt_tokens, reserved), step=self.step, reserved=reserved
        )
