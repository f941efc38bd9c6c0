"""Faults of the server's own, as a 500 to the client: nothing of what was at fault is told there."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foundry.server.refusals import refusal_of, speaks_anthropic


class Faults:
    """Around the routes. The connection lives on where no byte of an answer has been sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http" or begun:
                raise
            await refusal_of(error).response(speaks_anthropic(scope["path"]))(scope, receive, send)
