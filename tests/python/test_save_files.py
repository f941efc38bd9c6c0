"""Where a save goes: what is replaced, what is refused, and that killed or crowded saves leave nothing behind."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from foundry import CompiledModel, Session

IDS = [3 * i % 256 for i in range(60)]
PART = ".foundry-part-0123456789abcdef"


@pytest.fixture
def session(tiny: CompiledModel) -> Iterator[Session]:
    with tiny.session() as s:
        s.forward(IDS)
        yield s


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "saves").mkdir()
    return tmp_path / "saves"


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def restores(model: CompiledModel, path: Path, n: int = len(IDS)) -> bool:
    with model.restore(path) as t:
        t.forward([1])  # reads and checks every page
        return t.position == n + 1


def test_what_is_no_regular_file_is_refused_and_stays(
    session: Session, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(folder / "fifo")
    (folder / "link to fifo").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(folder)  # a socket's name is short
        listening.bind("socket")
        for name in ("fifo", "link to fifo", "socket", "/dev/null"):
            before = os.stat(folder / name)
            with pytest.raises(OSError, match="expected a regular file or a new name, found a FIFO") as error:
                session.save(folder / name)
            assert (error.value.errno, error.value.filename) == (errno.EINVAL, str(folder / name))
            after = os.stat(folder / name)
            assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert names(folder) == ["fifo", "link to fifo", "socket"]


def test_a_symlink_is_followed(tiny: CompiledModel, session: Session, folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "old.kv").write_bytes(b"old")
    (folder / "a").symlink_to("../elsewhere/old.kv")  # relative to its own folder
    (folder / "b").symlink_to(folder / "a")  # a link to a link
    (folder / "c").symlink_to(elsewhere / "new.kv")  # to what isn't there yet
    for name, target in (("a", "old.kv"), ("b", "old.kv"), ("c", "new.kv")):
        session.save(folder / name)
        assert (folder / name).is_symlink() and restores(tiny, elsewhere / target)
    assert names(folder) == ["a", "b", "c"] and names(elsewhere) == ["new.kv", "old.kv"]
    (folder / "x").symlink_to("y")
    (folder / "y").symlink_to("x")
    with pytest.raises(OSError) as error:
        session.save(folder / "x")
    assert error.value.errno == errno.ELOOP


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o664, 0o400, 0o444])
def test_an_old_file_keeps_its_mode(session: Session, folder: Path, mode: int) -> None:
    path = folder / "chat.kv"
    path.write_bytes(b"old")
    path.chmod(mode)
    session.save(path)
    assert mode_of(path) == mode and path.stat().st_size > 16384


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_that_new_files_have(session: Session, folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        session.save(folder / "chat.kv")
    finally:
        os.umask(before)
    assert mode_of(folder / "chat.kv") == 0o666 & ~umask


def test_names_up_to_the_systems_limit(session: Session, folder: Path) -> None:
    session.save(folder / ("n" * 255))
    with pytest.raises(OSError) as error:
        session.save(folder / ("n" * 256))
    assert error.value.errno == errno.ENAMETOOLONG
    assert names(folder) == ["n" * 255]


def test_parts_that_nobody_writes_are_removed_and_nothing_else(session: Session, folder: Path) -> None:
    left, live = folder / PART, folder / (PART[:-1] + "0")
    others = [PART + ".txt", PART[:-1], PART.upper(), ".foundry-part-notes", "foundry-part-0123456789abcdef"]
    for name in (left, live, *(folder / name for name in others)):
        name.write_bytes(b"half a save")
    (folder / (PART[:-1] + "1")).mkdir()
    (folder / (PART[:-1] + "2")).symlink_to("others")
    kept = sorted([*others, live.name, PART[:-1] + "1", PART[:-1] + "2", "chat.kv"])
    with live.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)  # as a save holds it
        session.save(folder / "chat.kv")
        assert names(folder) == kept
    session.save(folder / "chat.kv")
    assert names(folder) == sorted(set(kept) - {live.name})


def test_saves_into_one_folder_at_once(tiny: CompiledModel, folder: Path) -> None:
    """They see each other's parts, and let them be."""
    failed: list[BaseException] = []

    def save(thread: int) -> None:
        try:
            with tiny.session() as s:
                s.forward(IDS)
                for i in range(40):
                    s.save(folder / ("shared" if i % 2 else f"own {thread}"))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=save, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert names(folder) == ["own 0", "own 1", "own 2", "own 3", "shared"]
    assert all(restores(tiny, folder / name) for name in names(folder))


def kill_saves(model: CompiledModel, session: Session, folder: Path, kills: int) -> int:
    """Kills so many processes that save, and more until one has left a part; returns how many were left in all."""
    draw, parts, i = random.Random(1), 0, -1
    while (i := i + 1) < kills or (parts == 0 and i < 20 * kills):
        begun, begin = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(begin, b".")
            while True:  # an old path and a new one
                session.save(folder / "old.kv")
                session.save(folder / f"new {i}.kv")
        assert os.read(begun, 1) == b"."
        time.sleep(draw.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(begun)
        os.close(begin)
        parts += sum(name.startswith(".") for name in names(folder))
        session.save(folder / ("old.kv" if i % 2 else f"next {i}.kv"))
        assert not [name for name in names(folder) if name.startswith(".")], f"after kill {i}"
        assert all(restores(model, path) for path in folder.iterdir())
        for path in folder.iterdir():
            if path.name != "old.kv":
                path.unlink()
    session.save(folder / "old.kv")
    assert names(folder) == ["old.kv"]
    return parts


@pytest.mark.skipif(sys.platform == "darwin", reason="a forked process of a Mac may not go on computing")
@pytest.mark.parametrize("kills", [20, pytest.param(120, marks=pytest.mark.slow)])
def test_killed_saves_leave_nothing_once_the_next_is_done(
    tiny: CompiledModel, session: Session, folder: Path, kills: int
) -> None:
    parts = kill_saves(tiny, session, folder, kills)
    print(f"{kills} kills left {parts} parts until the next save")
    assert parts > 0
