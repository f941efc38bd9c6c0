"""Damaged model files of every format and family, split files and directories, counted: each works, or is refused with
a typed error. A crash, a hang or another error fails.

    python tests/fuzz/damaged_models.py --count 3000

Variants are numbered: the same number gives the same bytes, so `--first 1234 --keep folder` shows one again.
Workers are processes of their own, which a crash or a hang ends; the next one goes on behind it.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import faulthandler
import random
import re
import struct
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from samples import Sample, groups

# What may be said of a file. ValueError would call it the caller's fault, MemoryError and ConsistencyError ours.
TYPED = ("ModelFormatError", "MemoryLimitError", "ContextOverflowError", "NumericError")
SECONDS = 20  # of one variant, on a busy machine
START_SECONDS = 200  # of a worker, likewise
ADDRESSES = 4 << 30  # bytes that a worker may map: a count that nothing bounds fails here, and not the machine

WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # GGUF specification, value types
STRING, ARRAY = 8, 9
Field = tuple[str, int, int]  # what it is, where, bytes


def fields(data: bytes) -> tuple[list[Field], int]:
    """Every number that the header holds, and where the tensors' data begins."""
    found: list[Field] = [("count", 8, 8), ("count", 16, 8)]
    at = 24

    def number(kind: str, width: int) -> int:
        nonlocal at
        found.append((kind, at, width))
        at += width
        return int.from_bytes(data[at - width : at], "little")

    def string() -> None:
        nonlocal at
        n = number("length", 8)  # moves at
        at += n

    def value(kind: int) -> None:
        nonlocal at
        if kind == STRING:
            string()
        elif kind == ARRAY:
            of, n = number("type", 4), number("length", 8)
            if of == STRING:
                for _ in range(n):
                    string()
            else:
                at += n * WIDTHS[of]
        else:
            number("value", WIDTHS[kind])

    tensors, keys = struct.unpack_from("<QQ", data, 8)
    for _ in range(keys):
        string()
        value(number("type", 4))
    for _ in range(tensors):
        string()
        for _ in range(number("rank", 4)):
            number("dimension", 8)
        number("format", 4)
        number("offset", 8)
    return found, -(-at // 32) * 32


def flipped(data: bytearray, random: random.Random, first: int, end: int) -> None:
    for _ in range(random.choice((1, 1, 2, 8))):
        data[random.randrange(first, end)] ^= 1 << random.randrange(8)


def overwritten(data: bytearray, random: random.Random, first: int, end: int) -> None:
    at = random.randrange(first, end)
    n = min(random.choice((1, 4, 8, 64)), end - at)
    data[at : at + n] = random.choice((b"\0", b"\xff", random.randbytes(1))) * n


def edited(data: bytearray, random: random.Random, header: list[Field]) -> None:
    _, at, width = random.choice(header)
    old = int.from_bytes(data[at : at + width], "little")
    most = (1 << 8 * width) - 1
    new = random.choice((0, 1, old + 1, old - 1, old * 2, most, most >> 1, (most >> 1) + 1, random.randrange(most + 1)))
    data[at : at + width] = (new & most).to_bytes(width, "little")


def with_other_types(data: bytearray, random: random.Random, header: list[Field]) -> None:
    _, at, width = random.choice([field for field in header if field[0] in ("type", "format")])
    data[at : at + width] = random.randrange(42).to_bytes(width, "little")


def with_huge_counts(data: bytearray, random: random.Random, header: list[Field]) -> None:
    kinds = ("count", "length", "rank", "dimension", "offset")
    _, at, width = random.choice([field for field in header if field[0] in kinds])
    new = min(random.choice((1 << 20, 1 << 31, 1 << 32, 1 << 40, 1 << 61, (1 << 64) - 1)), (1 << 8 * width) - 1)
    data[at : at + width] = new.to_bytes(width, "little")


def with_numbers_exchanged(data: bytearray, random: random.Random, header: list[Field]) -> None:
    kind, at, width = random.choice(header)
    _, other, _ = random.choice([field for field in header if field[0] == kind and field[2] == width])
    data[at : at + width], data[other : other + width] = data[other : other + width], data[at : at + width]


def spliced(data: bytearray, random: random.Random, end: int) -> None:
    a, b = sorted(random.sample(range(end), 2))
    b = min(b, a + 200)
    if random.random() < 0.5:
        del data[a:b]
    else:
        data[a:a] = data[b : b + random.randrange(1, 64)]


def of_gguf(data: bytearray, r: random.Random) -> str:
    """Damages a GGUF file; returns how."""
    header, start = fields(bytes(data))
    ways: dict[str, Callable[[], None]] = {
        "cut short": lambda: data.__delitem__(slice(r.randrange(r.choice((start, len(data)))), None)),
        "bits of the header": lambda: flipped(data, r, 0, start),
        "bytes of the header": lambda: overwritten(data, r, 0, start),
        "a field": lambda: edited(data, r, header),
        "several fields": lambda: [edited(data, r, header) for _ in range(3)] and None,
        "a type": lambda: with_other_types(data, r, header),
        "a huge count": lambda: with_huge_counts(data, r, header),
        "two fields exchanged": lambda: with_numbers_exchanged(data, r, header),
        "taken out or put in": lambda: spliced(data, r, start),
    }
    if start < len(data):  # or it is a part without tensors
        ways |= {
            "bits of the weights": lambda: flipped(data, r, start, len(data)),
            "bytes of the weights": lambda: overwritten(data, r, start, len(data)),
        }
    kind = r.choice(list(ways))
    ways[kind]()
    return kind


def with_other_value(data: bytearray, r: random.Random, end: int) -> None:
    """A number, word or list of the JSON in the first ``end`` bytes becomes another one."""
    found = list(re.finditer(rb'-?\d+(\.\d+)?|true|false|null|"[^"]{0,60}"|\[[^][]{0,60}\]', bytes(data[:end])))
    at = r.choice(found)
    values = (
        b"0",
        b"-1",
        b"1e999",
        b"9" * 30,
        b"null",
        b"true",
        b"[]",
        b"{}",
        b'"x"',
        b"1.5",
        b"NaN",
        b"[[1]]",
        b'"\\ud800"',
    )
    data[at.start() : at.end()] = r.choice(values)


def of_json(data: bytearray, r: random.Random, start: int = 0, end: int | None = None) -> str:
    """Damages JSON, which stands from ``start`` to ``end``; returns how."""
    last = len(data) if end is None else end
    ways: dict[str, Callable[[], None]] = {
        "bits of JSON": lambda: flipped(data, r, start, last),
        "bytes of JSON": lambda: overwritten(data, r, start, last),
        "a value of JSON": lambda: with_other_value(data, r, last),
        "several values of JSON": lambda: [with_other_value(data, r, last) for _ in range(3)] and None,
        "JSON taken out or put in": lambda: spliced(data, r, last),
    }
    kind = r.choice(list(ways))
    ways[kind]()
    return kind


def of_safetensors(data: bytearray, r: random.Random) -> str:
    end = 8 + int.from_bytes(data[:8], "little")
    kind = r.choice(("cut short", "length", "weights", "JSON", "JSON", "values that fit"))
    if kind == "cut short":
        del data[r.randrange(r.choice((end, len(data)))) :]
    elif kind == "length":
        data[:8] = r.choice((0, 1, end, end + 8, 1 << 31, 1 << 63, r.randrange(end))).to_bytes(8, "little")
    elif kind == "weights":
        flipped(data, r, end, len(data))
    elif kind == "JSON":
        return of_json(data, r, 8, end)
    else:  # so that the header's length stays right
        text = bytearray(data[8:end])
        with_other_value(text, r, len(text))
        data[:end] = len(text).to_bytes(8, "little") + text
    return kind


def damaged(index: int, groups: Mapping[str, Sequence[Sample]]) -> tuple[str, Sample]:
    """The variant's kind and its files."""
    r = random.Random(index)
    name = list(groups)[index % len(groups)]
    sample = groups[name][index // len(groups) % len(groups[name])]
    files = dict(sample.files)
    if len(files) > 1 and r.random() < 0.08:
        kind = r.choice(("a file missing", "two files exchanged"))
        one, other = r.sample(sorted(files), 2)
        if kind == "a file missing":
            del files[one if one != sample.opened else other]  # no such file at all is an OSError
        else:
            files[one], files[other] = files[other], files[one]
        return f"{name}: {kind}", Sample(files, sample.opened)
    file = r.choice(sorted(files))
    data = bytearray(files[file])
    if file.endswith(".gguf"):
        kind = of_gguf(data, r)
    elif file.endswith(".safetensors"):
        kind = of_safetensors(data, r)
    elif file.endswith(".json"):
        kind = of_json(data, r)
    else:
        kind = "bits of a template"
        flipped(data, r, 0, len(data))
    return f"{name}: {kind}", Sample({**files, file: bytes(data)}, sample.opened)


def attempt(path: Path) -> str:
    """Opens, plans, loads and runs; the outcome is "works" or the error's class."""
    from foundry import CompiledModel

    try:
        model = CompiledModel.load(path, threads=1, page_tokens=8)
        model.plan(16, 16)
        with model.session(4, 4) as session:
            session.forward([0])
            session.generate("Hi the", 2)
        if model.tokenizer.chat_template is not None:
            model.tokenizer.encode_chat([{"role": "user", "content": "Hi"}])
    except Exception as error:
        if type(error).__name__ in TYPED:
            return type(error).__name__
        raise
    return "works"


def work(first: int, end: int) -> None:
    """A worker: a line before each variant and one after it, so that whoever reads knows which one it died of."""
    import resource

    import foundry.session  # all modules, before addresses are counted
    import foundry.tokenizer  # noqa: F401

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    with tempfile.TemporaryDirectory() as folder:
        whole = groups()
        for index in range(first, end):
            kind, sample = damaged(index, whole)
            for old in Path(folder).iterdir():
                old.unlink()
            path = sample.write(Path(folder))
            print(f"begin {index} {kind}", flush=True)
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            try:
                outcome = attempt(path)
            except BaseException as error:  # a panic of the tokenizer's library is no Exception
                outcome = f"! {type(error).__name__}: {error}".replace("\n", " ")[:300]
            faulthandler.cancel_dump_traceback_later()
            print(f"end {index} {outcome}", flush=True)


def batch(first: int, end: int) -> tuple[collections.Counter[str], list[str]]:
    """Outcomes by kind of damage, and what failed, of the variants first to end - 1."""
    counted: collections.Counter[str] = collections.Counter()
    failed: list[str] = []
    while first < end:
        command = [sys.executable, __file__, "--worker", str(first), str(end)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=START_SECONDS + SECONDS * (end - first)
            )
            out, err, ended = done.stdout, done.stderr, f"exit status {done.returncode}"
        except subprocess.TimeoutExpired as error:
            out, err, ended = (error.stdout or b"").decode(), "", "hung"
        if not out:
            raise RuntimeError(f"a worker ended before its first variant: {ended}\n{err[-2000:]}")
        at, kind, ended_at = first, "", -1
        for line in out.splitlines():
            word, number, rest = line.split(" ", 2)
            if word == "begin":
                at, kind, ended_at = int(number), rest, -1
            else:
                ended_at = int(number)
                counted[f"{kind}: {rest if not rest.startswith('!') else 'FAILED'}"] += 1
                if rest.startswith("!"):
                    failed.append(f"{number} ({kind}): {rest[2:]}")
        if ended_at == at == end - 1:
            break
        counted[f"{kind}: FAILED"] += 1
        failed.append(f"{at} ({kind}): {ended}\n{err[-2000:]}")
        first = at + 1
    return counted, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="write the first variant's files into this folder, and run nothing")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        work(*arguments.worker)
        return 0
    if arguments.keep is not None:
        kind, sample = damaged(arguments.first, groups())
        arguments.keep.mkdir(exist_ok=True)
        print(f"variant {arguments.first}: {kind}: {sample.write(arguments.keep)}")
        return 0
    end = arguments.first + arguments.count
    starts = range(arguments.first, end, 100)
    counted: collections.Counter[str] = collections.Counter()
    failed: list[str] = []
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for more, worse in pool.map(batch, starts, [min(start + 100, end) for start in starts]):
            counted += more
            failed += worse
    for outcome, n in sorted(counted.items()):
        print(f"{outcome:<64}{n:>6}")
    for line in failed:
        print(f"FAILED {line}")
    print(f"damaged models: {counted.total()} tried, {len(failed)} failed")
    return 1 if failed or counted.total() != arguments.count else 0


if __name__ == "__main__":
    sys.exit(main())
