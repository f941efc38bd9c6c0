"""From a request to the answer that goes out: what the routes of conversations have in common."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from foundry.server.asking import Asked
from foundry.server.refusals import JsonResponse
from foundry.server.state import State, state_of
from foundry.server.streams import EventStream, unless_gone


class Streamable(Protocol):
    stream: bool | None


class Telling(Protocol):
    """An answer in a dialect's shapes. One of the two is called, once."""

    def stream(self) -> AsyncGenerator[bytes, None]: ...

    async def whole(self) -> dict[str, Any]: ...


Body = TypeVar("Body", bound=Streamable)


async def answered(
    request: Request,
    kind: type[Body],
    begin: Callable[[State, Body, float], Awaitable[Asked]],
    tell: Callable[[Asked, Body], Telling],
) -> Response:
    """``begin`` asks what the body, a ``kind``, says; ``tell`` puts the answer into words. A client that leaves is
    noticed in either, and the answer is closed whatever happens."""
    began = time.monotonic()
    state = state_of(request)
    body = await state.read(request, kind)
    asked = await unless_gone(request, begin(state, body, began))
    telling = tell(asked, body)
    if body.stream:
        return EventStream(telling.stream(), asked.close)
    try:
        return JsonResponse(await unless_gone(request, telling.whole()))
    finally:
        await asked.close()
