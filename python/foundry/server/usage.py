"""How many tokens, and what memory had to do with it, in the shapes of the dialects."""

from __future__ import annotations

from typing import Any

from foundry.server.turn import Ended, Spent


def openai_usage(usage: Spent) -> dict[str, Any]:
    """Of models with recurrent layers also the tokens that ran again (``Usage.replayed_tokens``), where some did."""
    replayed = {"replayed_tokens": usage.replayed_tokens} if usage.replayed_tokens else {}
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens} | replayed,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def shortage(ended: Ended) -> dict[str, Any]:
    """Beside a choice whose answer ended for want of memory; else nothing."""
    if ended.short is None:
        return {}
    figures = {"needed_bytes": ended.short.needed_bytes, "available_bytes": ended.short.available_bytes}
    return {"finish_details": {"type": "memory_limit", "message": str(ended.short), **figures}}
