"""``foundry generate``: one prompt, one answer."""

from __future__ import annotations

import argparse

from foundry.checks import text
from foundry.cli import sampling_options, standard_input, template_options
from foundry.cli.answers import show
from foundry.cli.opening import load, promised


def generate(arguments: argparse.Namespace) -> int:
    prompt = standard_input.everything() if arguments.prompt == "-" else text("text", arguments.prompt)
    params = sampling_options.read(arguments)
    given = template_options.read(arguments)
    if not prompt or not (arguments.raw or prompt.strip()):
        raise ValueError("prompt: expected text, found none")
    model = load(arguments)
    if arguments.raw or model.tokenizer.chat_template is None:
        ids = model.tokenizer.encode(prompt, parse_special=not arguments.no_parse_special)
    else:
        system = [] if arguments.system is None else [{"role": "system", "content": arguments.system}]
        ids = model.tokenizer.encode_chat([*system, {"role": "user", "content": prompt}], **given)
    most = arguments.max_new_tokens
    with model.session(len(ids), promised(arguments)) as session:
        show(arguments, session, lambda progress: session.stream(ids, most, params=params, progress=progress))
    return 0
