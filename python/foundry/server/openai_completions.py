"""POST /v1/completions: text that goes on, and prompts that are scored as evaluation harnesses need it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from foundry.errors import FoundryError
from foundry.generate import TokenLogprobs
from foundry.parsing import ContentDelta, Parser, parser_for
from foundry.sampling import SamplingParams
from foundry.server import fields, tokens
from foundry.server.engine import Engine
from foundry.server.identity import fresh_id
from foundry.server.refusals import JsonResponse, Refusal, refusal_of
from foundry.server.run import Run, Work
from foundry.server.sessions import Lease
from foundry.server.state import State, state_of
from foundry.server.streams import DONE, EventStream, event, unless_gone
from foundry.server.turn import Ended, Heard, Spent, collect, listen, summed, total
from foundry.server.usage import openai_usage, shortage
from foundry.tokenizer import Tokenizer


class CompletionRequest(fields.Sampling, kw_only=True):
    prompt: str | list[str | int | list[int]] | None = None
    model: str | None = None
    stream: bool | None = None
    stream_options: fields.StreamOptions | None = None
    max_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    logprobs: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    response_format: fields.ResponseFormat | None = None
    session_id: str | None = None
    append: bool | None = None


@dataclass(frozen=True)
class _Prompt:
    ids: list[int]
    text: str


@dataclass(frozen=True)
class _Plan:
    """What every prompt of a request is asked. With a session, which ``release`` lets others have, there is one prompt:
    the whole text, of which what the session holds is kept, or with ``append`` what comes behind that."""

    engine: Engine
    params: SamplingParams
    max_new: int
    n: int
    echo: bool
    began: float
    lease: Lease | None = None
    append: bool = False

    def release(self) -> None:
        if self.lease is not None:
            self.lease.release()

    @property
    def scores(self) -> bool:
        return self.echo and self.params.logprobs is not None


async def completions(request: Request) -> Response:
    began = time.monotonic()
    state = state_of(request)
    asked = await state.read(request, CompletionRequest)
    plan, prompts = await _checked(state, asked, began)
    if not asked.stream:
        try:
            return JsonResponse(await unless_gone(request, _whole(plan, prompts)))
        finally:
            plan.release()
    usage = asked.stream_options is not None and bool(asked.stream_options.include_usage)
    try:
        runs = await unless_gone(request, _start_all(plan, prompts))
    except BaseException:
        plan.release()
        raise

    async def close() -> None:
        await asyncio.gather(*(run.stop() for run in runs))
        plan.release()

    return EventStream(_Chunks(plan, prompts, runs, usage).events(), close)


async def _checked(state: State, asked: CompletionRequest, began: float) -> tuple[_Plan, list[_Prompt]]:
    engine = await state.library.engine(asked.model)
    if asked.suffix:
        raise Refusal(400, "suffix: expected none, for text is not filled in here", "suffix")
    n = fields.choices(asked.n, state.settings)
    if asked.best_of is not None and asked.best_of != n:
        raise Refusal(400, f"best_of: expected n, which is {n}, found {asked.best_of}", "best_of")
    if asked.logprobs is not None and not 0 <= asked.logprobs <= fields.MOST_TOP_LOGPROBS:
        raise fields.out_of_range("logprobs", asked.logprobs, 0, fields.MOST_TOP_LOGPROBS)
    form = fields.form_of(asked.response_format, state.settings)
    params = fields.sampling_params(asked, engine.model.arch.vocab_size, asked.logprobs, form)
    most = fields.answer_tokens("max_tokens", asked.max_tokens, least=0)
    echo = bool(asked.echo)
    if most == 1 and echo and params.logprobs is not None:
        params = replace(params, ignore_eos=True)  # an end token is the one token asked for, so that there is one
    plan = _Plan(engine, params, 16 if most is None else most, n, echo, began)
    if plan.scores and asked.stream:
        raise Refusal(400, "stream: expected no stream where echo and logprobs score the prompt", "stream")
    if asked.session_id is not None:
        return await _continued(state, plan, asked, asked.session_id)
    if asked.append:
        raise Refusal(400, "append: expected a session_id beside it, found none", "append")
    prompts = await _prompts(engine, asked.prompt, state.settings.max_prompts)
    for prompt in prompts:
        engine.check_prompt(len(prompt.ids), "prompt")
    return plan, prompts


async def _continued(
    state: State, plan: _Plan, asked: CompletionRequest, session_id: str
) -> tuple[_Plan, list[_Prompt]]:
    """With the session taken."""
    if plan.scores or plan.max_new == 0:
        raise Refusal(400, "session_id: expected a prompt that is answered, for one that is scored is computed anew")
    lease = state.sessions.take(session_id, plan.engine)
    try:
        begins = not asked.append or lease.held.session.position == 0
        prompts = await _prompts(plan.engine, asked.prompt, 1, begins)
    except BaseException:
        lease.release()
        raise
    return replace(plan, lease=lease, append=bool(asked.append)), prompts


async def _prompts(
    engine: Engine, given: str | list[str | int | list[int]] | None, most: int, begins: bool = True
) -> list[_Prompt]:
    if given is None or given == []:
        raise Refusal(400, "prompt: expected text, token ids or a list of either, found none", "prompt")
    listed: list[Any] = [given] if isinstance(given, str) or all(isinstance(one, int) for one in given) else list(given)
    if any(isinstance(one, int) for one in listed):
        raise Refusal(400, "prompt: expected text or token ids, found them mixed", "prompt")
    if len(listed) > most:
        raise Refusal(400, f"prompt: expected at most {most} prompts, found {len(listed)}", "prompt")
    return await asyncio.to_thread(lambda: [_prompt(engine, one, begins) for one in listed])


def _prompt(engine: Engine, given: str | list[int], begins: bool) -> _Prompt:
    tokenizer = engine.model.tokenizer
    if isinstance(given, str):
        try:
            return _Prompt(tokenizer.encode_prompt(given, begins=begins), given)
        except (ValueError, FoundryError) as error:
            raise Refusal(400, f"prompt: {error}", "prompt") from None
    check_ids(given, engine.model.arch.vocab_size, "prompt")
    return _Prompt(given, tokenizer.decode(given))


def _plain() -> Parser:
    """All of an answer is its text."""
    return parser_for(None)


def check_ids(ids: list[int], vocab_size: int, name: str) -> None:
    for i in ids:
        if not 0 <= i < vocab_size:
            raise Refusal(400, f"{name}: expected token ids from 0 to {vocab_size - 1}, found {i}", name)


async def _start(plan: _Plan, prompt: _Prompt) -> Run:
    matcher = await plan.engine.matcher(plan.params)
    work = Work(prompt.ids, plan.max_new, plan.params, plan.n, matcher, plan.append)
    run = await plan.engine.start(work, None if plan.lease is None else plan.lease.held.session, "prompt")
    if plan.lease is not None:
        plan.lease.held.messages = None  # what it holds from here on is text, and no conversation
    return run


async def _start_all(plan: _Plan, prompts: list[_Prompt]) -> list[Run]:
    """Those that have begun are stopped where one fails."""
    runs: list[Run] = []
    try:
        for prompt in prompts:
            runs.append(await _start(plan, prompt))
        return runs
    except BaseException:
        await asyncio.gather(*(run.stop() for run in runs))
        raise


async def _whole(plan: _Plan, prompts: list[_Prompt]) -> dict[str, Any]:
    tasks = [asyncio.ensure_future(_choices(plan, prompt)) for prompt in prompts]
    try:
        found = await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    choices = [choice for several, _ in found for choice in several]
    for index, choice in enumerate(choices):
        choice["index"] = index
    usage = openai_usage(summed([spent for _, spent in found]))
    return _base(plan) | {"choices": choices, "usage": usage}


async def _choices(plan: _Plan, prompt: _Prompt) -> tuple[list[dict[str, Any]], Spent]:
    tokenizer = plan.engine.model.tokenizer
    scored: list[TokenLogprobs | None] | None = None
    if plan.scores:
        scored = await plan.engine.score(prompt.ids, plan.params.logprobs or 0)
    if plan.max_new == 0:
        return [_choice(plan, prompt, tokenizer, "", [], "length", scored)], Spent(len(prompt.ids), 0)
    run = await _start(plan, prompt)
    turns = await collect(listen(plan.engine, run, _plain, plan.began), plan.n)
    made, ended = [], [turn.ended for turn in turns if turn.ended is not None]
    for turn, end in zip(turns, ended, strict=True):
        choice = _choice(plan, prompt, tokenizer, turn.content, turn.logprobs, end.reason, scored)
        made.append(choice | shortage(end))
    return made, total(ended)


def _choice(
    plan: _Plan,
    prompt: _Prompt,
    tokenizer: Tokenizer,
    text: str,
    found: list[TokenLogprobs],
    reason: str,
    scored: list[TokenLogprobs | None] | None,
) -> dict[str, Any]:
    logprobs = None
    if plan.params.logprobs is not None:
        of_prompt = zip(prompt.ids, scored, strict=True) if scored is not None else ()
        logprobs = tokens.OfCompletion(tokenizer).add([*of_prompt, *((one.token_id, one) for one in found)])
    text = prompt.text + text if plan.echo else text
    return {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _base(plan: _Plan) -> dict[str, Any]:
    return {
        "id": fresh_id("cmpl"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": plan.engine.name,
        "system_fingerprint": plan.engine.fingerprint,
    } | ({} if plan.lease is None else {"session_id": plan.lease.held.id})


class _Chunks:
    """All prompts' answers as one stream."""

    def __init__(self, plan: _Plan, prompts: list[_Prompt], runs: list[Run], tells_usage: bool) -> None:
        self._plan, self._prompts, self._runs, self._tells_usage = plan, prompts, runs, tells_usage
        self._base = _base(plan)
        tokenizer = plan.engine.model.tokenizer
        self._logprobs = [tokens.OfCompletion(tokenizer) for _ in range(len(prompts) * plan.n)]

    async def events(self) -> AsyncGenerator[bytes, None]:
        told: asyncio.Queue[tuple[int, Heard | Ended | Exception | None]] = asyncio.Queue()
        tasks = [asyncio.ensure_future(self._pump(i, run, told)) for i, run in enumerate(self._runs)]
        ended: list[list[Ended]] = [[] for _ in self._runs]
        try:
            if self._plan.echo:
                for i, prompt in enumerate(self._prompts):
                    for choice in range(self._plan.n):
                        yield self._chunk(i * self._plan.n + choice, prompt.text)
            left = len(self._runs)
            while left:
                place, one = await told.get()
                if isinstance(one, Exception):
                    raise one
                if one is None:
                    left -= 1
                elif isinstance(one, Ended):
                    ended[place].append(one)
                    index = place * self._plan.n + one.index
                    yield self._chunk(index, "", reason=one.reason, more=shortage(one))
                else:
                    yield self._heard(place * self._plan.n + one.index, one)
            if self._tells_usage:
                usage = openai_usage(summed([total(each) for each in ended]))
                yield event(self._base | {"choices": [], "usage": usage})
        except Exception as error:
            yield event(refusal_of(error).body())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._plan.release()  # who hears of the end may go on with the session at once
        yield DONE

    async def _pump(self, place: int, run: Run, told: asyncio.Queue[tuple[int, Any]]) -> None:
        try:
            async for one in listen(self._plan.engine, run, _plain, self._plan.began):
                told.put_nowait((place, one))
            told.put_nowait((place, None))
        except Exception as error:
            told.put_nowait((place, error))

    def _heard(self, index: int, heard: Heard) -> bytes:
        text = "".join(one.text for one in heard.events if isinstance(one, ContentDelta))
        logprobs = None
        if heard.logprobs is not None:
            logprobs = self._logprobs[index].add([(heard.logprobs.token_id, heard.logprobs)])
        return self._chunk(index, text, logprobs)

    def _chunk(
        self,
        index: int,
        text: str,
        logprobs: dict[str, Any] | None = None,
        reason: str | None = None,
        more: dict[str, Any] | None = None,
    ) -> bytes:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        usage = {"usage": None} if self._tells_usage else {}
        return event(self._base | {"choices": [choice | (more or {})]} | usage)
