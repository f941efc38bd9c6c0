"""Many clients of a server at once: who asks whole answers and streams in each dialect, calls and forms, who leaves in
the middle, and who asks too much. Each answer must be the one that the request got alone."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
_OBJECT = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}, "level": {"enum": ["low", "high"]}},
    "required": ["on", "level"],
    "additionalProperties": False,
}
_TOOLS = [{"type": "function", "function": {"name": "set_light", "description": "A lamp.", "parameters": _OBJECT}}]
_PLAN = "You are an assistant of few words, and this is the plan that all of your answers follow. " * 4
_REFUSALS = {429, 503}
_NOT_THE_ANSWER = {"id", "created", "created_at", "usage", "cache_miss", "system_fingerprint", "item_id", "call_id"}


@dataclass(frozen=True)
class Question:
    path: str
    body: dict[str, Any]


@dataclass
class Seen:
    """``counts``: of what happened. ``wrong``: what should not have."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def questions(n: int) -> list[Question]:
    """``n`` of each kind; the temperatures are hot and the seeds fixed."""
    made = []
    for i in range(n):
        text = f"Question {i}: " + "why is that so, and what follows from it? " * (i % 5 + 1)
        messages = [{"role": "user", "content": text}]
        hot = {"temperature": 1.0, "seed": i}
        told = [{"role": "system", "content": _PLAN}, *messages]
        form = {"type": "json_schema", "json_schema": {"name": "light", "schema": _OBJECT}}
        made += [
            Question(CHAT, {"messages": told, "max_tokens": 24, **hot}),
            Question(CHAT, {"messages": told, "max_tokens": 12, "n": 2, "logprobs": True, "top_logprobs": 2, **hot}),
            Question(CHAT, {"messages": messages, "max_tokens": 60, "tools": _TOOLS, "tool_choice": "required", **hot}),
            Question(CHAT, {"messages": messages, "max_tokens": 60, "response_format": form, **hot}),
            Question(COMPLETIONS, {"prompt": text, "max_tokens": 20, "frequency_penalty": 0.5, **hot}),
            Question(COMPLETIONS, {"prompt": text, "max_tokens": 2, "echo": True, "logprobs": 1, **hot}),
            Question(RESPONSES, {"input": text, "max_output_tokens": 16, **hot}),
            Question(MESSAGES, {"messages": messages, "max_tokens": 16, **hot}),
        ]
    return made


class Crowd:
    def __init__(self, url: str, model: str, context: int) -> None:
        """``context``: tokens; prompts of more words than that are refused."""
        self.url, self._model, self._context = url, model, context
        self._alone: list[tuple[Question, Any]] = []
        self.seen = Seen()

    def ask_alone(self, asked: list[Question]) -> None:
        """One after the other, with nothing kept from the one before."""
        with httpx.Client(base_url=self.url, timeout=120) as client:
            for question in asked:
                client.delete("/v1/cache")
                answer = client.post(question.path, json={"model": self._model, **question.body})
                assert answer.status_code == 200, answer.text
                self._alone.append((question, said(answer.json())))
            client.delete("/v1/cache")

    def run(self, clients: int, seconds: float, seed: int = 0) -> Seen:
        """So many at once, for so long; they end what they have begun."""
        asyncio.run(self._all(clients, time.monotonic() + seconds, seed))
        return self.seen

    async def _all(self, clients: int, until: float, seed: int) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=clients)
        async with httpx.AsyncClient(base_url=self.url, timeout=300, limits=limits) as client:
            await asyncio.gather(*(self._one(client, until, random.Random(f"{seed} {i}")) for i in range(clients)))

    async def _one(self, client: httpx.AsyncClient, until: float, draw: random.Random) -> None:
        kinds = {self._whole: 4, self._stream: 4, self._leaves_whole: 1, self._leaves_stream: 2, self._overlong: 1}
        while time.monotonic() < until:
            kind = draw.choices(list(kinds), list(kinds.values()))[0]
            try:
                await kind(client, draw)
                self.seen.counts[kind.__name__.lstrip("_")] += 1
            except Exception as error:
                self.seen.wrong.append(f"{kind.__name__}: {type(error).__name__}: {error}")

    async def _whole(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        question, alone = draw.choice(self._alone)
        answer = await client.post(question.path, json={"model": self._model, **question.body})
        if answer.status_code in _REFUSALS:
            self.seen.counts[f"refused with {answer.status_code}"] += 1
        elif answer.status_code != 200 or (found := said(answer.json())) != alone:
            told = answer.text if answer.status_code != 200 else f"{found} and not {alone}"
            self.seen.wrong.append(f"{question}: {answer.status_code}: {told}")

    async def _stream(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        """Its text is that of the whole answer; for chats of one choice, the others are compared whole."""
        question, alone = draw.choice([one for one in self._alone if _plain(one[0])])
        events = await self._events(client, question, 1 << 30)
        if events is None:
            return
        text = "".join(_delta(question.path, json.loads(event)) for event in events if event != "[DONE]")
        if text != _text(question.path, alone):
            self.seen.wrong.append(f"{question}, streamed: {text!r} and not {_text(question.path, alone)!r}")

    async def _leaves_stream(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        question, _ = draw.choice([one for one in self._alone if _plain(one[0])])
        more = {"max_output_tokens" if question.path == RESPONSES else "max_tokens": 500}
        await self._events(client, Question(question.path, question.body | more), draw.randrange(12))

    async def _leaves_whole(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        question, _ = draw.choice(self._alone)
        body = {"model": self._model, **question.body}
        try:
            await client.post(question.path, json=body, timeout=httpx.Timeout(60, read=draw.uniform(0.001, 0.5)))
        except httpx.ReadTimeout:
            self.seen.counts["hung up"] += 1

    async def _overlong(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        if told := await self.overlong(client, draw):
            self.seen.wrong.append(told)

    async def overlong(self, client: httpx.AsyncClient, draw: random.Random) -> str | None:
        """A prompt that no context of the model holds, in some dialect: what was wrong with the answer, or None."""
        text = " ".join(f"w{draw.randrange(100)}" for _ in range(draw.randrange(self._context, 2 * self._context)))
        messages = [{"role": "user", "content": text}]
        path, body = draw.choice(
            [
                (CHAT, {"messages": messages}),
                (COMPLETIONS, {"prompt": text}),
                (COMPLETIONS, {"prompt": text, "echo": True, "logprobs": 1, "max_tokens": 0}),
                (RESPONSES, {"input": text}),
                (MESSAGES, {"messages": messages, "max_tokens": 8}),
            ]
        )
        stream = draw.random() < 0.5 and "echo" not in body
        answer = await client.post(path, json={"model": self._model, "stream": stream, **body})
        named = f"at most {self._context - 1} tokens, for the context has {self._context}"
        if answer.status_code == 400 and named in answer.json()["error"]["message"]:
            return None
        return f"overlong at {path}: {answer.status_code}: {answer.text[:300]}"

    async def _events(self, client: httpx.AsyncClient, question: Question, most: int) -> list[str] | None:
        """None where it was refused, or left after so many events."""
        body = {"model": self._model, "stream": True, **question.body}
        events: list[str] = []
        async with client.stream("POST", question.path, json=body) as answer:
            if answer.status_code in _REFUSALS:
                self.seen.counts[f"refused with {answer.status_code}"] += 1
                return None
            assert answer.status_code == 200, await answer.aread()
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    events.append(line.removeprefix("data: "))
                if len(events) > most:
                    return None
        return events


def said(found: Any) -> Any:
    """An answer without what is another's each time."""
    if isinstance(found, Mapping):
        return {key: said(value) for key, value in found.items() if key not in _NOT_THE_ANSWER}
    return [said(one) for one in found] if isinstance(found, list) else found


def _plain(question: Question) -> bool:
    return not {"n", "tools", "response_format", "echo"} & question.body.keys()


def _text(path: str, found: Any) -> str:
    if path == RESPONSES:
        return "".join(part["text"] for item in found["output"] for part in item.get("content", []))
    if path == MESSAGES:
        return "".join(block["text"] for block in found["content"])
    choice = found["choices"][0]
    return str(choice["text"] if path == COMPLETIONS else choice["message"]["content"])


def _delta(path: str, event: dict[str, Any]) -> str:
    assert "error" not in event, event
    if path == RESPONSES:
        return str(event["delta"]) if event["type"] == "response.output_text.delta" else ""
    if path == MESSAGES:
        return str(event["delta"]["text"]) if event["type"] == "content_block_delta" else ""
    choice = event["choices"][0]
    return str(choice["text"] if path == COMPLETIONS else choice["delta"].get("content", ""))
