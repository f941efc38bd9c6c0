"""``foundry plan``: what a run takes, and what context fits with each type of K and V."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from rich.console import Console

from foundry.cli.opening import load_options, path_of
from foundry.cli.screens import plan_screen
from foundry.contexts import KV_TYPES, plan_contexts
from foundry.model import CompiledModel, kv_types


def plan(arguments: argparse.Namespace) -> int:
    """The exit status is 1 where the run does not fit."""
    path, options = path_of(arguments.model), load_options(arguments)
    found = CompiledModel.plan_file(path, arguments.prompt_tokens, arguments.max_new_tokens, **options)
    chosen = kv_types(options.pop("kv_dtype"))
    types = [(name, name) for name in KV_TYPES]
    contexts = plan_contexts(path, [*types, *([] if chosen in types else [chosen])], **options)
    if arguments.json:
        print(json.dumps(asdict(found) | {"contexts": [asdict(one) for one in contexts]}))
    else:
        kept = chosen[0] if chosen[0] == chosen[1] else ",".join(chosen)
        title = f"{path.name}, a context of {contexts[0].max_seq_len} tokens, K/V in {kept}"
        Console(highlight=False, soft_wrap=True).print(plan_screen(title, found, contexts, chosen))
    return 0 if found.fits else 1
