"""From a conversation of any dialect to an answer that has begun."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any

from foundry.sampling import SamplingParams
from foundry.server import conversation, fields
from foundry.server.engine import Engine
from foundry.server.refusals import Refusal
from foundry.server.run import Run, Work
from foundry.server.sessions import Lease
from foundry.server.state import State
from foundry.server.tools import Offer
from foundry.server.turn import Ended, Heard, Turn, listen
from foundry.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """A conversation as tokens. ``messages`` are as the client sent them."""

    ids: list[int]
    messages: list[dict[str, Any]]


@dataclass
class Asked:
    """An answer, or several, under way. Whoever has it closes it."""

    engine: Engine
    run: Run
    n: int
    prompt: Prompt
    lease: Lease | None = None
    wants_logprobs: bool = False
    heard: AsyncGenerator[Heard | Ended, None] = field(init=False)
    _notes: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt.ids)

    def notes(self) -> dict[str, Any]:
        """What is told beside the protocol's own fields, once the answer has ended."""
        return self._notes

    async def remembering(self, heard: AsyncGenerator[Heard | Ended, None]) -> AsyncGenerator[Heard | Ended, None]:
        """What is heard, passed on; the first answer is remembered as the conversation's next message. Before the last
        answer's end is told, others may have the session: who hears of it may go on at once."""
        turn, left = Turn(), self.n
        try:
            async for one in heard:
                if isinstance(one, Ended):
                    if one.index == 0:
                        turn.end(one)
                        self._remember(turn, one)
                    left -= 1
                    if left == 0:
                        self._release()
                elif one.index == 0:
                    for event in one.events:
                        turn.add(event)
                yield one
        finally:
            await heard.aclose()
            self._release()

    def _release(self) -> None:
        if self.lease is not None:
            self.lease.release()

    def _remember(self, turn: Turn, ended: Ended) -> None:
        engine, prompt = self.engine, self.prompt
        found = ended.usage.cached_tokens
        miss = engine.reuse.miss(engine.model.tokenizer, prompt.messages, prompt.ids, found)
        if miss is not None:
            self._notes["cache_miss"] = miss
        answered = [*prompt.messages, turn.message()]
        if self.run.history is not None:
            engine.reuse.remember(answered, self.run.history)
        if self.lease is not None:
            self.lease.held.messages = answered
            self._notes["session_id"] = self.lease.held.id

    async def close(self) -> None:
        """Stops what still runs, and lets others have the session."""
        await self.heard.aclose()
        await self.run.stop()
        self._release()


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
    continues: bool = False,
) -> Asked:
    """Checks everything that can be checked before the first token, then begins. Raises Refusal.

    With a session ``messages`` are the whole conversation, of which what it holds is kept; or with ``append`` those
    that come behind its own.
    """
    engine = await state.library.engine(model)
    if append and session_id is None:
        raise Refusal(400, "append: expected a session_id beside it, found none", "append")
    lease = None if session_id is None else state.sessions.take(session_id, engine)
    try:
        if append and lease is not None:
            if lease.held.messages is None:
                raise Refusal(400, "append: expected a session whose messages are known; send all of them", "append")
            messages = [*lease.held.messages, *messages]
        tokenizer = engine.model.tokenizer
        form_fields = fields.form_of(form, state.settings)
        params = fields.sampling_params(sampling, engine.model.arch.vocab_size, logprobs, form_fields)
        prompt = await prompt_of(engine, messages, offer, variables or {}, continues)
        reader = offer.reader(tokenizer, prompt.ids)
        params = bound(params, offer, tokenizer, prompt.ids)
        params = replace(params, spelled=reader().spelled)
        matcher = await engine.matcher(params)
        work = Work(prompt.ids, max_new, params, n, matcher)
        run = await engine.start(work, None if lease is None else lease.held.session)
    except BaseException:
        if lease is not None:
            lease.release()
        raise
    asked = Asked(engine, run, n, prompt, lease, logprobs is not None)
    asked.heard = asked.remembering(listen(engine, run, reader, began))
    return asked


async def prompt_of(
    engine: Engine, messages: list[dict[str, Any]], offer: Offer, variables: dict[str, Any], continues: bool = False
) -> Prompt:
    """Raises Refusal for messages that the template refuses, and for a prompt over the context."""
    tokenizer = engine.model.tokenizer
    conversation.check_variables(variables)
    told, beside = offer.told(tokenizer, messages)
    ids = await conversation.prompt_ids(tokenizer, told, continues, variables | beside)
    engine.check_prompt(len(ids))
    return Prompt(ids, messages)


def bound(params: SamplingParams, offer: Offer, tokenizer: Tokenizer, ids: list[int]) -> SamplingParams:
    """With the grammar of the calls that are asked for, and with what else the answer may be."""
    if not offer.tools or (offer.choice == "auto" and not params.constrained):
        return params
    if params.constrained and (offer.bound or params.schema is None):
        raise Refusal(400, "response_format: expected none, or a JSON schema with tool_choice auto, beside tools")
    return replace(params, schema=None, grammar=offer.grammar(tokenizer, ids, params.schema))
