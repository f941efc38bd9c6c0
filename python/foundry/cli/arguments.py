"""What the command line takes."""

from __future__ import annotations

import argparse
from typing import NoReturn

import foundry
from foundry import _core
from foundry.cli import UsageError, template_options
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
        _sampling(command)
        template_options.add(command)

    plan = commands.add_parser("plan", help="the memory that a run will take, from the file's header alone")
    _model(plan)
    plan.add_argument("model", nargs="?", default=argparse.SUPPRESS, help="the same as --model")
    _device(plan)
    plan.add_argument("--prompt-tokens", type=int, default=0, metavar="N")
    _max_new_tokens(plan)

    inspect = commands.add_parser("inspect", help="what a model file holds")
    inspect.add_argument("--tensors", action="store_true", help="list every tensor")
    pull = commands.add_parser("pull", help="fetch a model and print its path")
    for command in (inspect, pull):
        _model_argument(command)
    for command in commands.choices.values():
        command.add_argument("--json", action="store_true", help="print JSON")
    return top


_MODEL_HELP = f"path of a GGUF file, owner/repo[:file] on the hub, or {DEFAULT_MODEL} (the default)"


def _model(command: argparse.ArgumentParser) -> None:
    command.add_argument("-m", "--model", default=DEFAULT_MODEL, help=_MODEL_HELP)


def _model_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", nargs="?", default=DEFAULT_MODEL, help=_MODEL_HELP)


def _device(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", help="auto, metal, cpu, cpu:<instruction set> or reference")
    command.add_argument("--threads", type=int, metavar="N", help="by default all cores that may be used")
    command.add_argument(
        "--memory-limit", type=size, metavar="BYTES", help="for weights, workspace, K/V and tokenizer, such as 8G"
    )
    command.add_argument(
        "--kv-dtype", type=kv_types, default="f16", metavar="TYPE", help=f"{_KV_FORMATS}, or a pair K,V"
    )


def _max_new_tokens(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-n", "--max-new-tokens", type=int, default=256, metavar="N", help="default 256; -1: to the context's end"
    )


def _sampling(command: argparse.ArgumentParser) -> None:
    _max_new_tokens(command)
    command.add_argument("--system", help="a system message, in place of the model's own")
    command.add_argument("--temperature", type=float, default=0.0, help="default 0: the most likely token")
    command.add_argument("--top-k", type=int, metavar="K", help="of the K most likely; by default all")
    command.add_argument("--top-p", type=float, default=1.0, metavar="P")
    command.add_argument("--min-p", type=float, default=0.0, metavar="P")
    command.add_argument("--seed", type=int, help="the same seed gives the same answer; by default a new one each time")
    command.add_argument("--ignore-eos", action="store_true", help="go on past the model's own end tokens")
    command.add_argument("--stop", action="append", default=[], metavar="TEXT", help="ends the text; may be repeated")
