"""``foundry serve``: the server's process, from its flags to the line that says where it listens."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path

from foundry.cli.opening import load, load_file, path_of
from foundry.errors import FoundryError
from foundry.hub import DEFAULT_MODEL
from foundry.memory import default_memory_limit, format_bytes
from foundry.model import CompiledModel


def serve(arguments: argparse.Namespace) -> int:
    """Until SIGTERM or Ctrl-C."""
    try:
        from foundry.server.app import create_app
        from foundry.server.engine import Engine
        from foundry.server.heap import share_arenas
        from foundry.server.library import Library
        from foundry.server.metrics import Metrics
        from foundry.server.serving import Server
        from foundry.server.settings import Settings
    except ImportError as error:
        raise FoundryError(f'serve needs other packages: pip install "foundry-llm[server]" ({error})') from None

    share_arenas()
    settings = Settings(
        host=arguments.host,
        port=arguments.port,
        api_key=arguments.api_key or os.environ.get("FOUNDRY_API_KEY") or None,
        allowed_hosts=tuple(arguments.allow_host),
        allowed_origins=tuple(arguments.allow_origin),
        max_context=arguments.max_context,
        default_max_tokens=arguments.default_max_tokens,
        max_running=arguments.max_running,
        max_queue=arguments.max_queue,
        queue_seconds=arguments.queue_seconds,
        max_body_bytes=arguments.max_body_bytes,
        grace_seconds=arguments.grace_seconds,
        sessions_dir=None if arguments.sessions_dir is None else Path(arguments.sessions_dir),
        idle_unload_seconds=arguments.idle_unload,
        keep=arguments.keep,
    )
    most = None if arguments.models is None else _limit(arguments) // 2
    model = load(arguments, **_memory(arguments, most))
    metrics = Metrics()
    name = arguments.alias or (DEFAULT_MODEL if arguments.model == DEFAULT_MODEL else path_of(arguments.model).stem)
    engine = Engine(name, model, settings, metrics)
    limit = model.memory()["limit"] if arguments.models is None else _limit(arguments)

    def another(path: Path, most: int | None) -> CompiledModel:
        # said of the model that was named
        own = dict.fromkeys(("rope_scaling", "rope_base", "max_seq_len", "expert_cache_bytes"))
        return load_file(arguments, path, **own, **_memory(arguments, most))

    library = Library([engine], settings, metrics, another, limit)
    if arguments.models is not None:
        library.shelve(Path(arguments.models))
    app = create_app(library, settings, metrics)

    def ready(port: int) -> None:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"http://{host}:{port}"
        if arguments.json:
            told = {"url": url, "model": name, "device": model.device, "context": engine.context}
            print(json.dumps(told | {"memory": model.memory()}), flush=True)
        else:
            print(f"{url} | {name} on {model.device} | context {engine.context} tokens | {_plan(model)}", flush=True)

    server = Server(app, settings, ready)
    asyncio.run(server.serve())
    return 0 if server.started else 1


def _limit(arguments: argparse.Namespace) -> int:
    """Of all models together."""
    return int(arguments.memory_limit or default_memory_limit())


def _memory(arguments: argparse.Namespace, most: int | None) -> dict[str, int | None]:
    """``most``: bytes, where several models share the limit; the kept prefixes are a quarter of it by default."""
    limit = most or arguments.memory_limit
    kept = arguments.prefix_bytes
    return {
        "memory_limit": limit,
        "prefix_cache_bytes": (limit or default_memory_limit()) // 4 if kept is None else kept,
    }


def _plan(model: CompiledModel) -> str:
    """What is taken, and what is left for context."""
    found = model.memory()
    fixed = found["total"] + found["estimated"]
    per_token = (model.plan(0, 4096).kv + 4095) // 4096
    left = found["limit"] - fixed
    room = f", {format_bytes(left)} left for about {left // per_token} tokens" if found["limit"] else ""
    return f"memory {format_bytes(fixed)} of {format_bytes(found['limit'])}{room}"
