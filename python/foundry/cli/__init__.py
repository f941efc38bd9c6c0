"""The command ``foundry``: generate, chat, plan, inspect, pull."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence

from foundry.cli.arguments import parser
from foundry.cli.commands import chat, generate, inspect, plan, pull
from foundry.errors import FoundryError

COMMANDS = {"generate": generate, "chat": chat, "plan": plan, "inspect": inspect, "pull": pull}
INTERRUPTED = 130  # what shells give for Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status; what goes wrong is one line on stderr, or JSON on stdout."""
    arguments = parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that can't show a character shows another
    try:
        return COMMANDS[arguments.command](arguments)
    except KeyboardInterrupt:
        print("foundry: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader has gone: `foundry generate ... | head`
        sys.stderr.close()
        return 1
    except (FoundryError, ValueError, OSError) as error:
        if arguments.json:
            print(json.dumps({"error": {"type": type(error).__name__, "message": str(error)}}), flush=True)
        else:
            print(f"foundry: {error}", file=sys.stderr)
        return 1
