"""The commands by name, each imported when it is asked for, with what it alone needs.

Answers go to stdout; progress, closing lines and errors to stderr.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module

_FUNCTIONS = {
    "generate": ("generate", "generate"),
    "chat": ("chat", "chat"),
    "embed": ("embed", "embed"),
    "plan": ("plan", "plan"),
    "inspect": ("inspect", "inspect"),
    "pull": ("models", "pull"),
    "list": ("models", "list_"),
    "rm": ("models", "rm"),
    "serve": ("serve", "serve"),
}  # name -> (module, function)


def command(name: str) -> Callable[[argparse.Namespace], int]:
    """What runs a command and gives its exit status."""
    module, function = _FUNCTIONS[name]
    found: Callable[[argparse.Namespace], int] = getattr(import_module(f"foundry.cli.{module}"), function)
    return found
