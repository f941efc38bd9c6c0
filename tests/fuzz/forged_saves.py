"""Forged saves: a saved history's figures are changed and the checksums made anew; only what they say gives them away.

    python tests/fuzz/forged_saves.py [count] [seed]

Half have a figure or more changed in place; half are written anew around changed figures, so that all else agrees.
Each must be refused with ModelFormatError, or be a history: what such a model could have saved, of other tokens or
pages perhaps. Restores run in a process of their own; one that dies is a crash, is counted, and another takes its
place. Exit status 1 for any crash, other error or wrong acceptance.
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
    values: dict[str, int]
    tokens: tuple[int, int]  # bytes of the header from .. to
    checksums: tuple[int, int]
    pages: list[tuple[int, int]]  # byte and length, in the checksums' order
    end: int  # of the file
    recurrent: bool  # there are states too

    @property
    def header(self) -> int:
        return self.values["header bytes"]


STATES = (("position", "I"), ("turn", "B"))  # of each state
GEOMETRY = ("layers", "kv heads", "head_dim", "window", "page_tokens", "tile_tokens", "K type", "V type")


def layout_of(data: bytes, recurrent: bool = False) -> Layout:
    """struct.error or ValueError where the figures don't fit the bytes. ``recurrent``: of such a model."""
    figures, values, at = [], {}, 0

    def take(name: str, code: str) -> int:
        nonlocal at
        figures.append((name, at, code))
        values[name] = int(struct.unpack_from("<" + code, data, at)[0])
        at += struct.calcsize(code)
        return values[name]

    for name in ("magic", "header bytes", "fingerprint"):
        take(name, "Q")
    name_bytes = take("name length", "I")
    at += name_bytes
    n_tokens, n_groups = take("tokens", "I"), take("groups", "I")
    counts = []
    for g in range(n_groups):
        for name in GEOMETRY:
            take(f"{name} of group {g}", "I")
        page_bytes = take(f"page bytes of group {g}", "Q")
        take(f"first page of group {g}", "I")
        counts.append((take(f"pages of group {g}", "I"), page_bytes))
    if recurrent:
        take("recurrent layers", "I")
        state_bytes = take("state bytes", "Q")
        counts.append((take("states", "I"), state_bytes))
        if 5 * counts[-1][0] > len(data):
            raise ValueError("more states than bytes")
        for name, code in STATES:
            for i in range(counts[-1][0]):
                take(f"{name} {i}", code)
    tokens = (at, at + 4 * n_tokens)
    checksums = (tokens[1], tokens[1] + 8 * sum(n for n, _ in counts))
    if checksums[1] > len(data):
        raise ValueError("more tokens and pages than bytes")
    pages, begin = [], values["header bytes"]
    for n, size in counts:
        pages += [(begin + i * size, size) for i in range(n)]
        begin += n * size
    return Layout(figures, values, tokens, checksums, pages, begin, recurrent)


def signed(data: bytearray, header: int) -> None:
    struct.pack_into("<Q", data, header - 8, xxh64(bytes(data[: header - 8])))


def changed(value: int, code: str, whole: bytes, draw: random.Random) -> int:
    """Another value of a figure: near it, at an edge, or any."""
    bits = 8 * struct.calcsize(code)
    most = (1 << bits) - 1
    edges = [0, 1, 2, 3, 7, 8, 9, 16, 24, 255, 256, 257, ALIGN, 2 * ALIGN, most, most - 1, most // 2, most // 2 + 1]
    near = [value - 1, value + 1, value * 2, value // 2, value ^ 1 << draw.randrange(bits)]
    anything = [draw.randrange(most + 1), draw.randrange(1 << 16), draw.randrange(64), len(whole), len(whole) - ALIGN]
    return draw.choice([*edges, *near, *anything]) & most


def rebuild(whole: bytes, layout: Layout, draw: random.Random) -> tuple[str, bytearray]:
    """Figures changed, and all the rest written to agree with them: tokens, checksums, pages, the file's length."""
    values, done = dict(layout.values), []
    codes = {name: code for name, _, code in layout.figures}
    names = [n for n in codes if n not in ("magic", "header bytes", "fingerprint", "name length")]
    names += [n for n in names if n.startswith(("page", "pages", "first"))] * 2  # what places and sizes follow from
    for name in draw.sample(names, draw.choice([1, 1, 2, 3])):
        values[name] = changed(values[name], codes[name], whole, draw)
        done.append(f"{name} {layout.values[name]} -> {values[name]}")
    n_groups = layout.values["groups"]
    if draw.random() < 0.5:  # as many pages as there should be
        for g in range(n_groups):
            pages = (
                -(-values["tokens"] // (values[f"page_tokens of group {g}"] or 1)) - values[f"first page of group {g}"]
            )
            values[f"pages of group {g}"] = max(0, pages)
    most_tokens = 1000
    data = bytearray(whole[: 28 + layout.values["name length"]])
    data += struct.pack("<2I", values["tokens"], values["groups"])
    for g in range(min(values["groups"], 40)):
        of = g % n_groups
        data += struct.pack("<8I", *(values[f"{name} of group {of}"] for name in GEOMETRY))
        data += struct.pack(
            "<Q2I", *(values[f"{name} of group {of}"] for name in ("page bytes", "first page", "pages"))
        )
    sizes = [
        (values[f"pages of group {g % n_groups}"], values[f"page bytes of group {g % n_groups}"])
        for g in range(min(values["groups"], 40))
    ]
    if layout.recurrent:
        sizes.append((values["states"], values["state bytes"]))
        data += struct.pack("<IQI", *(values[name] for name in ("recurrent layers", "state bytes", "states")))
        for name, code in STATES:
            for i in range(min(values["states"], most_tokens)):
                data += struct.pack("<" + code, values.get(f"{name} {i}", draw.randrange(2)))
    data += b"".join(struct.pack("<i", draw.randrange(256)) for _ in range(min(values["tokens"], most_tokens)))
    room, pages, sums = 1 << 20, [], bytearray()
    for n, each in sizes:
        for _ in range(min(n, most_tokens)):
            size = min(each, room)
            room -= size
            pages.append(bytes(size))
            sums += struct.pack("<Q", xxh64(pages[-1]) if size <= ALIGN else 0)
    data += sums
    header = -(-(len(data) + 8) // ALIGN) * ALIGN
    data += bytes(header - len(data))
    struct.pack_into("<Q", data, 8, header)
    signed(data, header)
    return "rebuilt: " + ", ".join(done), data + b"".join(pages)


def forge(whole: bytes, layout: Layout, draw: random.Random) -> tuple[str, bytearray]:
    """One forgery: what was done, and the file."""
    if draw.random() < 0.5:
        return rebuild(whole, layout, draw)
    data, done, header = bytearray(whole), [], layout.header
    kinds = ["figure", "bytes", "tokens", "page", "padding", "name", "length"]
    chosen = draw.choices(kinds, [60, 10, 6, 6, 4, 4, 10], k=draw.choice([1, 1, 1, 2, 3]))
    for kind in sorted(set(chosen), key=kinds.index):  # the length last: the others need the whole file
        if kind == "figure":
            name, at, code = draw.choice(layout.figures)
            (old,) = struct.unpack_from("<" + code, data, at)
            new = changed(old, code, whole, draw)
            struct.pack_into("<" + code, data, at, new)
            done.append(f"{name} {old} -> {new}")
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


def is_history(data: bytes, whole: Layout, prefix: bytes, max_tokens: int, vocab: int) -> bool:
    """Whether a file's figures are those of some history of the model that wrote `whole`; worked out here once more."""
    try:
        found = layout_of(data, whole.recurrent)
    except (struct.error, ValueError):
        return False
    same = (*GEOMETRY, "page bytes", "groups", "recurrent layers", "state bytes")
    v, names = found.values, [n for n in whole.values if n.split(" of ")[0] in same]
    if data[:8] + data[16 : len(prefix)] != prefix[:8] + prefix[16:] or any(v.get(n) != whole.values[n] for n in names):
        return False
    for g in range(v["groups"]):
        page_tokens, window = v[f"page_tokens of group {g}"], v[f"window of group {g}"]
        first, pages = v[f"first page of group {g}"], -(-v["tokens"] // page_tokens)
        if first and (not window or first * page_tokens + window > v["tokens"]):
            return False
        if v[f"pages of group {g}"] != pages - first:
            return False
    before = 0
    for i in range(v.get("states", 0)):  # behind whole pages, where a turn may have ended, or at the end
        position, whole_pages = v[f"position {i}"], v[f"position {i}"] % v["page_tokens of group 0"] == 0
        if not before < position <= v["tokens"] or not (whole_pages or position == v["tokens"]):
            return False
        if v[f"turn {i}"] > whole_pages:
            return False
        before = position
    tokens = struct.unpack_from(f"<{v['tokens']}i", data, found.tokens[0])
    padding = data[found.checksums[1] : found.header - 8]
    return (
        v["tokens"] <= max_tokens
        and all(0 <= token < vocab for token in tokens)
        and found.header == -(-(found.checksums[1] + 8) // ALIGN) * ALIGN
        and not any(padding)
        and found.end == len(data)
    )


def worker(model_path: str) -> None:
    """Restores each file named on stdin, uses it, and says what came of it."""
    from foundry import CompiledModel, ModelFormatError, NumericError

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
                except NumericError:  # of a page whose bits and checksum were changed alike: a history, of no numbers
                    pass
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
    """Models, and a history of each: empty, short, full, with pages that a window has passed, with states."""
    import families
    import synthetic
    from foundry import CompiledModel

    made = []
    size = {"heads": 8, "kv_heads": 8, "head_dim": 64}  # a page larger than the system's: behind the last is nothing
    for name, fields in (("llama", {}), ("gemma3", {"arch": "gemma3", "layers": 3, "window": 24})):
        shape = synthetic.Shape(**size, **fields)  # type: ignore[arg-type]
        synthetic.write(folder / f"{name}.gguf", shape)
    families.write(folder / "lfm2.gguf", families.FAMILIES["lfm2"], {"context_length": 512})
    for path in sorted(folder.glob("*.gguf")):
        model = CompiledModel.load(path, threads=1, page_tokens=8, chunk_tokens=16)
        for n in (0, 20, 100):
            with model.session() as s:
                ids = [i % 256 for i in range(n)]
                if n:
                    s.forward(ids[: n // 2])
                    s.generate(ids[n // 2 :], 1)  # a turn ended before it
                s.save(folder / "whole.kv")
            made.append((path, (folder / "whole.kv").read_bytes()))
    return made


def main(count: int, seed: int) -> int:
    import synthetic

    assert xxh64(b"") == 0xEF46DB3751D8E999 and xxh64(b"abc") == 0x44BC2CF5AD770999
    draw, came = random.Random(seed), collections.Counter[str]()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wholes = saves(folder)
        layouts = [layout_of(whole, path.stem == "lfm2") for path, whole in wholes]
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
            prefix = whole[: 28 + layouts[at].values["name length"]]
            history = is_history(bytes(data), layouts[at], prefix, 512, synthetic.VOCAB)
            if said == "accepted" and not history:
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
