"""What the system refuses (descriptors, memory, threads) is told as such, and never as the file's fault."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from foundry import CompiledModel, MemoryLimitError, hub

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs the limits that Linux enforces")


@contextmanager
def no_descriptors() -> Iterator[None]:
    """None that isn't open yet."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_descriptor_is_left(
    tiny_path: Callable[..., Path], tiny: CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for a file that ``pull`` put there: nothing is the matter with it, so nobody is told to fetch it again."""
    monkeypatch.setattr("foundry.hub.places.user_cache_dir", lambda name: str(tmp_path))
    path, file = hub.models_dir() / hub.PACKAGED["smollm2"].member, tmp_path / "chat.kv"
    path.parent.mkdir(parents=True)
    path.write_bytes(tiny_path().read_bytes())
    with tiny.session() as s:
        first = s.forward([1, 2, 3])
        s.save(file)
        for call, name in (
            (lambda: CompiledModel.load(path), path),
            (lambda: tiny.restore(file), file),
            (lambda: s.save(file), file),
        ):
            with no_descriptors(), pytest.raises(OSError) as error:
                call()
            assert (error.value.errno, error.value.filename) == (errno.EMFILE, str(name))
            assert "pull" not in str(error.value)
    with tiny.restore(file) as t, tiny.session() as fresh:
        assert np.array_equal(t.forward([4]), fresh.forward([1, 2, 3, 4]))
    assert first.shape == (259,)
    CompiledModel.load(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tiny_path: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny_path().read_bytes())
    path.chmod(0)
    with pytest.raises(PermissionError) as error:
        CompiledModel.load(path)
    assert error.value.filename == str(path)


UNDER_LIMITS = """
import os, resource, sys
from foundry import CompiledModel, MemoryLimitError
from foundry.checks import text  # all modules are here before memory is short
path, save, limits = sys.argv[1], sys.argv[2], [int(a) for a in sys.argv[3:]]

def attempt(extra):
    used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGESIZE")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, hard))
    try:
        model = CompiledModel.load(path, threads=1, memory_limit=1 << 40, page_tokens=8)
        with model.session() as s:
            s.forward(list(range(200)))
            s.save(save)
        with model.restore(save) as s:
            s.forward([1])
        return "whole"
    except (MemoryLimitError, OSError) as error:
        return type(error).__name__
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))

attempt(1 << 40)
print(*[attempt(extra) for extra in limits])
print(attempt(1 << 40))
"""


@LINUX
def test_memory_that_runs_short_anywhere(tiny_path: Callable[..., Path], tmp_path: Path) -> None:
    """Address space for less and less of a load, a step, a save and a restore: each failure is typed."""
    path = tiny_path(hidden=256, heads=8, head_dim=32, ffn=1024, layers=4)
    limits = [str(extra << 10) for extra in range(0, 24 << 10, 256)]
    found = subprocess.run(
        [sys.executable, "-c", UNDER_LIMITS, str(path), str(tmp_path / "chat.kv"), *limits],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    outcomes, after = found.stdout.splitlines()
    print(outcomes)
    assert after == "whole"
    assert set(outcomes.split()) == {"MemoryLimitError", "whole"}


def test_memory_that_runs_short_in_pythons_own_objects(
    tiny_path: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("foundry.model.build_graph", refused)
    with pytest.raises(MemoryLimitError, match=r"\.gguf: the system has no memory for it"):
        CompiledModel.load(tiny_path())


UNDER_NO_THREADS = """
import errno, resource, sys
from foundry import CompiledModel
resource.setrlimit(resource.RLIMIT_AS, (int(open("/proc/self/statm").read().split()[0]) * 4096 + (64 << 20), -1))
try:
    CompiledModel.load(sys.argv[1], threads=512)
    print("none")
except OSError as error:
    print(error.errno == errno.EAGAIN, error.filename, error)
"""


@LINUX
def test_threads_that_the_system_does_not_start(tiny_path: Callable[..., Path]) -> None:
    """512 stacks don't fit into 64 MiB of address space."""
    found = subprocess.run(
        [sys.executable, "-c", UNDER_NO_THREADS, str(tiny_path())], capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("True None [Errno 11] threads: expected 512, the system started ")
