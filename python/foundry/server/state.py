"""What the routes of an app have in common."""

from __future__ import annotations

from typing import TypeVar, cast

from starlette.requests import Request

from foundry.server import bodies
from foundry.server.library import Library
from foundry.server.metrics import Metrics
from foundry.server.sessions import Sessions
from foundry.server.settings import Settings

T = TypeVar("T")


class State:
    def __init__(self, library: Library, settings: Settings, metrics: Metrics) -> None:
        self.library = library
        self.settings = settings
        self.metrics = metrics
        self.sessions = Sessions(settings)

    async def read(self, request: Request, kind: type[T]) -> T:
        return await bodies.read(request, kind, self.settings.max_body_bytes)


def state_of(request: Request) -> State:
    return cast(State, request.app.state.foundry)
