"""From a conversation of any dialect to an answer that has begun."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from foundry.sampling import SamplingParams
from foundry.server import conversation, fields
from foundry.server.engine import Engine
from foundry.server.refusals import Refusal
from foundry.server.run import Run, Work
from foundry.server.state import State
from foundry.server.tools import Offer
from foundry.server.turn import Ended, Heard, listen
from foundry.tokenizer import Tokenizer


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
    offer: Offer = Offer(),  # noqa: B008  # it is frozen
    variables: dict[str, Any] | None = None,
    session_id: str | None = None,
    append: bool = False,
) -> Asked:
    """Checks everything that can be checked before the first token, then begins. Raises Refusal."""
    engine = await state.library.engine(model)
    tokenizer = engine.model.tokenizer
    form_fields = fields.form_of(form, state.settings)
    params = fields.sampling_params(sampling, engine.model.arch.vocab_size, logprobs, form_fields)
    messages, beside = offer.told(tokenizer, messages)
    ids = await conversation.prompt_ids(tokenizer, messages, **(variables or {}), **beside)
    engine.check_prompt(len(ids))
    reader = offer.reader(tokenizer, ids)
    params = bound(params, offer, tokenizer, ids)
    params = replace(params, spelled=reader().spelled)
    matcher = await engine.matcher(params)
    run = await engine.start(Work(ids, max_new, params, n, matcher))
    return Asked(engine, run, n, listen(engine, run, reader, began), len(ids), logprobs is not None)


def bound(params: SamplingParams, offer: Offer, tokenizer: Tokenizer, ids: list[int]) -> SamplingParams:
    """With the grammar of the calls that are asked for, and with what else the answer may be."""
    if not offer.tools or (offer.choice == "auto" and not params.constrained):
        return params
    if params.constrained and (offer.bound or params.schema is None):
        raise Refusal(400, "response_format: expected none, or a JSON schema with tool_choice auto, beside tools")
    return replace(params, schema=None, grammar=offer.grammar(tokenizer, ids, params.schema))
