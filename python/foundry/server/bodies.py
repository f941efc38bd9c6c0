"""Requests' bodies: bounded, and read as the structs that a route expects."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from foundry.server.refusals import Refusal

T = TypeVar("T")
_LARGE_BYTES = 256 << 10  # from here on read on a thread, beside the loop


async def read(request: Request, kind: type[T], most_bytes: int) -> T:
    """The body as ``kind``. Fields that it does not have are ignored.

    Raises:
        Refusal: 400 for what is not JSON of that kind, 413 for what is too long.
    """
    body = await _bytes(request, most_bytes)
    try:
        if len(body) > _LARGE_BYTES:
            return await asyncio.to_thread(msgspec.json.decode, body, type=kind)
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        _, _, path = str(error).partition(" - at `$")
        raise Refusal(400, str(error).replace("`$.", "`").replace("`$[", "`["), path.strip("`. ") or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, f"body: expected JSON, found otherwise: {error}") from None


async def _bytes(request: Request, most: int) -> bytes:
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > most:
        raise _too_long(int(told), most)
    parts, size = [], 0
    try:
        async for part in request.stream():
            parts.append(part)
            size += len(part)
            if size > most:
                raise _too_long(size, most)
    except ClientDisconnect:
        raise Refusal(400, "body: the client left while it sent it") from None
    return b"".join(parts)


def _too_long(size: int, most: int) -> Refusal:
    return Refusal(413, f"body: expected at most {most} bytes, found {size} or more", code="body_too_long")
