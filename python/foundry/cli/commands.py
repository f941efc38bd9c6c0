"""The commands by name, each imported when it is asked for, with what it alone needs.

Answers go to stdout; progress, closing lines and errors to stderr.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module

_MODULES = {"generate": "generate", "chat": "chat", "plan": "plan", "inspect": "inspect", "pull": "models"}


def command(name: str) -> Callable[[argparse.Namespace], int]:
    """What runs a command and gives its exit status."""
    if name == "serve":
        return _serve
    found: Callable[[argparse.Namespace], int] = getattr(import_module(f"foundry.cli.{_MODULES[name]}"), name)
    return found


def _serve(arguments: argparse.Namespace) -> int:
    from foundry.cli.opening import path_of
    from foundry.cli.serve import serve

    return serve(arguments, path_of(arguments.model))
