"""What the command line takes."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

import foundry
from foundry import _core
from foundry.cli import UsageError, sampling_options, template_options
from foundry.hub import DEFAULT_MODEL

_KV_FORMATS = ", ".join(f.name for f in _core.formats() if f.kv != _core.Readers.none)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def size(text: str) -> int:
    """ "8G", "512 MiB", "1000" -> bytes."""
    digits = text.upper().removesuffix("B").removesuffix("I").strip()
    unit = digits[-1:] if digits[-1:].isalpha() else ""
    try:
        return int(float(digits.removesuffix(unit)) * _UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"expected bytes such as 8G or 512M, found {text!r}") from None


def kv_types(text: str) -> str | tuple[str, str]:
    """ "f16", or "f16,f32" for K and V apart."""
    k, _, v = text.partition(",")
    return (k, v) if v else k


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)  # what a script says means the same when there are more options

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog="foundry", description=foundry.__doc__)
    top.add_argument("--version", action="version", version=f"foundry {foundry.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    generate = commands.add_parser("generate", help="answer a prompt")
    generate.add_argument("prompt", help='the prompt; "-" reads it from standard input')
    generate.add_argument("--raw", action="store_true", help="continue the prompt as it is, without the chat template")
    generate.add_argument(
        "--no-parse-special", action="store_true", help="with --raw: what spells a control token is text"
    )
    chat = commands.add_parser("chat", help="talk with a model")
    for command in (generate, chat):
        _model(command)
        _device(command)
        _context(command)
        _max_new_tokens(command)
        command.add_argument("--system", metavar="TEXT", help="a system message, in place of the model's own")
        sampling_options.add(command)
        template_options.add(command)
        command.add_argument(
            "--json-lines",
            action="store_true",
            help="print a JSON object a token, as they come, and the result as the last one",
        )
    chat.add_argument("--no-history", action="store_true", help="don't keep what is typed for the next chat")

    _embed(commands.add_parser("embed", help="texts as rows of numbers, a line each"))
    plan = commands.add_parser("plan", help="the memory that a run will take, from the file's header alone")
    _model(plan)
    plan.add_argument("model", nargs="?", default=argparse.SUPPRESS, help="the same as --model")
    _device(plan)
    _context(plan)
    plan.add_argument("--prompt-tokens", type=int, default=0, metavar="N")
    _max_new_tokens(plan)

    inspect = commands.add_parser("inspect", help="what a model file holds")
    inspect.add_argument("--tensors", action="store_true", help="list every tensor")
    inspect.add_argument("--graph", action="store_true", help="the ops that the model runs, with shapes")
    pull = commands.add_parser("pull", help="fetch a model and print its path")
    pull.add_argument(
        "--token",
        help="for private and gated repositories; by default HF_TOKEN, which no other user sees",
    )
    for command in (inspect, pull):
        _model_argument(command)
    commands.add_parser("list", help="the models that are kept on this machine")
    rm = commands.add_parser("rm", help="let go of models that are kept")
    rm.add_argument("models", nargs="+", metavar="model", help="as `foundry list` names it; owner/repo: all of it")
    _serve(commands.add_parser("serve", help="answer over HTTP, as OpenAI's and Anthropic's servers do"))
    for command in commands.choices.values():
        command.add_argument("--json", action="store_true", help="print JSON")
    return top


def _embed(embed: argparse.ArgumentParser) -> None:
    embed.add_argument("texts", nargs="+", metavar="text", help='"-" reads lines from standard input, a text each')
    _model(embed)
    _device(embed)
    _context(embed)
    embed.add_argument("--pooling", metavar="HOW", help="mean, cls or last; by default as the model's files say")
    embed.add_argument("--dimensions", type=int, metavar="N", help="of each row the first N; by default all")
    embed.add_argument("--no-normalize", action="store_true", help="rows as they are, and not 1 long")


def _serve(serve: argparse.ArgumentParser) -> None:
    _model_argument(serve)
    _device(serve)
    _context(serve)
    listening = serve.add_argument_group("listening")
    listening.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1: this machine alone")
    listening.add_argument("--port", type=int, default=8000, help="default 8000; 0 takes a free one")
    listening.add_argument("--api-key", metavar="KEY", help="asked of every request; by default FOUNDRY_API_KEY")
    listening.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name that Host may have; * for any"
    )
    listening.add_argument(
        "--allow-origin", action="append", default=[], metavar="URL", help="of web pages that may call; * for any"
    )
    model = serve.add_argument_group("the model")
    model.add_argument("--alias", metavar="NAME", help="what clients call it; by default the file's name")
    model.add_argument(
        "--max-context", type=int, metavar="N", help="tokens of prompt and answer; by default the model's"
    )
    template_options.add_file(model)
    model.add_argument(
        "--prefix-bytes",
        type=size,
        metavar="BYTES",
        help="of prompts kept for those that begin alike; by default a quarter of the memory limit. They go before"
        " anything is refused",
    )
    model.add_argument(
        "--keep",
        choices=("prefix", "nothing"),
        default="prefix",
        help="what becomes of a prompt whose client leaves while it is computed: what there is of it is kept as others'"
        " prefixes are, or nothing (default prefix)",
    )
    model.add_argument(
        "--models",
        metavar="DIR",
        help="its GGUF files are served too: loaded when they are asked for, within one memory limit. The model named"
        " above is granted half of it, and stays",
    )
    model.add_argument(
        "--idle-unload", type=float, metavar="S", help="those go when unused for so long; by default never"
    )
    model.add_argument("--sessions-dir", metavar="DIR", help="where /v1/sessions are saved; by default nowhere")
    bounds = serve.add_argument_group("bounds")
    bounds.add_argument(
        "--default-max-tokens",
        type=int,
        default=1024,
        metavar="N",
        help="promised to an answer without max_tokens; past them it grows as memory goes (default 1024)",
    )
    bounds.add_argument("--max-running", type=int, default=64, metavar="N", help="answers at once (default 64)")
    bounds.add_argument("--max-queue", type=int, default=512, metavar="N", help="requests that wait (default 512)")
    bounds.add_argument("--queue-seconds", type=float, default=60, metavar="S", help="a wait at most (default 60)")
    bounds.add_argument("--max-body-bytes", type=size, default=32 << 20, metavar="BYTES", help="default 32M")
    bounds.add_argument(
        "--grace-seconds", type=float, default=15, metavar="S", help="for answers on SIGTERM (default 15)"
    )


_MODEL_HELP = (
    "path of a GGUF file; owner/repo, owner/repo:Q4_K_M or owner/repo:<file> on the hub; or"
    f" {DEFAULT_MODEL} (the default)"
)


def _model(command: argparse.ArgumentParser) -> None:
    command.add_argument("-m", "--model", default=DEFAULT_MODEL, help=_MODEL_HELP)


def _model_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", nargs="?", default=DEFAULT_MODEL, help=_MODEL_HELP)


def _device(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device", default="auto", help="auto, cuda, cuda:1, metal, cpu, cpu:<instruction set> or reference"
    )
    command.add_argument("--threads", type=int, metavar="N", help="by default all cores that may be used")
    command.add_argument(
        "--memory-limit", type=size, metavar="BYTES", help="for weights, workspace, K/V and tokenizer, such as 8G"
    )
    command.add_argument(
        "--expert-cache",
        type=size,
        dest="expert_cache_bytes",
        metavar="BYTES",
        help="of it, for experts that are packed at once on the cpu; by default for all, or as many as leave contexts"
        " room",
    )
    command.add_argument(
        "--kv-dtype", type=kv_types, default="f16", metavar="TYPE", help=f"{_KV_FORMATS}, or a pair K,V"
    )


def _context(command: argparse.ArgumentParser) -> None:
    command.add_argument("--rope-scaling", metavar="HOW", help="none, linear:FACTOR or yarn:FACTOR[:ORIGINAL_CONTEXT]")
    command.add_argument("--rope-base", type=float, metavar="BASE", help="in place of the model file's")
    command.add_argument("--max-seq-len", type=int, metavar="N", help="the context, in place of the model file's")


def _max_new_tokens(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-n", "--max-new-tokens", type=int, default=256, metavar="N", help="default 256; -1: to the context's end"
    )
