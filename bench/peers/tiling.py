"""Long histories out of short ones: the K/V of computed tokens over and over, in the form that each engine restores.

Every byte is there and is read as it would be; only the values are those of the first tokens again, so that what is
computed from them is no text's. Attention's time depends on how many there are, not on what they are.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]


def tile_saved(source: Path, target: Path, tokens: int) -> None:
    """A saved history of Foundry's (cpp/kv/kv_image.h), made ``tokens`` long: its pages, their checksums and its tokens
    over again. It has to be a whole number of pages, in one layer group."""
    sys.path.insert(0, str(ROOT / "tests" / "fuzz"))
    from forged_saves import ALIGN, layout_of, signed

    data = source.read_bytes()
    layout = layout_of(data)
    held, page_tokens = layout.values["tokens"], layout.values["page_tokens of group 0"]
    if layout.values["groups"] != 1 or held % page_tokens:
        raise ValueError(f"tile_saved: expected one group and whole pages, found {held} tokens in {page_tokens}s")
    pages = -(-tokens // page_tokens)
    places = {name: at for name, at, _ in layout.figures}
    header = bytearray(data[: layout.tokens[0]])
    struct.pack_into("<I", header, places["tokens"], tokens)
    struct.pack_into("<I", header, places["pages of group 0"], pages)
    header += np.resize(np.frombuffer(data[slice(*layout.tokens)], np.int32), tokens).tobytes()
    header += np.resize(np.frombuffer(data[slice(*layout.checksums)], np.uint64), pages).tobytes()
    header += bytes(-(-(len(header) + 8) // ALIGN) * ALIGN - len(header))
    struct.pack_into("<Q", header, places["header bytes"], len(header))
    signed(header, len(header))
    with target.open("wb") as file:
        file.write(header)
        for page in range(pages):
            at, size = layout.pages[page % len(layout.pages)]
            file.write(data[at : at + size])


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, n: int) -> bytes:
        self._at += n
        return self._data[self._at - n : self._at]

    def figure(self, code: str) -> tuple[bytes, int]:
        raw = self.take(struct.calcsize("<" + code))
        return raw, struct.unpack("<" + code, raw)[0]


def tile_state(state: bytes, tokens: int) -> bytes:
    """A sequence's state of llama.cpp's (llama_context::state_seq_get_data, llama_kv_cache::state_write in the pinned
    version; one stream, no sliding windows), made ``tokens`` long: K and V over again, positions on and on."""
    r = _Reader(state)
    out = [r.take(8)]  # a magic number, the sequence
    raw, streams = r.figure("I")
    cells = r.figure("I")[1]
    if streams != 1 or cells == 0:
        raise ValueError(f"tile_state: expected one stream with tokens, found {streams} with {cells}")
    sequence = r.take(12 * cells)[8:12]  # of each cell: position, how many sequences, which
    out += [raw, struct.pack("<I", tokens)]
    out += [struct.pack("<iI", position, 1) + sequence for position in range(tokens)]

    def repeated(row_bytes: int) -> bytes:
        return np.resize(np.frombuffer(r.take(cells * row_bytes), np.uint8), tokens * row_bytes).tobytes()

    raw, transposed = r.figure("I")
    out.append(raw)
    raw, layers = r.figure("I")
    out.append(raw)
    for _ in range(layers if transposed else 2 * layers):  # K of all layers; V likewise where it is not transposed
        out.append(r.take(4))
        raw, row_bytes = r.figure("Q")
        out += [raw, repeated(row_bytes)]
    for _ in range(layers if transposed else 0):
        out.append(r.take(4))
        raw, element_bytes = r.figure("I")
        out.append(raw)
        raw, dims = r.figure("I")
        out.append(raw)
        out += [repeated(element_bytes) for _ in range(dims)]
    if len(rest := r.take(len(state))) != 0:
        raise ValueError(f"tile_state: expected the state's end, found {len(rest)} bytes more")
    return b"".join(out)
