"""``foundry pull``, ``list`` and ``rm``: the models that are kept on this machine."""

from __future__ import annotations

import argparse
import json

from rich.console import Console
from rich.table import Table
from rich.text import Text

from foundry.cli.opening import path_of
from foundry.hub import kept_models, remove
from foundry.hub.choosing import directory_in, models_in
from foundry.memory import format_bytes


def pull(arguments: argparse.Namespace) -> int:
    path = path_of(arguments.model, verify=True, token=arguments.token)
    folder = path if path.is_dir() else path.parent
    names = [file.name for file in folder.iterdir()]
    if path.is_dir():
        parts = directory_in(names)
    else:
        parts = next((model for model in models_in(names) if path.name in model), (path.name,))
    size = sum((folder / part).stat().st_size for part in parts)
    print(json.dumps({"path": str(path), "bytes": size}) if arguments.json else path)
    return 0


def list_(arguments: argparse.Namespace) -> int:
    models = kept_models()
    if arguments.json:
        shown = [{"name": m.name, "path": str(m.path), "bytes": m.bytes, "unfinished": m.unfinished} for m in models]
        print(json.dumps({"models": shown, "bytes": sum(model.bytes for model in models)}))
        return 0
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for model in models:
        table.add_row(Text(model.name), format_bytes(model.bytes), "unfinished" if model.unfinished else "")
    table.add_row("in all", format_bytes(sum(model.bytes for model in models)), "")
    Console(highlight=False, soft_wrap=True).print(table)
    return 0


def rm(arguments: argparse.Namespace) -> int:
    freed = sum(map(remove, arguments.models))
    print(json.dumps({"bytes": freed}) if arguments.json else f"{format_bytes(freed)} given back")
    return 0
