"""``foundry chat``: a conversation with a person at a terminal, or line by line through pipes.

What goes wrong in one turn or command ends that one, and the chat goes on without it.
"""

from __future__ import annotations

import argparse
import sys

from foundry.capacity import CapacityPolicy
from foundry.cli import sampling_options, template_options
from foundry.cli.chat.commands import COMMANDS
from foundry.cli.chat.conversation import Conversation
from foundry.cli.chat.talk import Talk
from foundry.cli.opening import load, promised
from foundry.cli.progress import stderr


def chat(arguments: argparse.Namespace) -> int:
    params = sampling_options.read(arguments)
    given = template_options.read(arguments)
    model = load(arguments)
    if not (arguments.json or arguments.json_lines):
        keys = "Ctrl-C stops an answer, Ctrl-D ends, /help tells more."
        stderr.print(f"{model.arch.name} on {model.device}. {keys}", style="dim", soft_wrap=True)
    session = model.session(0, promised(arguments), CapacityPolicy(headroom=256))
    talk = Talk(arguments, Conversation(session, arguments.system), params, given)
    try:
        if sys.stdin.isatty():
            from foundry.cli.chat.terminal import Terminal

            return talk.run(Terminal([f"/{name}" for name in COMMANDS], keeps_history=not arguments.no_history))
        from foundry.cli.standard_input import Lines

        return talk.run(Lines())
    finally:
        talk.close()
