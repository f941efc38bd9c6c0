"""HTTP over the library: OpenAI's and Anthropic's dialects, sessions, figures (extra "server").

``foundry serve`` is this as a process. ``app_for`` is the same ASGI app, for whoever runs it elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from foundry.model import CompiledModel
    from foundry.server.settings import Settings

__all__ = ["app_for"]


def app_for(model: CompiledModel, name: str, settings: Settings | None = None) -> Starlette:
    """An ASGI app that serves ``model`` under ``name``. It belongs to the event loop that first runs it."""
    from foundry.server import settings as defaults
    from foundry.server.app import create_app
    from foundry.server.engine import Engine
    from foundry.server.library import Library
    from foundry.server.metrics import Metrics

    settings, metrics = settings or defaults.Settings(), Metrics()
    engine = Engine(name, model, settings, metrics)
    return create_app(Library([engine], settings, metrics), settings, metrics)
