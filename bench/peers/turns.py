"""Engines in turns: workers that stay, of which one computes at a time, and what they reach in each round."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from bench.machine import NOTICED, Watch
from bench.peers.models import Model
from bench.peers.rows import EIGHT, PREFILL_TOKENS, Row

ROOT = Path(__file__).parents[2]
SPIN = "while True: pass"
SETTLE_S = 0.5  # after another process begins, before a rate is taken
DISTURBED_S = 8.0  # a disturbed decode ends after this: spinning engines make less than a token a second
PROMPT = "The capital of France is a city on a river. What do you know of it?"

Answer = dict[str, Any]


class Failed(Exception):
    """What an engine said that it can't do, or how it ended."""


class Handle:
    """A worker's process. ``setting`` is what opens are given beside the row's own."""

    def __init__(self, python: str, engine: str, folder: Path, setting: Answer | None = None) -> None:
        self.setting = setting or {}
        command = [python, "-m", "bench.peers.worker", engine, str(folder)]
        self._log = (folder.parent / f"{folder.name}.log").open("a")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, cwd=ROOT
        )

    def ask(self, do: str, timeout: float = 3600, **arguments: Any) -> Answer:
        """Its answer. Failed for an error, for a process that has ended, and for one that was given up."""
        assert self._process.stdin is not None and self._process.stdout is not None
        patience = threading.Timer(timeout, self._process.kill)
        patience.start()
        try:
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            patience.cancel()
        if not line:
            raise Failed(f"the process ended with status {self._process.wait()}")
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it may have ended
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


@contextmanager
def another_process() -> Iterator[None]:
    """One that never waits, at the same priority, on the last core that this process may use."""
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    with subprocess.Popen([sys.executable, "-c", SPIN]) as process:
        try:
            if core is not None:
                os.sched_setaffinity(process.pid, {core})
            time.sleep(SETTLE_S)
            yield
        finally:
            process.kill()


def steps(depth: int) -> int:
    """Tokens of a decode: about a second's."""
    return 64 if depth <= 2048 else 32 if depth <= 8192 else 16


def rates(handle: Handle, row: Row) -> dict[str, float]:
    """What one engine reaches in a row's turn: tokens a second, by figure."""
    n = steps(row.depth)
    if row.work == "prefill":
        return {"prefill": handle.ask("prefill", tokens=PREFILL_TOKENS)["tokens_per_s"]}
    if row.work == "eight":
        return {"decode": handle.ask("decode", steps=n // 2)["tokens_per_s"]}
    alone = handle.ask("decode", steps=n)["tokens_per_s"]
    if row.work == "decode":
        return {"decode": alone}
    if row.work == "threads":
        return {"decode": alone, "prefill": handle.ask("prefill", tokens=PREFILL_TOKENS)["tokens_per_s"]}
    with another_process():
        beside = handle.ask("decode", steps=n, seconds=DISTURBED_S)["tokens_per_s"]
    return {"alone": alone, "beside": beside}


def quietest(take: Callable[[], dict[str, float]], tries: int) -> tuple[dict[str, float], float]:
    """A turn beside which others had the processors least, of so many at most; and how many cores they had. The first
    that nobody disturbs ends it. What it reaches has no say: only what others did."""
    best: tuple[dict[str, float], float] | None = None
    for _ in range(tries):
        watch = Watch()
        found = take()
        others = watch.others()
        if best is None or others < best[1]:
            best = found, others
        if others <= NOTICED:
            break
    assert best is not None
    return best


def opened(handles: dict[str, Handle], row: Row, path: str) -> tuple[dict[str, str], dict[str, str]]:
    """What each engine says of the row's histories, and of those that can't have them, why."""
    model_setting = {"path": path, "kv": row.kv, "depth": row.depth, "threads": row.threads}
    model_setting["sequences"] = EIGHT if row.work == "eight" else 1
    model_setting["whole"] = Model(row.model).hybrid is not None
    histories, errors = {}, {}
    for name, handle in handles.items():
        if row.kv == "q8_0" and not handle.setting.get("flash_attention", True):
            continue  # llama.cpp keeps V in q8_0 with flash attention alone
        try:
            histories[name] = handle.ask("open", **model_setting, **handle.setting)["history"]
            handle.ask("prefill", tokens=32)  # each warms up
            handle.ask("decode", steps=4)
        except Failed as error:
            histories.pop(name, None)
            errors[name] = str(error)
    return histories, errors


def measure(handles: dict[str, Handle], rows: list[Row], path: str, rounds: int, tries: int) -> dict[str, Answer]:
    """Rows of one setting: in each round every engine's turn, the order reversed from round to round."""
    histories, errors = opened(handles, rows[0], path)
    found: dict[str, Answer] = {
        row.name: {"histories": histories, "errors": dict(errors), "rounds": [], "others": []} for row in rows
    }
    for i in range(rounds):
        for row in rows:
            result = found[row.name]
            turn: dict[str, dict[str, float]] = {}
            others = 0.0
            for name in list(histories)[:: 1 if i % 2 == 0 else -1]:
                if name in result["errors"]:
                    continue
                try:
                    turn[name], beside = quietest(partial(rates, handles[name], row), tries)
                    others = max(others, beside)
                except Failed as error:
                    result["errors"][name] = str(error)
            result["rounds"].append(turn)
            result["others"].append(others)
    return found


LOADS = {"foundry": ("foundry", {}), "llama_cpp": ("llama_cpp", {"n_ctx": 2048})}
LOADS["llama_cpp, n_ctx 32,768"] = ("llama_cpp", {"n_ctx": 32768})


def measure_loads(pythons: dict[str, str], row: Row, path: str, rounds: int, folder: Path) -> Answer:
    """From the start of a process, and from the start of its load, to the first token; and its peak memory then."""
    result: Answer = {"histories": {}, "errors": {}, "rounds": [], "others": []}
    for _ in range(rounds + 1):  # the first has the file come into the page cache
        turn, watch = {}, Watch()
        for name, (engine, setting) in LOADS.items():
            if engine not in pythons or name in result["errors"]:
                continue
            began = time.perf_counter()
            handle = Handle(pythons[engine], engine, folder / engine)
            try:
                before = handle.ask("memory")["peak_bytes"]
                loads = time.perf_counter()
                handle.ask("open", path=path, threads=row.threads, **setting)
                peak = handle.ask("first_token", text=PROMPT)["peak_bytes"]
                now = time.perf_counter()
                turn[name] = {"start_s": now - began, "load_s": now - loads, "peak": peak, "imports": before}
            except Failed as error:
                result["errors"][name] = str(error)
            finally:
                handle.close()
        result["rounds"].append(turn)
        result["others"].append(watch.others())
    for figures in (result["rounds"], result["others"]):
        del figures[0]
    return result
