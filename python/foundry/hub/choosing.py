"""Which of a repository's files a name means: a file, all parts of a split one, the best that is read here, or a
directory in Hugging Face's form where there is no GGUF file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from foundry import _core
from foundry.files import INDEX, MODULES, PART, PROMPTS, WHOLE

_BESIDE = re.compile(r"(^|[/._-])(mmproj|imatrix)([._-]|$)", re.IGNORECASE)  # of a model, and none by themselves
# What files of a hub have in their names, in the order of choice, and the format of most of their weights: a mix of
# several (llama.cpp's names) has a name of its own. First those of four bits, small and nearly as good as any, the best
# of them first; then the larger ones, the smallest first; then those that are smaller still, at a cost.
NAMED = {
    "Q4_K_M": "Q4_K",
    "Q4_K_S": "Q4_K",
    "Q4_K": "Q4_K",
    "IQ4_NL": "IQ4_NL",
    "IQ4_XS": "IQ4_XS",
    "Q4_0": "Q4_0",
    "Q4_1": "Q4_1",
    "MXFP4": "MXFP4",
    "Q5_K_S": "Q5_K",
    "Q5_K_M": "Q5_K",
    "Q5_K": "Q5_K",
    "Q5_0": "Q5_0",
    "Q5_1": "Q5_1",
    "Q6_K": "Q6_K",
    "Q8_0": "Q8_0",
    "BF16": "BF16",
    "F16": "F16",
    "F32": "F32",
    "Q3_K_L": "Q3_K",
    "Q3_K_M": "Q3_K",
    "Q3_K_S": "Q3_K",
    "Q3_K": "Q3_K",
    "Q2_K": "Q2_K",
    "Q2_K_S": "Q2_K",
    "IQ3_M": "IQ3_S",
    "IQ3_S": "IQ3_S",
    "IQ3_XS": "IQ3_S",
    "IQ3_XXS": "IQ3_XXS",
    "IQ2_M": "IQ2_S",
    "IQ2_S": "IQ2_XS",
    "IQ2_XS": "IQ2_XS",
    "IQ2_XXS": "IQ2_XXS",
}
_READ = {f.file_name for f in _core.formats() if f.linear != _core.Readers.none}
READABLE = tuple(name for name, form in NAMED.items() if form in _READ)
CONFIG = "config.json"
_NEEDED = (CONFIG, "tokenizer.json")  # of a directory, beside its weights
_OPTIONAL = ("tokenizer_config.json", "generation_config.json", "chat_template.jinja", MODULES, PROMPTS)
_POOLING = re.compile(r"[^/]*Pooling/config\.json")  # of an embedding model, beside its modules
_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")


def models_in(files: Iterable[str]) -> list[tuple[str, ...]]:
    """The whole models among files: a GGUF file, or all parts of a split one in their order; and the files of a
    directory in Hugging Face's form, config.json first."""
    files = list(files)
    directory = directory_in(files)
    names = sorted(f for f in files if f.lower().endswith(".gguf") and not _BESIDE.search(f.rpartition("/")[2]))
    parts: dict[tuple[str, int], list[str]] = {}
    for name in names:
        if found := PART.search(name):
            parts.setdefault((name[: found.start()], int(found[2])), []).append(name)
    whole = [tuple(held) for (_, count), held in parts.items() if len(held) == count]
    ggufs = sorted([(name,) for name in names if not PART.search(name)] + whole)
    return [*ggufs, directory] if directory else ggufs


def directory_in(files: Iterable[str]) -> tuple[str, ...]:
    """What is read of a directory in Hugging Face's form, its weights last: who has those has all; none where something
    is missing. Weights in one file come before those in shards, as for who opens it."""
    held = set(files)
    beside = [name for name in (*_NEEDED, *_OPTIONAL) if name in held]
    if not set(_NEEDED) <= held:
        return ()
    if MODULES in held:
        beside += sorted(filter(_POOLING.fullmatch, held))
    if WHOLE in held:
        return (*beside, WHOLE)
    shards = sorted(name for name in held if _SHARD.fullmatch(name))
    counts = {int(name[-len("00000.safetensors") : -len(".safetensors")]) for name in shards}
    return (*beside, INDEX, *shards) if INDEX in held and counts == {len(shards)} else ()


def choose(repo: str, files: Iterable[str], wanted: str = "") -> tuple[str, ...]:
    """The files of the model that ``wanted`` names: a file's name or path, or a part of it such as Q4_K_M; by default
    the only model, or the first of READABLE that one is named for. Parts of a split model come together, in order, and
    so do the files of a directory, which any of them names.

    Raises:
        ValueError: none, or several. The message has those that are near.
    """
    files = list(files)
    models = models_in(files)
    if wanted:
        return _named(repo, files, models, wanted)
    models = [model for model in models if model[0] != CONFIG] or models
    if len(models) == 1:
        return models[0]
    for name in READABLE:
        for model in models:
            if _has(model, name):
                return model
    if not models and (parts := [f for f in files if PART.search(f)]):
        raise ValueError(f"{repo}: expected all parts of a split model, found only {_listed(parts)}")
    if not models and CONFIG in files:
        missing = [name for name in _NEEDED if name not in files] or [f"{WHOLE}, or {INDEX} and all its shards"]
        raise ValueError(
            f"{repo}: expected a GGUF file, or a directory with {', '.join(_NEEDED)} and safetensors, found no GGUF"
            f" file and no {missing[0]}"
        )
    raise ValueError(
        f"{repo}: expected a file in {', '.join(READABLE)}, found {_listed(model[0] for model in models)}; name one as"
        f" {repo}:<file>"
    )


def _named(repo: str, files: list[str], models: list[tuple[str, ...]], wanted: str) -> tuple[str, ...]:
    same = [f for f in files if f == wanted] or [f for f in files if f.rpartition("/")[2] == wanted]
    found = [model for model in models if set(model) & set(same)] or [(name,) for name in same if not PART.search(name)]
    if not found and not same:
        found = [model for model in models if _has(model, wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{repo}: expected one file for {wanted!r}, found {_listed(model[0] for model in found)}")
    if same:
        raise ValueError(f"{repo}: expected all parts of a split model, found only {_listed(same)}")
    names = [model[0] for model in models]
    near = difflib.get_close_matches(wanted.lower(), [name.lower() for name in names], 4, 0.3)
    nearest = sorted(names, key=lambda name: near.index(name.lower()) if name.lower() in near else len(near))[:4]
    raise ValueError(f"{repo}: expected a file for {wanted!r}, found none; the nearest are {_listed(nearest)}")


def _has(model: tuple[str, ...], name: str) -> bool:
    """As a word of the file's name or of its folder's."""
    return re.search(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", model[0], re.IGNORECASE) is not None


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return ", ".join(shown[:12]) + more or "no GGUF file"
