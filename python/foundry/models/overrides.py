"""What a caller says of a model's rope and context in place of its file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from foundry.checks import whole
from foundry.models.hyperparameters import MAX_SEQ_LEN

KINDS = ("none", "linear", "yarn")
KEYS = {
    "type": "type",
    "factor": "factor",
    "original_context_length": "original_context_length",
    "attention_factor": "yarn_attn_factor",
    "beta_fast": "yarn_beta_fast",
    "beta_slow": "yarn_beta_slow",
}


def parse_scaling(scaling: str | Mapping[str, Any]) -> dict[str, Any]:
    """The mapping that ``rope_scaling`` is, or that "none", "linear:2", "yarn:4" or "yarn:4:32768" (factor and original
    context) stands for. ValueError for what is neither."""
    wanted = 'expected "none", "linear:FACTOR", "yarn:FACTOR", "yarn:FACTOR:ORIGINAL_CONTEXT" or a mapping of them'
    if isinstance(scaling, str):
        kind, *numbers = scaling.split(":")
        try:
            values: dict[str, Any] = dict(zip(("factor", "original_context_length"), map(float, numbers), strict=False))
        except ValueError:
            raise ValueError(f"rope_scaling: {wanted}, found {scaling!r}") from None
        if len(numbers) > 2:
            raise ValueError(f"rope_scaling: {wanted}, found {scaling!r}")
        values["type"] = kind
    elif isinstance(scaling, Mapping):
        values = dict(scaling)
        if "rope_type" in values:  # as configurations of transformers have it
            values["type"] = values.pop("rope_type")
        if "original_max_position_embeddings" in values:
            values["original_context_length"] = values.pop("original_max_position_embeddings")
    else:
        raise ValueError(f"rope_scaling: {wanted}, found {scaling!r}")
    if values.get("type") not in KINDS or not values.keys() <= KEYS.keys():
        raise ValueError(f"rope_scaling: {wanted} with {', '.join(KEYS)}, found {scaling!r}")
    if (values["type"] == "none") == ("factor" in values):
        raise ValueError(f"rope_scaling: expected a factor for linear and yarn, and none for none, found {scaling!r}")
    for key, value in values.items():
        if key != "type" and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30):
            raise ValueError(f"rope_scaling: {key}: expected a number above 0, found {value!r}")
    if "original_context_length" in values:
        values["original_context_length"] = int(values["original_context_length"])
    return values


def override(
    metadata: Mapping[str, Any],
    rope_scaling: str | Mapping[str, Any] | None = None,
    rope_base: float | None = None,
    max_seq_len: int | None = None,
) -> Mapping[str, Any]:
    """The metadata as if the file said so. A context beyond the file's is warned of.

    With a scaling and no ``max_seq_len``, the context is the original one times the factor.

    Raises:
        ValueError: an argument makes no sense.
    """
    if rope_scaling is None and rope_base is None and max_seq_len is None:
        return metadata
    name = metadata.get("general.architecture")
    of_file = metadata.get(f"{name}.context_length")
    changed = dict(metadata)
    if rope_base is not None:
        if isinstance(rope_base, bool) or not isinstance(rope_base, int | float) or not 0 < rope_base < 1e30:
            raise ValueError(f"rope_base: expected a number above 0, found {rope_base!r}")
        changed[f"{name}.rope.freq_base"] = float(rope_base)
    # Without a word of its own, the file's scaling is of the file's context, whatever the caller makes of that.
    trained = metadata.get(f"{name}.rope.scaling.original_context_length", of_file)
    if trained is not None:
        changed[f"{name}.rope.scaling.original_context_length"] = trained
    if rope_scaling is not None:
        values = parse_scaling(rope_scaling)
        for key in [key for key in changed if key.startswith(f"{name}.rope.scal")]:
            if not key.endswith("original_context_length"):
                del changed[key]
        changed |= {f"{name}.rope.scaling.{KEYS[key]}": value for key, value in values.items()}
        trained = changed.get(f"{name}.rope.scaling.original_context_length")
        if max_seq_len is None and "factor" in values and isinstance(trained, int | float):
            max_seq_len = max(1, min(int(trained * values["factor"]), MAX_SEQ_LEN - 1))
    if max_seq_len is not None:
        changed[f"{name}.context_length"] = whole("max_seq_len", max_seq_len, 1, MAX_SEQ_LEN - 1)
        if isinstance(of_file, int) and max_seq_len > of_file:
            warnings.warn(
                f"the context is {max_seq_len} tokens by the caller's word, beyond the {of_file} of the model file:"
                " how good the answers are there is not known",
                stacklevel=3,
            )
    return changed
