"""How an answer is shown: its text as it comes and a closing line, one JSON object, or JSON lines as it comes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from foundry.cli.progress import prefilling, stderr
from foundry.generate import Completion, Piece, collect
from foundry.memory import format_bytes
from foundry.session import Progress, Session

# What would steer a terminal is shown as Unicode's picture of it; line breaks and tabs are text.
_PICTURES = {i: 0x2400 + i for i in range(32) if chr(i) not in "\n\t"} | {0x7F: 0x2421}
_PICTURES |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def show(arguments: argparse.Namespace, session: Session, stream: Callable[[Progress], Iterator[Piece]]) -> Completion:
    """Shows an answer as the command line wants it.

    ``stream`` starts it, with a bar for its prompt. KeyboardInterrupt ends it where it is; what came is shown by then.
    """
    with prefilling() as progress:
        pieces = stream(progress)
        first = next(pieces)
    pieces = _chain(first, pieces)
    if arguments.json:
        answer = collect(pieces)
        print(json.dumps(_result(answer, session)), flush=True)
    elif arguments.json_lines:
        answer = collect(_as_lines(pieces))
        result = _result(answer, session)
        print(json.dumps({name: value for name, value in result.items() if name != "logprobs"}), flush=True)
    else:
        answer = collect(_printed(pieces))
        print(flush=True)
        stderr.print(closing_line(answer, session), style="dim", soft_wrap=True)
    return answer


def _chain(first: Piece, rest: Iterator[Piece]) -> Iterator[Piece]:
    yield first
    yield from rest


def _printed(pieces: Iterator[Piece]) -> Iterator[Piece]:
    steered = sys.stdout.isatty()
    for piece in pieces:
        sys.stdout.write(piece.text.translate(_PICTURES) if steered else piece.text)
        sys.stdout.flush()
        yield piece


def _as_lines(pieces: Iterator[Piece]) -> Iterator[Piece]:
    for piece in pieces:
        if piece.token_id is not None or piece.text:
            line: dict[str, Any] = {"text": piece.text, "token_id": piece.token_id}
            if piece.logprobs is not None:
                line |= {"logprob": piece.logprobs.logprob, "top": piece.logprobs.top}
            print(json.dumps(line), flush=True)
        yield piece


def closing_line(answer: Completion, session: Session) -> str:
    """What a run took, in one line."""
    usage, timings = answer.usage, answer.timings
    parts = [
        f"prompt {usage.prompt_tokens} tokens, {timings.prompt_tokens_per_s:.0f} tokens/s",
        f"generation {usage.completion_tokens} tokens, {timings.generation_tokens_per_s:.0f} tokens/s",
        *([f"seed {answer.seed}"] if answer.seed is not None else []),
        *([f"first token {timings.prompt_s * 1000:.0f} ms"] if usage.completion_tokens else []),
        f"KV {format_bytes(session.kv_bytes)}",
        f"capacity {session.capacity} tokens",
        f"pages added {session.pages_added}",
        f"finish: {answer.finish_reason}",
        f"device {session.model.device}",
    ]
    return " | ".join(parts)


def _result(answer: Completion, session: Session) -> dict[str, Any]:
    held = {"kv_bytes": session.kv_bytes, "capacity": session.capacity, "pages_added": session.pages_added}
    return asdict(answer) | {"session": held | {"position": session.position}, "device": session.model.device}
