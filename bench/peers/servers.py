"""Foundry's server beside llama.cpp's on one file, in turns within one run: ``python -m bench.peers.servers [model]``.

Needs ``httpx``, and llama.cpp's server: ``--llama-server`` is its program, built for this very machine; without it the
one in ``xllamacpp`` (PyPI) runs, which is built for many. A model is a name of ``bench.peers``, "0.5b-q4_0", which is
made under ``--work``, or what ``foundry pull`` takes. Each round asks completions of mixed lengths over
HTTP with 1, 4 and 16 clients, first of one server, then of the other; the medians over the rounds of tokens a second
and of the time to the first token are printed, with their ratio and the spread of the rounds' own ratios. Prompts are
never the same twice, so that nothing is found in a cache. Then the masks of a grammar are timed, on this model's
vocabulary. Figures of different runs are not to be compared: machines drift.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import foundry
import httpx

from bench.peers.models import SIZES, Model

WORDS = ("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "group")
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
LLAMA_CPP = """
import sys, time, xllamacpp
path, threads, parallel, context = sys.argv[1], *map(int, sys.argv[2:])
p = xllamacpp.CommonParams()
p.model.path, p.n_parallel, p.n_ctx, p.port = path, parallel, parallel * context, 0
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = threads
server = xllamacpp.Server(p)
print(server.listening_address, flush=True)
time.sleep(1 << 30)
"""


@dataclass(frozen=True)
class Figures:
    tokens_per_s: float
    first_s: float  # the median of the requests'


@contextmanager
def server(command: list[str]) -> Iterator[str]:
    """A process whose first line on stdout says where it listens; its address."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if "http://" in line:
                    yield json.loads(line)["url"] if line.startswith("{") else line.strip()
                    return
            raise SystemExit(f"{command[0]} has ended before it listened")
        finally:
            process.kill()


@contextmanager
def llama_server(program: str, path: str, threads: int, parallel: int, context: int) -> Iterator[str]:
    """llama.cpp's own program with so many slots of so many tokens each, once it says that it is well; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, slots = f"http://127.0.0.1:{port}", ["-np", str(parallel), "-c", str(parallel * context)]
    command = [program, "-m", path, "-t", str(threads), "-tb", str(threads), *slots, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                try:
                    if httpx.get(f"{url}/health").status_code == 200:
                        yield url
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.1)
            raise SystemExit(f"{program} has ended before it listened")
        finally:
            process.kill()


async def measure(url: str, clients: int, requests: int, seed: int, tokens_per_word: float) -> Figures:
    """So many requests of each of so many clients, with prompts of about 16 to 512 tokens."""
    first: list[float] = []
    tokens = 0

    async def one(client: httpx.AsyncClient, draw: random.Random) -> None:
        nonlocal tokens
        for _ in range(requests):
            words = round(draw.choice((16, 64, 256, 512)) / tokens_per_word)
            prompt = " ".join(draw.choice(WORDS) for _ in range(words))
            body = {"prompt": f"{draw.random()} {prompt}", "max_tokens": draw.choice((16, 32, 64)), "stream": True}
            body |= {"temperature": 0, "ignore_eos": True}
            began, seen = time.perf_counter(), False
            async with client.stream("POST", "/v1/completions", json=body) as answer:
                answer.raise_for_status()
                async for line in answer.aiter_lines():
                    if line.startswith("data: {") and not seen:
                        seen = True
                        first.append(time.perf_counter() - began)
            tokens += int(body["max_tokens"])

    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        began = time.perf_counter()
        await asyncio.gather(*(one(client, random.Random(f"{seed} {i}")) for i in range(clients)))
        return Figures(tokens / (time.perf_counter() - began), statistics.median(first))


def masks(model: foundry.CompiledModel, answers: int) -> tuple[int, float, float]:
    """Masks of a JSON schema while a model answers under it: how many, the median and the 99th percentile in ms."""
    from foundry.structured import matcher_for

    took: list[float] = []
    with model.session() as session:
        for seed in range(answers):
            params = foundry.SamplingParams(schema=SCHEMA, temperature=1.0, seed=seed)
            matcher = matcher_for(model, params)
            assert matcher is not None
            session.rewind(0)
            for token in session.generate("A person:", 60, params=params).token_ids:
                began = time.perf_counter()
                matcher.mask()
                took.append(1000 * (time.perf_counter() - began))
                if matcher.ends_with(token):
                    break
    took.sort()
    return len(took), statistics.median(took), took[len(took) * 99 // 100]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=foundry.hub.DEFAULT_MODEL)
    parser.add_argument("--work", type=Path, default=Path("build/peers"), help="made models stay there")
    parser.add_argument("--llama-server", help="llama.cpp's program")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--requests", type=int, default=4, help="of each client in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--answers", type=int, default=20, help="under the grammar whose masks are timed")
    a = parser.parse_args()
    made = a.model.partition("-")[0] in SIZES
    path = str(Model(a.model).file(a.work / "models") if made else foundry.pull(a.model))
    tokenizer = foundry.CompiledModel.load(path, threads=a.threads).tokenizer
    tokens_per_word = len(tokenizer.encode(" ".join(WORDS))) / len(WORDS)
    ours = [sys.executable, "-m", "foundry", "serve", path, "--port", "0", "--json", "--max-context", "2048"]
    if a.llama_server:
        theirs = llama_server(a.llama_server, path, a.threads, max(a.clients), 2048)
    else:
        theirs = server([sys.executable, "-c", LLAMA_CPP, path, str(a.threads), str(max(a.clients)), "2048"])
    with server([*ours, "--threads", str(a.threads)]) as one, theirs as other:
        for url in (one, other):
            asyncio.run(measure(url, 1, 1, -1, tokens_per_word))
        for clients in a.clients:
            found: list[tuple[Figures, Figures]] = []
            for i in range(a.rounds):
                turn = [asyncio.run(measure(url, clients, a.requests, i, tokens_per_word)) for url in (one, other)]
                found.append((turn[0], turn[1]))
            tell(clients, found)
    n, median, late = masks(foundry.CompiledModel.load(path, threads=a.threads), a.answers)
    vocabulary = foundry.CompiledModel.load(path).arch.vocab_size
    print(f"masks   {n} of a vocabulary of {vocabulary}: median {median:.3f} ms, 99th percentile {late:.3f} ms")


def tell(clients: int, found: list[tuple[Figures, Figures]]) -> None:
    for name, unit in (("tokens_per_s", "tokens/s"), ("first_s", "s to the first token")):
        ours, theirs = ([getattr(figures, name) for figures in of] for of in zip(*found, strict=True))
        ratios = sorted(x / y for x, y in zip(ours, theirs, strict=True))
        middle = [statistics.median(of) for of in (ours, theirs)]
        print(
            f"{clients:2} clients: foundry {middle[0]:8.2f}, llama.cpp {middle[1]:8.2f} {unit}: "
            f"ratio {statistics.median(ratios):.2f} (rounds {ratios[0]:.2f} to {ratios[-1]:.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
