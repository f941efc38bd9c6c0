"""Forged saves: figures of a saved history are changed and the header's checksum made anew, so only what they say can give them away.

    python tests/fuzz/forged_saves.py [count] [seed]

Each must be refused with ModelFormatError, or be a history: one whose header says the same, or the same of other tokens or pages.
Restores run in a process of their own; one that dies is a crash, is counted, and another takes its place. Exit status 1 for any
crash, other error or wrong acceptance.
"""

from __future__ import annotations

import collections
import json
import random
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))
ALIGN = 16384
MASK = (1 << 64) - 1
P1, P2, P3, P4, P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)


def xxh64(data: bytes) -> int:
    """XXH64 (Collet) with seed 0."""

    def rotl(x: int, n: int) -> int:
        return (x << n | x >> (64 - n)) & MASK

    def round64(lane: int, word: int) -> int:
        return rotl((lane + word * P2) & MASK, 31) * P1 & MASK

    at = 0
    if len(data) >= 32:
        a, b, c, d = (P1 + P2) & MASK, P2, 0, -P1 & MASK
        at = len(data) // 32 * 32
        for w, x, y, z in struct.iter_unpack("<4Q", data[:at]):
            a, b, c, d = round64(a, w), round64(b, x), round64(c, y), round64(d, z)
        h = (rotl(a, 1) + rotl(b, 7) + rotl(c, 12) + rotl(d, 18)) & MASK
        for lane in (a, b, c, d):
            h = ((h ^ round64(0, lane)) * P1 + P4) & MASK
    else:
        h = P5
    h = (h + len(data)) & MASK
    while at + 8 <= len(data):
        h = (rotl(h ^ round64(0, struct.unpack_from("<Q", data, at)[0]), 27) * P1 + P4) & MASK
        at += 8
    if at + 4 <= len(data):
        h = (rotl(h ^ struct.unpack_from("<I", data, at)[0] * P1 & MASK, 23) * P2 + P3) & MASK
        at += 4
    for byte in data[at:]:
        h = rotl(h ^ byte * P5 & MASK, 11) * P1 & MASK
    h = (h ^ h >> 33) * P2 & MASK
    h = (h ^ h >> 29) * P3 & MASK
    return h ^ h >> 32


@dataclass
class Layout:
    """Where the figures of a save lie: cpp/kv/kv_image.h."""

    figures: list[tuple[str, int, str]]  # name, byte, struct code
    tokens: tuple[int, int]  # bytes of the header from .. to
    checksums: tuple[int, int]
    header: int
    pages: list[tuple[int, int]]  # byte and length, in the checksums' order


def layout_of(data: bytes) -> Layout:
    figures, at = [("magic", 0, "Q")], 8

    def take(name: str, code: str) -> int:
        nonlocal at
        figures.append((name, at, code))
        value = struct.unpack_from("<" + code, data, at)[0]
        at += struct.calcsize(code)
        return int(value)

    header = take("header bytes", "Q")
    take("fingerprint", "Q")
    name_bytes = take("name length", "I")
    at += name_bytes
    n_tokens, n_groups = take("tokens", "I"), take("groups", "I")
    counts = []
    for g in range(n_groups):
        for name in ("layers", "kv heads", "head_dim", "window", "page_tokens", "tile_tokens", "K type", "V type"):
            take(f"{name} of group {g}", "I")
        page_bytes = take(f"page bytes of group {g}", "Q")
        take(f"first page of group {g}", "I")
        counts.append((take(f"pages of group {g}", "I"), page_bytes))
    tokens = (at, at + 4 * n_tokens)
    checksums = (tokens[1], tokens[1] + 8 * sum(n for n, _ in counts))
    pages, begin = [], header
    for n, size in counts:
        for _ in range(n):
            pages.append((begin, size))
            begin += size
    return Layout(figures, tokens, checksums, header, pages)


def signed(data: bytearray, header: int) -> None:
    struct.pack_into("<Q", data, header - 8, xxh64(bytes(data[: header - 8])))


def forge(whole: bytes, layout: Layout, draw: random.Random) -> tuple[str, bytearray]:
    """One forgery: what was done, and the file."""
    data, done, header = bytearray(whole), [], layout.header
    kinds = ["figure", "bytes", "tokens", "page", "padding", "name", "length"]
    chosen = draw.choices(kinds, [60, 10, 6, 6, 4, 4, 10], k=draw.choice([1, 1, 1, 2, 3]))
    for kind in sorted(set(chosen), key=kinds.index):  # the length last: the others need the whole file
        if kind == "figure":
            name, at, code = draw.choice(layout.figures)
            most = (1 << 8 * struct.calcsize(code)) - 1
            (old,) = struct.unpack_from("<" + code, data, at)
            new = draw.choice(
                [0, 1, 2, 3, 7, 8, 9, 16, 255, 256, 257, ALIGN, 2 * ALIGN, most, most - 1, most // 2, most // 2 + 1]
                + [old - 1, old + 1, old * 2, old // 2, old ^ 1 << draw.randrange(8 * struct.calcsize(code))]
                + [draw.randrange(most + 1), draw.randrange(1 << 16), len(whole), len(whole) - header]
            )
            struct.pack_into("<" + code, data, at, new & most)
            done.append(f"{name} {old} -> {new & most}")
        elif kind == "bytes":
            for _ in range(draw.randrange(1, 9)):
                at = draw.randrange(layout.checksums[1])
                data[at] = draw.randrange(256)
                done.append(f"byte {at}")
        elif kind == "tokens" and layout.tokens[1] > layout.tokens[0]:
            at = draw.randrange(layout.tokens[0], layout.tokens[1], 4)
            struct.pack_into("<i", data, at, draw.choice([-1, 0, 1, 255, 258, 259, 1 << 30, -(1 << 31)]))
            done.append(f"token at {at}")
        elif kind == "page" and layout.pages:
            i = draw.randrange(len(layout.pages))
            at, size = layout.pages[i]
            data[at + draw.randrange(size)] ^= 1 << draw.randrange(8)
            if draw.random() < 0.5:  # consistent: a history like any other
                sum_at = layout.checksums[0] + 8 * i
                struct.pack_into("<Q", data, sum_at, xxh64(bytes(data[at : at + size])))
            done.append(f"page {i}")
        elif kind == "length":
            change = draw.choice([-1, 1, -8, 8, -ALIGN, ALIGN, draw.randrange(-len(whole) // 2, len(whole))])
            data = data[:change] if change < 0 else data + bytes(change)
            done.append(f"length {change:+}")
        elif kind == "padding":
            at = draw.randrange(layout.checksums[1], header - 8)
            data[at] = draw.randrange(1, 256)
            done.append(f"padding at {at}")
        elif kind == "name":
            at = draw.randrange(28, 28 + struct.unpack_from("<I", whole, 24)[0])
            data[at] = draw.randrange(256)
            done.append(f"name at {at}")
    if len(data) < header:  # the header is what is left
        header = len(data) // ALIGN * ALIGN
    said = struct.unpack_from("<Q", data, 8)[0] if len(data) >= 16 else 0
    if said % ALIGN == 0 and ALIGN <= said <= len(data):
        header = said
    if header:
        signed(data, header)
    return ", ".join(done) or "nothing", data


def may_be_accepted(whole: bytes, data: bytes, layout: Layout) -> bool:
    """The header says what it said, but for tokens and pages' checksums."""
    if len(data) != len(whole):
        return False
    a, b = bytearray(whole[: layout.header - 8]), bytearray(data[: layout.header - 8])
    for begin, end in (layout.tokens, layout.checksums):
        a[begin:end] = b[begin:end] = bytes(end - begin)
    return a == b


def worker(model_path: str) -> None:
    """Restores each file named on stdin, uses it, and says what came of it."""
    from foundry import CompiledModel, ModelFormatError

    model = CompiledModel.load(model_path, threads=1, page_tokens=8, chunk_tokens=16, check_every_step=True)
    for line in sys.stdin:
        path = json.loads(line)
        try:
            with model.restore(path) as s:
                n = s.position
                said = "accepted"
                try:
                    if n < model.arch.max_seq_len:
                        s.forward([1])
                        s.fork().close()
                    s.save(path + ".again")
                except ModelFormatError as error:
                    said = "refused" if path in str(error) else f"other: {error!r}"
                s.rewind(0)
                s.forward([1, 2, 3])
            memory = model.memory()
            if memory["kv"] or memory["promised"]:
                said = f"other: memory is not given back: {memory}"
        except ModelFormatError as error:
            said = "refused" if path in str(error) else f"other: {error!r}"
        except BaseException as error:
            said = f"other: {error!r}"
        print(json.dumps(said), flush=True)


def start(model: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, "--worker", str(model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def saves(folder: Path) -> list[tuple[Path, bytes]]:
    """Models, and a history of each: empty, short, full, and with pages that a window has passed."""
    import synthetic
    from foundry import CompiledModel

    made = []
    for name, shape in (("llama", synthetic.Shape()), ("gemma3", synthetic.Shape(arch="gemma3", layers=3, window=24))):
        path = synthetic.write(folder / f"{name}.gguf", shape)
        model = CompiledModel.load(path, threads=1, page_tokens=8, chunk_tokens=16)
        for n in (0, 20, 100):
            with model.session() as s:
                if n:
                    s.forward([i % 256 for i in range(n)])
                s.save(folder / "whole.kv")
            made.append((path, (folder / "whole.kv").read_bytes()))
    return made


def main(count: int, seed: int) -> int:
    assert xxh64(b"") == 0xEF46DB3751D8E999 and xxh64(b"abc") == 0x44BC2CF5AD770999
    draw, came = random.Random(seed), collections.Counter[str]()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wholes = saves(folder)
        layouts = [layout_of(whole) for _, whole in wholes]
        workers = {path: start(path) for path, _ in wholes}
        for i in range(count):
            at = draw.randrange(len(wholes))
            path, whole = wholes[at]
            what, data = forge(whole, layouts[at], draw)
            forged = folder / "forged.kv"
            forged.write_bytes(data)
            process = workers[path]
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(str(forged)) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                said = f"crash: exit status {process.wait()}"
                workers[path] = start(path)
            else:
                said = json.loads(line)
            if said == "accepted" and not may_be_accepted(whole, bytes(data), layouts[at]):
                said = "other: accepted"
            came[said.split(":")[0]] += 1
            if said not in ("accepted", "refused"):
                faults.append(f"forgery {i} of seed {seed} ({what}): {said}")
        for process in workers.values():
            assert process.stdin is not None
            process.stdin.close()
            if process.wait() != 0:
                faults.append(f"a worker ended with {process.returncode}")
    print("\n".join(faults[:20]))
    print(
        f"{count} forged saves: {came['refused']} refused, {came['accepted']} that are histories, "
        f"{came['crash']} crashes, {came['other']} other errors"
    )
    return 1 if faults or came["refused"] + came["accepted"] != count else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2])
    else:
        given = [int(argument) for argument in sys.argv[1:]]
        sys.exit(main(*given, *(3000, 1)[len(given) :]))
