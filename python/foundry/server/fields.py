"""Fields that several dialects have in common, and what they mean to the library."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from foundry.sampling import SamplingParams
from foundry.server.refusals import Refusal
from foundry.server.settings import Settings

MOST_TOP_LOGPROBS = 20
MOST_STOPS = 16
MOST_STOP_CHARACTERS = 4096
MOST_BIAS = 1024
_COMPACT = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}  # llguidance's options
# Field: least, most. What they may be by OpenAI's reference, or as far as they mean anything.
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 100),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "top_n_sigma": (0, 100),
    "repetition_penalty": (0.01, 100),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "dry_multiplier": (0, 100),
    "dry_base": (1, 100),
}


class Sampling(msgspec.Struct, kw_only=True):
    """How tokens are picked. OpenAI's names; vLLM's for what OpenAI has not, and llama.cpp's for what neither has."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    top_n_sigma: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: list[str] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool | None = None
    logit_bias: dict[str, float] | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class SchemaFormat(msgspec.Struct):
    """OpenAI's ``json_schema``."""

    schema: dict[str, Any] | bool | None = None
    name: str | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct):
    """OpenAI's three types, and "regex" and "grammar" (Lark) beside them."""

    type: str
    json_schema: SchemaFormat | None = None
    schema: dict[str, Any] | None = None  # beside json_object, as llama.cpp's server takes it
    regex: str | None = None
    grammar: str | None = None


def sampling_params(
    asked: Sampling, vocab_size: int, logprobs: int | None = None, form: Mapping[str, Any] | None = None
) -> SamplingParams:
    """Raises Refusal where a field is out of range. By the protocol, temperature is 1 where it is not given."""
    for name, (least, most) in _RANGES.items():
        value = getattr(asked, name)
        if value is not None and not least <= value <= most:
            raise out_of_range(name, value, least, most)
    stops = [asked.stop] if isinstance(asked.stop, str) else list(asked.stop or ())
    if len(stops) > MOST_STOPS:
        raise Refusal(400, f"stop: expected at most {MOST_STOPS} strings, found {len(stops)}", "stop")
    if any(not stop or len(stop) > MOST_STOP_CHARACTERS for stop in stops):
        raise Refusal(400, f"stop: expected strings of 1 to {MOST_STOP_CHARACTERS} characters", "stop")
    if asked.top_k is not None and not -1 <= asked.top_k <= vocab_size:
        raise out_of_range("top_k", asked.top_k, -1, vocab_size)
    if asked.seed is not None and not -(1 << 63) <= asked.seed < 1 << 64:
        raise out_of_range("seed", asked.seed, -(1 << 63), (1 << 64) - 1)
    try:
        return SamplingParams(
            temperature=1.0 if asked.temperature is None else asked.temperature,
            top_p=asked.top_p,  # type: ignore[arg-type]  # None is the default everywhere
            top_k=asked.top_k,  # type: ignore[arg-type]
            min_p=asked.min_p,  # type: ignore[arg-type]
            top_n_sigma=asked.top_n_sigma,  # type: ignore[arg-type]
            repetition_penalty=asked.repetition_penalty,  # type: ignore[arg-type]
            presence_penalty=asked.presence_penalty,  # type: ignore[arg-type]
            frequency_penalty=asked.frequency_penalty,  # type: ignore[arg-type]
            dry_multiplier=asked.dry_multiplier,  # type: ignore[arg-type]
            dry_base=asked.dry_base,  # type: ignore[arg-type]
            dry_allowed_length=asked.dry_allowed_length,  # type: ignore[arg-type]
            dry_penalty_last_n=asked.dry_penalty_last_n,  # type: ignore[arg-type]
            dry_sequence_breakers=asked.dry_sequence_breakers,  # type: ignore[arg-type]
            seed=None if asked.seed is None or asked.seed == -1 else asked.seed % (1 << 64),
            stop=tuple(stops),
            ignore_eos=bool(asked.ignore_eos),
            logit_bias=_bias(asked.logit_bias or {}, vocab_size),
            logprobs=logprobs,
            **(form or {}),
        )
    except ValueError as error:
        raise Refusal(400, str(error)) from None


def out_of_range(name: str, value: Any, least: Any, most: Any) -> Refusal:
    return Refusal(400, f"{name}: expected {least} to {most}, found {value!r}", name)


def _bias(given: Mapping[str, float], vocab_size: int) -> dict[int, float]:
    if len(given) > MOST_BIAS:
        raise Refusal(400, f"logit_bias: expected at most {MOST_BIAS} tokens, found {len(given)}", "logit_bias")
    made = {}
    for key, value in given.items():
        if not (key.isascii() and key.isdigit()) or int(key) >= vocab_size:
            raise Refusal(
                400, f"logit_bias: expected token ids from 0 to {vocab_size - 1}, found {key!r}", "logit_bias"
            )
        if not -100 <= value <= 100:
            raise out_of_range("logit_bias", value, -100, 100)
        made[int(key)] = -math.inf if value == -100 else value
    return made


def answer_tokens(name: str, value: int | None, least: int = 1) -> int | None:
    """A bound of the answer's tokens."""
    if value is not None and value < least:
        raise Refusal(400, f"{name}: expected a whole number from {least} on, found {value}", name)
    return value


def top_logprobs(wanted: bool | None, top: int | None) -> int | None:
    """Of a chat: None where none are asked for."""
    if top is not None and not 0 <= top <= MOST_TOP_LOGPROBS:
        raise out_of_range("top_logprobs", top, 0, MOST_TOP_LOGPROBS)
    if top and not wanted:
        raise Refusal(400, "top_logprobs: expected logprobs to be true beside it", "top_logprobs")
    return (top or 0) if wanted else None


def choices(n: int | None, settings: Settings) -> int:
    if n is not None and not 1 <= n <= settings.max_choices:
        raise out_of_range("n", n, 1, settings.max_choices)
    return n or 1


def form_of(asked: ResponseFormat | None, settings: Settings) -> dict[str, Any]:
    """The form of an answer as fields of ``SamplingParams``; empty where it is free."""
    if asked is None or asked.type == "text":
        return {}
    if asked.type == "json_object":
        return {"schema": compact(_bounded(asked.schema or {"type": "object"}, settings))}
    if asked.type == "json_schema":
        schema = None if asked.json_schema is None else asked.json_schema.schema
        if schema is None or schema is False:
            raise Refusal(400, "response_format: expected json_schema with a schema", "response_format")
        return {"schema": compact(_bounded({} if schema is True else schema, settings))}
    if asked.type in ("regex", "grammar"):
        text = getattr(asked, asked.type)
        if not text:
            raise Refusal(400, f"response_format: expected {asked.type} as text", "response_format")
        return {asked.type: _bounded(text, settings)}
    expected = "text, json_object, json_schema, regex or grammar"
    raise Refusal(400, f"response_format.type: expected {expected}, found {asked.type!r}", "response_format")


def compact(schema: dict[str, Any]) -> dict[str, Any]:
    """With at most one space where JSON allows any: a model that is bound can't go on with white space for ever."""
    return {"x-guidance": _COMPACT, **schema}


def _bounded(schema: Any, settings: Settings) -> Any:
    size = len(msgspec.json.encode(schema))
    if size > settings.max_schema_bytes:
        most = settings.max_schema_bytes
        raise Refusal(400, f"response_format: expected at most {most} bytes, found {size}", "response_format")
    return schema
