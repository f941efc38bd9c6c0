"""Model directories as Hugging Face has them: config.json, and weights in safetensors, in one file or in shards."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from foundry import _core
from foundry.errors import ModelFormatError
from foundry.files import bounded_json, safetensors
from foundry.files.arranging import Arranging, Role
from foundry.files.configuration import Configuration, read_configuration
from foundry.models.naming import LAYER, ONCE

MOST_CONFIG_BYTES = 4 << 20  # known ones have up to 100 KB
MOST_INDEX_BYTES = 64 << 20  # known ones have up to 10 MB
MOST_SHARDS = 4096
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# Before all names of a model's text, by what is around it.
PREFIXES = re.compile(r"^(language_model\.model\.|model\.language_model\.|language_model\.|model\.|transformer\.)")
IMAGES = re.compile(
    r"^(model\.)?(vision_tower|vision_model|vision_encoder|visual|multi_modal_projector|patch_merger)\."
)
LEFT_OUT = re.compile(r"rotary_emb\.inv_freq$|\.attn\.(masked_)?bias$")  # computed anew


def read_config(folder: str) -> Configuration:
    """Raises ModelFormatError: it is missing, damaged, or of a model that is not read."""
    path = os.path.join(folder, "config.json")
    try:
        return read_configuration(bounded_json.read(path, MOST_CONFIG_BYTES))
    except FileNotFoundError:
        files = sorted(one.name for one in Path(folder).glob("*.gguf"))
        raise ModelFormatError(
            f"{folder}: expected config.json and {WHOLE} of a model in Hugging Face's form, found no config.json"
            + (f"; of the GGUF files there name one: {', '.join(files[:8])}" if files else "")
        ) from None


def open_weights(
    folder: str, config: Configuration, header_only: bool, embeds: bool = False
) -> tuple[_core.WeightSource, dict[str, tuple[str, tuple[int, int], int]], int]:
    """The weights by GGUF's names; of each (type, (rows, cols), bytes); and how many see images and are left out. One
    that ``embeds`` need not have those of the logits.

    Raises:
        ModelFormatError: a file is missing or damaged, or a weight's type is not read.
    """
    shards, known = _shards(folder)
    files, tensors, n_of_images = [], {}, 0
    arranging = Arranging(config)
    for shard in shards:
        file = _opened(os.path.join(folder, shard), header_only)
        table = safetensors.read_table(file)
        if missing := [name for name, where in known.items() if where == shard and name not in table]:
            raise ModelFormatError(f"{file.path}: expected tensor {missing[0]!r}, as {INDEX} has it, found none")
        for name, entry in table.items():
            role = arranging.take(name, PREFIXES.sub("", name, count=1), entry)
            ours = name if role else our_name(name, config)
            if ours is None:
                n_of_images += IMAGES.match(name) is not None
                continue
            if role is Role.bytes and entry.type == "U8" and entry.bytes:
                file.add_bytes(name, entry.bytes, entry.offset)
            elif role is not Role.bytes and entry.type in safetensors.READABLE and entry.bytes:
                plus = 1.0 if _less_one(ours, config) else 0.0
                kind = safetensors.READABLE[entry.type]
                file.add(ours, kind, entry.rows, entry.cols, entry.offset, plus)
            else:
                raise ModelFormatError(
                    f"{file.path}: tensor {name[:80]!r}: expected"
                    f" {'U8' if role is Role.bytes else ', '.join(safetensors.READABLE)}, found {entry.type} of"
                    f" {entry.bytes} bytes"
                )
            if not role:
                tensors[ours] = entry.type, (entry.rows, entry.cols), entry.bytes
        files.append(file)
    if not config.tied and not embeds and "output.weight" not in tensors:
        raise ModelFormatError(
            f"{folder}: expected lm_head.weight, for by config.json the output's weights are not the embedding's, found"
            " no tensor of that name"
        )
    weights, of_made = arranging.made_of(files[0] if len(files) == 1 else _core.JoinedFiles(files))
    return weights, tensors | of_made, n_of_images


def _less_one(ours: str, config: Configuration) -> bool:
    naming = config.naming
    if not naming.norms_less_one or not ours.endswith("norm.weight"):
        return False
    return not ours.endswith(tuple(f"{name}.weight" for name in naming.norms_whole))


def our_name(theirs: str, config: Configuration) -> str | None:
    """GGUF's name of a weight; None for what is left out. What has none keeps its own, and no graph knows it."""
    naming = config.naming
    if LEFT_OUT.search(theirs) or (config.has_images and IMAGES.match(theirs)):
        return None
    if naming.left_out and re.search(naming.left_out, theirs):
        return None
    stem, _, kind = PREFIXES.sub("", theirs, count=1).rpartition(".")
    if stem == "lm_head" and kind == "weight" and config.tied:
        return None  # written all the same by some
    if found := re.fullmatch(rf"{naming.layers}\.([0-9]{{1,6}})\.(.+)", stem):
        ours = (LAYER | dict(naming.layer)).get(found[2])
        return f"blk.{int(found[1])}.{ours}.{kind}" if ours is not None else theirs
    ours = (ONCE | dict(naming.once)).get(stem)
    return f"{ours}.{kind}" if ours is not None else theirs


def _shards(folder: str) -> tuple[list[str], dict[str, str]]:
    """Names of the files, and of each tensor the file that the index names."""
    if os.path.exists(os.path.join(folder, WHOLE)):
        return [WHOLE], {}
    path = os.path.join(folder, INDEX)
    try:
        index: Any = bounded_json.read(path, MOST_INDEX_BYTES).get("weight_map")
    except FileNotFoundError:
        names = sorted(os.listdir(folder))
        others = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".h5", ".msgpack", ".safetensors"))]
        raise ModelFormatError(
            f"{folder}: expected weights in {WHOLE} or the files that {INDEX} names, found"
            f" {', '.join(others[:4]) or 'none'}"
            + (
                "; pickled weights are programs, and not read"
                if any(n.endswith((".bin", ".pt")) for n in others)
                else ""
            )
        ) from None
    if not isinstance(index, dict) or not index or not all(isinstance(one, str) for one in index.values()):
        raise ModelFormatError(f"{path}: weight_map: expected a file for each tensor, found {str(index)[:80]}")
    shards = sorted(set(index.values()))
    for shard in shards:
        if shard in ("", ".", "..") or "/" in shard or "\\" in shard or "\0" in shard:
            raise ModelFormatError(f"{path}: weight_map: expected names of files beside it, found {shard[:80]!r}")
    if len(shards) > MOST_SHARDS:
        raise ModelFormatError(f"{path}: weight_map: expected at most {MOST_SHARDS} files, found {len(shards)}")
    return shards, index


def _opened(path: str, header_only: bool) -> _core.TensorFile:
    try:
        return _core.TensorFile(path, header_only)
    except FileNotFoundError:
        raise ModelFormatError(f"{path}: expected the file, as {INDEX} has it, found none") from None
