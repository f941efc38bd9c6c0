"""Weights of a directory that are made of others: a tensor for each expert joined, gate and up that are one split, rows
and columns in GGUF's order. The core makes their rows of the file's when a device reads them
(cpp/files/arranged_files.h); here names are matched, and what is taken of which is told.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from foundry import _core
from foundry.errors import ModelFormatError
from foundry.files.configuration import Configuration
from foundry.files.safetensors import SIZES, Entry
from foundry.models.naming import Made

MOST_EXPERTS = 1 << 16
MXFP4_BYTES = 16  # of the nibbles of a block
OF_ALL, SCALES = -1, -2  # in place of an expert's number
Tensors = dict[str, tuple[str, tuple[int, int], int]]


class Role(enum.Enum):
    """What a tensor that something is made of is to the core."""

    values = 1
    bytes = 2


@dataclass(frozen=True)
class _Found:
    """Of one weight: how it is made, and by an expert's number the tensors that it is made of."""

    made: Made
    parts: dict[int, tuple[str, Entry]] = field(default_factory=dict)


class Arranging:
    """Takes the tensors that something is made of, one by one, and then makes it."""

    def __init__(self, config: Configuration) -> None:
        self._layers, self._theirs = config.naming.layers, config.theirs
        forms: dict[str, list[tuple[Made, bool]]] = {}  # with whether they are scales
        for made in config.naming.made:
            forms.setdefault(made.theirs, []).append((made, False))
            if made.scales:
                forms.setdefault(made.scales, []).append((made, True))
        number = r"([0-9]{1,6})"
        self._forms = [(re.compile(re.escape(form).replace(r"\{\}", number)), made) for form, made in forms.items()]
        self._found: dict[str, _Found] = {}  # by GGUF's names

    def take(self, name: str, stem: str, entry: Entry) -> Role | None:
        """What the tensor is, whose name without what stands before all names is ``stem``; None: nothing is made of
        it."""
        layer = re.fullmatch(rf"{self._layers}\.([0-9]{{1,6}})\.(.+)", stem)
        if layer is None:
            return None
        for form, made_of in self._forms:
            if not (match := form.fullmatch(layer[2])):
                continue
            for made, is_scales in made_of:
                place = int(match[1]) if match.groups() else SCALES if is_scales else OF_ALL
                ours = f"blk.{int(layer[1])}.{made.ours}"
                found = self._found.setdefault(ours, _Found(made))
                if found.made is not made or place in found.parts:
                    raise ModelFormatError(f"tensor {name[:80]!r}: expected what makes {ours} once, found it twice")
                found.parts[place] = name, entry
            return Role.bytes if made_of[0][0].scales else Role.values
        return None

    def made_of(self, files: _core.WeightSource) -> tuple[_core.WeightSource, Tensors]:
        """The files with what is made of them; of each such weight (type, (rows, cols), bytes)."""
        if not self._found:
            return files, {}
        arranged, tensors = _core.ArrangedFiles(files), {}
        for ours, found in self._found.items():
            if found.made.scales:
                tensors[ours] = self._add_mxfp4(arranged, ours, found)
            else:
                tensors[ours] = self._add(arranged, ours, found)
        return arranged, tensors

    def _add(self, arranged: _core.ArrangedFiles, ours: str, found: _Found) -> tuple[str, tuple[int, int], int]:
        made, parts = found.made, found.parts
        if sorted(parts) not in ([OF_ALL], list(range(len(parts)))):
            raise ModelFormatError(
                f"{arranged.path}: {ours}: expected a tensor of each expert from 0 to {max(parts)}, found {len(parts)}"
            )
        if len(parts) > MOST_EXPERTS:
            raise ModelFormatError(f"{arranged.path}: {ours}: expected at most {MOST_EXPERTS} experts")
        names = [parts[expert][0] for expert in sorted(parts)]
        entry = next(iter(parts.values()))[1]
        rows, cols = entry.rows, entry.cols
        if made.stacked:
            rows, cols = self._dims(arranged, ours, entry, 3)[1:]
        if made.transposed:
            rows, cols = cols, rows
        shape = arranged.add(
            ours,
            names,
            entry.shape[0] if made.stacked else 1,
            list(made.rows(rows, self._theirs)) if made.rows else [],
            list(made.cols(cols, self._theirs)) if made.cols else [],
            made.transposed,
            made.minus_exp,
        )
        return entry.type, shape, shape[0] * shape[1] * SIZES[entry.type]

    def _add_mxfp4(self, arranged: _core.ArrangedFiles, ours: str, found: _Found) -> tuple[str, tuple[int, int], int]:
        made, parts = found.made, found.parts
        if parts.keys() != {OF_ALL, SCALES}:
            raise ModelFormatError(f"{arranged.path}: {ours}: expected blocks and scales, found one of them")
        experts, rows, blocks, each = self._dims(arranged, ours, parts[OF_ALL][1], 4)
        if each != MXFP4_BYTES:
            raise ModelFormatError(f"{arranged.path}: {ours}: expected blocks of {MXFP4_BYTES} bytes, found {each}")
        order = list(made.rows(rows, self._theirs)) if made.rows else []
        shape = arranged.add_mxfp4(ours, parts[OF_ALL][0], parts[SCALES][0], experts, rows, 32 * blocks, order)
        return "MXFP4", shape, shape[0] * blocks * (MXFP4_BYTES + 1)

    @staticmethod
    def _dims(arranged: _core.ArrangedFiles, ours: str, entry: Entry, n: int) -> Sequence[int]:
        if len(entry.shape) != n or not 1 <= entry.shape[0] <= MOST_EXPERTS:
            raise ModelFormatError(
                f"{arranged.path}: {ours}: expected {n} dimensions, experts first, at most {MOST_EXPERTS} of them,"
                f" found {list(entry.shape)}"
            )
        return entry.shape
