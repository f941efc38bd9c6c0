"""What the command line says of sampling."""

from __future__ import annotations

import argparse
from dataclasses import fields

from foundry.sampling import SamplingParams

_NAMES = [one.name for one in fields(SamplingParams)]


def add(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("sampling")
    group.add_argument("--temperature", type=float, default=0.0, help="default 0: the most likely token")
    group.add_argument("--top-k", type=int, metavar="K", help="of the K most likely; by default all")
    group.add_argument("--top-p", type=float, default=1.0, metavar="P")
    group.add_argument("--min-p", type=float, default=0.0, metavar="P")
    group.add_argument(
        "--top-n-sigma", type=float, metavar="N", help="not those N standard deviations of the logits below the best"
    )
    group.add_argument(
        "--seed", type=int, help="the same seed gives the same answer; by default a new one each time, which is told"
    )
    group.add_argument("--repetition-penalty", type=float, metavar="X", help="on what stands in prompt or answer")
    group.add_argument("--presence-penalty", type=float, metavar="X", help="on what stands in the answer")
    group.add_argument("--frequency-penalty", type=float, metavar="X", help="on that, for each time")
    group.add_argument("--dry-multiplier", type=float, metavar="X", help="on what would repeat tokens (DRY); 0: none")
    group.add_argument("--dry-base", type=float, metavar="X", help="default 1.75: to the repetition's length")
    group.add_argument("--dry-allowed-length", type=int, metavar="N", help="default 2: shorter ones are free")
    group.add_argument("--dry-penalty-last-n", type=int, metavar="N", help="default 64: tokens looked at; -1: all")
    group.add_argument(
        "--dry-sequence-breaker",
        action="append",
        dest="dry_sequence_breakers",
        metavar="TEXT",
        help="in place of line break, colon, quote and star; may be repeated; none: of no text",
    )
    group.add_argument(
        "--logit-bias",
        type=bias,
        action="append",
        metavar="TOKEN=X",
        help="added to the logit of a token, by its id; -inf forbids it; may be repeated",
    )
    group.add_argument("--ignore-eos", action="store_true", help="go on past the model's own end tokens")
    group.add_argument("--stop", action="append", default=[], metavar="TEXT", help="ends the text; may be repeated")
    group.add_argument(
        "--logprobs", type=int, metavar="N", help="with --json: each token's, and those of the N most likely ones"
    )


def bias(text: str) -> tuple[int, float]:
    """ "42=-1.5" -> (42, -1.5)."""
    token, _, value = text.partition("=")
    try:
        return int(token), float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected TOKEN=X such as 42=-1.5, found {text!r}") from None


def read(arguments: argparse.Namespace) -> SamplingParams:
    """ValueError for what makes no sense."""
    given = {name: getattr(arguments, name) for name in _NAMES if hasattr(arguments, name)}
    given["logit_bias"] = dict(given["logit_bias"] or [])
    if given["dry_sequence_breakers"] == ["none"]:
        given["dry_sequence_breakers"] = ()
    return SamplingParams(**given)
