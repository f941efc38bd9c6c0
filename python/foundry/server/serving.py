"""The process: it listens, and on SIGTERM ends answers properly."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette

from foundry.server.settings import Settings
from foundry.server.state import State

_MORE_S = 10.0  # after the grace, for answers to end and be read
_IDLE_S = 75  # a connection is kept: longer than clients keep theirs, or they would ask on one that is being closed


class Server(uvicorn.Server):
    """Uvicorn's, which on a signal takes no more connections and waits for those that there are."""

    def __init__(self, app: Starlette, settings: Settings, ready: Callable[[int], None]) -> None:
        """``ready`` is called with the port once it listens."""
        config = uvicorn.Config(
            app,
            settings.host,
            settings.port,
            log_level="warning",
            access_log=False,
            lifespan="on",
            ws="none",
            timeout_graceful_shutdown=int(settings.grace_seconds + _MORE_S),
            server_header=False,
            timeout_keep_alive=_IDLE_S,
        )
        super().__init__(config)
        self._state: State = app.state.foundry
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._ready(self.servers[0].sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answers may go on for the grace; then they end with what they have, and streams are closed in order."""
        library = self._state.library
        library.stop()
        ending = asyncio.get_running_loop().call_later(self._state.settings.grace_seconds, library.end)
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()
            library.end()
            if signal.SIGTERM in self._captured_signals:  # uvicorn would raise it once more: this end is the proper one
                self._captured_signals.remove(signal.SIGTERM)
