"""The command ``foundry``: generate, chat, embed, plan, inspect, pull, list, rm, serve."""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from collections.abc import Sequence

from foundry.errors import FoundryError

WRONG_USAGE = 2
INTERRUPTED = 130  # what shells give for Ctrl-C


class UsageError(ValueError):
    """The command line makes no sense, whatever the model."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status; what goes wrong is one line on stderr, or of JSON on stdout."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        _prepare_streams()
        warnings.showwarning = _warn
        from foundry.cli.arguments import parser  # here, for Ctrl-C is heard from here on

        arguments = parser().parse_args(argv)
        from foundry.cli.commands import command

        return command(arguments.command)(arguments)
    except KeyboardInterrupt:
        print("foundry: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader has gone: `foundry generate ... | head`
        sys.stderr.close()
        return 1
    except (FoundryError, ValueError, OSError) as error:
        if {"--json", "--json-lines"} & {*argv}:
            print(error_as_json(error), flush=True)
        else:
            print(f"foundry: {error}", file=sys.stderr)
        return WRONG_USAGE if isinstance(error, UsageError) else 1


def error_as_json(error: Exception) -> str:
    return json.dumps({"error": {"type": type(error).__name__, "message": str(error)}})


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    print(f"foundry: warning: {message}", file=sys.stderr)


def _prepare_streams() -> None:
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by who started us
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that can't show a character shows another
