"""Sessions that clients hold by an id: histories that go on, fork, rewind, and are saved under names."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from foundry.checks import whole
from foundry.errors import MemoryLimitError
from foundry.server.engine import Engine
from foundry.server.identity import fresh_id
from foundry.server.refusals import Refusal
from foundry.server.settings import Settings
from foundry.session import Session

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass
class Held:
    """``messages``: the conversation so far, None where it is not known as one. ``busy``: a request goes on with it."""

    id: str
    engine: Engine
    session: Session
    parent: str | None = None
    name: str | None = None
    messages: list[dict[str, Any]] | None = field(default_factory=list)
    busy: bool = False
    created: float = field(default_factory=time.time)

    def about(self) -> dict[str, Any]:
        session = self.session
        return {
            "id": self.id,
            "object": "session",
            "model": self.engine.name,
            "name": self.name,
            "parent": self.parent,
            "created": int(self.created),
            "busy": self.busy,
            "position": session.position,
            "promised_tokens": session.reserved_tokens,
            "kv_bytes": session.kv_bytes,
            "shared_bytes": session.shared_bytes,
            "messages": None if self.messages is None else len(self.messages),
        }


class Lease:
    """A session while one request has it. ``release`` lets others have it: once, for the next request may have it by
    the time that this one ends in another way too."""

    def __init__(self, held: Held) -> None:
        self.held = held
        self._given_back = False
        held.busy = True

    def release(self) -> None:
        if not self._given_back:
            self._given_back = True
            self.held.busy = False


class Sessions:
    """Of all models. Belongs to the event loop; what takes time runs on threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._held: dict[str, Held] = {}

    def all(self) -> list[Held]:
        return list(self._held.values())

    def get(self, session_id: str) -> Held:
        found = self._held.get(session_id)
        if found is None:
            raise Refusal(404, f"session: expected one that is open, found {session_id!r}", "session_id")
        return found

    def take(self, session_id: str, engine: Engine | None = None) -> Lease:
        """For a request that changes it; the lease's ``release`` lets others have it."""
        held = self.get(session_id)
        if engine is not None and held.engine is not engine:
            raise Refusal(400, f"session_id: expected a session of {engine.name}, found one of {held.engine.name}")
        if held.busy:
            raise Refusal(409, f"session {session_id} is busy with another request; it can be forked", "session_id")
        return Lease(held)

    async def create(self, engine: Engine, tokens: int, name: str | None = None) -> Held:
        self._check_count()
        self._check_name(name)
        session = await _unless_short(lambda: engine.model.session(whole("tokens", tokens), 0))
        return self._add(Held(fresh_id("session"), engine, session, name=name))

    async def fork(self, session_id: str, name: str | None = None) -> Held:
        """Also of one that is busy: with what is history by now."""
        self._check_count()
        self._check_name(name)
        held = self.get(session_id)
        messages = None if held.messages is None else list(held.messages)
        session = await _unless_short(held.session.fork)
        return self._add(Held(fresh_id("session"), held.engine, session, held.id, name, messages))

    async def rewind(self, session_id: str, position: int) -> Held:
        lease = self.take(session_id)
        held = lease.held
        try:
            await asyncio.to_thread(held.session.rewind, position)
            held.messages = [] if position == 0 else None
        finally:
            lease.release()
        held.engine.freed()
        return held

    def rename(self, session_id: str, name: str | None) -> Held:
        self._check_name(name)
        held = self.get(session_id)
        held.name = name
        return held

    async def save(self, session_id: str, name: str) -> dict[str, Any]:
        """Under a name inside of the folder of sessions, never a path."""
        path = self._path(name)
        lease = self.take(session_id)
        held = lease.held
        try:
            await asyncio.to_thread(held.session.save, path)
            about = {"model": held.engine.name, "messages": held.messages, "position": held.session.position}
            await asyncio.to_thread(path.with_suffix(".json").write_bytes, msgspec.json.encode(about))
        finally:
            lease.release()
        return {"name": name, "position": held.session.position, "bytes": path.stat().st_size}

    async def restore(self, engine: Engine, name: str) -> Held:
        self._check_count()
        path = self._path(name)
        if not path.is_file():
            raise Refusal(404, f"name: expected a saved session, found none named {name!r}", "name")
        session = await _unless_short(lambda: engine.model.restore(path, 0))
        return self._add(Held(fresh_id("session"), engine, session, name=name, messages=_messages(path)))

    def saved(self) -> list[dict[str, Any]]:
        folder = self._settings.sessions_dir
        files = sorted(folder.glob("*.kv")) if folder is not None else []
        return [{"name": file.stem, "bytes": file.stat().st_size, "saved": int(file.stat().st_mtime)} for file in files]

    async def delete(self, session_id: str) -> None:
        """One that is busy ends: its request is cancelled."""
        held = self.get(session_id)
        del self._held[session_id]
        while held.busy:
            held.session.cancel()
            await asyncio.sleep(0.02)
        await asyncio.to_thread(held.session.close)
        held.engine.freed()

    def delete_saved(self, name: str) -> None:
        path = self._path(name)
        if not path.is_file():
            raise Refusal(404, f"name: expected a saved session, found none named {name!r}", "name")
        path.unlink()
        path.with_suffix(".json").unlink(missing_ok=True)

    def of(self, engine: Engine) -> list[Held]:
        return [held for held in self._held.values() if held.engine is engine]

    def _add(self, held: Held) -> Held:
        self._held[held.id] = held
        return held

    def _check_count(self) -> None:
        most = self._settings.max_sessions
        if len(self._held) >= most:
            raise Refusal(
                429, f"sessions: expected at most {most} that are open, found as many", code="too_many_sessions"
            )

    def _check_name(self, name: str | None) -> None:
        if name is not None and not _NAME.fullmatch(name):
            raise Refusal(400, f"name: expected up to 100 letters, digits, dots, dashes, found {name!r}", "name")

    def _path(self, name: str) -> Path:
        folder = self._settings.sessions_dir
        if folder is None:
            raise Refusal(
                400, "sessions are saved where the server was started with --sessions-dir", code="no_sessions_dir"
            )
        self._check_name(name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.kv"


def _messages(path: Path) -> list[dict[str, Any]] | None:
    try:
        found = msgspec.json.decode(path.with_suffix(".json").read_bytes())["messages"]
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        return None
    return found if isinstance(found, list) else None


async def _unless_short(make: Callable[[], T]) -> T:
    """Sessions don't wait in the queue: what can't be promised now is refused."""
    try:
        return await asyncio.to_thread(make)
    except MemoryLimitError as error:
        figures = {"needed_bytes": error.needed_bytes, "available_bytes": error.available_bytes}
        raise Refusal(503, str(error), None, "memory_limit", figures, 5) from None
