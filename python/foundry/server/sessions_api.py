"""/v1/sessions: create, fork, rewind, name, save, restore, list, delete."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from foundry.server.refusals import JsonResponse
from foundry.server.state import state_of


class Create(msgspec.Struct):
    """``tokens`` are promised at once; more is as memory goes. ``restore``: the name of a saved session."""

    model: str | None = None
    name: str | None = None
    tokens: int = 0
    restore: str | None = None


class Named(msgspec.Struct):
    name: str | None = None


class Saved(msgspec.Struct):
    name: str


class Rewind(msgspec.Struct):
    position: int


async def listed(request: Request) -> Response:
    sessions = state_of(request).sessions
    return JsonResponse(
        {"object": "list", "data": [held.about() for held in sessions.all()], "saved": sessions.saved()}
    )


async def create(request: Request) -> Response:
    state = state_of(request)
    asked = await state.read(request, Create)
    engine = await state.library.engine(asked.model)
    if asked.restore is not None:
        held = await state.sessions.restore(engine, asked.restore)
        state.sessions.rename(held.id, asked.name or asked.restore)
    else:
        held = await state.sessions.create(engine, asked.tokens, asked.name)
    return JsonResponse(held.about(), 201)


async def get(request: Request) -> Response:
    return JsonResponse(state_of(request).sessions.get(request.path_params["id"]).about())


async def rename(request: Request) -> Response:
    state = state_of(request)
    asked = await state.read(request, Named)
    return JsonResponse(state.sessions.rename(request.path_params["id"], asked.name).about())


async def fork(request: Request) -> Response:
    state = state_of(request)
    asked = await state.read(request, Named)
    return JsonResponse((await state.sessions.fork(request.path_params["id"], asked.name)).about(), 201)


async def rewind(request: Request) -> Response:
    state = state_of(request)
    asked = await state.read(request, Rewind)
    return JsonResponse((await state.sessions.rewind(request.path_params["id"], asked.position)).about())


async def save(request: Request) -> Response:
    state = state_of(request)
    asked = await state.read(request, Saved)
    return JsonResponse(await state.sessions.save(request.path_params["id"], asked.name))


async def delete(request: Request) -> Response:
    await state_of(request).sessions.delete(request.path_params["id"])
    return JsonResponse({"id": request.path_params["id"], "deleted": True})


async def delete_saved(request: Request) -> Response:
    state_of(request).sessions.delete_saved(request.path_params["name"])
    return JsonResponse({"name": request.path_params["name"], "deleted": True})
