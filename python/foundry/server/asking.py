"""From a conversation of any dialect to an answer that has begun."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from foundry.server import conversation, fields
from foundry.server.engine import Engine
from foundry.server.parsers import Plain
from foundry.server.run import Run, Work
from foundry.server.state import State
from foundry.server.tools import NamedTool, Tool
from foundry.server.turn import Ended, Heard, listen


@dataclass
class Asked:
    """An answer, or several, under way."""

    engine: Engine
    run: Run
    n: int
    heard: AsyncIterator[Heard | Ended]
    prompt_tokens: int
    wants_logprobs: bool = False

    def notes(self) -> dict[str, Any]:
        """What is told beside the protocol's own fields."""
        return {}

    async def close(self) -> None:
        """Stops what still runs."""
        await self.heard.aclose()  # type: ignore[attr-defined]  # generators have it
        await self.run.stop()


async def ask(
    state: State,
    model: str | None,
    messages: list[dict[str, Any]],
    sampling: fields.Sampling,
    began: float,
    *,
    max_new: int | None,
    n: int = 1,
    logprobs: int | None = None,
    form: fields.ResponseFormat | None = None,
    tools: Sequence[Tool] | None = None,
    tool_choice: str | NamedTool | None = None,
    variables: dict[str, Any] | None = None,
    session_id: str | None = None,
    append: bool = False,
) -> Asked:
    """Checks everything that can be checked before the first token, then begins. Raises Refusal."""
    engine = await state.library.engine(model)
    tokenizer = engine.model.tokenizer
    form_fields = fields.form_of(form, state.settings)
    params = fields.sampling_params(sampling, engine.model.arch.vocab_size, logprobs, form_fields)
    ids = await conversation.prompt_ids(tokenizer, messages, **(variables or {}))
    engine.check_prompt(len(ids))
    matcher = await engine.matcher(params)
    run = await engine.start(Work(ids, max_new, params, n, matcher))
    return Asked(engine, run, n, listen(engine, run, Plain, began), len(ids), logprobs is not None)
