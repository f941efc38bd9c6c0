"""One engine in a process that stays: a command a line of JSON on standard input, an answer a line on standard output.

Between commands it sleeps, so that of several workers one computes at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from bench.machine import peak_bytes
from bench.peers.engines import Engine, Setup, load, random_ids

Answer = dict[str, Any]


class Worker:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sequences = 1

    def versions(self) -> Answer:
        return {"versions": self._engine.versions()}

    def open(self, **setup: Any) -> Answer:
        self._sequences = setup.get("sequences", 1)
        return {"history": self._engine.open(Setup(**setup))}

    def prefill(self, tokens: int) -> Answer:
        """Of a prompt behind the history, which then is what it was."""
        ids = random_ids(tokens, 3)
        began = time.perf_counter()
        self._engine.forward(ids)
        seconds = time.perf_counter() - began
        self._engine.rewind()
        return {"tokens_per_s": tokens / seconds}

    def decode(self, steps: int, seconds: float = 60.0) -> Answer:
        """Of all histories together, a token each in a step; no more steps once ``seconds`` have passed."""
        ids = random_ids(steps * self._sequences, 4).reshape(steps, self._sequences)
        done = 0
        began = time.perf_counter()
        while done < steps and time.perf_counter() - began < seconds:
            self._engine.step(ids[done])
            done += 1
        took = time.perf_counter() - began
        self._engine.rewind()
        return {"tokens_per_s": done * self._sequences / took, "steps": done}

    def generate(self, tokens: int) -> Answer:
        """Of all histories together."""
        began = time.perf_counter()
        self._engine.generate(tokens)
        took = time.perf_counter() - began
        self._engine.rewind()
        return {"tokens_per_s": tokens * self._sequences / took}

    def grow(self, growths: int) -> Answer:
        """Foundry's alone."""
        over: Any = self._engine
        figure = over.grow(growths)
        self._engine.rewind()
        return {"over_neighbours": figure}

    def first_token(self, text: str) -> Answer:
        self._engine.first_token(text)
        return {"peak_bytes": peak_bytes()}

    def memory(self) -> Answer:
        return {"peak_bytes": peak_bytes()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=["foundry", "llama_cpp"])
    parser.add_argument("folder", type=Path, help="for files of its own")
    a = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an engine prints is no answer
    a.folder.mkdir(parents=True, exist_ok=True)
    worker = Worker(load(a.engine, a.folder))
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(worker, command.pop("do"))(**command)
        except Exception as error:  # whatever an engine raises is what's reported
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
