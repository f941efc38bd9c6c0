"""The process ends or forks while threads are in the core: no abort, no hang, no report of leaks."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import Tiny

EXITS = int(os.environ.get("FOUNDRY_EXITS", "100"))  # in the slow test

BEGIN = """
import os, sys, threading, time
import foundry
path = sys.argv[1]
model = foundry.CompiledModel.load(path, threads=2, page_tokens=8, chunk_tokens=8)
session, other = model.session(), model.session()
ids = [i % 200 for i in range(400)]
inside = threading.Event()
def told(done, total):
    inside.set()
def again(call):
    def loop():
        while True:
            call()
    return loop
def start(call):
    threading.Thread(target=call, daemon=True).start()
    assert inside.wait(10)
"""


def run(path: Path, script: str, delay: float = 0.0) -> subprocess.CompletedProcess[str]:
    code = BEGIN + textwrap.dedent(script)
    return subprocess.run(
        [sys.executable, "-c", code, str(path), str(delay)], capture_output=True, text=True, timeout=60
    )


# Each leaves a daemon thread in the core, or in a callback of it, when the main thread ends.
LIVE: dict[str, str] = {
    "forward": "start(again(lambda: (session.rewind(0), session.forward(ids, progress=told))))",
    "score": "start(again(lambda: (session.rewind(0), session.score(ids, progress=told))))",
    "generate": "start(again(lambda: (session.rewind(0), session.generate(ids[:9], 50, progress=told))))",
    "batch": "inside.set(); start(again(lambda: (session.rewind(0), model.forward([(session, ids)]))))",
    "waiting for a turn": """
        start(again(lambda: (session.rewind(0), session.forward(ids, progress=told))))
        start(again(lambda: (other.rewind(0), other.forward(ids))))
    """,
    "in a callback": "start(lambda: session.forward(ids, progress=lambda done, total: (inside.set(), time.sleep(60))))",
    "load": "inside.set(); start(again(lambda: foundry.CompiledModel.load(path, progress=lambda f: None)))",
    "save and restore": """
        session.forward(ids)
        file = path + ".kv"
        session.save(file)
        inside.set()
        start(again(lambda: (session.save(file), model.restore(file).forward([1]))))
    """,
    "outside": "inside.set(); start(lambda: time.sleep(60))",
}
END = "\ntime.sleep(float(sys.argv[2]))\n"


@pytest.mark.parametrize("live", LIVE)
def test_python_ends_with_a_thread_in_a_call(tiny_path: Tiny, live: str) -> None:
    done = run(tiny_path(), textwrap.dedent(LIVE[live]) + END, 0.05)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_python_ends_at_any_moment_of_a_call(tiny_path: Tiny) -> None:
    kinds = [live for live in LIVE if live != "in a callback"]  # which takes all of the hook's patience
    for i in range(EXITS):
        live = kinds[i % len(kinds)]
        done = run(tiny_path(), textwrap.dedent(LIVE[live]) + END, 0.0003 * (i % 97))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), (i, live)


FORKED = """
def child(*calls):
    pid = os.fork()
    if pid == 0:
        for call in calls:
            try:
                call()
            except foundry.ForkedError as error:
                assert "fork" in str(error), error
            else:
                raise SystemExit(f"no error from {call}")
        sys.exit(7)  # as Python ends: everything is taken down
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    raise SystemExit("the child hangs")
"""


@pytest.mark.filterwarnings("ignore")
def test_a_child_forked_in_the_middle_of_a_step_is_told(tiny_path: Tiny) -> None:
    done = run(
        tiny_path(),
        FORKED
        + textwrap.dedent("""
        start(again(lambda: (session.rewind(0), session.forward(ids, progress=told))))
        idle = foundry.CompiledModel.load(path, threads=2, page_tokens=8)
        expected = idle.session().forward(ids).tobytes()
        def idle_works():
            assert idle.session().forward(ids).tobytes() == expected
            raise foundry.ForkedError("fork: no error is right here")
        for i in range(8):
            # A fork now and then falls between two calls: then the model is idle, and works.
            code = 0
            while code != 7:
                code = child(
                    lambda: session.position, lambda: session.token_ids, lambda: session.rewind(0),
                    lambda: session.forward([1]), lambda: session.generate([1], 1), lambda: session.save(path + ".no"),
                    lambda: session.fork(), lambda: other.forward([1]), lambda: other.kv_bytes, lambda: model.session(),
                    lambda: model.forward([(other, [1])]), lambda: model.plan(10), lambda: model.memory(), idle_works,
                )
                assert code in (1, 7), code
    """),
    )
    assert done.returncode == 0, done.stderr
    assert "hangs" not in done.stderr


def test_a_child_forked_when_nothing_runs_goes_on(tiny_path: Tiny) -> None:
    done = run(
        tiny_path(),
        FORKED
        + textwrap.dedent("""
        session.forward(ids)
        expected = session.fork().forward([1, 2, 3]).tobytes()
        def works():
            assert session.fork().forward([1, 2, 3]).tobytes() == expected
            assert model.session().generate(ids[:20], 5).usage.completion_tokens > 0
            raise foundry.ForkedError("fork: no error is right here")
        for _ in range(5):
            assert child(works) == 7
        assert session.fork().forward([1, 2, 3]).tobytes() == expected
    """),
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_fork_in_a_callback_ends_the_call_in_the_child(tiny_path: Tiny) -> None:
    done = run(
        tiny_path(),
        """
        children = []
        def fork(done, total):
            if not children:
                children.append(os.fork())
        try:
            session.forward(ids, progress=fork)
        except foundry.ForkedError:
            os._exit(7 if children == [0] else 1)
        assert children[0] != 0, "the child goes on"
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 7
        assert session.position == len(ids)
    """,
    )
    assert (done.returncode, done.stderr) == (0, "")
