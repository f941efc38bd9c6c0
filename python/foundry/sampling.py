"""Sampling parameters: how a caller wants tokens picked."""

from __future__ import annotations

import difflib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from foundry import _core
from foundry.checks import is_default, real, text, whole
from foundry.tokenizer import Tokenizer
from foundry.tokenizer.breakers import MOST_BREAKERS
from foundry.tokenizer.breakers import MOST_BYTES as MOST_BREAKER_BYTES

GRAMMARS = ("schema", "regex", "grammar")
MOST_ID = (1 << 31) - 1
MOST_LOGPROBS = 1000
_REAL = (
    "temperature",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "top_n_sigma",
)
_PLAIN = (*_REAL, "top_k")
_DRY = ("multiplier", "base", "allowed_length", "penalty_last_n")
BREAKERS = ("\n", ":", '"', "*")


@dataclass(frozen=True)
class SamplingParams:
    """How a token is picked: bias and penalties, what a grammar allows, top_n_sigma; then the filters top_k, top_p and
    min_p; then temperature. Draws are keyed by (seed, position).

    None means the default everywhere, and so does -1 for top_k and seed.

    Attributes:
        temperature: 0 takes the most likely token.
        top_k: the k most likely; 0 for all.
        top_p: the fewest most likely whose probability reaches this.
        min_p: those at least this share of the most likely one's probability.
        seed: the same seed and history give the same tokens. By default each call draws one, and its result tells it.
        stop: strings that end the text; they are not part of it, nor of the history afterwards. One that spells a
            control token, such as "<|eom_id|>", ends it at that token.
        ignore_eos: the model's own end tokens don't end the generation.
        repetition_penalty: divides the logits above 0, and multiplies the others, of tokens that stand in the history
            or the answer (Keskar et al. 2019, arXiv:1909.05858); 1 changes nothing.
        presence_penalty, frequency_penalty: taken from the logits of tokens that the answer has, once, and for each
            time that it has them (OpenAI's definition).
        dry_multiplier: DRY, "don't repeat yourself" (github.com/oobabooga/text-generation-webui, pull request 5677):
            from the logit of a token that would go on with a repetition of n tokens of the history or the answer,
            dry_multiplier * dry_base ** (n - dry_allowed_length) is taken where n is at least dry_allowed_length; 0 for
            none. Names, defaults and rules are llama.cpp's.
        dry_base, dry_allowed_length: see there.
        dry_penalty_last_n: so many of the last tokens are looked at; -1 for all, 0 for none.
        dry_sequence_breakers: texts that no repetition reaches across, such as what parts turns, of at most 40 bytes
            each; a token that has one is never penalised. () for none.
        top_n_sigma: tokens more than so many standard deviations of the logits below the best are not drawn
            (arXiv:2411.07641); 0 for all.
        logit_bias: {token id: added to its logit}; -inf forbids a token.
        logprobs: log-probabilities of each token, and of so many of the most likely ones, under the model alone: of
            the logits before everything above.
        schema, regex, grammar: at most one of them. The answer is JSON that this schema (a dict, its text, or True for
            any object) accepts, matches a regular expression, or is of a Lark grammar. Needs the extra "structured".
        spelled: control tokens, by their spelling, that are part of the text: those that a parser of calls looks for.
            What the vocabulary has no control token for changes nothing.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    stop: Sequence[str] = ()
    ignore_eos: bool = False
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    dry_sequence_breakers: Sequence[str] = BREAKERS
    top_n_sigma: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    schema: Mapping[str, Any] | str | bool | None = None
    regex: str | None = None
    grammar: str | None = None
    spelled: Sequence[str] = ()

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is None or (one.name in ("top_k", "seed") and is_default(value)):
                object.__setattr__(self, one.name, {} if one.name == "logit_bias" else one.default)
        for name in ("stop", "spelled", "dry_sequence_breakers"):
            found = getattr(self, name)
            if isinstance(found, str):
                found = (found,)
                object.__setattr__(self, name, found)
            if not isinstance(found, Sequence) or any(not isinstance(s, str) or not s for s in found):
                raise ValueError(f"{name}: expected strings that are not empty, found {found!r}")
        for name in (*_REAL, "dry_multiplier", "dry_base"):
            real(name, getattr(self, name))
        whole("dry_allowed_length", self.dry_allowed_length)
        whole("dry_penalty_last_n", self.dry_penalty_last_n, -1, MOST_ID)
        if len(self.dry_sequence_breakers) > MOST_BREAKERS:
            found = len(self.dry_sequence_breakers)
            raise ValueError(f"dry_sequence_breakers: expected at most {MOST_BREAKERS} texts, found {found}")
        for breaker in self.dry_sequence_breakers:
            if len(text("dry_sequence_breakers", breaker).encode()) > MOST_BREAKER_BYTES:
                most = MOST_BREAKER_BYTES
                raise ValueError(f"dry_sequence_breakers: expected texts of at most {most} bytes, found {breaker!r}")
        whole("top_k", self.top_k)
        if not isinstance(self.logit_bias, Mapping):
            raise ValueError(f"logit_bias: expected a mapping of token ids to numbers, found {self.logit_bias!r}")
        bias = {whole("logit_bias", i, most=MOST_ID): real("logit_bias", x) for i, x in self.logit_bias.items()}
        object.__setattr__(self, "logit_bias", bias)
        if self.logprobs is not None:
            whole("logprobs", self.logprobs, most=MOST_LOGPROBS)
        if len(given := [name for name in GRAMMARS if getattr(self, name) is not None]) > 1:
            raise ValueError(f"expected at most one of {', '.join(GRAMMARS)}, found {' and '.join(given)}")
        if self.seed is not None:
            whole("seed", self.seed, most=(1 << 64) - 1)

    def seeded(self) -> SamplingParams:
        """With a seed, freshly drawn where there is none."""
        return replace(self, seed=secrets.randbits(32)) if self.seed is None else self  # 32 bits are easily typed again

    def of_choice(self, index: int) -> SamplingParams:
        """For one of several answers: the first has the seed itself, the others each their own made from it."""
        return replace(self, seed=_mixed(self.seed or 0, index)) if index else self

    @property
    def constrained(self) -> bool:
        """A grammar says what may come."""
        return any(getattr(self, name) is not None for name in GRAMMARS)

    def core(self, tokenizer: Tokenizer) -> _core.Sampling:
        core = _core.Sampling()
        for name in _PLAIN:
            setattr(core, name, getattr(self, name))
        core.seed = self.seed or 0
        core.logit_bias = list(self.logit_bias.items())
        if self.dry_multiplier != 0:
            dry = _core.DrySampling()
            for name in _DRY:
                setattr(dry, name, getattr(self, f"dry_{name}"))
            dry.set_breakers(tokenizer.sequence_breakers(self.dry_sequence_breakers))
            core.dry = dry
        return core


SAMPLING = frozenset(one.name for one in fields(SamplingParams))


def _mixed(seed: int, index: int) -> int:
    """64 bits of both: SplitMix64 (Steele, Lea, Flood 2014), whose index-th number from ``seed`` this is."""
    most = (1 << 64) - 1
    x = (seed + index * 0x9E3779B97F4A7C15) & most
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & most
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & most
    return x ^ x >> 31


def sampling_params(function: str, params: SamplingParams | None, named: Mapping[str, Any]) -> SamplingParams:
    """The parameters that a caller of ``function`` gave, whole or by their names.

    Raises:
        ValueError: both ways at once.
        TypeError: a name that is none of theirs; the message has those that are.
    """
    if params is not None and named:
        raise ValueError(f"{function}: expected params or its fields, found both: {', '.join(named)}")
    valid = [one.name for one in fields(SamplingParams)]
    for name in named:
        if name not in valid:
            near = difflib.get_close_matches(name, valid, 1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            raise TypeError(f"{function}: expected one of {', '.join(valid)}, found the keyword {name!r}{meant}")
    if params is not None and not isinstance(params, SamplingParams):
        raise ValueError(f"{function}: expected params to be a SamplingParams, found {params!r}")
    return params or SamplingParams(**named)
